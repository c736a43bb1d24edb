package batch

import (
	"encoding/binary"
	"fmt"
	"math"

	"github.com/minikafka/minikafka/clients/go/internal/wire"
)

// Header is one header of a record. Names are UTF-8 and may repeat.
type Header struct {
	Name  string
	Value []byte
}

// Record is a record to be pushed, or one that was read.
type Record struct {
	// Key, if any: nil is none, an empty key is a key.
	Key []byte
	// Value: nil makes the record a tombstone, an empty value is a value.
	Value []byte
	// Timestamp is the producer's clock, in milliseconds since the Unix epoch.
	Timestamp int64
	// Headers, in order.
	Headers []Header
}

// Bytes counts key, value and headers together.
func (r *Record) Bytes() int {
	bytes := len(r.Key) + len(r.Value)
	for i := range r.Headers {
		bytes += len(r.Headers[i].Name) + len(r.Headers[i].Value)
	}
	return bytes
}

// RecordError tells why no batch can take a record.
type RecordError struct {
	// Bytes of the record, when it has too many; otherwise 0.
	Bytes int
	// Headers of the record, when it has too many; otherwise 0.
	Headers int
}

func (e *RecordError) Error() string {
	if e.Headers > 0 {
		return fmt.Sprintf("a record has %d headers, at most %d are allowed", e.Headers, RecordHeadersMax)
	}
	return fmt.Sprintf("a record has %d bytes of key, value and headers, at most %d are allowed", e.Bytes, RecordBytesMax)
}

// Builder gathers records into the columns of one batch. A column that says nothing yet (no key so far, no tombstone, no
// header, every timestamp the same) does not exist: it appears, filled for the records before, with the first record that
// needs it. So a batch of plain values costs two appends a record.
type Builder struct {
	columns       columns
	records       int
	headers       int
	baseTimestamp int64
	maxTimestamp  int64
	// bound is at least the size of the body: exact sizes are computed only when it leaves doubt.
	bound int
}

// Finished is a batch without its header.
type Finished struct {
	Body              []byte
	Codec             wire.Codec
	UncompressedBytes int
	RecordCount       int
	BaseTimestamp     int64
	MaxTimestamp      int64
}

const (
	// perRecord bounds what a record adds to the columns besides its bytes.
	perRecord = 4 + 4 + 1 + 1 + 8 + 4
	perHeader = 4 + 4
	perBatch  = RootBytes + perRecord + 2*perHeader + 7*int(columnCount)
)

// CheckRecord tells whether an empty batch could take the record.
func CheckRecord(record *Record) error {
	if len(record.Headers) > RecordHeadersMax {
		return &RecordError{Headers: len(record.Headers)}
	}
	if bytes := record.Bytes(); bytes > RecordBytesMax {
		return &RecordError{Bytes: bytes}
	}
	return nil
}

// Push appends a record that CheckRecord has passed, unless the body would get larger than bodyBytesMax: then it tells so, and
// nothing has changed. An empty batch takes any record.
func (b *Builder) Push(record *Record, recordBytes, bodyBytesMax int) bool {
	if b.records == 0 {
		b.begin(record)
	}
	delta := record.Timestamp - b.baseTimestamp
	grown := b.bound + recordBytes + perRecord + perHeader*len(record.Headers)
	if b.records > 0 {
		overflows := (delta < 0) != (record.Timestamp < b.baseTimestamp)
		if overflows || b.records == wire.BatchRecordsMax {
			return false
		}
		if grown > bodyBytesMax && b.bodyBytesWith(record) > bodyBytesMax {
			return false
		}
	}
	b.bound = grown
	b.maxTimestamp = max(b.maxTimestamp, record.Timestamp)
	if record.Key != nil || len(b.columns[KeyOffsets]) > 0 {
		b.pushKey(record.Key)
	}
	if record.Value == nil || len(b.columns[ValueValidity]) > 0 {
		b.columns[ValueValidity] = pushValidity(b.columns[ValueValidity], b.records, record.Value != nil)
	}
	b.columns[Values] = append(b.columns[Values], record.Value...)
	b.columns[ValueOffsets] = putOffset(b.columns[ValueOffsets], len(b.columns[Values]))
	if delta != 0 || len(b.columns[TimestampDeltas]) > 0 {
		b.columns[TimestampDeltas] = growZeros(b.columns[TimestampDeltas], 8*b.records)
		b.columns[TimestampDeltas] = binary.LittleEndian.AppendUint64(b.columns[TimestampDeltas], uint64(delta))
	}
	if len(record.Headers) > 0 || len(b.columns[HeaderCounts]) > 0 {
		b.pushHeaders(record.Headers)
	}
	b.records++
	return true
}

// Records counts the records pushed since the last Finish.
func (b *Builder) Records() int { return b.records }

// BodyBytes is the exact size of the body that Finish would give now.
func (b *Builder) BodyBytes() int {
	var lengths columnLengths
	for column := range b.columns {
		lengths[column] = len(b.columns[column])
	}
	return lengths.bodyBytes()
}

// Finish writes the body into memory, whose contents are dropped, and leaves the builder empty, with its own memory. At least
// one record was pushed.
func (b *Builder) Finish(memory []byte) Finished {
	if b.records == 0 {
		panic("minikafka: a batch must hold a record before it is finished")
	}
	if need := b.BodyBytes(); cap(memory) < need {
		memory = make([]byte, 0, need)
	}
	body := b.columns.appendBody(memory[:0])
	finished := Finished{
		Body:              body,
		UncompressedBytes: len(body),
		RecordCount:       b.records,
		BaseTimestamp:     b.baseTimestamp,
		MaxTimestamp:      b.maxTimestamp,
	}
	b.Clear()
	return finished
}

