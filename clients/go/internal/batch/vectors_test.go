package batch

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"testing"

	"github.com/minikafka/minikafka/clients/go/internal/vectors"
	"github.com/minikafka/minikafka/clients/go/internal/wire"
)

type vectorHeader struct {
	UncompressedBytes uint32 `json:"uncompressed_bytes"`
	RecordCount       uint32 `json:"record_count"`
	BaseOffset        uint64 `json:"base_offset"`
	LastOffsetDelta   uint32 `json:"last_offset_delta"`
	BaseTimestamp     int64  `json:"base_timestamp"`
	MaxTimestamp      int64  `json:"max_timestamp"`
}

func (h *vectorHeader) entry() wire.EntryHeader {
	return wire.EntryHeader{
		Kind: wire.EntryBatch, BodyFormat: wire.BodyColumnar, UncompressedBytes: h.UncompressedBytes, RecordCount: h.RecordCount,
		BaseOffset: h.BaseOffset, LastOffsetDelta: h.LastOffsetDelta, BaseTimestamp: h.BaseTimestamp,
	}
}

type vectorRecord struct {
	Offset    int64               `json:"offset"`
	Timestamp int64               `json:"timestamp"`
	Key       vectors.Hex         `json:"key"`
	Value     vectors.Hex         `json:"value"`
	Headers   [][]json.RawMessage `json:"headers"`
}

type vectorBatch struct {
	Name    string         `json:"name"`
	Built   bool           `json:"built"`
	Header  vectorHeader   `json:"header"`
	Body    vectors.Hex    `json:"body"`
	BodyCRC uint32         `json:"body_crc"`
	Records []vectorRecord `json:"records"`
	Rule    string         `json:"rule"`
	Error   string         `json:"error"`
	Column  string         `json:"column"`
}

func loadBatches(t testing.TB) (file struct{ Valid, Malformed []vectorBatch }) {
	vectors.Load(t, "batches", &file)
	return file
}

func (v *vectorBatch) records(t testing.TB) []Record {
	if v.Rule != "" {
		return recordsByRule()
	}
	records := make([]Record, len(v.Records))
	for i, from := range v.Records {
		records[i] = Record{Key: from.Key, Value: from.Value, Timestamp: from.Timestamp}
		for _, pair := range from.Headers {
			var header Header
			var value vectors.Hex
			if err := errors.Join(json.Unmarshal(pair[0], &header.Name), json.Unmarshal(pair[1], &value)); err != nil {
				t.Fatal(err)
			}
			header.Value = value
			records[i].Headers = append(records[i].Headers, header)
		}
	}
	return records
}

// recordsByRule builds the records that the vector "a thousand records by a rule" describes in words.
func recordsByRule() []Record {
	records := make([]Record, 1000)
	for i := range records {
		record := Record{Timestamp: 1_700_000_000_000 + int64(i) - int64(i%3)*5}
		if i%10 != 3 {
			record.Key = []byte(strconv.Itoa(i % 100))
		}
		if i%50 != 7 {
			record.Value = make([]byte, i*7%40)
			for j := range record.Value {
				record.Value[j] = byte(i + j)
			}
		}
		if i%25 == 0 {
			record.Headers = append(record.Headers, Header{"n", binary.LittleEndian.AppendUint16(nil, uint16(i))})
		}
		if i%100 == 0 {
			record.Headers = append(record.Headers, Header{"é", []byte{}})
		}
		records[i] = record
	}
	return records
}

func build(records []Record) Finished {
	var builder Builder
	for i := range records {
		if !builder.Push(&records[i], records[i].Bytes(), wire.BatchBodyBytesMax) {
			panic(fmt.Sprintf("record %d does not fit", i))
		}
	}
	return builder.Finish(nil)
}

func TestGoldenBatchesAreWritten(t *testing.T) {
	built := 0
	for _, vector := range loadBatches(t).Valid {
		if !vector.Built {
			continue
		}
		built++
		finished := build(vector.records(t))
		if !bytes.Equal(finished.Body, vector.Body) {
			t.Errorf("%s:\n got %x\nwant %x", vector.Name, finished.Body, vector.Body)
		}
		if crc := wire.CRC32C(finished.Body); crc != vector.BodyCRC {
			t.Errorf("%s: checksum %d, want %d", vector.Name, crc, vector.BodyCRC)
		}
		if finished.BaseTimestamp != vector.Header.BaseTimestamp || finished.MaxTimestamp != vector.Header.MaxTimestamp {
			t.Errorf("%s: timestamps %d, %d", vector.Name, finished.BaseTimestamp, finished.MaxTimestamp)
		}
	}
	if built < 10 {
		t.Fatalf("only %d batches were built", built)
	}
}

func TestGoldenBatchesAreRead(t *testing.T) {
	for _, vector := range loadBatches(t).Valid {
		header := vector.Header.entry()
		view, err := Parse(vector.Body, &header)
		if err != nil {
			t.Errorf("%s: %v", vector.Name, err)
			continue
		}
		expected := vector.records(t)
		if view.Len() != len(expected) {
			t.Fatalf("%s: %d records, want %d", vector.Name, view.Len(), len(expected))
		}
		for i := range expected {
			got := Record{view.Key(i), view.Value(i), view.Timestamp(i), view.Headers(i)}
			if !equal(&got, &expected[i]) {
				t.Errorf("%s: record %d is %+v, want %+v", vector.Name, i, got, expected[i])
			}
			if vector.Rule == "" && view.Offset(i) != vector.Records[i].Offset {
				t.Errorf("%s: record %d is at %d, want %d", vector.Name, i, view.Offset(i), vector.Records[i].Offset)
			}
		}
	}
}

// equal tells nil from empty: an absent key is not an empty one.
func equal(a, b *Record) bool {
	same := func(a, b []byte) bool { return (a == nil) == (b == nil) && bytes.Equal(a, b) }
	if !same(a.Key, b.Key) || !same(a.Value, b.Value) || a.Timestamp != b.Timestamp || len(a.Headers) != len(b.Headers) {
		return false
	}
	for i := range a.Headers {
		if a.Headers[i].Name != b.Headers[i].Name || !same(a.Headers[i].Value, b.Headers[i].Value) {
			return false
		}
	}
	return true
}

func TestMalformedBatchesAreRefusedByName(t *testing.T) {
	malformed := loadBatches(t).Malformed
	if len(malformed) < 50 {
		t.Fatalf("only %d malformed batches", len(malformed))
	}
	for _, vector := range malformed {
		header := vector.Header.entry()
		_, err := Parse(vector.Body, &header)
		var refusal *Error
		if !errors.As(err, &refusal) || refusal.Name != vector.Error || refusal.Column != vector.Column {
			t.Errorf("%s: %v, want %s in %q", vector.Name, err, vector.Error, vector.Column)
		}
	}
}
