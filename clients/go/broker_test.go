package minikafka_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"testing"
	"time"

	minikafka "github.com/minikafka/minikafka/clients/go"
	"github.com/minikafka/minikafka/clients/go/internal/brokertest"
)

// deadline bounds everything that a test waits for.
const deadline = 30 * time.Second

func testContext(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	t.Cleanup(cancel)
	return ctx
}

func newClient(t testing.TB, gateway string, options ...minikafka.Option) *minikafka.Client {
	t.Helper()
	all := append([]minikafka.Option{minikafka.Gateways(gateway), minikafka.Logger(quiet)}, options...)
	client, err := minikafka.New(all...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), deadline)
		defer cancel()
		_ = client.Close(ctx)
	})
	return client
}

// readAll reads so many records of a topic from its beginning.
func readAll(t testing.TB, gateway string, count int, options ...minikafka.Option) []minikafka.Record {
	t.Helper()
	ctx := testContext(t)
	client := newClient(t, gateway, options...)
	records := make([]minikafka.Record, 0, count)
	for len(records) < count {
		batch, err := client.Poll(ctx)
		if err != nil {
			t.Fatalf("%d of %d records read: %v", len(records), count, err)
		}
		for i := range batch.Len() {
			records = append(records, batch.Record(i))
		}
	}
	return records
}

func TestAgainstABroker(t *testing.T) {
	checkLeaks(t)
	broker := brokertest.Start(t)
	for name, test := range map[string]func(*testing.T, string){
		"codecs, headers, nulls, sizes": everyKindOfRecordComesBack,
		"keyed order":                   recordsOfOneKeyKeepTheirOrder,
		"start by time":                 readingBeginsAtATime,
		"topics":                        topicsAreAdministered,
		"offsets":                       offsetsAreLookedUpAndRecordsDeleted,
		"control of reading":            readingIsControlled,
		"errors":                        errorsTellWhatToDo,
		"manual partitions":             applicationsChoosePartitions,
		"many clients":                  manyProducersShareATopic,
		"allocations":                   nothingIsAllocatedPerRecord,
	} {
		t.Run(name, func(t *testing.T) { test(t, broker.Gateway) })
	}
	broker.Kill()
}

func everyKindOfRecordComesBack(t *testing.T, gateway string) {
	for codec, option := range map[string]minikafka.Option{
		"none": minikafka.BatchBytes(64 << 10), "lz4": minikafka.CompressLZ4(), "zstd": minikafka.CompressZstd(3),
	} {
		t.Run(codec, func(t *testing.T) {
			topic := "kinds-" + codec
			client := newClient(t, gateway, option, minikafka.DefaultTopic(topic))
			stamp := time.UnixMilli(1_600_000_000_123)
			sent := []*minikafka.Record{
				{Value: []byte("plain")},
				{Key: []byte("key"), Value: []byte("value"), Timestamp: stamp},
				{Key: []byte("tombstone")},
				{Key: []byte{}, Value: []byte{}},
				{},
				{Value: []byte("v"), Headers: []minikafka.Header{{Name: "größe", Value: []byte{0, 1}}, {Name: "größe", Value: []byte{}}, {}}},
				{Key: []byte("large"), Value: bytes.Repeat([]byte("0123456789abcdef"), 1<<16)},
			}
			for i := range 2000 {
				sent = append(sent, &minikafka.Record{Key: []byte(strconv.Itoa(i)), Value: bytes.Repeat([]byte{byte(i)}, i%300)})
			}
			results, err := client.ProduceSync(testContext(t), sent...)
			if err != nil {
				t.Fatal(err)
			}
			type place struct {
				partition int32
				offset    int64
			}
			read := map[place]minikafka.Record{}
			for _, record := range readAll(t, gateway, len(sent), minikafka.ConsumeTopics(topic)) {
				read[place{record.Partition, record.Offset}] = record
			}
			for i, result := range results {
				got, ok := read[place{result.Delivery.Partition, result.Delivery.Offset}]
				if !ok || !sameRecord(sent[i], &got) {
					t.Errorf("record %d at %+v: %+v, sent %+v", i, result.Delivery, got, sent[i])
				}
				if got.Topic != topic || got.AppendTimestamp.Before(time.Now().Add(-time.Minute)) || !got.AppendTimestamp.Equal(result.Delivery.AppendTimestamp) {
					t.Errorf("record %d: topic %s, appended %v, told was %v", i, got.Topic, got.AppendTimestamp, result.Delivery.AppendTimestamp)
				}
				if sent[i].Timestamp.IsZero() && time.Since(got.Timestamp) > time.Minute {
					t.Errorf("record %d has timestamp %v", i, got.Timestamp)
				}
			}
		})
	}
}

