// Command scale is the load of the scale program: it sends records to a topic of one copy, and says when to look at the brokers'
// processor time.
//
// It prints "began" once the topic is there and warm, and a JSON object when every record is acknowledged. Whoever runs it
// (tests/e2e/run scale) compares what one broker and three take for it.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"strings"
	"time"

	minikafka "github.com/minikafka/minikafka/clients/go"
)

const (
	// partitions are many, so that they lie evenly on three brokers.
	partitions = 240
	// stretch is how many records follow each other in one partition: some batches.
	stretch = 2_000
)

func main() {
	gateways := flag.String("gateways", "localhost:9000", "host:port, separated by commas")
	records := flag.Int("records", 2_000_000, "how many")
	topic := flag.String("topic", "scale", "its name; it is made")
	flag.Parse()
	if err := run(context.Background(), strings.Split(*gateways, ","), *topic, *records); err != nil {
		fmt.Fprintln(os.Stderr, "scale:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, gateways []string, topic string, records int) error {
	// Batches are full, whatever the machine is busy with: only so is the work the same with one broker and with three. They are
	// small, so that it is brokers that have work, and not the disk.
	client, err := minikafka.New(minikafka.Gateways(gateways...), minikafka.ManualPartitioning(), minikafka.BatchBytes(4096),
		minikafka.SendWhenIdle(false), minikafka.Linger(200*time.Millisecond))
	if err != nil {
		return err
	}
	if _, err := client.CreateTopic(ctx, minikafka.NewTopic{Name: topic, Partitions: partitions, Replication: 1}); err != nil {
		return err
	}
	record := minikafka.Record{Topic: topic, Value: make([]byte, 100)}
	send := func(count int) error {
		for number := range count {
			record.Partition = int32(number / stretch % partitions)
			client.Produce(ctx, &record, nil)
		}
		return client.Flush(ctx)
	}
	if err := send(stretch * partitions); err != nil {
		return err
	}
	fmt.Println("began")
	begun := time.Now()
	if err := send(records); err != nil {
		return err
	}
	result := map[string]any{"records": records, "seconds": time.Since(begun).Seconds()}
	if err := json.NewEncoder(os.Stdout).Encode(result); err != nil {
		return err
	}
	return client.Close(ctx)
}
