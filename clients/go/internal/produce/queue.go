// Package produce decides for one partition what is sent when, under which sequence, and what an answer means.
//
// Pure and synchronous: time, answers and the end of a map refresh come in; attempts to make and resolved batches come out.
// The promise: records are stored in the order of Push, each at most once; a batch resolved as stored is stored exactly once;
// one that failed is not stored, unless its error says that the outcome is unknown. (Without idempotence, order holds, but a
// batch whose answer was lost may be stored again.)
//
//	                a retriable failure              nothing in flight any more
//	    ┌─────────┐                    ┌──────────┐                             ┌─────────┐
//	──▶ │ flowing │ ─────────────────▶ │ draining │ ──────────────────────────▶ │ waiting │
//	    └─────────┘                    └──────────┘                             └─────────┘
//	         ▲                               back-off over and map refreshed         │
//	         └───────────────────────────────────────────────────────────────────────┘
//
// Only flowing sends. Batches in flight are always the front of the queue, so after a failure everything unanswered goes
// again, in order and under the same sequences, one batch at a time until the first success.
//
// Lines. A line is a producer id with its sequences. The broker stores a sequence of a line only directly behind its
// predecessor; so when one batch of a line is certainly not stored, none behind it is. A line breaks when a batch leaves the
// queue without being stored (a failure that no retry mends, or its deadline), or when the broker has forgotten the producer.
// What comes behind the break then waits until everything before it is resolved, and goes on a new line, under a new producer
// id, from sequence 0. It is never renumbered under the old id: a copy of an old attempt may still sit in a network buffer,
// and its old sequence must not come true there. Batches behind the break that may be stored themselves fail with an
// OutcomeUnknownError: under a new line they could be stored twice.
package produce

import (
	"fmt"
	"sort"
	"time"

	"github.com/minikafka/minikafka/clients/go/internal/backoff"
	"github.com/minikafka/minikafka/clients/go/internal/errorcode"
	"github.com/minikafka/minikafka/clients/go/internal/explain"
	"github.com/minikafka/minikafka/clients/go/internal/fault"
)

const (
	// mapWaitMax bounds the wait for a newer map: the data path goes on without gateways.
	mapWaitMax = time.Second
	// frontOutOfOrderMax is how often the oldest batch is answered out_of_order before its line counts as broken: its
	// predecessors are acknowledged, so the broker has lost what it should remember.
	frontOutOfOrderMax = 3
)

// Key names a batch within its queue; it grows with every push.
type Key uint64

// Attempt is one sending of one batch.
type Attempt struct {
	Key Key
	// Number counts the attempts of this batch, from 1.
	Number     int
	ProducerID int64
	Sequence   int32
	// Deadline is when the batch fails whatever happens.
	Deadline time.Time
}

// Stored is where a batch is stored. Offset is -1 when the broker no longer remembers.
type Stored struct {
	BaseOffset      int64
	AppendTimestamp int64
	// Explain says where its time went, if that was asked for.
	Explain *explain.Explain
}

// Forgotten is the place of a batch that is stored where nobody remembers.
var Forgotten = Stored{BaseOffset: -1, AppendTimestamp: -1}

// Resolved is a batch that left the queue: stored, or failed.
type Resolved[P any] struct {
	Payload P
	Stored  Stored
	Err     error
}

// Settings are what a queue is told once.
type Settings struct {
	Topic           string
	Partition       int32
	Idempotent      bool
	InFlightMax     int
	DeliveryTimeout time.Duration
	// Seed is what producer ids and jitter follow from.
	Seed uint64
}

type phase int

const (
	flowing phase = iota
	draining
	waiting
)

// Queue has the unanswered batches of one partition. P is the batch itself, which the queue never looks at.
type Queue[P any] struct {
	settings   Settings
	randomness randomness
	line       line
	batches    []*queued[P]
	nextKey    Key
	inFlight   int
	phase      phase
	// serverAsks and needsMap belong to draining; until and mapUntil to waiting.
	serverAsks time.Duration
	needsMap   bool
	until      time.Time
	mapUntil   time.Time
	// failures counts the retriable ones since the last success.
	failures int
	broken   *lineBreak
	wantsMap bool
}

