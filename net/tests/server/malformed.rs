//! Bytes that are no frames end their own connection with a typed error, and disturb no other.

use minikafka_core::wire::frame::{Envelope, encode_frame};
use minikafka_core::wire::{Api, Role, Wire};
use minikafka_core::{ErrorCode, checksum};

use super::support::*;

/// A frame whose field at `at` is `value`, with a checksum that is right for it.
fn forged(at: usize, value: &[u8]) -> Vec<u8> {
    let mut bytes = frame_with(Api::ListOffsets, 6, b"head", b"bulk");
    bytes[at..at + value.len()].copy_from_slice(value);
    let crc = checksum::crc32c_append(checksum::crc32c(&bytes[..28]), b"head");
    bytes[28..32].copy_from_slice(&crc.to_le_bytes());
    bytes
}

#[test]
fn contradictory_headers() {
    let server = TestServer::start();
    let mut bystander = server.greeted();
    let (head_bytes, bulk_bytes) = (4, 8);
    for (at, value, code) in [
        (0, &b"HTTP"[..], ErrorCode::MalformedFrame),
        (head_bytes, &(1_048_577u32).to_le_bytes(), ErrorCode::FrameTooLarge),
        (head_bytes, &u32::MAX.to_le_bytes(), ErrorCode::FrameTooLarge),
        (head_bytes, &i32::MIN.to_le_bytes(), ErrorCode::FrameTooLarge),
        (bulk_bytes, &(4_194_305u32).to_le_bytes(), ErrorCode::FrameTooLarge),
        (bulk_bytes, &u32::MAX.to_le_bytes(), ErrorCode::FrameTooLarge),
        (15, &[2], ErrorCode::MalformedFrame),
        (15, &[1], ErrorCode::MalformedFrame),
        (24, &[1, 0], ErrorCode::MalformedFrame),
        (26, &[0, 1], ErrorCode::MalformedFrame),
    ] {
        for greeted in [false, true] {
            let mut client = if greeted { server.greeted() } else { server.client() };
            client.send(&forged(at, value));
            let answer = client.is_refused(code);
            let expected = if at == 0 { 0 } else { 6 };
            assert_eq!(answer.header.correlation, expected, "field at {at}");
        }
        bystander.is_well();
    }
}

#[test]
fn undecodable_fields_are_answered_behind_earlier_requests() {
    let server = TestServer::start();
    let mut client = server.greeted();
    let mut bytes = fetch(1, 50, 100, 100);
    bytes.extend(frame(Api::Fetch, 2, b"no fetch request"));
    bytes.extend(frame(Api::ListOffsets, 3, b"never read"));
    client.send(&bytes);
    let malformed = client.receive().expect("an error");
    assert_eq!((malformed.error(), malformed.header.correlation), (Some(ErrorCode::MalformedFrame), 2));
    let earlier = client.receive().expect("the request before it is still answered");
    assert_eq!((earlier.error(), earlier.header.correlation), (None, 1));
    client.is_ended();
}

#[test]
fn a_frame_cut_short_ends_quietly() {
    let server = TestServer::start();
    let mut bystander = server.greeted();
    let whole = frame_with(Api::ListOffsets, 6, b"head", b"bulk");
    let large = frame_with(Api::Produce, 6, b"head", &pattern(6, 300_000));
    for cut in (1..whole.len()).map(|cut| &whole[..cut]).chain([&large[..50_000], &large[..299_999]]) {
        let mut client = server.greeted();
        client.send(cut);
        client.finish_sending();
        client.is_ended();
    }
    bystander.is_well();
    server.wait_for("the end of all others", |stats| stats.open == 1 && stats.broken == whole.len() as u64 + 1);
}

#[test]
fn every_flipped_bit_is_noticed() {
    let server = TestServer::start();
    let mut bystander = server.greeted();
    let good = frame(Api::ListOffsets, 6, b"some head");
    for bit in 0..good.len() * 8 {
        let mut bad = good.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        let mut client = server.greeted();
        client.send(&bad);
        // A flipped length may make the server wait for bytes that never come.
        client.finish_sending();
        if let Some(answer) = client.receive() {
            let code = answer.error().unwrap_or_else(|| panic!("bit {bit} was served: {answer:?}"));
            assert!(matches!(code, ErrorCode::MalformedFrame | ErrorCode::FrameTooLarge), "bit {bit}: {code}");
            client.is_ended();
        }
        bystander.is_well();
    }
}

#[test]
fn random_bytes_and_random_frames() {
    let server = TestServer::start();
    let mut bystander = server.greeted();
    for seed in 0..200u64 {
        let noise = pattern(seed, 32 + (seed as usize * 997) % 70_000);
        let mut client = if seed % 2 == 0 { server.greeted() } else { server.client() };
        client.try_send(&noise);
        client.is_refused(ErrorCode::MalformedFrame);

        // A frame in good order around noise: whatever it asks, it is answered, and with an error where it must be.
        let mut client = server.greeted();
        let mut bytes = Vec::new();
        let api = [1, 2, 10, 11, 12, 20, 40, 41, 9_999][seed as usize % 9];
        let envelope = Envelope { api, version: (seed % 3) as u8, ..Envelope::request(Api::Hello, seed) };
        encode_frame(&mut bytes, envelope, &noise[..noise.len() % 300], 0);
        let answer = client.ask(&bytes);
        assert_eq!(answer.header.correlation, seed);
        let harmless = [10, 12, 20].contains(&api) && envelope.version == 1;
        assert!(answer.error().is_some() || harmless, "seed {seed}: {answer:?}");
        bystander.is_well();
    }
}

#[test]
fn a_flood_behind_an_error_is_taken_so_that_no_reset_overtakes_the_reply() {
    let server = TestServer::start();
    let mut client = server.greeted();
    let mut bytes = b"this is not a frame, but there is a lot of it".to_vec();
    bytes.resize(8 << 20, 7);
    client.send(&bytes);
    client.finish_sending();
    client.is_refused(ErrorCode::MalformedFrame);
}

#[test]
fn garbage_behind_a_good_frame_does_not_undo_it() {
    let server = TestServer::start();
    let mut client = server.client();
    let mut bytes = frame(Api::Hello, 1, &hello(Role::Client).to_bytes());
    bytes.extend(frame(Api::ListOffsets, 2, b"echo"));
    bytes.extend([0xaa; 100]);
    client.send(&bytes);
    assert_eq!(client.receive().expect("the hello's").error(), None);
    assert_eq!(client.receive().expect("the echo").head, b"echo");
    assert_eq!(client.is_refused(ErrorCode::MalformedFrame).header.correlation, 0);
}
