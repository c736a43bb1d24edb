//! Many requests, many connections, and the bounds of both.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::time::{Duration, Instant};

use minikafka_core::ErrorCode;
use minikafka_core::wire::{Api, Role};

use super::support::*;

#[test]
fn ten_thousand_pipelined_frames_are_answered_in_order_and_in_batches() {
    const FRAMES: u64 = 10_000;
    let server = TestServer::start();
    let mut client = server.greeted();
    let before = server.stats();
    let bytes: Vec<u8> = (0..FRAMES).flat_map(|at| frame(Api::ListOffsets, at, &at.to_le_bytes())).collect();
    let mut sender = Client { stream: client.stream.try_clone().expect("a socket") };
    let sending = std::thread::spawn(move || sender.send(&bytes));
    let mut reader = std::io::BufReader::with_capacity(1 << 20, client.stream.try_clone().expect("a socket"));
    for at in 0..FRAMES {
        let mut reply = [0; 40];
        reader.read_exact(&mut reply).expect("a reply");
        assert_eq!(reply[32..], at.to_le_bytes());
    }
    sending.join().expect("all was sent");
    client.is_well();
    let after = server.stats();
    let (receives, sends) = (after.receives - before.receives, after.sends - before.sends);
    assert_eq!(after.frames - before.frames, FRAMES + 1);
    assert!(receives < FRAMES / 20, "{receives} receives");
    assert!(sends < FRAMES / 20, "{sends} sends");
}

#[test]
fn a_full_window_stops_reading_until_there_is_an_answer() {
    let server = TestServer::with(|config| config.in_flight_max = 3);
    let mut peer = server.proven(Role::Peer);
    for correlation in 10..20 {
        peer.send(&frame(Api::Reconcile, correlation, b""));
    }
    // Hello, proof, three in the window, and one that waits to enter it.
    server.wait_for("a full window", |stats| stats.window_waits == 1);
    assert_eq!(server.stats().frames, 2 + 4);
    let mut answered = 0;
    while answered < 10 {
        server.release();
        let in_window = server.stats().frames - 2;
        assert!(in_window <= answered + 3 + 3 + 1, "{in_window} read, {answered} answered");
        peer.stream.set_read_timeout(Some(Duration::from_millis(500))).expect("a timeout");
        while answered < 10 && peer.stream.peek(&mut [0]).is_ok() {
            assert_eq!(peer.receive().expect("an answer").header.correlation, 10 + answered);
            answered += 1;
            server.release();
        }
    }
}

#[test]
fn bytes_in_flight_are_bounded_too_but_one_request_always_passes() {
    let server = TestServer::with(|config| config.in_flight_bytes_max = 1_000);
    let mut peer = server.proven(Role::Peer);
    peer.send(&frame(Api::Reconcile, 10, &[0; 5_000]));
    peer.send(&frame(Api::Reconcile, 11, b""));
    server.wait_for("a full window", |stats| stats.window_waits == 1);
    server.release();
    assert_eq!(peer.receive().expect("the first").header.correlation, 10);
    server.wait_for("the second", |stats| stats.frames == 4);
    server.release();
    assert_eq!(peer.receive().expect("the second").header.correlation, 11);
}

#[test]
fn a_forgotten_request_is_answered() {
    let server = TestServer::start();
    let mut client = server.greeted();
    let answer = client.ask(&frame(Api::CreateTopic, 4, b""));
    assert_eq!((answer.error(), answer.header.correlation), (Some(ErrorCode::TimedOut), 4));
    assert_eq!(server.stats().forgotten, 1);
    client.is_well();
}

#[test]
fn a_service_may_hang_up() {
    let server = TestServer::start();
    let mut client = server.greeted();
    client.send(&frame(Api::DeleteTopic, 4, b""));
    client.is_refused(ErrorCode::TimedOut);
}

#[test]
fn a_service_may_cut_a_connection() {
    let server = TestServer::start();
    let mut bystander = server.greeted();
    let mut peer = server.proven(Role::Peer);
    peer.send(&[frame(Api::Reconcile, 3, b""), frame(Api::Activate, 4, b"")].concat());
    peer.is_ended();
    server.wait_for("its end", |stats| stats.open == 1);
    server.release();
    bystander.is_well();
}

#[test]
fn one_connection_too_many_is_told_so() {
    let server = TestServer::with(|config| config.connections_max = 2);
    let mut first = server.greeted();
    let second = server.greeted();
    for _ in 0..3 {
        let mut third = server.client();
        let answer = third.is_refused(ErrorCode::Overloaded);
        assert_eq!(answer.message().retry_after_ms, 1_000);
    }
    assert_eq!(server.stats().refused, 3);
    first.is_well();
    drop(second);
    server.wait_for("a free place", |stats| stats.open == 1);
    server.greeted().is_well();
}

#[test]
fn floods_do_not_starve_others() {
    const FLOODS: u64 = 3;
    let server = TestServer::start();
    let mut bystander = server.greeted();
    let flood: Vec<u8> = (0..1_000).flat_map(|at| frame(Api::ListOffsets, at, &[1; 400])).collect();
    std::thread::scope(|scope| {
        let mut open = Vec::new();
        for _ in 0..FLOODS {
            let mut sender = server.greeted().stream;
            let mut receiver = sender.try_clone().expect("a socket");
            open.push(sender.try_clone().expect("a socket"));
            let flood = &flood;
            scope.spawn(move || while sender.write_all(flood).is_ok() {});
            scope.spawn(move || while receiver.read(&mut [0; 1 << 16]).is_ok_and(|count| count > 0) {});
        }
        server.wait_for("the floods", |stats| stats.frames > 20_000);
        let started = Instant::now();
        (0..20).for_each(|_| bystander.is_well());
        let each = started.elapsed() / 20;
        open.iter().for_each(|stream| drop(stream.shutdown(Shutdown::Both)));
        assert!(each < Duration::from_millis(70), "an echo takes {each:?} beside floods");
    });
}
