package minikafka

import (
	"context"
	"sync/atomic"
	"time"
)

// clockTick is the precision of the clock that many records share: that of their timestamps.
const clockTick = time.Millisecond

// recordClock stamps records with the time. Asking the system takes a third of the time that a small record costs in all, so at
// high rates, when batches become full, records share what a goroutine reads once a millisecond. As soon as no record has come
// for two ticks the clock is invalid, and the system is asked again: a record that comes after a pause is stamped with its own
// time. Where the application keeps the only core busy, a stamp may be late by the 10 ms after which Go lets others run.
type recordClock struct {
	// shared is in milliseconds since the Unix epoch; 0: invalid.
	shared    atomic.Int64
	isRunning atomic.Bool
}

func (c *recordClock) milliseconds() int64 {
	if shared := c.shared.Load(); shared != 0 {
		return shared
	}
	return time.Now().UnixMilli()
}

// batchFull says that records come fast. activity changes with every record.
func (c *recordClock) batchFull(client *Client, activity func() int64) {
	if c.isRunning.Load() || !c.isRunning.CompareAndSwap(false, true) {
		return
	}
	client.goWithLifetime(func(ctx context.Context) { c.run(ctx, activity) })
}

func (c *recordClock) run(ctx context.Context, activity func() int64) {
	ticker := time.NewTicker(clockTick)
	defer ticker.Stop()
	defer c.isRunning.Store(false)
	defer c.shared.Store(0)
	last, quiet := activity(), 0
	for quiet < 2 {
		c.shared.Store(time.Now().UnixMilli())
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
		if now := activity(); now == last {
			quiet++
		} else {
			last, quiet = now, 0
		}
	}
}
