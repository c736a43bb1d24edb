package fetch

import (
	"time"

	"github.com/minikafka/minikafka/clients/go/internal/cluster"
	"github.com/minikafka/minikafka/clients/go/internal/wire"
)

const (
	// leftAlone is how long a member that failed is left alone; then it is preferred again.
	leftAlone = 3 * time.Second
	// lagsMax is how often a member that does not know yet what was read elsewhere is asked before it is left alone: one
	// message behind is no reason.
	lagsMax = 3
)

// ReadFrom says which member of a chain records are read from.
type ReadFrom int

// The choices: the head, a member of the same rack, all of them spread over the partitions.
const (
	ReadFromHead ReadFrom = iota
	ReadFromNearest
	ReadFromAny
)

// members is what one partition remembers of its chain's members: which one it is read from, and which ones it leaves alone
// for a while. Whatever is chosen, positions only go forward and every member serves the same log: a choice costs time at
// worst. Bounded by the members that were in the chain within leftAlone.
type members struct {
	leftAlone []loneMember
	// lags counts answers of members behind the head, in a row, that they are behind.
	lags int
}

type loneMember struct {
	node  wire.NodeID
	until time.Time
}

// choose is the member to ask: as preferred, among those that are not left alone; when all are, the head.
func (m *members) choose(now time.Time, settings *Settings, current *cluster.Map, key wire.RangeKey, partition int32) (cluster.Member, bool) {
	kept := m.leftAlone[:0]
	for _, lone := range m.leftAlone {
		if lone.until.After(now) {
			kept = append(kept, lone)
		}
	}
	m.leftAlone = kept
	all := current.Members(key)
	if len(all) == 0 {
		return cluster.Member{}, false
	}
	switch settings.ReadFrom {
	case ReadFromHead:
		return all[0], all[0].IsHead
	case ReadFromNearest:
		for _, member := range all {
			if member.Rack == settings.Rack && m.isAsked(member.Node) {
				return member, true
			}
		}
	case ReadFromAny:
		for turn := range all {
			if member := all[(int(partition)+turn)%len(all)]; m.isAsked(member.Node) {
				return member, true
			}
		}
	}
	for _, member := range all {
		if m.isAsked(member.Node) {
			return member, true
		}
	}
	return all[0], true
}

func (m *members) isAsked(node wire.NodeID) bool {
	for _, lone := range m.leftAlone {
		if lone.node == node {
			return false
		}
	}
	return true
}

// failed says that a member failed. True: it is left alone from now on, and another one may be asked at once.
func (m *members) failed(now time.Time, node wire.NodeID, isHead bool) bool {
	if !m.isAsked(node) {
		return false
	}
	m.lags = 0
	m.leftAlone = append(m.leftAlone, loneMember{node, now.Add(leftAlone)})
	return !isHead
}

// lag says that a member knows less than what was read already. True, as in failed, when it is so for too long.
func (m *members) lag(now time.Time, node wire.NodeID, isHead bool) bool {
	m.lags++
	return m.lags >= lagsMax && m.failed(now, node, isHead)
}

// served says that a member served what was asked.
func (m *members) served() { m.lags = 0 }
