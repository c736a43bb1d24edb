package cluster

import (
	"fmt"
	"testing"

	"github.com/minikafka/minikafka/clients/go/internal/errorcode"
	"github.com/minikafka/minikafka/clients/go/internal/wire"
)

func reply(epoch wire.Epoch, head wire.NodeID) *wire.ResolveReply {
	chains := make([]wire.RangeChain, 4)
	for i := range chains {
		chains[i] = wire.RangeChain{Epoch: epoch, Places: []wire.ChainPlace{{Node: head, Shard: 1}}}
	}
	node := func(id int) wire.NodeAddress {
		return wire.NodeAddress{Node: wire.NodeID(id), Shards: []string{fmt.Sprintf("n%d:0", id), fmt.Sprintf("n%d:1", id)}}
	}
	return &wire.ResolveReply{
		Cluster: 9, InternalRing: 3, Nodes: []wire.NodeAddress{node(1), node(2)},
		Rings: []wire.RingMap{{Ring: 3, Replication: 3, Chains: chains}},
		Topics: []wire.TopicDescription{{
			Name: "orders", Topic: 1 << 62, Partitions: 4, Ring: 3, State: wire.TopicReady,
			Placement: []wire.Placement{{Partition: 2, Range: 3}},
		}},
	}
}

func succeed(t *testing.T, m *Map, reply *wire.ResolveReply) *Map {
	t.Helper()
	next, err := m.Succeed(reply)
	if err != nil {
		t.Fatal(err)
	}
	return next
}

func TestAPartitionLeadsToTheHeadOfItsRange(t *testing.T) {
	m := succeed(t, &Map{}, reply(5, 1))
	topic := m.Usable("orders")
	byToken, _ := m.RangeOf(topic, 0)
	placed, _ := m.RangeOf(topic, 2)
	if byToken != (wire.RangeKey{Ring: 3, Range: 1}) || placed != (wire.RangeKey{Ring: 3, Range: 3}) {
		t.Errorf("by its token %v, by its placement %v", byToken, placed)
	}
	if address, epoch, ok := m.Owner(byToken); address != "n1:1" || epoch != 5 || !ok {
		t.Errorf("owner %s in epoch %d", address, epoch)
	}
	if _, _, ok := m.Owner(wire.RangeKey{Ring: 3, Range: 4}); ok {
		t.Error("a range that is not there has an owner")
	}
	if m.TopicName(1<<62) != "orders" {
		t.Error("a topic is not found by its id")
	}
}

func TestALaggingGatewayDoesNotTakeTheMapBack(t *testing.T) {
	key := wire.RangeKey{Ring: 3, Range: 0}
	m := succeed(t, &Map{}, reply(5, 1))
	older := succeed(t, m, reply(4, 2))
	if older.Version() != 2 || older.Epoch(key) != 5 {
		t.Errorf("version %d, epoch %d", older.Version(), older.Epoch(key))
	}
	newer := succeed(t, older, reply(6, 2))
	if address, epoch, _ := newer.Owner(key); address != "n2:1" || epoch != 6 {
		t.Errorf("owner %s in epoch %d", address, epoch)
	}
	asked := Addressed{Address: "n1:1", Range: key, Epoch: 5}
	if !asked.Holds(m) || !asked.Holds(older) || asked.Holds(newer) {
		t.Error("a request is over exactly when a newer epoch is known")
	}
}

func TestRepliesThatWouldBreakTheArithmeticAreRefused(t *testing.T) {
	for name, change := range map[string]func(*wire.ResolveReply){
		"three ranges":     func(r *wire.ResolveReply) { r.Rings[0].Chains = r.Rings[0].Chains[:3] },
		"no ranges":        func(r *wire.ResolveReply) { r.Rings[0].Chains = nil },
		"no partitions":    func(r *wire.ResolveReply) { r.Topics[0].Partitions = 0 },
		"a placement away": func(r *wire.ResolveReply) { r.Topics[0].Placement[0].Range = 4 },
	} {
		bad := reply(1, 1)
		change(bad)
		if _, err := (&Map{}).Succeed(bad); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
	unknown := reply(1, 1)
	unknown.Topics[0].Partitions, unknown.Topics[0].Error = 0, errorcode.UnknownTopic
	if m := succeed(t, &Map{}, unknown); m.Usable("orders") != nil || m.Topic("orders") == nil {
		t.Error("a topic that does not exist is known as such")
	}
}

func TestAGroupLiesOnTheInternalRing(t *testing.T) {
	answer := reply(5, 1)
	five := answer.Rings[0]
	five.Ring, five.Replication = 2, 3
	one := answer.Rings[0]
	one.Ring, one.Replication = 1, 1
	answer.Rings = append(answer.Rings, five, one)
	m := succeed(t, &Map{}, answer)
	// SHA-256("queue") begins with 00 b1 09 cf 11 23 a5 91: little-endian, its two top bits are those of 0x91.
	key, ok := m.RangeOfGroup("queue")
	if !ok || key != (wire.RangeKey{Ring: 3, Range: 2}) {
		t.Errorf("group in %v (%v)", key, ok)
	}
	if len(m.GroupRanges()) != 4 {
		t.Errorf("%d ranges", len(m.GroupRanges()))
	}
	answer.InternalRing = 7
	if _, ok := succeed(t, m, answer).RangeOfGroup("queue"); ok {
		t.Error("a ring that is not there coordinates")
	}
	if _, ok := (&Map{}).RangeOfGroup("queue"); ok {
		t.Error("without a ring there is no coordinator")
	}
}

func TestNames(t *testing.T) {
	for _, good := range []string{"a", "orders.v1", "A_b-9"} {
		if err := CheckName(good); err != nil {
			t.Errorf("%q: %v", good, err)
		}
	}
	for _, bad := range []string{"", ".", "..", "a b", "ü", "a/b", "@", "[", string(make([]byte, 250))} {
		if CheckName(bad) == nil {
			t.Errorf("%q passes", bad)
		}
	}
}
