//! Clients that are wrong, slow or hostile: each gets its typed error or a closed connection, and nobody else notices.

use std::time::Duration;

use crate::support::*;
use minikafka_client::connection::{Frame, FrameReader};
use minikafka_core::topic::TopicConfig;
use minikafka_core::wire::frame::{Envelope, FrameLimits};
use minikafka_core::wire::*;
use minikafka_core::*;
use minikafka_gateway::{Deadlines, Gateway, GatewayHandle};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

/// A connection on which anything may be written.
struct Raw {
    frames: FrameReader<OwnedReadHalf>,
    sink: OwnedWriteHalf,
}

impl Raw {
    async fn new(gateway: &GatewayHandle) -> Self {
        let (source, sink) = TcpStream::connect(gateway.address()).await.expect("a listener").into_split();
        Self { frames: FrameReader::new(source, FrameLimits::REPLY), sink }
    }

    async fn opened(gateway: &GatewayHandle) -> Self {
        let mut raw = Self::new(gateway).await;
        raw.write(&frame(Api::Hello as u16, &hello(Role::Client, 0).to_bytes(), &[])).await;
        assert_eq!(raw.reply().await.expect("an answer to hello").header.error, None);
        raw
    }

    async fn write(&mut self, bytes: &[u8]) {
        // The gateway may have closed already, which is for the test to find out by reading.
        drop(self.sink.write_all(bytes).await);
    }

    /// The next reply; none when the connection is closed.
    async fn reply(&mut self) -> Option<Frame> {
        tokio::time::timeout(PATIENCE, self.frames.next()).await.expect("an answer or an end").unwrap_or(None)
    }

    async fn ask(&mut self, bytes: &[u8]) -> Option<ErrorCode> {
        self.write(bytes).await;
        self.reply().await.expect("an answer").header.error
    }
}

fn frame(api: u16, head: &[u8], bulk: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let envelope = Envelope { api, version: 1, correlation: 9, is_reply: false, explain: false, error: None };
    encode_frame(&mut out, envelope, head, bulk.len() as u32);
    out.extend_from_slice(bulk);
    out
}

/// The same frame without bulk, with another field in its header and a checksum that is right for it.
fn with_field(mut frame: Vec<u8>, at: usize, value: &[u8]) -> Vec<u8> {
    frame[at..at + value.len()].copy_from_slice(value);
    let crc = checksum::crc32c_append(checksum::crc32c(&frame[..28]), &frame[32..]);
    frame[28..32].copy_from_slice(&crc.to_le_bytes());
    frame
}

fn hello(role: Role, cluster: u64) -> Hello {
    Hello {
        protocol_min: 1,
        protocol_max: 1,
        role,
        nonce: [3; 16],
        cluster: ClusterId(cluster),
        client_name: "test".into(),
        client_version: String::new(),
    }
}

fn resolve() -> Vec<u8> {
    ResolveRequest { topics: Vec::new(), all_topics: true, with_rings: true, create_missing: false }.to_bytes()
}

async fn impatient() -> (Cluster, GatewayHandle) {
    let cluster = Cluster::new(1).await;
    let mut config = cluster.config();
    let short = Duration::from_millis(150);
    config.deadlines = Deadlines { hello: short, frame: short, idle: 4 * short, write: short };
    let gateway = Gateway::start(config).await.expect("a gateway");
    (cluster, gateway)
}

