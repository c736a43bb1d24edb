package minikafka

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/minikafka/minikafka/clients/go/internal/batch"
	"github.com/minikafka/minikafka/clients/go/internal/produce"
	"github.com/minikafka/minikafka/clients/go/internal/wire"
)

const (
	// buildersKeptMax bounds the builders that are kept for their next use: a batch has one only while it is filled.
	buildersKeptMax = 32
	// promisesKeptMax bounds the lists of promises that are kept.
	promisesKeptMax = 256
	// slowBodyBytes: bodies of this size and more are compressed apart from the sender.
	slowBodyBytes = 16 << 10
)

// sentBatch is a batch that has left its gathering.
type sentBatch struct {
	topic        *topicProducer
	partition    int32
	promises     []Promise
	ticket       ticket
	chargedBytes int
	recordCount  int
	// isSealed is false while the body is being compressed.
	isSealed bool
	// header is as it is sent but for range, producer and sequence, which every attempt puts in.
	header wire.EntryHeader
	body   []byte
	// written: the connection no longer needs the body. Only asked when there was a single attempt.
	written  atomic.Bool
	attempts int
}

// recycler keeps memory between two batches: fresh memory costs more than filling it, because it is cleared first.
type recycler struct {
	// bodyBytesMax: what was larger is not kept, so that one large batch does not cost memory for ever.
	bodyBytesMax int
	// bodiesBytesMax bounds all bodies that are kept.
	bodiesBytesMax int

	mu          sync.Mutex
	builders    []*batch.Builder
	bodies      [][]byte
	bodiesBytes int
	promises    [][]Promise
}

func (r *recycler) openBatch() *openBatch {
	r.mu.Lock()
	defer r.mu.Unlock()
	open := &openBatch{}
	if last := len(r.builders) - 1; last >= 0 {
		open.builder = r.builders[last]
		r.builders = r.builders[:last]
	} else {
		open.builder = new(batch.Builder)
	}
	if last := len(r.promises) - 1; last >= 0 {
		open.promises = r.promises[last]
		r.promises = r.promises[:last]
	}
	return open
}

// finish encodes what the builder holds; the builder is kept.
func (r *recycler) finish(builder *batch.Builder) batch.Finished {
	var memory []byte
	r.mu.Lock()
	if last := len(r.bodies) - 1; last >= 0 {
		memory = r.bodies[last]
		r.bodies = r.bodies[:last]
		r.bodiesBytes -= cap(memory)
	}
	r.mu.Unlock()
	finished := builder.Finish(memory)
	if len(finished.Body) <= r.bodyBytesMax {
		r.mu.Lock()
		defer r.mu.Unlock()
		if len(r.builders) < buildersKeptMax {
			r.builders = append(r.builders, builder)
		}
	}
	return finished
}

// takeBack keeps the memory of a batch that is resolved, where nobody else can hold it any more.
func (r *recycler) takeBack(b *sentBatch) {
	clear(b.promises)
	r.mu.Lock()
	defer r.mu.Unlock()
	if cap(b.promises) > 0 && len(r.promises) < promisesKeptMax {
		r.promises = append(r.promises, b.promises[:0])
	}
	// A body that was sent again may still be in another connection's hands.
	if b.attempts == 1 && b.written.Load() {
		r.keepBody(b.body)
	}
}

// keepBody keeps memory that nobody else holds; the caller holds the lock.
func (r *recycler) keepBody(body []byte) {
	if cap(body) <= r.bodyBytesMax && r.bodiesBytes+cap(body) <= r.bodiesBytesMax {
		r.bodies = append(r.bodies, body)
		r.bodiesBytes += cap(body)
	}
}

// seal encodes an open batch; compression is still to come.
func (t *topicProducer) seal(partition int32, open *openBatch) (*sentBatch, batch.Finished) {
	finished := t.producer.recycler.finish(open.builder)
	return &sentBatch{
		topic: t, partition: partition, promises: open.promises, ticket: open.ticket, chargedBytes: open.chargedBytes,
		recordCount: finished.RecordCount,
	}, finished
}

// finishSeal computes checksum and header of a body as it will be sent.
func (b *sentBatch) finishSeal(finished *batch.Finished, body []byte, codec wire.Codec) {
	if codec != wire.CodecNone {
		r := &b.topic.producer.recycler
		r.mu.Lock()
		r.keepBody(finished.Body)
		r.mu.Unlock()
	}
	b.body = body
	b.header = wire.EntryHeader{
		Kind: wire.EntryBatch, BodyFormat: wire.BodyColumnar, Codec: codec, BodyBytes: uint32(len(body)),
		UncompressedBytes: uint32(finished.UncompressedBytes), Topic: b.topic.topic.Topic, Partition: uint32(b.partition),
		RecordCount: uint32(finished.RecordCount), LastOffsetDelta: uint32(finished.RecordCount - 1),
		BaseTimestamp: finished.BaseTimestamp, MaxTimestamp: finished.MaxTimestamp, BodyCRC: wire.CRC32C(body),
	}
	b.isSealed = true
}

// promiseKeeper calls the promises of resolved batches, one at a time.
type promiseKeeper struct {
	mu      sync.Mutex
	batches []resolvedBatch
	wake    chan struct{}
}

type resolvedBatch struct {
	batch  *sentBatch
	stored produce.Stored
	err    error
}

// keep ends a batch: at once when no record has a promise, otherwise after they were called.
func (p *producer) keep(resolved resolvedBatch) {
	if len(resolved.batch.promises) == 0 {
		p.finish(resolved)
		return
	}
	k := &p.promises
	k.mu.Lock()
	k.batches = append(k.batches, resolved)
	k.mu.Unlock()
	select {
	case k.wake <- struct{}{}:
	default:
	}
}

// keepPromises runs until the client has ended, and all that was resolved by then is told.
func (p *producer) keepPromises() {
	var batches []resolvedBatch
	for {
		ended := false
		select {
		case <-p.promises.wake:
		case <-p.client.sendersEnded:
			ended = true
		}
		for {
			p.promises.mu.Lock()
			batches, p.promises.batches = p.promises.batches, batches[:0]
			p.promises.mu.Unlock()
			for i := range batches {
				batches[i].callPromises()
				p.finish(batches[i])
				batches[i] = resolvedBatch{}
			}
			if len(batches) == 0 {
				break
			}
		}
		if ended {
			return
		}
	}
}

func (r *resolvedBatch) callPromises() {
	delivery := Delivery{Topic: r.batch.topic.name, Partition: r.batch.partition, Offset: -1}
	if r.err == nil && r.stored.BaseOffset >= 0 {
		delivery.Offset, delivery.Explain = r.stored.BaseOffset, r.stored.Explain
		delivery.AppendTimestamp = time.UnixMilli(r.stored.AppendTimestamp)
	}
	for _, promise := range r.batch.promises {
		if promise != nil {
			promise(delivery, r.err)
		}
		if delivery.Offset >= 0 {
			delivery.Offset++
		}
	}
}

// finish gives back what the batch held.
func (p *producer) finish(resolved resolvedBatch) {
	b := resolved.batch
	p.client.counters.resolved(b, resolved.err)
	p.memory.release(b.chargedBytes)
	p.unresolved.resolve(b.ticket, resolved.err)
	p.recycler.takeBack(b)
}
