package minikafka

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/minikafka/minikafka/clients/go/internal/cluster"
	"github.com/minikafka/minikafka/clients/go/internal/connection"
	"github.com/minikafka/minikafka/clients/go/internal/fault"
	"github.com/minikafka/minikafka/clients/go/internal/fetch"
	"github.com/minikafka/minikafka/clients/go/internal/wire"
)

// Version is the version of this client, as servers see it in their logs.
const Version = "0.1.0"

// answerLateness: an answer may be late by so much, beyond what its server was asked to wait, before its connection counts as
// dead.
const answerLateness = 10 * time.Second

// Client is a handle on one cluster: it produces, consumes what its options name, and administers. One per cluster is enough;
// everything in it shares map and connections. Safe for use by many goroutines.
type Client struct {
	settings settings
	pool     *connection.Pool
	keeper   *cluster.Keeper
	producer *producer
	consumer *consumer
	queue    queue
	counters counters
	buffers  fetch.Buffers
	tasks    taskGroup
	// closing is closed when Close begins; lifetime ends when nothing is to be done in the background any more.
	closing      chan struct{}
	closeOnce    sync.Once
	closed       chan struct{}
	closeErr     error
	lifetime     context.Context
	endLifetime  context.CancelFunc
	endSenders   chan struct{}
	senderTasks  sync.WaitGroup
	sendersEnded chan struct{}
}

// New makes a client. It does no I/O: the map of the cluster is fetched when it is first needed (Ping asks for it now). Close
// ends the client.
//
// The error is an *OptionError.
func New(options ...Option) (*Client, error) {
	s := defaultSettings()
	for _, option := range options {
		option.apply(&s)
	}
	if err := s.check(); err != nil {
		return nil, err
	}
	c := &Client{
		settings: s, closing: make(chan struct{}), closed: make(chan struct{}), endSenders: make(chan struct{}),
		sendersEnded: make(chan struct{}),
	}
	c.lifetime, c.endLifetime = context.WithCancel(context.Background())
	c.consumer = newConsumer(c, &c.settings.consumer, &c.settings.group)
	c.pool = connection.NewPool(connection.Options{
		ClientName: s.clientName, ClientVersion: "go " + Version, Cluster: wire.ClusterID(s.cluster),
		ConnectTimeout: s.connectTimeout, AllocateBulk: c.buffers.Allocate,
	})
	c.keeper = cluster.NewKeeper(cluster.NewGateways(s.gateways, c.pool, s.logger), s.createMissing, s.logger)
	c.producer = newProducer(c)
	return c, nil
}

// Ping asks a gateway for the map, so that a wrong address is found now and not with the first record. The error is a
// *NoGatewayError, or what a gateway answered.
func (c *Client) Ping(ctx context.Context) error {
	if c.isClosing() {
		return ErrClosed
	}
	ctx, cancel := context.WithTimeout(ctx, c.settings.requestTimeout)
	defer cancel()
	_, err := c.keeper.NewerThan(ctx, c.keeper.Current().Version())
	return err
}

// Close flushes what was produced, commits what was handled and leaves the group, and ends every connection and goroutine.
// Afterwards everything answers ErrClosed. The context bounds the flush and the commit: what they did not do in time fails, and
// Close returns why. Otherwise it returns the first failure of a record that no Flush has told.
func (c *Client) Close(ctx context.Context) error {
	c.closeOnce.Do(func() {
		close(c.closing)
		consumed := errors.Join(c.queue.close(ctx), c.consumer.close(ctx))
		produced := c.producer.close(ctx)
		close(c.endSenders)
		c.senderTasks.Wait()
		close(c.sendersEnded)
		c.endLifetime()
		c.pool.Close()
		c.closeErr = errors.Join(consumed, produced, c.awaitTasks(ctx))
		close(c.closed)
	})
	<-c.closed
	return c.closeErr
}

// closeGrace is how long goroutines may take to end although the context of Close is over.
const closeGrace = time.Second

// awaitTasks waits for the last goroutine, but not for ever for one that the application keeps busy: a promise, a callback or a
// handler that does not return.
func (c *Client) awaitTasks(ctx context.Context) error {
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		c.tasks.wait()
	}()
	select {
	case <-ended:
		return nil
	case <-ctx.Done():
	}
	select {
	case <-ended:
		return nil
	case <-time.After(closeGrace):
		return &fault.DeadlineError{What: "a promise, callback or handler of a client that is being closed", Within: closeGrace}
	}
}

func (c *Client) isClosing() bool {
	select {
	case <-c.closing:
		return true
	default:
		return false
	}
}

// goWithLifetime runs a goroutine that ends with the client.
func (c *Client) goWithLifetime(run func(ctx context.Context)) {
	c.tasks.start(func() { run(c.lifetime) })
}

// taskGroup has the goroutines of a client, so that Close returns after the last of them.
type taskGroup struct {
	mu      sync.Mutex
	isEnded bool
	tasks   sync.WaitGroup
}

// start runs a goroutine, unless the group is waited for already: then nobody is interested in it any more.
func (g *taskGroup) start(run func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.isEnded {
		return
	}
	g.tasks.Add(1)
	go func() {
		defer g.tasks.Done()
		run()
	}()
}

func (g *taskGroup) wait() {
	g.mu.Lock()
	g.isEnded = true
	g.mu.Unlock()
	g.tasks.Wait()
}

// callWatched makes a request that may wait at its server, and gives up as soon as the map says that no answer will come.
func (c *Client) callWatched(
	ctx context.Context, opened *connection.Connection, ask connection.Ask, request connection.Message, wait time.Duration,
	addressed []cluster.Addressed,
) (connection.Reply, error) {
	within, cancel := context.WithTimeout(ctx, wait+answerLateness)
	defer cancel()
	watched, giveUp := context.WithCancelCause(within)
	defer giveUp(nil)
	overdue := time.AfterFunc(wait+cluster.Overdue, func() {
		if err := c.keeper.Moved(watched, 0, addressed); err != nil {
			giveUp(err)
		}
	})
	defer overdue.Stop()
	reply, err := opened.Call(watched, ask, request)
	var deadline *fault.DeadlineError
	if errors.As(err, &deadline) && ctx.Err() == nil {
		opened.EndBecause(fmt.Sprintf("a %s request was not answered in time", ask.API))
	}
	return reply, err
}
