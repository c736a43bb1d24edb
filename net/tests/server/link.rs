//! Links: what they carry, whom they trust, and how they end.

use std::cell::RefCell;
use std::net::{SocketAddr, TcpListener};
use std::rc::Rc;
use std::time::{Duration, Instant};

use glommio::timer::Timer;
use glommio::{LocalExecutorBuilder, executor};
use minikafka_core::limits::LINK_QUEUE_BYTES_MAX;
use minikafka_core::wire::Api;
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