// Clear forgets every record and keeps the memory.
func (b *Builder) Clear() {
	for column := range b.columns {
		b.columns[column] = b.columns[column][:0]
	}
	b.records, b.headers, b.bound = 0, 0, 0
}

// begin prepares an empty builder for its first record.
func (b *Builder) begin(record *Record) {
	b.columns[ValueOffsets] = putOffset(b.columns[ValueOffsets], 0)
	b.baseTimestamp, b.maxTimestamp = record.Timestamp, math.MinInt64
	b.bound = perBatch
}

// bodyBytesWith is the exact size of the body once record is pushed. Called only near the limit.
func (b *Builder) bodyBytesWith(record *Record) int {
	records := b.records + 1
	ifSo := func(exists bool, bytes int) int {
		if exists {
			return bytes
		}
		return 0
	}
	hasKeys := record.Key != nil || len(b.columns[KeyOffsets]) > 0
	hasAbsentKeys := hasKeys && (record.Key == nil || len(b.columns[KeyValidity]) > 0 ||
		len(b.columns[KeyOffsets]) == 0 && records > 1)
	hasTombstones := record.Value == nil || len(b.columns[ValueValidity]) > 0
	hasTimestamps := record.Timestamp != b.baseTimestamp || len(b.columns[TimestampDeltas]) > 0
	hasHeaders := len(record.Headers) > 0 || len(b.columns[HeaderCounts]) > 0
	headers := b.headers + len(record.Headers)
	names, values := 0, 0
	for i := range record.Headers {
		names += len(record.Headers[i].Name)
		values += len(record.Headers[i].Value)
	}
	bitmap := (records + 7) / 8
	lengths := columnLengths{
		KeyOffsets:         ifSo(hasKeys, 4*(records+1)),
		Keys:               len(b.columns[Keys]) + len(record.Key),
		ValueOffsets:       4 * (records + 1),
		Values:             len(b.columns[Values]) + len(record.Value),
		KeyValidity:        ifSo(hasAbsentKeys, bitmap),
		ValueValidity:      ifSo(hasTombstones, bitmap),
		TimestampDeltas:    ifSo(hasTimestamps, 8*records),
		HeaderCounts:       ifSo(hasHeaders, 4*(records+1)),
		HeaderNameOffsets:  ifSo(hasHeaders, 4*(headers+1)),
		HeaderNames:        len(b.columns[HeaderNames]) + names,
		HeaderValueOffsets: ifSo(hasHeaders, 4*(headers+1)),
		HeaderValues:       len(b.columns[HeaderValues]) + values,
	}
	return lengths.bodyBytes()
}

func (b *Builder) pushKey(key []byte) {
	if len(b.columns[KeyOffsets]) == 0 {
		// The records before had none.
		b.columns[KeyOffsets] = growZeros(b.columns[KeyOffsets], 4*(b.records+1))
		b.columns[KeyValidity] = growZeros(b.columns[KeyValidity], (b.records+7)/8)
	}
	if key == nil || len(b.columns[KeyValidity]) > 0 {
		b.columns[KeyValidity] = pushValidity(b.columns[KeyValidity], b.records, key != nil)
	}
	b.columns[Keys] = append(b.columns[Keys], key...)
	b.columns[KeyOffsets] = putOffset(b.columns[KeyOffsets], len(b.columns[Keys]))
}

func (b *Builder) pushHeaders(headers []Header) {
	c := &b.columns
	if len(c[HeaderCounts]) == 0 {
		c[HeaderCounts] = growZeros(c[HeaderCounts], 4*(b.records+1))
		c[HeaderNameOffsets] = putOffset(c[HeaderNameOffsets], 0)
		c[HeaderValueOffsets] = putOffset(c[HeaderValueOffsets], 0)
	}
	for i := range headers {
		c[HeaderNames] = append(c[HeaderNames], headers[i].Name...)
		c[HeaderNameOffsets] = putOffset(c[HeaderNameOffsets], len(c[HeaderNames]))
		c[HeaderValues] = append(c[HeaderValues], headers[i].Value...)
		c[HeaderValueOffsets] = putOffset(c[HeaderValueOffsets], len(c[HeaderValues]))
	}
	b.headers += len(headers)
	c[HeaderCounts] = putOffset(c[HeaderCounts], b.headers)
}

func putOffset(out []byte, offset int) []byte {
	return binary.LittleEndian.AppendUint32(out, uint32(offset))
}

// growZeros appends zeros until there are length bytes.
func growZeros(out []byte, length int) []byte {
	for len(out) < length {
		out = append(out, zeros[:min(len(zeros), length-len(out))]...)
	}
	return out
}

// pushValidity appends bit index to a bitmap that does not exist as long as every bit is 1.
func pushValidity(validity []byte, index int, present bool) []byte {
	if len(validity) == 0 {
		for range index / 8 {
			validity = append(validity, 0xff)
		}
		if index%8 != 0 {
			validity = append(validity, 1<<(index%8)-1)
		}
	}
	if index%8 == 0 {
		validity = append(validity, 0)
	}
	if present {
		validity[index/8] |= 1 << (index % 8)
	}
	return validity
}

// RecordAloneBytes bounds what a body of this record alone has besides the record's bytes.
func RecordAloneBytes(record *Record) int {
	return perBatch + perRecord + perHeader*len(record.Headers)
}
