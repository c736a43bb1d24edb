//! What can go wrong, in one small enum: what happened, to what, and what to do.
//!
//! Errors are cheap to clone, because one lost connection fails every request that was in flight on it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use minikafka_core::{Epoch, ErrorCode, Offset, Partition};
use thiserror::Error;

/// The result of everything in this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a request, a delivery or a fetch failed.
#[derive(Clone, Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// A server answered with an error of the protocol's table.
    #[error("{0}")]
    Broker(Arc<BrokerError>),
    /// A connection could not be opened. Nothing was sent.
    #[error("cannot connect to {address}: {reason}. Check that the server runs and that this address is reachable")]
    ConnectFailed {
        /// `host:port`.
        address: Arc<str>,
        /// What the system or the server said.
        reason: Arc<str>,
    },
    /// A connection ended while a request was in flight: its outcome is unknown.
    #[error(
        "connection to {address} lost: {reason}. The outcome of requests in flight is unknown; sending again is safe"
    )]
    ConnectionLost {
        /// `host:port`.
        address: Arc<str>,
        /// What ended it.
        reason: Arc<str>,
    },
    /// Something did not happen in time.
    #[error("{what} did not finish within {} ms{}", .within.as_millis(), advice_of_deadline(*.outcome_unknown))]
    DeadlineExceeded {
        /// What was waited for, and of whom.
        what: Arc<str>,
        /// How long.
        within: Duration,
        /// Whether it may have happened all the same.
        outcome_unknown: bool,
    },
    /// A server sent bytes that are not what the protocol asks for.
    #[error("{from} sent a malformed {what}: {reason}. Check that both ends run compatible releases")]
    Malformed {
        /// `host:port`.
        from: Arc<str>,
        /// Which message.
        what: &'static str,
        /// What is wrong with it.
        reason: Arc<str>,
    },
    /// No gateway gave the map.
    #[error(
        "none of the gateways {tried} answered; the last one said: {last}. Check their addresses and that one runs"
    )]
    NoGateway {
        /// Every address tried.
        tried: Arc<str>,
        /// The last failure.
        last: Arc<str>,
    },
    /// A record can never be sent.
    #[error(
        "record has {bytes} bytes, at most {bytes_max} are allowed. Split it, or store it elsewhere and send a reference"
    )]
    RecordTooLarge {
        /// Key, value and headers together.
        bytes: u64,
        /// The limit: of the protocol, of the topic, or of this client's memory.
        bytes_max: u64,
    },
    /// A record contradicts the limits of the format in another way.
    #[error("record is not valid: {reason}")]
    InvalidRecord {
        /// What is wrong.
        reason: Arc<str>,
    },
    /// `try_send` found no space.
    #[error("the producer's memory is full. Await `send` instead, or raise `buffer_bytes_max`")]
    BufferFull,
    /// A partition that the topic does not have.
    #[error("topic {topic} has {partitions} partitions, there is no partition {partition}")]
    NoSuchPartition {
        /// The topic.
        topic: Arc<str>,
        /// What was asked for.
        partition: Partition,
        /// How many there are, numbered from 0.
        partitions: u32,
    },
    /// A batch was sent, its outcome was never learned, and it can no longer be sent again without risking a duplicate.
    #[error(
        "topic {topic} partition {partition}: batch may or may not be stored ({reason}). Read the partition to find out, or send it again and accept a duplicate"
    )]
    OutcomeUnknown {
        /// The topic.
        topic: Arc<str>,
        /// The partition.
        partition: Partition,
        /// What made the client give up.
        reason: Arc<str>,
    },
    /// Fetched bytes do not match their checksums or structure, repeatedly.
    #[error(
        "topic {topic} partition {partition} offset {offset}: fetched data are damaged ({reason}). Repair the log, or seek past it"
    )]
    Damaged {
        /// The topic.
        topic: Arc<str>,
        /// The partition.
        partition: Partition,
        /// The position of the consumer.
        offset: Offset,
        /// What does not match.
        reason: Arc<str>,
    },
    /// Records are damaged on the broker's disk, and no other member of the chain has them.
    #[error(
        "topic {topic} partition {partition}: records from offset {first} on are damaged on the broker's disk, {}. The \
         broker's log names file and place: restore the file from a backup, or go on without them with OnDamage::Skip \
         (consume --skip-damaged)",
        until(*.resume)
    )]
    DataDamaged {
        /// The topic.
        topic: Arc<str>,
        /// The partition.
        partition: Partition,
        /// The first offset that is lost.
        first: Offset,
        /// The first one behind the damage that can be read, if any can.
        resume: Option<Offset>,
    },
    /// A group has no commit in a partition, and its user wants to say where it begins.
    #[error(
        "topic {topic} partition {partition}: the group has committed nothing. Seek, or choose where it begins \
         (GroupStart::Earliest, GroupStart::Latest)"
    )]
    NoCommit {
        /// The topic.
        topic: Arc<str>,
        /// The partition.
        partition: Partition,
    },
    /// A setting is outside its range.
    #[error("option {option} is not valid: {reason}")]
    InvalidOption {
        /// Which.
        option: &'static str,
        /// Why.
        reason: Arc<str>,
    },
    /// This connection, producer, consumer or client was closed by its owner.
    #[error("{0} is closed")]
    Closed(&'static str),
}

