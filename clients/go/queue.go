package minikafka

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/minikafka/minikafka/clients/go/internal/fault"
)

// The topic and the group of the queue, the same in every language.
const (
	queueTopic      = "queue"
	queueGroup      = "queue"
	queuePartitions = 8
)

const (
	// handlerPause is the pause before a record is given to a handler again that returned an error; it doubles.
	handlerPause = 100 * time.Millisecond
	// handlerPauseMax bounds it.
	handlerPauseMax = 10 * time.Second
)

// queue is the simple use of a client: Push, Pull, Subscribe. Its consumer is another one than that of the client's options,
// because it is a member of a group of its own.
type queue struct {
	mu sync.Mutex
	// isReady: the topic is there.
	isReady  bool
	consumer *consumer
	// again has the deliveries that are to be given out again, before anything behind them.
	again []*QueueDelivery
	// pulled is what Pull returned last: the next Pull acknowledges it.
	pulled *QueueDelivery
	// subscribers end when their handlers will not be called any more.
	subscribers []<-chan struct{}
	// wakePull tells a PullDelivery that waits that there is something to give out again.
	wakePull chan struct{}
}

// QueueDelivery is a record of the queue that is to be acknowledged.
type QueueDelivery struct {
	client *Client
	record Record
	once   sync.Once
}

// Key is the record's key; nil when it has none.
func (d *QueueDelivery) Key() []byte { return d.record.Key }

// Value is the record's value.
func (d *QueueDelivery) Value() []byte { return d.record.Value }

// Record is the whole record.
func (d *QueueDelivery) Record() Record { return d.record }

// Ack says that the record is handled: it is not delivered again. Only the first Ack or Nack counts.
func (d *QueueDelivery) Ack() {
	d.once.Do(func() {
		if consumer := d.client.queue.current(); consumer != nil {
			consumer.ack(TopicPartition{Topic: d.record.Topic, Partition: d.record.Partition}, d.record.Offset, d.record.nextOffset)
		}
	})
}

// Nack gives the record out again: here, and before anything behind it that was not given out yet.
func (d *QueueDelivery) Nack() {
	d.once.Do(func() {
		q := &d.client.queue
		q.mu.Lock()
		q.again = append(q.again, &QueueDelivery{client: d.client, record: d.record})
		waiting := q.wakePull
		q.mu.Unlock()
		if waiting != nil {
			wake(waiting)
		}
	})
}

// Push puts a record into the queue (topic "queue", created with 8 partitions when it is missing), and returns when it is stored
// on every member of its chain. Records of one key are delivered in order. A nil key is none.
//
// Errors are those of Produce and CreateTopic.
func (c *Client) Push(ctx context.Context, key, value []byte) (Delivery, error) {
	if err := c.prepareQueue(ctx); err != nil {
		return Delivery{Offset: -1}, err
	}
	results, err := c.ProduceSync(ctx, &Record{Topic: queueTopic, Key: key, Value: value})
	if err != nil {
		return Delivery{Offset: -1}, err
	}
	return results[0].Delivery, nil
}

// Pull returns the next record of the queue, and acknowledges the one that it returned before; Close acknowledges the last one.
// It waits until the context ends, and returns its error then. Each record is delivered to one consumer of the queue; again if
// that one dies before it has acknowledged it.
//
// Errors besides the context's are those of Poll.
func (c *Client) Pull(ctx context.Context) (key, value []byte, err error) {
	q := &c.queue
	q.mu.Lock()
	before := q.pulled
	q.pulled = nil
	q.mu.Unlock()
	if before != nil {
		before.Ack()
	}
	delivery, err := c.PullDelivery(ctx)
	if err != nil {
		return nil, nil, err
	}
	q.mu.Lock()
	q.pulled = delivery
	q.mu.Unlock()
	return delivery.Key(), delivery.Value(), nil
}

// PullDelivery returns the next record of the queue, to be acknowledged by its Ack, or given out again by its Nack. Otherwise as
// Pull.
func (c *Client) PullDelivery(ctx context.Context) (*QueueDelivery, error) {
	if err := c.prepareQueue(ctx); err != nil {
		return nil, err
	}
	q := &c.queue
	consumer := c.queueConsumer()
	for {
		if delivery := q.takeAgain(consumer); delivery != nil {
			return delivery, nil
		}
		// A Nack interrupts the wait for the next record: its record comes first.
		waiting, cancel := context.WithCancelCause(ctx)
		stop := q.interruptOnNack(cancel)
		record, err := consumer.pollRecord(waiting)
		stop()
		cancel(nil)
		if errors.Is(err, errNack) {
			continue
		}
		if err != nil {
			return nil, err
		}
		return &QueueDelivery{client: c, record: record}, nil
	}
}

