// Package batch writes and reads batch bodies: columns, as docs/DATA_FILE.md section 1 draws them.
//
//	0        key_offsets | keys | value_offsets | … | offset_deltas     each aligned to its element, gaps zero
//	end-104  root: 13 × (i32 position relative to this field, u32 elements), in the same order
//	end
//
// A Builder gives exactly the bytes of every other language's encoder; Parse proves every rule of the format once, and after
// it no accessor can fail. Bytes come from strangers: nothing here panics, reads outside of the body, or allocates by what a
// length claims. The package knows nothing of compression, checksums or topics.
package batch

import "encoding/binary"

// RootBytes is the size of the root, which ends every body.
const RootBytes = int(columnCount) * 8

// Bounds of a record (docs/DATA_FILE.md section 1).
const (
	// RecordBytesMax bounds key, value and headers of a record together.
	RecordBytesMax = 2 << 20
	// RecordHeadersMax bounds the headers of a record.
	RecordHeadersMax = 1024
)

// Column is a column by its place in the root.
type Column int

// The columns, in the order of the root and of the data.
const (
	KeyOffsets Column = iota
	Keys
	ValueOffsets
	Values
	KeyValidity
	ValueValidity
	TimestampDeltas
	HeaderCounts
	HeaderNameOffsets
	HeaderNames
	HeaderValueOffsets
	HeaderValues
	OffsetDeltas
	columnCount
)

var columnNames = [columnCount]string{
	"key_offsets", "keys", "value_offsets", "values", "key_validity", "value_validity", "timestamp_deltas", "header_counts",
	"header_name_offsets", "header_names", "header_value_offsets", "header_values", "offset_deltas",
}

// elementBytes is the size of one element of each column, which is also what its data are aligned to.
var elementBytes = [columnCount]int{4, 1, 4, 1, 1, 1, 8, 4, 4, 1, 4, 1, 4}

func (column Column) String() string { return columnNames[column] }

// placeAfter is where the column's data begin when the column before it ends at end.
func (column Column) placeAfter(end int) int {
	alignment := elementBytes[column]
	return (end + alignment - 1) &^ (alignment - 1)
}

// columns are the data of each column, as bytes.
type columns [columnCount][]byte

// columnLengths are the bytes of each column: all that the size of a body depends on.
type columnLengths [columnCount]int

func (lengths *columnLengths) bodyBytes() int {
	end := 0
	for column := Column(0); column < columnCount; column++ {
		end = column.placeAfter(end) + lengths[column]
	}
	// The root is aligned to 4, which the last column, of 4-byte elements, sees to.
	return end + RootBytes
}

var zeros [8]byte

// appendBody writes the body of these columns into out, which is empty.
func (c *columns) appendBody(out []byte) []byte {
	var places [columnCount]int
	for column := Column(0); column < columnCount; column++ {
		places[column] = column.placeAfter(len(out))
		out = append(out, zeros[:places[column]-len(out)]...)
		out = append(out, c[column]...)
	}
	root := len(out)
	for column := Column(0); column < columnCount; column++ {
		relative := places[column] - (root + int(column)*8)
		out = binary.LittleEndian.AppendUint32(out, uint32(int32(relative)))
		out = binary.LittleEndian.AppendUint32(out, uint32(len(c[column])/elementBytes[column]))
	}
	return out
}
