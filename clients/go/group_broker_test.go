package minikafka_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	minikafka "github.com/minikafka/minikafka/clients/go"
	"github.com/minikafka/minikafka/clients/go/internal/brokertest"
)

// The groups of a real broker, and what only processes do: die without a word, come back under an instance name.
func TestGroupsOfABroker(t *testing.T) {
	checkLeaks(t)
	broker := brokertest.Start(t)
	t.Run("members share, and ride through a crash", func(t *testing.T) { membersShareAtABroker(t, broker) })
	for name, test := range map[string]func(*testing.T, string){
		"a member that dies without leaving is replaced": aDeadMemberIsReplaced,
		"a static member is replaced and fences":         aStaticMemberFencesAtABroker,
		"a static member that leaves keeps or gives":     aStaticMemberLeavesABroker,
		"tools": toolsSeeTheGroupsOfABroker,
	} {
		t.Run(name, func(t *testing.T) { test(t, broker.Gateway) })
	}
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

// TestMain makes the test binary a member of a group, when a test starts it as a process that can be killed: it says what it
// has read, line by line.
func TestMain(m *testing.M) {
	arguments := strings.Split(os.Getenv("MINIKAFKA_TEST_MEMBER"), " ")
	if len(arguments) != 2 {
		os.Exit(m.Run())
	}
	gateway, topic := arguments[0], arguments[1]
	client, err := minikafka.New(
		minikafka.Gateways(gateway), minikafka.Group(topic), minikafka.ConsumeTopics(topic),
		minikafka.SessionTimeout(2*time.Second), minikafka.CommitInterval(100*time.Millisecond),
	)
	for err == nil {
		var record minikafka.Record
		if record, err = client.PollRecord(context.Background()); err == nil {
			fmt.Println(record.Partition, record.Offset)
		}
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

// newShared makes a topic of six partitions, with so many records in each.
func newShared(t *testing.T, client *minikafka.Client, topic string, records int) {
	t.Helper()
	if _, err := client.CreateTopic(testContext(t), minikafka.NewTopic{Name: topic, Partitions: 6}); err != nil {
		t.Fatal(err)
	}
	fillShared(t, client, topic, records)
}

func fillShared(t *testing.T, client *minikafka.Client, topic string, records int) {
	t.Helper()
	ctx := testContext(t)
	for partition := range int32(6) {
		for range records {
			client.Produce(ctx, &minikafka.Record{Topic: topic, Partition: partition, Value: []byte("value")}, nil)
		}
	}
	if err := client.Flush(ctx); err != nil {
		t.Fatal(err)
	}
}

func aDeadMemberIsReplaced(t *testing.T, gateway string) {
	const topic = "widows"
	ctx := testContext(t)
	client := newClient(t, gateway, minikafka.ManualPartitioning())
	newShared(t, client, topic, 20)
	command := exec.Command(os.Args[0])
	command.Env = append(os.Environ(), "MINIKAFKA_TEST_MEMBER="+gateway+" "+topic)
	output, err := command.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	scanner := bufio.NewScanner(output)
	for len(seen) < 120 && scanner.Scan() {
		seen[scanner.Text()] = true
	}
	survivor := newClient(t, gateway, minikafka.Group(topic), minikafka.ConsumeTopics(topic))
	polling, stop := context.WithCancel(ctx)
	read := make(chan minikafka.Record, 1000)
	var reading sync.WaitGroup
	reading.Add(1)
	go func() {
		defer reading.Done()
		for {
			record, err := survivor.PollRecord(polling)
			if err != nil {
				return
			}
			read <- record
		}
	}()
	await(t, "both to have three", func() bool {
		described, err := client.DescribeGroup(ctx, topic)
		return err == nil && len(described.Members) == 2 && len(described.Members[0].Owned) == 3 && len(described.Members[1].Owned) == 3
	})
	if err := command.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	for scanner.Scan() {
		seen[scanner.Text()] = true
	}
	_ = command.Wait()
	fillShared(t, client, topic, 20)
	await(t, "the survivor to have all", func() bool { return len(survivor.Assignment()) == 6 })
	for len(seen) < 240 {
		select {
		case record := <-read:
			seen[fmt.Sprintf("%d %d", record.Partition, record.Offset)] = true
		case <-ctx.Done():
			t.Fatalf("%d of 240 records are read", len(seen))
		}
	}
	stop()
	reading.Wait()
}

func aStaticMemberFencesAtABroker(t *testing.T, gateway string) {
	const topic = "tills"
	ctx := testContext(t)
	client := newClient(t, gateway, minikafka.ManualPartitioning())
	newShared(t, client, topic, 5)
	static := []minikafka.Option{minikafka.Group(topic), minikafka.ConsumeTopics(topic), minikafka.Instance("till-1"), minikafka.CommitByAck()}
	zombie := newClient(t, gateway, static...)
	for range 30 {
		if _, err := zombie.PollRecord(ctx); err != nil {
			t.Fatal(err)
		}
	}
	successor := newClient(t, gateway, static...)
	for range 30 {
		record, err := successor.PollRecord(ctx)
		if err != nil {
			t.Fatal(err)
		}
		successor.Ack(&record)
	}
	if _, err := zombie.PollRecord(ctx); !errors.Is(err, minikafka.MemberFenced) {
		t.Errorf("the zombie is told %v", err)
	}
	if err := successor.Commit(ctx); err != nil {
		t.Fatal(err)
	}
	checkGroupOffsets(t, client, topic, 5)
}

func checkGroupOffsets(t *testing.T, client *minikafka.Client, topic string, each int64) {
	t.Helper()
	offsets, err := client.GroupOffsets(testContext(t), topic)
	if err != nil || len(offsets) != 6 {
		t.Fatalf("%d partitions are committed: %v", len(offsets), err)
	}
	for _, offset := range offsets {
		if offset.Offset != each {
			t.Errorf("partition %d goes on at %d, not %d", offset.Partition, offset.Offset, each)
		}
	}
}

func aStaticMemberLeavesABroker(t *testing.T, gateway string) {
	const topic = "shifts"
	client := newClient(t, gateway)
	newShared(t, client, topic, 0)
	ctx := testContext(t)
	options := []minikafka.Option{minikafka.Group(topic), minikafka.ConsumeTopics(topic)}
	other := newClient(t, gateway, options...)
	both := func(t *testing.T, more ...minikafka.Option) *minikafka.Client {
		static := newClient(t, gateway, append(more, options...)...)
		polling, stop := context.WithCancel(ctx)
		defer stop()
		go func() { _, _ = other.PollRecord(polling) }()
		go func() { _, _ = static.PollRecord(polling) }()
		await(t, "both to have three", func() bool { return len(other.Assignment()) == 3 && len(static.Assignment()) == 3 })
		return static
	}
	static := both(t, minikafka.Instance("early"))
	before := fmt.Sprint(static.Assignment())
	if err := static.Close(ctx); err != nil {
		t.Fatal(err)
	}
	again := both(t, minikafka.Instance("early"), minikafka.LeaveForGood())
	if after := fmt.Sprint(again.Assignment()); after != before {
		t.Errorf("it comes back to %s, had %s", after, before)
	}
	if err := again.Close(ctx); err != nil {
		t.Fatal(err)
	}
	await(t, "the other one to have all", func() bool { return len(other.Assignment()) == 6 })
}

func toolsSeeTheGroupsOfABroker(t *testing.T, gateway string) {
	const topic = "audits"
	ctx := testContext(t)
	client := newClient(t, gateway, minikafka.ManualPartitioning())
	newShared(t, client, topic, 5)
	member := newClient(t, gateway, minikafka.Group(topic), minikafka.ConsumeTopics(topic))
	for range 30 {
		if _, err := member.PollRecord(ctx); err != nil {
			t.Fatal(err)
		}
	}
	reset := []minikafka.GroupOffset{{TopicPartition: minikafka.TopicPartition{Topic: topic, Partition: 4}, Offset: 3, Metadata: "again"}}
	if err := client.SetGroupOffsets(ctx, topic, reset); !errors.Is(err, minikafka.GroupNotEmpty) {
		t.Errorf("a tool commits for a partition with an owner: %v", err)
	}
	if err := client.DeleteGroup(ctx, topic); !errors.Is(err, minikafka.GroupNotEmpty) {
		t.Errorf("a group with members is deleted: %v", err)
	}
	if err := member.Close(ctx); err != nil {
		t.Fatal(err)
	}
	checkGroupOffsets(t, client, topic, 5)
	if err := client.SetGroupOffsets(ctx, topic, reset); err != nil {
		t.Fatal(err)
	}
	next := newClient(t, gateway, minikafka.Group(topic), minikafka.ConsumeTopics(topic))
	if record, err := next.PollRecord(ctx); err != nil || record.Partition != 4 || record.Offset != 3 {
		t.Errorf("it goes on at %d/%d: %v", record.Partition, record.Offset, err)
	}
	if err := next.Close(ctx); err != nil {
		t.Fatal(err)
	}
	groups, err := client.ListGroups(ctx)
	found := false
	for _, group := range groups {
		found = found || group.Group == topic && group.State == "empty" && group.Members == 0
	}
	if err != nil || !found {
		t.Errorf("groups %v: %v", groups, err)
	}
	if err := client.DeleteGroup(ctx, topic); err != nil {
		t.Fatal(err)
	}
	if _, err := client.DescribeGroup(ctx, topic); !errors.Is(err, minikafka.UnknownGroup) {
		t.Errorf("it is still there: %v", err)
	}
}
