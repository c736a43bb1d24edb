package minikafka

import (
	"sync"
	"time"

	"github.com/minikafka/minikafka/clients/go/internal/batch"
)

// openBatch is a batch that is being filled, or waits to be sealed.
type openBatch struct {
	builder *batch.Builder
	// promises are those of the records, in order; shorter than the batch while no record has one.
	promises     []Promise
	ticket       ticket
	openedAt     time.Time
	chargedBytes int
}

// gathering has the records of one partition that are not on their way yet: the batch that is being filled, and those that
// are full.
type gathering struct {
	mu   sync.Mutex
	open *openBatch
	full []*openBatch
	// isAnnounced: the sender has been told that there is something to look at.
	isAnnounced bool
}

// gathered says what a push has done.
type gathered struct {
	// announce: the sender must be told, a batch was opened or has become full.
	announce bool
	// fullBytes are the body bytes of the batches that have become full.
	fullBytes int
}

// push takes a record that is valid; the caller holds the lock.
func (g *gathering) push(record *batch.Record, recordBytes, charge int, promise Promise, topic *topicProducer) gathered {
	var done gathered
	if g.open == nil || !g.open.builder.Push(record, recordBytes, topic.batchBytesMax) {
		if g.open != nil {
			done.fullBytes += g.open.builder.BodyBytes()
			g.full = append(g.full, g.open)
		}
		g.open = topic.openBatch()
		g.open.builder.Push(record, recordBytes, topic.batchBytesMax)
		done.announce = true
	}
	open := g.open
	open.chargedBytes += charge
	if promise != nil || len(open.promises) > 0 {
		for len(open.promises) < open.builder.Records()-1 {
			open.promises = append(open.promises, nil)
		}
		open.promises = append(open.promises, promise)
	}
	if recordBytes >= topic.batchBytesMax {
		// Alone it is as large as batches become.
		done.fullBytes += open.builder.BodyBytes()
		g.full = append(g.full, open)
		g.open = nil
		done.announce = true
	}
	done.announce = done.announce && !g.isAnnounced
	g.isAnnounced = g.isAnnounced || done.announce
	return done
}

// takeFull takes the next full batch; the sender is looking now, and what comes later must be announced again.
func (g *gathering) takeFull() *openBatch {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.isAnnounced = false
	return g.popFull()
}

func (g *gathering) popFull() *openBatch {
	if len(g.full) == 0 {
		return nil
	}
	first := g.full[0]
	g.full[0] = nil
	g.full = g.full[1:]
	if len(g.full) == 0 {
		g.full = nil
	}
	return first
}

// takeNext takes the next full batch, or else the one that is being filled if isDue says so. Under one lock: a batch that
// becomes full must not be overtaken by the one that is opened behind it.
func (g *gathering) takeNext(isDue func(*openBatch) bool) *openBatch {
	g.mu.Lock()
	defer g.mu.Unlock()
	if first := g.popFull(); first != nil {
		return first
	}
	open := g.open
	if open == nil || !isDue(open) {
		return nil
	}
	g.open = nil
	return open
}

// openedAt is when the batch that is being filled was opened; zero: there is none.
func (g *gathering) openedAt() time.Time {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.open == nil {
		return time.Time{}
	}
	return g.open.openedAt
}
