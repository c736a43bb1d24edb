package minikafka

import (
	"container/list"
	"context"
	"sync"
	"sync/atomic"

	"github.com/minikafka/minikafka/clients/go/internal/fault"
)

// memoryBudget bounds the bytes of records that are accepted and not stored. Taking from it costs one atomic step as long as
// there is enough; who waits is served in order, and before anybody who comes later.
type memoryBudget struct {
	available atomic.Int64
	// waiting counts callers that wait: as long as there are any, nobody passes them, and no batch lingers.
	waiting atomic.Int32

	mu     sync.Mutex
	queue  list.List
	closed bool
}

type memoryWaiter struct {
	bytes   int64
	granted chan struct{}
	// ok is set before granted is closed: false when the budget was closed instead.
	ok bool
}

func newMemoryBudget(bytes int) *memoryBudget {
	m := &memoryBudget{}
	m.available.Store(int64(bytes))
	return m
}

// tryReserve takes bytes if they are there and nobody waits.
func (m *memoryBudget) tryReserve(bytes int) bool {
	if m.waiting.Load() > 0 {
		return false
	}
	if m.available.Add(-int64(bytes)) >= 0 {
		return true
	}
	m.release(bytes)
	return false
}

// reserve takes bytes, waiting for them. hurry is called when it has to wait.
func (m *memoryBudget) reserve(ctx context.Context, bytes int, hurry func()) error {
	m.mu.Lock()
	if m.closed {
		m.mu.Unlock()
		return fault.ErrClosed
	}
	waiter := &memoryWaiter{bytes: int64(bytes), granted: make(chan struct{})}
	place := m.queue.PushBack(waiter)
	m.waiting.Add(1)
	m.serve()
	m.mu.Unlock()
	hurry()
	select {
	case <-waiter.granted:
		if !waiter.ok {
			return fault.ErrClosed
		}
		return nil
	case <-ctx.Done():
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	select {
	case <-waiter.granted:
		if !waiter.ok {
			return fault.ErrClosed
		}
		m.available.Add(int64(bytes))
	default:
		m.queue.Remove(place)
		m.waiting.Add(-1)
	}
	m.serve()
	return context.Cause(ctx)
}

// release gives bytes back, to those who wait first.
func (m *memoryBudget) release(bytes int) {
	m.available.Add(int64(bytes))
	if m.waiting.Load() > 0 {
		m.mu.Lock()
		m.serve()
		m.mu.Unlock()
	}
}

// serve grants what can be granted, in order; the caller holds the lock.
func (m *memoryBudget) serve() {
	for front := m.queue.Front(); front != nil; front = m.queue.Front() {
		waiter := front.Value.(*memoryWaiter)
		if m.available.Add(-waiter.bytes) < 0 {
			m.available.Add(waiter.bytes)
			return
		}
		m.queue.Remove(front)
		m.waiting.Add(-1)
		waiter.ok = true
		close(waiter.granted)
	}
}

// close fails everybody who waits, and who comes later.
func (m *memoryBudget) close() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closed = true
	for front := m.queue.Front(); front != nil; front = m.queue.Front() {
		waiter := front.Value.(*memoryWaiter)
		m.queue.Remove(front)
		m.waiting.Add(-1)
		close(waiter.granted)
	}
}
