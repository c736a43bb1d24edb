//! Bulk arrives and leaves as it was, whatever its size and however it is cut.

use minikafka_core::checksum::crc32c;
use minikafka_core::wire::{Api, ProduceReply, Wire};
use minikafka_core::{Offset, Timestamp};

use super::support::*;

fn produce(correlation: u64, length: usize) -> Vec<u8> {
    frame_with(Api::Produce, correlation, &[3; 144], &pattern(correlation, length))
}

fn check(answer: &Answer, length: usize) {
    let crc = crc32c(&pattern(answer.header.correlation, length));
    let reply = ProduceReply::from_bytes(&answer.head).expect("a produce reply");
    assert_eq!(reply.base_offset, Offset(length as u64));
    assert_eq!(reply.append_timestamp, Timestamp(i64::from(crc)), "CRC of {length} bytes");
}

#[test]
fn around_every_threshold() {
    let server = TestServer::start();
    let mut client = server.greeted();
    let threshold = 256 << 10;
    let sizes = [0, 1, 4_095, 16_384 - 176, 16_384, 65_536, threshold - 177, threshold - 1, threshold, threshold + 1];
    for (correlation, length) in sizes.into_iter().chain([1 << 20, (4 << 20) - 1, 4 << 20]).enumerate() {
        check(&client.ask(&produce(correlation as u64, length)), length);
        client.is_well();
    }
}

#[test]
fn pipelined_and_cut_at_random_places() {
    let server = TestServer::start();
    for seed in 1..6u64 {
        let mut client = server.greeted();
        let noise = pattern(seed, 200);
        let lengths: Vec<usize> = noise[..40]
            .iter()
            .map(|&byte| if byte < 60 { usize::from(byte) * 17_000 } else { usize::from(byte) * 90 })
            .collect();
        let mut bytes = Vec::new();
        lengths.iter().enumerate().for_each(|(at, &length)| bytes.extend(produce(at as u64, length)));
        let mut sender = Client { stream: client.stream.try_clone().expect("a socket") };
        let sending = std::thread::spawn(move || {
            let mut rest = &bytes[..];
            for step in pattern(seed + 100, 1 << 16).chunks(2) {
                let count = (usize::from(step[0]) * usize::from(step[1]) * 8 + 1).min(rest.len());
                sender.send(&rest[..count]);
                rest = &rest[count..];
            }
            sender.send(rest);
        });
        for _ in 0..lengths.len() {
            let answer = client.receive().unwrap_or_else(|| panic!("seed {seed}: no reply"));
            check(&answer, lengths[answer.header.correlation as usize]);
        }
        sending.join().expect("all was sent");
    }
}

#[test]
fn bulk_that_the_service_does_not_want_is_skipped() {
    let server = TestServer::start();
    let mut client = server.greeted();
    for length in [10, 200_000, 300_000, 4 << 20] {
        let answer = client.ask(&frame_with(Api::Resolve, 1, b"", &pattern(1, length)));
        assert_eq!(answer.error(), Some(minikafka_core::ErrorCode::Misdirected));
        client.is_well();
    }
}

#[test]
fn stored_bytes_leave_in_any_number_of_pieces() {
    let server = TestServer::start();
    let mut client = server.greeted();
    let asked = [(0, 1), (1, 1), (300, 1), (100_000, 1_000), (5 << 20, 64 << 10), (16 << 20, 1 << 20)];
    for (correlation, (bytes, piece)) in asked.into_iter().enumerate() {
        client.send(&fetch(correlation as u64, 0, bytes, piece));
    }
    for _ in asked {
        let answer = client.receive().expect("a reply");
        let (bytes, _) = asked[answer.header.correlation as usize];
        assert!(answer.bulk == pattern(answer.header.correlation, bytes as usize), "{} bytes", answer.bulk.len());
    }
    client.is_well();
}
