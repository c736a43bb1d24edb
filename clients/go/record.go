package minikafka

import (
	"time"

	"github.com/minikafka/minikafka/clients/go/internal/batch"
)

// Header is one header of a record: a name, which is UTF-8 and may repeat, and a value.
//
//	type Header struct {
//		Name  string
//		Value []byte
//	}
type Header = batch.Header

// Record is a record to be produced, or one that was read.
//
// Key, value and headers of a record together have at most 2 MiB, and a record has at most 1,024 headers.
type Record struct {
	// Topic is where the record goes or comes from. When producing, set by the application unless there is a DefaultTopic.
	Topic string
	// Partition is set by the client in records that are read. When producing it is ignored, unless the client was made with
	// ManualPartitioning: then the application sets it.
	Partition int32
	// Offset is set by the client in records that are read; ignored when producing.
	Offset int64
	// Key, if any: records of one key go to one partition and keep their order. Nil is no key, an empty slice an empty one.
	Key []byte
	// Value; nil makes the record a tombstone, an empty slice is an empty value.
	Value []byte
	// Headers, in order.
	Headers []Header
	// Timestamp is the producer's clock, with a precision of milliseconds. Zero when producing: now.
	Timestamp time.Time
	// AppendTimestamp is the clock of the broker that accepted the record, in records that are read; it never decreases
	// within a partition. Ignored when producing.
	AppendTimestamp time.Time

	// nextOffset is that of the next record in the partition: what acknowledging this one covers.
	nextOffset int64
}

// Delivery is where a record was stored.
type Delivery struct {
	// Topic of the record.
	Topic string
	// Partition of the record.
	Partition int32
	// Offset of the record; negative when it is stored, but the broker no longer remembers where.
	Offset int64
	// AppendTimestamp is the clock of the broker when it accepted the record; zero as for the offset.
	AppendTimestamp time.Time
	// Explain says where the time of the record's batch went; the same for all records of it. Nil when nobody asked
	// (ExplainProduces), the broker is of a release that cannot tell, or the batch is stored where nobody remembers.
	Explain *Explain
}

// Promise is called once for each record given to Produce, when the record is stored or has failed for good.
//
// Promises are called one at a time, in order for each partition. They must not block, and must not call Produce, which waits
// for memory that only the end of promises gives back: TryProduce and starting a goroutine are fine.
type Promise func(Delivery, error)
