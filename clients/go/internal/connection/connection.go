// Package connection is one TCP connection to a shard or gateway, and the pool that shares them.
//
// Requests are pipelined and replies come in any order, matched by correlation. Requests and bytes in flight are bounded by
// the window that the server told in its hello. When a connection ends, everybody who waits on it learns why, once, and
// nobody can start to wait any more. Nothing is retried here, and nothing is decided.
package connection

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/minikafka/minikafka/clients/go/internal/errorcode"
	"github.com/minikafka/minikafka/clients/go/internal/fault"
	"github.com/minikafka/minikafka/clients/go/internal/wire"
)

// ErrFull is what Send answers when the window has no room: wait with WhenRoom, then try again.
var ErrFull = errors.New("the connection's window is full")

// Reply is what a server answered.
type Reply struct {
	// Head has the message's fields.
	Head []byte
	// Bulk is what stands behind them: fetched entries, otherwise empty.
	Bulk []byte
	// Explain: the fields end with an explanation.
	Explain bool
}

// Message is anything that can be a request's head.
type Message interface{ AppendTo([]byte) []byte }

// Connection is a connection that said hello. Safe for use by many goroutines.
type Connection struct {
	address string
	server  wire.HelloReply
	socket  net.Conn
	options *Options
	tasks   sync.WaitGroup
	// ended is closed when the connection has ended; endError is why, set before.
	ended      chan struct{}
	wakeWriter chan struct{}

	mu              sync.Mutex
	endError        error
	nextCorrelation uint64
	waiting         map[uint64]waiter
	bytesInFlight   int
	whenRoom        []func()
	outgoing        []outgoing
}

type waiter struct {
	deliver func(Reply, error)
	bytes   int
}

// Open connects to address, says hello and waits for its answer, at most for the options' ConnectTimeout. The error is a
// *fault.ConnectionError, a *fault.BrokerError or a *fault.MalformedError.
func Open(ctx context.Context, address string, options *Options) (*Connection, error) {
	ctx, cancel := context.WithTimeout(ctx, options.ConnectTimeout)
	defer cancel()
	refused := func(err error) error { return &fault.ConnectionError{Address: address, Reason: err.Error()} }
	dialer := net.Dialer{KeepAlive: keepAliveIdle, Control: configure}
	socket, err := dialer.DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, refused(err)
	}
	// The hello is one exchange with nothing else in flight: the socket's own deadline, or its end by the context, bounds it.
	stop := context.AfterFunc(ctx, func() { _ = socket.SetDeadline(time.Unix(1, 0)) })
	frames := newFrameReader(socket, options.AllocateBulk)
	server, err := sayHello(address, frames, socket, options)
	if !stop() && err == nil {
		err = refused(context.Cause(ctx))
	}
	if err != nil {
		_ = socket.Close()
		return nil, err
	}
	_ = socket.SetDeadline(time.Time{})
	c := &Connection{
		address: address, server: server, socket: socket, options: options, waiting: map[uint64]waiter{},
		ended: make(chan struct{}), wakeWriter: make(chan struct{}, 1), nextCorrelation: 1,
	}
	c.tasks.Add(2)
	go c.readReplies(frames)
	go c.writeRequests()
	return c, nil
}

// Address is where the connection leads.
func (c *Connection) Address() string { return c.address }

// Server is what the server said of itself.
func (c *Connection) Server() *wire.HelloReply { return &c.server }

// Ended is closed when the connection has ended.
func (c *Connection) Ended() <-chan struct{} { return c.ended }

// IsEnded tells whether the connection has ended.
func (c *Connection) IsEnded() bool {
	select {
	case <-c.ended:
		return true
	default:
		return false
	}
}

// Ask says what a request asks for.
type Ask struct {
	API wire.API
	// Explain asks where the time goes; a server of an older release, which cannot tell, is not asked.
	Explain bool
}

// Send sends a request at once, or not at all: ErrFull when the window has no room, otherwise why the connection has ended.
// Requests of one caller leave in their order. deliver is called once, from the goroutine that reads replies, and must not
// block. written, if given, is set once the request's bytes are no longer needed here.
func (c *Connection) Send(ask Ask, head Message, bulk []byte, written *atomic.Bool, deliver func(Reply, error)) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.endError != nil {
		return c.endError
	}
	requestsMax := min(max(int(c.server.InFlightMax), 1), wire.ConnectionInFlightMax)
	// One request that is larger than the window takes all of it.
	if len(c.waiting) >= requestsMax || c.bytesInFlight > 0 && c.bytesInFlight+len(bulk) > wire.ConnectionInFlightBytesMax {
		return ErrFull
	}
	correlation := c.nextCorrelation
	c.nextCorrelation++
	header := wire.Request(ask.API, correlation)
	header.Explain = ask.Explain && c.server.Protocol >= wire.ExplainProtocol
	start := wire.AppendFrameHeader(make([]byte, 0, 256), header, 0, len(bulk))
	start = wire.SealFrame(head.AppendTo(start), 0)
	bytes := len(start) + len(bulk)
	c.bytesInFlight += bytes
	c.waiting[correlation] = waiter{deliver: deliver, bytes: bytes}
	// Queued under the lock, so that frames leave in the order of their correlations. The window bounds the queue.
	c.outgoing = append(c.outgoing, outgoing{start: start, bulk: bulk, written: written})
	wake(c.wakeWriter)
	return nil
}

