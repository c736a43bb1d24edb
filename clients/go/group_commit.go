package minikafka

import (
	"context"
	"fmt"

	"github.com/minikafka/minikafka/clients/go/internal/backoff"
	"github.com/minikafka/minikafka/clients/go/internal/cluster"
	"github.com/minikafka/minikafka/clients/go/internal/connection"
	"github.com/minikafka/minikafka/clients/go/internal/errorcode"
	"github.com/minikafka/minikafka/clients/go/internal/fault"
	"github.com/minikafka/minikafka/clients/go/internal/member"
	"github.com/minikafka/minikafka/clients/go/internal/wire"
)

// Commit commits what was handled so far, of every partition of this member; besides, the client does so every CommitInterval, at
// a revocation and at Close. Commits name the next offset to read.
//
// The error is a *BrokerError with NotAssigned for a partition that belongs to another member by now (the others are committed
// all the same), or what did not pass before RequestTimeout.
func (c *Client) Commit(ctx context.Context) error {
	g := c.consumer.group
	if g == nil {
		return refuse("Group", "only members of a group commit")
	}
	ctx, cancel := c.requestContext(ctx)
	defer cancel()
	return g.commit(ctx, nil)
}

// Ack acknowledges records: for a member of a group with CommitByAck; otherwise it does nothing. They may be acknowledged in any
// order; what is committed of a partition is the lowest record that was given out and not acknowledged.
func (c *Client) Ack(records ...*Record) {
	for _, record := range records {
		c.consumer.ack(TopicPartition{Topic: record.Topic, Partition: record.Partition}, record.Offset, record.nextOffset)
	}
}

// commit commits what was handled of these partitions, nil: of all.
func (g *groupMember) commit(ctx context.Context, names []TopicPartition) error {
	select {
	case g.committing <- struct{}{}:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	defer func() { <-g.committing }()
	for {
		offsets, by := g.uncommitted(names)
		if len(offsets) == 0 {
			return nil
		}
		more := len(offsets) > wire.CommitPartitionsMax
		if more {
			offsets = offsets[:wire.CommitPartitionsMax]
		}
		results, err := g.client.commitOffsets(ctx, g.settings.name, by, g.nextSequence, offsets)
		if err != nil {
			return err
		}
		if err := g.takeCommitted(by, offsets, results); err != nil || !more {
			return err
		}
	}
}

// uncommitted is what was handled and not committed yet.
func (g *groupMember) uncommitted(names []TopicPartition) ([]wire.CommittedOffset, member.Committer) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.isStarted {
		return nil, member.Committer{}
	}
	if names == nil {
		for name := range g.trackers {
			names = append(names, name)
		}
	}
	ids := map[string]wire.TopicID{}
	for id, topic := range g.topics {
		ids[topic.Name] = id
	}
	var offsets []wire.CommittedOffset
	for _, name := range names {
		tracker := g.trackers[name]
		partition := wire.PartitionKey{Topic: ids[name.Topic], Partition: uint32(name.Partition)}
		// What was handled in an earlier turn must not pass for this one's.
		if turn, owned := g.machine.Turn(partition); tracker == nil || !owned || turn != tracker.turn {
			continue
		}
		if offset, ok := tracker.Uncommitted(); ok {
			offsets = append(offsets, wire.CommittedOffset{Partition: partition, Offset: uint64(offset)})
		}
	}
	return offsets, g.machine.Committer()
}

func (g *groupMember) nextSequence() uint64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.machine.NextSequence()
}

// takeCommitted notes what is committed, and returns why the rest is not. What belongs to others is lost.
func (g *groupMember) takeCommitted(by member.Committer, offsets []wire.CommittedOffset, results []wire.PartitionResult) (failure error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	var refused []wire.PartitionKey
	defer func() {
		for _, action := range g.machine.Refused(by, refused) {
			g.act(action)
		}
	}()
	for i, result := range results {
		topic := g.topics[result.Partition.Topic]
		if result.Error != errorcode.None {
			if result.Error == errorcode.NotAssigned {
				refused = append(refused, result.Partition)
			}
			failure = fault.Broker(result.Error, "commit of group %s for topic %s partition %d", g.settings.name, topic.Name, result.Partition.Partition)
			continue
		}
		name := TopicPartition{Topic: topic.Name, Partition: int32(result.Partition.Partition)}
		if tracker := g.trackers[name]; tracker != nil {
			tracker.Committed(int64(offsets[i].Offset))
		}
	}
	return failure
}

// commitOffsets makes one commit, in the order of the offsets. Each attempt has a sequence of its own.
func (c *Client) commitOffsets(ctx context.Context, group string, by member.Committer, nextSequence func() uint64, offsets []wire.CommittedOffset) ([]wire.PartitionResult, error) {
	reply, err := c.askCoordinator(ctx, group, wire.APIGroupCommit, func(at cluster.Addressed) connection.Message {
		return &wire.CommitRequest{
			Range: at.Range, Epoch: at.Epoch, Group: group, Member: by.ID, Sequence: nextSequence(), Generation: by.Generation,
			Offsets: offsets,
		}
	})
	if err != nil {
		return nil, err
	}
	decoded, err := wire.DecodeCommitReply(reply.Head)
	if err == nil && len(decoded.Partitions) != len(offsets) {
		err = fmt.Errorf("it has %d partitions, %d were committed", len(decoded.Partitions), len(offsets))
	}
	for i := range decoded.Partitions {
		if err == nil && decoded.Partitions[i].Partition != offsets[i].Partition {
			err = fmt.Errorf("it is about other partitions than were committed")
		}
	}
	if err != nil {
		return nil, &fault.MalformedError{From: "the coordinator of group " + group, What: "commit reply", Reason: err}
	}
	return decoded.Partitions, nil
}

// askCoordinator makes a request about a group, wherever its coordinator is, and retries what is retriable until the context
// ends.
func (c *Client) askCoordinator(ctx context.Context, group string, api wire.API, request func(cluster.Addressed) connection.Message) (connection.Reply, error) {
	for failures := 1; ; failures++ {
		seen := c.keeper.Current().Version()
		addressed, known := c.coordinator(group)
		var reply connection.Reply
		err := error(fault.Broker(errorcode.PartitionNotReady, "group %s has no coordinator in the map", group))
		if known {
			reply, err = c.callCoordinator(ctx, addressed, api, request(addressed), 0)
		}
		if err == nil || !fault.Retriable(err) {
			return reply, err
		}
		if cause := context.Cause(ctx); cause != nil && !fault.OutcomeUnknown(err) {
			return reply, cause
		}
		// Without any map yet, the first thing to do is to ask for one.
		if (seen > 0 || failures > 1) && !cluster.Sleep(ctx, backoff.Random(failures, fault.WantsRefresh(err), fault.RetryAfter(err))) {
			return reply, err
		}
		if fault.WantsRefresh(err) {
			_, _ = c.keeper.NewerThan(ctx, seen)
		}
	}
}
