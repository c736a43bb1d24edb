package produce

import (
	"errors"
	"math"
	"math/rand"
	"testing"
	"time"

	"github.com/minikafka/minikafka/clients/go/internal/errorcode"
	"github.com/minikafka/minikafka/clients/go/internal/fault"
)

// The queue against a model of a broker and of the worst network: whatever happens, records are stored in order, once. The
// broker deduplicates as docs/PROTOCOL.md says. Requests of one connection arrive in order, replies come in any order,
// connections break with requests in their buffers that may still arrive much later.

type request struct {
	attempt Attempt
	records []int
}

type answer struct {
	request request
	stored  Stored
	err     error
}

type remembered struct {
	next   int32
	stored map[int32]int64
	order  []int32
}

type broker struct {
	log       []int
	producers map[int64]*remembered
}

func refusal(code errorcode.Code) error { return fault.Broker(code, "model") }

func (b *broker) produce(r request) (Stored, error) {
	if r.attempt.ProducerID < 0 {
		return b.append(r.records), nil
	}
	known := b.producers[r.attempt.ProducerID]
	if known == nil {
		if r.attempt.Sequence != 0 {
			return Stored{}, refusal(errorcode.UnknownProducer)
		}
		known = &remembered{stored: map[int32]int64{}}
		b.producers[r.attempt.ProducerID] = known
	}
	if offset, ok := known.stored[r.attempt.Sequence]; ok {
		return Stored{BaseOffset: offset}, nil
	}
	if r.attempt.Sequence < known.next {
		return Stored{}, refusal(errorcode.DuplicateSequence)
	}
	if r.attempt.Sequence > known.next {
		return Stored{}, refusal(errorcode.OutOfOrder)
	}
	known.next = advance(r.attempt.Sequence, len(r.records))
	known.stored[r.attempt.Sequence] = int64(len(b.log))
	known.order = append(known.order, r.attempt.Sequence)
	if len(known.order) > 8 {
		delete(known.stored, known.order[0])
		known.order = known.order[1:]
	}
	return b.append(r.records), nil
}

func (b *broker) append(records []int) Stored {
	offset := int64(len(b.log))
	b.log = append(b.log, records...)
	return Stored{BaseOffset: offset}
}

type world struct {
	queue      *Queue[[]int]
	broker     broker
	underWay   []request
	answered   []answer
	late       []request
	now        time.Time
	nextRecord int
	pushed     [][]int
	resolved   []Resolved[[]int]
	mayForget  []int64
}

func newWorld(idempotent bool, seed uint64) *world {
	inFlight := 1
	if idempotent {
		inFlight = 8
	}
	settings := Settings{Topic: "model", Idempotent: idempotent, InFlightMax: inFlight, DeliveryTimeout: 10 * time.Second, Seed: seed}
	return &world{
		queue: NewQueue[[]int](settings), broker: broker{producers: map[int64]*remembered{}}, now: time.Unix(1000, 0),
	}
}

func (w *world) push(count int) {
	records := make([]int, count)
	for i := range records {
		records[i] = w.nextRecord
		w.nextRecord++
	}
	w.pushed = append(w.pushed, records)
	w.queue.Push(records, count, w.now.Add(10*time.Second))
}

func (w *world) send() {
	if attempt, records, ok := w.queue.NextToSend(); ok {
		w.queue.Sent(attempt)
		w.underWay = append(w.underWay, request{attempt, records})
	}
}

// arrive lets the broker take the oldest request; with a denial it answers that instead, having stored the batch or not.
func (w *world) arrive(denial errorcode.Code, reachesLog bool) {
	if len(w.underWay) == 0 {
		return
	}
	taken := w.underWay[0]
	w.underWay = w.underWay[1:]
	stored, err := Stored{}, refusal(errorcode.Internal)
	if reachesLog {
		stored, err = w.broker.produce(taken)
	}
	// Only what was stored, or could be, is denied with an open outcome.
	if denial != errorcode.None && (!reachesLog || err == nil) {
		err = refusal(denial)
	}
	w.answered = append(w.answered, answer{taken, stored, err})
}

