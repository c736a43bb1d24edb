//! `checksums.json` and `partitioner.json`: known answers for every checksum of the formats.

use minikafka_core::checksum::{crc32c, crc32c_append, partition_of_key, running_hash};
use minikafka_core::{Partition, RunningHash};
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use crate::{Hex, golden};

#[derive(Serialize, Deserialize)]
struct Checksums {
    about: String,
    answers: Vec<Answer>,
    running_hashes: Vec<Running>,
}

#[derive(Serialize, Deserialize)]
struct Answer {
    bytes: Hex,
    crc32c: u32,
    crc32_ieee: u32,
    xxh3_64: u64,
}

#[derive(Serialize, Deserialize)]
struct Running {
    previous: u64,
    header_prefix: Hex,
    hash: u64,
}

#[derive(Serialize, Deserialize)]
struct Partitioner {
    about: String,
    keys: Vec<Key>,
}

#[derive(Serialize, Deserialize)]
struct Key {
    key: Hex,
    partitions: Vec<Choice>,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
struct Choice {
    of: u32,
    is: u32,
}

/// Byte i is `i * step + 1`, modulo 256.
fn pattern(len: usize, step: usize) -> Vec<u8> {
    (0..len).map(|i| (i * step + 1) as u8).collect()
}

#[test]
fn checksums() {
    let inputs =
        [vec![], b"a".to_vec(), b"123456789".to_vec(), vec![0; 32], vec![0xff; 32], pattern(120, 7), pattern(1000, 3)];
    let answer = |bytes: Vec<u8>| Answer {
        crc32c: crc32c(&bytes),
        crc32_ieee: crc32fast::hash(&bytes),
        xxh3_64: xxh3_64(&bytes),
        bytes: Hex(bytes),
    };
    let running = |previous: u64, prefix: Vec<u8>| {
        let hash = running_hash(RunningHash(previous), prefix.first_chunk().expect("a prefix of 112 bytes")).0;
        Running { previous, header_prefix: Hex(prefix), hash }
    };
    let about = "CRC-32C, IEEE CRC-32 and XXH3-64 (seed 0) of bytes; running hashes are XXH3-64 of the previous hash \
                 (8 bytes, little-endian) and the first 112 bytes of an entry header.";
    let generated = Checksums {
        about: about.to_owned(),
        answers: inputs.into_iter().map(answer).collect(),
        running_hashes: vec![
            running(0, vec![0; 112]),
            running(0, pattern(112, 5)),
            running(u64::MAX, pattern(112, 5)),
            running(0x0123_4567_89ab_cdef, pattern(112, 11)),
        ],
    };
    let vectors = golden("checksums.json", &generated);
    for answer in &vectors.answers {
        let (front, back) = answer.bytes.0.split_at(answer.bytes.0.len() / 2);
        assert_eq!(crc32c_append(crc32c(front), back), answer.crc32c);
        assert_eq!(partition_of_key(&answer.bytes.0, u32::MAX), Partition(answer.crc32_ieee % u32::MAX));
    }
    for running in &vectors.running_hashes {
        let input = [&running.previous.to_le_bytes()[..], &running.header_prefix.0].concat();
        assert_eq!(xxh3_64(&input), running.hash, "a hash of pieces must be the hash of the whole");
    }
}

/// Answers that others published, so that the vectors cannot merely repeat a mistake of ours.
#[test]
fn published_answers() {
    assert_eq!(crc32c(b"123456789"), 0xe306_9283, "the check value of CRC-32C");
    assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa, "RFC 3720, B.4");
    assert_eq!(crc32c(&[0xff; 32]), 0x62a8_ab43, "RFC 3720, B.4");
    assert_eq!(crc32fast::hash(b"123456789"), 0xcbf4_3926, "the check value of IEEE CRC-32");
    assert_eq!(xxh3_64(b""), 0x2d06_8005_38d3_94c2, "xxHash's own answer for no bytes");
}

#[test]
fn partitioner() {
    let keys: [&[u8]; 8] =
        [b"", b"a", b"key", b"123456789", b"user-42", "größe".as_bytes(), &[0, 0, 0, 0], &[0xff; 20]];
    let key = |key: &[u8]| Key {
        key: key.into(),
        partitions: [1, 2, 3, 8, 12, 64, 1000, 10_000]
            .map(|of| Choice { of, is: partition_of_key(key, of).0 })
            .to_vec(),
    };
    let about =
        "The partition of a key among so many: IEEE CRC-32 of the key, unsigned, modulo the number of partitions.";
    let generated = Partitioner { about: about.to_owned(), keys: keys.map(key).into() };
    for key in golden("partitioner.json", &generated).keys {
        for choice in key.partitions {
            assert_eq!(partition_of_key(&key.key.0, choice.of), Partition(choice.is));
            assert_eq!(crc32fast::hash(&key.key.0) % choice.of, choice.is);
        }
    }
}
