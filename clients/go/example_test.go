package minikafka_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"time"

	minikafka "github.com/minikafka/minikafka/clients/go"
	"github.com/minikafka/minikafka/clients/go/internal/fakecluster"
)

// gateway is a cluster in memory, so that the examples run; "localhost:9000" is where "minikafka dev" listens.
func gateway() (address string, stop func()) {
	cluster, err := fakecluster.Start(1)
	if err != nil {
		log.Fatal(err)
	}
	cluster.CreateTopic("orders", 2)
	return cluster.Gateways()[0], cluster.Close
}

func Example() {
	address, stop := gateway()
	defer stop()
	ctx := context.Background()

	client, err := minikafka.New(minikafka.Gateways(address), minikafka.ConsumeTopics("orders"))
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close(ctx)

	results, err := client.ProduceSync(ctx, &minikafka.Record{Topic: "orders", Key: []byte("42"), Value: []byte("bought")})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("stored at offset", results[0].Delivery.Offset)

	record, err := client.PollRecord(ctx)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%s %s\n", record.Key, record.Value)
	// Output:
	// stored at offset 0
	// 42 bought
}

// Produce takes records and returns; the promise tells how each went, and Flush waits for all.
func ExampleClient_Produce() {
	address, stop := gateway()
	defer stop()
	ctx := context.Background()
	client, err := minikafka.New(minikafka.Gateways(address), minikafka.DefaultTopic("orders"), minikafka.CompressZstd(3))
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close(ctx)

	stored := 0
	for i := range 1000 {
		client.Produce(ctx, &minikafka.Record{Value: fmt.Append(nil, "order ", i)}, func(_ minikafka.Delivery, err error) {
			if err == nil {
				stored++
			}
		})
	}
	if err := client.Flush(ctx); err != nil {
		log.Fatal(err)
	}
	fmt.Println(stored, "stored")
	// Output: 1000 stored
}

// A batch has records of one partition. From Go 1.23 on: for record := range batch.All() { … }
func ExampleClient_Poll() {
	address, stop := gateway()
	defer stop()
	ctx := context.Background()
	client, err := minikafka.New(minikafka.Gateways(address), minikafka.ConsumePartitions("orders", 0), minikafka.ManualPartitioning())
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close(ctx)
	for _, value := range []string{"a", "b", "c"} {
		client.Produce(ctx, &minikafka.Record{Topic: "orders", Partition: 0, Value: []byte(value)}, nil)
	}
	for read := 0; read < 3; {
		batch, err := client.Poll(ctx)
		if err != nil {
			log.Fatal(err)
		}
		for i := range batch.Len() {
			record := batch.Record(i)
			fmt.Printf("%d: %s\n", record.Offset, record.Value)
		}
		read += batch.Len()
	}
	// Output:
	// 0: a
	// 1: b
	// 2: c
}

// A member of a group acknowledges records when they are handled; what is not is delivered again after a crash.
func ExampleGroup() {
	address, stop := gateway()
	defer stop()
	ctx := context.Background()
	client, err := minikafka.New(
		minikafka.Gateways(address),
		minikafka.Group("billing"),
		minikafka.ConsumeTopics("orders"),
		minikafka.CommitByAck(),
		minikafka.OnRevoked(func(_ context.Context, _ *minikafka.Client, partitions []minikafka.TopicPartition) {
			fmt.Println("revoked", partitions)
		}),
	)
	if err != nil {
		log.Fatal(err)
	}
	if _, err := client.ProduceSync(ctx, &minikafka.Record{Topic: "orders", Key: []byte("42"), Value: []byte("bought")}); err != nil {
		log.Fatal(err)
	}
	record, err := client.PollRecord(ctx)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("handled %s\n", record.Value)
	client.Ack(&record)
	// Close commits, and leaves the group.
	if err := client.Close(ctx); err != nil {
		log.Fatal(err)
	}
	// Output:
	// handled bought
	// revoked [{orders 0} {orders 1}]
}

// The queue needs no options: topic and group are made when they are missing.
func ExampleClient_Push() {
	address, stop := gateway()
	defer stop()
	ctx := context.Background()
	client, err := minikafka.New(minikafka.Gateways(address))
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close(ctx)

	if _, err := client.Push(ctx, []byte("user-42"), []byte("hello")); err != nil {
		log.Fatal(err)
	}
	key, value, err := client.Pull(ctx) // the next Pull, or Close, acknowledges it
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%s: %s\n", key, value)
	// Output: user-42: hello
}

func ExampleClient_Subscribe() {
	address, stop := gateway()
	defer stop()
	ctx, cancel := context.WithCancel(context.Background())
	client, err := minikafka.New(minikafka.Gateways(address))
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close(context.Background())

	if _, err := client.Push(ctx, nil, []byte("hello")); err != nil {
		log.Fatal(err)
	}
	done, err := client.Subscribe(ctx, func(_ context.Context, _, value []byte) error {
		fmt.Printf("%s\n", value)
		cancel()
		return nil
	})
	if err != nil {
		log.Fatal(err)
	}
	<-done
	// Output: hello
}

func ExampleClient_CreateTopic() {
	address, stop := gateway()
	defer stop()
	ctx := context.Background()
	client, err := minikafka.New(minikafka.Gateways(address))
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close(ctx)

	topic, err := client.CreateTopic(ctx, minikafka.NewTopic{Name: "events", Partitions: 4, Retention: 7 * 24 * time.Hour})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(topic.Partitions, topic.Config.Retention)
	_, err = client.CreateTopic(ctx, minikafka.NewTopic{Name: "events"})
	fmt.Println(errors.Is(err, minikafka.TopicExists), minikafka.IsRetriable(err))
	// Output:
	// 4 168h0m0s
	// true false
}
