package minikafka

import (
	"context"
	"sync"
)

// ticket numbers batches in the order in which they were opened, across topics and partitions.
type ticket uint64

// unresolvedBatches are those that are neither stored nor failed: what Flush waits for.
type unresolvedBatches struct {
	mu sync.Mutex
	// base is the oldest ticket that is not resolved; resolved[i] tells whether ticket base+i is.
	base     ticket
	resolved []bool
	waiters  []flushWaiter
	// firstFailure is one that no Flush has told yet.
	firstFailure error
}

type flushWaiter struct {
	end  ticket
	done chan struct{}
}

// open is the ticket of a batch that is being opened.
func (u *unresolvedBatches) open() ticket {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.resolved = append(u.resolved, false)
	return u.base + ticket(len(u.resolved)-1)
}

// next is the ticket that the next batch will get.
func (u *unresolvedBatches) next() ticket {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.base + ticket(len(u.resolved))
}

// resolve says that a batch is stored or has failed, and its promises have been called.
func (u *unresolvedBatches) resolve(t ticket, failure error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.firstFailure == nil {
		u.firstFailure = failure
	}
	u.resolved[t-u.base] = true
	done := 0
	for done < len(u.resolved) && u.resolved[done] {
		done++
	}
	if done == 0 {
		return
	}
	u.base += ticket(done)
	u.resolved = append(u.resolved[:0], u.resolved[done:]...)
	kept := u.waiters[:0]
	for _, waiter := range u.waiters {
		if waiter.end <= u.base {
			close(waiter.done)
		} else {
			kept = append(kept, waiter)
		}
	}
	u.waiters = kept
}

// allBefore waits until every batch with a ticket before end is resolved, and returns the first failure that no earlier call
// has returned.
func (u *unresolvedBatches) allBefore(ctx context.Context, end ticket) error {
	u.mu.Lock()
	if u.base < end {
		waiter := flushWaiter{end, make(chan struct{})}
		u.waiters = append(u.waiters, waiter)
		u.mu.Unlock()
		select {
		case <-waiter.done:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		u.mu.Lock()
	}
	failure := u.firstFailure
	u.firstFailure = nil
	u.mu.Unlock()
	return failure
}
