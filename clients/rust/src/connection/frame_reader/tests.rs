//! Frames survive any fragmentation of the stream, and lying sizes cost nothing.

use minikafka_core::wire::frame::Envelope;
use minikafka_core::wire::{Api, encode_frame};
use proptest::prelude::*;
use tokio::io::AsyncWriteExt;

use super::*;

fn stream_of(frames: &[(Vec<u8>, Vec<u8>)]) -> Vec<u8> {
    let mut stream = Vec::new();
    for (correlation, (head, bulk)) in frames.iter().enumerate() {
        encode_frame(&mut stream, Envelope::request(Api::Fetch, correlation as u64), head, bulk.len() as u32);
        stream.extend_from_slice(bulk);
    }
    stream
}

fn run<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime").block_on(future)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn any_fragmentation_gives_the_same_frames(
        frames in prop::collection::vec(
            (prop::collection::vec(any::<u8>(), 0..200), prop::collection::vec(any::<u8>(), 0..3000)), 1..8),
        pieces in prop::collection::vec(1_usize..700, 1..20),
    ) {
        let stream = stream_of(&frames);
        let received = run(async {
            let (mut near, far) = tokio::io::duplex(512);
            let writing = async move {
                let (mut rest, mut pieces) = (&stream[..], pieces.iter().cycle());
                while !rest.is_empty() {
                    let piece = rest.len().min(*pieces.next().expect("a cycle does not end"));
                    near.write_all(&rest[..piece]).await.expect("the reader is there");
                    rest = &rest[piece..];
                }
            };
            let reading = async {
                let (mut reader, mut received) = (FrameReader::new(far, FrameLimits::REQUEST), Vec::new());
                while let Some(frame) = reader.next().await.expect("good frames") {
                    received.push((frame.head.to_vec(), frame.bulk.to_vec()));
                }
                received
            };
            tokio::join!(writing, reading).1
        });
        prop_assert_eq!(received, frames);
    }
}

#[test]
fn a_size_over_the_limit_is_refused_before_its_bytes() {
    let mut stream = Vec::new();
    encode_frame(&mut stream, Envelope::request(Api::Fetch, 1), b"", u32::MAX);
    let error = run(FrameReader::new(&stream[..], FrameLimits::REPLY).next()).expect_err("too large");
    assert!(matches!(error, ReadError::Frame(FrameError::TooLarge { .. })), "{error}");
}

#[test]
fn an_end_inside_a_frame_is_an_error_and_one_between_frames_is_none() {
    let stream = stream_of(&[(b"head".to_vec(), vec![7; 100])]);
    for cut in 1..stream.len() {
        assert!(run(FrameReader::new(&stream[..cut], FrameLimits::REQUEST).next()).is_err(), "cut at {cut}");
    }
    assert!(run(FrameReader::new(&stream[..0], FrameLimits::REQUEST).next()).expect("no error").is_none());
}
