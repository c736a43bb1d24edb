package minikafka

import (
	"github.com/minikafka/minikafka/clients/go/internal/errorcode"
	"github.com/minikafka/minikafka/clients/go/internal/fault"
)

// Error is what every error of this package is, besides those of contexts: use errors.As, or IsRetriable and IsOutcomeUnknown.
//
//	type Error interface {
//		error
//		Retriable() bool      // the same request may succeed later
//		OutcomeUnknown() bool // a request that failed this way may have had its effect all the same
//	}
//
// Produce and Poll retry by themselves: an error that they return is either not retriable, or was retried until the deadline.
type Error = fault.Error

// ErrorCode is an error of the protocol's table (docs/PROTOCOL.md section 6), with a Name, an Advice, and whether it is
// Retriable. It is an error itself: errors.Is(err, minikafka.UnknownTopic).
type ErrorCode = errorcode.Code

// BrokerError is an error of the protocol's table, as a server answered it.
//
//	type BrokerError struct {
//		Code       ErrorCode     // errors.Is finds it
//		Message    string        // the server's own sentence; may be empty
//		Epoch      uint64        // for NotOwner and Stale: the epoch to refresh to
//		RetryAfter time.Duration // what the server asks to wait; zero: as you like
//		Target     string        // who answered, or which topic and partition it concerns
//	}
type BrokerError = fault.BrokerError

// ConnectionError says that a connection could not be opened, or ended (Lost) while requests were in flight: their outcome is
// then unknown.
//
//	type ConnectionError struct {
//		Address string
//		Reason  string
//		Lost    bool
//	}
type ConnectionError = fault.ConnectionError

// DeadlineError says that something did not happen in time; errors.Is finds context.DeadlineExceeded in it.
//
//	type DeadlineError struct {
//		What    string
//		Within  time.Duration
//		Unknown bool  // it may have happened all the same
//		Last    error // the failure before the deadline, if there was one
//	}
type DeadlineError = fault.DeadlineError

// MalformedError says that a server sent bytes that are not what the protocol asks for.
//
//	type MalformedError struct {
//		From   string
//		What   string
//		Reason error
//	}
type MalformedError = fault.MalformedError

// NoGatewayError says that no gateway gave the map.
//
//	type NoGatewayError struct {
//		Tried []string
//		Last  error
//	}
type NoGatewayError = fault.NoGatewayError

// RecordError says that a record can never be sent: it is too large, or not valid.
//
//	type RecordError struct {
//		Reason   string
//		Bytes    int // of key, value and headers together
//		BytesMax int // the limit of protocol, topic or memory; 0 when size is not the reason
//	}
type RecordError = fault.RecordError

// PartitionError says that a topic does not have a partition, or that this client does not read it.
//
//	type PartitionError struct {
//		Topic     string
//		Partition int32
//		Reason    string
//	}
type PartitionError = fault.PartitionError

// OutcomeUnknownError says that a batch was sent, its outcome was never learned, and it can no longer be sent again without
// risking a duplicate.
//
//	type OutcomeUnknownError struct {
//		Topic     string
//		Partition int32
//		Reason    error
//	}
type OutcomeUnknownError = fault.OutcomeUnknownError

// DamagedError says that records cannot be read: they are damaged on the broker's disk (Stored; errors.Is finds DataDamaged in
// it), or what came over the network does not match its checksums or structure, repeatedly.
//
//	type DamagedError struct {
//		Topic     string
//		Partition int32
//		First     int64 // the first offset that cannot be read
//		Resume    int64 // the first one behind the damage that can; negative: none is known
//		Stored    bool
//		Reason    string
//	}
type DamagedError = fault.DamagedError

// OptionError says that a setting is outside its range.
//
//	type OptionError struct {
//		Option string
//		Reason string
//	}
type OptionError = fault.OptionError

var (
	// ErrBufferFull is returned by TryProduce when BufferBytes are in use.
	ErrBufferFull = fault.ErrBufferFull
	// ErrClosed is what everything answers after Close.
	ErrClosed = fault.ErrClosed
)

// The codes of the protocol's table. Those up to Throttled are retriable; the client retries them by itself.
const (
	NotOwner               = errorcode.NotOwner
	Stale                  = errorcode.Stale
	PartitionNotReady      = errorcode.PartitionNotReady
	BeyondCommitted        = errorcode.BeyondCommitted
	OutOfOrder             = errorcode.OutOfOrder
	Overloaded             = errorcode.Overloaded
	DiskFull               = errorcode.DiskFull
	BelowMinInSync         = errorcode.BelowMinInSync
	ShuttingDown           = errorcode.ShuttingDown
	TimedOut               = errorcode.TimedOut
	CoordinatorUnavailable = errorcode.CoordinatorUnavailable
	NotController          = errorcode.NotController
	RangeFailed            = errorcode.RangeFailed
	CorruptBatch           = errorcode.CorruptBatch
	UnknownPartition       = errorcode.UnknownPartition
	Throttled              = errorcode.Throttled

	MalformedFrame     = errorcode.MalformedFrame
	UnknownAPI         = errorcode.UnknownAPI
	UnsupportedVersion = errorcode.UnsupportedVersion
	FrameTooLarge      = errorcode.FrameTooLarge
	HelloRequired      = errorcode.HelloRequired
	NotAuthorized      = errorcode.NotAuthorized
	WrongCluster       = errorcode.WrongCluster
	Misdirected        = errorcode.Misdirected
	InvalidBatch       = errorcode.InvalidBatch
	RecordTooLarge     = errorcode.RecordTooLarge
	BatchTooLarge      = errorcode.BatchTooLarge
	UnknownTopic       = errorcode.UnknownTopic
	TopicExists        = errorcode.TopicExists
	InvalidTopicName   = errorcode.InvalidTopicName
	InvalidArgument    = errorcode.InvalidArgument
	OffsetOutOfRange   = errorcode.OffsetOutOfRange
	Moved              = errorcode.Moved
	Unsupported        = errorcode.Unsupported
	DuplicateSequence  = errorcode.DuplicateSequence
	UnknownProducer    = errorcode.UnknownProducer
	ProducerFenced     = errorcode.ProducerFenced
	NotAssigned        = errorcode.NotAssigned
	MemberFenced       = errorcode.MemberFenced
	UnknownMember      = errorcode.UnknownMember
	UnknownGroup       = errorcode.UnknownGroup
	GroupNotEmpty      = errorcode.GroupNotEmpty
	DataDamaged        = errorcode.DataDamaged
	Internal           = errorcode.Internal
)

// IsRetriable tells whether the same request may succeed later.
func IsRetriable(err error) bool { return fault.Retriable(err) }

// IsOutcomeUnknown tells whether what failed this way may have had its effect all the same: a record may be stored.
func IsOutcomeUnknown(err error) bool { return fault.OutcomeUnknown(err) }

// CodeOf is the code that a server answered with, if that is why err is; otherwise 0.
func CodeOf(err error) ErrorCode { return fault.Code(err) }
