package minikafka

import (
	"time"

	"github.com/minikafka/minikafka/clients/go/internal/compression"
	"github.com/minikafka/minikafka/clients/go/internal/wire"
)

type producerSettings struct {
	defaultTopic       string
	batchBytesMax      int
	linger             time.Duration
	sendWhenIdle       bool
	bufferBytesMax     int
	deliveryTimeout    time.Duration
	requestTimeout     time.Duration
	inFlightMax        int
	idempotent         bool
	manualPartitioning bool
	compression        compression.Codec
	explain            bool
}

func defaultProducerSettings() producerSettings {
	return producerSettings{
		batchBytesMax:   256 << 10,
		linger:          5 * time.Millisecond,
		sendWhenIdle:    true,
		bufferBytesMax:  64 << 20,
		deliveryTimeout: 2 * time.Minute,
		requestTimeout:  30 * time.Second,
		inFlightMax:     wire.ProducerInFlightMax,
		idempotent:      true,
	}
}

// DefaultTopic is the topic of records that name none. Default: none; such records fail.
func DefaultTopic(topic string) ProducerOption {
	return producerOption(func(s *settings) { s.producer.defaultTopic = topic })
}

// BatchBytes is how large the body of a batch, uncompressed, gets before the batch is sent. 1 KiB to 4 MiB; the topic's own limit and
// a single larger record go first. Default: 256 KiB.
func BatchBytes(bytes int) ProducerOption {
	return producerOption(func(s *settings) { s.producer.batchBytesMax = bytes })
}

// Linger is after what time a batch is sent at the latest, counted from its first record. Default: 5 ms.
func Linger(linger time.Duration) ProducerOption {
	return producerOption(func(s *settings) { s.producer.linger = linger })
}

// SendWhenIdle sends a batch at once when nothing of its partition is in flight, whatever Linger says: lowest latency at low
// rates, and batches grow with the rate. Default: true.
func SendWhenIdle(send bool) ProducerOption {
	return producerOption(func(s *settings) { s.producer.sendWhenIdle = send })
}

// BufferBytes bounds the bytes of records that are accepted and not stored yet; past it, Produce waits. 1 KiB to 2 GiB.
// Default: 64 MiB.
func BufferBytes(bytes int) ProducerOption {
	return producerOption(func(s *settings) { s.producer.bufferBytesMax = bytes })
}

// DeliveryTimeout bounds the time from acceptance to success or failure, retries included. Then the record fails, and the error
// says whether it may be stored all the same. Default: 2 min.
func DeliveryTimeout(timeout time.Duration) ProducerOption {
	return producerOption(func(s *settings) { s.producer.deliveryTimeout = timeout })
}

// ProduceRequestTimeout bounds one attempt of one batch; then its outcome is unknown, and it is sent again. Default: 30 s.
func ProduceRequestTimeout(timeout time.Duration) ProducerOption {
	return producerOption(func(s *settings) { s.producer.requestTimeout = timeout })
}

// InFlight bounds the batches of one partition in flight, 1 to 8. Without idempotence it counts as 1, because a retry would
// otherwise overtake. Default: 8.
func InFlight(batches int) ProducerOption {
	return producerOption(func(s *settings) { s.producer.inFlightMax = batches })
}

// DisableIdempotence stops numbering records: a retry after a lost answer may then be stored twice. Default: records are
// numbered, and each is stored once.
func DisableIdempotence() ProducerOption {
	return producerOption(func(s *settings) { s.producer.idempotent = false })
}

// ManualPartitioning makes Record.Partition say where each record goes. Default: by the key (CRC-32 modulo the number of
// partitions); without a key, one partition at a time, another one for the next batch.
func ManualPartitioning() ProducerOption {
	return producerOption(func(s *settings) { s.producer.manualPartitioning = true })
}

// CompressLZ4 compresses batches with LZ4; one that would not get smaller is sent as it is. Default: no compression.
func CompressLZ4() ProducerOption {
	return producerOption(func(s *settings) { s.producer.compression = compression.Codec{Kind: wire.CodecLZ4} })
}

// CompressZstd compresses batches with Zstandard; one that would not get smaller is sent as it is. Level is 1 to 22, as in the
// reference implementation; the encoder has four levels of its own, and takes the nearest. Default: no compression.
func CompressZstd(level int) ProducerOption {
	return producerOption(func(s *settings) {
		s.producer.compression = compression.Codec{Kind: wire.CodecZstd, Level: level}
	})
}

// ExplainProduces asks the brokers where the time of each batch goes: Delivery.Explain. Costs a kilobyte a batch. Default: nobody is
// asked.
func ExplainProduces() ProducerOption {
	return producerOption(func(s *settings) { s.producer.explain = true })
}

func (s *producerSettings) check() error {
	if s.batchBytesMax < 1<<10 || s.batchBytesMax > wire.BatchBodyBytesMax {
		return refuse("BatchBytes", "it must be 1 KiB to 4 MiB")
	}
	if s.bufferBytesMax < 1<<10 || s.bufferBytesMax > 2<<30 {
		return refuse("BufferBytes", "it must be 1 KiB to 2 GiB")
	}
	if s.inFlightMax < 1 || s.inFlightMax > wire.ProducerInFlightMax {
		return refuse("InFlight", "it must be 1 to 8")
	}
	if s.deliveryTimeout <= 0 || s.requestTimeout <= 0 || s.linger < 0 {
		return refuse("DeliveryTimeout, ProduceRequestTimeout, Linger", "they must not be negative, time-outs not zero")
	}
	if s.compression.Kind == wire.CodecZstd && (s.compression.Level < 1 || s.compression.Level > 22) {
		return refuse("CompressZstd", "the level must be 1 to 22")
	}
	return nil
}
