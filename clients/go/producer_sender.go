package minikafka

import (
	"container/heap"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/minikafka/minikafka/clients/go/internal/cluster"
	"github.com/minikafka/minikafka/clients/go/internal/fault"
	"github.com/minikafka/minikafka/clients/go/internal/produce"
	"github.com/minikafka/minikafka/clients/go/internal/wire"
)

// sender is the goroutine of one topic that owns the queues of all its partitions, and decides nothing itself: it waits for
// records that were gathered, for answers, for connections, for a newer map and for time, tells the queues, and does what they
// say. A record's way: push gathers it → pump → seal → sendReady (producer_dispatch.go) → the connection → eventAnswered →
// the queue → finish → its promise.
type sender struct {
	topic *topicProducer
	lanes []lane
	// timers has the lanes that wait for time, the earliest first.
	timers timerHeap
	// parked has the lanes that wait for an address: to be connected, or to have room.
	parked       map[string][]int32
	isRefreshing bool
	isLooking    bool
	hurries      uint64
	resolved     []produce.Resolved[*sentBatch]

	mu        sync.Mutex
	announced []int32
	events    []event
	wake      chan struct{}
}

// lane is one partition as its sender sees it.
type lane struct {
	partition int32
	queue     *produce.Queue[*sentBatch]
	isParked  bool
	// waitsForMap: a refresh is under way for it.
	waitsForMap bool
	// mapVersion is the map by which the last attempt was addressed.
	mapVersion uint64
	flights    []flight
	// nextLook: before it, the map is not looked at again for answers that are overdue.
	nextLook time.Time
	timerAt  time.Time
	// timerIndex is the lane's place in the timers; -1: it has none.
	timerIndex int
}

type eventKind int

const (
	// eventAnswered: an attempt was answered, or failed.
	eventAnswered eventKind = iota
	// eventSealed: a batch was compressed.
	eventSealed
	// eventReachable: an address can take requests again, or cannot be reached (err).
	eventReachable
	// eventMapRefreshed: a refresh has ended, well or not.
	eventMapRefreshed
	// eventMapLooked: the map was looked at because answers are overdue.
	eventMapLooked
)

// event is what the sender is told. They are bounded by what is in flight: one for each batch, address and refresh.
type event struct {
	kind      eventKind
	partition int32
	attempt   produce.Attempt
	stored    produce.Stored
	err       error
	address   string
	m         *cluster.Map
	sealed    func()
}

func newSender(topic *topicProducer) *sender {
	settings := topic.producer.settings
	s := &sender{
		topic: topic, lanes: make([]lane, len(topic.partitions)), parked: map[string][]int32{}, wake: make(chan struct{}, 1),
	}
	inFlight := settings.inFlightMax
	if !settings.idempotent {
		inFlight = 1
	}
	seed := rand.Uint64()
	for i := range s.lanes {
		s.lanes[i] = lane{partition: int32(i), timerIndex: -1, queue: produce.NewQueue[*sentBatch](produce.Settings{
			Topic: topic.name, Partition: int32(i), Idempotent: settings.idempotent, InFlightMax: inFlight,
			DeliveryTimeout: settings.deliveryTimeout,
			// Far apart, so that the ids of two partitions do not meet.
			Seed: seed ^ uint64(i)<<32,
		})}
	}
	return s
}

// announce says that a batch of a partition was opened, or has become full.
func (s *sender) announce(partition int32) {
	s.mu.Lock()
	s.announced = append(s.announced, partition)
	s.mu.Unlock()
	s.wakeUp()
}

func (s *sender) post(e event) {
	s.mu.Lock()
	s.events = append(s.events, e)
	s.mu.Unlock()
	s.wakeUp()
}

