package minikafka

import (
	"context"
	"errors"
	"sync"

	"github.com/minikafka/minikafka/clients/go/internal/fault"
	"github.com/minikafka/minikafka/clients/go/internal/fetch"
	"github.com/minikafka/minikafka/clients/go/internal/wire"
)

// consumer is what reads: fetcher (consumer_fetcher.go) asks every shard concerned, ahead of the application and within a bound
// of memory; fetch.Progress decides what to ask and what an answer means. A batch's way: shard → fetcher → fetch.Verified →
// fetch.Progress → poll → newBatch.
type consumer struct {
	client   *Client
	settings *consumerSettings
	group    *groupMember
	// polling is held, by having its only token, by the goroutine that polls.
	polling chan struct{}
	// ready is told that there may be something for the application; wakeFetcher, that there is something to plan.
	ready       chan struct{}
	wakeFetcher chan struct{}
	isStarted   bool

	mu       sync.Mutex
	progress *fetch.Progress
	// failure ends the consumer: a fenced member says why.
	failure error
	// inHand is the batch that the application was given last, until it asks for more.
	inHand *Batch
	// nextRecord is the index in inHand that PollRecord gives out next; negative: inHand was given out by Poll, whole.
	nextRecord int
}

func newConsumer(client *Client, settings *consumerSettings, group *groupSettings) *consumer {
	c := &consumer{
		client: client, settings: settings, polling: make(chan struct{}, 1), ready: make(chan struct{}, 1),
		wakeFetcher: make(chan struct{}, 1), progress: fetch.NewProgress(settings.fetchSettings(), client.settings.logger),
	}
	if group.name != "" {
		c.group = newGroupMember(c, group)
	}
	return c
}

// poll is the next batch. With one record at a time, what is left of the batch in hand comes first.
func (c *consumer) poll(ctx context.Context) (*Batch, error) {
	release, err := c.begin(ctx)
	if err != nil {
		return nil, err
	}
	defer release()
	c.mu.Lock()
	if rest := c.restInHand(); rest != nil {
		c.giveOut(rest, -1)
		c.mu.Unlock()
		return rest, nil
	}
	c.mu.Unlock()
	return c.nextBatch(ctx, -1)
}

// pollRecord is the next record.
func (c *consumer) pollRecord(ctx context.Context) (Record, error) {
	release, err := c.begin(ctx)
	if err != nil {
		return Record{}, err
	}
	defer release()
	c.mu.Lock()
	if c.inHand != nil && c.nextRecord >= 0 && c.nextRecord < c.inHand.Len() {
		record := c.inHand.Record(c.nextRecord)
		c.nextRecord++
		c.givenOut(c.inHand, record.Offset, record.nextOffset)
		c.mu.Unlock()
		return record, nil
	}
	c.mu.Unlock()
	b, err := c.nextBatch(ctx, 1)
	if err != nil {
		return Record{}, err
	}
	return b.Record(0), nil
}

// begin makes the caller the one that polls, starts the consumer with the first poll, and takes what was given out before for
// handled.
func (c *consumer) begin(ctx context.Context) (release func(), err error) {
	select {
	case c.polling <- struct{}{}:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	case <-c.client.closing:
		return nil, fault.ErrClosed
	}
	release = func() { <-c.polling }
	if c.client.isClosing() {
		release()
		return nil, fault.ErrClosed
	}
	if !c.isStarted {
		if err := c.start(ctx); err != nil {
			release()
			return nil, err
		}
		c.isStarted = true
	}
	if c.group != nil {
		c.group.handleGivenOut()
	}
	return release, nil
}

// restInHand is what PollRecord has not given out of the batch in hand; the caller holds the lock.
func (c *consumer) restInHand() *Batch {
	if c.inHand == nil || c.nextRecord < 0 || c.nextRecord >= c.inHand.Len() {
		return nil
	}
	rest := &Batch{
		consumer: c, topic: c.inHand.topic, partition: c.inHand.partition, appendTimestamp: c.inHand.appendTimestamp,
		nextOffset: c.inHand.nextOffset, view: c.inHand.view, first: c.inHand.first + c.nextRecord, taken: c.inHand.taken,
	}
	// Records of the same memory are out already: only the garbage collector knows when all are done with.
	rest.isReleased.Store(true)
	return rest
}

// nextBatch waits for the next batch, and gives out the first records of it, or all (negative).
func (c *consumer) nextBatch(ctx context.Context, records int) (*Batch, error) {
	for {
		b, err := c.tryNextBatch(records)
		if b != nil || err != nil {
			return b, err
		}
		select {
		case <-c.ready:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-c.client.closing:
			return nil, fault.ErrClosed
		}
	}
}

func (c *consumer) tryNextBatch(records int) (*Batch, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.inHand = nil
	for {
		if c.failure != nil {
			return nil, c.failure
		}
		taken, failure, ok := c.progress.Take()
		if !ok {
			return nil, nil
		}
		if c.progress.MayFetch() {
			wake(c.wakeFetcher)
		}
		if failure != nil {
			return nil, failure
		}
		b, err := newBatch(c, taken)
		if err != nil {
			return nil, c.unreadable(taken, err)
		}
		if b == nil {
			taken.Entry.Buffer.Release()
			continue
		}
		c.giveOut(b, records)
		return b, nil
	}
}

