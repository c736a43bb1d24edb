package wire

import "github.com/minikafka/minikafka/clients/go/internal/errorcode"

// HeartbeatIntent is what a member wants.
type HeartbeatIntent uint8

// The intents: stay, leave (a static member keeps its partitions for its session time-out), leave for good.
const (
	IntentStay         HeartbeatIntent = 0
	IntentLeave        HeartbeatIntent = 1
	IntentLeaveForGood HeartbeatIntent = 2
)

// SubscribedTopic is a topic that a member subscribes to, with the number of partitions that its map says.
type SubscribedTopic struct {
	Topic      TopicID
	Partitions uint32
}

// HeartbeatRequest does all that a member of a group has to say (docs/GROUPS.md sections 4 and 5).
type HeartbeatRequest struct {
	Range RangeKey
	Epoch Epoch
	Group string
	// Member is the id that the member drew when it joined.
	Member MemberID
	// Sequence grows with every request of this member, attempts included.
	Sequence uint64
	// Generation is the last one told; 0: it joins.
	Generation uint64
	// Instance makes the member static; empty: it is not.
	Instance         string
	ClientName       string
	SessionTimeoutMs uint32
	WaitMsMax        uint32
	Intent           HeartbeatIntent
	// Subscribed and Owned may be left out (nil) while they are as in the last heartbeat that was answered by this
	// coordinator. An empty list that is not nil is one.
	Subscribed []SubscribedTopic
	Owned      []PartitionKey
}

// AssignedPartition belongs to the member. Committed is where to go on; nil: the member reads it already, or nobody has committed
// anything yet. Told of what the member reads, it was somebody else's meanwhile, and is read anew.
type AssignedPartition struct {
	Partition PartitionKey
	Committed *uint64
}

// HeartbeatReply says what the member has from now on.
type HeartbeatReply struct {
	Generation uint64
	Assigned   []AssignedPartition
}

func putSubscribedTopic(out []byte, t SubscribedTopic) []byte {
	return putU32(putU64(out, uint64(t.Topic)), t.Partitions)
}

func takeSubscribedTopic(r *reader) SubscribedTopic {
	return SubscribedTopic{TopicID(r.u64()), r.u32()}
}

func putOptionalList[T any](out []byte, items []T, put func([]byte, T) []byte) []byte {
	if items == nil {
		return append(out, 0)
	}
	return putList(append(out, 1), items, put)
}

func takeOptionalList[T any](r *reader, itemBytesMin int, take func(*reader) T) []T {
	if !r.bool() {
		return nil
	}
	return takeList(r, itemBytesMin, take)
}

// AppendTo appends the message's fields.
func (m *HeartbeatRequest) AppendTo(out []byte) []byte {
	out = putText(putU64(putRangeKey(out, m.Range), uint64(m.Epoch)), m.Group)
	out = putU64(putU64(putU64(out, uint64(m.Member)), m.Sequence), m.Generation)
	out = putText(putText(out, m.Instance), m.ClientName)
	out = append(putU32(putU32(out, m.SessionTimeoutMs), m.WaitMsMax), byte(m.Intent))
	out = putOptionalList(out, m.Subscribed, putSubscribedTopic)
	return putOptionalList(out, m.Owned, putPartitionKey)
}

// DecodeHeartbeatRequest is the inverse of HeartbeatRequest.AppendTo.
func DecodeHeartbeatRequest(head []byte) (HeartbeatRequest, error) {
	r := reader{rest: head}
	m := HeartbeatRequest{Range: r.rangeKey(), Epoch: Epoch(r.u64()), Group: r.groupName()}
	m.Member, m.Sequence, m.Generation = MemberID(r.u64()), r.u64(), r.u64()
	m.Instance, m.ClientName = r.instanceName(), r.text()
	m.SessionTimeoutMs, m.WaitMsMax, m.Intent = r.u32(), r.u32(), HeartbeatIntent(r.u8())
	if m.Intent > IntentLeaveForGood {
		r.fail("field", "intent")
	}
	m.Subscribed = takeOptionalList(&r, 12, takeSubscribedTopic)
	m.Owned = takeOptionalList(&r, 12, (*reader).partitionKey)
	return m, r.finish()
}

func putAssignedPartition(out []byte, p AssignedPartition) []byte {
	return putOptional(putPartitionKey(out, p.Partition), p.Committed, putU64)
}

func takeAssignedPartition(r *reader) AssignedPartition {
	return AssignedPartition{r.partitionKey(), takeOptional(r, (*reader).u64)}
}

// AppendTo appends the message's fields.
func (m *HeartbeatReply) AppendTo(out []byte) []byte {
	return putList(putU64(out, m.Generation), m.Assigned, putAssignedPartition)
}

