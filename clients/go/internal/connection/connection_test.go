package connection

import (
	"context"
	"errors"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/minikafka/minikafka/clients/go/internal/errorcode"
	"github.com/minikafka/minikafka/clients/go/internal/fault"
	"github.com/minikafka/minikafka/clients/go/internal/wire"
)

// server answers a hello, with a window of so many requests, and then does what behave says with each request's header.
func server(t *testing.T, window uint32, behave func(socket net.Conn, header wire.FrameHeader)) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		socket, err := listener.Accept()
		if err != nil {
			return
		}
		defer socket.Close()
		frames := newFrameReader(socket, nil)
		for {
			frame, err := frames.next()
			if err != nil {
				return
			}
			if frame.header.API != wire.APIHello {
				behave(socket, frame.header)
				continue
			}
			hello := wire.HelloReply{Protocol: wire.ProtocolMax, InFlightMax: window}
			reply(socket, frame.header, &hello)
		}
	}()
	t.Cleanup(func() {
		listener.Close()
		<-ended
	})
	return listener.Addr().String()
}

func reply(socket net.Conn, to wire.FrameHeader, head Message) {
	to.IsReply = true
	_, _ = socket.Write(wire.AppendFrame(nil, to, head.AppendTo(nil), 0))
}

func open(t *testing.T, address string) *Connection {
	t.Helper()
	c, err := Open(context.Background(), address, &Options{ConnectTimeout: 5 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.End(fault.ErrClosed)
		c.Wait()
	})
	return c
}

func TestRepliesInAnyOrderFindTheirRequests(t *testing.T) {
	t.Cleanup(func() { goleak.VerifyNone(t) })
	var waiting []wire.FrameHeader
	address := server(t, 10, func(socket net.Conn, header wire.FrameHeader) {
		if waiting = append(waiting, header); len(waiting) == 3 {
			for i := range waiting {
				header := waiting[len(waiting)-1-i]
				reply(socket, header, &wire.ProduceReply{BaseOffset: header.Correlation})
			}
		}
	})
	c := open(t, address)
	answers := make(chan uint64, 3)
	for range 3 {
		err := c.Send(Ask{API: wire.APIProduce}, &wire.ResolveRequest{}, nil, nil, func(reply Reply, err error) {
			decoded, _ := wire.DecodeProduceReply(reply.Head)
			answers <- decoded.BaseOffset
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	for expected := uint64(3); expected > 0; expected-- {
		if got := <-answers; got != expected {
			t.Errorf("the answer to %d comes instead of that to %d", got, expected)
		}
	}
}

func TestTheWindowOfTheServerIsKept(t *testing.T) {
	t.Cleanup(func() { goleak.VerifyNone(t) })
	release := make(chan struct{})
	address := server(t, 2, func(socket net.Conn, header wire.FrameHeader) {
		go func() {
			<-release
			reply(socket, header, &wire.ProduceReply{})
		}()
	})
	c := open(t, address)
	done := make(chan error, 2)
	deliver := func(_ Reply, err error) { done <- err }
	for range 2 {
		if err := c.Send(Ask{API: wire.APIProduce}, &wire.ResolveRequest{}, nil, nil, deliver); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.Send(Ask{API: wire.APIProduce}, &wire.ResolveRequest{}, nil, nil, deliver); !errors.Is(err, ErrFull) {
		t.Errorf("beyond the window: %v", err)
	}
	var hasRoom atomic.Bool
	room := make(chan struct{})
	c.WhenRoom(func() { hasRoom.Store(true); close(room) })
	if hasRoom.Load() {
		t.Error("there is room before an answer")
	}
	// A call waits for room, and gives up with its context.
	short, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
	defer cancel()
	var late *fault.DeadlineError
	if _, err := c.Call(short, Ask{API: wire.APIProduce}, &wire.ResolveRequest{}); !errors.As(err, &late) {
		t.Errorf("a call without room: %v", err)
	}
	close(release)
	<-room
	for range 2 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

func TestTheEndOfAConnectionIsToldToEverybodyOnce(t *testing.T) {
	t.Cleanup(func() { goleak.VerifyNone(t) })
	for name, behave := range map[string]func(net.Conn, wire.FrameHeader){
		"it hangs up":                  func(socket net.Conn, _ wire.FrameHeader) { socket.Close() },
		"a request instead of a reply": func(socket net.Conn, h wire.FrameHeader) { _, _ = socket.Write(wire.AppendFrame(nil, h, nil, 0)) },
		"an answer to nothing": func(socket net.Conn, h wire.FrameHeader) {
			h.Correlation += 99
			reply(socket, h, &wire.ProduceReply{})
		},
	} {
		t.Run(name, func(t *testing.T) {
			received := 0
			c := open(t, server(t, 10, func(socket net.Conn, h wire.FrameHeader) {
				if received++; received == 3 {
					behave(socket, h)
				}
			}))
			told := make(chan error, 10)
			for range 3 {
				_ = c.Send(Ask{API: wire.APIProduce}, &wire.ResolveRequest{}, nil, nil, func(_ Reply, err error) { told <- err })
			}
			for range 3 {
				if err := <-told; err == nil || !fault.OutcomeUnknown(err) {
					t.Errorf("told was %v", err)
				}
			}
			<-c.Ended()
			c.Wait()
			if len(told) != 0 {
				t.Error("somebody was told twice")
			}
			if err := c.Send(Ask{API: wire.APIProduce}, &wire.ResolveRequest{}, nil, nil, nil); err == nil || errors.Is(err, ErrFull) {
				t.Errorf("after the end: %v", err)
			}
		})
	}
}

func TestErrorsOfTheServerAreTyped(t *testing.T) {
	t.Cleanup(func() { goleak.VerifyNone(t) })
	c := open(t, server(t, 10, func(socket net.Conn, h wire.FrameHeader) {
		h.Error = errorcode.Throttled
		reply(socket, h, &wire.ErrorReply{RetryAfterMs: 70, Message: "slower"})
	}))
	_, err := c.Call(context.Background(), Ask{API: wire.APIFetch}, &wire.ResolveRequest{})
	var refused *fault.BrokerError
	if !errors.As(err, &refused) || refused.RetryAfter != 70*time.Millisecond || refused.Message != "slower" || !errors.Is(err, errorcode.Throttled) {
		t.Error(err)
	}
}

func TestOpeningIsSharedAndAnEndedConnectionIsReplaced(t *testing.T) {
	t.Cleanup(func() { goleak.VerifyNone(t) })
	address := server(t, 10, func(net.Conn, wire.FrameHeader) {})
	pool := NewPool(Options{ConnectTimeout: 5 * time.Second})
	defer pool.Close()
	opened := make(chan *Connection, 5)
	for range 5 {
		go func() {
			c, err := pool.Connect(context.Background(), address, Requests)
			if err != nil {
				t.Error(err)
			}
			opened <- c
		}()
	}
	first := <-opened
	for range 4 {
		if other := <-opened; other != first {
			t.Error("more than one connection was opened")
		}
	}
	if pool.Live(address, Requests) != first || pool.Live(address, Fetches) != nil {
		t.Error("lanes have connections of their own")
	}
	first.EndBecause("test")
	if pool.Live(address, Requests) != nil {
		t.Error("an ended connection is given out")
	}
}