func (w *world) reply(which int) {
	if len(w.answered) == 0 {
		return
	}
	which %= len(w.answered)
	answer := w.answered[which]
	w.answered = append(w.answered[:which:which], w.answered[which+1:]...)
	if answer.err == nil && answer.request.attempt.Sequence == 0 {
		w.mayForget = append(w.mayForget, answer.request.attempt.ProducerID)
	}
	w.resolved = w.queue.Answered(w.now, answer.request.attempt, answer.stored, answer.err, w.resolved)
}

func (w *world) loseConnection(dropped int) {
	underWay, answered := w.underWay, w.answered
	w.underWay, w.answered = nil, nil
	lost := &fault.ConnectionError{Address: "model", Reason: "reset", Lost: true}
	for _, answer := range answered {
		w.resolved = w.queue.Answered(w.now, answer.request.attempt, Stored{}, lost, w.resolved)
	}
	for _, request := range underWay {
		w.resolved = w.queue.Answered(w.now, request.attempt, Stored{}, lost, w.resolved)
	}
	w.late = append(w.late, underWay[:max(len(underWay)-dropped, 0)]...)
}

func (w *world) arriveLate(which int) {
	if len(w.late) == 0 {
		return
	}
	which %= len(w.late)
	late := w.late[which]
	w.late = append(w.late[:which:which], w.late[which+1:]...)
	_, _ = w.broker.produce(late)
}

// forget makes the broker forget producers, but none whose very first batch is in doubt: that no client can survive.
func (w *world) forget() {
	for _, id := range w.mayForget {
		inDoubt := false
		for _, request := range append(append([]request(nil), w.underWay...), w.late...) {
			inDoubt = inDoubt || request.attempt.ProducerID == id && request.attempt.Sequence == 0
		}
		if !inDoubt {
			delete(w.broker.producers, id)
		}
	}
}

func (w *world) pass(duration time.Duration) {
	w.now = w.now.Add(duration)
	w.resolved = w.queue.Tick(w.now, w.resolved)
}

func (w *world) mapRefreshed() {
	w.queue.TakeMapWish()
	w.resolved = w.queue.MapRefreshed(w.now, w.resolved)
}

var (
	refusals = []errorcode.Code{
		errorcode.Overloaded, errorcode.NotOwner, errorcode.DiskFull, errorcode.InvalidBatch, errorcode.BatchTooLarge,
	}
	denials = []errorcode.Code{errorcode.TimedOut, errorcode.Stale, errorcode.RangeFailed, errorcode.Internal}
)

// step does something at random, the common things more often.
func (w *world) step(random *rand.Rand, withLate bool) {
	switch choice := random.Intn(54); {
	case choice < 6:
		w.push(1 + random.Intn(3))
	case choice < 18:
		w.send()
	case choice < 30:
		w.arrive(errorcode.None, true)
	case choice < 32:
		w.arrive(refusals[random.Intn(len(refusals))], false)
	case choice < 33:
		w.arrive(denials[random.Intn(len(denials))], true)
	case choice < 45:
		w.reply(random.Intn(8))
	case choice < 46:
		w.loseConnection(random.Intn(8))
	case choice < 47:
		if withLate {
			w.arriveLate(random.Intn(8))
		}
	case choice < 48:
		w.forget()
	case choice < 50:
		w.pass(time.Duration(1+random.Intn(40)) * time.Millisecond)
	case choice < 51:
		w.pass(time.Duration(500+random.Intn(5500)) * time.Millisecond)
	case choice < 53:
		w.mapRefreshed()
	default:
		if _, _, ok := w.queue.NextToSend(); ok {
			err := &fault.ConnectionError{Address: "model", Reason: "refused"}
			w.resolved = w.queue.CouldNotSend(w.now, err, w.resolved)
		}
	}
}

