//! What a topic is made of: its name, its configuration, its life.

use serde::{Deserialize, Serialize};

use crate::error_code::ErrorCode;
use crate::limits;

/// Settings of a topic, the same on every member of every chain that holds one of its partitions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopicConfig {
    /// Records older than this, by append time, may be deleted. Negative: never.
    pub retention_ms: i64,
    /// Oldest records are deleted while a partition is larger than this. Negative: never.
    pub retention_bytes: i64,
    /// Largest batch body accepted, at most [`limits::BATCH_BODY_BYTES_MAX`].
    pub batch_bytes_max: u32,
}

impl Default for TopicConfig {
    fn default() -> Self {
        Self { retention_ms: -1, retention_bytes: -1, batch_bytes_max: limits::BATCH_BODY_BYTES_MAX }
    }
}

/// Where a topic is in its life. Only the controller moves it on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[repr(u8)]
pub enum TopicState {
    /// Its partitions are being opened.
    Creating = 1,
    /// Every partition is open.
    Ready = 2,
    /// Its partitions are being deleted; the name is free again when it is gone.
    Deleting = 3,
}

impl TopicState {
    /// The state of a number from the wire.
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Creating),
            2 => Some(Self::Ready),
            3 => Some(Self::Deleting),
            _ => None,
        }
    }
}

/// Checks a topic name: 1 to 249 of `A-Z a-z 0-9 . _ -`, and neither `.` nor `..`.
pub fn check_name(name: &str) -> Result<(), ErrorCode> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    let ok = (1..=limits::TOPIC_NAME_BYTES_MAX).contains(&name.len())
        && name.bytes().all(allowed)
        && name != "."
        && name != "..";
    if ok { Ok(()) } else { Err(ErrorCode::InvalidTopicName) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for good in ["a", "orders.v1", "A_b-9", &"x".repeat(249)] {
            assert_eq!(check_name(good), Ok(()), "{good}");
        }
        for bad in ["", ".", "..", "a b", "ü", "a/b", &"x".repeat(250)] {
            assert_eq!(check_name(bad), Err(ErrorCode::InvalidTopicName), "{bad}");
        }
    }
}