type queued[P any] struct {
	key         Key
	payload     P
	recordCount int
	deadline    time.Time
	// sequence is assigned when it is first sent on the current line; negative before.
	sequence int32
	attempts int
	inFlight bool
	// maybeStored: an attempt on the current line ended without telling whether it was stored.
	maybeStored bool
	outOfOrder  int
	lastError   error
}

// lineBreak is where the current line ends.
type lineBreak struct {
	// from: batches from here on need a new line.
	from Key
	// certain: the batch that broke it is certainly not stored; then nothing behind it is.
	certain bool
}

// NewQueue makes an empty queue.
func NewQueue[P any](settings Settings) *Queue[P] {
	q := &Queue[P]{settings: settings, randomness: randomness(settings.Seed)}
	q.line = newLine(&q.randomness, settings.Idempotent)
	return q
}

// Push puts a batch at the end. Deadlines must not decrease from push to push.
func (q *Queue[P]) Push(payload P, recordCount int, deadline time.Time) Key {
	key := q.nextKey
	q.nextKey++
	q.batches = append(q.batches, &queued[P]{key: key, payload: payload, recordCount: recordCount, deadline: deadline, sequence: -1})
	return key
}

// NextToSend is the batch to be sent now, if one is: the caller sends it and says so with Sent, or leaves it.
func (q *Queue[P]) NextToSend() (Attempt, P, bool) {
	var none P
	if q.inFlight >= len(q.batches) || q.phase != flowing {
		return Attempt{}, none, false
	}
	batch := q.batches[q.inFlight]
	if batch.inFlight {
		panic("minikafka: what is in flight must be the front of the queue")
	}
	if !q.isInWindow(batch.key) || q.broken != nil && batch.key >= q.broken.from {
		return Attempt{}, none, false
	}
	sequence := batch.sequence
	if sequence < 0 {
		sequence = q.line.next
	}
	attempt := Attempt{batch.key, batch.attempts + 1, q.line.producerID, sequence, batch.deadline}
	return attempt, batch.payload, true
}

// Sent says that the attempt that NextToSend just gave is on its way.
func (q *Queue[P]) Sent(attempt Attempt) {
	batch := q.batches[q.inFlight]
	if batch.key != attempt.Key {
		panic("minikafka: batches must be sent in order")
	}
	if batch.sequence < 0 {
		batch.sequence = q.line.next
		if q.settings.Idempotent {
			q.line.next = advance(q.line.next, batch.recordCount)
		}
	}
	batch.attempts = attempt.Number
	batch.inFlight = true
	q.inFlight++
}

// CouldNotSend says that the next batch could not even be sent: everything waits as after a failure, and nothing was written.
func (q *Queue[P]) CouldNotSend(now time.Time, err error, out []Resolved[P]) []Resolved[P] {
	q.retryLater(err)
	if q.inFlight < len(q.batches) {
		q.batches[q.inFlight].lastError = err
	}
	return q.settle(now, out)
}

// Answered says that an attempt was answered, or failed without an answer (err). Answers to batches that are resolved already
// are ignored.
func (q *Queue[P]) Answered(now time.Time, attempt Attempt, stored Stored, err error, out []Resolved[P]) []Resolved[P] {
	index, ok := q.find(attempt.Key)
	if !ok {
		return out
	}
	batch := q.batches[index]
	if !batch.inFlight || batch.attempts != attempt.Number {
		return out
	}
	batch.inFlight = false
	q.inFlight--
	if err == nil {
		out = q.stored(index, stored, out)
	} else {
		out = q.failed(index, err, out)
	}
	return q.settle(now, out)
}

// Tick says that time has passed.
func (q *Queue[P]) Tick(now time.Time, out []Resolved[P]) []Resolved[P] {
	for len(q.batches) > 0 && !q.batches[0].deadline.After(now) {
		out = q.expireFront(out)
	}
	return q.settle(now, out)
}

