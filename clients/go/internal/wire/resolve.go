package wire

import "github.com/minikafka/minikafka/clients/go/internal/errorcode"

// ResolveRequest asks for the map.
type ResolveRequest struct {
	Topics []string
	// AllTopics, whatever Topics says.
	AllTopics bool
	// WithRings: nodes and rings are wanted, too.
	WithRings bool
	// CreateMissing topics, where the cluster allows that.
	CreateMissing bool
}

// AppendTo appends the message's fields.
func (m *ResolveRequest) AppendTo(out []byte) []byte {
	out = putList(out, m.Topics, putText)
	return putBool(putBool(putBool(out, m.AllTopics), m.WithRings), m.CreateMissing)
}

// DecodeResolveRequest is the inverse of ResolveRequest.AppendTo.
func DecodeResolveRequest(head []byte) (ResolveRequest, error) {
	r := reader{rest: head}
	m := ResolveRequest{Topics: takeList(&r, 2, (*reader).text)}
	m.AllTopics, m.WithRings, m.CreateMissing = r.bool(), r.bool(), r.bool()
	return m, r.finish()
}

// NodeAddress is a node and where its shards listen.
type NodeAddress struct {
	Node NodeID
	// Rack is where it stands; empty: nobody said.
	Rack string
	// Shards has the host:port of shard 0, 1, …
	Shards []string
}

// ChainPlace is one place in a chain.
type ChainPlace struct {
	Node  NodeID
	Shard ShardID
}

// RangeChain is the chain of one range, head first. Epoch 0: the range was never active.
type RangeChain struct {
	Epoch  Epoch
	Places []ChainPlace
}

// RingMap is one ring: its number of ranges is that of its chains, a power of two.
type RingMap struct {
	Ring        RingID
	Replication uint16
	Chains      []RangeChain
}

// TopicState is where a topic is in its life.
type TopicState uint8

// The states of a topic.
const (
	TopicCreating TopicState = 1
	TopicReady    TopicState = 2
	TopicDeleting TopicState = 3
	TopicAltering TopicState = 4
)

// TopicConfig has the settings of a topic; negative retention means unlimited, a quota of 0 none.
type TopicConfig struct {
	RetentionMs           int64
	RetentionBytes        int64
	BatchBytesMax         uint32
	ProduceBytesPerSecond uint64
}

// TopicConfigChange has the settings that change; nil: as it is.
type TopicConfigChange struct {
	RetentionMs           *int64
	RetentionBytes        *int64
	BatchBytesMax         *uint32
	ProduceBytesPerSecond *uint64
}

// Placement names a partition that does not lie where its token says.
type Placement struct {
	Partition uint32
	Range     RangeID
}

// TopicDescription is a topic as its record says.
type TopicDescription struct {
	Name string
	// Error, if the topic cannot be described; then the rest means nothing.
	Error      errorcode.Code
	Topic      TopicID
	Partitions uint32
	Ring       RingID
	State      TopicState
	Config     TopicConfig
	Placement  []Placement
}

// ResolveReply is the map.
type ResolveReply struct {
	Cluster ClusterID
	// InternalRing is the one on which the cluster keeps its own state: groups lie there.
	InternalRing RingID
	Nodes        []NodeAddress
	Rings        []RingMap
	Topics       []TopicDescription
}

func putNodeAddress(out []byte, n NodeAddress) []byte {
	return putList(putText(putU32(out, uint32(n.Node)), n.Rack), n.Shards, putText)
}

func takeNodeAddress(r *reader) NodeAddress {
	return NodeAddress{NodeID(r.u32()), r.text(), takeList(r, 2, (*reader).text)}
}

func putChainPlace(out []byte, p ChainPlace) []byte {
	return putU16(putU32(out, uint32(p.Node)), uint16(p.Shard))
}

func takeChainPlace(r *reader) ChainPlace { return ChainPlace{NodeID(r.u32()), ShardID(r.u16())} }

func putRangeChain(out []byte, c RangeChain) []byte {
	return putList(putU64(out, uint64(c.Epoch)), c.Places, putChainPlace)
}

func takeRangeChain(r *reader) RangeChain {
	return RangeChain{Epoch(r.u64()), takeList(r, 6, takeChainPlace)}
}

func putRingMap(out []byte, m RingMap) []byte {
	return putList(putU16(putU16(out, uint16(m.Ring)), m.Replication), m.Chains, putRangeChain)
}

func takeRingMap(r *reader) RingMap {
	return RingMap{RingID(r.u16()), r.u16(), takeList(r, 12, takeRangeChain)}
}

func putTopicConfig(out []byte, c TopicConfig) []byte {
	out = putU64(putU64(out, uint64(c.RetentionMs)), uint64(c.RetentionBytes))
	return putU64(putU32(out, c.BatchBytesMax), c.ProduceBytesPerSecond)
}

func takeTopicConfig(r *reader) TopicConfig { return TopicConfig{r.i64(), r.i64(), r.u32(), r.u64()} }

func putI64(out []byte, number int64) []byte { return putU64(out, uint64(number)) }

