// Package cluster knows which node and shard owns which range, and what topics are made of (docs/PROTOCOL.md, "Resolve").
//
// A Map is an immutable snapshot: everything that is asked of it is computed, nothing is fetched. A Keeper asks gateways for
// newer ones. An older epoch of a range than one that was seen is never believed, whichever gateway tells it.
package cluster

import (
	"errors"
	"reflect"

	"github.com/minikafka/minikafka/clients/go/internal/errorcode"
	"github.com/minikafka/minikafka/clients/go/internal/wire"
)

// Map is a snapshot of nodes, rings, and the topics that this client has asked about.
type Map struct {
	version uint64
	cluster wire.ClusterID
	// internalRing is where groups lie.
	internalRing wire.RingID
	nodes        map[wire.NodeID]wire.NodeAddress
	rings        map[wire.RingID]wire.RingMap
	topics       map[string]*wire.TopicDescription
}

// Member is one of those that hold a range: all of them serve reads, only the head takes writes.
type Member struct {
	Node wire.NodeID
	// Rack of that node; empty: not told.
	Rack string
	// Address is the host:port of its shard.
	Address string
	IsHead  bool
}

// Version grows with every snapshot of one client; 0: nothing is known yet.
func (m *Map) Version() uint64 { return m.version }

// Cluster is the cluster's id.
func (m *Map) Cluster() wire.ClusterID { return m.cluster }

// Topic is a topic by name, nil when nobody asked about it yet; its Error is set when the gateway knows none.
func (m *Map) Topic(name string) *wire.TopicDescription { return m.topics[name] }

// Usable is a topic by name, nil unless it is known to exist.
func (m *Map) Usable(name string) *wire.TopicDescription {
	if topic := m.topics[name]; topic != nil && topic.Error == errorcode.None {
		return topic
	}
	return nil
}

// TopicName is the name of a topic by its id; empty when it is not known.
func (m *Map) TopicName(id wire.TopicID) string {
	for name, topic := range m.topics {
		if topic.Topic == id && topic.Error == errorcode.None {
			return name
		}
	}
	return ""
}

// RangeOf is the range that holds a partition: as the topic's placement says, otherwise by its token. False when the ring is
// not known.
func (m *Map) RangeOf(topic *wire.TopicDescription, partition uint32) (wire.RangeKey, bool) {
	for _, placement := range topic.Placement {
		if placement.Partition == partition {
			return wire.RangeKey{Ring: topic.Ring, Range: placement.Range}, true
		}
	}
	ring, ok := m.rings[topic.Ring]
	if !ok {
		return wire.RangeKey{}, false
	}
	token := wire.PartitionKey{Topic: topic.Topic, Partition: partition}.Token()
	return wire.RangeKey{Ring: topic.Ring, Range: wire.RangeOfToken(token, len(ring.Chains))}, true
}

// RangeOfGroup is the range whose head coordinates a group (docs/GROUPS.md section 1). False when its ring is not known.
func (m *Map) RangeOfGroup(group string) (wire.RangeKey, bool) {
	ring, ok := m.rings[m.internalRing]
	if !ok {
		return wire.RangeKey{}, false
	}
	return wire.RangeKey{Ring: ring.Ring, Range: wire.RangeOfToken(wire.GroupToken(group), len(ring.Chains))}, true
}

// GroupRanges are all ranges that may coordinate groups.
func (m *Map) GroupRanges() []wire.RangeKey {
	ring := m.rings[m.internalRing]
	ranges := make([]wire.RangeKey, len(ring.Chains))
	for i := range ranges {
		ranges[i] = wire.RangeKey{Ring: ring.Ring, Range: wire.RangeID(i)}
	}
	return ranges
}

func (m *Map) chain(key wire.RangeKey) *wire.RangeChain {
	ring := m.rings[key.Ring]
	if int(key.Range) >= len(ring.Chains) {
		return nil
	}
	return &ring.Chains[key.Range]
}

