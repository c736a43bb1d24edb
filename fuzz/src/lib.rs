//! The fuzz targets' bodies, shared with the tests that replay their corpora on a stable compiler.

#[path = "../../tests/src/fuzzing.rs"]
pub mod fuzzing;
