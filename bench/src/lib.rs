//! Measurements. Today the micro-benchmarks in `bench/benches/` (`cargo bench -p minikafka-bench`); the open-loop load
//! generator with its drivers comes with part 2.
