// Package member is one member of a consumer group (docs/GROUPS.md): what its heartbeats say, and what their answers mean.
//
// Pure and synchronous: time and answers come in; heartbeats to send and actions come out. Servers decide who reads what; the
// member reports and does as it is told.
//
//	           answered                      unknown_member to a whole heartbeat: everything is lost,
//	┌─────────┐────────▶┌────────┐           a new id is drawn
//	│ joining │         │ joined │─────────────────────────────────────────────┐
//	└─────────┘◀──┐     └────────┘                                             │
//	     ▲        └──────────│─────────────────────────────────────────────────┘
//	     │                   │ Leave                  ┌──────┐
//	     └──(any) Leave ─────┴──▶┌─────────┐ answered │      │
//	                             │ leaving │─────────▶│ over │◀── member_fenced, or what no retry mends: from anywhere
//	                             └─────────┘          └──────┘
//
// A partition of a member:
//
//	          assigned            missing in an answer             Released
//	(nothing) ────────▶ owned ───────────────────────▶ revoking ───────────▶ (nothing, reported with the next heartbeat)
//
// One that was given to others meanwhile is missing, too: its commit is refused, and it is lost. One that is owned and assigned
// again with a place to go on from was somebody else's meanwhile: it is lost, and read anew.
//
// Every request has a higher sequence than all before it, commits and attempts included: one that is overtaken on its way changes
// nothing there.
//
// Heartbeats wait at the coordinator, one at a time. While a revocation is under way they are held back for a moment, so that
// its end can be reported at once, and wait only shortly then.
package member

import (
	"errors"
	"math/rand/v2"
	"sort"
	"time"

	"github.com/minikafka/minikafka/clients/go/internal/backoff"
	"github.com/minikafka/minikafka/clients/go/internal/errorcode"
	"github.com/minikafka/minikafka/clients/go/internal/fault"
	"github.com/minikafka/minikafka/clients/go/internal/wire"
)

const (
	// waitMax is the longest wait of a heartbeat, besides a third of the session time-out.
	waitMax = wire.HeartbeatWaitMsMax * time.Millisecond
	// revokeHold is how long the next heartbeat is held back for the end of a revocation, and how long it waits then.
	revokeHold = 100 * time.Millisecond
	// idleHold separates heartbeats whose answers brought nothing and came at once.
	idleHold = 100 * time.Millisecond
)

// Settings are what a member is told once.
type Settings struct {
	Group          string
	Instance       string
	ClientName     string
	SessionTimeout time.Duration
}

type state int

const (
	joining state = iota
	joined
	leaving
	over
)

// Machine is a member.
type Machine struct {
	settings   Settings
	newID      func() wire.MemberID
	state      state
	id         wire.MemberID
	sequence   uint64
	generation uint64
	subscribed []wire.SubscribedTopic
	// subscription counts changes of what is subscribed to.
	subscription int
	owned        map[wire.PartitionKey]*ownership
	intent       wire.HeartbeatIntent
	// inFlight is the heartbeat that waits for its answer.
	inFlight *Heartbeat
	// nextAt: no heartbeat before it, unless there is something to report.
	nextAt   time.Time
	failures int
	// toldCoordinator is the one that has answered a heartbeat with everything in it; isTold: nothing has changed since.
	toldCoordinator string
	isTold          bool
}

type ownership struct {
	isRevoking bool
	// turn is the generation that assigned it: it tells this turn from earlier and later ones.
	turn uint64
}

// Committer says who commits, and by which ownership: a commit that is sent late must not pass for one of a later turn.
type Committer struct {
	ID         wire.MemberID
	Generation uint64
}

// Heartbeat is one to be sent. The sender fills in range and epoch.
type Heartbeat struct {
	Message     wire.HeartbeatRequest
	coordinator string
	// isWhole: nothing was left out.
	isWhole bool
	// owned is what the coordinator knows with it to be owned, and subscription what it knows to be subscribed to.
	owned        map[wire.PartitionKey]bool
	subscription int
	sentAt       time.Time
}