// Members are the members of a range's chain that have a known address, the head first if it has one.
func (m *Map) Members(key wire.RangeKey) []Member {
	chain := m.chain(key)
	if chain == nil {
		return nil
	}
	members := make([]Member, 0, len(chain.Places))
	for place, at := range chain.Places {
		node, ok := m.nodes[at.Node]
		if ok && int(at.Shard) < len(node.Shards) {
			members = append(members, Member{at.Node, node.Rack, node.Shards[at.Shard], place == 0})
		}
	}
	return members
}

// Owner is where requests about a range go: the head of its chain, and the chain's epoch. False when the range has no chain,
// or its head no known address.
func (m *Map) Owner(key wire.RangeKey) (address string, epoch wire.Epoch, ok bool) {
	chain := m.chain(key)
	if chain == nil || len(chain.Places) == 0 {
		return "", 0, false
	}
	head := chain.Places[0]
	node, ok := m.nodes[head.Node]
	if !ok || int(head.Shard) >= len(node.Shards) {
		return "", 0, false
	}
	return node.Shards[head.Shard], chain.Epoch, true
}

// Epoch is the newest epoch known of a range; 0 when nothing is known.
func (m *Map) Epoch(key wire.RangeKey) wire.Epoch {
	if chain := m.chain(key); chain != nil {
		return chain.Epoch
	}
	return 0
}

// Succeed is the snapshot that follows this one. Topics that were not asked for this time are kept.
func (m *Map) Succeed(reply *wire.ResolveReply) (*Map, error) {
	if err := check(reply); err != nil {
		return nil, err
	}
	next := &Map{
		version: m.version + 1, cluster: reply.Cluster, internalRing: reply.InternalRing, nodes: make(map[wire.NodeID]wire.NodeAddress, len(reply.Nodes)),
		rings: make(map[wire.RingID]wire.RingMap, len(reply.Rings)), topics: m.copyTopics(),
	}
	for i := range reply.Topics {
		next.topics[reply.Topics[i].Name] = &reply.Topics[i]
	}
	for _, node := range reply.Nodes {
		next.nodes[node.Node] = node
	}
	for _, ring := range reply.Rings {
		m.keepNewerChains(ring)
		next.rings[ring.Ring] = ring
	}
	return next, nil
}

// with is a snapshot with one topic more, or less (nil).
func (m *Map) with(name string, topic *wire.TopicDescription) *Map {
	next := *m
	next.version++
	next.topics = m.copyTopics()
	delete(next.topics, name)
	if topic != nil {
		next.topics[name] = topic
	}
	return &next
}

func (m *Map) copyTopics() map[string]*wire.TopicDescription {
	topics := make(map[string]*wire.TopicDescription, len(m.topics)+1)
	for name, topic := range m.topics {
		topics[name] = topic
	}
	return topics
}

// hasChainsOf tells whether nothing is known that other does not know: somebody needed to know more.
func (m *Map) hasChainsOf(other *Map) bool { return reflect.DeepEqual(m.rings, other.rings) }

// keepNewerChains: gateways may lag behind each other; a client never goes back to an older epoch of a range.
func (m *Map) keepNewerChains(ring wire.RingMap) {
	known := m.rings[ring.Ring]
	if len(known.Chains) != len(ring.Chains) {
		return
	}
	for i := range ring.Chains {
		if known.Chains[i].Epoch > ring.Chains[i].Epoch {
			ring.Chains[i] = known.Chains[i]
		}
	}
}

// check holds a reply to what the computations above rely on.
func check(reply *wire.ResolveReply) error {
	ranges := make(map[wire.RingID]int, len(reply.Rings))
	for _, ring := range reply.Rings {
		count := len(ring.Chains)
		if count == 0 || count&(count-1) != 0 || count > wire.RangesMax {
			return errors.New("the number of ranges of a ring is not a power of two")
		}
		ranges[ring.Ring] = count
	}
	for _, topic := range reply.Topics {
		if topic.Error != errorcode.None {
			continue
		}
		if topic.Partitions == 0 || topic.Partitions > wire.TopicPartitionsMax {
			return errors.New("a topic's partition count is outside its range")
		}
		for _, placement := range topic.Placement {
			if count, known := ranges[topic.Ring]; known && int(placement.Range) >= count {
				return errors.New("a partition is placed in a range that its ring does not have")
			}
		}
	}
	return nil
}
