//! Why a measurement could not be made.

use std::io;

use thiserror::Error;

/// Why a measurement could not be made.
#[derive(Debug, Error)]
pub enum BenchError {
    /// The cluster could not be asked, or refused.
    #[error(transparent)]
    Client(#[from] minikafka_client::Error),
    /// A file, socket or process could not be used.
    #[error("{what}: {source}")]
    Io {
        /// What was being done, to what.
        what: String,
        /// What the system says.
        source: io::Error,
    },
    /// The options contradict each other, or the cluster.
    #[error("{0}")]
    Options(String),
    /// The measurement ended in a way that leaves no figure worth printing.
    #[error("{0}")]
    Failed(String),
}

/// What most functions here return.
pub type Result<T, E = BenchError> = std::result::Result<T, E>;

impl BenchError {
    pub(crate) fn failed(what: impl Into<String>) -> Self {
        Self::Failed(what.into())
    }
}

/// Says what was being done when the system refused.
pub(crate) trait Doing<T> {
    /// Names the deed.
    fn doing(self, what: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: Into<io::Error>> Doing<T> for Result<T, E> {
    fn doing(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|error| BenchError::Io { what: what(), source: error.into() })
    }
}
