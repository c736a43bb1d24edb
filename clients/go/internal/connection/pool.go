package connection

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/minikafka/minikafka/clients/go/internal/fault"
)

// Lane is what a connection is used for. Requests that wait for data have a lane of their own, so that a large fetch reply
// does not delay the acknowledgements behind it.
type Lane int

// The lanes: everything with small replies, and fetches.
const (
	Requests Lane = iota
	Fetches
)

type place struct {
	address string
	lane    Lane
}

// opening is one attempt to open a connection; all who wait share its outcome.
type opening struct {
	done       chan struct{}
	connection *Connection
	err        error
}

func (o *opening) isOver() bool {
	select {
	case <-o.done:
		return o.err != nil || o.connection.IsEnded()
	default:
		return false
	}
}

// Pool has one connection per address and lane. Opening is coalesced: who asks while one is being opened gets its outcome.
type Pool struct {
	options  Options
	lifetime context.Context
	end      context.CancelFunc
	tasks    sync.WaitGroup

	mu       sync.Mutex
	isClosed bool
	openings map[place]*opening
}

// NewPool makes an empty pool.
func NewPool(options Options) *Pool {
	lifetime, end := context.WithCancel(context.Background())
	return &Pool{options: options, lifetime: lifetime, end: end, openings: map[place]*opening{}}
}

// Live is the connection that is open, nil when there is none.
func (p *Pool) Live(address string, lane Lane) *Connection {
	p.mu.Lock()
	defer p.mu.Unlock()
	opening := p.openings[place{address, lane}]
	if opening == nil {
		return nil
	}
	select {
	case <-opening.done:
		if opening.err == nil && !opening.connection.IsEnded() {
			return opening.connection
		}
	default:
	}
	return nil
}

// Connect is the connection that is open, or a new one.
func (p *Pool) Connect(ctx context.Context, address string, lane Lane) (*Connection, error) {
	opening, err := p.opening(place{address, lane})
	if err != nil {
		return nil, err
	}
	select {
	case <-opening.done:
		return opening.connection, opening.err
	case <-ctx.Done():
		return nil, &fault.ConnectionError{Address: address, Reason: fmt.Sprintf("not open yet when its caller gave up (%v)", context.Cause(ctx))}
	}
}

// ConnectWithin is Connect, but given up as failed after patience; the attempt goes on, and who asks again joins it.
func (p *Pool) ConnectWithin(ctx context.Context, address string, lane Lane, patience time.Duration) (*Connection, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	return p.Connect(ctx, address, lane)
}

// opening is the attempt to join: the current one unless it failed or its connection has ended since.
func (p *Pool) opening(at place) (*opening, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.isClosed {
		return nil, fault.ErrClosed
	}
	if current := p.openings[at]; current != nil && !current.isOver() {
		return current, nil
	}
	// What is over leaves whenever somebody asks for a new one, so the map is bounded by live addresses.
	for place, opening := range p.openings {
		if opening.isOver() {
			delete(p.openings, place)
		}
	}
	opening := &opening{done: make(chan struct{})}
	p.openings[at] = opening
	options := p.options
	if at.lane != Fetches {
		options.AllocateBulk = nil
	}
	p.tasks.Add(1)
	go func() {
		defer p.tasks.Done()
		opening.connection, opening.err = Open(p.lifetime, at.address, &options)
		close(opening.done)
		if opening.err == nil {
			opening.connection.Wait()
		}
	}()
	return opening, nil
}

// Close ends every connection, and returns when their goroutines are gone. Nothing can be opened any more.
func (p *Pool) Close() {
	p.mu.Lock()
	p.isClosed = true
	openings := p.openings
	p.openings = nil
	p.mu.Unlock()
	p.end()
	for _, opening := range openings {
		<-opening.done
		if opening.err == nil {
			opening.connection.End(fault.ErrClosed)
		}
	}
	p.tasks.Wait()
}