func (s *sender) wakeUp() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// run ends with the client; what is not resolved by then fails.
func (s *sender) run() {
	defer s.topic.producer.client.senderTasks.Done()
	var announced []int32
	var events []event
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		s.mu.Lock()
		announced, s.announced = s.announced, announced[:0]
		events, s.events = s.events, events[:0]
		s.mu.Unlock()
		now := time.Now()
		for _, partition := range announced {
			s.pump(partition, now)
		}
		for i := range events {
			s.take(&events[i], now)
			events[i] = event{}
		}
		s.stopLingering(now)
		s.fireTimers(now)
		if len(announced) > 0 || len(events) > 0 {
			continue
		}
		wait := time.Hour
		if len(s.timers) > 0 {
			wait = time.Until(s.timers[0].timerAt)
		}
		resetTimer(timer, wait)
		select {
		case <-s.wake:
		case <-timer.C:
		case <-s.topic.producer.client.endSenders:
			s.end()
			return
		}
	}
}

func resetTimer(timer *time.Timer, wait time.Duration) {
	if !timer.Stop() {
		select {
		case <-timer.C:
		default:
		}
	}
	timer.Reset(max(wait, 0))
}

func (s *sender) take(e *event, now time.Time) {
	switch e.kind {
	case eventAnswered:
		l := &s.lanes[e.partition]
		l.landed(e.attempt)
		s.resolved = l.queue.Answered(now, e.attempt, e.stored, e.err, s.resolved)
		s.topic.producer.client.counters.answered(e.err)
		s.pump(e.partition, now)
	case eventSealed:
		e.sealed()
		s.pump(e.partition, now)
	case eventReachable:
		partitions := s.parked[e.address]
		delete(s.parked, e.address)
		for _, partition := range partitions {
			l := &s.lanes[partition]
			l.isParked = false
			if e.err != nil {
				s.resolved = l.queue.CouldNotSend(now, e.err, s.resolved)
			}
			s.pump(partition, now)
		}
	case eventMapRefreshed:
		s.isRefreshing = false
		for i := range s.lanes {
			if l := &s.lanes[i]; l.waitsForMap {
				l.waitsForMap = false
				s.resolved = l.queue.MapRefreshed(now, s.resolved)
				s.pump(l.partition, now)
			}
		}
	case eventMapLooked:
		s.isLooking = false
		s.giveUpMoved(e.m, now)
	}
}

// stopLingering: when a flush, a close or a caller that waits for memory has begun, every batch may have become due.
func (s *sender) stopLingering(now time.Time) {
	if hurries := s.topic.producer.hurries.Load(); hurries != s.hurries {
		s.hurries = hurries
		for i := range s.lanes {
			if !s.topic.partitions[i].openedAt().IsZero() {
				s.pump(int32(i), now)
			}
		}
	}
}

func (s *sender) fireTimers(now time.Time) {
	for len(s.timers) > 0 && !s.timers[0].timerAt.After(now) {
		s.pump(heap.Pop(&s.timers).(*lane).partition, now)
	}
}

// pump does everything for one partition that can be done now.
func (s *sender) pump(partition int32, now time.Time) {
	l := &s.lanes[partition]
	s.resolved = l.queue.Tick(now, s.resolved)
	s.takeFullBatches(l)
	for {
		s.sendReady(l, now)
		if !s.takeDueBatch(l, now) && !s.followMap(l, now) {
			break
		}
	}
	s.lookAfterFlights(l, now)
	s.finish()
	s.setTimer(l)
}

// takeFullBatches: full batches enter the queue whether or not they can be sent, so that their deadlines count.
func (s *sender) takeFullBatches(l *lane) {
	for full := s.topic.partitions[l.partition].takeFull(); full != nil; full = s.topic.partitions[l.partition].takeFull() {
		s.enqueue(l, full)
	}
}