// Action is something to do for the member's sake. At most one of its fields is set.
type Action struct {
	// Assigned partitions are to be read from now on, from Committed, where there is a commit.
	Assigned []wire.AssignedPartition
	// Turn goes with Assigned; Turn of the machine tells whether it is still the one.
	Turn uint64
	// Revoked partitions are to be given up: stop reading, commit what was handled, then call Released.
	Revoked []wire.PartitionKey
	// Lost partitions are gone already: stop reading, commit nothing.
	Lost []wire.PartitionKey
	// Failed ends the member, and says why.
	Failed error
	// Left: the coordinator knows that it is gone.
	Left bool
}

// New makes a member that will join. newID draws ids; nil: at random.
func New(settings Settings, subscribed []wire.SubscribedTopic, newID func() wire.MemberID) *Machine {
	if newID == nil {
		newID = func() wire.MemberID { return wire.MemberID(rand.Uint64() | 1) }
	}
	return &Machine{settings: settings, newID: newID, id: newID(), subscribed: subscribed, owned: map[wire.PartitionKey]*ownership{}}
}

// ID is the member's id, which commits name. It changes when the member was expelled.
func (m *Machine) ID() wire.MemberID { return m.id }

// Generation is the last one told.
func (m *Machine) Generation() uint64 { return m.generation }

// IsOver tells whether the member has left or failed.
func (m *Machine) IsOver() bool { return m.state == over }

// NextSequence is the sequence of the next request, of whatever kind.
func (m *Machine) NextSequence() uint64 {
	m.sequence++
	return m.sequence
}

// Committer is who commits what is handled by now.
func (m *Machine) Committer() Committer { return Committer{m.id, m.generation} }

// Turn is which turn of a partition is the member's now, also while it is being revoked; false: none is.
func (m *Machine) Turn(partition wire.PartitionKey) (uint64, bool) {
	if owned := m.owned[partition]; owned != nil {
		return owned.turn, true
	}
	return 0, false
}

// Owned are the partitions of the member, in order.
func (m *Machine) Owned() []wire.PartitionKey {
	owned := make([]wire.PartitionKey, 0, len(m.owned))
	for partition := range m.owned {
		owned = append(owned, partition)
	}
	sortPartitions(owned)
	return owned
}

// Subscribe says what the member subscribes to from now on.
func (m *Machine) Subscribe(subscribed []wire.SubscribedTopic) {
	m.subscribed = subscribed
	m.subscription++
	m.isTold = false
	m.nextAt = time.Time{}
}

// Released says that these partitions are not read any more, and that what was handled of them is committed.
func (m *Machine) Released(partitions []wire.PartitionKey) {
	for _, partition := range partitions {
		if owned := m.owned[partition]; owned != nil && owned.isRevoking {
			delete(m.owned, partition)
			m.isTold = false
		}
	}
	if !m.isRevoking() {
		m.nextAt = time.Time{}
	}
}

// Refused says that a commit for these partitions was refused as not_assigned: they belong to others, unless they have become the
// member's own since it was made.
func (m *Machine) Refused(by Committer, partitions []wire.PartitionKey) []Action {
	if by.ID != m.id || m.state == over {
		return nil
	}
	var lost []wire.PartitionKey
	for _, partition := range partitions {
		if owned := m.owned[partition]; owned != nil && owned.turn <= by.Generation {
			delete(m.owned, partition)
			lost = append(lost, partition)
		}
	}
	if len(lost) == 0 {
		return nil
	}
	m.isTold = false
	return []Action{{Lost: lost}}
}