/// An error of the protocol's table (`docs/PROTOCOL.md` section 6), as a server answered it.
#[derive(Clone, Debug)]
pub struct BrokerError {
    /// The code.
    pub code: ErrorCode,
    /// The server's own sentence; may be empty.
    pub message: String,
    /// For `not_owner` and `stale`: refresh the map to at least this. Otherwise 0.
    pub epoch: Epoch,
    /// Wait this long before the next attempt; zero: as you like.
    pub retry_after: Duration,
    /// Who answered, or which topic and partition it concerns.
    pub target: Arc<str>,
}

impl fmt::Display for BrokerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { code, message, target, .. } = self;
        let advice = code.advice();
        match message.is_empty() || message == advice {
            true => write!(f, "{target}: {code}. {advice}"),
            false => write!(f, "{target}: {code}: {message}. {advice}"),
        }
    }
}

impl Error {
    /// A protocol error about `target`, with the code's own advice as its message.
    pub fn broker(code: ErrorCode, target: impl Into<Arc<str>>) -> Self {
        Self::broker_with(code, target, String::new(), Epoch(0))
    }

    pub(crate) fn broker_with(code: ErrorCode, target: impl Into<Arc<str>>, message: String, epoch: Epoch) -> Self {
        let target = target.into();
        Self::Broker(Arc::new(BrokerError { code, message, epoch, retry_after: Duration::ZERO, target }))
    }

    pub(crate) fn malformed(from: &Arc<str>, what: &'static str, reason: impl ToString) -> Self {
        Self::Malformed { from: from.clone(), what, reason: reason.to_string().into() }
    }

    /// The protocol's code, if a server answered with one.
    pub fn code(&self) -> Option<ErrorCode> {
        match self {
            Self::Broker(broker) => Some(broker.code),
            _ => None,
        }
    }

    /// Whether the same request may succeed later. The producer and the consumer retry by themselves: an error that
    /// they return is either not retriable or was retried until the deadline.
    pub fn is_retriable(&self) -> bool {
        match self {
            Self::Broker(broker) => broker.code.is_retriable(),
            Self::ConnectFailed { .. }
            | Self::ConnectionLost { .. }
            | Self::DeadlineExceeded { .. }
            | Self::NoGateway { .. }
            | Self::BufferFull => true,
            _ => false,
        }
    }

    /// Whether a request that failed this way may have had its effect all the same.
    pub fn is_outcome_unknown(&self) -> bool {
        match self {
            Self::Broker(broker) => !nothing_was_written(broker.code),
            Self::ConnectionLost { .. } | Self::Malformed { .. } | Self::OutcomeUnknown { .. } => true,
            Self::DeadlineExceeded { outcome_unknown, .. } => *outcome_unknown,
            _ => false,
        }
    }

    /// Whether the map that led to this request may be out of date.
    pub(crate) fn wants_refresh(&self) -> bool {
        match self {
            Self::Broker(broker) => matches!(
                broker.code,
                ErrorCode::NotOwner
                    | ErrorCode::Stale
                    | ErrorCode::UnknownPartition
                    | ErrorCode::ShuttingDown
                    | ErrorCode::RangeFailed
                    | ErrorCode::BelowMinInSync
                    | ErrorCode::TimedOut
                    | ErrorCode::PartitionNotReady
            ),
            Self::ConnectFailed { .. } | Self::ConnectionLost { .. } | Self::DeadlineExceeded { .. } => true,
            _ => false,
        }
    }

    /// How long the server asked to wait.
    pub(crate) fn retry_after(&self) -> Duration {
        match self {
            Self::Broker(broker) => broker.retry_after,
            _ => Duration::ZERO,
        }
    }
}

/// Whether a produce request answered with `code` certainly wrote nothing. When in doubt it did: a batch that a sealed
/// head had appended may survive the change of epoch that its `stale` speaks of.
pub(crate) const fn nothing_was_written(code: ErrorCode) -> bool {
    !matches!(
        code,
        ErrorCode::Stale
            | ErrorCode::TimedOut
            | ErrorCode::ShuttingDown
            | ErrorCode::BelowMinInSync
            | ErrorCode::RangeFailed
            | ErrorCode::DuplicateSequence
            | ErrorCode::DataDamaged
            | ErrorCode::Internal
    )
}

fn until(resume: Option<Offset>) -> String {
    resume.map_or_else(|| "and nothing behind it can be read".to_owned(), |resume| format!("up to before {resume}"))
}

fn advice_of_deadline(outcome_unknown: bool) -> &'static str {
    if outcome_unknown { "; it may have happened all the same" } else { "; nothing was changed" }
}

const _: () = assert!(size_of::<Error>() <= 64, "an error travels through every result of the hot path");
