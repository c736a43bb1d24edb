package cluster

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"net"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/minikafka/minikafka/clients/go/internal/backoff"
	"github.com/minikafka/minikafka/clients/go/internal/connection"
	"github.com/minikafka/minikafka/clients/go/internal/errorcode"
	"github.com/minikafka/minikafka/clients/go/internal/fault"
	"github.com/minikafka/minikafka/clients/go/internal/wire"
)

const (
	// answerDeadline is how long one gateway has to answer.
	answerDeadline = 5 * time.Second
	// patience: a gateway that says nothing for so long is not waited for alone, the next one is asked as well.
	patience = 250 * time.Millisecond
)

// Gateways are the gateways of a client, and which of them answered last.
type Gateways struct {
	addresses []string
	preferred atomic.Int32
	pool      *connection.Pool
	log       *slog.Logger
}

// NewGateways takes addresses, host:port, at least one.
func NewGateways(addresses []string, pool *connection.Pool, log *slog.Logger) *Gateways {
	g := &Gateways{addresses: addresses, pool: pool, log: log}
	// Clients spread over the gateways from the start.
	g.preferred.Store(rand.Int32N(int32(len(addresses))))
	return g
}

type answered struct {
	at    int
	reply connection.Reply
	err   error
}

// AskAny asks the gateway that answered last, and each of the others as soon as those before failed or kept silent, until one
// gives an answer. It also tells which one did.
func (g *Gateways) AskAny(ctx context.Context, api wire.API, request connection.Message) (connection.Reply, string, error) {
	ctx, cancel := context.WithTimeout(ctx, answerDeadline)
	defer cancel()
	answers := make(chan answered, len(g.addresses))
	first, asked, failed := int(g.preferred.Load()), 0, 0
	var last error
	ask := func() {
		at := (first + asked) % len(g.addresses)
		asked++
		go func() { answers <- g.askOne(ctx, at, api, request) }()
	}
	ask()
	hurry := time.NewTicker(patience)
	defer hurry.Stop()
	for {
		select {
		case <-hurry.C:
			if asked < len(g.addresses) {
				ask()
			}
		case answer := <-answers:
			if answer.err == nil {
				g.preferred.Store(int32(answer.at))
				return answer.reply, g.addresses[answer.at], nil
			}
			// What one gateway refuses for good, the others refuse too.
			var refused *fault.BrokerError
			if errors.As(answer.err, &refused) && !refused.Retriable() || errors.Is(answer.err, fault.ErrClosed) {
				return connection.Reply{}, "", answer.err
			}
			g.log.Debug("gateway did not answer", "address", g.addresses[answer.at], "error", answer.err)
			last = answer.err
			failed++
			if asked < len(g.addresses) {
				ask()
			} else if failed == asked {
				return connection.Reply{}, "", &fault.NoGatewayError{Tried: g.addresses, Last: last}
			}
		}
	}
}

// TurnToNext makes another gateway the first to be asked: what this one tells is too old. It may have lost the coordinator, and not
// know what the others do.
func (g *Gateways) TurnToNext() {
	g.preferred.Store((g.preferred.Load() + 1) % int32(len(g.addresses)))
}

// AskUntil is AskAny, again and again until a gateway gives an answer, one refuses for good, or the context ends.
func (g *Gateways) AskUntil(ctx context.Context, api wire.API, request connection.Message) (connection.Reply, string, error) {
	for failures := 1; ; failures++ {
		reply, from, err := g.AskAny(ctx, api, request)
		if err == nil || !fault.Retriable(err) || !Sleep(ctx, backoff.Random(failures, false, 0)) {
			return reply, from, err
		}
	}
}

// askOne asks one gateway. A connection on which no answer came is not used again.
func (g *Gateways) askOne(ctx context.Context, at int, api wire.API, request connection.Message) answered {
	opened, err := g.pool.Connect(ctx, g.addresses[at], connection.Requests)
	if err != nil {
		return answered{at: at, err: err}
	}
	begun := time.Now()
	reply, err := opened.Call(ctx, connection.Ask{API: api}, request)
	// A caller with less time than that says nothing about the connection.
	if err != nil && time.Since(begun) >= answerDeadline-patience {
		opened.EndBecause("a gateway did not answer in time")
	}
	return answered{at, reply, err}
}

// AskController asks the controller, wherever it is: follows not_controller (whose message is the controller's address), goes
// on to the next gateway when one is gone, and retries what is retriable until the context's deadline.
//
// maybeDone tells whether an attempt before the last one may have been carried out without an answer: then "exists" or
// "unknown" can be this very request's own doing.
func (g *Gateways) AskController(ctx context.Context, api wire.API, request connection.Message) (reply connection.Reply, maybeDone bool, err error) {
	named, at := "", int(g.preferred.Load())
	for failures := 1; ; failures++ {
		address := named
		if address == "" {
			address = g.addresses[at%len(g.addresses)]
		}
		reply, err = g.ask(ctx, address, api, request)
		if err == nil || !fault.Retriable(err) || ctx.Err() != nil {
			return reply, maybeDone, err
		}
		if !Sleep(ctx, backoff.Random(failures, false, fault.RetryAfter(err))) {
			return reply, maybeDone, err
		}
		maybeDone = maybeDone || fault.OutcomeUnknown(err)
		named = controllerNamedBy(err)
		if named == "" {
			at++
		}
	}
}

func (g *Gateways) ask(ctx context.Context, address string, api wire.API, request connection.Message) (connection.Reply, error) {
	opened, err := g.pool.Connect(ctx, address, connection.Requests)
	if err != nil {
		return connection.Reply{}, err
	}
	return opened.Call(ctx, connection.Ask{API: api}, request)
}

// controllerNamedBy is the address in a not_controller answer, if it is one.
func controllerNamedBy(err error) string {
	var refused *fault.BrokerError
	if !errors.As(err, &refused) || refused.Code != errorcode.NotController {
		return ""
	}
	host, port, err := net.SplitHostPort(refused.Message)
	if err != nil || host == "" {
		return ""
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return ""
	}
	return refused.Message
}

// Sleep waits; false when the context ended before, or will have.
func Sleep(ctx context.Context, wait time.Duration) bool {
	if deadline, ok := ctx.Deadline(); ok && time.Until(deadline) <= wait {
		return false
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