func putTopicConfigChange(out []byte, c TopicConfigChange) []byte {
	out = putOptional(putOptional(out, c.RetentionMs, putI64), c.RetentionBytes, putI64)
	return putOptional(putOptional(out, c.BatchBytesMax, putU32), c.ProduceBytesPerSecond, putU64)
}

func takeTopicConfigChange(r *reader) TopicConfigChange {
	return TopicConfigChange{
		takeOptional(r, (*reader).i64), takeOptional(r, (*reader).i64),
		takeOptional(r, (*reader).u32), takeOptional(r, (*reader).u64),
	}
}

func putPlacement(out []byte, p Placement) []byte {
	return putU32(putU32(out, p.Partition), uint32(p.Range))
}

func takePlacement(r *reader) Placement { return Placement{r.u32(), RangeID(r.u32())} }

func putTopicDescription(out []byte, t TopicDescription) []byte {
	out = putU64(putU16(putText(out, t.Name), uint16(t.Error)), uint64(t.Topic))
	out = append(putU16(putU32(out, t.Partitions), uint16(t.Ring)), byte(t.State))
	return putList(putTopicConfig(out, t.Config), t.Placement, putPlacement)
}

func takeTopicDescription(r *reader) TopicDescription {
	t := TopicDescription{Name: r.text(), Error: r.code(), Topic: TopicID(r.u64()), Partitions: r.u32()}
	t.Ring, t.State = RingID(r.u16()), TopicState(r.u8())
	if t.State < TopicCreating || t.State > TopicAltering {
		r.fail("field", "topic state")
	}
	t.Config = takeTopicConfig(r)
	t.Placement = takeList(r, 8, takePlacement)
	return t
}

// AppendTo appends the message's fields.
func (m *ResolveReply) AppendTo(out []byte) []byte {
	out = putList(putU16(putU64(out, uint64(m.Cluster)), uint16(m.InternalRing)), m.Nodes, putNodeAddress)
	return putList(putList(out, m.Rings, putRingMap), m.Topics, putTopicDescription)
}

// DecodeResolveReply is the inverse of ResolveReply.AppendTo.
func DecodeResolveReply(head []byte) (ResolveReply, error) {
	r := reader{rest: head}
	m := ResolveReply{Cluster: ClusterID(r.u64()), InternalRing: RingID(r.u16())}
	m.Nodes = takeList(&r, 10, takeNodeAddress)
	m.Rings = takeList(&r, 8, takeRingMap)
	m.Topics = takeList(&r, 51, takeTopicDescription)
	return m, r.finish()
}

// AppendTo appends the message's fields.
func (t *TopicDescription) AppendTo(out []byte) []byte { return putTopicDescription(out, *t) }

// DecodeTopicDescription is the inverse of TopicDescription.AppendTo.
func DecodeTopicDescription(head []byte) (TopicDescription, error) {
	r := reader{rest: head}
	t := takeTopicDescription(&r)
	return t, r.finish()
}

// CreateTopicRequest creates a topic; zeros leave the choice to the cluster.
type CreateTopicRequest struct {
	Name        string
	Partitions  uint32
	Replication uint16
	Config      TopicConfig
	TimeoutMs   uint32
}

// AppendTo appends the message's fields.
func (m *CreateTopicRequest) AppendTo(out []byte) []byte {
	out = putU16(putU32(putText(out, m.Name), m.Partitions), m.Replication)
	return putU32(putTopicConfig(out, m.Config), m.TimeoutMs)
}

// DecodeCreateTopicRequest is the inverse of CreateTopicRequest.AppendTo.
func DecodeCreateTopicRequest(head []byte) (CreateTopicRequest, error) {
	r := reader{rest: head}
	m := CreateTopicRequest{r.text(), r.u32(), r.u16(), takeTopicConfig(&r), r.u32()}
	return m, r.finish()
}

// DeleteTopicRequest deletes a topic.
type DeleteTopicRequest struct {
	Name      string
	TimeoutMs uint32
}

// AppendTo appends the message's fields.
func (m *DeleteTopicRequest) AppendTo(out []byte) []byte {
	return putU32(putText(out, m.Name), m.TimeoutMs)
}

// DecodeDeleteTopicRequest is the inverse of DeleteTopicRequest.AppendTo.
func DecodeDeleteTopicRequest(head []byte) (DeleteTopicRequest, error) {
	r := reader{rest: head}
	m := DeleteTopicRequest{r.text(), r.u32()}
	return m, r.finish()
}

// AlterTopicRequest changes settings of a topic.
type AlterTopicRequest struct {
	Name      string
	Change    TopicConfigChange
	TimeoutMs uint32
}

// AppendTo appends the message's fields.
func (m *AlterTopicRequest) AppendTo(out []byte) []byte {
	return putU32(putTopicConfigChange(putText(out, m.Name), m.Change), m.TimeoutMs)
}

// DecodeAlterTopicRequest is the inverse of AlterTopicRequest.AppendTo.
func DecodeAlterTopicRequest(head []byte) (AlterTopicRequest, error) {
	r := reader{rest: head}
	m := AlterTopicRequest{r.text(), takeTopicConfigChange(&r), r.u32()}
	return m, r.finish()
}