// WhenRoom calls tell once, as soon as the window may have room again, or the connection has ended. It must not block.
func (c *Connection) WhenRoom(tell func()) {
	c.mu.Lock()
	if c.endError == nil && len(c.waiting) > 0 {
		c.whenRoom = append(c.whenRoom, tell)
		c.mu.Unlock()
		return
	}
	c.mu.Unlock()
	tell()
}

// Call sends a request and waits for its reply, until the context ends. Whether the request was sent is then unknown.
func (c *Connection) Call(ctx context.Context, ask Ask, head Message) (Reply, error) {
	type answer struct {
		reply Reply
		err   error
	}
	answered := make(chan answer, 1)
	deliver := func(reply Reply, err error) { answered <- answer{reply, err} }
	begun := time.Now()
	for {
		err := c.Send(ask, head, nil, nil, deliver)
		if err == nil {
			break
		}
		if !errors.Is(err, ErrFull) {
			return Reply{}, err
		}
		room := make(chan struct{})
		c.WhenRoom(func() { close(room) })
		select {
		case <-room:
		case <-ctx.Done():
			return Reply{}, c.givenUp(ctx, ask.API, begun)
		}
	}
	select {
	case answer := <-answered:
		return answer.reply, answer.err
	case <-ctx.Done():
		return Reply{}, c.givenUp(ctx, ask.API, begun)
	}
}

func (c *Connection) givenUp(ctx context.Context, api wire.API, begun time.Time) error {
	if errors.Is(context.Cause(ctx), context.DeadlineExceeded) {
		what := fmt.Sprintf("%s request to %s", api, c.address)
		return &fault.DeadlineError{What: what, Within: time.Since(begun).Round(time.Millisecond), Unknown: true}
	}
	return context.Cause(ctx)
}

// End closes a connection that is no longer wanted or trusted; everything in flight on it is told err.
func (c *Connection) End(err error) {
	c.mu.Lock()
	if c.endError != nil {
		c.mu.Unlock()
		return
	}
	c.endError = err
	waiting, whenRoom := c.waiting, c.whenRoom
	c.waiting, c.whenRoom, c.outgoing = nil, nil, nil
	c.mu.Unlock()
	close(c.ended)
	_ = c.socket.Close()
	for _, waiter := range waiting {
		waiter.deliver(Reply{}, err)
	}
	for _, tell := range whenRoom {
		tell()
	}
}

// EndBecause is End with a connection error of that reason.
func (c *Connection) EndBecause(reason string) { c.End(c.lost(reason)) }

// Wait returns once the connection has ended and its goroutines are gone.
func (c *Connection) Wait() { c.tasks.Wait() }

func (c *Connection) lost(reason string) error {
	return &fault.ConnectionError{Address: c.address, Reason: reason, Lost: true}
}

func (c *Connection) malformed(what string, reason error) error {
	return &fault.MalformedError{From: c.address, What: what, Reason: reason}
}

// readReplies hands replies to those who asked, until the connection ends.
func (c *Connection) readReplies(frames *frameReader) {
	defer c.tasks.Done()
	for {
		frame, err := frames.next()
		if err == nil {
			err = c.deliver(frame)
		} else {
			var notAFrame *wire.FrameError
			if errors.As(err, &notAFrame) {
				err = c.malformed("frame", err)
			} else {
				err = c.lost(describeReadError(err))
			}
		}
		if err != nil {
			c.End(err)
			return
		}
	}
}

// deliver hands a reply to whoever asked; an error when nobody did.
func (c *Connection) deliver(frame frame) error {
	c.mu.Lock()
	waiter, asked := c.waiting[frame.header.Correlation]
	asked = asked && frame.header.IsReply
	var whenRoom []func()
	if asked {
		delete(c.waiting, frame.header.Correlation)
		c.bytesInFlight -= waiter.bytes
		whenRoom, c.whenRoom = c.whenRoom, nil
	}
	c.mu.Unlock()
	for _, tell := range whenRoom {
		tell()
	}
	err := replyError(c.address, &frame)
	if !asked {
		// A server that cannot read a request answers with what it made of its correlation, and closes.
		if err != nil {
			return err
		}
		return c.malformed("frame", errors.New("it answers no request"))
	}
	waiter.deliver(Reply{Head: frame.head, Bulk: frame.bulk, Explain: frame.header.Explain}, err)
	return nil
}

// replyError is the error that a reply's head explains, if its frame names one.
func replyError(address string, frame *frame) error {
	if frame.header.Error == errorcode.None {
		return nil
	}
	reply, err := wire.DecodeErrorReply(frame.head)
	if err != nil {
		return &fault.MalformedError{From: address, What: "error reply", Reason: err}
	}
	return &fault.BrokerError{
		Code: frame.header.Error, Message: reply.Message, Epoch: uint64(reply.Epoch), Target: address,
		RetryAfter: time.Duration(reply.RetryAfterMs) * time.Millisecond,
	}
}

func wake(channel chan struct{}) {
	select {
	case channel <- struct{}{}:
	default:
	}
}
