package minikafka

import "github.com/minikafka/minikafka/clients/go/internal/explain"

// Explain says where the time of one produce or fetch went: see ExplainProduces and ExplainFetches.
//
//	type Explain struct {
//		// RoundTrip is from handing the request to its connection until the reply was here, by this client's clock.
//		RoundTrip time.Duration
//		// Hops are the shard that was asked, and of a produce the members behind it in the chain, in order.
//		Hops []Hop
//	}
type Explain = explain.Explain

// Hop is what one shard says of a request, by its own clock. One without stages could not tell. Took adds up the stages of a
// name.
//
//	type Hop struct {
//		Node, Shard int32
//		// Whole is from the request's arrival until its answer was queued.
//		Whole  time.Duration
//		Stages []Stage
//	}
type Hop = explain.Hop

// Stage is one stage of a hop, by its name in docs/PROTOCOL.md; "other" is one that a later release knows.
//
//	type Stage struct {
//		Name        string
//		Start, Took time.Duration
//	}
type Stage = explain.Stage
