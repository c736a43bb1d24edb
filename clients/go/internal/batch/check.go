package batch

import (
	"encoding/binary"
	"unicode/utf8"
)

// The rules that a received body must keep, one function each. No loop costs more than one pass over its column.

// cut reads the root and cuts the columns out of the body; only their places are verified.
func cut(body []byte) (columns, error) {
	var c columns
	if len(body) < RootBytes {
		return c, refuse("short", "%d bytes, the root alone takes %d", len(body), RootBytes)
	}
	data, root := body[:len(body)-RootBytes], body[len(body)-RootBytes:]
	end := 0
	for column := Column(0); column < columnCount; column++ {
		field := root[column*8:]
		relative := int64(int32(binary.LittleEndian.Uint32(field)))
		elements := int64(binary.LittleEndian.Uint32(field[4:]))
		start := int64(len(data)) + int64(column)*8 + relative
		stop := start + elements*int64(elementBytes[column])
		if start < 0 || stop > int64(len(data)) {
			return c, refuseColumn(column, "column_outside", "bytes %d to %d of %d", start, stop, len(data))
		}
		if start < int64(end) {
			return c, refuseColumn(column, "column_overlaps", "it begins at %d, its predecessor ends at %d", start, end)
		}
		if place := column.placeAfter(end); int(start) != place {
			return c, refuseColumn(column, "column_misplaced", "it begins at %d, its place is %d", start, place)
		}
		for _, gap := range data[end:start] {
			if gap != 0 {
				return c, refuseColumn(column, "gap_not_zero", "the gap before it hides something")
			}
		}
		c[column] = data[start:stop:stop]
		end = int(stop)
	}
	if end != len(data) {
		return c, refuse("root_misplaced", "the columns end at %d, the root begins at %d", end, len(data))
	}
	return c, nil
}

func word(column []byte, index int) int { return int(binary.LittleEndian.Uint32(column[4*index:])) }

// checkLength holds the number of elements against what follows from the header.
func (c *columns) checkLength(column Column, expected int) error {
	if found := len(c[column]) / elementBytes[column]; found != expected {
		return refuseColumn(column, "column_length", "%d elements, not %d", found, expected)
	}
	return nil
}

func (c *columns) checkLengthOrEmpty(column Column, expected int) error {
	if len(c[column]) == 0 {
		return nil
	}
	return c.checkLength(column, expected)
}

// checkRunning holds totals to start at 0 and never to decrease; the result is the last one.
func (c *columns) checkRunning(column Column) (int, error) {
	totals := c[column]
	if len(totals) == 0 {
		return 0, nil
	}
	before := int32(binary.LittleEndian.Uint32(totals))
	if before != 0 {
		return 0, refuseColumn(column, "offsets_start", "it starts at %d", before)
	}
	// The sign is set when any element is negative or below its predecessor: two elements that are not negative cannot
	// overflow in their difference. No early exit, so that the loop stays tight.
	signs := int32(0)
	for rest := totals[4:]; len(rest) >= 4; rest = rest[4:] {
		after := int32(binary.LittleEndian.Uint32(rest))
		signs |= after | (after - before)
		before = after
	}
	if signs < 0 {
		return 0, refuseColumn(column, "offsets_decrease", "an element is below its predecessor")
	}
	return int(before), nil
}

// checkBinary holds an offset column against its data, and its bitmap, if it has one, against both.
func (c *columns) checkBinary(offsets, data, validity Column) error {
	if len(c[offsets]) == 0 {
		if err := c.checkLength(data, 0); err != nil {
			return err
		}
	}
	last, err := c.checkRunning(offsets)
	if err != nil {
		return err
	}
	if last != len(c[data]) {
		return refuseColumn(offsets, "offsets_end", "it ends at %d, its data at %d", last, len(c[data]))
	}
	if validity == columnCount {
		return nil
	}
	elements := max(len(c[offsets])/4-1, 0)
	if err := c.checkLengthOrEmpty(validity, (elements+7)/8); err != nil {
		return err
	}
	return c.checkValidity(validity, offsets, elements)
}

// checkValidity refuses bits beyond the last record, and absent records that have bytes.
func (c *columns) checkValidity(validity, offsets Column, elements int) error {
	bitmap := c[validity]
	if len(bitmap) == 0 {
		return nil
	}
	if elements%8 != 0 && bitmap[len(bitmap)-1]>>(elements%8) != 0 {
		return refuseColumn(validity, "validity_beyond", "a bit is set beyond the last record")
	}
	for at, bits := range bitmap {
		if bits == 0xff {
			continue
		}
		for index := at * 8; index < min(at*8+8, elements); index++ {
			if bits>>(index%8)&1 == 0 && word(c[offsets], index) != word(c[offsets], index+1) {
				return refuseColumn(validity, "absent_with_bytes", "record %d", index)
			}
		}
	}
	return nil
}