// Subscribe calls handler for each record of the queue, one at a time, on a goroutine of its own, until the context or the client
// ends; it returns at once. A handler that returns nil acknowledges the record; an error gives it out again, after a pause of
// 100 ms that doubles to 10 s. done is closed when the handler will not be called any more.
//
// The error is why the queue cannot be read.
func (c *Client) Subscribe(ctx context.Context, handler func(ctx context.Context, key, value []byte) error) (done <-chan struct{}, err error) {
	if err := c.prepareQueue(ctx); err != nil {
		return nil, err
	}
	ended := make(chan struct{})
	c.queue.mu.Lock()
	c.queue.subscribers = append(c.queue.subscribers, ended)
	c.queue.mu.Unlock()
	c.goWithLifetime(func(lifetime context.Context) {
		defer close(ended)
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		stop := context.AfterFunc(lifetime, cancel)
		defer stop()
		go func() {
			select {
			case <-c.closing:
				cancel()
			case <-ctx.Done():
			}
		}()
		for ctx.Err() == nil {
			delivery, err := c.PullDelivery(ctx)
			if err != nil {
				if ctx.Err() == nil && !fault.Retriable(err) {
					c.settings.logger.Error("the queue cannot be read", "error", err)
					return
				}
				continue
			}
			c.handle(ctx, delivery, handler)
		}
	})
	return ended, nil
}

// handle calls the handler until it takes the record.
func (c *Client) handle(ctx context.Context, delivery *QueueDelivery, handler func(ctx context.Context, key, value []byte) error) {
	for pause := handlerPause; ; pause = min(2*pause, handlerPauseMax) {
		err := handler(ctx, delivery.Key(), delivery.Value())
		if err == nil {
			delivery.Ack()
			return
		}
		c.settings.logger.Warn("a record is given to its handler again", "offset", delivery.record.Offset, "after", pause, "error", err)
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			delivery.Nack()
			return
		}
	}
}

// prepareQueue makes the topic if it is missing.
func (c *Client) prepareQueue(ctx context.Context) error {
	if c.isClosing() {
		return ErrClosed
	}
	q := &c.queue
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.isReady {
		return nil
	}
	described, err := c.DescribeTopics(ctx, queueTopic)
	if err != nil {
		return err
	}
	if len(described) == 1 && errors.Is(described[0].Err, UnknownTopic) {
		_, err := c.CreateTopic(ctx, NewTopic{Name: queueTopic, Partitions: queuePartitions})
		if err != nil && !errors.Is(err, TopicExists) {
			return err
		}
	}
	q.isReady = true
	return nil
}

// queueConsumer is the queue's own consumer, made with the first pull.
func (c *Client) queueConsumer() *consumer {
	q := &c.queue
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.consumer == nil {
		settings := defaultConsumerSettings()
		settings.topics = []string{queueTopic}
		group := defaultGroupSettings()
		group.name, group.byAck = queueGroup, true
		group.sessionTimeout, group.commitInterval = c.settings.group.sessionTimeout, c.settings.group.commitInterval
		group.onLost = q.forget
		q.consumer = newConsumer(c, &settings, &group)
		q.wakePull = make(chan struct{}, 1)
	}
	return q.consumer
}

func (q *queue) current() *consumer {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.consumer
}

// takeAgain takes the delivery to be given out again that comes first, of a partition that is still read here.
func (q *queue) takeAgain(c *consumer) *QueueDelivery {
	q.mu.Lock()
	defer q.mu.Unlock()
	first := -1
	kept := q.again[:0]
	for _, delivery := range q.again {
		if _, _, err := c.position(TopicPartition{Topic: delivery.record.Topic, Partition: delivery.record.Partition}); err == nil {
			kept = append(kept, delivery)
		}
	}
	q.again = kept
	for i, delivery := range q.again {
		if first < 0 || delivery.record.Partition == q.again[first].record.Partition && delivery.record.Offset < q.again[first].record.Offset {
			first = i
		}
	}
	if first < 0 {
		return nil
	}
	delivery := q.again[first]
	q.again = append(q.again[:first], q.again[first+1:]...)
	return delivery
}

// errNack interrupts a wait.
var errNack = errors.New("a record is to be given out again")

func (q *queue) interruptOnNack(cancel context.CancelCauseFunc) (stop func()) {
	stopped := make(chan struct{})
	go func() {
		select {
		case <-q.wakePull:
			cancel(errNack)
		case <-stopped:
		}
	}()
	return func() { close(stopped) }
}

// forget drops what was to be given out again of partitions that others read by now.
func (q *queue) forget(_ context.Context, _ *Client, partitions []TopicPartition) {
	q.mu.Lock()
	defer q.mu.Unlock()
	kept := q.again[:0]
	for _, delivery := range q.again {
		lost := false
		for _, partition := range partitions {
			lost = lost || partition.Partition == delivery.record.Partition
		}
		if !lost {
			kept = append(kept, delivery)
		}
	}
	q.again = kept
}

// close acknowledges what Pull returned last, commits and leaves.
func (q *queue) close(ctx context.Context) error {
	q.mu.Lock()
	pulled, consumer, subscribers := q.pulled, q.consumer, q.subscribers
	q.pulled = nil
	q.mu.Unlock()
	// A handler that is at work may still take its record.
	for _, ended := range subscribers {
		select {
		case <-ended:
		case <-ctx.Done():
		}
	}
	if pulled != nil {
		pulled.Ack()
	}
	if consumer == nil {
		return nil
	}
	return consumer.close(ctx)
}
