// Package wire is MiniKafka's protocol without any I/O: frames, the hello, and every message that a client exchanges with
// shards and gateways (docs/PROTOCOL.md, docs/GROUPS.md section 5).
//
// It promises that no bytes from a stranger make it panic, or allocate more than a small multiple of what they are: every
// length is checked against what is there first. It knows nothing of connections, time or retries.
package wire
