package fakecluster

import (
	"sort"
	"time"

	"github.com/minikafka/minikafka/clients/go/internal/errorcode"
	"github.com/minikafka/minikafka/clients/go/internal/wire"
)

// group is a group as docs/GROUPS.md has it: what is in the log (generation, owners, instances, commits) survives Move, the rest
// is learned from heartbeats.
type group struct {
	generation uint64
	owners     map[wire.PartitionKey]wire.MemberID
	instances  map[string]wire.MemberID
	commits    map[wire.PartitionKey]wire.CommittedOffset
	members    map[wire.MemberID]*groupMember
	fenced     map[wire.MemberID]bool
	expelled   map[wire.MemberID]bool
	// prefersLast: whoever joins last is to have everything.
	prefersLast bool
	joined      []wire.MemberID
	// graceUntil: a new coordinator takes nothing from anybody before it.
	graceUntil time.Time
}

type groupMember struct {
	id         wire.MemberID
	instance   string
	clientName string
	subscribed []wire.SubscribedTopic
	// reported is what the member says that it owns, told what the last answer assigned to it.
	reported map[wire.PartitionKey]bool
	told     map[wire.PartitionKey]bool
	session  time.Duration
	heardAt  time.Time
	// isNew: it was not answered yet.
	isNew      bool
	heartbeats int
}

func newGroup() *group {
	return &group{
		owners: map[wire.PartitionKey]wire.MemberID{}, instances: map[string]wire.MemberID{},
		commits: map[wire.PartitionKey]wire.CommittedOffset{}, members: map[wire.MemberID]*groupMember{},
		fenced: map[wire.MemberID]bool{}, expelled: map[wire.MemberID]bool{},
	}
}

// forget is what the death of a coordinator does.
func (g *group) forget() {
	g.members = map[wire.MemberID]*groupMember{}
	g.expelled = map[wire.MemberID]bool{}
	g.graceUntil = time.Now().Add(time.Second)
}

// Expel throws a member out that has said that it owns something, as when it was silent. False: none has.
func (c *Cluster) Expel(name string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	g := c.groups[name]
	for id, member := range g.members {
		if len(member.reported) > 0 {
			g.expel(id)
			c.tell()
			return true
		}
	}
	return false
}

// Prefer makes whoever joins a group next have all of its partitions.
func (c *Cluster) Prefer(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.groups[name].prefersLast = true
}

// Committed is what a group has committed for a partition; negative: nothing.
func (c *Cluster) Committed(name, topicName string, partition int) int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	g, of := c.groups[name], c.topics[topicName]
	if g == nil || of == nil {
		return -1
	}
	commit, ok := g.commits[wire.PartitionKey{Topic: of.description.Topic, Partition: uint32(partition)}]
	if !ok {
		return -1
	}
	return int64(commit.Offset)
}

// Owners is how many members of a group own partitions, and how many partitions are owned.
func (c *Cluster) Owners(name string) (members, partitions int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	g := c.groups[name]
	if g == nil {
		return 0, 0
	}
	owners := map[wire.MemberID]bool{}
	for _, id := range g.owners {
		owners[id] = true
	}
	return len(owners), len(g.owners)
}

// Members is how many members a group has, and how many heartbeats they have sent.
func (c *Cluster) Members(name string) (members, heartbeats int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	g := c.groups[name]
	if g == nil {
		return 0, 0
	}
	for _, member := range g.members {
		heartbeats += member.heartbeats
	}
	return len(g.members), heartbeats
}

func (c *Cluster) answerGroup(r *Request) {
	c.mu.Lock()
	defer c.mu.Unlock()
	malformed := func(err error) bool {
		if err != nil {
			r.Refuse(errorcode.MalformedFrame, wire.ErrorReply{Message: err.Error()})
		}
		return err != nil
	}
	switch r.Header.API {
	case wire.APIGroupHeartbeat:
		if request, err := wire.DecodeHeartbeatRequest(r.Head); !malformed(err) && !c.refusesEpoch(r, request.Epoch) {
			c.heartbeat(r, &request)
		}
	case wire.APIGroupCommit:
		if request, err := wire.DecodeCommitRequest(r.Head); !malformed(err) && !c.refusesEpoch(r, request.Epoch) {
			c.commit(r, &request)
		}
	case wire.APIGroupOffsets:
		if request, err := wire.DecodeGroupOffsetsRequest(r.Head); !malformed(err) && !c.refusesEpoch(r, request.Epoch) {
			c.groupOffsets(r, &request)
		}
	case wire.APIGroupList:
		if request, err := wire.DecodeGroupListRequest(r.Head); !malformed(err) {
			c.listGroups(r, &request)
		}
	default:
		if request, err := wire.DecodeGroupRequest(r.Head); !malformed(err) && !c.refusesEpoch(r, request.Epoch) {
			c.describeOrDelete(r, &request)
		}
	}
}

