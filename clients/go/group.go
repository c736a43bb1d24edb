package minikafka

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/minikafka/minikafka/clients/go/internal/cluster"
	"github.com/minikafka/minikafka/clients/go/internal/connection"
	"github.com/minikafka/minikafka/clients/go/internal/errorcode"
	"github.com/minikafka/minikafka/clients/go/internal/fault"
	"github.com/minikafka/minikafka/clients/go/internal/handled"
	"github.com/minikafka/minikafka/clients/go/internal/member"
	"github.com/minikafka/minikafka/clients/go/internal/wire"
)

// groupMember is the membership of a consumer in its group. One goroutine, run, drives the machine (internal/member): it sends
// heartbeats, one at a time, and hands what their answers ask for to another one, work (group_work.go), that assigns, revokes,
// calls the application's callbacks, and commits. So heartbeats go on whatever the application does.
//
// Locks are taken in this order: consumer.mu, then groupMember.mu.
type groupMember struct {
	consumer *consumer
	client   *Client
	settings *groupSettings
	// topics are those that are consumed, by their ids; set at start.
	topics map[wire.TopicID]*wire.TopicDescription
	// changed wakes run, jobsReady wakes work.
	changed   chan struct{}
	jobsReady chan struct{}
	// committing is held, by having its only token, during a commit: an older one must not overtake a newer one.
	committing chan struct{}
	// over is closed when the member has left or failed.
	over chan struct{}

	mu        sync.Mutex
	machine   *member.Machine
	isStarted bool
	isOver    bool
	answers   []heartbeatAnswer
	jobs      []func(context.Context)
	trackers  map[TopicPartition]*tracker
	// givenOutNow is what was given out since the last poll: handled with the next one.
	givenOutNow []givenOut
	// handledMore is closed, and made anew, when records were handled.
	handledMore chan struct{}
}

// tracker knows what was handled of a partition in one turn of this member.
type tracker struct {
	*handled.Tracker
	turn uint64
}

type givenOut struct {
	name        TopicPartition
	first, next int64
}

type heartbeatAnswer struct {
	heartbeat *member.Heartbeat
	reply     *wire.HeartbeatReply
	err       error
}

func newGroupMember(c *consumer, settings *groupSettings) *groupMember {
	return &groupMember{
		consumer: c, client: c.client, settings: settings,
		changed: make(chan struct{}, 1), jobsReady: make(chan struct{}, 1), committing: make(chan struct{}, 1),
		over: make(chan struct{}), trackers: map[TopicPartition]*tracker{}, handledMore: make(chan struct{}),
	}
}

// start looks the topics up and begins to join.
func (g *groupMember) start(ctx context.Context) error {
	var subscribed []wire.SubscribedTopic
	topics := map[wire.TopicID]*wire.TopicDescription{}
	for _, name := range g.consumer.settings.topics {
		topic, err := g.client.keeper.Topic(ctx, name)
		if err != nil {
			return err
		}
		if topics[topic.Topic] == nil {
			topics[topic.Topic] = topic
			subscribed = append(subscribed, wire.SubscribedTopic{Topic: topic.Topic, Partitions: topic.Partitions})
		}
	}
	g.mu.Lock()
	g.topics = topics
	g.machine = member.New(member.Settings{
		Group: g.settings.name, Instance: g.settings.instance, ClientName: g.client.settings.clientName,
		SessionTimeout: g.settings.sessionTimeout,
	}, subscribed, nil)
	g.isStarted = true
	g.mu.Unlock()
	g.client.goWithLifetime(g.run)
	g.client.goWithLifetime(g.work)
	return nil
}

