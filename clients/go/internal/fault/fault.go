// Package fault is what can go wrong, in one small tree: what happened, to what, and what to do. The package minikafka
// exports its types under the same names.
package fault

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/minikafka/minikafka/clients/go/internal/errorcode"
)

// Error is what every error of the client is.
type Error interface {
	error
	// Retriable tells whether the same request may succeed later.
	Retriable() bool
	// OutcomeUnknown tells whether a request that failed this way may have had its effect all the same.
	OutcomeUnknown() bool
}

// ErrBufferFull is returned by a send that does not wait, when the producer's memory is full.
var ErrBufferFull error = bufferFull{}

type bufferFull struct{}

func (bufferFull) Error() string {
	return "the producer's memory is full: use the call that waits, or raise BufferBytes"
}
func (bufferFull) Retriable() bool      { return true }
func (bufferFull) OutcomeUnknown() bool { return false }

// ErrClosed is what everything answers after Close.
var ErrClosed error = closed{}

type closed struct{}

func (closed) Error() string        { return "the client is closed" }
func (closed) Retriable() bool      { return false }
func (closed) OutcomeUnknown() bool { return false }

// BrokerError is an error of the protocol's table, as a server answered it.
type BrokerError struct {
	Code       errorcode.Code
	Message    string
	Epoch      uint64
	RetryAfter time.Duration
	Target     string
}

func (e *BrokerError) Error() string {
	advice := e.Code.Advice()
	if e.Message == "" || e.Message == advice {
		return fmt.Sprintf("%s: %s. %s", e.Target, e.Code.Name(), advice)
	}
	return fmt.Sprintf("%s: %s: %s. %s", e.Target, e.Code.Name(), e.Message, advice)
}

// Unwrap makes errors.Is(err, code) work.
func (e *BrokerError) Unwrap() error { return e.Code }

// Retriable is as the table says.
func (e *BrokerError) Retriable() bool { return e.Code.Retriable() }

// OutcomeUnknown is true where a server may have done what it was asked for before it answered this. When in doubt it did: a
// batch that a sealed head had appended may survive the change of epoch that its stale speaks of.
func (e *BrokerError) OutcomeUnknown() bool {
	switch e.Code {
	case errorcode.Stale, errorcode.TimedOut, errorcode.ShuttingDown, errorcode.BelowMinInSync, errorcode.RangeFailed,
		errorcode.DuplicateSequence, errorcode.DataDamaged, errorcode.Internal:
		return true
	default:
		return false
	}
}

// Broker is a BrokerError about target, with the code's own advice as its message.
func Broker(code errorcode.Code, format string, values ...any) *BrokerError {
	return &BrokerError{Code: code, Target: fmt.Sprintf(format, values...)}
}

// ConnectionError says that a connection could not be opened, or ended while requests were in flight.
type ConnectionError struct {
	Address string
	Reason  string
	// Lost: it was open. Requests in flight may have been carried out.
	Lost bool
}

func (e *ConnectionError) Error() string {
	if e.Lost {
		return fmt.Sprintf("connection to %s lost: %s. The outcome of requests in flight is unknown; sending again is safe", e.Address, e.Reason)
	}
	return fmt.Sprintf("cannot connect to %s: %s. Check that the server runs and that this address is reachable", e.Address, e.Reason)
}

// Retriable is true: servers come back, and others take over.
func (e *ConnectionError) Retriable() bool { return true }

// OutcomeUnknown is true for a connection that was open.
func (e *ConnectionError) OutcomeUnknown() bool { return e.Lost }

// DeadlineError says that something did not happen in time.
type DeadlineError struct {
	What    string
	Within  time.Duration
	Unknown bool
	// Last is the failure before the deadline, if there was one.
	Last error
}

func (e *DeadlineError) Error() string {
	text := fmt.Sprintf("%s did not finish within %s", e.What, e.Within)
	if e.Last != nil {
		text += fmt.Sprintf(" (last failure: %v)", e.Last)
	}
	if e.Unknown {
		return text + "; it may have happened all the same"
	}
	return text + "; nothing was changed"
}

// Unwrap leads to context.DeadlineExceeded, and to the last failure.
func (e *DeadlineError) Unwrap() []error {
	if e.Last != nil {
		return []error{context.DeadlineExceeded, e.Last}
	}
	return []error{context.DeadlineExceeded}
}

// Retriable is true.
func (e *DeadlineError) Retriable() bool { return true }

// OutcomeUnknown tells whether it may have happened all the same.
func (e *DeadlineError) OutcomeUnknown() bool { return e.Unknown }

// MalformedError says that a server sent bytes that are not what the protocol asks for.
type MalformedError struct {
	From   string
	What   string
	Reason error
}

func (e *MalformedError) Error() string {
	return fmt.Sprintf("%s sent a malformed %s: %v. Check that both ends run compatible releases", e.From, e.What, e.Reason)
}

// Unwrap leads to what is wrong with it.
func (e *MalformedError) Unwrap() error { return e.Reason }

// Retriable is false.
func (e *MalformedError) Retriable() bool { return false }

// OutcomeUnknown is true.
func (e *MalformedError) OutcomeUnknown() bool { return true }

// NoGatewayError says that no gateway gave the map.
type NoGatewayError struct {
	Tried []string
	Last  error
}

func (e *NoGatewayError) Error() string {
	return fmt.Sprintf("none of the gateways %v answered; the last one said: %v. Check their addresses and that one runs", e.Tried, e.Last)
}

