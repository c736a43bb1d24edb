package minikafka_test

import (
	"context"
	"runtime"
	"testing"

	minikafka "github.com/minikafka/minikafka/clients/go"
)

// allocationsPerRecordMax is far below one: what is allocated is allocated per batch of some thousand records, in the client
// and, because the whole process is counted, in its goroutines.
const allocationsPerRecordMax = 0.05

// bytesPerRecordMax is below the 100 bytes of a value: the memory of batches is used again.
const bytesPerRecordMax = 90

func nothingIsAllocatedPerRecord(t *testing.T, gateway string) {
	const records = 100_000
	ctx := context.Background()
	// Little memory, so that it is used again and again.
	client := newClient(t, gateway, minikafka.BufferBytes(4<<20))
	value, key := make([]byte, 100), []byte("some key")
	record := minikafka.Record{Topic: "allocations", Key: key, Value: value}
	promise := func(_ minikafka.Delivery, err error) {
		if err != nil {
			t.Error(err)
		}
	}
	produce := func() { client.Produce(ctx, &record, promise) }
	for range records { // the recycled memory is made
		produce()
	}
	if err := client.Flush(ctx); err != nil {
		t.Fatal(err)
	}
	if per := testing.AllocsPerRun(records, produce); per != 0 {
		t.Errorf("Produce allocates %v times for a record", per)
	}
	checkAllocations(t, "produce", records, func() {
		for range records {
			produce()
		}
		if err := client.Flush(ctx); err != nil {
			t.Fatal(err)
		}
	})
	reader := newClient(t, gateway, minikafka.ConsumeTopics("allocations"))
	batch, err := reader.Poll(ctx)
	if err != nil {
		t.Fatal(err)
	}
	read, bytes := batch.Len(), 0
	checkAllocations(t, "consume", 2*records, func() {
		for read < 2*records {
			batch, err := reader.Poll(ctx)
			if err != nil {
				t.Fatal(err)
			}
			for i := range batch.Len() {
				record := batch.Record(i)
				bytes += len(record.Key) + len(record.Value)
			}
			read += batch.Len()
			batch.Release()
		}
	})
}

func checkAllocations(t *testing.T, what string, records int, run func()) {
	t.Helper()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	run()
	runtime.ReadMemStats(&after)
	per := float64(after.Mallocs-before.Mallocs) / float64(records)
	bytes := float64(after.TotalAlloc-before.TotalAlloc) / float64(records)
	t.Logf("%s: %.4f allocations and %.1f bytes for a record", what, per, bytes)
	if bytes > bytesPerRecordMax {
		t.Errorf("%s: %.1f bytes are allocated for a record, at most %v are allowed", what, bytes, bytesPerRecordMax)
	}
	if per > allocationsPerRecordMax {
		t.Errorf("%s: %.4f allocations for a record, at most %v are allowed", what, per, allocationsPerRecordMax)
	}
}
