package minikafka

import (
	"context"
	"sync"
)

// Produce takes a record into the batch of its partition, and returns. The record and what it points to are copied; the
// application can use them again at once. It waits only for memory (BufferBytes), in order with others who wait, and for the
// description of a topic that this client meets for the first time.
//
// promise, which may be nil, is called once: with the place where the record is stored on every member of its chain, or with
// the error that kept it from being stored. When the record is not even taken, it is called before Produce returns; the error
// is then a *RecordError, a *PartitionError, ErrClosed, the context's, or why the topic is not known. After that, an error is
// what was not retriable, a *DeadlineError after the DeliveryTimeout, or an *OutcomeUnknownError: IsOutcomeUnknown tells
// whether the record may be stored all the same.
//
// Records of one partition are stored in the order in which Produce took them, each once.
func (c *Client) Produce(ctx context.Context, record *Record, promise Promise) {
	if err := c.producer.produce(ctx, record, promise, true); err != nil && promise != nil {
		promise(Delivery{Topic: record.Topic, Partition: record.Partition, Offset: -1}, err)
	}
}

// TryProduce is Produce for records that must not wait for memory: then it returns ErrBufferFull. When it returns an error,
// the record was not taken, and the promise is not called.
func (c *Client) TryProduce(ctx context.Context, record *Record, promise Promise) error {
	return c.producer.produce(ctx, record, promise, false)
}

// Result is how one record of ProduceSync went.
type Result struct {
	// Delivery is where it is stored, when Err is nil.
	Delivery Delivery
	// Err is why it failed.
	Err error
}

// ProduceSync produces records and waits until each is stored or has failed; results are in the order of the records. The
// error is that of the first record that failed. When the context ends while it waits, the records go on to be stored, and
// their errors are the context's.
func (c *Client) ProduceSync(ctx context.Context, records ...*Record) ([]Result, error) {
	waiting := &syncResults{results: make([]Result, len(records)), left: len(records), done: make(chan struct{})}
	for i, record := range records {
		c.Produce(ctx, record, func(delivery Delivery, err error) { waiting.set(i, Result{delivery, err}) })
	}
	if len(records) == 0 {
		return nil, nil
	}
	// Nobody else may be about to fill these batches: they need not linger.
	c.producer.expedite()
	select {
	case <-waiting.done:
	case <-ctx.Done():
		waiting.giveUp(context.Cause(ctx))
	}
	for _, result := range waiting.results {
		if result.Err != nil {
			return waiting.results, result.Err
		}
	}
	return waiting.results, nil
}

// syncResults gathers the results of a ProduceSync, until it is given up.
type syncResults struct {
	mu      sync.Mutex
	results []Result
	isSet   []bool
	left    int
	isOver  bool
	done    chan struct{}
}

func (s *syncResults) set(i int, result Result) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.isOver {
		return
	}
	if s.isSet == nil {
		s.isSet = make([]bool, len(s.results))
	}
	s.results[i], s.isSet[i] = result, true
	s.left--
	if s.left == 0 {
		close(s.done)
	}
}

func (s *syncResults) giveUp(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.isOver = true
	for i := range s.results {
		if s.isSet == nil || !s.isSet[i] {
			s.results[i] = Result{Delivery{Offset: -1}, err}
		}
	}
}

// Flush sends what is gathered without lingering, and waits until everything that was accepted before is stored or has failed,
// and its promises have been called: at most for the DeliveryTimeout. It returns the first failure of any record since the last
// Flush, whether or not it had a promise, or the context's error.
func (c *Client) Flush(ctx context.Context) error {
	return c.producer.flush(ctx)
}
