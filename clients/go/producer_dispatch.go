package minikafka

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/minikafka/minikafka/clients/go/internal/cluster"
	"github.com/minikafka/minikafka/clients/go/internal/connection"
	"github.com/minikafka/minikafka/clients/go/internal/errorcode"
	"github.com/minikafka/minikafka/clients/go/internal/explain"
	"github.com/minikafka/minikafka/clients/go/internal/fault"
	"github.com/minikafka/minikafka/clients/go/internal/produce"
	"github.com/minikafka/minikafka/clients/go/internal/wire"
)

// Getting a batch to the head of its range: address, connection, request, answer.

const (
	// answerSlack: an answer may be late by so much before the connection counts as dead; the server keeps the deadline itself.
	answerSlack = 2 * time.Second
	// connectPatience: a connection that is not open after this counts as failed for now, a newer map may lead elsewhere.
	connectPatience = time.Second
	// connectDoubtAfter: the map is looked at when one is not open after this: what a killed process had open may take
	// connections for a while yet.
	connectDoubtAfter = 50 * time.Millisecond
)

// flight is an attempt that is on its way.
type flight struct {
	attempt    produce.Attempt
	connection *connection.Connection
	addressed  cluster.Addressed
	sentAt     time.Time
	// overAt is when its connection counts as dead.
	overAt time.Time
}

// landed forgets the flight of an attempt.
func (l *lane) landed(attempt produce.Attempt) {
	for i := range l.flights {
		if l.flights[i].attempt == attempt {
			l.flights = append(l.flights[:i], l.flights[i+1:]...)
			return
		}
	}
}

// overdueAt is when the lane's flights want to be looked after; zero: it has none.
func (l *lane) overdueAt() time.Time {
	if len(l.flights) == 0 {
		return time.Time{}
	}
	at := l.flights[0].sentAt.Add(cluster.Overdue)
	if l.nextLook.After(at) {
		return l.nextLook
	}
	return at
}

// sendReady sends what the queue wants to be sent.
func (s *sender) sendReady(l *lane, now time.Time) {
	for !l.isParked {
		attempt, b, ok := l.queue.NextToSend()
		if !ok || !b.isSealed {
			return
		}
		address, err := s.trySend(l, attempt, b, now)
		if err != nil {
			s.resolved = l.queue.CouldNotSend(now, err, s.resolved)
			return
		}
		if address != "" {
			// Its address cannot take it now: the lane waits for that.
			l.isParked = true
			s.parked[address] = append(s.parked[address], l.partition)
			return
		}
	}
}

// trySend sends one attempt, or tells the address to wait for, or why the batch goes to nobody now.
func (s *sender) trySend(l *lane, attempt produce.Attempt, b *sentBatch, now time.Time) (waitFor string, err error) {
	client := s.topic.producer.client
	m := client.keeper.Current()
	l.mapVersion = m.Version()
	// The map's own description, if it is of the same topic: its placement is newer.
	topic := s.topic.topic
	if known := m.Usable(s.topic.name); known != nil && known.Topic == topic.Topic {
		topic = known
	}
	key, ok := m.RangeOf(topic, uint32(l.partition))
	address, epoch, owned := m.Owner(key)
	if !ok || !owned {
		return "", fault.Broker(errorcode.PartitionNotReady, "topic %s partition %d has no owner in the map", s.topic.name, l.partition)
	}
	addressed := cluster.Addressed{Address: address, Range: key, Epoch: epoch}
	opened := client.pool.Live(address, connection.Requests)
	if opened == nil {
		s.awaitConnection(addressed)
		return address, nil
	}
	within := min(s.topic.producer.settings.requestTimeout, attempt.Deadline.Sub(now))
	request := wire.ProduceRequest{Epoch: epoch, TimeoutMs: uint32(max(within.Milliseconds(), 1)), Header: b.header}
	request.Header.Range, request.Header.ProducerID, request.Header.BaseSequence = key, attempt.ProducerID, attempt.Sequence
	ask := connection.Ask{API: wire.APIProduce, Explain: s.topic.producer.settings.explain}
	err = opened.Send(ask, &request, b.body, &b.written, func(reply connection.Reply, err error) {
		s.answered(l.partition, attempt, address, now, reply, err)
	})
	if errors.Is(err, connection.ErrFull) {
		s.awaitRoom(opened)
		return address, nil
	}
	if err != nil {
		return "", err
	}
	l.queue.Sent(attempt)
	b.attempts++
	client.counters.sent(attempt.Number)
	l.flights = append(l.flights, flight{attempt, opened, addressed, now, now.Add(within + answerSlack)})
	return "", nil
}

