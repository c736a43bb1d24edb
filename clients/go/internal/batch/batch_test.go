package batch

import (
	"bytes"
	"errors"
	"math"
	"math/rand"
	"strings"
	"testing"

	"github.com/minikafka/minikafka/clients/go/internal/wire"
)

func headerOf(finished Finished) wire.EntryHeader {
	return wire.EntryHeader{
		Kind: wire.EntryBatch, BodyFormat: wire.BodyColumnar, UncompressedBytes: uint32(finished.UncompressedBytes),
		RecordCount: uint32(finished.RecordCount), LastOffsetDelta: uint32(finished.RecordCount - 1),
		BaseTimestamp: finished.BaseTimestamp,
	}
}

// randomRecords is seeded, so that a failure replays.
func randomRecords(seed int64) []Record {
	random := rand.New(rand.NewSource(seed))
	bytesOrNil := func() []byte {
		if random.Intn(3) == 0 {
			return nil
		}
		out := make([]byte, random.Intn(20))
		random.Read(out)
		return out
	}
	records := make([]Record, 1+random.Intn(40))
	plain := random.Intn(2) == 0
	for i := range records {
		records[i] = Record{Value: []byte("v"), Timestamp: 5}
		if plain {
			continue
		}
		records[i] = Record{Key: bytesOrNil(), Value: bytesOrNil(), Timestamp: random.Int63n(100)}
		for range random.Intn(3) * random.Intn(2) {
			records[i].Headers = append(records[i].Headers, Header{"grün", append([]byte{}, bytesOrNil()...)})
		}
	}
	return records
}

func TestWhatIsBuiltIsReadAndSizesAreExact(t *testing.T) {
	for seed := range int64(2000) {
		records := randomRecords(seed)
		var builder Builder
		for i := range records {
			exact := builder.bodyBytesWith(&records[i])
			if builder.records == 0 {
				exact = 0
			}
			if !builder.Push(&records[i], records[i].Bytes(), wire.BatchBodyBytesMax) {
				t.Fatalf("seed %d: record %d does not fit", seed, i)
			}
			if exact != 0 && exact != builder.BodyBytes() {
				t.Fatalf("seed %d: record %d: foretold %d bytes, now %d", seed, i, exact, builder.BodyBytes())
			}
			if builder.bound < builder.BodyBytes() {
				t.Fatalf("seed %d: the bound %d is below the size %d", seed, builder.bound, builder.BodyBytes())
			}
		}
		finished := builder.Finish(nil)
		header := headerOf(finished)
		view, err := Parse(finished.Body, &header)
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		for i := range records {
			got := Record{view.Key(i), view.Value(i), view.Timestamp(i), view.Headers(i)}
			if !equal(&got, &records[i]) {
				t.Fatalf("seed %d: record %d is %+v, want %+v", seed, i, got, records[i])
			}
		}
	}
}

func TestABuilderIsFullExactlyAtItsLimit(t *testing.T) {
	record := Record{Value: bytes.Repeat([]byte{1}, 100), Timestamp: 7}
	var builder Builder
	for builder.Push(&record, 100, 4000) {
	}
	if size := builder.BodyBytes(); size > 4000 || size+104 < 4000 {
		t.Fatalf("full at %d bytes of 4000", size)
	}
	before := builder.BodyBytes()
	if builder.Push(&record, 100, 4000) || builder.BodyBytes() != before {
		t.Fatal("a refused record has changed the batch")
	}
	large := Record{Value: make([]byte, 5000)}
	builder.Clear()
	if !builder.Push(&large, 5000, 4000) {
		t.Fatal("an empty batch takes any record")
	}
}

func TestTimestampsTooFarApartDoNotShareABatch(t *testing.T) {
	var builder Builder
	first, second := Record{Timestamp: math.MinInt64}, Record{Timestamp: math.MaxInt64}
	if !builder.Push(&first, 0, 4000) || builder.Push(&second, 0, 4000) {
		t.Fatal("the difference does not fit in 64 bits")
	}
}

func TestRecordsThatNoBatchTakes(t *testing.T) {
	for _, record := range []Record{
		{Key: make([]byte, 1), Value: make([]byte, RecordBytesMax)},
		{Headers: make([]Header, RecordHeadersMax+1)},
		{Headers: []Header{{Name: strings.Repeat("n", RecordBytesMax+1)}}},
	} {
		var refusal *RecordError
		if err := CheckRecord(&record); !errors.As(err, &refusal) {
			t.Errorf("not refused: %v", err)
		}
	}
	if err := CheckRecord(&Record{Value: make([]byte, RecordBytesMax)}); err != nil {
		t.Error(err)
	}
}

