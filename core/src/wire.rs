//! Frames and messages, sans-I/O (`docs/PROTOCOL.md`): `net` drives them on glommio, `clients/rust` on tokio.

pub mod codec;
pub mod controller;
pub mod data;
pub mod error_reply;
pub mod explain;
pub mod frame;
pub mod group;
pub mod hello;
pub mod peer;
pub mod resolve;

pub use codec::{DecodeError, Reader, Wire};
pub use controller::*;
pub use data::*;
pub use error_reply::ErrorReply;
pub use explain::*;
pub use frame::{FRAME_HEADER_BYTES, FrameError, FrameHeader, encode_frame};
pub use group::*;
pub use hello::*;
pub use peer::{ComplainRequest, RunBytes};
pub use resolve::*;

/// What a frame asks for. Numbers below 10 open a connection, 10..20 go to shards, 20..40 to gateways, from 40 on they
/// are for peers and controllers and need a hello that proved the cluster secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u16)]
pub enum Api {
    /// First frame of every connection.
    Hello = 1,
    /// Proves the cluster secret.
    Prove = 2,
    /// Appends one batch.
    Produce = 10,
    /// Reads batches, waiting for them if asked to.
    Fetch = 11,
    /// Looks offsets up: earliest, latest, by time.
    ListOffsets = 12,
    /// Deletes the oldest records of partitions.
    DeleteRecords = 13,
    /// A group's member says what it has, and waits for news.
    GroupHeartbeat = 14,
    /// Commits offsets of a group.
    GroupCommit = 15,
    /// Where a group is.
    GroupOffsets = 16,
    /// Who is in a group.
    GroupDescribe = 17,
    /// Which groups there are.
    GroupList = 18,
    /// Deletes a group without members.
    GroupDelete = 19,
    /// The map: nodes, rings, topics.
    Resolve = 20,
    /// Creates a topic.
    CreateTopic = 21,
    /// Deletes a topic.
    DeleteTopic = 22,
    /// Changes a topic's settings.
    AlterTopic = 23,
    /// Promises an epoch and reports the log's end.
    Seal = 40,
    /// Brings a log to an exact end under a promised epoch.
    Reconcile = 41,
    /// Tells the members of the chain that the record now names.
    Activate = 42,
    /// Appends control entries at the head.
    AppendControl = 43,
    /// Copies ranges in the background, and tells how far that is.
    Learn = 44,
    /// One message of a chain's member to another. It has no reply.
    Peer = 45,
    /// Complaints about chains, from brokers to the controller.
    Complain = 46,
    /// How much ranges hold, for operators.
    Measure = 47,
}

impl Api {
    /// The api of a number from the wire.
    pub const fn from_number(number: u16) -> Option<Self> {
        Some(match number {
            1 => Self::Hello,
            2 => Self::Prove,
            10 => Self::Produce,
            11 => Self::Fetch,
            12 => Self::ListOffsets,
            13 => Self::DeleteRecords,
            14 => Self::GroupHeartbeat,
            15 => Self::GroupCommit,
            16 => Self::GroupOffsets,
            17 => Self::GroupDescribe,
            18 => Self::GroupList,
            19 => Self::GroupDelete,
            20 => Self::Resolve,
            21 => Self::CreateTopic,
            22 => Self::DeleteTopic,
            23 => Self::AlterTopic,
            40 => Self::Seal,
            41 => Self::Reconcile,
            42 => Self::Activate,
            43 => Self::AppendControl,
            44 => Self::Learn,
            45 => Self::Peer,
            46 => Self::Complain,
            47 => Self::Measure,
            _ => return None,
        })
    }

    /// The version of this api's messages that this release speaks.
    pub const fn version(self) -> u8 {
        1
    }

    /// Whether only a connection that proved the cluster secret may ask this.
    pub const fn needs_proof(self) -> bool {
        self as u16 >= 40
    }
}
