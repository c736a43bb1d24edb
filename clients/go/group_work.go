package minikafka

import (
	"context"
	"errors"
	"time"

	"github.com/minikafka/minikafka/clients/go/internal/errorcode"
	"github.com/minikafka/minikafka/clients/go/internal/fault"
	"github.com/minikafka/minikafka/clients/go/internal/handled"
	"github.com/minikafka/minikafka/clients/go/internal/wire"
)

// work does one job after the other: assignments, revocations, commits, in the order in which the coordinator told them.
func (g *groupMember) work(ctx context.Context) {
	for {
		select {
		case <-g.jobsReady:
		case <-ctx.Done():
			return
		}
		for {
			g.mu.Lock()
			if len(g.jobs) == 0 {
				g.mu.Unlock()
				break
			}
			job := g.jobs[0]
			g.jobs = g.jobs[1:]
			g.mu.Unlock()
			job(ctx)
			if ctx.Err() != nil {
				return
			}
		}
	}
}

func (g *groupMember) enqueue(job func(context.Context)) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.enqueueLocked(job)
}

func (g *groupMember) enqueueLocked(job func(context.Context)) {
	g.jobs = append(g.jobs, job)
	wake(g.jobsReady)
}

// place is a partition by both of its names.
type place struct {
	name      TopicPartition
	topic     *wire.TopicDescription
	committed *uint64
}

// assign begins to read partitions: from where the group goes on, or where the options say when it never was there.
func (g *groupMember) assign(ctx context.Context, assigned []wire.AssignedPartition, turn uint64) {
	var places []place
	for _, given := range assigned {
		topic := g.topics[given.Partition.Topic]
		if topic == nil || given.Partition.Partition >= topic.Partitions {
			g.client.settings.logger.Warn("a partition was assigned that was not subscribed to", "group", g.settings.name, "partition", given.Partition)
			continue
		}
		name := TopicPartition{Topic: topic.Name, Partition: int32(given.Partition.Partition)}
		places = append(places, place{name, topic, given.Committed})
	}
	latest := g.latest(ctx, places)
	names := make([]TopicPartition, 0, len(places))
	g.consumer.mu.Lock()
	g.mu.Lock()
	for _, place := range places {
		// It may have been lost in the meantime, also if it came back since: that is another turn.
		if now, owned := g.machine.Turn(wire.PartitionKey{Topic: place.topic.Topic, Partition: uint32(place.name.Partition)}); !owned || now != turn {
			continue
		}
		offset, isEarliest := int64(0), false
		switch {
		case place.committed != nil:
			offset = int64(*place.committed)
		case g.consumer.settings.start.kind == startLatest:
			offset = latest[place.name]
		default:
			isEarliest = true
		}
		g.consumer.progress.Add(place.topic, place.name.Partition, offset, isEarliest, true)
		g.trackers[place.name] = &tracker{handled.NewTracker(offset), turn}
		names = append(names, place.name)
	}
	g.mu.Unlock()
	g.consumer.mu.Unlock()
	if g.settings.onAssigned != nil && len(names) > 0 {
		g.settings.onAssigned(ctx, g.client, names)
	}
	g.unhold(places)
}

// unhold lets the assigned partitions be read, or fail where a commit is needed and missing.
func (g *groupMember) unhold(places []place) {
	g.consumer.mu.Lock()
	for _, place := range places {
		if place.committed == nil && g.settings.failsUncommit {
			err := fault.Broker(errorcode.OffsetOutOfRange, "topic %s partition %d", place.name.Topic, place.name.Partition)
			err.Message = "group " + g.settings.name + " has no commit for it"
			g.consumer.progress.FailAt(place.name, err)
			continue
		}
		g.consumer.progress.Unhold(place.name)
	}
	g.consumer.mu.Unlock()
	wake(g.consumer.wakeFetcher)
	wake(g.consumer.ready)
}

