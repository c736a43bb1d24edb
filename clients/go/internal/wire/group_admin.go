package wire

import "github.com/minikafka/minikafka/clients/go/internal/errorcode"

// GroupState is how a group is.
type GroupState uint8

// The states of a group.
const (
	GroupEmpty       GroupState = 0
	GroupStable      GroupState = 1
	GroupRebalancing GroupState = 2
)

// GroupRequest names a group: group-describe and group-delete.
type GroupRequest struct {
	Range RangeKey
	Epoch Epoch
	Group string
}

// AppendTo appends the message's fields.
func (m *GroupRequest) AppendTo(out []byte) []byte {
	return putText(putU64(putRangeKey(out, m.Range), uint64(m.Epoch)), m.Group)
}

// DecodeGroupRequest is the inverse of GroupRequest.AppendTo.
func DecodeGroupRequest(head []byte) (GroupRequest, error) {
	r := reader{rest: head}
	m := GroupRequest{r.rangeKey(), Epoch(r.u64()), r.groupName()}
	return m, r.finish()
}

// DescribedMember is one member of a described group.
type DescribedMember struct {
	Member     MemberID
	Instance   string
	ClientName string
	// SilentMs is how long ago it was heard of.
	SilentMs uint64
	Topics   []TopicID
	Owned    []PartitionKey
	Target   []PartitionKey
}

// GroupDescription answers group-describe.
type GroupDescription struct {
	Generation uint64
	State      GroupState
	Members    []DescribedMember
}

func putTopicID(out []byte, id TopicID) []byte { return putU64(out, uint64(id)) }
func takeTopicID(r *reader) TopicID            { return TopicID(r.u64()) }

func putDescribedMember(out []byte, m DescribedMember) []byte {
	out = putText(putText(putU64(out, uint64(m.Member)), m.Instance), m.ClientName)
	out = putList(putU64(out, m.SilentMs), m.Topics, putTopicID)
	return putList(putList(out, m.Owned, putPartitionKey), m.Target, putPartitionKey)
}

func takeDescribedMember(r *reader) DescribedMember {
	m := DescribedMember{Member: MemberID(r.u64()), Instance: r.instanceName(), ClientName: r.text(), SilentMs: r.u64()}
	m.Topics = takeList(r, 8, takeTopicID)
	m.Owned = takeList(r, 12, (*reader).partitionKey)
	m.Target = takeList(r, 12, (*reader).partitionKey)
	return m
}

func takeGroupState(r *reader) GroupState {
	state := GroupState(r.u8())
	if state > GroupRebalancing {
		r.fail("field", "group state")
	}
	return state
}

// AppendTo appends the message's fields.
func (m *GroupDescription) AppendTo(out []byte) []byte {
	return putList(append(putU64(out, m.Generation), byte(m.State)), m.Members, putDescribedMember)
}

// DecodeGroupDescription is the inverse of GroupDescription.AppendTo.
func DecodeGroupDescription(head []byte) (GroupDescription, error) {
	r := reader{rest: head}
	m := GroupDescription{r.u64(), takeGroupState(&r), takeList(&r, 32, takeDescribedMember)}
	return m, r.finish()
}

// RangeEpoch names a range in the epoch that the client believes in.
type RangeEpoch struct {
	Range RangeKey
	Epoch Epoch
}

// GroupListRequest asks for the groups of ranges.
type GroupListRequest struct {
	Ranges []RangeEpoch
}

// ListedGroup is one group of a range.
type ListedGroup struct {
	Group   string
	State   GroupState
	Members uint32
}

// ListedRange has the groups of one range.
type ListedRange struct {
	Range RangeKey
	// Error Overloaded: the answer had no room for it, ask for it again.
	Error  errorcode.Code
	Epoch  Epoch
	Groups []ListedGroup
}

// GroupListReply answers group-list.
type GroupListReply struct {
	Ranges []ListedRange
}

func putRangeEpoch(out []byte, e RangeEpoch) []byte {
	return putU64(putRangeKey(out, e.Range), uint64(e.Epoch))
}

func takeRangeEpoch(r *reader) RangeEpoch { return RangeEpoch{r.rangeKey(), Epoch(r.u64())} }

func putListedGroup(out []byte, g ListedGroup) []byte {
	return putU32(append(putText(out, g.Group), byte(g.State)), g.Members)
}

func takeListedGroup(r *reader) ListedGroup {
	return ListedGroup{r.groupName(), takeGroupState(r), r.u32()}
}

func putListedRange(out []byte, l ListedRange) []byte {
	return putList(putU64(putU16(putRangeKey(out, l.Range), uint16(l.Error)), uint64(l.Epoch)), l.Groups, putListedGroup)
}

func takeListedRange(r *reader) ListedRange {
	return ListedRange{r.rangeKey(), r.code(), Epoch(r.u64()), takeList(r, 7, takeListedGroup)}
}

// AppendTo appends the message's fields.
func (m *GroupListRequest) AppendTo(out []byte) []byte { return putList(out, m.Ranges, putRangeEpoch) }

// DecodeGroupListRequest is the inverse of GroupListRequest.AppendTo.
func DecodeGroupListRequest(head []byte) (GroupListRequest, error) {
	r := reader{rest: head}
	m := GroupListRequest{Ranges: takeList(&r, 14, takeRangeEpoch)}
	return m, r.finish()
}

// AppendTo appends the message's fields.
func (m *GroupListReply) AppendTo(out []byte) []byte { return putList(out, m.Ranges, putListedRange) }

// DecodeGroupListReply is the inverse of GroupListReply.AppendTo.
func DecodeGroupListReply(head []byte) (GroupListReply, error) {
	r := reader{rest: head}
	m := GroupListReply{Ranges: takeList(&r, 20, takeListedRange)}
	return m, r.finish()
}
