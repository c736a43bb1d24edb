package minikafka

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/minikafka/minikafka/clients/go/internal/backoff"
	"github.com/minikafka/minikafka/clients/go/internal/cluster"
	"github.com/minikafka/minikafka/clients/go/internal/connection"
	"github.com/minikafka/minikafka/clients/go/internal/errorcode"
	"github.com/minikafka/minikafka/clients/go/internal/fault"
	"github.com/minikafka/minikafka/clients/go/internal/wire"
)

// EarliestOffsets is the offset of the first record that can be read, for every partition of a topic.
//
// The error is a *BrokerError (UnknownTopic, …), or the last retriable error when RequestTimeout is over.
func (c *Client) EarliestOffsets(ctx context.Context, topic string) (map[int32]int64, error) {
	return c.listAllOffsets(ctx, topic, offsetQuery{kind: wire.QueryEarliest})
}

// LatestOffsets is the offset after the last committed record, for every partition of a topic. Errors are as for EarliestOffsets.
func (c *Client) LatestOffsets(ctx context.Context, topic string) (map[int32]int64, error) {
	return c.listAllOffsets(ctx, topic, offsetQuery{kind: wire.QueryLatest})
}

// OffsetsAt is the offset of the first batch that was appended at or after a time, by the brokers' clocks, for every partition of
// a topic; the latest, where there is none. Errors are as for EarliestOffsets.
func (c *Client) OffsetsAt(ctx context.Context, topic string, t time.Time) (map[int32]int64, error) {
	return c.listAllOffsets(ctx, topic, offsetQuery{kind: wire.QueryTime, timestamp: t.UnixMilli()})
}

// SeekToTime goes on in a partition that is read at the first batch that was appended at or after a time, by the brokers' clocks.
// Errors are as for EarliestOffsets and Seek.
func (c *Client) SeekToTime(ctx context.Context, topic string, partition int32, t time.Time) error {
	ctx, cancel := c.requestContext(ctx)
	defer cancel()
	description, err := c.keeper.Topic(ctx, topic)
	if err != nil {
		return err
	}
	query := offsetQuery{kind: wire.QueryTime, timestamp: t.UnixMilli()}
	found, err := c.listOffsets(ctx, description, []int32{partition}, query)
	if err != nil {
		return err
	}
	return c.Seek(topic, partition, found[partition])
}

// DeleteRecords deletes the records of partitions below an offset each; one beyond the end means the end. It returns, once that
// is committed, the first offset that is left in each. Repeating it does no harm.
//
// Errors are as for EarliestOffsets, and a *PartitionError; some partitions may have lost their records all the same.
func (c *Client) DeleteRecords(ctx context.Context, topic string, before map[int32]int64) (map[int32]int64, error) {
	ctx, cancel := c.requestContext(ctx)
	defer cancel()
	description, err := c.keeper.Topic(ctx, topic)
	if err != nil {
		return nil, err
	}
	partitions := make([]int32, 0, len(before))
	for partition := range before {
		partitions = append(partitions, partition)
	}
	return c.askPartitions(ctx, description, partitions, wire.APIDeleteRecords, func(places []partitionPlace) connection.Message {
		request := &wire.DeleteRecordsRequest{}
		for _, place := range places {
			request.Partitions = append(request.Partitions, wire.DeleteRecordsPartition{
				Range: place.Range, Epoch: place.Epoch, Partition: place.key, Before: uint64(before[int32(place.key.Partition)]),
			})
		}
		return request
	})
}

type offsetQuery struct {
	kind      wire.OffsetQuery
	timestamp int64
}

func (c *Client) listAllOffsets(ctx context.Context, topic string, query offsetQuery) (map[int32]int64, error) {
	ctx, cancel := c.requestContext(ctx)
	defer cancel()
	description, err := c.keeper.Topic(ctx, topic)
	if err != nil {
		return nil, err
	}
	partitions := make([]int32, description.Partitions)
	for i := range partitions {
		partitions[i] = int32(i)
	}
	return c.listOffsets(ctx, description, partitions, query)
}

func (c *Client) listOffsets(ctx context.Context, topic *wire.TopicDescription, partitions []int32, query offsetQuery) (map[int32]int64, error) {
	return c.askPartitions(ctx, topic, partitions, wire.APIListOffsets, func(places []partitionPlace) connection.Message {
		request := &wire.ListOffsetsRequest{}
		for _, place := range places {
			request.Partitions = append(request.Partitions, wire.ListOffsetsPartition{
				Range: place.Range, Epoch: place.Epoch, Partition: place.key, Query: query.kind, Timestamp: query.timestamp,
			})
		}
		return request
	})
}