func (c *Cluster) heartbeat(r *Request, request *wire.HeartbeatRequest) {
	g := c.groups[request.Group]
	if g == nil {
		g = newGroup()
		c.groups[request.Group] = g
	}
	m, code := g.hear(request)
	if code != errorcode.None {
		r.Refuse(code, wire.ErrorReply{})
		return
	}
	if request.Intent != wire.IntentStay {
		g.leave(m, request.Intent)
		c.tell()
		r.Reply(&wire.HeartbeatReply{Generation: g.generation}, nil)
		return
	}
	g.release(c, m)
	if m.isNew {
		// What others should have may be another thing from now on.
		c.tell()
	}
	epoch := c.epoch
	c.waitFor(time.Duration(request.WaitMsMax)*time.Millisecond, func() bool {
		if g.assign(c) {
			c.tell()
		}
		return c.epoch != epoch || g.members[m.id] != m || m.isNew || !same(g.assigned(c, m), m.told)
	})
	switch {
	case c.refusesEpoch(r, request.Epoch):
	case g.fenced[m.id]:
		r.Refuse(errorcode.MemberFenced, wire.ErrorReply{})
	case g.members[m.id] != m:
		r.Refuse(errorcode.UnknownMember, wire.ErrorReply{})
	default:
		r.Reply(g.answer(c, m), nil)
	}
}

// hear takes what a member says of itself.
func (g *group) hear(request *wire.HeartbeatRequest) (*groupMember, errorcode.Code) {
	if g.fenced[request.Member] {
		return nil, errorcode.MemberFenced
	}
	m := g.members[request.Member]
	if m == nil {
		if request.Subscribed == nil || request.Owned == nil || g.expelled[request.Member] {
			return nil, errorcode.UnknownMember
		}
		m = &groupMember{
			id: request.Member, instance: request.Instance, clientName: request.ClientName, isNew: true,
			told: map[wire.PartitionKey]bool{},
		}
		for _, partition := range request.Owned {
			m.told[partition] = true
		}
		g.members[m.id] = m
		g.joined = append(g.joined, m.id)
		g.takeOver(m)
	}
	m.heardAt, m.session = time.Now(), time.Duration(request.SessionTimeoutMs)*time.Millisecond
	m.heartbeats++
	if request.Subscribed != nil {
		m.subscribed = request.Subscribed
	}
	if request.Owned != nil {
		m.reported = map[wire.PartitionKey]bool{}
		for _, partition := range request.Owned {
			m.reported[partition] = true
		}
		for partition := range m.told {
			if !m.reported[partition] {
				// The answer that told it was lost: it is told again.
				delete(m.told, partition)
			}
		}
	}
	return m, errorcode.None
}

// release frees what was to be given up and is not reported any more.
func (g *group) release(c *Cluster, m *groupMember) {
	target := g.target(c)
	for partition, owner := range g.owners {
		if owner == m.id && target[partition] != m.id && !m.reported[partition] && !g.inGrace() {
			delete(g.owners, partition)
			g.generation++
			c.tell()
		}
	}
}

// takeOver gives a static member what the one before it under its instance name had, and fences that one.
func (g *group) takeOver(m *groupMember) {
	if m.instance == "" {
		return
	}
	if before, ok := g.instances[m.instance]; ok && before != m.id {
		g.fenced[before] = true
		delete(g.members, before)
		for partition, owner := range g.owners {
			if owner == before {
				g.owners[partition] = m.id
			}
		}
		g.generation++
	}
	g.instances[m.instance] = m.id
}

// leave: a static member keeps its partitions for its session time-out, unless it leaves for good.
func (g *group) leave(m *groupMember, intent wire.HeartbeatIntent) {
	if m.instance == "" || intent == wire.IntentLeaveForGood {
		delete(g.members, m.id)
		g.free(m.id)
	}
}

