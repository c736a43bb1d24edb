//! The head of a reply whose frame header names an error.

use super::codec::wire_struct;
use crate::error_code::ErrorCode;
use crate::ids::Epoch;

wire_struct! {
    /// What happened, to what, and what helps.
    ErrorReply {
        /// For `not_owner` and `stale`: refresh the map until it is at this epoch or above. Otherwise 0.
        epoch: Epoch,
        /// For retriable errors: wait this long first. 0: the client's own back-off.
        retry_after_ms: u32,
        /// One sentence for a person.
        message: String,
    }
}

impl ErrorReply {
    /// A reply that only explains.
    pub fn because(message: impl Into<String>) -> Self {
        Self { epoch: Epoch(0), retry_after_ms: 0, message: message.into() }
    }

    /// A reply with the code's own advice as its message.
    pub fn of(code: ErrorCode) -> Self {
        Self::because(code.advice())
    }

    /// The same, naming the epoch to refresh to.
    #[must_use]
    pub fn at_epoch(mut self, epoch: Epoch) -> Self {
        self.epoch = epoch;
        self
    }

    /// The same, naming how long to wait.
    #[must_use]
    pub fn after_ms(mut self, retry_after_ms: u32) -> Self {
        self.retry_after_ms = retry_after_ms;
        self
    }
}
