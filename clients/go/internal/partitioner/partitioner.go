// Package partitioner chooses the partition of a record: by its key, or one after the other without a key. Pure.
package partitioner

import (
	"hash/crc32"
	"time"
)

// OfKey is the partition of a key: IEEE CRC-32 modulo the number of partitions, which is librdkafka's consistent
// partitioner, and the same in every language.
func OfKey(key []byte, partitions int32) int32 {
	return int32(crc32.ChecksumIEEE(key) % uint32(partitions))
}

// stayMax is how long records without a key stay with a partition, at the end of a batch.
const stayMax = 20 * time.Millisecond

// Sticky chooses the partition of records without a key. They stick to one while a batch of it fills, so that batches are
// large (KIP-480). The next one is chosen when a batch leaves after enough bytes or enough time (KIP-794): at high rates a
// batch that left early, because nothing was in flight, does not scatter the records over ever more tiny batches; at low
// rates every record that comes alone goes to another partition.
type Sticky struct {
	partitions int32
	bytesMax   int
	current    int32
	bytes      int
	since      time.Time
}

// NewSticky begins at a partition, best a random one, so that producers do not move in step.
func NewSticky(first, partitions int32, bytesMax int, now time.Time) Sticky {
	return Sticky{partitions: partitions, bytesMax: bytesMax, current: first % partitions, since: now}
}

// Current is the choice.
func (s *Sticky) Current() int32 { return s.current }

// BatchLeft says that a batch of a partition has left with so many bytes.
func (s *Sticky) BatchLeft(partition int32, bytes int, now time.Time) {
	if partition != s.current {
		return
	}
	s.bytes += bytes
	if s.bytes >= s.bytesMax || now.Sub(s.since) >= stayMax {
		s.bytes, s.since = 0, now
		s.current = (partition + 1) % s.partitions
	}
}
