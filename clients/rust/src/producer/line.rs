//! A line of sequences under one producer id, and the randomness that ids and jitter come from: it replays from a seed.

use minikafka_core::{ProducerId, Sequence};

/// A producer id with the next sequence to be used under it. What lines are for: see `queue`.
#[derive(Debug)]
pub(super) struct Line {
    pub producer_id: ProducerId,
    pub next: Sequence,
}

impl Line {
    /// A random 63-bit id from sequence 0 on; without idempotence, the id that means none.
    pub(super) fn new(randomness: &mut Randomness, idempotent: bool) -> Self {
        let producer_id = if idempotent { ProducerId((randomness.next() >> 1) as i64) } else { ProducerId::NONE };
        Self { producer_id, next: Sequence(0) }
    }
}

/// SplitMix64 (Steele, Lea, Flood 2014): the seed is random, everything after it replays.
#[derive(Debug)]
pub(super) struct Randomness(u64);

impl Randomness {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// 0 to 1.
    pub(super) fn fraction(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }
}
