//! Hello, proof, and what each kind of peer may ask.

use minikafka_core::wire::frame::{Envelope, encode_frame};
use minikafka_core::wire::{Api, Hello, PROTOCOL_MAX, Proof, Prover, Role, Wire, check_proof, prove};
use minikafka_core::{ClusterId, ErrorCode, NodeId, ShardId};

use super::support::*;

#[test]
fn a_hello_is_answered_with_who_is_there_and_what_it_takes() {
    let server = TestServer::with(|config| {
        config.in_flight_max = 12;
        config.deadlines.idle = std::time::Duration::from_secs(34);
    });
    let reply = server.client().hello();
    assert_eq!((reply.protocol, reply.nonce), (PROTOCOL_MAX, SERVER_NONCE));
    assert_eq!((reply.cluster, reply.node, reply.shard), (CLUSTER, NodeId(3), ShardId(1)));
    assert_eq!((reply.batch_body_bytes_max, reply.in_flight_max, reply.idle_deadline_ms), (4 << 20, 12, 34_000));
}

#[test]
fn the_first_frame_must_be_a_hello() {
    let server = TestServer::start();
    let mut client = server.client();
    client.send(&frame(Api::ListOffsets, 8, b""));
    assert_eq!(client.is_refused(ErrorCode::HelloRequired).header.correlation, 8);

    let mut client = server.client();
    // Its 900,000 bytes of head are not waited for.
    client.send(&frame(Api::Fetch, 8, &vec![0; 900_000])[..40]);
    client.is_refused(ErrorCode::HelloRequired);
}

#[test]
fn a_hello_of_another_world_is_refused() {
    let server = TestServer::start();
    let refused = |hello: Hello, code| {
        let mut client = server.client();
        client.send(&frame(Api::Hello, 1, &hello.to_bytes()));
        client.is_refused(code);
    };
    let good = || hello(Role::Client);
    refused(Hello { cluster: ClusterId(1), ..good() }, ErrorCode::WrongCluster);
    refused(Hello { protocol_min: PROTOCOL_MAX + 1, protocol_max: 99, ..good() }, ErrorCode::UnsupportedVersion);
    refused(Hello { protocol_min: 5, protocol_max: 1, ..good() }, ErrorCode::UnsupportedVersion);

    let mut client = server.client();
    let known = client.ask(&frame(Api::Hello, 1, &Hello { cluster: CLUSTER, ..good() }.to_bytes()));
    assert_eq!(known.error(), None);
    client.send(&frame(Api::Hello, 2, &good().to_bytes()));
    client.is_refused(ErrorCode::MalformedFrame);

    let mut client = server.client();
    client.send(&frame(Api::Hello, 1, &[0; 5_000]));
    client.is_refused(ErrorCode::FrameTooLarge);

    let mut client = server.client();
    client.send(&frame_with(Api::Hello, 1, &good().to_bytes(), b"bulk"));
    client.is_refused(ErrorCode::MalformedFrame);

    let mut client = server.client();
    client.send(&frame(Api::Hello, 1, &good().to_bytes()[1..]));
    client.is_refused(ErrorCode::MalformedFrame);
}

fn opened_as(server: &TestServer, role: Role) -> Client {
    let mut client = server.client();
    assert_eq!(client.ask(&frame(Api::Hello, 1, &hello(role).to_bytes())).error(), None);
    client
}

fn proof(secret: &[u8], role: Role) -> Vec<u8> {
    frame(Api::Prove, 2, &prove(secret, Prover::Opener, role, &hello(role).nonce, &SERVER_NONCE).to_bytes())
}

#[test]
fn who_proves_the_secret_may_seal() {
    let server = TestServer::start();
    for role in [Role::Peer, Role::Controller] {
        let mut peer = opened_as(&server, role);
        let answer = peer.ask(&proof(SECRET, role));
        let servers = Proof::from_bytes(&answer.head).expect("the server's proof");
        assert!(check_proof(&servers, SECRET, Prover::Server, role, &hello(role).nonce, &SERVER_NONCE));
        assert_eq!(peer.ask(&frame(Api::Seal, 3, b"")).error(), None);
        // Lists of many ranges are longer than a client's requests.
        let long = pattern(4, 3 << 20);
        assert_eq!(peer.ask(&frame(Api::ListOffsets, 4, &long)).head, long);
        peer.send(&proof(SECRET, role));
        peer.is_refused(ErrorCode::NotAuthorized);
    }
}

#[test]
fn who_does_not_may_not() {
    let server = TestServer::start();
    for role in [Role::Client, Role::Peer, Role::Controller] {
        let mut client = opened_as(&server, role);
        for api in [Api::Seal, Api::Reconcile, Api::Activate, Api::AppendControl] {
            assert_eq!(client.ask(&frame(api, 3, b"")).error(), Some(ErrorCode::NotAuthorized), "{role:?} {api:?}");
        }
        client.is_well();
        let secret = if role == Role::Client { SECRET } else { b"another secret" };
        client.send(&proof(secret, role));
        client.is_refused(ErrorCode::NotAuthorized);
    }
    let mut pretender = opened_as(&server, Role::Peer);
    pretender.send(&proof(SECRET, Role::Controller));
    pretender.is_refused(ErrorCode::NotAuthorized);
    assert_eq!(server.stats().errors(ErrorCode::NotAuthorized), 3 * 5 + 1);
}

#[test]
fn without_a_secret_nobody_is_authorized() {
    let server = TestServer::with(|config| config.identity.secret = None);
    let mut peer = opened_as(&server, Role::Peer);
    peer.send(&proof(b"", Role::Peer));
    peer.is_refused(ErrorCode::NotAuthorized);
}

#[test]
fn unknown_apis_and_versions_are_refused_and_the_connection_goes_on() {
    let server = TestServer::start();
    let mut client = server.greeted();
    for bulk in [0, 100_000, 1_000_000] {
        for (api, version, code) in [
            (9_999, 1, ErrorCode::UnknownApi),
            (Api::Produce as u16, 2, ErrorCode::UnsupportedVersion),
            (Api::ListOffsets as u16, 0, ErrorCode::UnsupportedVersion),
        ] {
            let mut request = Vec::new();
            let envelope = Envelope { api, version, ..Envelope::request(Api::Produce, 5) };
            encode_frame(&mut request, envelope, b"head", bulk);
            request.resize(request.len() + bulk as usize, 1);
            let answer = client.ask(&request);
            assert_eq!((answer.error(), answer.header.correlation, answer.header.api), (Some(code), 5, api));
            client.is_well();
        }
    }
    assert!(server.stats().skipped > 2_900_000);
}