// finish lets everything arrive and time pass until nothing is open.
func (w *world) finish() {
	for i := 0; i < 10_000 && !w.queue.IsEmpty(); i++ {
		w.send()
		w.arrive(errorcode.None, true)
		w.reply(0)
		w.mapRefreshed()
		w.pass(3 * time.Millisecond)
	}
	for len(w.late) > 0 {
		w.arriveLate(0)
	}
	for len(w.underWay) > 0 {
		w.arrive(errorcode.None, true)
	}
}

func (w *world) check(t *testing.T, idempotent bool) {
	t.Helper()
	if !w.queue.IsEmpty() || len(w.resolved) != len(w.pushed) {
		t.Fatalf("%d of %d batches are resolved", len(w.resolved), len(w.pushed))
	}
	places := map[int][]int{}
	for at, id := range w.broker.log {
		places[id] = append(places[id], at)
	}
	results := map[int]Resolved[[]int]{}
	for _, resolved := range w.resolved {
		results[resolved.Payload[0]] = resolved
	}
	last := -1
	for _, pushed := range w.pushed {
		result, stored := results[pushed[0]], places[pushed[0]]
		switch {
		case result.Err == nil:
			if len(stored) == 0 || idempotent && len(stored) != 1 {
				t.Fatalf("%v is acknowledged, and at %v", pushed, stored)
			}
			place := stored[len(stored)-1]
			if place <= last {
				t.Fatalf("%v overtook its predecessor", pushed)
			}
			last = place
			if idempotent && result.Stored.BaseOffset != int64(place) {
				t.Fatalf("%v is at %d, told was %d", pushed, place, result.Stored.BaseOffset)
			}
		case fault.OutcomeUnknown(result.Err):
			if idempotent && len(stored) > 1 {
				t.Fatalf("%v is stored at %v", pushed, stored)
			}
		default:
			if idempotent && len(stored) > 0 {
				t.Fatalf("%v failed (%v), but is stored", pushed, result.Err)
			}
		}
	}
}

