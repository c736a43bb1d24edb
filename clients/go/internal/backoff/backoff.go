// Package backoff has the waits between attempts: exponential, jittered, bounded (docs/CLIENTS.md section 1). Pure: the
// jitter is passed in.
package backoff

import (
	"math/bits"
	"math/rand/v2"
	"time"
)

const (
	// first is the wait before the second attempt, before jitter.
	first = 8 * time.Millisecond
	// longest bounds every wait of our own choice; a server may ask for twice as much.
	longest = time.Second
	// mapLongest bounds the waits at first while the map is out of date: a chain is changed within a fraction of a second,
	// and whoever waits doubly long finds out doubly late.
	mapLongest = 32 * time.Millisecond
	// mapAttempts is how often; then waits double again, so that a cluster that stays away is not asked all the time.
	mapAttempts = 32
)

// After is the wait before attempt failures+1: doubles from 8 ms to 1 s, times jitter (0 to 1) mapped to 0.5 to 1, and at
// least what the server asked for, within reason.
func After(failures int, jitter float64, serverAsks time.Duration) time.Duration {
	if failures <= 0 {
		return 0
	}
	doubled := min(first<<min(failures-1, 20), longest)
	wait := time.Duration(float64(doubled) * (0.5 + 0.5*min(max(jitter, 0), 1)))
	return max(wait, min(serverAsks, 2*longest))
}

// ForMap is the wait before attempt failures+1 when a newer map is what is missing.
func ForMap(failures int, jitter float64, serverAsks time.Duration) time.Duration {
	doublings := bits.Len64(uint64(mapLongest/first)) - 1 + 1
	return After(max(min(failures, doublings), failures-mapAttempts), jitter, serverAsks)
}

// Random is After, or ForMap if a newer map is needed, with a random jitter.
func Random(failures int, needsMap bool, serverAsks time.Duration) time.Duration {
	if needsMap {
		return ForMap(failures, rand.Float64(), serverAsks)
	}
	return After(failures, rand.Float64(), serverAsks)
}
