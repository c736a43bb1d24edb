//! What members and tools ask of a group's coordinator (`docs/GROUPS.md`, section 5).

use super::codec::{DecodeError, Reader, Wire, wire_struct};
use crate::error_code::ErrorCode;
use crate::group::{GroupName, InstanceName};
use crate::ids::*;
use crate::limits::COMMIT_METADATA_BYTES_MAX;

/// Where a group goes on in a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommittedOffset {
    /// Which.
    pub partition: PartitionKey,
    /// The offset of the next record to read.
    pub offset: Offset,
    /// What its committer says besides; at most 256 bytes.
    pub metadata: String,
}

impl Wire for CommittedOffset {
    fn put(&self, out: &mut Vec<u8>) {
        self.partition.put(out);
        self.offset.put(out);
        self.metadata.put(out);
    }
    fn take(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let (partition, offset, metadata): (_, _, String) = (reader.take()?, reader.take()?, reader.take()?);
        if metadata.len() > COMMIT_METADATA_BYTES_MAX {
            return Err(DecodeError::Field { field: "commit metadata" });
        }
        Ok(Self { partition, offset, metadata })
    }
}

/// What a member is about to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum MemberIntent {
    /// To go on reading.
    #[default]
    Stay = 0,
    /// To leave; a static member's partitions wait for its next process, for a session time-out.
    Leave = 1,
    /// To leave for good, also as a static member.
    LeaveForGood = 2,
}

impl Wire for MemberIntent {
    fn put(&self, out: &mut Vec<u8>) {
        (*self as u8).put(out);
    }
    fn take(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(match reader.take::<u8>()? {
            0 => Self::Stay,
            1 => Self::Leave,
            2 => Self::LeaveForGood,
            _ => return Err(DecodeError::Field { field: "member intent" }),
        })
    }
}

wire_struct! {
    /// A topic that a member wants to read from.
    TopicSubscription {
        /// Which.
        topic: TopicId,
        /// How many partitions it has.
        partitions: u32,
    }
}

wire_struct! {
    /// What a member has to say: who it is, what it wants, what it has. It waits for news.
    GroupHeartbeatRequest {
        /// The group's range.
        range: RangeKey,
        /// The epoch of the range that the member believes in.
        epoch: Epoch,
        /// The group.
        group: GroupName,
        /// Who.
        member: MemberId,
        /// Grows with every request of this member, attempts included.
        sequence: GroupSequence,
        /// The last one told; 0: joins.
        generation: GroupGeneration,
        /// Static membership.
        instance: InstanceName,
        /// For people.
        client_name: String,
        /// Silent for so long, it is expelled.
        session_timeout_ms: u32,
        /// Answer after this long with what is known; 0: at once.
        wait_ms_max: u32,
        /// Whether it stays.
        intent: MemberIntent,
        /// What it wants to read; none: as it said last.
        subscribed: Option<Vec<TopicSubscription>>,
        /// What it reads, or is not done with; none: as it said last.
        owned: Option<Vec<PartitionKey>>,
    }
}

wire_struct! {
    /// A partition that a member may read.
    AssignedPartition {
        /// Which.
        partition: PartitionKey,
        /// Where to go on; none: the member reads it already, or nobody committed anything yet. Told of what it says that it
        /// reads, it lost that meanwhile and has it anew.
        committed: Option<Offset>,
    }
}

wire_struct! {
    /// Answer to a heartbeat.
    GroupHeartbeatReply {
        /// The generation that is told herewith.
        generation: GroupGeneration,
        /// All that the member may read; what it reads besides it gives back.
        assigned: Vec<AssignedPartition>,
    }
}

wire_struct! {
    /// Commits offsets.
    GroupCommitRequest {
        /// The group's range.
        range: RangeKey,
        /// The epoch of the range that the committer believes in.
        epoch: Epoch,
        /// The group.
        group: GroupName,
        /// Who; 0: a tool.
        member: MemberId,
        /// Grows with every request of this member, attempts included; of a tool: 0.
        sequence: GroupSequence,
        /// The last one that the member was told; of a tool: 0.
        generation: GroupGeneration,
        /// What.
        offsets: Vec<CommittedOffset>,
    }
}

