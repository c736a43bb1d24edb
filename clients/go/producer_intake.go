package minikafka

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/minikafka/minikafka/clients/go/internal/batch"
	"github.com/minikafka/minikafka/clients/go/internal/fault"
	"github.com/minikafka/minikafka/clients/go/internal/partitioner"
	"github.com/minikafka/minikafka/clients/go/internal/wire"
)

// recordOverheadBytes is what a record costs of the producer's memory besides its bytes: its places in the columns.
const recordOverheadBytes = 24

// producer has what the topics of a client share: memory, tickets, and the goroutine that keeps promises.
type producer struct {
	client     *Client
	settings   *producerSettings
	memory     *memoryBudget
	unresolved unresolvedBatches
	recycler   recycler
	promises   promiseKeeper
	clock      recordClock
	// compressing bounds the bodies that are compressed at the same time.
	compressing chan struct{}
	isClosed    atomic.Bool
	// flushBefore: batches with tickets below this do not linger.
	flushBefore atomic.Uint64
	// hurries counts flushes, waits for memory and the close: with each, batches that lingered may be due.
	hurries atomic.Uint64

	// last is the topic of the last record: most applications produce to one for long.
	last   atomic.Pointer[topicProducer]
	mu     sync.Mutex
	topics map[string]*topicProducer
}

// topicProducer takes the records of one topic. A record takes one lock, that of its partition, and one step on the memory's
// counter. The sender hears of a batch when it is opened and when it is full, not of records.
type topicProducer struct {
	producer      *producer
	name          string
	topic         *wire.TopicDescription
	batchBytesMax int
	bodyBytesMax  int
	partitions    []gathering
	sender        *sender
	// stickyCurrent mirrors sticky's choice for records without a key.
	stickyCurrent atomic.Int32
	stickyMu      sync.Mutex
	sticky        partitioner.Sticky
}

func newProducer(client *Client) *producer {
	settings := &client.settings.producer
	p := &producer{
		client: client, settings: settings, memory: newMemoryBudget(settings.bufferBytesMax), topics: map[string]*topicProducer{},
		recycler: recycler{bodyBytesMax: 2 * settings.batchBytesMax, bodiesBytesMax: settings.bufferBytesMax / 2}, compressing: make(chan struct{}, runtime.GOMAXPROCS(0)),
	}
	p.promises.wake = make(chan struct{}, 1)
	client.tasks.start(p.keepPromises)
	return p
}

// topic is the producer of a topic, which is looked up, and if allowed created, with its first record.
func (p *producer) topic(ctx context.Context, name string) (*topicProducer, error) {
	if last := p.last.Load(); last != nil && last.name == name {
		return last, nil
	}
	p.mu.Lock()
	known := p.topics[name]
	p.mu.Unlock()
	if known == nil {
		ctx, cancel := context.WithTimeout(ctx, p.client.settings.requestTimeout)
		defer cancel()
		description, err := p.client.keeper.Topic(ctx, name)
		if err != nil {
			return nil, err
		}
		if known, err = p.start(description); err != nil {
			return nil, err
		}
	}
	p.last.Store(known)
	return known, nil
}

func (p *producer) start(description *wire.TopicDescription) (*topicProducer, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.isClosed.Load() {
		return nil, fault.ErrClosed
	}
	if known := p.topics[description.Name]; known != nil {
		return known, nil
	}
	bodyBytesMax := min(int(description.Config.BatchBytesMax), wire.BatchBodyBytesMax)
	t := &topicProducer{
		producer: p, name: description.Name, topic: description, bodyBytesMax: bodyBytesMax,
		batchBytesMax: min(p.settings.batchBytesMax, bodyBytesMax), partitions: make([]gathering, description.Partitions),
	}
	t.sticky = partitioner.NewSticky(rand.Int32N(1<<30), int32(description.Partitions), t.batchBytesMax, time.Now())
	t.stickyCurrent.Store(t.sticky.Current())
	t.sender = newSender(t)
	p.topics[description.Name] = t
	p.client.senderTasks.Add(1)
	p.client.tasks.start(t.sender.run)
	return t, nil
}

// produce takes a record; the error says why it was not taken.
func (p *producer) produce(ctx context.Context, record *Record, promise Promise, mayWait bool) error {
	name := record.Topic
	if name == "" {
		if name = p.settings.defaultTopic; name == "" {
			return &fault.RecordError{Reason: "it names no topic, and there is no DefaultTopic"}
		}
	}
	topic, err := p.topic(ctx, name)
	if err != nil {
		return err
	}
	partition, err := topic.choose(record)
	if err != nil {
		return err
	}
	taken := batch.Record{Key: record.Key, Value: record.Value, Headers: record.Headers}
	recordBytes, err := topic.check(&taken)
	if err != nil {
		return err
	}
	charge := recordBytes + recordOverheadBytes
	if !p.memory.tryReserve(charge) {
		if !mayWait {
			return ErrBufferFull
		}
		if err := p.memory.reserve(ctx, charge, p.hurry); err != nil {
			return err
		}
	}
	if record.Timestamp.IsZero() {
		taken.Timestamp = p.clock.milliseconds()
	} else {
		taken.Timestamp = record.Timestamp.UnixMilli()
	}
	return topic.push(partition, &taken, recordBytes, charge, promise)
}

