//! Links: what they carry, whom they trust, and how they end.

use std::cell::RefCell;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::rc::Rc;
use std::time::{Duration, Instant};

use glommio::timer::Timer;
use glommio::{LocalExecutorBuilder, executor};
use minikafka_core::limits::LINK_QUEUE_BYTES_MAX;
use minikafka_core::wire::frame::{Envelope, FrameLimits};
use minikafka_core::wire::{
    Api, FRAME_HEADER_BYTES, FrameHeader, HelloReply, PROTOCOL_MAX, Prover, Role, Wire, encode_frame, prove,
};
use minikafka_core::{ErrorCode, NodeId, ShardId};
use minikafka_net::{ClusterSecret, Link, LinkConfig, LinkEnd, LinkTarget, SharedBytes};

use super::support::*;

fn target(address: SocketAddr) -> LinkTarget {
    LinkTarget { address, node: NodeId(3), shard: ShardId(1) }
}

/// How a link ended, if it has.
type Ended = Rc<RefCell<Option<LinkEnd>>>;

fn open(target: LinkTarget, secret: &[u8]) -> (Link, Ended) {
    let config = LinkConfig {
        cluster: CLUSTER,
        secret: ClusterSecret::new(secret),
        name: "test".to_owned(),
        nonce: Box::new(|| [3; 16]),
        queue: executor().current_task_queue(),
    };
    let ended = Ended::default();
    let told = ended.clone();
    let link = Link::open(target, Rc::new(config), move |end| {
        assert!(told.replace(Some(end)).is_none(), "told once");
    });
    (link, ended)
}

async fn end_of(ended: &Ended) -> LinkEnd {
    let started = Instant::now();
    loop {
        if let Some(end) = ended.take() {
            return end;
        }
        assert!(started.elapsed() < PATIENCE, "the link does not end");
        Timer::new(Duration::from_millis(1)).await;
    }
}

fn run<T>(work: impl Future<Output = T>) -> T {
    LocalExecutorBuilder::default().io_memory(1 << 20).make().expect("an executor").run(work)
}

#[test]
fn frames_arrive_in_order_with_their_bulk_and_the_end_is_told() {
    let server = TestServer::start();
    run(async {
        let (link, ended) = open(target(server.address), SECRET);
        let sizes = [0, 1, 160, 70_000, 131_072, 300_000, 1 << 20];
        for number in 0..200u64 {
            let bytes = pattern(number, sizes[number as usize % sizes.len()]);
            let middle = bytes.len() / 2;
            let room = link.room(1 << 20).await.expect("the link lives");
            let bulk = [&bytes[..middle], &bytes[middle..]].map(|part| SharedBytes::from(part.to_vec()));
            link.send(Api::Peer, &number, bulk.into(), Some(room));
        }
        let started = Instant::now();
        while server.stats().frames < 202 {
            assert!(started.elapsed() < PATIENCE, "not all frames arrive: {:?}", server.stats());
            Timer::new(Duration::from_millis(2)).await;
        }
        assert!(link.is_open() && ended.borrow().is_none());
        drop(server);
        assert!(matches!(end_of(&ended).await, LinkEnd::Broken(_)));
        assert!(!link.is_open() && link.room(1).await.is_err());
    });
}

#[test]
fn a_stranger_is_no_peer() {
    let server = TestServer::start();
    run(async {
        let (_link, ended) = open(target(server.address), b"another secret");
        assert!(matches!(end_of(&ended).await, LinkEnd::Refused { code: ErrorCode::NotAuthorized, .. }));
        let (_link, ended) = open(LinkTarget { shard: ShardId(2), ..target(server.address) }, SECRET);
        assert!(matches!(end_of(&ended).await, LinkEnd::Stranger(_)));
        let (link, ended) = open(target(server.address), SECRET);
        // An api that is answered.
        link.send(Api::Seal, &0u64, Vec::new(), None);
        assert!(matches!(end_of(&ended).await, LinkEnd::Stranger(_)));
    });
}

/// A peer of the release before: opens one connection in protocol 1, and keeps it.
fn serve_older(listener: &TcpListener) {
    let (mut stream, _) = listener.accept().expect("somebody connects");
    let nonce = [9; 16];
    let hello = HelloReply {
        protocol: 1,
        nonce,
        cluster: CLUSTER,
        node: NodeId(3),
        shard: ShardId(1),
        server_version: "older".to_owned(),
        batch_body_bytes_max: 1,
        record_bytes_max: 1,
        in_flight_max: 1,
        idle_deadline_ms: 1,
    };
    let proof = prove(SECRET, Prover::Server, Role::Peer, &[3; 16], &nonce);
    for reply in [hello.to_bytes(), proof.to_bytes()] {
        let mut header = [0; FRAME_HEADER_BYTES];
        stream.read_exact(&mut header).expect("a frame");
        let request = FrameHeader::decode(&header, FrameLimits::REQUEST).expect("a header");
        stream.read_exact(&mut vec![0; request.payload_bytes()]).expect("its head");
        let mut frame = Vec::new();
        encode_frame(&mut frame, Envelope::reply(&request, None), &reply, 0);
        stream.write_all(&frame).expect("it listens");
    }
    let _ = stream.read(&mut [0]);
}

/// What a link may carry depends on it: an older peer ends the link over a message it does not know.
#[test]
fn a_link_says_which_protocol_both_ends_speak() {
    let server = TestServer::start();
    let older = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let older_address = older.local_addr().expect("it listens");
    let serving = std::thread::spawn(move || serve_older(&older));
    run(async {
        for (address, protocol) in [(server.address, PROTOCOL_MAX), (older_address, 1)] {
            let (link, _ended) = open(target(address), SECRET);
            assert_eq!(link.protocol(), None, "it is being opened");
            let started = Instant::now();
            while link.protocol().is_none() {
                assert!(started.elapsed() < PATIENCE, "the link does not open");
                Timer::new(Duration::from_millis(1)).await;
            }
            assert_eq!(link.protocol(), Some(protocol));
            link.cut();
        }
    });
    drop(server);
    serving.join().expect("it was not disturbed");
}

#[test]
fn who_is_not_there_or_says_nothing_is_given_up() {
    let silent = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = silent.local_addr().expect("it listens");
    run(async {
        let (_link, ended) = open(target(address), SECRET);
        assert!(matches!(end_of(&ended).await, LinkEnd::TooLate));
        drop(silent);
        let (_link, ended) = open(target(address), SECRET);
        assert!(matches!(end_of(&ended).await, LinkEnd::Broken(_)));
    });
}

#[test]
fn what_waits_is_bounded() {
    let server = TestServer::start();
    run(async {
        let (link, ended) = open(target(server.address), SECRET);
        let bytes: Rc<Vec<u8>> = Rc::new(vec![7; 1 << 20]);
        for number in 0..=(LINK_QUEUE_BYTES_MAX >> 20) as u64 {
            link.send(Api::Peer, &number, vec![SharedBytes::whole(bytes.clone())], None);
        }
        assert!(!link.is_open());
        assert!(matches!(end_of(&ended).await, LinkEnd::Overflow));
        assert_eq!(Rc::strong_count(&bytes), 1, "nothing is held any more");
        let (link, ended) = open(target(server.address), SECRET);
        link.cut();
        assert!(matches!(end_of(&ended).await, LinkEnd::Cut));
    });
}