// checkTimestamps holds base + delta to 64 bits.
func (c *columns) checkTimestamps(base int64) error {
	// A sum overflows exactly when its sign differs from both terms' signs.
	signs := int64(0)
	for rest := c[TimestampDeltas]; len(rest) >= 8; rest = rest[8:] {
		delta := int64(binary.LittleEndian.Uint64(rest))
		sum := base + delta
		signs |= (sum ^ base) & (sum ^ delta)
	}
	if signs < 0 {
		return refuseColumn(TimestampDeltas, "timestamp_overflow", "a timestamp leaves the 64 bits")
	}
	return nil
}

// checkHeaders verifies the five header columns.
func (c *columns) checkHeaders(records int) error {
	if err := c.checkLengthOrEmpty(HeaderCounts, records+1); err != nil {
		return err
	}
	headers, err := c.checkRunning(HeaderCounts)
	if err != nil {
		return err
	}
	offsetsLength := 0
	if len(c[HeaderCounts]) > 0 {
		offsetsLength = headers + 1
		for record := range records {
			if count := word(c[HeaderCounts], record+1) - word(c[HeaderCounts], record); count > RecordHeadersMax {
				return refuse("record_headers", "record %d has %d", record, count)
			}
		}
	}
	for _, column := range [...]Column{HeaderNameOffsets, HeaderValueOffsets} {
		if err := c.checkLength(column, offsetsLength); err != nil {
			return err
		}
	}
	if err := c.checkBinary(HeaderNameOffsets, HeaderNames, columnCount); err != nil {
		return err
	}
	if err := c.checkBinary(HeaderValueOffsets, HeaderValues, columnCount); err != nil {
		return err
	}
	return c.checkHeaderNames()
}

// checkHeaderNames holds each name to be UTF-8 by itself: the whole is, and no name is cut inside of a character.
func (c *columns) checkHeaderNames() error {
	names := c[HeaderNames]
	if !utf8.Valid(names) {
		return refuseColumn(HeaderNames, "header_name_utf8", "the names are not UTF-8")
	}
	for index := range len(c[HeaderNameOffsets]) / 4 {
		if at := word(c[HeaderNameOffsets], index); at < len(names) && !utf8.RuneStart(names[at]) {
			return refuseColumn(HeaderNames, "header_name_utf8", "name %d begins inside of a character", index)
		}
	}
	return nil
}

// checkOffsetDeltas verifies the deltas, and the last one against the header's.
func (c *columns) checkOffsetDeltas(records int, lastOffsetDelta uint32) error {
	if err := c.checkLengthOrEmpty(OffsetDeltas, records); err != nil {
		return err
	}
	deltas, last := c[OffsetDeltas], uint32(records-1)
	if len(deltas) > 0 {
		last = binary.LittleEndian.Uint32(deltas)
		if last != 0 {
			return refuseColumn(OffsetDeltas, "offsets_start", "it starts at %d", last)
		}
		for rest := deltas[4:]; len(rest) >= 4; rest = rest[4:] {
			next := binary.LittleEndian.Uint32(rest)
			if next <= last {
				return refuseColumn(OffsetDeltas, "offsets_decrease", "%d follows %d", next, last)
			}
			last = next
		}
	}
	if last != lastOffsetDelta {
		return refuse("last_offset_delta", "the last record is at %d, its header announces %d", last, lastOffsetDelta)
	}
	return nil
}

// checkRecordBytes refuses a record that is larger than allowed; a body that is small as a whole needs no look.
func (c *columns) checkRecordBytes(records int) error {
	if len(c[Keys])+len(c[Values])+len(c[HeaderNames])+len(c[HeaderValues]) <= RecordBytesMax {
		return nil
	}
	span := func(column Column, start, end int) int {
		if len(c[column]) == 0 {
			return 0
		}
		return word(c[column], end) - word(c[column], start)
	}
	for record := range records {
		bytes := span(KeyOffsets, record, record+1) + span(ValueOffsets, record, record+1)
		if len(c[HeaderCounts]) > 0 {
			first, end := word(c[HeaderCounts], record), word(c[HeaderCounts], record+1)
			bytes += span(HeaderNameOffsets, first, end) + span(HeaderValueOffsets, first, end)
		}
		if bytes > RecordBytesMax {
			return refuse("record_bytes", "record %d has %d bytes, at most %d are allowed", record, bytes, RecordBytesMax)
		}
	}
	return nil
}