func (g *group) expel(id wire.MemberID) {
	delete(g.members, id)
	g.expelled[id] = true
	g.free(id)
}

func (g *group) free(id wire.MemberID) {
	for partition, owner := range g.owners {
		if owner == id {
			delete(g.owners, partition)
		}
	}
	g.generation++
}

func (g *group) inGrace() bool { return time.Now().Before(g.graceUntil) }

// assign expels the silent, and gives partitions without an owner to those who should have them.
func (g *group) assign(c *Cluster) (changed bool) {
	for id, member := range g.members {
		if time.Since(member.heardAt) > member.session+time.Second {
			g.expel(id)
			changed = true
		}
	}
	if g.inGrace() {
		return changed
	}
	for partition, owner := range g.owners {
		if g.members[owner] == nil {
			// It was not heard of since this coordinator took over.
			delete(g.owners, partition)
		}
	}
	for partition, id := range g.target(c) {
		if _, owned := g.owners[partition]; !owned {
			g.owners[partition] = id
			g.generation++
			changed = true
		}
	}
	return changed
}

// target is who should have what: sticky, and balanced to within one.
func (g *group) target(c *Cluster) map[wire.PartitionKey]wire.MemberID {
	var ids []wire.MemberID
	for id := range g.members {
		ids = append(ids, id)
	}
	sort.Slice(ids, func(i, j int) bool { return ids[i] < ids[j] })
	target := map[wire.PartitionKey]wire.MemberID{}
	for _, topic := range c.topics {
		var takers []wire.MemberID
		for _, id := range ids {
			for _, subscribed := range g.members[id].subscribed {
				if subscribed.Topic == topic.description.Topic {
					takers = append(takers, id)
				}
			}
		}
		if last := len(g.joined) - 1; g.prefersLast && last > 0 && g.members[g.joined[last]] != nil {
			takers = g.joined[last:]
		}
		g.balance(topic, takers, target)
	}
	return target
}

func (g *group) balance(topic *topic, takers []wire.MemberID, target map[wire.PartitionKey]wire.MemberID) {
	if len(takers) == 0 {
		return
	}
	partitions := len(topic.partitions)
	fair, more := partitions/len(takers), partitions%len(takers)
	count := map[wire.MemberID]int{}
	give := func(partition wire.PartitionKey, id wire.MemberID) bool {
		if count[id] > fair || count[id] == fair && more == 0 {
			return false
		}
		if count[id]++; count[id] > fair {
			more--
		}
		target[partition] = id
		return true
	}
	var open []wire.PartitionKey
	for number := range partitions {
		partition := wire.PartitionKey{Topic: topic.description.Topic, Partition: uint32(number)}
		if owner := g.owners[partition]; !contains(takers, owner) || !give(partition, owner) {
			open = append(open, partition)
		}
	}
	for _, partition := range open {
		for _, id := range takers {
			if give(partition, id) {
				break
			}
		}
	}
}

// assigned is what a member is to have of what it owns.
func (g *group) assigned(c *Cluster, m *groupMember) map[wire.PartitionKey]bool {
	assigned := map[wire.PartitionKey]bool{}
	target := g.target(c)
	for partition, owner := range g.owners {
		if owner == m.id && (g.inGrace() || target[partition] == m.id) {
			assigned[partition] = true
		}
	}
	return assigned
}

func (g *group) answer(c *Cluster, m *groupMember) *wire.HeartbeatReply {
	m.isNew, m.heardAt = false, time.Now()
	m.told = g.assigned(c, m)
	reply := &wire.HeartbeatReply{Generation: g.generation}
	for partition := range m.told {
		assigned := wire.AssignedPartition{Partition: partition}
		if commit, ok := g.commits[partition]; ok && !m.reported[partition] {
			assigned.Committed = &commit.Offset
		}
		reply.Assigned = append(reply.Assigned, assigned)
	}
	return reply
}

func contains(ids []wire.MemberID, id wire.MemberID) bool {
	for _, one := range ids {
		if one == id {
			return true
		}
	}
	return false
}

func same(a, b map[wire.PartitionKey]bool) bool {
	if len(a) != len(b) {
		return false
	}
	for partition := range a {
		if !b[partition] {
			return false
		}
	}
	return true
}
