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
    /// Body bytes that each shard takes per second, for all partitions of the topic that it heads. 0: unlimited.
    pub produce_bytes_per_second: u64,
}

impl Default for TopicConfig {
    fn default() -> Self {
        Self {
            retention_ms: -1,
            retention_bytes: -1,
            batch_bytes_max: limits::BATCH_BODY_BYTES_MAX,
            produce_bytes_per_second: 0,
        }
    }
}

impl TopicConfig {
    /// What is wrong with these settings, naming the field, if anything is.
    pub fn defect(&self) -> Option<String> {
        let most = limits::BATCH_BODY_BYTES_MAX;
        let batch_bytes_max = self.batch_bytes_max;
        (batch_bytes_max == 0 || batch_bytes_max > most)
            .then(|| format!("batch_bytes_max is {batch_bytes_max}: 1 to {most}"))
    }
}

/// Which settings of a topic change, and to what; none: as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TopicConfigChange {
    /// See [`TopicConfig::retention_ms`].
    pub retention_ms: Option<i64>,
    /// See [`TopicConfig::retention_bytes`].
    pub retention_bytes: Option<i64>,
    /// See [`TopicConfig::batch_bytes_max`].
    pub batch_bytes_max: Option<u32>,
    /// See [`TopicConfig::produce_bytes_per_second`].
    pub produce_bytes_per_second: Option<u64>,
}

impl TopicConfigChange {
    /// The settings with this change made. Made twice, it is as made once.
    #[must_use]
    pub fn applied_to(&self, config: &TopicConfig) -> TopicConfig {
        TopicConfig {
            retention_ms: self.retention_ms.unwrap_or(config.retention_ms),
            retention_bytes: self.retention_bytes.unwrap_or(config.retention_bytes),
            batch_bytes_max: self.batch_bytes_max.unwrap_or(config.batch_bytes_max),
            produce_bytes_per_second: self.produce_bytes_per_second.unwrap_or(config.produce_bytes_per_second),
        }
    }

    /// Whether it changes nothing, whatever the settings are.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
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
    /// Every partition is open, and some do not have its newest settings yet.
    Altering = 4,
}

impl TopicState {
    /// The state of a number from the wire.
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Creating),
            2 => Some(Self::Ready),
            3 => Some(Self::Deleting),
            4 => Some(Self::Altering),
            _ => None,
        }
    }
}

/// Checks a topic name: 1 to 249 of `A-Z a-z 0-9 . _ -`, and neither `.` nor `..`.
pub fn check_name(name: &str) -> Result<(), ErrorCode> {
    if is_name(name, limits::TOPIC_NAME_BYTES_MAX) { Ok(()) } else { Err(ErrorCode::InvalidTopicName) }
}

/// Whether a text is a name as topics and groups have it.
pub(crate) fn is_name(name: &str, bytes_max: usize) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    (1..=bytes_max).contains(&name.len()) && name.bytes().all(allowed) && name != "." && name != ".."
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
