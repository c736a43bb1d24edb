//! What is counted, in words, and as Prometheus reads it.
//!
//! A [`Definition`] names a metric, its labels and what it means; `docs/METRICS.md` is written from them. Shards fill an
//! [`Exposition`] each, from their own cells and only when somebody asks; the expositions are merged and become text, in the
//! format of Prometheus. Absent: counting itself (each crate counts in cells of its own), and HTTP.

mod definition;
mod exposition;
mod process;
mod reference;

pub use definition::{Definition, Kind};
pub use exposition::{CONTENT_TYPE, Exposition};
pub use process::{PROCESS, process};
pub use reference::{Chapter, reference};