// requestContext bounds a request about topics, offsets or groups.
func (c *Client) requestContext(ctx context.Context) (context.Context, context.CancelFunc) {
	within, cancel := context.WithTimeout(ctx, c.settings.requestTimeout)
	if c.isClosing() {
		cancel()
		failed, fail := context.WithCancelCause(ctx)
		fail(ErrClosed)
		return failed, func() {}
	}
	return within, cancel
}

// partitionPlace is where a partition is asked about.
type partitionPlace struct {
	cluster.Addressed
	key wire.PartitionKey
}

// askPartitions asks every shard concerned at once; what is retriable is asked again, of whoever owns the partition by then,
// until the context ends. What is not retriable ends it for all.
func (c *Client) askPartitions(
	ctx context.Context, topic *wire.TopicDescription, partitions []int32, api wire.API,
	request func([]partitionPlace) connection.Message,
) (map[int32]int64, error) {
	open := map[int32]struct{}{}
	for _, partition := range partitions {
		if partition < 0 || partition >= int32(topic.Partitions) {
			return nil, noSuchPartition(topic.Name, partition, int32(topic.Partitions))
		}
		open[partition] = struct{}{}
	}
	found := make(map[int32]int64, len(partitions))
	for failures := 1; ; failures++ {
		m := c.keeper.Current()
		last := c.askShards(ctx, m, topic, api, open, found, request)
		if len(open) == 0 {
			return found, nil
		}
		if err := context.Cause(ctx); err != nil && (last == nil || !errors.Is(err, context.DeadlineExceeded)) {
			return nil, err
		}
		if last != nil && !fault.Retriable(last) {
			return nil, last
		}
		if last == nil {
			last = fault.Broker(errorcode.PartitionNotReady, "topic %s has partitions without an owner", topic.Name)
		}
		if !cluster.Sleep(ctx, backoff.Random(failures, fault.WantsRefresh(last), fault.RetryAfter(last))) {
			return nil, last
		}
		_, _ = c.keeper.NewerThan(ctx, m.Version())
	}
}

// askShards makes one round: what is answered moves from open to found. It returns why others are not; an error that no retry
// mends goes first.
func (c *Client) askShards(
	ctx context.Context, m *cluster.Map, topic *wire.TopicDescription, api wire.API, open map[int32]struct{}, found map[int32]int64,
	request func([]partitionPlace) connection.Message,
) (last error) {
	byShard := map[string][]partitionPlace{}
	for partition := range open {
		key, _ := m.RangeOf(topic, uint32(partition))
		if address, epoch, ok := m.Owner(key); ok {
			byShard[address] = append(byShard[address], partitionPlace{
				cluster.Addressed{Address: address, Range: key, Epoch: epoch},
				wire.PartitionKey{Topic: topic.Topic, Partition: uint32(partition)},
			})
		}
	}
	var mu sync.Mutex
	var asking sync.WaitGroup
	note := func(err error) {
		if last == nil || fault.Retriable(last) {
			last = err
		}
	}
	for address, places := range byShard {
		asking.Add(1)
		go func() {
			defer asking.Done()
			answers, err := c.askShard(ctx, address, api, request(places), places)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				note(err)
				return
			}
			for _, answer := range answers {
				partition := int32(answer.Partition.Partition)
				if answer.Error != errorcode.None {
					note(fault.Broker(answer.Error, "topic %s partition %d", topic.Name, partition))
					continue
				}
				delete(open, partition)
				found[partition] = int64(answer.Offset)
			}
		}()
	}
	asking.Wait()
	return last
}

func (c *Client) askShard(ctx context.Context, address string, api wire.API, request connection.Message, places []partitionPlace) ([]wire.PartitionOffset, error) {
	opened, err := c.pool.Connect(ctx, address, connection.Requests)
	if err != nil {
		return nil, err
	}
	addressed := make([]cluster.Addressed, len(places))
	for i := range places {
		addressed[i] = places[i].Addressed
	}
	reply, err := c.callWatched(ctx, opened, connection.Ask{API: api}, request, 0, addressed)
	if err != nil {
		return nil, err
	}
	malformed := func(reason error) error {
		return &fault.MalformedError{From: address, What: api.String() + " reply", Reason: reason}
	}
	answer, err := wire.DecodePartitionOffsetsReply(reply.Head)
	if err != nil {
		return nil, malformed(err)
	}
	if len(answer.Partitions) != len(places) {
		return nil, malformed(errors.New("it lists other partitions than asked for"))
	}
	for i := range places {
		if answer.Partitions[i].Partition != places[i].key {
			return nil, malformed(errors.New("it lists other partitions than asked for"))
		}
	}
	return answer.Partitions, nil
}
