package minikafka_test

import (
	"context"
	"encoding/binary"
	"sync/atomic"
	"testing"
	"time"

	minikafka "github.com/minikafka/minikafka/clients/go"
	"github.com/minikafka/minikafka/clients/go/internal/brokertest"
)

// A broker dies by SIGKILL in the middle of a stream of records, again and again, and comes back. Every record is acknowledged in
// the end; each is there once, and those of a partition in the order in which they were sent. A consumer reads along all the time,
// and rides through the same.
func TestNothingIsLostOrDoubledWhenTheBrokerIsKilled(t *testing.T) {
	checkLeaks(t)
	const records, kills = 60_000, 3
	broker := brokertest.Start(t)
	ctx := testContext(t)
	client := newClient(t, broker.Gateway, minikafka.BatchBytes(4<<10), minikafka.BufferBytes(256<<10))
	if _, err := client.CreateTopic(ctx, minikafka.NewTopic{Name: "crash", Partitions: 4}); err != nil {
		t.Fatal(err)
	}
	var acknowledged, failed atomic.Int64
	produced := make(chan error, 1)
	go func() {
		value := make([]byte, 100)
		for i := range records {
			binary.LittleEndian.PutUint64(value, uint64(i))
			client.Produce(ctx, &minikafka.Record{Topic: "crash", Key: value[:2], Value: value}, func(_ minikafka.Delivery, err error) {
				if err != nil {
					failed.Add(1)
					t.Errorf("record not delivered: %v", err)
				}
				acknowledged.Add(1)
			})
		}
		produced <- client.Flush(ctx)
	}()
	reading := make(chan map[uint64]int, 1)
	go func() { reading <- readAlong(ctx, t, broker.Gateway, records) }()
	for kill := range kills {
		await(t, "some records to be acknowledged", func() bool { return acknowledged.Load() > int64((kill+1)*records/8) })
		broker.Kill()
		broker.Restart()
	}
	if err := <-produced; err != nil {
		t.Fatal(err)
	}
	if client.Counters().ProduceRetries == 0 {
		t.Error("nothing was sent again: the kills came too late to test anything")
	}
	if acknowledged.Load() != records || failed.Load() != 0 {
		t.Fatalf("%d of %d acknowledged, %d failed", acknowledged.Load(), records, failed.Load())
	}
	checkOnce(t, "the consumer that read along", <-reading, records)
	fresh := map[uint64]int{}
	last := map[int32]uint64{}
	for _, record := range readAll(t, broker.Gateway, records, minikafka.ConsumeTopics("crash")) {
		number := binary.LittleEndian.Uint64(record.Value)
		fresh[number]++
		if before, ok := last[record.Partition]; ok && number <= before {
			t.Fatalf("partition %d: record %d follows %d", record.Partition, number, before)
		}
		last[record.Partition] = number
	}
	checkOnce(t, "a fresh consumer", fresh, records)
	ends, err := client.LatestOffsets(ctx, "crash")
	if err != nil {
		t.Fatal(err)
	}
	total := int64(0)
	for _, end := range ends {
		total += end
	}
	if total != records {
		t.Errorf("%d records are stored, %d were sent", total, records)
	}
}

func readAlong(ctx context.Context, t *testing.T, gateway string, records int) map[uint64]int {
	seen := map[uint64]int{}
	client, err := minikafka.New(minikafka.Gateways(gateway), minikafka.Logger(quiet), minikafka.ConsumeTopics("crash"))
	if err != nil {
		t.Error(err)
		return seen
	}
	defer client.Close(ctx)
	for read := 0; read < records; {
		batch, err := client.Poll(ctx)
		if err != nil {
			t.Errorf("after %d records: %v", read, err)
			return seen
		}
		for i := range batch.Len() {
			seen[binary.LittleEndian.Uint64(batch.Value(i))]++
		}
		read += batch.Len()
	}
	return seen
}

func checkOnce(t *testing.T, who string, seen map[uint64]int, records int) {
	t.Helper()
	if len(seen) != records {
		t.Errorf("%s has seen %d of %d records", who, len(seen), records)
	}
	for number, times := range seen {
		if times != 1 {
			t.Errorf("%s has seen record %d %d times", who, number, times)
			return
		}
	}
}

// await waits for a condition, looking often; the test fails when it does not come true in time.
func await(t testing.TB, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(deadline); !holds(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}