// giveOut puts a batch into the application's hands, wholly or its first records; the caller holds the lock.
func (c *consumer) giveOut(b *Batch, records int) {
	c.inHand, c.nextRecord = b, records
	next := b.nextOffset
	if records >= 0 && records < b.Len() {
		next = b.Offset(records)
	}
	c.givenOut(b, b.FirstOffset(), next)
	c.client.counters.consumed(b)
}

func (c *consumer) givenOut(b *Batch, first, next int64) {
	if c.group != nil {
		c.group.givenOut(TopicPartition{Topic: b.topic, Partition: b.partition}, first, next)
	}
}

// unreadable: a batch whose checksum is right, and that is none all the same. Its partition stands still.
func (c *consumer) unreadable(taken fetch.Taken, reason error) error {
	at := max(taken.Position, int64(taken.Entry.Header.BaseOffset))
	err := &fault.DamagedError{
		Topic: taken.Topic, Partition: taken.Partition, First: at, Resume: int64(taken.Entry.Header.NextOffset()), Reason: reason.Error(),
	}
	c.progress.Fail(taken.TopicPartition, at, err)
	return err
}

// fail ends the consumer.
func (c *consumer) fail(err error) {
	c.mu.Lock()
	c.failure = err
	c.mu.Unlock()
	wake(c.ready)
}

// start looks up where to begin, and begins. A member of a group is told by its coordinator.
func (c *consumer) start(ctx context.Context) error {
	if !c.settings.consumes() {
		return refuse("ConsumeTopics", "the client was made without anything to consume")
	}
	ctx, cancel := context.WithTimeout(ctx, c.client.settings.requestTimeout)
	defer cancel()
	if c.group != nil {
		if err := c.group.start(ctx); err != nil {
			return err
		}
	} else if err := c.startAll(ctx); err != nil {
		return err
	}
	c.client.goWithLifetime(c.fetchAhead)
	return nil
}

// startAll begins to read everything that the options name.
func (c *consumer) startAll(ctx context.Context) error {
	type beginning struct {
		topic  *wire.TopicDescription
		starts []startPosition
	}
	var beginnings []beginning
	for topic, partitions := range c.settings.wanted() {
		description, err := c.client.keeper.Topic(ctx, topic)
		if err != nil {
			return err
		}
		starts, err := c.starts(ctx, description, partitions)
		if err != nil {
			return err
		}
		beginnings = append(beginnings, beginning{description, starts})
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, beginning := range beginnings {
		for _, start := range beginning.starts {
			c.progress.Add(beginning.topic, start.partition, start.offset, start.isEarliest, false)
		}
	}
	return nil
}

// wanted has the topics to read, and of each the partitions; nil: all.
func (s *consumerSettings) wanted() map[string][]int32 {
	wanted := map[string][]int32{}
	for topic, partitions := range s.partitions {
		wanted[topic] = partitions
	}
	for _, topic := range s.topics {
		wanted[topic] = nil
	}
	return wanted
}

type startPosition struct {
	partition  int32
	offset     int64
	isEarliest bool
}

// starts is where partitions begin. "Earliest" asks nobody: it begins at 0, and the shards say where that is.
func (c *consumer) starts(ctx context.Context, topic *wire.TopicDescription, partitions []int32) ([]startPosition, error) {
	if partitions == nil {
		for number := range int32(topic.Partitions) {
			partitions = append(partitions, number)
		}
	}
	var starts []startPosition
	var asked []int32
	for _, number := range partitions {
		if number < 0 || number >= int32(topic.Partitions) {
			return nil, noSuchPartition(topic.Name, number, int32(topic.Partitions))
		}
		offset, chosen := c.settings.startOffsets[TopicPartition{Topic: topic.Name, Partition: number}]
		switch {
		case chosen:
			starts = append(starts, startPosition{number, offset, false})
		case c.settings.start.kind == startOffset:
			starts = append(starts, startPosition{number, c.settings.start.offset, false})
		case c.settings.start.kind == startEarliest:
			starts = append(starts, startPosition{number, 0, true})
		default:
			asked = append(asked, number)
		}
	}
	if len(asked) == 0 {
		return starts, nil
	}
	query := offsetQuery{kind: wire.QueryLatest}
	if c.settings.start.kind == startTime {
		query = offsetQuery{kind: wire.QueryTime, timestamp: c.settings.start.time.UnixMilli()}
	}
	found, err := c.client.listOffsets(ctx, topic, asked, query)
	if err != nil {
		return nil, err
	}
	for _, number := range asked {
		starts = append(starts, startPosition{number, found[number], false})
	}
	return starts, nil
}

// close commits what was handled and leaves the group.
func (c *consumer) close(ctx context.Context) error {
	if c.group == nil {
		return nil
	}
	err := c.group.close(ctx)
	if errors.Is(err, fault.ErrClosed) {
		return nil
	}
	return err
}

func wake(channel chan struct{}) {
	select {
	case channel <- struct{}{}:
	default:
	}
}