// sameRecord tells nil from empty: an absent value is not an empty one.
func sameRecord(sent, got *minikafka.Record) bool {
	same := func(a, b []byte) bool { return (a == nil) == (b == nil) && bytes.Equal(a, b) }
	if !same(sent.Key, got.Key) || !same(sent.Value, got.Value) || len(sent.Headers) != len(got.Headers) {
		return false
	}
	for i := range sent.Headers {
		if sent.Headers[i].Name != got.Headers[i].Name || !bytes.Equal(sent.Headers[i].Value, got.Headers[i].Value) {
			return false
		}
	}
	return sent.Timestamp.IsZero() || sent.Timestamp.Equal(got.Timestamp)
}

func recordsOfOneKeyKeepTheirOrder(t *testing.T, gateway string) {
	const keys, perKey = 50, 400
	// Small batches and several in flight, so that order is put to the test.
	client := newClient(t, gateway, minikafka.BatchBytes(2<<10), minikafka.Linger(0))
	ctx := testContext(t)
	for i := range perKey {
		for key := range keys {
			value := binary.LittleEndian.AppendUint32(nil, uint32(i))
			client.Produce(ctx, &minikafka.Record{Topic: "keyed", Key: []byte(strconv.Itoa(key)), Value: value}, nil)
		}
	}
	if err := client.Flush(ctx); err != nil {
		t.Fatal(err)
	}
	next := map[string]uint32{}
	partitionOf := map[string]int32{}
	for _, record := range readAll(t, gateway, keys*perKey, minikafka.ConsumeTopics("keyed")) {
		key := string(record.Key)
		if got := binary.LittleEndian.Uint32(record.Value); got != next[key] {
			t.Fatalf("key %s: record %d comes instead of %d", key, got, next[key])
		}
		if partition, known := partitionOf[key]; known && partition != record.Partition {
			t.Fatalf("key %s is in partitions %d and %d", key, partition, record.Partition)
		}
		partitionOf[key] = record.Partition
		next[key]++
	}
}

func readingBeginsAtATime(t *testing.T, gateway string) {
	ctx := testContext(t)
	client := newClient(t, gateway)
	if _, err := client.CreateTopic(ctx, minikafka.NewTopic{Name: "timed", Partitions: 1}); err != nil {
		t.Fatal(err)
	}
	var appended []time.Time
	for i := range 3 {
		results, err := client.ProduceSync(ctx, &minikafka.Record{Topic: "timed", Value: []byte{byte(i)}})
		if err != nil {
			t.Fatal(err)
		}
		at := results[0].Delivery.AppendTimestamp
		appended = append(appended, at)
		// The next one is appended in another millisecond.
		for !time.Now().After(at.Add(2 * time.Millisecond)) {
			time.Sleep(time.Millisecond)
		}
	}
	for i, at := range appended {
		records := readAll(t, gateway, 3-i, minikafka.ConsumeTopics("timed"), minikafka.StartAtTime(at))
		if records[0].Value[0] != byte(i) {
			t.Errorf("from %v on the first record is %d, not %d", at, records[0].Value[0], i)
		}
		offsets, err := client.OffsetsAt(ctx, "timed", at)
		if err != nil || offsets[0] != int64(i) {
			t.Errorf("offset at %v is %d (%v), not %d", at, offsets[0], err, i)
		}
	}
	reader := newClient(t, gateway, minikafka.ConsumeTopics("timed"), minikafka.StartLatest())
	short, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
	defer cancel()
	if batch, err := reader.Poll(short); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("at the end there is %v (%v)", batch, err)
	}
	if err := reader.SeekToTime(ctx, "timed", 0, appended[1]); err != nil {
		t.Fatal(err)
	}
	record, err := reader.PollRecord(ctx)
	if err != nil || record.Offset != 1 {
		t.Errorf("after the seek comes %d (%v)", record.Offset, err)
	}
}

