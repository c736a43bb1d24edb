package wire

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math/bits"
)

// Ids and numbers of the protocol, each a type of its own so that they are not mistaken for each other.
type (
	// ClusterID names a cluster; 0: any.
	ClusterID uint64
	// NodeID names a broker process.
	NodeID uint32
	// ShardID names one core of a node.
	ShardID uint16
	// RingID names a ring.
	RingID uint16
	// RangeID numbers a range of a ring.
	RangeID uint32
	// Epoch numbers the configurations of a range's chain; it only grows.
	Epoch uint64
	// TopicID names a topic for ever; never used again.
	TopicID uint64
	// MemberID names a member of a group; 0: nobody.
	MemberID uint64
)

// GatewayShard is the shard that a gateway's hello names.
const GatewayShard ShardID = 65535

// RangeKey names a range in the cluster.
type RangeKey struct {
	Ring  RingID
	Range RangeID
}

func (key RangeKey) String() string { return fmt.Sprintf("%d/%d", key.Ring, key.Range) }

// PartitionKey names a partition in the cluster.
type PartitionKey struct {
	Topic     TopicID
	Partition uint32
}

func (key PartitionKey) String() string {
	return fmt.Sprintf("%016x/%d", uint64(key.Topic), key.Partition)
}

// tokenStep is 2^64 divided by the golden ratio, so that the partitions of a topic land evenly spread over the ring.
const tokenStep = 0x9E37_79B9_7F4A_7C15

// Token is where a partition lies on the ring.
func (key PartitionKey) Token() uint64 {
	return uint64(key.Topic) + uint64(key.Partition)*tokenStep
}

// GroupToken is where a group lies on the cluster's internal ring.
func GroupToken(group string) uint64 {
	digest := sha256.Sum256([]byte(group))
	return binary.LittleEndian.Uint64(digest[:])
}

// RangeOfToken is the range that a token falls into: its top bits. The number of ranges is a power of two.
func RangeOfToken(token uint64, ranges int) RangeID {
	return RangeID(token >> (64 - bits.TrailingZeros(uint(ranges))))
}
