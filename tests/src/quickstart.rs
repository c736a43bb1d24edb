//! What `scripts/quickstart` does: real text through a broker and back, compared byte for byte.

pub mod corpus;
pub mod stream;
