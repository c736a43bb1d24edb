//! Which partitions a sealed segment may hold, in a few bits each.
//!
//! A Bloom filter of bounded size (B. Bloom, 1970): "no" is certain, "yes" must be looked up in the footer. It is what a
//! sealed segment keeps in memory of its partitions, however many they are.

use minikafka_core::PartitionKey;

/// Bits per partition while there are few.
const BITS_PER_PARTITION: usize = 16;
/// Bits at most (4 KiB): 10,000 partitions leave 3.3 bits each, and one answer in five is a wrong "yes".
const BITS_MAX: usize = 1 << 15;
/// Bits of a word.
const WORD_BITS: usize = 64;

/// A set of partitions, with false positives.
#[derive(Clone, Debug, Default)]
pub(crate) struct PartitionFilter {
    /// A power of two of words; none when there are no partitions.
    words: Box<[u64]>,
}

impl PartitionFilter {
    /// The filter of `count` partitions.
    pub fn new(count: usize, keys: impl Iterator<Item = PartitionKey>) -> Self {
        if count == 0 {
            return Self::default();
        }
        let bits = (count * BITS_PER_PARTITION).next_power_of_two().clamp(WORD_BITS, BITS_MAX);
        let mut words = vec![0; bits / WORD_BITS].into_boxed_slice();
        for key in keys {
            for bit in bits_of(key, bits) {
                words[bit / WORD_BITS] |= 1 << (bit % WORD_BITS);
            }
        }
        Self { words }
    }

    /// False: it is not there.
    pub fn may_contain(&self, key: PartitionKey) -> bool {
        let bits = self.words.len() * WORD_BITS;
        let is_set = |bit: usize| self.words[bit / WORD_BITS] >> (bit % WORD_BITS) & 1 == 1;
        bits > 0 && bits_of(key, bits).into_iter().all(is_set)
    }
}

/// The two bits of a partition among `bits`, a power of two.
fn bits_of(key: PartitionKey, bits: usize) -> [usize; 2] {
    // The finalizer of SplitMix64 (G. Steele and others, 2014); partitions of a topic differ in their low bits only.
    let mut hash = key.topic.0 ^ u64::from(key.partition.0).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    hash = (hash ^ hash >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ hash >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^= hash >> 31;
    [hash as usize & (bits - 1), (hash >> 32) as usize & (bits - 1)]
}

#[cfg(test)]
mod tests {
    use minikafka_core::{Partition, TopicId};

    use super::*;

    fn key(topic: u64, partition: u32) -> PartitionKey {
        PartitionKey { topic: TopicId(topic), partition: Partition(partition) }
    }

    #[test]
    fn what_is_there_is_found_and_most_of_what_is_not_is_refused() {
        for (count, wrong_max) in [(0, 0), (1, 50), (40, 50), (1000, 50), (10_000, 300)] {
            let keys = (0..count).map(|partition| key(7, partition));
            let filter = PartitionFilter::new(count as usize, keys.clone());
            assert!(keys.clone().all(|key| filter.may_contain(key)), "{count} partitions");
            let wrong = (0..1000).filter(|partition| filter.may_contain(key(8, *partition))).count();
            assert!(wrong <= wrong_max, "{count} partitions: {wrong} of 1000 others are said to be there");
            assert!(size_of_val(&*filter.words) <= BITS_MAX / 8);
        }
    }
}
