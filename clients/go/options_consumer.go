package minikafka

import (
	"time"

	"github.com/minikafka/minikafka/clients/go/internal/fetch"
	"github.com/minikafka/minikafka/clients/go/internal/wire"
)

type consumerSettings struct {
	topics            []string
	partitions        map[string][]int32
	start             start
	startOffsets      map[TopicPartition]int64
	prefetchBytesMax  int
	partitionBytesMax int
	fetchWait         time.Duration
	fetchBytesMin     int
	readFrom          fetch.ReadFrom
	rack              string
	outOfRange        OutOfRangePolicy
	skipDamage        bool
	explain           bool
}

// TopicPartition names a partition of a topic.
//
//	type TopicPartition struct {
//		Topic     string
//		Partition int32
//	}
type TopicPartition = fetch.TopicPartition

// Skipped are records that were left out under OnDamage(SkipDamage): those of a partition from offset From to before To.
//
//	type Skipped struct {
//		TopicPartition
//		From, To int64
//	}
type Skipped = fetch.Skipped

type startKind int

const (
	startEarliest startKind = iota
	startLatest
	startOffset
	startTime
)

type start struct {
	kind   startKind
	offset int64
	time   time.Time
}

// OutOfRangePolicy says what happens to a position that lies below the log's start (deleted by retention) or beyond its end.
type OutOfRangePolicy int

// The policies.
const (
	// OutOfRangeError: the partition fails with OffsetOutOfRange, and stands still until a seek.
	OutOfRangeError OutOfRangePolicy = iota
	// OutOfRangeEarliest: it goes on with the first record that is there.
	OutOfRangeEarliest
	// OutOfRangeLatest: it goes on with the next record that is written.
	OutOfRangeLatest
)

// DamagePolicy says what happens at records that are damaged on the broker's disk.
type DamagePolicy int

// The policies.
const (
	// StopAtDamage: the partition fails with a *DamagedError, and stands still until a seek.
	StopAtDamage DamagePolicy = iota
	// SkipDamage: it goes on with the first record behind the damage that can be read; Client.Skipped tells what was left out.
	SkipDamage
)

func defaultConsumerSettings() consumerSettings {
	return consumerSettings{
		startOffsets:      map[TopicPartition]int64{},
		prefetchBytesMax:  32 << 20,
		partitionBytesMax: 1 << 20,
		fetchWait:         500 * time.Millisecond,
		fetchBytesMin:     1,
	}
}

// ConsumeTopics names the topics to read, all partitions of them, or in a group those that are assigned. Default: none.
func ConsumeTopics(topics ...string) ConsumerOption {
	return consumerOption(func(s *settings) { s.consumer.topics = append(s.consumer.topics, topics...) })
}

// ConsumePartitions names partitions of a topic to read; not in a group. Default: none.
func ConsumePartitions(topic string, partitions ...int32) ConsumerOption {
	return consumerOption(func(s *settings) {
		if s.consumer.partitions == nil {
			s.consumer.partitions = map[string][]int32{}
		}
		s.consumer.partitions[topic] = append(s.consumer.partitions[topic], partitions...)
	})
}

// StartEarliest begins at the first record that is there. This is the default.
func StartEarliest() ConsumerOption {
	return consumerOption(func(s *settings) { s.consumer.start = start{kind: startEarliest} })
}

// StartLatest begins behind the last committed record. In a group it counts where there is no commit, as all of these do.
func StartLatest() ConsumerOption {
	return consumerOption(func(s *settings) { s.consumer.start = start{kind: startLatest} })
}

// StartAtOffset begins at this offset, in every partition; not in a group.
func StartAtOffset(offset int64) ConsumerOption {
	return consumerOption(func(s *settings) { s.consumer.start = start{kind: startOffset, offset: offset} })
}

// StartAtTime begins at the first batch that was appended at or after this time, by the brokers' clocks; not in a group.
func StartAtTime(t time.Time) ConsumerOption {
	return consumerOption(func(s *settings) { s.consumer.start = start{kind: startTime, time: t} })
}

// StartPartitionAt begins at this offset in one partition, whatever else is said; not in a group.
func StartPartitionAt(topic string, partition int32, offset int64) ConsumerOption {
	return consumerOption(func(s *settings) {
		s.consumer.startOffsets[TopicPartition{Topic: topic, Partition: partition}] = offset
	})
}

