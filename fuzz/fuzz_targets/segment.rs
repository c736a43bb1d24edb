//! Feeds `fuzzing::segment` (tests/src/fuzzing.rs, which says what it promises) with what libFuzzer finds.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| minikafka_fuzz::fuzzing::segment(data));