func (t *topicProducer) push(partition int32, record *batch.Record, recordBytes, charge int, promise Promise) error {
	g := &t.partitions[partition]
	g.mu.Lock()
	// Asked under the lock: once the sender has seen every partition after a close, nothing can come in any more.
	if t.producer.isClosed.Load() {
		g.mu.Unlock()
		t.producer.memory.release(charge)
		return fault.ErrClosed
	}
	done := g.push(record, recordBytes, charge, promise, t)
	g.mu.Unlock()
	if done.announce {
		t.sender.announce(partition)
	}
	if done.fullBytes > 0 {
		t.batchLeft(partition, done.fullBytes, time.Now())
		t.producer.clock.batchFull(t.producer.client, t.producer.memory.available.Load)
		// An application that always finds memory must still let its own sender run, on the only core it may have.
		runtime.Gosched()
	}
	return nil
}

// choose is the partition of a record: as it says, by its key, or the one that is being filled.
func (t *topicProducer) choose(record *Record) (int32, error) {
	partitions := int32(len(t.partitions))
	switch {
	case t.producer.settings.manualPartitioning:
		if record.Partition < 0 || record.Partition >= partitions {
			return 0, noSuchPartition(t.name, record.Partition, partitions)
		}
		return record.Partition, nil
	case record.Key != nil:
		return partitioner.OfKey(record.Key, partitions), nil
	default:
		return t.stickyCurrent.Load(), nil
	}
}

// check refuses what no batch of this topic can take, and counts the record's bytes.
func (t *topicProducer) check(record *batch.Record) (int, error) {
	recordBytes := len(record.Key) + len(record.Value)
	if len(record.Headers) > 0 {
		recordBytes = record.Bytes()
		for i := range record.Headers {
			if !utf8.ValidString(record.Headers[i].Name) {
				return 0, &fault.RecordError{Reason: "the name of a header is not UTF-8"}
			}
		}
		if len(record.Headers) > batch.RecordHeadersMax {
			return 0, &fault.RecordError{Reason: fmt.Sprintf("it has %d headers, at most %d are allowed", len(record.Headers), batch.RecordHeadersMax)}
		}
	}
	bytesMax := min(batch.RecordBytesMax, t.producer.settings.bufferBytesMax-recordOverheadBytes)
	if body := t.bodyBytesMax - batch.RecordAloneBytes(record); body < bytesMax {
		bytesMax = max(body, 0)
	}
	if recordBytes > bytesMax {
		return 0, &fault.RecordError{Bytes: recordBytes, BytesMax: max(bytesMax, 1)}
	}
	return recordBytes, nil
}

func noSuchPartition(topic string, partition, partitions int32) error {
	return &fault.PartitionError{Topic: topic, Partition: partition, Reason: fmt.Sprintf("the topic has %d partitions, numbered from 0", partitions)}
}

func (t *topicProducer) batchLeft(partition int32, bytes int, now time.Time) {
	t.stickyMu.Lock()
	defer t.stickyMu.Unlock()
	t.sticky.BatchLeft(partition, bytes, now)
	t.stickyCurrent.Store(t.sticky.Current())
}

func (t *topicProducer) openBatch() *openBatch {
	p := t.producer
	open := p.recycler.openBatch()
	open.ticket, open.openedAt = p.unresolved.open(), time.Now()
	return open
}

// mayLinger tells whether a batch may linger, as far as flushes, waiting callers and a close are concerned.
func (p *producer) mayLinger(open *openBatch) bool {
	return uint64(open.ticket) >= p.flushBefore.Load() && p.memory.waiting.Load() == 0 && !p.isClosed.Load()
}

// hurry lets every sender look again at batches that linger.
func (p *producer) hurry() {
	p.hurries.Add(1)
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, topic := range p.topics {
		topic.sender.wakeUp()
	}
}

// expedite lets nothing linger that was accepted so far; the batch after it is the first that may. It returns that one's ticket.
func (p *producer) expedite() ticket {
	end := p.unresolved.next()
	for {
		before := p.flushBefore.Load()
		if uint64(end) <= before || p.flushBefore.CompareAndSwap(before, uint64(end)) {
			break
		}
	}
	p.hurry()
	return end
}

// flush sends what is gathered without lingering, and waits until everything accepted before is stored or has failed.
func (p *producer) flush(ctx context.Context) error {
	return p.unresolved.allBefore(ctx, p.expedite())
}

// close takes no further record, and flushes. What the context does not wait for fails when the client ends its senders.
func (p *producer) close(ctx context.Context) error {
	p.isClosed.Store(true)
	p.memory.close()
	err := p.flush(ctx)
	if err != nil && errors.Is(err, context.Cause(ctx)) {
		return &fault.DeadlineError{What: "the flush of a client that is being closed", Unknown: true, Last: err}
	}
	return err
}
