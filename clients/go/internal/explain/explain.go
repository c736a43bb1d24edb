// Package explain is what became of one request, as its client saw it.
package explain

import (
	"time"

	"github.com/minikafka/minikafka/clients/go/internal/wire"
)

// Explain says where the time of one produce or fetch went.
type Explain struct {
	// RoundTrip is from handing the request to its connection until the reply was here, by this client's clock.
	RoundTrip time.Duration
	// Hops are who worked on it: the shard that was asked, and of a produce the members behind it in the chain, in order.
	Hops []Hop
}

// Hop is what one shard says of a request; times are of its own clock. One without stages could not tell.
type Hop struct {
	Node  int32
	Shard int32
	// Whole is from the request's arrival until its answer was queued.
	Whole time.Duration
	// Stages are in the order in which they ended.
	Stages []Stage
}

// Stage is one stage of a hop, by its name in docs/PROTOCOL.md; "other" is one that a later release knows.
type Stage struct {
	Name string
	// Start is since the hop began.
	Start, Took time.Duration
}

// Took is how long the stage of this name took, however often it came; 0 when it did not.
func (h *Hop) Took(name string) (took time.Duration) {
	for _, stage := range h.Stages {
		if stage.Name == name {
			took += stage.Took
		}
	}
	return took
}

// Of is what the hops of a reply tell that is here now.
func Of(sentAt time.Time, told []wire.Hop) *Explain {
	us := func(us uint32) time.Duration { return time.Duration(us) * time.Microsecond }
	hops := make([]Hop, len(told))
	for i, hop := range told {
		stages := make([]Stage, len(hop.Stages))
		for at, span := range hop.Stages {
			stages[at] = Stage{wire.StageName(span.Stage), us(span.StartUs), us(span.TookUs)}
		}
		hops[i] = Hop{int32(hop.Node), int32(hop.Shard), us(hop.WholeUs), stages}
	}
	return &Explain{time.Since(sentAt), hops}
}