#[tokio::test]
async fn bytes_that_are_no_frames_are_answered_and_closed() {
    let cluster = Cluster::new(1).await;
    let gateway = cluster.gateway().await;
    let mut damaged = frame(20, &resolve(), &[]);
    damaged[38] ^= 1;
    let mut reserved = frame(20, &resolve(), &[]);
    reserved[26] = 1;
    let mut as_reply = Vec::new();
    let envelope = Envelope { api: 20, version: 1, correlation: 1, is_reply: true, explain: false, error: None };
    encode_frame(&mut as_reply, envelope, &resolve(), 0);
    let mut huge = frame(20, &[], &[]);
    huge[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
    let mut trailing = resolve();
    trailing.push(0);
    let cases: [(&str, Vec<u8>, ErrorCode); 9] = [
        ("an HTTP request", b"GET / HTTP/1.1\r\nHost: example.com\r\n\r\n".to_vec(), ErrorCode::MalformedFrame),
        ("a flipped bit", damaged, ErrorCode::MalformedFrame),
        ("a reserved bit", reserved, ErrorCode::MalformedFrame),
        ("a reply", as_reply, ErrorCode::MalformedFrame),
        ("a huge length", huge, ErrorCode::FrameTooLarge),
        ("bytes behind the message", frame(20, &trailing, &[]), ErrorCode::MalformedFrame),
        ("a list that lies about its length", frame(20, &u32::MAX.to_le_bytes(), &[]), ErrorCode::MalformedFrame),
        ("bulk where there is none", frame(20, &resolve(), b"bulk"), ErrorCode::MalformedFrame),
        ("a second hello", frame(1, &hello(Role::Client, 0).to_bytes(), &[]), ErrorCode::MalformedFrame),
    ];
    let mut witness = Raw::opened(&gateway).await;
    for (what, bytes, expected) in cases {
        let mut raw = Raw::opened(&gateway).await;
        assert_eq!(raw.ask(&bytes).await, Some(expected), "{what}");
        assert!(raw.reply().await.is_none(), "{what} closes the connection");
        assert_eq!(witness.ask(&frame(20, &resolve(), &[])).await, None, "{what} disturbs another");
    }
    assert_eq!(gateway.counters().malformed, 9);
}

/// A client with many requests in flight must learn which one was refused, as on a shard's port.
#[tokio::test]
async fn a_frame_that_is_refused_is_answered_under_its_own_number() {
    let cluster = Cluster::new(1).await;
    let gateway = cluster.gateway().await;
    for (at, value, correlation) in [
        (4, &u32::MAX.to_le_bytes()[..], 9),
        (8, &u32::MAX.to_le_bytes(), 9),
        (15, &[1], 9),
        (15, &[2], 9),
        (24, &[1, 0], 9),
        (26, &[1, 0], 9),
        // Not a frame at all: nothing in it can be believed.
        (0, b"HTTP", 0),
    ] {
        let mut raw = Raw::opened(&gateway).await;
        raw.write(&with_field(frame(20, &resolve(), &[]), at, value)).await;
        let answer = raw.reply().await.expect("an answer").header;
        assert_eq!((answer.correlation, answer.error.is_some()), (correlation, true), "field at {at}");
        assert!(raw.reply().await.is_none(), "field at {at} closes the connection");
    }
}

#[tokio::test]
async fn every_request_is_told_where_it_belongs() {
    let cluster = Cluster::new(1).await;
    let gateway = cluster.gateway().await;
    let mut raw = Raw::opened(&gateway).await;
    for (api, expected) in [
        (Api::Produce as u16, ErrorCode::Misdirected),
        (Api::Fetch as u16, ErrorCode::Misdirected),
        (Api::ListOffsets as u16, ErrorCode::Misdirected),
        (Api::Seal as u16, ErrorCode::NotAuthorized),
        (Api::AppendControl as u16, ErrorCode::NotAuthorized),
        (999, ErrorCode::UnknownApi),
    ] {
        assert_eq!(raw.ask(&frame(api, &[1, 2, 3], &[0; 100_000])).await, Some(expected), "api {api}");
    }
    let old = with_field(frame(20, &resolve(), &[]), 14, &[9]);
    assert_eq!(raw.ask(&old).await, Some(ErrorCode::UnsupportedVersion));
    assert_eq!(raw.ask(&frame(20, &resolve(), &[])).await, None, "the connection goes on");
}

#[tokio::test]
async fn a_connection_begins_with_a_hello_that_fits() {
    let cluster = Cluster::new(1).await;
    let gateway = cluster.gateway().await;
    let mut newer = hello(Role::Client, 0);
    (newer.protocol_min, newer.protocol_max) = (7, 9);
    let other_version = with_field(frame(1, &hello(Role::Client, 0).to_bytes(), &[]), 14, &[2]);
    for (what, bytes, expected) in [
        ("no hello", frame(20, &resolve(), &[]), ErrorCode::HelloRequired),
        ("a newer protocol", frame(1, &newer.to_bytes(), &[]), ErrorCode::UnsupportedVersion),
        ("another version of hello", other_version, ErrorCode::UnsupportedVersion),
        ("another cluster", frame(1, &hello(Role::Client, 1).to_bytes(), &[]), ErrorCode::WrongCluster),
        ("half a hello", frame(1, &[1, 0, 1], &[]), ErrorCode::MalformedFrame),
    ] {
        let mut raw = Raw::new(&gateway).await;
        assert_eq!(raw.ask(&bytes).await, Some(expected), "{what}");
        assert!(raw.reply().await.is_none(), "{what} closes the connection");
    }
}

#[tokio::test]
async fn peers_prove_the_secret() {
    let cluster = Cluster::new(1).await;
    let gateway = cluster.gateway().await;
    for (secret, expected) in [(SECRET, None), (&b"a guess"[..], Some(ErrorCode::NotAuthorized))] {
        let mut raw = Raw::new(&gateway).await;
        raw.write(&frame(1, &hello(Role::Peer, 0).to_bytes(), &[])).await;
        let reply = HelloReply::from_bytes(&raw.reply().await.expect("an answer").head).expect("a hello reply");
        assert_eq!((reply.node, reply.shard), (NodeId(0), GATEWAY_SHARD));
        let proof = prove(secret, Prover::Opener, Role::Peer, &[3; 16], &reply.nonce);
        raw.write(&frame(2, &proof.to_bytes(), &[])).await;
        let answer = raw.reply().await.expect("an answer");
        assert_eq!(answer.header.error, expected);
        if expected.is_none() {
            let proof = Proof::from_bytes(&answer.head).expect("a proof");
            assert!(check_proof(&proof, SECRET, Prover::Server, Role::Peer, &[3; 16], &reply.nonce));
            assert_eq!(raw.ask(&frame(40, &[], &[])).await, Some(ErrorCode::Misdirected));
        }
    }
}

#[tokio::test]
async fn the_slow_are_closed() {
    let (_cluster, gateway) = impatient().await;
    let mut silent = Raw::new(&gateway).await;
    let mut dribbling = Raw::opened(&gateway).await;
    let announced = frame(20, &[0; 1000], &[]);
    for byte in &announced[..40] {
        dribbling.write(&[*byte]).await;
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(dribbling.reply().await.is_none(), "a frame that dribbles in");
    assert!(silent.reply().await.is_none(), "no hello");
    let mut idle = Raw::opened(&gateway).await;
    assert!(idle.reply().await.is_none(), "no request for too long");
    assert_eq!(gateway.counters().too_slow, 3);
}

#[tokio::test]
async fn one_connection_too_many_is_closed_at_once() {
    let cluster = Cluster::new(1).await;
    let mut config = cluster.config();
    config.connections_max = 2;
    let gateway = Gateway::start(config).await.expect("a gateway");
    let (mut one, mut two) = (Raw::opened(&gateway).await, Raw::opened(&gateway).await);
    let mut three = TcpStream::connect(gateway.address()).await.expect("the system accepts");
    let read = tokio::time::timeout(PATIENCE, three.read(&mut [0])).await.expect("an end");
    assert!(matches!(read, Ok(0) | Err(_)), "one too many is closed");
    assert_eq!(gateway.counters().refused, 1);
    for raw in [&mut one, &mut two] {
        assert_eq!(raw.ask(&frame(20, &resolve(), &[])).await, None, "the others go on");
    }
    drop(one);
    until("a place to be free", || async {
        let mut raw = Raw::new(&gateway).await;
        raw.write(&frame(1, &hello(Role::Client, 0).to_bytes(), &[])).await;
        raw.reply().await.map(drop)
    })
    .await;
}

#[tokio::test]
async fn requests_may_be_pipelined_and_a_slow_one_does_not_hold_up_the_others() {
    let cluster = Cluster::new(1).await;
    let gateway = cluster.gateway().await;
    until_controller(&gateway).await;
    let mut raw = Raw::opened(&gateway).await;
    // Without a node the creation cannot end; its caller waits for the deadline.
    let create = CreateTopicRequest {
        name: "slow".into(),
        partitions: 1,
        replication: 1,
        config: TopicConfig::default(),
        timeout_ms: 300,
    };
    let mut bytes = frame(21, &create.to_bytes(), &[]);
    bytes.extend(frame(20, &resolve(), &[]));
    raw.write(&bytes).await;
    let (first, second) = (raw.reply().await.expect("a reply"), raw.reply().await.expect("a reply"));
    assert_eq!((first.header.api, first.header.error), (20, None));
    assert_eq!((second.header.api, second.header.error), (21, Some(ErrorCode::TimedOut)));
}
