//! The three checksums of the formats, each behind one name.
//!
//! - CRC-32C guards bytes on wire and disk (`crc32c`, hardware instruction).
//! - XXH3-64 chains entry headers into the running hash that makes two logs comparable.
//! - IEEE CRC-32 maps keys to partitions, because it is in every language's standard library.

use xxhash_rust::xxh3::Xxh3Default;

use crate::ids::{Partition, RunningHash};

/// CRC-32C of `bytes`.
pub fn crc32c(bytes: &[u8]) -> u32 {
    ::crc32c::crc32c(bytes)
}

/// Continues a CRC-32C: `crc32c_append(crc32c(a), b) == crc32c(a ++ b)`.
pub fn crc32c_append(crc: u32, bytes: &[u8]) -> u32 {
    ::crc32c::crc32c_append(crc, bytes)
}

/// The running hash after an entry: XXH3-64 (seed 0) of the previous hash, little-endian, then header bytes 0..112.
pub fn running_hash(previous: RunningHash, header_prefix: &[u8; 112]) -> RunningHash {
    let mut hasher = Xxh3Default::new();
    hasher.update(&previous.0.to_le_bytes());
    hasher.update(header_prefix);
    RunningHash(hasher.digest())
}

/// The partition of a key: IEEE CRC-32 modulo the partition count, as librdkafka's consistent partitioner.
///
/// `partitions` must not be 0.
pub fn partition_of_key(key: &[u8], partitions: u32) -> Partition {
    Partition(crc32fast::hash(key) % partitions)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_answers() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
        assert_eq!(crc32c_append(crc32c(b"1234"), b"56789"), 0xe306_9283);
        assert_eq!(crc32fast::hash(b"123456789"), 0xcbf4_3926);
        assert_eq!(partition_of_key(b"123456789", 8), Partition(0xcbf4_3926 % 8));
    }

    #[test]
    fn running_hash_depends_on_both_inputs() {
        let a = running_hash(RunningHash(0), &[0; 112]);
        let mut other = [0; 112];
        other[111] = 1;
        assert_ne!(a, running_hash(RunningHash(1), &[0; 112]));
        assert_ne!(a, running_hash(RunningHash(0), &other));
    }
}
