//! Bad clients against a real process: whatever they send, they get a typed error or the end of their own connection,
//! nothing of theirs is stored, and well-behaved clients notice nothing.
//!
//! In every test a load of `minikafka_tests::load` goes on beside the attack, and its history is checked; attacks aim at
//! another topic, `target`, whose partitions must be empty in the end and must then take a good batch. What an attack
//! decides at random follows from the seed, which a failure prints.
//!
//! Proof that it can fail: with a broker that took any body without looking, `bodies_that_were_damaged`,
//! `bodies_whose_columns_lie`, `records_and_batches_over_their_limits` and `flipped_bits` failed.
//!
//! Deadlines are the ones that ship, so only the hello's (10 s) is waited for here. Frames that drip, replies that are never
//! read until the write deadline, and idle connections are tested with short deadlines in `net/tests/server/deadlines.rs`
//! and in `gateway/`.

mod batches;
mod crowd;
mod frames;
mod requests;
mod scene;
