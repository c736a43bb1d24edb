package cluster

import (
	"context"
	"fmt"
	"time"

	"github.com/minikafka/minikafka/clients/go/internal/fault"
	"github.com/minikafka/minikafka/clients/go/internal/wire"
)

// Requests of which nothing is heard although their connection seems to live: their server may have been cut off without a
// trace, and others may own its ranges by now. An answer that is overdue makes the client look at the map, now and then, for
// as long as it takes. When the map names another epoch or another member, nobody waits any longer: the request is over, with
// its outcome unknown.
const (
	// Overdue is after what an answer is overdue, beyond what its server was asked to wait.
	Overdue = 500 * time.Millisecond
	// Look is how often the map is looked at then.
	Look = 200 * time.Millisecond
)

// Addressed is what a request was addressed by.
type Addressed struct {
	Address string
	Range   wire.RangeKey
	Epoch   wire.Epoch
}

// Holds tells whether the map still says so.
func (a *Addressed) Holds(m *Map) bool {
	if m.Epoch(a.Range) > a.Epoch {
		return false
	}
	for _, member := range m.Members(a.Range) {
		if member.Address == a.Address {
			return true
		}
	}
	return false
}

// MovedError is what a request that nobody waits for any longer ends with.
func (a *Addressed) MovedError(m *Map) error {
	reason := fmt.Sprintf("no answer, and range %s is in epoch %d by now", a.Range, m.Epoch(a.Range))
	return &fault.ConnectionError{Address: a.Address, Reason: reason, Lost: true}
}

// Moved returns when after is over and the map, looked at again and again, sends requests like one of these elsewhere; or nil
// when the context has ended.
func (k *Keeper) Moved(ctx context.Context, after time.Duration, addressed []Addressed) error {
	if !Sleep(ctx, after) {
		return nil
	}
	for {
		// Without a gateway, what is known goes on to count.
		m, _ := k.NoOlderThan(ctx, Look)
		for i := range addressed {
			if !addressed[i].Holds(m) {
				return addressed[i].MovedError(m)
			}
		}
		if !Sleep(ctx, Look) {
			return nil
		}
	}
}
