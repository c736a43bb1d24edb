//! The one source of randomness of a test: a failure shows its seed, and the seed replays it.
//!
//! What a test decides (sizes, codecs, which bits, when to kill) follows from the seed alone. How threads and processes
//! interleave does not, so a replay repeats the deeds and not always the outcome.

use std::fmt;

use rand::rngs::StdRng;
use rand::{RngCore, SeedableRng};

/// Environment variable that gives the seed.
const VARIABLE: &str = "MINIKAFKA_SEED";

/// Where every random decision of a test begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seed(u64);

impl Seed {
    /// The seed of the environment, or a new one. It is printed: the harness shows that when the test fails.
    ///
    /// # Panics
    /// When the environment has something that is no number.
    pub fn from_environment() -> Self {
        let seed = match std::env::var(VARIABLE) {
            Ok(text) => Self(text.trim().parse().unwrap_or_else(|error| panic!("{VARIABLE}={text}: {error}"))),
            Err(_) => Self(rand::random()),
        };
        println!("replay with {seed}");
        seed
    }

    /// Randomness for one part of the test: parts that run at once must not take from each other.
    pub fn part(self, number: u64) -> StdRng {
        // Seeds and parts that are neighbours must not give neighbouring streams.
        let mut mixer = StdRng::seed_from_u64(self.0 ^ number.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        StdRng::seed_from_u64(mixer.next_u64())
    }
}

impl fmt::Display for Seed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{VARIABLE}={}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_replays_and_its_parts_differ() {
        let draw = |seed: u64, part| Seed(seed).part(part).next_u64();
        assert_eq!(draw(7, 1), draw(7, 1));
        assert_ne!(draw(7, 1), draw(7, 2));
        assert_ne!(draw(7, 1), draw(8, 1));
    }
}