// answered is called by the connection's reader.
func (s *sender) answered(
	partition int32, attempt produce.Attempt, address string, sentAt time.Time, reply connection.Reply, err error,
) {
	var stored produce.Stored
	if err == nil {
		if stored, err = decodeProduceReply(&reply, sentAt); err != nil {
			err = &fault.MalformedError{From: address, What: "produce reply", Reason: err}
		}
	}
	var refused *fault.BrokerError
	if errors.As(err, &refused) {
		named := *refused
		named.Target = fmt.Sprintf("topic %s partition %d at %s", s.topic.name, partition, address)
		err = &named
	}
	s.post(event{kind: eventAnswered, partition: partition, attempt: attempt, stored: stored, err: err})
}

// decodeProduceReply decodes a reply that is here now, with what it tells of its stages, if anything.
func decodeProduceReply(reply *connection.Reply, sentAt time.Time) (produce.Stored, error) {
	if !reply.Explain {
		decoded, err := wire.DecodeProduceReply(reply.Head)
		return produce.Stored{BaseOffset: int64(decoded.BaseOffset), AppendTimestamp: decoded.AppendTimestamp}, err
	}
	decoded, err := wire.DecodeProduceExplained(reply.Head)
	told := explain.Of(sentAt, decoded.Hops)
	return produce.Stored{BaseOffset: int64(decoded.BaseOffset), AppendTimestamp: decoded.AppendTimestamp, Explain: told}, err
}

// awaitConnection lets one goroutine per address tell when it can be tried again.
func (s *sender) awaitConnection(addressed cluster.Addressed) {
	if _, underWay := s.parked[addressed.Address]; underWay {
		return
	}
	client := s.topic.producer.client
	client.goWithLifetime(func(ctx context.Context) {
		ctx, cancel := context.WithCancelCause(ctx)
		defer cancel(nil)
		moved := make(chan struct{})
		go func() {
			defer close(moved)
			if err := client.keeper.Moved(ctx, connectDoubtAfter, []cluster.Addressed{addressed}); err != nil {
				cancel(err)
			}
		}()
		_, err := client.pool.ConnectWithin(ctx, addressed.Address, connection.Requests, connectPatience)
		if cause := context.Cause(ctx); err != nil && cause != nil {
			err = cause
		}
		cancel(nil)
		<-moved
		s.post(event{kind: eventReachable, address: addressed.Address, err: err})
	})
}

func (s *sender) awaitRoom(opened *connection.Connection) {
	address := opened.Address()
	if _, underWay := s.parked[address]; !underWay {
		opened.WhenRoom(func() { s.post(event{kind: eventReachable, address: address}) })
	}
}

// followMap refreshes the map when the queue asks for it; true when somebody has done so since its last attempt.
func (s *sender) followMap(l *lane, now time.Time) bool {
	if !l.queue.TakeMapWish() {
		return false
	}
	client := s.topic.producer.client
	if client.keeper.Current().Version() > l.mapVersion {
		s.resolved = l.queue.MapRefreshed(now, s.resolved)
		return true
	}
	l.waitsForMap = true
	if !s.isRefreshing {
		s.isRefreshing = true
		seen := l.mapVersion
		client.goWithLifetime(func(ctx context.Context) {
			// Without a gateway, what is known goes on to count.
			_, _ = client.keeper.NewerThan(ctx, seen)
			s.post(event{kind: eventMapRefreshed})
		})
	}
	return false
}

// lookAfterFlights ends connections on which an answer is out of all bounds, and looks at the map when one is overdue.
func (s *sender) lookAfterFlights(l *lane, now time.Time) {
	overdue := l.overdueAt()
	if overdue.IsZero() || overdue.After(now) {
		return
	}
	l.nextLook = now.Add(cluster.Look)
	for i := range l.flights {
		if flight := &l.flights[i]; !flight.overAt.After(now) {
			flight.connection.EndBecause("a produce request was not answered in time")
		}
	}
	if s.isLooking {
		return
	}
	s.isLooking = true
	client := s.topic.producer.client
	client.goWithLifetime(func(ctx context.Context) {
		m, _ := client.keeper.NoOlderThan(ctx, cluster.Look)
		s.post(event{kind: eventMapLooked, m: m})
	})
}

// giveUpMoved: what is overdue and addressed to somebody who is not the one any more is over, its outcome unknown.
func (s *sender) giveUpMoved(m *cluster.Map, now time.Time) {
	for i := range s.lanes {
		l := &s.lanes[i]
		var moved []flight
		for _, flight := range l.flights {
			if now.Sub(flight.sentAt) >= cluster.Overdue && !flight.addressed.Holds(m) {
				moved = append(moved, flight)
			}
		}
		for _, flight := range moved {
			l.landed(flight.attempt)
			s.resolved = l.queue.Answered(now, flight.attempt, produce.Stored{}, flight.addressed.MovedError(m), s.resolved)
		}
		if len(moved) > 0 {
			s.pump(l.partition, now)
		}
	}
}