// Leave makes the member leave. A static one keeps its partitions at the coordinator, for its session time-out, unless it leaves
// for good; so it goes on to report them: what is not reported is released.
func (m *Machine) Leave(forGood bool) {
	if m.state == over {
		return
	}
	m.state, m.intent = leaving, wire.IntentLeave
	if forGood {
		m.intent = wire.IntentLeaveForGood
	}
	m.isTold = false
	// It does not wait for the answer to the heartbeat before: that one may take seconds.
	m.inFlight = nil
	m.failures, m.nextAt = 0, time.Time{}
}

// Next is the heartbeat to be sent now to this coordinator, if one is. Coordinators are told apart by whatever changes with
// them: address and epoch.
func (m *Machine) Next(now time.Time, coordinator string) (*Heartbeat, bool) {
	if m.state == over || m.inFlight != nil || m.nextAt.After(now) {
		return nil, false
	}
	wait := min(waitMax, m.settings.SessionTimeout/3)
	if m.isRevoking() {
		wait = min(wait, revokeHold)
	}
	if m.state == leaving {
		wait = 0
	}
	h := &Heartbeat{
		Message: wire.HeartbeatRequest{
			Group: m.settings.Group, Member: m.id, Sequence: m.NextSequence(), Generation: m.generation, Instance: m.settings.Instance,
			ClientName: m.settings.ClientName, SessionTimeoutMs: uint32(m.settings.SessionTimeout.Milliseconds()),
			WaitMsMax: uint32(wait.Milliseconds()), Intent: m.intent,
		},
		coordinator: coordinator, isWhole: !m.isTold || m.toldCoordinator != coordinator, owned: map[wire.PartitionKey]bool{},
		sentAt: now, subscription: m.subscription,
	}
	for partition := range m.owned {
		h.owned[partition] = true
	}
	if h.isWhole {
		h.Message.Subscribed = append([]wire.SubscribedTopic{}, m.subscribed...)
		h.Message.Owned = m.Owned()
	}
	m.inFlight = h
	return h, true
}

// WakeAt is when Next has a heartbeat, if nothing else happens before; zero: not before something else happens.
func (m *Machine) WakeAt() time.Time {
	if m.state == over || m.inFlight != nil {
		return time.Time{}
	}
	return m.nextAt
}

// Answered says how a heartbeat was answered, or why it was not (err).
func (m *Machine) Answered(now time.Time, h *Heartbeat, reply *wire.HeartbeatReply, err error) []Action {
	if m.inFlight != h || m.state == over {
		return nil
	}
	m.inFlight = nil
	if m.state == leaving {
		return m.answeredLeaving(now, err)
	}
	if err != nil {
		return m.failed(now, h, err)
	}
	if reply.Generation < m.generation {
		// Of the past, or of a coordinator that is: it is asked again.
		m.retry(now, fault.Broker(errorcode.Stale, "group %s", m.settings.Group))
		return nil
	}
	m.failures = 0
	m.state = joined
	m.generation = reply.Generation
	if h.isWhole {
		m.toldCoordinator = h.coordinator
	}
	m.isTold = m.toldCoordinator == h.coordinator && m.isAsTold(h)
	actions := m.take(h, reply)
	switch {
	case m.isRevoking():
		m.nextAt = now.Add(revokeHold)
	case len(actions) == 0 && now.Sub(h.sentAt) < idleHold:
		// A coordinator that answers at once although there is nothing new is not asked all the time.
		m.nextAt = now.Add(idleHold)
	default:
		m.nextAt = now
	}
	return actions
}

// isAsTold tells whether the coordinator knows what the member owns, after this answered heartbeat.
func (m *Machine) isAsTold(h *Heartbeat) bool {
	if len(h.owned) != len(m.owned) || h.subscription != m.subscription {
		return false
	}
	for partition := range m.owned {
		if !h.owned[partition] {
			return false
		}
	}
	return true
}