func TestStoredOnceAndInOrderWhateverHappens(t *testing.T) {
	for seed := range uint64(3000) {
		random := rand.New(rand.NewSource(int64(seed)))
		w := newWorld(true, seed)
		for range 1 + random.Intn(200) {
			w.step(random, true)
		}
		w.finish()
		if t.Run("", func(t *testing.T) { w.check(t, true) }); t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}

// A late arrival would overtake: nothing but numbers can prevent that.
func TestWithoutNumbersOrderStillHolds(t *testing.T) {
	for seed := range uint64(1000) {
		random := rand.New(rand.NewSource(int64(seed)))
		w := newWorld(false, seed)
		for range 1 + random.Intn(100) {
			w.step(random, false)
		}
		w.late = nil
		w.finish()
		if t.Run("", func(t *testing.T) { w.check(t, false) }); t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}

func (w *world) pushAndSend(batches int) {
	for range batches {
		w.push(2)
		w.send()
	}
}

func TestInFlightIsBoundedAndThenFlowsAgain(t *testing.T) {
	w := newWorld(true, 1)
	w.pushAndSend(12)
	if len(w.underWay) != 8 || w.queue.WouldSend() {
		t.Fatalf("%d are under way", len(w.underWay))
	}
	w.arrive(errorcode.None, true)
	w.reply(0)
	w.send()
	if len(w.underWay) != 8 {
		t.Fatalf("%d are under way", len(w.underWay))
	}
}

// While it is unclear whether the broker takes anything, one batch is enough to find out.
func TestAfterAFailureOneBatchIsSentUntilTheFirstSuccess(t *testing.T) {
	w := newWorld(true, 9)
	w.pushAndSend(8)
	w.loseConnection(8)
	w.mapRefreshed()
	w.pass(50 * time.Millisecond)
	for range 3 {
		w.send()
	}
	if len(w.underWay) != 1 {
		t.Fatalf("%d are under way", len(w.underWay))
	}
	w.arrive(errorcode.None, true)
	w.reply(0)
	for range 8 {
		w.send()
	}
	if len(w.underWay) != 7 {
		t.Fatalf("after the success %d are under way", len(w.underWay))
	}
}

func TestARefusedBatchThatWasTheLastGivesItsSequenceBack(t *testing.T) {
	w := newWorld(true, 2)
	w.pushAndSend(2)
	w.arrive(errorcode.None, true)
	w.arrive(errorcode.InvalidBatch, false)
	w.reply(1)
	id := w.queue.line.producerID
	w.pushAndSend(1)
	if attempt := w.underWay[0].attempt; attempt.Sequence != 2 || attempt.ProducerID != id {
		t.Fatalf("%+v", attempt)
	}
}

func TestSequencesWrapFromTheLargestToZero(t *testing.T) {
	w := newWorld(true, 3)
	w.queue.line.next = math.MaxInt32
	w.pushAndSend(2)
	if first, second := w.underWay[0].attempt.Sequence, w.underWay[1].attempt.Sequence; first != math.MaxInt32 || second != 1 {
		t.Fatal(first, second)
	}
}

func TestAForgottenProducerGoesOnUnderANewID(t *testing.T) {
	w := newWorld(true, 4)
	w.pushAndSend(1)
	w.arrive(errorcode.None, true)
	w.reply(0)
	w.forget()
	w.pushAndSend(3)
	forgotten := w.underWay[0].attempt.ProducerID
	w.finish()
	w.check(t, true)
	for _, resolved := range w.resolved {
		if resolved.Err != nil {
			t.Error(resolved.Err)
		}
	}
	if w.queue.line.producerID == forgotten {
		t.Error("it goes on under the forgotten id")
	}
}

func TestABatchInDoubtOfAForgottenProducerIsNotSentAgain(t *testing.T) {
	w := newWorld(true, 5)
	w.pushAndSend(1)
	w.arrive(errorcode.None, true)
	w.reply(0)
	w.pushAndSend(2)
	w.arrive(errorcode.None, true)
	w.loseConnection(8)
	w.forget()
	w.finish()
	w.check(t, true)
	unknown := 0
	for _, resolved := range w.resolved {
		var doubt *fault.OutcomeUnknownError
		if errors.As(resolved.Err, &doubt) {
			unknown++
		}
	}
	if unknown != 2 {
		t.Errorf("%d are in doubt", unknown)
	}
}

func TestABrokerThatDoesNotKnowTheProducerYetHasNotForgottenIt(t *testing.T) {
	w := newWorld(true, 6)
	w.pushAndSend(2)
	id := w.queue.line.producerID
	w.arrive(errorcode.Overloaded, false)
	w.arrive(errorcode.None, true)
	if !errors.Is(w.answered[1].err, errorcode.UnknownProducer) {
		t.Fatal(w.answered[1].err)
	}
	w.finish()
	w.check(t, true)
	if w.queue.line.producerID != id {
		t.Error("it goes on under another id")
	}
}

// With a window that counted only what is in flight, batches answered out of order would let it run ahead of the oldest one,
// until the broker no longer remembered where that was.
func TestAnAnswerThatIsLateHoldsTheWindow(t *testing.T) {
	w := newWorld(true, 7)
	w.pushAndSend(8)
	for range 8 {
		w.arrive(errorcode.None, true)
	}
	for range 7 {
		w.reply(1)
	}
	w.pushAndSend(1)
	if len(w.underWay) != 0 {
		t.Fatal("the window ran ahead of the oldest batch")
	}
	w.reply(0)
	w.send()
	if len(w.underWay) != 1 {
		t.Fatal("it does not flow again")
	}
}

func TestADeadlineSaysWhetherTheBatchMayBeStored(t *testing.T) {
	for _, sent := range []bool{false, true} {
		w := newWorld(true, 8)
		w.push(1)
		if sent {
			w.send()
		}
		if at := w.queue.WakeAt(); at != w.now.Add(10*time.Second) {
			t.Fatalf("it wakes at %v", at)
		}
		w.pass(10 * time.Second)
		if len(w.resolved) != 1 || fault.OutcomeUnknown(w.resolved[0].Err) != sent {
			t.Fatalf("sent %v: %+v", sent, w.resolved)
		}
	}
}
