package minikafka_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	minikafka "github.com/minikafka/minikafka/clients/go"
	"github.com/minikafka/minikafka/clients/go/internal/brokertest"
)

// The groups and the queue of a real broker: skipped as long as it has none.
func TestGroupsOfABroker(t *testing.T) {
	checkLeaks(t)
	broker := brokertest.Start(t)
	client := newClient(t, broker.Gateway)
	if _, err := client.DescribeGroup(testContext(t), "nobody"); !errors.Is(err, minikafka.UnknownGroup) {
		t.Skipf("this broker has no groups yet: %v", err)
	}
	t.Run("members share, and ride through a crash", func(t *testing.T) { membersShareAtABroker(t, broker) })
	t.Run("the queue", func(t *testing.T) { theQueueOfABroker(t, broker.Gateway) })
}

func membersShareAtABroker(t *testing.T, broker *brokertest.Broker) {
	const records = 2000
	ctx := testContext(t)
	client := newClient(t, broker.Gateway)
	if _, err := client.CreateTopic(ctx, minikafka.NewTopic{Name: "shared-jobs", Partitions: 6}); err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	seen := map[string]int{}
	readers, stop := context.WithCancel(ctx)
	defer stop()
	var reading sync.WaitGroup
	for range 3 {
		reader := newClient(t, broker.Gateway, minikafka.Group("sharers"), minikafka.ConsumeTopics("shared-jobs"), minikafka.CommitInterval(100*time.Millisecond))
		reading.Add(1)
		go func() {
			defer reading.Done()
			for {
				record, err := reader.PollRecord(readers)
				if err != nil {
					if readers.Err() == nil {
						t.Error(err)
					}
					return
				}
				mu.Lock()
				seen[string(record.Value)]++
				mu.Unlock()
			}
		}()
	}
	count := func() int {
		mu.Lock()
		defer mu.Unlock()
		return len(seen)
	}
	for i := range records {
		value := fmt.Appendf(nil, "%d", i)
		client.Produce(ctx, &minikafka.Record{Topic: "shared-jobs", Key: value, Value: value}, nil)
		if i == records/2 {
			if err := client.Flush(ctx); err != nil {
				t.Fatal(err)
			}
			await(t, "half of the records to be read", func() bool { return count() == records/2+1 })
			broker.Kill()
			broker.Restart()
		}
	}
	if err := client.Flush(ctx); err != nil {
		t.Fatal(err)
	}
	await(t, "all records to be read", func() bool { return count() == records })
	await(t, "three members to share", func() bool {
		described, err := client.DescribeGroup(ctx, "sharers")
		return err == nil && len(described.Members) == 3 && len(described.Members[0].Owned) == 2
	})
	await(t, "all to be committed", func() bool {
		offsets, err := client.GroupOffsets(ctx, "sharers")
		total := int64(0)
		for _, offset := range offsets {
			total += offset.Offset
		}
		return err == nil && total == records
	})
	stop()
	reading.Wait()
}

func theQueueOfABroker(t *testing.T, gateway string) {
	ctx := testContext(t)
	client := newClient(t, gateway)
	for i := range 20 {
		if _, err := client.Push(ctx, []byte("key"), fmt.Append(nil, i)); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 10 {
		if _, value, err := client.Pull(ctx); err != nil || string(value) != fmt.Sprint(i) {
			t.Fatalf("%s comes instead of %d (%v)", value, i, err)
		}
	}
	if err := client.Close(ctx); err != nil {
		t.Fatal(err)
	}
	next := newClient(t, gateway)
	if _, value, err := next.Pull(ctx); err != nil || string(value) != "10" {
		t.Fatalf("%s comes instead of 10 (%v)", value, err)
	}
}