// run drives the machine until the member is gone, or the client ends.
func (g *groupMember) run(ctx context.Context) {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	commitAt := time.Now().Add(g.settings.commitInterval)
	for {
		now := time.Now()
		if g.settings.commitInterval > 0 && !commitAt.After(now) {
			commitAt = now.Add(g.settings.commitInterval)
			g.enqueue(g.commitNow)
		}
		wakeAt, ended := g.step(ctx, now)
		if ended {
			return
		}
		if g.settings.commitInterval > 0 {
			wakeAt = earlier(wakeAt, commitAt)
		}
		wait := time.Hour
		if !wakeAt.IsZero() {
			wait = time.Until(wakeAt)
		}
		resetTimer(timer, wait)
		select {
		case <-g.changed:
		case <-timer.C:
		case <-ctx.Done():
			return
		}
	}
}

// step takes answers, and sends the next heartbeat if one is due. It tells when to come again.
func (g *groupMember) step(ctx context.Context, now time.Time) (wakeAt time.Time, ended bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	answers := g.answers
	g.answers = nil
	for _, answer := range answers {
		if answer.err != nil {
			g.client.settings.logger.Debug("heartbeat failed", "group", g.settings.name, "error", answer.err)
		}
		for _, action := range g.machine.Answered(now, answer.heartbeat, answer.reply, answer.err) {
			g.act(action)
		}
	}
	if g.machine.IsOver() {
		if !g.isOver {
			g.isOver = true
			close(g.over)
		}
		return time.Time{}, true
	}
	addressed, known := g.client.coordinator(g.settings.name)
	heartbeat, ok := g.machine.Next(now, fmt.Sprint(addressed))
	if ok {
		g.client.goWithLifetime(func(ctx context.Context) { g.send(ctx, heartbeat, addressed, known) })
	}
	return g.machine.WakeAt(), false
}

// send sends a heartbeat, and posts its answer.
func (g *groupMember) send(ctx context.Context, heartbeat *member.Heartbeat, addressed cluster.Addressed, known bool) {
	seen := g.client.keeper.Current().Version()
	reply, err := g.heartbeat(ctx, heartbeat, addressed, known)
	if fault.WantsRefresh(err) {
		// Without a gateway, what is known goes on to count.
		_, _ = g.client.keeper.NewerThan(ctx, seen)
	}
	g.client.counters.failed(err)
	g.mu.Lock()
	g.answers = append(g.answers, heartbeatAnswer{heartbeat, reply, err})
	g.mu.Unlock()
	wake(g.changed)
}

func (g *groupMember) heartbeat(ctx context.Context, heartbeat *member.Heartbeat, addressed cluster.Addressed, known bool) (*wire.HeartbeatReply, error) {
	if !known {
		return nil, fault.Broker(errorcode.PartitionNotReady, "group %s has no coordinator in the map", g.settings.name)
	}
	message := heartbeat.Message
	message.Range, message.Epoch = addressed.Range, addressed.Epoch
	wait := time.Duration(message.WaitMsMax) * time.Millisecond
	reply, err := g.client.callCoordinator(ctx, addressed, wire.APIGroupHeartbeat, &message, wait)
	if err != nil {
		return nil, err
	}
	decoded, err := wire.DecodeHeartbeatReply(reply.Head)
	if err != nil {
		return nil, &fault.MalformedError{From: addressed.Address, What: "heartbeat reply", Reason: err}
	}
	return &decoded, nil
}

// act hands an action on; the caller holds the lock.
func (g *groupMember) act(action member.Action) {
	switch {
	case action.Assigned != nil:
		g.enqueueLocked(func(ctx context.Context) { g.assign(ctx, action.Assigned, action.Turn) })
	case action.Revoked != nil:
		g.enqueueLocked(func(ctx context.Context) { g.revoke(ctx, action.Revoked) })
	case action.Lost != nil:
		g.enqueueLocked(func(ctx context.Context) { g.lose(ctx, action.Lost) })
	case action.Failed != nil:
		g.enqueueLocked(func(context.Context) { g.consumer.fail(action.Failed) })
	}
}

