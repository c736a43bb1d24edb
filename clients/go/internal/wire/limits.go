package wire

// The bounds of docs/PROTOCOL.md section 5 and docs/GROUPS.md section 6, in one place.
const (
	// FrameHeadBytesMax bounds the message fields of a frame.
	FrameHeadBytesMax = 16 << 20
	// RequestHeadBytesMax bounds the message fields of a client's request.
	RequestHeadBytesMax = 1 << 20
	// BatchBodyBytesMax bounds one batch body as stored.
	BatchBodyBytesMax = 4 << 20
	// FetchBytesMax bounds the entries of one fetch reply; one entry always fits.
	FetchBytesMax = 16 << 20
	// RequestPartitionsMax bounds the partitions of one request.
	RequestPartitionsMax = 10_000
	// FetchWaitMsMax is the longest wait of a fetch.
	FetchWaitMsMax = 30_000
	// ConnectionInFlightMax bounds the requests in flight on one connection.
	ConnectionInFlightMax = 1024
	// ConnectionInFlightBytesMax bounds their bytes.
	ConnectionInFlightBytesMax = 32 << 20
	// ProducerInFlightMax bounds the unanswered batches of one producer and partition.
	ProducerInFlightMax = 8
	// ChainMax bounds the members of a chain.
	ChainMax = 7
	// ExplainStagesMax bounds the stages of one hop of an explanation.
	ExplainStagesMax = 16
	// TextBytesMax bounds any text.
	TextBytesMax = 1024
	// NameBytesMax bounds the name of a topic, of a group, and of a member's instance.
	NameBytesMax = 249
	// TopicPartitionsMax bounds the partitions of a topic.
	TopicPartitionsMax = 10_000
	// RangesMax bounds the ranges of a ring.
	RangesMax = 65_536
	// HeartbeatWaitMsMax is the longest wait of a group's heartbeat.
	HeartbeatWaitMsMax = 3_000
	// CommitPartitionsMax bounds the partitions of one commit.
	CommitPartitionsMax = 10_000
	// CommitMetadataBytesMax bounds the metadata of one committed offset.
	CommitMetadataBytesMax = 256
)
