package batch

import (
	"encoding/binary"

	"github.com/minikafka/minikafka/clients/go/internal/wire"
)

// View is a validated body, read where it lies.
type View struct {
	columns       columns
	records       int
	baseOffset    int64
	baseTimestamp int64
	// headers are those of the whole batch, made at once, so that a record with headers costs no allocation of its own.
	headers []Header
}

// Parse validates body, which is uncompressed, against its header. Its checksum is the caller's to verify. The error is an
// *Error.
func Parse(body []byte, header *wire.EntryHeader) (View, error) {
	if header.Kind != wire.EntryBatch || header.BodyFormat != wire.BodyColumnar {
		return View{}, refuse("not_columnar", "kind %d, body format %d", header.Kind, header.BodyFormat)
	}
	if len(body) != int(header.UncompressedBytes) {
		return View{}, refuse("body_bytes", "%d bytes, its header announces %d", len(body), header.UncompressedBytes)
	}
	if header.RecordCount == 0 || header.RecordCount > wire.BatchRecordsMax {
		return View{}, refuse("record_count", "%d records, a batch holds 1 to %d", header.RecordCount, wire.BatchRecordsMax)
	}
	c, err := cut(body)
	if err != nil {
		return View{}, err
	}
	records := int(header.RecordCount)
	view := View{columns: c, records: records, baseOffset: int64(header.BaseOffset), baseTimestamp: header.BaseTimestamp}
	if err := c.check(records, header); err != nil {
		return View{}, err
	}
	view.headers = c.readHeaders()
	return view, nil
}

func (c *columns) check(records int, header *wire.EntryHeader) error {
	if err := c.checkLength(ValueOffsets, records+1); err != nil {
		return err
	}
	if err := c.checkLengthOrEmpty(KeyOffsets, records+1); err != nil {
		return err
	}
	if err := c.checkLengthOrEmpty(TimestampDeltas, records); err != nil {
		return err
	}
	if err := c.checkTimestamps(header.BaseTimestamp); err != nil {
		return err
	}
	if err := c.checkBinary(KeyOffsets, Keys, KeyValidity); err != nil {
		return err
	}
	if err := c.checkBinary(ValueOffsets, Values, ValueValidity); err != nil {
		return err
	}
	if err := c.checkHeaders(records); err != nil {
		return err
	}
	if err := c.checkOffsetDeltas(records, header.LastOffsetDelta); err != nil {
		return err
	}
	return c.checkRecordBytes(records)
}

// Len counts the records.
func (v *View) Len() int { return v.records }

// Offset is the offset of the record at index.
func (v *View) Offset(index int) int64 {
	if deltas := v.columns[OffsetDeltas]; len(deltas) > 0 {
		return v.baseOffset + int64(word(deltas, index))
	}
	return v.baseOffset + int64(index)
}

// Timestamp is the producer's clock of the record at index.
func (v *View) Timestamp(index int) int64 {
	if deltas := v.columns[TimestampDeltas]; len(deltas) > 0 {
		return v.baseTimestamp + int64(binary.LittleEndian.Uint64(deltas[8*index:]))
	}
	return v.baseTimestamp
}

// Key is the key of the record at index, nil when it has none. It aliases the body.
func (v *View) Key(index int) []byte {
	if len(v.columns[KeyOffsets]) == 0 {
		return nil
	}
	return element(v.columns[KeyOffsets], v.columns[Keys], v.columns[KeyValidity], index)
}

// Value is the value of the record at index, nil for a tombstone. It aliases the body.
func (v *View) Value(index int) []byte {
	return element(v.columns[ValueOffsets], v.columns[Values], v.columns[ValueValidity], index)
}

func element(offsets, data, validity []byte, index int) []byte {
	if len(validity) > 0 && validity[index/8]>>(index%8)&1 == 0 {
		return nil
	}
	// Both offsets in one load: the high half of the word is the end.
	both := binary.LittleEndian.Uint64(offsets[4*index:])
	start, end := uint32(both), uint32(both>>32)
	return data[start:end:end]
}

// Headers are the headers of the record at index, nil when it has none. Their values alias the body; the names do not.
func (v *View) Headers(index int) []Header {
	counts := v.columns[HeaderCounts]
	if len(counts) == 0 {
		return nil
	}
	start, end := word(counts, index), word(counts, index+1)
	if start == end {
		return nil
	}
	return v.headers[start:end:end]
}

func (c *columns) readHeaders() []Header {
	if len(c[HeaderCounts]) == 0 {
		return nil
	}
	names := string(c[HeaderNames])
	headers := make([]Header, len(c[HeaderNameOffsets])/4-1)
	for i := range headers {
		start, end := word(c[HeaderNameOffsets], i), word(c[HeaderNameOffsets], i+1)
		headers[i] = Header{Name: names[start:end], Value: element(c[HeaderValueOffsets], c[HeaderValues], nil, i)}
	}
	return headers
}

// FirstAtOrAfter is the index of the first record whose offset is at least offset; Len when there is none.
func (v *View) FirstAtOrAfter(offset int64) int {
	// Without compaction the guess is right; with it, offsets grow faster than indexes.
	first := int(min(max(offset-v.baseOffset, 0), int64(v.records)))
	for first > 0 && v.Offset(first-1) >= offset {
		first--
	}
	return first
}