wire_struct! {
    /// One partition of a commit's answer.
    CommitOutcome {
        /// Which.
        partition: PartitionKey,
        /// Why it is not committed, if it is not.
        error: Option<ErrorCode>,
    }
}

wire_struct! {
    /// Answer to a commit.
    GroupCommitReply {
        /// In the order of the request.
        partitions: Vec<CommitOutcome>,
    }
}

wire_struct! {
    /// Asks where a group is.
    GroupOffsetsRequest {
        /// The group's range.
        range: RangeKey,
        /// The epoch of the range that the client believes in.
        epoch: Epoch,
        /// The group.
        group: GroupName,
        /// In which partitions; none: in all.
        partitions: Option<Vec<PartitionKey>>,
    }
}

wire_struct! {
    /// Where a group is.
    GroupOffsetsReply {
        /// Of the partitions that have a commit, sorted.
        offsets: Vec<CommittedOffset>,
    }
}

wire_struct! {
    /// Asks who is in a group.
    GroupDescribeRequest {
        /// The group's range.
        range: RangeKey,
        /// The epoch of the range that the client believes in.
        epoch: Epoch,
        /// The group.
        group: GroupName,
    }
}

/// What a group is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum GroupPhase {
    /// It has no members.
    Empty = 0,
    /// Everybody has what it should have.
    Stable = 1,
    /// Partitions are on their way to other members.
    Rebalancing = 2,
}

impl Wire for GroupPhase {
    fn put(&self, out: &mut Vec<u8>) {
        (*self as u8).put(out);
    }
    fn take(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(match reader.take::<u8>()? {
            0 => Self::Empty,
            1 => Self::Stable,
            2 => Self::Rebalancing,
            _ => return Err(DecodeError::Field { field: "group phase" }),
        })
    }
}

wire_struct! {
    /// One member of a group.
    MemberDescription {
        /// Who.
        member: MemberId,
        /// Its instance name, if it has one.
        instance: InstanceName,
        /// Its program; empty: not told, or not heard since the coordinator began.
        client_name: String,
        /// For how long it was silent.
        silent_ms: u64,
        /// What it subscribes to.
        topics: Vec<TopicId>,
        /// What it owns.
        owned: Vec<PartitionKey>,
        /// What it should have.
        target: Vec<PartitionKey>,
    }
}

wire_struct! {
    /// Who is in a group.
    GroupDescribeReply {
        /// Its generation.
        generation: GroupGeneration,
        /// What it is at.
        phase: GroupPhase,
        /// Its members, by id.
        members: Vec<MemberDescription>,
    }
}

wire_struct! {
    /// A range whose groups are asked for.
    GroupListRange {
        /// Which.
        range: RangeKey,
        /// The epoch of the range that the client believes in.
        epoch: Epoch,
    }
}

wire_struct! {
    /// Asks which groups there are.
    GroupListRequest {
        /// In these ranges.
        ranges: Vec<GroupListRange>,
    }
}

wire_struct! {
    /// One group of a list.
    GroupSummary {
        /// Its name.
        group: GroupName,
        /// What it is at.
        phase: GroupPhase,
        /// How many members it has.
        members: u32,
    }
}

wire_struct! {
    /// The groups of a range.
    ListedGroups {
        /// Which range.
        range: RangeKey,
        /// What went wrong with this range; `overloaded`: the answer had no room for it, ask for it again.
        error: Option<ErrorCode>,
        /// Epoch of the range at the server; for `not_owner` and `stale`, the one to refresh to.
        epoch: Epoch,
        /// Its groups, by name.
        groups: Vec<GroupSummary>,
    }
}

wire_struct! {
    /// Which groups there are.
    GroupListReply {
        /// In the order of the request.
        ranges: Vec<ListedGroups>,
    }
}

wire_struct! {
    /// Deletes a group without members, its commits included. The answer is empty.
    GroupDeleteRequest {
        /// The group's range.
        range: RangeKey,
        /// The epoch of the range that the client believes in.
        epoch: Epoch,
        /// The group.
        group: GroupName,
    }
}