// The two refusals that the golden vectors leave out, because no body or a large one is needed.
func TestRefusalsWithoutAVector(t *testing.T) {
	finished := build([]Record{{Value: make([]byte, RecordBytesMax)}})
	header := headerOf(finished)
	control := header
	control.Kind = wire.EntryControl
	_, err := Parse(finished.Body, &control)
	var refusal *Error
	if !errors.As(err, &refusal) || refusal.Name != "not_columnar" {
		t.Error(err)
	}
	var builder Builder
	builder.Push(&Record{Key: []byte{1}, Value: make([]byte, RecordBytesMax)}, RecordBytesMax+1, wire.BatchBodyBytesMax)
	finished = builder.Finish(nil)
	header = headerOf(finished)
	if _, err = Parse(finished.Body, &header); !errors.As(err, &refusal) || refusal.Name != "record_bytes" {
		t.Error(err)
	}
}

func TestPositionsWithinABatchWithGaps(t *testing.T) {
	for _, vector := range loadBatches(t).Valid {
		header := vector.Header.entry()
		view, err := Parse(vector.Body, &header)
		if err != nil {
			t.Fatal(err)
		}
		for offset := view.Offset(0) - 2; offset <= view.Offset(view.Len()-1)+2; offset++ {
			first := view.FirstAtOrAfter(offset)
			if first < view.Len() && view.Offset(first) < offset || first > 0 && view.Offset(first-1) >= offset {
				t.Fatalf("%s: the first at or after %d is not %d", vector.Name, offset, first)
			}
		}
	}
}

func TestPushingAndReadingDoNotAllocate(t *testing.T) {
	record := Record{Key: []byte("key"), Value: bytes.Repeat([]byte{1}, 100), Timestamp: 7}
	var builder Builder
	var memory []byte
	fill := func() {
		for range 1000 {
			builder.Push(&record, 103, wire.BatchBodyBytesMax)
		}
		memory = builder.Finish(memory).Body
	}
	fill()
	if allocations := testing.AllocsPerRun(20, fill); allocations != 0 {
		t.Errorf("a batch of 1000 records took %v allocations", allocations)
	}
	var builder2 Builder
	for range 1000 {
		builder2.Push(&record, 103, wire.BatchBodyBytesMax)
	}
	finished := builder2.Finish(nil)
	header := headerOf(finished)
	read := func() {
		view, err := Parse(finished.Body, &header)
		if err != nil {
			t.Fatal(err)
		}
		for i := range view.Len() {
			if len(view.Key(i)) != 3 || len(view.Value(i)) != 100 {
				t.Fatal(i)
			}
		}
	}
	if allocations := testing.AllocsPerRun(20, read); allocations != 0 {
		t.Errorf("reading 1000 records took %v allocations", allocations)
	}
}

func FuzzParse(f *testing.F) {
	file := loadBatches(f)
	for _, vector := range append(file.Valid, file.Malformed...) {
		if len(vector.Body) < 2000 {
			header := vector.Header
			f.Add([]byte(vector.Body), header.RecordCount, header.LastOffsetDelta, header.BaseTimestamp)
		}
	}
	f.Fuzz(func(t *testing.T, body []byte, records, lastOffsetDelta uint32, baseTimestamp int64) {
		header := wire.EntryHeader{
			Kind: wire.EntryBatch, BodyFormat: wire.BodyColumnar, UncompressedBytes: uint32(len(body)),
			RecordCount: records, LastOffsetDelta: lastOffsetDelta, BaseTimestamp: baseTimestamp,
		}
		view, err := Parse(body, &header)
		if err != nil {
			return
		}
		var builder Builder
		gaps := false
		for i := range view.Len() {
			record := Record{view.Key(i), view.Value(i), view.Timestamp(i), view.Headers(i)}
			gaps = gaps || view.Offset(i) != int64(i)
			if !builder.Push(&record, record.Bytes(), 1<<30) {
				return
			}
		}
		// What was read is read again from what a builder makes of it.
		finished := builder.Finish(nil)
		again := headerOf(finished)
		if _, err := Parse(finished.Body, &again); err != nil {
			t.Fatalf("built again it is not valid: %v", err)
		}
	})
}

func BenchmarkPush100Bytes(b *testing.B) {
	record := Record{Value: bytes.Repeat([]byte{1}, 100), Timestamp: 7}
	var builder Builder
	var memory []byte
	b.ReportAllocs()
	for range b.N {
		if !builder.Push(&record, 100, 256<<10) {
			memory = builder.Finish(memory).Body
			builder.Push(&record, 100, 256<<10)
		}
	}
}

func BenchmarkRead100Bytes(b *testing.B) {
	record := Record{Value: bytes.Repeat([]byte{1}, 100), Timestamp: 7}
	var builder Builder
	for builder.Push(&record, 100, 256<<10) {
	}
	finished := builder.Finish(nil)
	header := headerOf(finished)
	b.ReportAllocs()
	for n := 0; n < b.N; {
		view, err := Parse(finished.Body, &header)
		if err != nil {
			b.Fatal(err)
		}
		for i := range view.Len() {
			n += len(view.Value(i)) / 100
		}
	}
}
