package minikafka

import (
	"context"
	"fmt"

	"github.com/minikafka/minikafka/clients/go/internal/fault"
)

// Poll returns the next batch of any partition that is read and not paused, partitions taking turns. It waits as long as it
// takes for one, until the context ends; nothing is lost then. The first Poll begins to read, or joins the group; from then on
// records are fetched ahead in the background, within PrefetchBytes.
//
// Lost connections, moved ranges and other failures that pass are waited out. An error is the context's, ErrClosed, or what a
// partition cannot go on with: OffsetOutOfRange under OutOfRangeError, a *DamagedError under StopAtDamage, UnknownTopic, …
// That partition then stands still until a Seek, and the others go on; when no other is left, the error is returned again by
// every call. A member that was fenced gets MemberFenced from every call.
//
// Poll is for one goroutine at a time; others wait for their turn. In a group, unless CommitByAck is set, whatever was returned
// before counts as handled when Poll is called.
func (c *Client) Poll(ctx context.Context) (*Batch, error) {
	return c.consumer.poll(ctx)
}

// PollRecord returns the next record, otherwise as Poll. The two can be mixed: Poll then returns the rest of the batch.
func (c *Client) PollRecord(ctx context.Context) (Record, error) {
	return c.consumer.pollRecord(ctx)
}

// Records calls yield for one record after the other, until it returns false, the context ends or the client is closed. Errors
// of partitions are handed to yield, with an empty record, and reading goes on when it returns true. From Go 1.23 on it can be
// ranged over:
//
//	for record, err := range client.Records(ctx) { … }
func (c *Client) Records(ctx context.Context) func(yield func(Record, error) bool) {
	return func(yield func(Record, error) bool) {
		for {
			record, err := c.consumer.pollRecord(ctx)
			if err != nil && (ctx.Err() != nil || c.isClosing()) {
				return
			}
			if !yield(record, err) {
				return
			}
		}
	}
}

// Seek goes on at an offset in a partition that is read; one that failed goes on, too. What was fetched from elsewhere is
// dropped. The error is a *PartitionError for a partition that is not read here.
func (c *Client) Seek(topic string, partition int32, offset int64) error {
	name := TopicPartition{Topic: topic, Partition: partition}
	if offset < 0 {
		return &fault.PartitionError{Topic: topic, Partition: partition, Reason: fmt.Sprintf("offset %d is negative", offset)}
	}
	r := c.consumer
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.progress.Seek(name, offset) {
		return notRead(name)
	}
	if r.inHand != nil && r.inHand.is(name) {
		r.inHand = nil
	}
	if r.group != nil {
		r.group.seek(name, offset)
	}
	wake(r.wakeFetcher)
	return nil
}

// Pause hands out no records of a partition until Resume. The batch that Poll has returned last is the application's already;
// what PollRecord has not returned yet is handed out later.
func (c *Client) Pause(topic string, partition int32) error {
	name := TopicPartition{Topic: topic, Partition: partition}
	r := c.consumer
	r.mu.Lock()
	defer r.mu.Unlock()
	if rest := r.restInHand(); rest != nil && rest.is(name) {
		taken := rest.taken
		// Records of the same memory are out already.
		taken.Entry.Buffer = nil
		r.progress.PutBack(taken, rest.FirstOffset())
		r.inHand = nil
	}
	if !r.progress.SetPaused(name, true) {
		return notRead(name)
	}
	return nil
}

// Resume undoes Pause.
func (c *Client) Resume(topic string, partition int32) error {
	name := TopicPartition{Topic: topic, Partition: partition}
	r := c.consumer
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.progress.SetPaused(name, false) {
		return notRead(name)
	}
	wake(r.wakeFetcher)
	wake(r.ready)
	return nil
}

// Position is the offset of the record that comes next. A partition that began at "earliest" says 0 until its shard was heard of.
func (c *Client) Position(topic string, partition int32) (int64, error) {
	position, _, err := c.consumer.position(TopicPartition{Topic: topic, Partition: partition})
	return position, err
}

// CommittedEnd is the offset after the last committed record of a partition that is read, as last heard from its shard;
// negative: not heard yet.
func (c *Client) CommittedEnd(topic string, partition int32) (int64, error) {
	_, end, err := c.consumer.position(TopicPartition{Topic: topic, Partition: partition})
	return end, err
}

// Lag is how many records of a partition that is read are committed and not given to the application yet, as last heard from
// its shard; negative: not heard yet.
func (c *Client) Lag(topic string, partition int32) (int64, error) {
	position, end, err := c.consumer.position(TopicPartition{Topic: topic, Partition: partition})
	if err != nil || end < 0 {
		return -1, err
	}
	return max(end-position, 0), nil
}

// Assignment lists the partitions that are read now, ordered by topic and number.
func (c *Client) Assignment() []TopicPartition {
	c.consumer.mu.Lock()
	defer c.consumer.mu.Unlock()
	return c.consumer.progress.Partitions()
}

// Skipped is what was left out so far under OnDamage(SkipDamage), the oldest first; the latest 1,024 stretches.
func (c *Client) Skipped() []Skipped {
	c.consumer.mu.Lock()
	defer c.consumer.mu.Unlock()
	return c.consumer.progress.Skipped()
}

func (c *consumer) position(name TopicPartition) (position, committedEnd int64, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	position, committedEnd, ok := c.progress.Position(name)
	if !ok {
		return 0, -1, notRead(name)
	}
	// Within the batch that PollRecord is in the middle of, the position is finer than the progress knows.
	if rest := c.restInHand(); rest != nil && rest.is(name) {
		position = rest.FirstOffset()
	}
	return position, committedEnd, nil
}

func (b *Batch) is(name TopicPartition) bool {
	return b.topic == name.Topic && b.partition == name.Partition
}

func notRead(name TopicPartition) error {
	return &fault.PartitionError{Topic: name.Topic, Partition: name.Partition, Reason: "it is not read by this client"}
}