// MapRefreshed says that the refresh that TakeMapWish asked for has ended, well or not.
func (q *Queue[P]) MapRefreshed(now time.Time, out []Resolved[P]) []Resolved[P] {
	q.mapUntil = time.Time{}
	return q.settle(now, out)
}

// TakeMapWish tells whether the map should be refreshed; once per failure.
func (q *Queue[P]) TakeMapWish() bool {
	wish := q.wantsMap
	q.wantsMap = false
	return wish
}

// WakeAt is when Tick has something to do, if nothing else happens before; zero: never.
func (q *Queue[P]) WakeAt() time.Time {
	var at time.Time
	if len(q.batches) > 0 {
		at = q.batches[0].deadline
	}
	if q.phase == waiting {
		waited := q.until
		if q.mapUntil.After(waited) {
			waited = q.mapUntil
		}
		if at.IsZero() || waited.Before(at) {
			at = waited
		}
	}
	return at
}

// WouldSend tells whether a batch pushed now would be sent at once.
func (q *Queue[P]) WouldSend() bool {
	return q.phase == flowing && len(q.batches) == q.inFlight && q.isInWindow(q.nextKey) && q.broken == nil
}

// IsEmpty tells whether every batch is resolved.
func (q *Queue[P]) IsEmpty() bool { return len(q.batches) == 0 }

// Drain takes every batch out, resolved or not; for a producer that ends.
func (q *Queue[P]) Drain() []P {
	payloads := make([]P, len(q.batches))
	for i, batch := range q.batches {
		payloads[i] = batch.payload
	}
	q.batches, q.inFlight = nil, 0
	return payloads
}

// isInWindow tells whether a batch may be sent before the oldest one is resolved. The window counts batches from that one on,
// answered or not, because the broker remembers the places of so many. While it is unclear whether the broker takes anything,
// one batch is enough to find out.
func (q *Queue[P]) isInWindow(key Key) bool {
	window := q.settings.InFlightMax
	if q.failures > 0 {
		window = 1
	}
	return len(q.batches) == 0 || key-q.batches[0].key < Key(window)
}

func (q *Queue[P]) find(key Key) (int, bool) {
	index := sort.Search(len(q.batches), func(i int) bool { return q.batches[i].key >= key })
	return index, index < len(q.batches) && q.batches[index].key == key
}

func (q *Queue[P]) stored(index int, stored Stored, out []Resolved[P]) []Resolved[P] {
	q.failures = 0
	return q.resolve(index, stored, nil, out)
}

func (q *Queue[P]) failed(index int, err error, out []Resolved[P]) []Resolved[P] {
	batch := q.batches[index]
	code := fault.Code(err)
	switch {
	case code == errorcode.DuplicateSequence:
		return q.stored(index, Forgotten, out)
	case code == errorcode.UnknownProducer && index > 0:
		// As long as a predecessor is not stored, a broker may not know this producer yet.
		q.retryLater(err)
	case code == errorcode.UnknownProducer:
		q.breakFrom(batch.key, !batch.maybeStored)
		q.retryLater(err)
	case code != errorcode.None && !code.Retriable():
		return q.giveUp(index, err, out)
	default:
		batch.maybeStored = batch.maybeStored || fault.OutcomeUnknown(err)
		if index == 0 && code == errorcode.OutOfOrder {
			batch.outOfOrder++
		}
		if batch.outOfOrder >= frontOutOfOrderMax {
			batch.outOfOrder = 0
			q.breakFrom(batch.key, !batch.maybeStored)
		}
		q.retryLater(err)
		batch.lastError = err
	}
	return out
}

// giveUp takes a failure that no retry mends.
func (q *Queue[P]) giveUp(index int, err error, out []Resolved[P]) []Resolved[P] {
	batch := q.batches[index]
	certain := !batch.maybeStored && !fault.OutcomeUnknown(err)
	if batch.maybeStored {
		err = q.outcomeUnknown(err)
	}
	q.mendLineBehind(index, certain)
	return q.resolve(index, Stored{}, err, out)
}

