package minikafka_test

import (
	"context"
	"testing"

	minikafka "github.com/minikafka/minikafka/clients/go"
	"github.com/minikafka/minikafka/clients/go/internal/brokertest"
)

// Run with -benchmem: both report allocations of the whole process for each record of 100 bytes. What they say of speed is with
// broker and client on the same cores; cmd/bench measures with each on its own.

func BenchmarkProduce(b *testing.B) {
	broker := brokertest.Start(b)
	ctx := context.Background()
	client := newClient(b, broker.Gateway, minikafka.DefaultTopic("bench"))
	record := minikafka.Record{Value: make([]byte, 100)}
	promise := func(_ minikafka.Delivery, err error) {
		if err != nil {
			b.Error(err)
		}
	}
	if _, err := client.ProduceSync(ctx, &record); err != nil {
		b.Fatal(err)
	}
	b.SetBytes(100)
	b.ReportAllocs()
	b.ResetTimer()
	for range b.N {
		client.Produce(ctx, &record, promise)
	}
	if err := client.Flush(ctx); err != nil {
		b.Fatal(err)
	}
}

func BenchmarkConsume(b *testing.B) {
	broker := brokertest.Start(b)
	ctx := context.Background()
	producer := newClient(b, broker.Gateway)
	record := minikafka.Record{Topic: "bench", Value: make([]byte, 100)}
	for range b.N {
		producer.Produce(ctx, &record, nil)
	}
	if err := producer.Flush(ctx); err != nil {
		b.Fatal(err)
	}
	client := newClient(b, broker.Gateway, minikafka.ConsumeTopics("bench"))
	b.SetBytes(100)
	b.ReportAllocs()
	b.ResetTimer()
	bytes := 0
	for read := 0; read < b.N; {
		batch, err := client.Poll(ctx)
		if err != nil {
			b.Fatal(err)
		}
		for i := range batch.Len() {
			record := batch.Record(i)
			bytes += len(record.Value)
		}
		read += batch.Len()
		batch.Release()
	}
}