// latest looks up the ends of partitions without a commit, if that is where they begin. It is tried until it works, because
// beginning elsewhere would be wrong.
func (g *groupMember) latest(ctx context.Context, places []place) map[TopicPartition]int64 {
	ends := map[TopicPartition]int64{}
	if g.consumer.settings.start.kind != startLatest {
		return ends
	}
	wanted := map[*wire.TopicDescription][]int32{}
	for _, place := range places {
		if place.committed == nil {
			wanted[place.topic] = append(wanted[place.topic], place.name.Partition)
		}
	}
	for topic, partitions := range wanted {
		for ctx.Err() == nil {
			within, cancel := context.WithTimeout(ctx, g.client.settings.requestTimeout)
			found, err := g.client.listOffsets(within, topic, partitions, offsetQuery{kind: wire.QueryLatest})
			cancel()
			if err == nil {
				for partition, end := range found {
					ends[TopicPartition{Topic: topic.Name, Partition: partition}] = end
				}
				break
			}
			g.client.settings.logger.Warn("latest offsets not found yet", "topic", topic.Name, "error", err)
			if !fault.Retriable(err) {
				break
			}
		}
	}
	return ends
}

// revoke gives partitions up, and lets the coordinator know.
func (g *groupMember) revoke(ctx context.Context, revoked []wire.PartitionKey) {
	within, cancel := context.WithTimeout(ctx, g.client.settings.requestTimeout)
	defer cancel()
	if err := g.giveUp(within, revoked); err != nil {
		g.client.settings.logger.Warn("revoked partitions were not committed", "group", g.settings.name, "error", err)
	}
	g.mu.Lock()
	g.machine.Released(revoked)
	g.mu.Unlock()
	wake(g.changed)
}

// giveUp stops reading, waits a little for what the application has in its hands, tells it, and commits what was handled.
func (g *groupMember) giveUp(ctx context.Context, revoked []wire.PartitionKey) error {
	names := g.stopReading(revoked)
	if len(names) == 0 {
		return nil
	}
	g.awaitHandled(ctx, names)
	if g.settings.onRevoked != nil {
		g.settings.onRevoked(ctx, g.client, names)
	}
	err := g.commit(ctx, names)
	g.mu.Lock()
	for _, name := range names {
		delete(g.trackers, name)
		g.forgetGivenOut(name)
	}
	g.mu.Unlock()
	return err
}

// lose drops partitions that belong to others by now.
func (g *groupMember) lose(ctx context.Context, lost []wire.PartitionKey) {
	names := g.stopReading(lost)
	g.mu.Lock()
	for _, name := range names {
		delete(g.trackers, name)
		g.forgetGivenOut(name)
	}
	g.mu.Unlock()
	if len(names) > 0 {
		g.client.settings.logger.Warn("partitions were lost to others", "group", g.settings.name, "partitions", names)
		if g.settings.onLost != nil {
			g.settings.onLost(ctx, g.client, names)
		}
	}
}

func (g *groupMember) stopReading(partitions []wire.PartitionKey) []TopicPartition {
	g.consumer.mu.Lock()
	defer g.consumer.mu.Unlock()
	var names []TopicPartition
	for _, partition := range partitions {
		topic := g.topics[partition.Topic]
		if topic == nil {
			continue
		}
		name := TopicPartition{Topic: topic.Name, Partition: int32(partition.Partition)}
		g.consumer.progress.Remove(name)
		if rest := g.consumer.restInHand(); rest != nil && rest.is(name) {
			g.consumer.inHand = nil
		}
		names = append(names, name)
	}
	return names
}

// awaitHandled waits for at most RevokeWait until nothing of these partitions is in the application's hands.
func (g *groupMember) awaitHandled(ctx context.Context, names []TopicPartition) {
	if g.client.isClosing() {
		return
	}
	patience := time.NewTimer(g.settings.revokeWait)
	defer patience.Stop()
	for {
		g.mu.Lock()
		inHand := false
		for _, name := range names {
			inHand = inHand || g.trackers[name] != nil && g.trackers[name].InHand()
		}
		more := g.handledMore
		g.mu.Unlock()
		if !inHand {
			return
		}
		select {
		case <-more:
		case <-patience.C:
			return
		case <-g.client.closing:
			return
		case <-ctx.Done():
			return
		}
	}
}

// commitNow commits what was handled, as CommitInterval asks.
func (g *groupMember) commitNow(ctx context.Context) {
	within, cancel := context.WithTimeout(ctx, g.client.settings.requestTimeout)
	defer cancel()
	if err := g.commit(within, nil); err != nil && !errors.Is(err, context.Canceled) {
		g.client.settings.logger.Warn("handled records were not committed", "group", g.settings.name, "error", err)
	}
}