func (q *Queue[P]) expireFront(out []Resolved[P]) []Resolved[P] {
	batch := q.batches[0]
	unknown := batch.inFlight || batch.maybeStored
	err := &fault.DeadlineError{
		What:   fmt.Sprintf("delivery to topic %s partition %d", q.settings.Topic, q.settings.Partition),
		Within: q.settings.DeliveryTimeout, Unknown: unknown, Last: batch.lastError,
	}
	if batch.inFlight {
		q.inFlight--
	}
	q.mendLineBehind(0, !unknown)
	return q.resolve(0, Stored{}, err, out)
}

// mendLineBehind: the batch at index is about to leave without being stored.
func (q *Queue[P]) mendLineBehind(index int, certain bool) {
	batch := q.batches[index]
	if batch.sequence < 0 || !q.settings.Idempotent {
		return
	}
	isLastSent := index+1 == len(q.batches) || q.batches[index+1].sequence < 0
	if certain && isLastSent && q.broken == nil {
		// Every attempt was answered, so no copy of it is on its way: its sequence is free again.
		q.line.next = batch.sequence
	} else {
		q.breakFrom(batch.key, certain)
	}
}

func (q *Queue[P]) breakFrom(from Key, certain bool) {
	if q.broken == nil || q.broken.from > from {
		q.broken = &lineBreak{from, certain}
	}
}

func (q *Queue[P]) retryLater(err error) {
	if q.phase != draining {
		q.phase, q.serverAsks, q.needsMap = draining, 0, false
	}
	q.serverAsks = max(q.serverAsks, fault.RetryAfter(err))
	q.needsMap = q.needsMap || fault.WantsRefresh(err)
}

func (q *Queue[P]) resolve(index int, stored Stored, err error, out []Resolved[P]) []Resolved[P] {
	out = append(out, Resolved[P]{q.batches[index].payload, stored, err})
	copy(q.batches[index:], q.batches[index+1:])
	q.batches[len(q.batches)-1] = nil
	q.batches = q.batches[:len(q.batches)-1]
	return out
}

// settle takes every step that needs nothing but time.
func (q *Queue[P]) settle(now time.Time, out []Resolved[P]) []Resolved[P] {
	if q.phase == draining && q.inFlight == 0 {
		q.startWaiting(now)
	}
	if q.broken != nil && q.inFlight == 0 && (len(q.batches) == 0 || q.batches[0].key >= q.broken.from) {
		out = q.startNewLine(out)
	}
	if q.phase == waiting && !q.until.After(now) && !q.mapUntil.After(now) {
		q.phase = flowing
	}
	return out
}

func (q *Queue[P]) startWaiting(now time.Time) {
	q.failures++
	jitter := q.randomness.fraction()
	wait := backoff.After(q.failures, jitter, q.serverAsks)
	if q.needsMap {
		wait = backoff.ForMap(q.failures, jitter, q.serverAsks)
	}
	if q.failures == 1 && q.needsMap && q.serverAsks == 0 {
		// A new map is all that is missing.
		wait = 0
	}
	q.wantsMap = q.wantsMap || q.needsMap
	q.phase, q.until, q.mapUntil = waiting, now.Add(wait), time.Time{}
	if q.needsMap {
		q.mapUntil = now.Add(mapWaitMax)
	}
}

func (q *Queue[P]) startNewLine(out []Resolved[P]) []Resolved[P] {
	// Behind a batch that is certainly not stored, nothing is: the run of doubtful ones ends there.
	for !q.broken.certain && len(q.batches) > 0 && q.batches[0].maybeStored {
		reason := q.batches[0].lastError
		if reason == nil {
			reason = fault.Broker(errorcode.UnknownProducer, "topic %s", q.settings.Topic)
		}
		out = q.resolve(0, Stored{}, q.outcomeUnknown(reason), out)
	}
	for _, batch := range q.batches {
		batch.sequence, batch.maybeStored = -1, false
	}
	q.line = newLine(&q.randomness, q.settings.Idempotent)
	q.broken = nil
	return out
}

func (q *Queue[P]) outcomeUnknown(reason error) error {
	return &fault.OutcomeUnknownError{Topic: q.settings.Topic, Partition: q.settings.Partition, Reason: reason}
}