// take compares what is assigned with what is owned.
func (m *Machine) take(h *Heartbeat, reply *wire.HeartbeatReply) []Action {
	var assigned []wire.AssignedPartition
	var gone, anew []wire.PartitionKey
	kept := map[wire.PartitionKey]bool{}
	for _, given := range reply.Assigned {
		if kept[given.Partition] {
			continue
		}
		kept[given.Partition] = true
		isOwned := m.owned[given.Partition] != nil
		if isOwned && given.Committed != nil {
			anew = append(anew, given.Partition)
		} else if isOwned || h.owned[given.Partition] {
			// What was released while this heartbeat was on its way is still in its answer, and is no new assignment.
			continue
		}
		m.owned[given.Partition] = &ownership{turn: reply.Generation}
		assigned = append(assigned, given)
		m.isTold = false
	}
	for partition := range h.owned {
		if owned := m.owned[partition]; owned != nil && !owned.isRevoking && !kept[partition] {
			gone = append(gone, partition)
		}
	}
	sortPartitions(gone)
	sortPartitions(anew)
	var actions []Action
	if len(anew) > 0 {
		actions = append(actions, Action{Lost: anew})
	}
	if len(gone) > 0 {
		for _, partition := range gone {
			m.owned[partition].isRevoking = true
		}
		actions = append(actions, Action{Revoked: gone})
	}
	if len(assigned) > 0 {
		actions = append(actions, Action{Assigned: assigned, Turn: reply.Generation})
	}
	return actions
}

func (m *Machine) failed(now time.Time, h *Heartbeat, err error) []Action {
	switch code := fault.Code(err); {
	case code == errorcode.UnknownMember:
		return m.unknown(now, h)
	case code == errorcode.MemberFenced || code != errorcode.None && !code.Retriable():
		return m.fail(err)
	}
	if errors.Is(err, fault.ErrClosed) {
		return m.fail(err)
	}
	m.retry(now, err)
	return nil
}

// unknown: the coordinator does not know this member. It may be a new one, that was left out what it did not need to be told:
// then it is told everything. Otherwise the member was expelled, and joins anew, as somebody else.
func (m *Machine) unknown(now time.Time, h *Heartbeat) []Action {
	m.isTold, m.toldCoordinator = false, ""
	if !h.isWhole {
		m.nextAt = now
		return nil
	}
	lost := m.loseAll()
	if len(lost) == 0 {
		// It was joining anyway: not all the time.
		m.failures++
		m.nextAt = now.Add(backoff.Random(m.failures, false, 0))
	} else {
		m.failures, m.nextAt = 0, now
	}
	m.state, m.id, m.generation = joining, m.newID(), 0
	return lost
}

func (m *Machine) fail(err error) []Action {
	actions := append(m.loseAll(), Action{Failed: err})
	m.state = over
	return actions
}

func (m *Machine) loseAll() []Action {
	lost := m.Owned()
	m.owned = map[wire.PartitionKey]*ownership{}
	if len(lost) == 0 {
		return nil
	}
	return []Action{{Lost: lost}}
}

func (m *Machine) retry(now time.Time, err error) {
	m.failures++
	m.nextAt = now.Add(backoff.Random(m.failures, fault.WantsRefresh(err), fault.RetryAfter(err)))
}

// answeredLeaving: what does not know the member, or never will, need not be told that it leaves.
func (m *Machine) answeredLeaving(now time.Time, err error) []Action {
	if code := fault.Code(err); err != nil && (code == errorcode.None && !errors.Is(err, fault.ErrClosed) || code.Retriable()) {
		m.retry(now, err)
		return nil
	}
	m.state = over
	return []Action{{Left: true}}
}

func (m *Machine) isRevoking() bool {
	for _, owned := range m.owned {
		if owned.isRevoking {
			return true
		}
	}
	return false
}

func sortPartitions(partitions []wire.PartitionKey) {
	sort.Slice(partitions, func(i, j int) bool {
		if partitions[i].Topic != partitions[j].Topic {
			return partitions[i].Topic < partitions[j].Topic
		}
		return partitions[i].Partition < partitions[j].Partition
	})
}