// Unwrap leads to the last failure.
func (e *NoGatewayError) Unwrap() error { return e.Last }

// Retriable is true.
func (e *NoGatewayError) Retriable() bool { return true }

// OutcomeUnknown is false.
func (e *NoGatewayError) OutcomeUnknown() bool { return false }

// RecordError says that a record can never be sent.
type RecordError struct {
	Reason string
	// Bytes of key, value and headers together, and BytesMax the limit of protocol, topic or memory; 0 for other reasons.
	Bytes    int
	BytesMax int
}

func (e *RecordError) Error() string {
	if e.BytesMax > 0 {
		return fmt.Sprintf("record has %d bytes, at most %d are allowed: split it, or store it elsewhere and send a reference", e.Bytes, e.BytesMax)
	}
	return "record is not valid: " + e.Reason
}

// Retriable is false.
func (e *RecordError) Retriable() bool { return false }

// OutcomeUnknown is false.
func (e *RecordError) OutcomeUnknown() bool { return false }

// PartitionError says that a topic does not have a partition, or that this client does not read it.
type PartitionError struct {
	Topic     string
	Partition int32
	Reason    string
}

func (e *PartitionError) Error() string {
	return fmt.Sprintf("topic %s partition %d: %s", e.Topic, e.Partition, e.Reason)
}

// Retriable is false.
func (e *PartitionError) Retriable() bool { return false }

// OutcomeUnknown is false.
func (e *PartitionError) OutcomeUnknown() bool { return false }

// OutcomeUnknownError says that a batch was sent, its outcome was never learned, and it can no longer be sent again without
// risking a duplicate.
type OutcomeUnknownError struct {
	Topic     string
	Partition int32
	Reason    error
}

func (e *OutcomeUnknownError) Error() string {
	return fmt.Sprintf("topic %s partition %d: batch may or may not be stored (%v). Read the partition to find out, or send it again and accept a duplicate",
		e.Topic, e.Partition, e.Reason)
}

// Unwrap leads to what made the client give up.
func (e *OutcomeUnknownError) Unwrap() error { return e.Reason }

// Retriable is false.
func (e *OutcomeUnknownError) Retriable() bool { return false }

// OutcomeUnknown is true.
func (e *OutcomeUnknownError) OutcomeUnknown() bool { return true }

// DamagedError says that records cannot be read: fetched bytes do not match their checksums or structure, repeatedly, or
// the broker's disk is damaged.
type DamagedError struct {
	Topic     string
	Partition int32
	// First is the first offset that cannot be read.
	First int64
	// Resume is the first one behind the damage that can be read; negative: none is known.
	Resume int64
	// Stored: damaged on the broker's disk. Otherwise what came over the network does not hold together.
	Stored bool
	Reason string
}

func (e *DamagedError) Error() string {
	where := fmt.Sprintf("topic %s partition %d offset %d", e.Topic, e.Partition, e.First)
	if !e.Stored {
		return where + ": fetched data are damaged (" + e.Reason + "). Repair the log, or seek past it"
	}
	until := "and nothing behind it can be read"
	if e.Resume >= 0 {
		until = fmt.Sprintf("up to before %d", e.Resume)
	}
	return fmt.Sprintf("%s: records are damaged on the broker's disk, %s. The broker's log names file and place: restore the file from a backup, or go on without them with OnDamage(SkipDamage)", where, until)
}

// Is makes errors.Is(err, data_damaged) work for what is damaged where it is stored.
func (e *DamagedError) Is(target error) bool { return e.Stored && target == errorcode.DataDamaged }

// Retriable is false.
func (e *DamagedError) Retriable() bool { return false }

// OutcomeUnknown is false.
func (e *DamagedError) OutcomeUnknown() bool { return false }

// OptionError says that a setting is outside its range.
type OptionError struct {
	Option string
	Reason string
}

func (e *OptionError) Error() string { return "option " + e.Option + " is not valid: " + e.Reason }

// Retriable is false.
func (e *OptionError) Retriable() bool { return false }

// OutcomeUnknown is false.
func (e *OptionError) OutcomeUnknown() bool { return false }

// Code is the protocol's code in an error's chain, if a server answered with one.
func Code(err error) errorcode.Code {
	var broker *BrokerError
	if errors.As(err, &broker) {
		return broker.Code
	}
	return errorcode.None
}

// Retriable tells whether the same request may succeed later.
func Retriable(err error) bool {
	var typed Error
	return errors.As(err, &typed) && typed.Retriable()
}

// OutcomeUnknown tells whether what failed may have had its effect all the same.
func OutcomeUnknown(err error) bool {
	var typed Error
	return errors.As(err, &typed) && typed.OutcomeUnknown()
}

// WantsRefresh tells whether the map that led to the request may be out of date.
func WantsRefresh(err error) bool {
	switch e := err.(type) {
	case *BrokerError:
		switch e.Code {
		case errorcode.NotOwner, errorcode.Stale, errorcode.UnknownPartition, errorcode.ShuttingDown, errorcode.RangeFailed,
			errorcode.BelowMinInSync, errorcode.TimedOut, errorcode.PartitionNotReady:
			return true
		}
		return false
	case *ConnectionError, *DeadlineError:
		return true
	default:
		return false
	}
}

// RetryAfter is how long the server asked to wait.
func RetryAfter(err error) time.Duration {
	var broker *BrokerError
	if errors.As(err, &broker) {
		return broker.RetryAfter
	}
	return 0
}
