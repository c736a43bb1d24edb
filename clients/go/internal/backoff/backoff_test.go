package backoff

import (
	"math"
	"testing"
	"time"
)

const ms = time.Millisecond

func TestDoublesToABoundAndRespectsTheServer(t *testing.T) {
	for _, c := range []struct {
		failures int
		jitter   float64
		asks     time.Duration
		want     time.Duration
	}{
		{0, 1, 0, 0},
		{1, 1, 0, 8 * ms},
		{2, 1, 0, 16 * ms},
		{3, 1, 0, 32 * ms},
		{math.MaxInt32, 1, 0, time.Second},
		{1, 0, 0, 4 * ms},
		{1, 0, 300 * ms, 300 * ms},
		{1, 0, 9000 * time.Second, 2 * time.Second}, // a server cannot stop a client for long
	} {
		if got := After(c.failures, c.jitter, c.asks); got != c.want {
			t.Errorf("%+v: %v", c, got)
		}
	}
}

func TestANewerMapIsAskedForOftenAtFirstAndThenMoreAndMoreRarely(t *testing.T) {
	for failures, want := range map[int]time.Duration{
		1: 8 * ms, 2: 16 * ms, 3: 32 * ms, 4: 32 * ms, mapAttempts + 3: 32 * ms, mapAttempts + 4: 64 * ms,
		math.MaxInt32: time.Second,
	} {
		if got := ForMap(failures, 1, 0); got != want {
			t.Errorf("after %d failures: %v, want %v", failures, got, want)
		}
	}
}