// DecodeHeartbeatReply is the inverse of HeartbeatReply.AppendTo.
func DecodeHeartbeatReply(head []byte) (HeartbeatReply, error) {
	r := reader{rest: head}
	m := HeartbeatReply{Generation: r.u64(), Assigned: takeList(&r, 13, takeAssignedPartition)}
	return m, r.finish()
}

// CommittedOffset is the next offset that a group reads in a partition.
type CommittedOffset struct {
	Partition PartitionKey
	Offset    uint64
	Metadata  string
}

// CommitRequest commits offsets. Member 0, with sequence and generation 0, is a tool.
type CommitRequest struct {
	Range    RangeKey
	Epoch    Epoch
	Group    string
	Member   MemberID
	Sequence uint64
	// Generation is the last one that the member was told when it collected the offsets.
	Generation uint64
	Offsets    []CommittedOffset
}

// PartitionResult says how a partition of a commit went.
type PartitionResult struct {
	Partition PartitionKey
	Error     errorcode.Code
}

// CommitReply answers a commit.
type CommitReply struct {
	Partitions []PartitionResult
}

func putCommittedOffset(out []byte, o CommittedOffset) []byte {
	return putText(putU64(putPartitionKey(out, o.Partition), o.Offset), o.Metadata)
}

func takeCommittedOffset(r *reader) CommittedOffset {
	o := CommittedOffset{r.partitionKey(), r.u64(), r.text()}
	if len(o.Metadata) > CommitMetadataBytesMax {
		r.fail("field", "commit metadata")
	}
	return o
}

// AppendTo appends the message's fields.
func (m *CommitRequest) AppendTo(out []byte) []byte {
	out = putText(putU64(putRangeKey(out, m.Range), uint64(m.Epoch)), m.Group)
	out = putU64(putU64(putU64(out, uint64(m.Member)), m.Sequence), m.Generation)
	return putList(out, m.Offsets, putCommittedOffset)
}

// DecodeCommitRequest is the inverse of CommitRequest.AppendTo.
func DecodeCommitRequest(head []byte) (CommitRequest, error) {
	r := reader{rest: head}
	m := CommitRequest{Range: r.rangeKey(), Epoch: Epoch(r.u64()), Group: r.groupName()}
	m.Member, m.Sequence, m.Generation = MemberID(r.u64()), r.u64(), r.u64()
	m.Offsets = takeList(&r, 22, takeCommittedOffset)
	return m, r.finish()
}

func putPartitionResult(out []byte, p PartitionResult) []byte {
	return putU16(putPartitionKey(out, p.Partition), uint16(p.Error))
}

func takePartitionResult(r *reader) PartitionResult {
	return PartitionResult{r.partitionKey(), r.code()}
}

// AppendTo appends the message's fields.
func (m *CommitReply) AppendTo(out []byte) []byte {
	return putList(out, m.Partitions, putPartitionResult)
}

// DecodeCommitReply is the inverse of CommitReply.AppendTo.
func DecodeCommitReply(head []byte) (CommitReply, error) {
	r := reader{rest: head}
	m := CommitReply{Partitions: takeList(&r, 14, takePartitionResult)}
	return m, r.finish()
}

// GroupOffsetsRequest asks for what a group has committed; nil Partitions: of all.
type GroupOffsetsRequest struct {
	Range      RangeKey
	Epoch      Epoch
	Group      string
	Partitions []PartitionKey
}

// GroupOffsetsReply answers it.
type GroupOffsetsReply struct {
	Offsets []CommittedOffset
}

// AppendTo appends the message's fields.
func (m *GroupOffsetsRequest) AppendTo(out []byte) []byte {
	out = putText(putU64(putRangeKey(out, m.Range), uint64(m.Epoch)), m.Group)
	return putOptionalList(out, m.Partitions, putPartitionKey)
}

// DecodeGroupOffsetsRequest is the inverse of GroupOffsetsRequest.AppendTo.
func DecodeGroupOffsetsRequest(head []byte) (GroupOffsetsRequest, error) {
	r := reader{rest: head}
	m := GroupOffsetsRequest{r.rangeKey(), Epoch(r.u64()), r.groupName(), takeOptionalList(&r, 12, (*reader).partitionKey)}
	return m, r.finish()
}

// AppendTo appends the message's fields.
func (m *GroupOffsetsReply) AppendTo(out []byte) []byte {
	return putList(out, m.Offsets, putCommittedOffset)
}

// DecodeGroupOffsetsReply is the inverse of GroupOffsetsReply.AppendTo.
func DecodeGroupOffsetsReply(head []byte) (GroupOffsetsReply, error) {
	r := reader{rest: head}
	m := GroupOffsetsReply{Offsets: takeList(&r, 22, takeCommittedOffset)}
	return m, r.finish()
}