// PrefetchBytes bounds the fetched bytes that wait for the application, requests under way included; one batch (4 MiB) per
// shard may come on top. At least 64 KiB. Default: 32 MiB.
func PrefetchBytes(bytes int) ConsumerOption {
	return consumerOption(func(s *settings) { s.consumer.prefetchBytesMax = bytes })
}

// PartitionFetchBytes bounds the bytes of one partition in one fetch. 4 KiB to 16 MiB. Default: 1 MiB.
func PartitionFetchBytes(bytes int) ConsumerOption {
	return consumerOption(func(s *settings) { s.consumer.partitionBytesMax = bytes })
}

// FetchWait is how long a shard may hold a fetch that has fewer than FetchMinBytes. At most 30 s. Default: 500 ms.
func FetchWait(wait time.Duration) ConsumerOption {
	return consumerOption(func(s *settings) { s.consumer.fetchWait = wait })
}

// ExplainFetches asks the brokers where the time of each fetch goes: Batch.Explain. Default: nobody is asked.
func ExplainFetches() ConsumerOption {
	return consumerOption(func(s *settings) { s.consumer.explain = true })
}

// FetchMinBytes is how many bytes a shard waits for, at most for FetchWait. Default: 1.
func FetchMinBytes(bytes int) ConsumerOption {
	return consumerOption(func(s *settings) { s.consumer.fetchBytesMin = bytes })
}

// ReadFromNearest reads from a member of a chain in this rack (as brokers are told by --rack) if there is one, which spares the
// traffic between racks. A member that cannot be reached, or lags behind what was read already, is left alone for some seconds.
// Default: records are read from the heads.
func ReadFromNearest(rack string) ConsumerOption {
	return consumerOption(func(s *settings) { s.consumer.readFrom, s.consumer.rack = fetch.ReadFromNearest, rack })
}

// ReadFromAny spreads the partitions over the members of their chains, which spares the heads of topics that many read.
// Default: records are read from the heads.
func ReadFromAny() ConsumerOption {
	return consumerOption(func(s *settings) { s.consumer.readFrom = fetch.ReadFromAny })
}

// OutOfRange says what happens to a position that does not exist. Default: OutOfRangeError.
func OutOfRange(policy OutOfRangePolicy) ConsumerOption {
	return consumerOption(func(s *settings) { s.consumer.outOfRange = policy })
}

// OnDamage says what happens at records that are damaged on the broker's disk. Default: StopAtDamage.
func OnDamage(policy DamagePolicy) ConsumerOption {
	return consumerOption(func(s *settings) { s.consumer.skipDamage = policy == SkipDamage })
}

func (s *consumerSettings) consumes() bool { return len(s.topics) > 0 || len(s.partitions) > 0 }

func (s *consumerSettings) check() error {
	if s.prefetchBytesMax < 64<<10 {
		return refuse("PrefetchBytes", "it must be at least 64 KiB")
	}
	if s.partitionBytesMax < 4<<10 || s.partitionBytesMax > wire.FetchBytesMax {
		return refuse("PartitionFetchBytes", "it must be 4 KiB to 16 MiB")
	}
	if s.fetchWait < 0 || s.fetchWait > wire.FetchWaitMsMax*time.Millisecond {
		return refuse("FetchWait", "it must be at most 30 s")
	}
	if s.fetchBytesMin < 0 || s.fetchBytesMin > wire.FetchBytesMax {
		return refuse("FetchMinBytes", "it must be 0 to 16 MiB")
	}
	if s.start.kind == startOffset && s.start.offset < 0 {
		return refuse("StartAtOffset", "it must not be negative")
	}
	return nil
}

func (s *consumerSettings) fetchSettings() fetch.Settings {
	return fetch.Settings{
		PrefetchBytesMax: s.prefetchBytesMax, PartitionBytesMax: s.partitionBytesMax, Wait: s.fetchWait,
		BytesMin: uint32(max(s.fetchBytesMin, 1)), OutOfRange: fetch.OutOfRange(s.outOfRange), SkipDamage: s.skipDamage,
		ReadFrom: s.readFrom, Rack: s.rack,
	}
}
