package minikafka

import (
	"context"
	"time"

	"github.com/minikafka/minikafka/clients/go/internal/cluster"
	"github.com/minikafka/minikafka/clients/go/internal/connection"
	"github.com/minikafka/minikafka/clients/go/internal/explain"
	"github.com/minikafka/minikafka/clients/go/internal/fault"
	"github.com/minikafka/minikafka/clients/go/internal/fetch"
	"github.com/minikafka/minikafka/clients/go/internal/wire"
)

// fetchConnectPatience: a connection that is not open after this counts as failed for now.
const fetchConnectPatience = time.Second

// fetchAhead is the goroutine that makes the requests that the progress plans, until the client ends.
func (c *consumer) fetchAhead(ctx context.Context) {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	isRefreshing := false
	refreshed := make(chan struct{}, 1)
	for {
		now := time.Now()
		m := c.client.keeper.Current()
		c.mu.Lock()
		requests := c.progress.Plan(now, m)
		seen, wantsMap := c.progress.TakeMapWish()
		wakeAt := c.progress.WakeAt(now)
		c.mu.Unlock()
		for i := range requests {
			request := &requests[i]
			c.client.goWithLifetime(func(ctx context.Context) { c.fetch(ctx, request) })
		}
		if wantsMap && m.Version() <= seen && !isRefreshing {
			isRefreshing = true
			c.client.goWithLifetime(func(ctx context.Context) {
				// Without a gateway, what is known goes on to count.
				_, _ = c.client.keeper.NewerThan(ctx, seen)
				refreshed <- struct{}{}
			})
		}
		wait := time.Hour
		if !wakeAt.IsZero() {
			wait = time.Until(wakeAt)
		}
		resetTimer(timer, wait)
		select {
		case <-c.wakeFetcher:
		case <-refreshed:
			isRefreshing = false
		case <-timer.C:
		case <-ctx.Done():
			return
		}
	}
}

// fetch makes one request, and hands its answer to the progress.
func (c *consumer) fetch(ctx context.Context, request *fetch.Request) {
	sentAt := time.Now()
	answers, err := c.ask(ctx, request)
	if ctx.Err() != nil {
		return
	}
	c.client.counters.fetched(err)
	c.mu.Lock()
	c.progress.Absorb(time.Now(), sentAt, request, answers, err)
	c.mu.Unlock()
	wake(c.ready)
	wake(c.wakeFetcher)
}

func (c *consumer) ask(ctx context.Context, request *fetch.Request) ([]fetch.Answer, error) {
	opened, err := c.client.pool.ConnectWithin(ctx, request.Address, connection.Fetches, fetchConnectPatience)
	if err != nil {
		return nil, err
	}
	addressed := make([]cluster.Addressed, len(request.Message.Partitions))
	for i, asked := range request.Message.Partitions {
		addressed[i] = cluster.Addressed{Address: request.Address, Range: asked.Range, Epoch: asked.Epoch}
	}
	wait := time.Duration(request.Message.WaitMsMax) * time.Millisecond
	ask := connection.Ask{API: wire.APIFetch, Explain: c.settings.explain}
	sentAt := time.Now()
	reply, err := c.client.callWatched(ctx, opened, ask, &request.Message, wait, addressed)
	if err != nil {
		return nil, err
	}
	malformed := func(reason error) ([]fetch.Answer, error) {
		err := &fault.MalformedError{From: request.Address, What: "fetch reply", Reason: reason}
		opened.End(err)
		return nil, err
	}
	fetched, told, err := decodeFetchReply(&reply, sentAt)
	if err != nil {
		return malformed(err)
	}
	answers, err := request.Answers(&fetched, reply.Bulk, &c.client.buffers)
	if err != nil {
		return malformed(err)
	}
	for i := range answers {
		answers[i].Explain(told)
	}
	return answers, nil
}

// decodeFetchReply decodes a reply that is here now, with what it tells of its stages, if anything.
func decodeFetchReply(reply *connection.Reply, sentAt time.Time) (wire.FetchReply, *explain.Explain, error) {
	if !reply.Explain {
		fetched, err := wire.DecodeFetchReply(reply.Head)
		return fetched, nil, err
	}
	explained, err := wire.DecodeFetchExplained(reply.Head)
	return explained.FetchReply, explain.Of(sentAt, explained.Hops), err
}
