package minikafka

import (
	"sync/atomic"
	"time"

	"github.com/minikafka/minikafka/clients/go/internal/batch"
	"github.com/minikafka/minikafka/clients/go/internal/compression"
	"github.com/minikafka/minikafka/clients/go/internal/fetch"
)

// Batch has records of one partition as they were stored together, validated: at least one, offsets growing. It may be used by
// many goroutines.
type Batch struct {
	consumer        *consumer
	topic           string
	partition       int32
	appendTimestamp time.Time
	nextOffset      int64
	view            batch.View
	// first is the index of the first record that was asked for.
	first      int
	taken      fetch.Taken
	isReleased atomic.Bool
}

// newBatch decompresses and validates what was fetched; nil when it has no record at the position or behind it.
func newBatch(c *consumer, taken fetch.Taken) (*Batch, error) {
	header := &taken.Entry.Header
	body, err := compression.Open(header.Codec, taken.Entry.Body, int(header.UncompressedBytes))
	if err != nil {
		return nil, err
	}
	view, err := batch.Parse(body, header)
	if err != nil {
		return nil, err
	}
	b := &Batch{
		consumer: c, topic: taken.Topic, partition: taken.Partition, appendTimestamp: time.UnixMilli(header.AppendTimestamp),
		nextOffset: int64(header.NextOffset()), view: view, first: view.FirstAtOrAfter(taken.Position), taken: taken,
	}
	if b.first == view.Len() {
		return nil, nil
	}
	return b, nil
}

// Topic is the topic of the records.
func (b *Batch) Topic() string { return b.topic }

// Partition is their partition.
func (b *Batch) Partition() int32 { return b.partition }

// Len counts the records; it is never 0.
func (b *Batch) Len() int { return b.view.Len() - b.first }

// FirstOffset is the offset of the first record.
func (b *Batch) FirstOffset() int64 { return b.view.Offset(b.first) }

// NextOffset is the position after the last record.
func (b *Batch) NextOffset() int64 { return b.nextOffset }

// AppendTimestamp is the clock of the broker that accepted the batch.
func (b *Batch) AppendTimestamp() time.Time { return b.appendTimestamp }

// Explain says where the time of the fetch went that brought this batch, and perhaps others; nil when nobody asked (ExplainFetches),
// or the broker is of a release that cannot tell.
func (b *Batch) Explain() *Explain { return b.taken.Entry.Explain }

// Record is the record at an index, 0 to Len-1. Key, value and headers alias the batch: they are valid until Release, without
// it as long as they are referred to, and must not be changed.
func (b *Batch) Record(index int) Record {
	index += b.first
	next := b.nextOffset
	if index+1 < b.view.Len() {
		next = b.view.Offset(index + 1)
	}
	return Record{
		Topic:           b.topic,
		Partition:       b.partition,
		Offset:          b.view.Offset(index),
		Key:             b.view.Key(index),
		Value:           b.view.Value(index),
		Headers:         b.view.Headers(index),
		Timestamp:       time.UnixMilli(b.view.Timestamp(index)),
		AppendTimestamp: b.appendTimestamp,
		nextOffset:      next,
	}
}

// Key is the key of the record at an index, as in Record; cheaper when nothing else is wanted.
func (b *Batch) Key(index int) []byte { return b.view.Key(index + b.first) }

// Value is the value of the record at an index, as in Record; cheaper when nothing else is wanted.
func (b *Batch) Value(index int) []byte { return b.view.Value(index + b.first) }

// Offset is the offset of the record at an index.
func (b *Batch) Offset(index int) int64 { return b.view.Offset(index + b.first) }

// All calls yield for each record, until it returns false. From Go 1.23 on it can be ranged over:
//
//	for record := range batch.All() { … }
func (b *Batch) All() func(yield func(Record) bool) {
	return func(yield func(Record) bool) {
		for i := range b.Len() {
			if !yield(b.Record(i)) {
				return
			}
		}
	}
}

// Ack acknowledges every record of the batch: for a member of a group with CommitByAck; otherwise it does nothing.
func (b *Batch) Ack() {
	b.consumer.ack(TopicPartition{Topic: b.topic, Partition: b.partition}, b.FirstOffset(), b.nextOffset)
}

// Release gives the batch's memory back to the client, which spares it from asking for more: worth it at some hundred megabytes
// a second. Afterwards nothing that came from the batch may be used any more. Without it, the garbage collector does its work.
func (b *Batch) Release() {
	if b.isReleased.CompareAndSwap(false, true) {
		b.taken.Entry.Buffer.Release()
	}
}
