//! Peers that take too long are sent away, and nobody else is.

use std::time::{Duration, Instant};

use minikafka_core::wire::{Api, Role, Wire};
use minikafka_net::{DeadlineKind, Deadlines, ServerConfig};

use super::support::*;

/// Long enough for a busy machine to meet, short enough for a test.
const SHORT: Duration = Duration::from_millis(300);

fn with(change: impl FnOnce(&mut Deadlines) + Send + 'static) -> TestServer {
    TestServer::with(|config: &mut ServerConfig| change(&mut config.deadlines))
}

/// Sends a byte now and then until the server ends the connection; says how long that took.
fn drip(client: &mut Client, bytes: &[u8]) -> Duration {
    client.stream.set_read_timeout(Some(Duration::from_millis(10))).expect("a timeout");
    let started = Instant::now();
    for byte in bytes.chunks(1).cycle() {
        client.try_send(byte);
        match std::io::Read::read(&mut client.stream, &mut [0; 64]) {
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            _ => return started.elapsed(),
        }
        assert!(started.elapsed() < PATIENCE, "a peer that drips bytes is never sent away");
    }
    unreachable!("the bytes are repeated without end")
}

#[test]
fn a_hello_that_does_not_come() {
    let server = with(|deadlines| deadlines.hello = SHORT);
    let mut bystander = server.greeted();
    let started = Instant::now();
    server.client().is_ended();
    assert!(started.elapsed() >= SHORT);
    assert!(drip(&mut server.client(), &frame(Api::Hello, 1, &hello(Role::Client).to_bytes())[..40]) >= SHORT);
    assert_eq!(server.stats().deadlines(DeadlineKind::Hello), 2);
    bystander.is_well();
}

#[test]
fn a_frame_that_drips() {
    let server = with(|deadlines| deadlines.frame = SHORT);
    let mut bystander = server.greeted();
    let small = frame(Api::ListOffsets, 1, &[1; 4_000]);
    assert!(drip(&mut server.greeted(), &small) >= SHORT);
    let large = frame_with(Api::Produce, 1, b"", &pattern(1, 300_000));
    let mut client = server.greeted();
    client.send(&large[..100_000]);
    assert!(drip(&mut client, &large[100_000..]) >= SHORT);
    assert_eq!(server.stats().deadlines(DeadlineKind::Frame), 2);
    bystander.is_well();
}

#[test]
fn a_frame_in_pieces_is_in_time_however_many_went_before() {
    let server = with(|deadlines| deadlines.frame = SHORT);
    let mut client = server.greeted();
    let request = frame(Api::ListOffsets, 77, b"well?");
    let started = Instant::now();
    while started.elapsed() < SHORT * 3 {
        client.send(&request[..20]);
        std::thread::sleep(Duration::from_millis(5));
        client.send(&request[20..]);
        assert_eq!(client.receive().expect("an echo").head, b"well?");
    }
    assert_eq!(server.stats().deadlines(DeadlineKind::Frame), 0);
}

#[test]
fn time_spent_waiting_for_us_is_not_held_against_a_peer() {
    let server = TestServer::with(|config| {
        config.in_flight_max = 1;
        config.deadlines.frame = SHORT;
        config.deadlines.idle = SHORT;
    });
    let mut client = server.greeted();
    let started = Instant::now();
    let mut bytes = fetch(1, 1_000, 10, 10);
    bytes.extend(frame(Api::ListOffsets, 2, b"behind it"));
    let (now, later) = bytes.split_at(bytes.len() - 3);
    client.send(now);
    server.wait_for("the fetch", |stats| stats.frames == 2);
    client.send(later);
    assert_eq!(client.receive().expect("the fetched").header.correlation, 1);
    assert!(started.elapsed() > SHORT * 3);
    assert_eq!(client.receive().expect("the echo").head, b"behind it");
}

#[test]
fn a_connection_without_frames() {
    let server = with(|deadlines| deadlines.idle = SHORT);
    let mut waiting = server.greeted();
    // A request in flight is no idleness.
    waiting.send(&fetch(1, 1_000, 10, 10));
    let mut idle = server.greeted();
    let started = Instant::now();
    idle.is_ended();
    assert!(started.elapsed() >= SHORT);
    assert_eq!(waiting.receive().expect("the fetched").bulk, pattern(1, 10));
    waiting.is_well();
}

#[test]
fn a_client_that_never_reads_is_stopped() {
    let server = TestServer::with(|config| {
        config.reply_bytes_max = 1 << 20;
        config.deadlines.write = Duration::from_millis(300);
    });
    let mut bystander = server.greeted();
    let mut client = server.greeted();
    client.stream.set_write_timeout(Some(Duration::from_millis(100))).expect("a timeout");
    // Errors and echoes, so that nothing but the replies themselves can stop it.
    let echo = frame(Api::ListOffsets, 1, &[7; 60_000]);
    let mut taken = 0;
    let started = Instant::now();
    while std::io::Write::write_all(&mut client.stream, &echo).is_ok() {
        taken += echo.len();
        assert!(taken < 100 << 20 && started.elapsed() < PATIENCE, "the server reads on: {taken} bytes");
    }
    let stats = server.wait_for("its end", |stats| stats.deadlines(DeadlineKind::Write) == 1 && stats.open == 1);
    assert!(stats.room_waits >= 1);
    bystander.is_well();
}

#[test]
fn a_slow_reader_of_many_replies_is_not_stopped() {
    let server = with(|deadlines| deadlines.write = SHORT * 2);
    let mut client = server.greeted();
    for correlation in 0..20 {
        client.send(&fetch(correlation, 0, 2 << 20, 64 << 10));
    }
    for _ in 0..20 {
        std::thread::sleep(Duration::from_millis(60));
        let answer = client.receive().expect("a reply");
        assert!(answer.bulk == pattern(answer.header.correlation, 2 << 20));
    }
    assert_eq!(server.stats().deadlines(DeadlineKind::Write), 0);
}

#[test]
fn a_request_never_answered_does_not_keep_a_finished_connection() {
    let server = with(|deadlines| deadlines.finish = SHORT);
    let mut client = server.greeted();
    client.send(&fetch(1, 3_000, 10, 10));
    server.wait_for("the fetch", |stats| stats.frames == 2);
    client.finish_sending();
    client.is_ended();
    assert_eq!(server.stats().deadlines(DeadlineKind::Finish), 1);
}