// takeDueBatch: the batch that is being filled leaves when it would be sent at once and need not linger. While the queue
// cannot send, it rather goes on filling.
func (s *sender) takeDueBatch(l *lane, now time.Time) bool {
	if l.isParked || !l.queue.WouldSend() {
		return false
	}
	p := s.topic.producer
	isIdle := p.settings.sendWhenIdle && l.queue.IsEmpty()
	due := s.topic.partitions[l.partition].takeNext(func(open *openBatch) bool {
		return isIdle || now.Sub(open.openedAt) >= p.settings.linger || !p.mayLinger(open)
	})
	if due == nil {
		return false
	}
	s.topic.batchLeft(l.partition, due.builder.BodyBytes(), now)
	s.enqueue(l, due)
	return true
}

func (s *sender) enqueue(l *lane, open *openBatch) {
	p := s.topic.producer
	deadline := open.openedAt.Add(p.settings.deliveryTimeout)
	b, finished := s.topic.seal(l.partition, open)
	l.queue.Push(b, b.recordCount, deadline)
	codec := p.settings.compression
	if codec.Kind == wire.CodecNone || len(finished.Body) < slowBodyBytes {
		body, kind := codec.Compress(finished.Body)
		b.finishSeal(&finished, body, kind)
		return
	}
	p.client.tasks.start(func() {
		// At most one compression for each core.
		p.compressing <- struct{}{}
		body, kind := codec.Compress(finished.Body)
		<-p.compressing
		s.post(event{kind: eventSealed, partition: l.partition, sealed: func() { b.finishSeal(&finished, body, kind) }})
	})
}

// finish ends what the queues have resolved.
func (s *sender) finish() {
	for i, resolved := range s.resolved {
		s.topic.producer.keep(resolvedBatch{
			batch: resolved.Payload, stored: resolved.Stored, err: resolved.Err,
		})
		s.resolved[i] = produce.Resolved[*sentBatch]{}
	}
	s.resolved = s.resolved[:0]
}

func (s *sender) setTimer(l *lane) {
	at := earlier(l.queue.WakeAt(), l.overdueAt())
	// A batch that has lingered and could not be sent waits for the queue, not for time.
	if !l.isParked && l.queue.WouldSend() {
		if opened := s.topic.partitions[l.partition].openedAt(); !opened.IsZero() {
			at = earlier(at, opened.Add(s.topic.producer.settings.linger))
		}
	}
	if at.Equal(l.timerAt) && l.timerIndex >= 0 {
		return
	}
	l.timerAt = at
	switch {
	case at.IsZero() && l.timerIndex >= 0:
		heap.Remove(&s.timers, l.timerIndex)
	case at.IsZero():
	case l.timerIndex >= 0:
		heap.Fix(&s.timers, l.timerIndex)
	default:
		heap.Push(&s.timers, l)
	}
}

// earlier is the earlier of two times, of which zero is none.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// end fails everything that is not resolved: nobody must wait for what cannot happen any more.
func (s *sender) end() {
	for i := range s.lanes {
		l := &s.lanes[i]
		for _, b := range l.queue.Drain() {
			s.resolved = append(s.resolved, produce.Resolved[*sentBatch]{Payload: b, Err: fault.ErrClosed})
		}
		always := func(*openBatch) bool { return true }
		for open := s.topic.partitions[i].takeNext(always); open != nil; open = s.topic.partitions[i].takeNext(always) {
			b, _ := s.topic.seal(l.partition, open)
			s.resolved = append(s.resolved, produce.Resolved[*sentBatch]{Payload: b, Err: fault.ErrClosed})
		}
	}
	s.finish()
}

// timerHeap is a heap of lanes by their timers.
type timerHeap []*lane

func (h timerHeap) Len() int           { return len(h) }
func (h timerHeap) Less(i, j int) bool { return h[i].timerAt.Before(h[j].timerAt) }
func (h timerHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].timerIndex, h[j].timerIndex = i, j
}

// Push adds a lane.
func (h *timerHeap) Push(x any) {
	l := x.(*lane)
	l.timerIndex = len(*h)
	*h = append(*h, l)
}

// Pop removes the last lane.
func (h *timerHeap) Pop() any {
	last := (*h)[len(*h)-1]
	*h = (*h)[:len(*h)-1]
	last.timerIndex = -1
	return last
}
