// Package minikafka is the Go client of MiniKafka, a durable message broker: it produces, consumes, alone or in a group, and
// administers topics, offsets and groups, over raw TCP and without cgo.
//
// One Client per cluster is enough. New takes options by role: what is for the client as a whole (Gateways), for producing
// (BatchBytes), for consuming (ConsumeTopics) and for members of a group (Group).
//
//	client, err := minikafka.New(minikafka.Gateways("localhost:9000"))
//	if err != nil { … }
//	defer client.Close(context.Background())
//
//	client.Produce(ctx, &minikafka.Record{Topic: "orders", Key: key, Value: value}, func(d minikafka.Delivery, err error) { … })
//
// An acknowledged record is on stable storage of every member of its chain. Records of one partition are stored in the order in
// which they were given to Produce, each once, also when brokers die in between: see docs/PROTOCOL.md, "Riding through".
//
// Every error is an Error: it tells whether the same request may succeed later (IsRetriable) and whether it may have had its
// effect all the same (IsOutcomeUnknown); errors.Is finds the codes of the protocol's table (minikafka.UnknownTopic).
//
// How it is made: internal/wire and internal/batch are the formats, without I/O; internal/produce, internal/fetch and
// internal/member are state machines that decide what is sent when and what an answer means, with time passed in; this package
// and internal/connection drive them. The contract of behaviour is docs/CLIENTS.md.
package minikafka
