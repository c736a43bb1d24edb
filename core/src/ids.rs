//! Newtypes for every id, index, offset and epoch, so that one can never be passed for another.

use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident($inner:ty);)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub $inner);

        impl $name {
            /// The bare number, for formats and arithmetic at the border.
            pub const fn get(self) -> $inner {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl From<$inner> for $name {
            fn from(value: $inner) -> Self {
                Self(value)
            }
        }
    )*};
}

ids! {
    /// A ring; there is one per replication factor in use.
    RingId(u16);
    /// A range of a ring: the unit of ownership, replication and recovery.
    RangeId(u32);
    /// A broker process, as its operator numbers it.
    NodeId(u32);
    /// A core of a node.
    ShardId(u16);
    /// Random, written once into a data directory: a wiped disk gets a new one.
    StoreId(u64);
    /// Random, drawn at every start of a broker process.
    Incarnation(u64);
    /// Number of a range's chain configuration; only ever grows. 0: never configured.
    Epoch(u64);
    /// Position of an entry in its range log; the first entry is 1, 0 means "before the first".
    LogIndex(u64);
    /// XXH3-64 chain over the entry headers up to an index; at index 0 it is 0.
    RunningHash(u64);
    /// Random and non-zero, never reused, so a topic created again under its old name is another topic.
    TopicId(u64);
    /// Partition number within a topic, from 0.
    Partition(u32);
    /// Offset of a record in its partition, from 0.
    Offset(u64);
    /// Random, drawn by a producer; negative: not idempotent.
    ProducerId(i64);
    /// Fences an older instance of the same producer.
    ProducerEpoch(i16);
    /// Number of a producer's record within one partition; wraps from `i32::MAX` to 0.
    Sequence(i32);
    /// Random number of a segment file's current use; what keeps a recycled file's old bytes from counting.
    Generation(u64);
    /// Number of a flush within its range log; grows by at least one.
    FlushNumber(u64);
    /// Position on a ring.
    Token(u64);
    /// Unique per controller session; names who holds a pending epoch.
    WriterId(u64);
    /// Number of a stream of entries to a successor: unique in the process that opens it, and growing.
    StreamId(u64);
    /// Number of a copy request: unique in the process that asks, and growing.
    CopyId(u64);
    /// Random, drawn when a cluster is created.
    ClusterId(u64);
    /// Number of an operator's operation, from 1; the last one's plus one.
    OperationId(u64);
    /// Milliseconds since the Unix epoch.
    Timestamp(i64);
    /// Random and non-zero, drawn by a consumer whenever it joins a group; 0: a tool, or nobody.
    MemberId(u64);
    /// Counts the changes of a group's ownership; only ever grows while the group lives. 0: nothing was told yet.
    GroupGeneration(u64);
    /// Number of a member's request to its group; grows with each, attempts included.
    GroupSequence(u64);
    /// Number of a topic's settings; only ever grows, so that an old change that arrives late does not undo a newer one.
    ConfigVersion(u64);
}

impl LogIndex {
    /// The index after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl ConfigVersion {
    /// Of a topic as it was created.
    pub const FIRST: Self = Self(1);

    /// The version after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl Epoch {
    /// The epoch after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl MemberId {
    /// Not a member: a tool that commits for a group, or nobody that owns a partition.
    pub const NONE: Self = Self(0);
}

impl GroupGeneration {
    /// The generation after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl ProducerId {
    /// Marks a batch whose producer wants no deduplication.
    pub const NONE: Self = Self(-1);

    /// Whether batches of this producer are deduplicated.
    pub const fn is_idempotent(self) -> bool {
        self.0 >= 0
    }
}

impl Sequence {
    /// The sequence `count` records later, wrapping from `i32::MAX` to 0 as Kafka's does.
    #[must_use]
    pub const fn advance(self, count: u32) -> Self {
        Self(((self.0 as u32).wrapping_add(count) & 0x7fff_ffff) as i32)
    }
}

/// A range together with its ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RangeKey {
    /// The ring.
    pub ring: RingId,
    /// The range within it.
    pub range: RangeId,
}

impl fmt::Display for RangeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.ring, self.range)
    }
}

/// A partition together with its topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PartitionKey {
    /// The topic.
    pub topic: TopicId,
    /// The partition within it.
    pub partition: Partition,
}

impl fmt::Display for PartitionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}/{}", self.topic.0, self.partition)
    }
}

/// The end of a log, or any point in it: two logs agree up to `index` exactly when their hashes there are equal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct LogPoint {
    /// Index of the last entry included.
    pub index: LogIndex,
    /// Running hash at that index.
    pub hash: RunningHash,
}

impl LogPoint {
    /// Before the first entry.
    pub const START: Self = Self { index: LogIndex(0), hash: RunningHash(0) };
}
