package minikafka

import (
	"errors"
	"sync"
	"sync/atomic"
)

// counters are what a client has done so far.
type counters struct {
	recordsProduced, bytesProduced, batchesProduced, recordsFailed atomic.Int64
	produceRequests, produceRetries, produceInFlight               atomic.Int64
	recordsConsumed, bytesConsumed, batchesConsumed, fetches       atomic.Int64
	mu                                                             sync.Mutex
	errors                                                         map[string]int64
}

// Counters are what a client has done since New. Each only grows, but for those in flight.
type Counters struct {
	// RecordsProduced counts records that are stored, BytesProduced the bytes of their bodies as sent, BatchesProduced batches.
	RecordsProduced, BytesProduced, BatchesProduced int64
	// RecordsFailed counts records that were taken, and are not stored or in doubt.
	RecordsFailed int64
	// ProduceRequests counts attempts, ProduceRetries those that were not the first of their batch.
	ProduceRequests, ProduceRetries int64
	// ProduceInFlight is how many attempts are unanswered now.
	ProduceInFlight int64
	// RecordsConsumed counts records given to the application, BytesConsumed the bytes of their entries, BatchesConsumed batches.
	RecordsConsumed, BytesConsumed, BatchesConsumed int64
	// Fetches counts answered fetch requests.
	Fetches int64
	// Errors counts failed requests by their code's name ("not_owner"), or "connection", "deadline", "malformed", "other".
	Errors map[string]int64
}

// Counters reads the counters; at any time, also after Close.
func (c *Client) Counters() Counters {
	from := &c.counters
	read := Counters{
		RecordsProduced: from.recordsProduced.Load(), BytesProduced: from.bytesProduced.Load(),
		BatchesProduced: from.batchesProduced.Load(), RecordsFailed: from.recordsFailed.Load(),
		ProduceRequests: from.produceRequests.Load(), ProduceRetries: from.produceRetries.Load(),
		ProduceInFlight: from.produceInFlight.Load(), RecordsConsumed: from.recordsConsumed.Load(),
		BytesConsumed: from.bytesConsumed.Load(), BatchesConsumed: from.batchesConsumed.Load(), Fetches: from.fetches.Load(),
		Errors: map[string]int64{},
	}
	from.mu.Lock()
	defer from.mu.Unlock()
	for name, count := range from.errors {
		read.Errors[name] = count
	}
	return read
}

func (c *counters) sent(attempt int) {
	c.produceRequests.Add(1)
	c.produceInFlight.Add(1)
	if attempt > 1 {
		c.produceRetries.Add(1)
	}
}

func (c *counters) answered(err error) {
	c.produceInFlight.Add(-1)
	c.failed(err)
}

func (c *counters) resolved(b *sentBatch, err error) {
	if err != nil {
		c.recordsFailed.Add(int64(b.recordCount))
		return
	}
	c.recordsProduced.Add(int64(b.recordCount))
	c.bytesProduced.Add(int64(len(b.body)))
	c.batchesProduced.Add(1)
}

func (c *counters) consumed(b *Batch) {
	c.recordsConsumed.Add(int64(b.Len()))
	c.bytesConsumed.Add(int64(b.taken.Entry.Header.EntryBytes()))
	c.batchesConsumed.Add(1)
}

func (c *counters) fetched(err error) {
	if err == nil {
		c.fetches.Add(1)
	}
	c.failed(err)
}

func (c *counters) failed(err error) {
	if err == nil {
		return
	}
	name := "other"
	var broker *BrokerError
	var lost *ConnectionError
	var late *DeadlineError
	var malformed *MalformedError
	switch {
	case errors.As(err, &broker):
		name = broker.Code.Name()
	case errors.As(err, &lost):
		name = "connection"
	case errors.As(err, &late):
		name = "deadline"
	case errors.As(err, &malformed):
		name = "malformed"
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.errors == nil {
		c.errors = map[string]int64{}
	}
	c.errors[name]++
}