func topicsAreAdministered(t *testing.T, gateway string) {
	ctx := testContext(t)
	client := newClient(t, gateway, minikafka.CreateMissingTopics(false))
	created, err := client.CreateTopic(ctx, minikafka.NewTopic{Name: "admin", Partitions: 3, Retention: time.Hour, BatchBytesMax: 1 << 20})
	if err != nil || created.Partitions != 3 || created.State != "ready" || created.Config.Retention != time.Hour || created.Config.BatchBytesMax != 1<<20 {
		t.Fatalf("%+v (%v)", created, err)
	}
	if _, err := client.CreateTopic(ctx, minikafka.NewTopic{Name: "admin"}); !errors.Is(err, minikafka.TopicExists) {
		t.Errorf("created again: %v", err)
	}
	retention, quota := 2*time.Hour, uint64(1<<30)
	altered, err := client.AlterTopic(ctx, "admin", minikafka.TopicChange{Retention: &retention, ProduceBytesPerSecond: &quota})
	if err != nil || altered.Config.Retention != retention || altered.Config.ProduceBytesPerSecond != quota || altered.Config.BatchBytesMax != 1<<20 {
		t.Errorf("%+v (%v)", altered, err)
	}
	described, err := client.DescribeTopics(ctx, "admin", "nowhere")
	if err != nil || len(described) != 2 || described[0].ID != created.ID || !errors.Is(described[1].Err, minikafka.UnknownTopic) {
		t.Errorf("%+v (%v)", described, err)
	}
	if err := client.DeleteTopic(ctx, "admin"); err != nil {
		t.Error(err)
	}
	listed, err := client.ListTopics(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, topic := range listed {
		if topic.Name == "admin" {
			t.Error("a deleted topic is listed")
		}
	}
	if err := client.DeleteTopic(ctx, "admin"); !errors.Is(err, minikafka.UnknownTopic) {
		t.Errorf("deleted again: %v", err)
	}
}

func offsetsAreLookedUpAndRecordsDeleted(t *testing.T, gateway string) {
	ctx := testContext(t)
	client := newClient(t, gateway, minikafka.ManualPartitioning())
	if _, err := client.CreateTopic(ctx, minikafka.NewTopic{Name: "offsets", Partitions: 2}); err != nil {
		t.Fatal(err)
	}
	for i := range 10 {
		client.Produce(ctx, &minikafka.Record{Topic: "offsets", Partition: 1, Value: []byte{byte(i)}}, nil)
	}
	if err := client.Flush(ctx); err != nil {
		t.Fatal(err)
	}
	latest, err := client.LatestOffsets(ctx, "offsets")
	if err != nil || len(latest) != 2 || latest[0] != 0 || latest[1] != 10 {
		t.Fatalf("%v (%v)", latest, err)
	}
	left, err := client.DeleteRecords(ctx, "offsets", map[int32]int64{1: 4})
	if err != nil || left[1] != 4 {
		t.Fatalf("%v (%v)", left, err)
	}
	earliest, err := client.EarliestOffsets(ctx, "offsets")
	if err != nil || earliest[0] != 0 || earliest[1] != 4 {
		t.Fatalf("%v (%v)", earliest, err)
	}
	var wrong *minikafka.PartitionError
	if _, err := client.DeleteRecords(ctx, "offsets", map[int32]int64{2: 1}); !errors.As(err, &wrong) {
		t.Errorf("a partition that is not there: %v", err)
	}
	if first := readAll(t, gateway, 6, minikafka.ConsumeTopics("offsets"))[0]; first.Offset != 4 {
		t.Errorf("from the earliest on, offset %d comes first", first.Offset)
	}
	reader := newClient(t, gateway, minikafka.ConsumePartitions("offsets", 1), minikafka.StartAtOffset(1))
	if _, err := reader.Poll(ctx); !errors.Is(err, minikafka.OffsetOutOfRange) || minikafka.IsRetriable(err) {
		t.Errorf("a deleted offset: %v", err)
	}
	if err := reader.Seek("offsets", 1, 9); err != nil {
		t.Fatal(err)
	}
	if record, err := reader.PollRecord(ctx); err != nil || record.Offset != 9 {
		t.Errorf("after the seek comes %d (%v)", record.Offset, err)
	}
}

func readingIsControlled(t *testing.T, gateway string) {
	ctx := testContext(t)
	client := newClient(t, gateway, minikafka.ManualPartitioning())
	if _, err := client.CreateTopic(ctx, minikafka.NewTopic{Name: "control", Partitions: 2}); err != nil {
		t.Fatal(err)
	}
	for i := range 20 {
		client.Produce(ctx, &minikafka.Record{Topic: "control", Partition: int32(i % 2), Value: []byte{byte(i)}}, nil)
	}
	if err := client.Flush(ctx); err != nil {
		t.Fatal(err)
	}
	reader := newClient(t, gateway, minikafka.ConsumeTopics("control"))
	if err := reader.Pause("control", 0); err == nil {
		t.Error("nothing is read before the first poll")
	}
	record, err := reader.PollRecord(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := reader.Pause("control", record.Partition); err != nil {
		t.Fatal(err)
	}
	if position, err := reader.Position("control", record.Partition); err != nil || position != 1 {
		t.Errorf("position %d (%v)", position, err)
	}
	other := 1 - record.Partition
	for range 10 {
		if next, err := reader.PollRecord(ctx); err != nil || next.Partition != other {
			t.Fatalf("partition %d comes while it is paused (%v)", next.Partition, err)
		}
	}
	if err := reader.Resume("control", record.Partition); err != nil {
		t.Fatal(err)
	}
	for i := range 9 {
		if next, err := reader.PollRecord(ctx); err != nil || next.Offset != int64(1+i) {
			t.Fatalf("offset %d comes instead of %d (%v)", next.Offset, 1+i, err)
		}
	}
	for partition := range int32(2) {
		end, err := reader.CommittedEnd("control", partition)
		lag, lagErr := reader.Lag("control", partition)
		if err != nil || lagErr != nil || end != 10 || lag != 0 {
			t.Errorf("partition %d: end %d, lag %d (%v, %v)", partition, end, lag, err, lagErr)
		}
	}
	if err := reader.Seek("control", 0, 5); err != nil {
		t.Fatal(err)
	}
	if next, err := reader.PollRecord(ctx); err != nil || next.Partition != 0 || next.Offset != 5 {
		t.Errorf("after the seek comes %d/%d (%v)", next.Partition, next.Offset, err)
	}
	// In the middle of a batch: its rest does not come any more.
	if err := reader.Seek("control", 0, 2); err != nil {
		t.Fatal(err)
	}
	if next, err := reader.PollRecord(ctx); err != nil || next.Offset != 2 {
		t.Errorf("after the second seek comes %d (%v)", next.Offset, err)
	}
	if batch, err := reader.Poll(ctx); err != nil || batch.FirstOffset() != 3 || batch.Len() > 7 {
		t.Errorf("the rest of the batch begins at %d (%v)", batch.FirstOffset(), err)
	}
}

func errorsTellWhatToDo(t *testing.T, gateway string) {
	ctx := testContext(t)
	client := newClient(t, gateway, minikafka.CreateMissingTopics(false), minikafka.ManualPartitioning())
	if _, err := client.CreateTopic(ctx, minikafka.NewTopic{Name: "strict", Partitions: 2, BatchBytesMax: 10_000}); err != nil {
		t.Fatal(err)
	}
	promised := func(record *minikafka.Record) (err error) {
		done := make(chan error, 1)
		client.Produce(ctx, record, func(_ minikafka.Delivery, err error) { done <- err })
		return <-done
	}
	if err := promised(&minikafka.Record{Topic: "nowhere"}); !errors.Is(err, minikafka.UnknownTopic) || minikafka.IsRetriable(err) {
		t.Errorf("unknown topic: %v", err)
	}
	var partition *minikafka.PartitionError
	if err := promised(&minikafka.Record{Topic: "strict", Partition: 2}); !errors.As(err, &partition) {
		t.Errorf("no such partition: %v", err)
	}
	var record *minikafka.RecordError
	for name, bad := range map[string]*minikafka.Record{
		"no topic":       {},
		"too large":      {Topic: "strict", Value: make([]byte, 3<<20)},
		"over the topic": {Topic: "strict", Value: make([]byte, 10_000)},
		"not UTF-8":      {Topic: "strict", Headers: []minikafka.Header{{Name: "\xff"}}},
		"many headers":   {Topic: "strict", Headers: make([]minikafka.Header, 1025)},
	} {
		if err := promised(bad); !errors.As(err, &record) || minikafka.IsOutcomeUnknown(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := promised(&minikafka.Record{Topic: "strict", Value: make([]byte, 9_000)}); err != nil {
		t.Errorf("a record below the topic's limit: %v", err)
	}
	var option *minikafka.OptionError
	if _, err := client.Poll(ctx); !errors.As(err, &option) {
		t.Errorf("nothing to consume: %v", err)
	}
	if err := client.Close(ctx); err != nil {
		t.Errorf("close: %v", err)
	}
	if err := promised(&minikafka.Record{Topic: "strict"}); !errors.Is(err, minikafka.ErrClosed) {
		t.Errorf("after close: %v", err)
	}
	if _, err := client.Poll(ctx); !errors.Is(err, minikafka.ErrClosed) {
		t.Errorf("after close: %v", err)
	}
	if _, err := client.ListTopics(ctx); !errors.Is(err, minikafka.ErrClosed) {
		t.Errorf("after close: %v", err)
	}
}

func applicationsChoosePartitions(t *testing.T, gateway string) {
	ctx := testContext(t)
	client := newClient(t, gateway, minikafka.ManualPartitioning(), minikafka.DefaultTopic("manual"))
	for i := range 80 {
		results, err := client.ProduceSync(ctx, &minikafka.Record{Partition: int32(i % 8), Key: []byte("always the same")})
		if err != nil || results[0].Delivery.Partition != int32(i%8) || results[0].Delivery.Offset != int64(i/8) {
			t.Fatalf("record %d: %+v (%v)", i, results, err)
		}
	}
}

func manyProducersShareATopic(t *testing.T, gateway string) {
	const producers, each = 4, 3000
	ctx := testContext(t)
	client := newClient(t, gateway, minikafka.BufferBytes(64<<10), minikafka.BatchBytes(8<<10))
	done := make(chan error, producers)
	for producer := range producers {
		go func() {
			for i := range each {
				value := fmt.Sprintf("%d/%d", producer, i)
				client.Produce(ctx, &minikafka.Record{Topic: "shared", Value: []byte(value)}, nil)
			}
			done <- nil
		}()
	}
	for range producers {
		<-done
	}
	if err := client.Flush(ctx); err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, record := range readAll(t, gateway, producers*each, minikafka.ConsumeTopics("shared")) {
		seen[string(record.Value)] = true
	}
	if len(seen) != producers*each {
		t.Errorf("%d of %d records are there", len(seen), producers*each)
	}
	counters := client.Counters()
	if counters.RecordsProduced != producers*each || counters.ProduceInFlight != 0 || counters.RecordsFailed != 0 {
		t.Errorf("%+v", counters)
	}
}
