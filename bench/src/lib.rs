//! The load generator: `minikafka bench produce | consume | end-to-end | limits | suite | compare`.
//!
//! It says how fast a broker is *beside how fast its machine could be*: every figure stands beside its ratio to the limit
//! that binds it (`limits`, `report::ratio`), and in an open loop latency begins at the intended time (`pace`), so that a
//! stall is seen by everybody who would have waited. `docs/BENCHMARKS.md` says what each figure means.
//!
//! It judges nothing else: correctness is for the tests, which read back what they wrote. Micro-benchmarks of the batch
//! format are in `bench/benches/`.

mod broker;
pub mod command;
mod compare;
mod driver;
mod error;
mod limits;
mod loopback;
mod machine;
mod measure;
mod pace;
mod pin;
mod progress;
mod quantity;
mod report;
mod suite;
mod target;
mod workload;

pub use command::{BenchCommand, Context, run};
pub use error::BenchError;
pub use report::BenchReport;