// close gives up what the member owns and leaves, as far as the context allows.
func (g *groupMember) close(ctx context.Context) error {
	g.mu.Lock()
	started := g.isStarted
	g.mu.Unlock()
	if !started {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, g.client.settings.requestTimeout)
	defer cancel()
	// What the application has in its hands counts as handled, unless it acknowledges by itself.
	g.handleGivenOut()
	finished := make(chan error, 1)
	g.enqueue(func(context.Context) {
		g.mu.Lock()
		owned := g.machine.Owned()
		g.mu.Unlock()
		finished <- g.giveUp(ctx, owned)
		g.mu.Lock()
		g.machine.Leave(g.settings.leavesForGood)
		g.mu.Unlock()
		wake(g.changed)
	})
	var err error
	select {
	case err = <-finished:
	case <-g.over:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	// A coordinator that cannot be told finds out by itself, after the session time-out.
	patience := time.NewTimer(min(g.client.settings.connectTimeout, g.settings.sessionTimeout))
	defer patience.Stop()
	select {
	case <-g.over:
	case <-patience.C:
	case <-ctx.Done():
	}
	return err
}

// givenOut notes what the application was given.
func (g *groupMember) givenOut(name TopicPartition, first, next int64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	tracker := g.trackers[name]
	if tracker == nil {
		return
	}
	tracker.GiveOut(first, next)
	if !g.settings.byAck {
		g.givenOutNow = append(g.givenOutNow, givenOut{name, first, next})
	}
}

// handleGivenOut takes what was given out before for handled, unless the application acknowledges by itself.
func (g *groupMember) handleGivenOut() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, given := range g.givenOutNow {
		if tracker := g.trackers[given.name]; tracker != nil {
			tracker.Handle(given.first, given.next)
		}
	}
	if len(g.givenOutNow) > 0 {
		g.givenOutNow = g.givenOutNow[:0]
		g.tellHandled()
	}
}

// ack acknowledges records.
func (c *consumer) ack(name TopicPartition, from, to int64) {
	g := c.group
	if g == nil || !g.settings.byAck {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if tracker := g.trackers[name]; tracker != nil {
		tracker.Handle(from, to)
		g.tellHandled()
	}
}

// tellHandled wakes those who wait for records to be handled; the caller holds the lock.
func (g *groupMember) tellHandled() {
	close(g.handledMore)
	g.handledMore = make(chan struct{})
}

// seek forgets what was given out of a partition.
func (g *groupMember) seek(name TopicPartition, offset int64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if tracker := g.trackers[name]; tracker != nil {
		tracker.Restart(offset)
	}
	g.forgetGivenOut(name)
}

// forgetGivenOut: what was given out of a partition is no longer to be handled; the caller holds the lock.
func (g *groupMember) forgetGivenOut(name TopicPartition) {
	kept := g.givenOutNow[:0]
	for _, given := range g.givenOutNow {
		if given.name != name {
			kept = append(kept, given)
		}
	}
	g.givenOutNow = kept
}

// coordinator is where a group's requests go, as the map says.
func (c *Client) coordinator(group string) (cluster.Addressed, bool) {
	m := c.keeper.Current()
	key, ok := m.RangeOfGroup(group)
	if !ok {
		return cluster.Addressed{}, false
	}
	address, epoch, ok := m.Owner(key)
	return cluster.Addressed{Address: address, Range: key, Epoch: epoch}, ok
}

// callCoordinator makes a request to the head of a range that may wait there.
func (c *Client) callCoordinator(ctx context.Context, addressed cluster.Addressed, api wire.API, request connection.Message, wait time.Duration) (connection.Reply, error) {
	opened, err := c.pool.ConnectWithin(ctx, addressed.Address, connection.Requests, connectPatience)
	if err != nil {
		return connection.Reply{}, err
	}
	reply, err := c.callWatched(ctx, opened, connection.Ask{API: api}, request, wait, []cluster.Addressed{addressed})
	var refused *fault.BrokerError
	if errors.As(err, &refused) {
		named := *refused
		named.Target = fmt.Sprintf("%s at %s", api, addressed.Address)
		err = &named
	}
	return reply, err
}
