//! The ring: where a partition lies, and who should hold which range.

pub mod placement;

use sha2::{Digest, Sha256};

use crate::group::GroupName;
use crate::ids::*;

/// Steps between the tokens of a topic's partitions: 2^64 divided by the golden ratio, so that they land evenly spread.
const TOKEN_STEP: u64 = 0x9E37_79B9_7F4A_7C15;

/// The token of a partition.
pub const fn token(partition: PartitionKey) -> Token {
    Token(partition.topic.0.wrapping_add((partition.partition.0 as u64).wrapping_mul(TOKEN_STEP)))
}

/// The token of a consumer group: the first 8 bytes of SHA-256 of its name, little-endian.
pub fn group_token(group: &GroupName) -> Token {
    let digest = Sha256::digest(group.as_str().as_bytes());
    Token(digest.iter().take(8).rev().fold(0, |token, byte| token << 8 | u64::from(*byte)))
}

/// The range whose head coordinates a group, on the ring with the cluster's internal replication.
pub fn group_range(group: &GroupName, ranges: u32) -> RangeId {
    range_of_token(group_token(group), ranges)
}

/// The range that a token falls into: its top bits. `ranges` must be a power of two.
pub const fn range_of_token(token: Token, ranges: u32) -> RangeId {
    assert!(ranges.is_power_of_two(), "the number of ranges of a ring is a power of two");
    let bits = ranges.trailing_zeros();
    RangeId(if bits == 0 { 0 } else { (token.0 >> (64 - bits)) as u32 })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(topic: u64, partition: u32, ranges: u32) -> u32 {
        range_of_token(token(PartitionKey { topic: TopicId(topic), partition: Partition(partition) }), ranges).0
    }

    #[test]
    fn partitions_spread_evenly() {
        let mut held = [0; 256];
        (0..2560).for_each(|partition| held[range(0x1234_5678_9abc_def0, partition, 256) as usize] += 1);
        assert!(held.iter().all(|&n| (8..=12).contains(&n)), "{held:?}");
    }

    /// SHA-256("abc") begins with ba7816bf8f01cfea (FIPS 180-2, B.1).
    #[test]
    fn groups_lie_by_the_hash_of_their_name() {
        let abc = GroupName::new("abc").expect("a good name");
        assert_eq!(group_token(&abc), Token(0xeacf_018f_bf16_78ba));
        assert_eq!(group_range(&abc, 256), RangeId(0xea));
        assert_eq!(group_range(&abc, 1), RangeId(0));
    }

    #[test]
    fn top_bits() {
        assert_eq!(range(u64::MAX, 0, 256), 255);
        assert_eq!(range(u64::MAX, 0, 1), 0);
        assert_eq!(range(1 << 63, 0, 2), 1);
    }
}
