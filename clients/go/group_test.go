package minikafka_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	minikafka "github.com/minikafka/minikafka/clients/go"
	"github.com/minikafka/minikafka/clients/go/internal/fakecluster"
)

// groupReader is a member of a group that reads until it is stopped, and notes what it got and what it was told.
type groupReader struct {
	client *minikafka.Client
	stop   context.CancelFunc
	done   chan struct{}

	mu     sync.Mutex
	values []string
	told   []string
	err    error
}

func (r *groupReader) note(what string) func(context.Context, *minikafka.Client, []minikafka.TopicPartition) {
	return func(_ context.Context, _ *minikafka.Client, partitions []minikafka.TopicPartition) {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.told = append(r.told, fmt.Sprintf("%s %d", what, len(partitions)))
	}
}

func startReader(t *testing.T, cluster *fakecluster.Cluster, options ...minikafka.Option) *groupReader {
	t.Helper()
	r := &groupReader{done: make(chan struct{})}
	all := append([]minikafka.Option{
		minikafka.Gateways(cluster.Gateways()...), minikafka.Group("workers"), minikafka.ConsumeTopics("jobs"), minikafka.FetchWait(50 * time.Millisecond),
		minikafka.OnAssigned(r.note("assigned")), minikafka.OnRevoked(r.note("revoked")), minikafka.OnLost(r.note("lost")),
	}, options...)
	r.client = newClient(t, cluster.Gateways()[0], all...)
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	r.stop = cancel
	go func() {
		defer close(r.done)
		for {
			record, err := r.client.PollRecord(ctx)
			if err != nil {
				r.mu.Lock()
				r.err = err
				r.mu.Unlock()
				return
			}
			r.mu.Lock()
			r.values = append(r.values, string(record.Value))
			r.mu.Unlock()
		}
	}()
	t.Cleanup(r.end)
	return r
}

func (r *groupReader) end() {
	r.stop()
	<-r.done
}

func (r *groupReader) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.values)
}

func (r *groupReader) wasTold(what string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, told := range r.told {
		if told == what {
			return true
		}
	}
	return false
}

func (r *groupReader) close(t *testing.T) {
	t.Helper()
	r.end()
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	defer cancel()
	if err := r.client.Close(ctx); err != nil {
		t.Errorf("close: %v", err)
	}
}

const jobPartitions = 4

// newJobs makes a cluster with a topic of four partitions.
func newJobs(t *testing.T, nodes int) *fakecluster.Cluster {
	cluster := fakecluster.New(t, nodes)
	cluster.CreateTopic("jobs", jobPartitions)
	return cluster
}

// addJobs adds one record to each partition for each round.
func addJobs(cluster *fakecluster.Cluster, from, to int) {
	for round := from; round < to; round++ {
		for partition := range jobPartitions {
			cluster.Append("jobs", partition, fmt.Sprintf("%d/%d", partition, round))
		}
	}
}

func checkEachOnce(t *testing.T, rounds int, readers ...*groupReader) {
	t.Helper()
	seen := map[string]int{}
	for _, reader := range readers {
		reader.mu.Lock()
		for _, value := range reader.values {
			seen[value]++
		}
		reader.mu.Unlock()
	}
	if len(seen) != rounds*jobPartitions {
		t.Errorf("%d of %d records were read", len(seen), rounds*jobPartitions)
	}
	for value, times := range seen {
		if times != 1 {
			t.Errorf("%s was read %d times", value, times)
		}
	}
}

func TestMembersShareAndHandOver(t *testing.T) {
	checkLeaks(t)
	cluster := newJobs(t, 1)
	addJobs(cluster, 0, 10)
	first := startReader(t, cluster)
	await(t, "the first member to read all", func() bool { return first.count() == 10*jobPartitions })
	second := startReader(t, cluster)
	await(t, "both to own two", func() bool { members, _ := cluster.Owners("workers"); return members == 2 })
	await(t, "the second to be told", func() bool { return second.wasTold("assigned 2") })
	if !first.wasTold("assigned 4") || !first.wasTold("revoked 2") {
		t.Errorf("the first was told %v", first.told)
	}
	addJobs(cluster, 10, 20)
	await(t, "both to read on", func() bool { return first.count()+second.count() == 20*jobPartitions })
	if second.count() != 20 {
		t.Errorf("the second has read %d of its 20", second.count())
	}
	second.close(t)
	if !second.wasTold("revoked 2") {
		t.Errorf("the second was told %v", second.told)
	}
	await(t, "the first to own all again", func() bool { return first.wasTold("assigned 2") })
	addJobs(cluster, 20, 30)
	await(t, "the first to read the rest", func() bool { return first.count()+second.count() == 30*jobPartitions })
	first.close(t)
	checkEachOnce(t, 30, first, second)
	for partition := range jobPartitions {
		if committed := cluster.Committed("workers", "jobs", partition); committed != 30 {
			t.Errorf("partition %d is committed at %d", partition, committed)
		}
	}
	if members, _ := cluster.Members("workers"); members != 0 {
		t.Errorf("%d members are left", members)
	}
}

func TestAMemberGoesOnWhereTheGroupWas(t *testing.T) {
	checkLeaks(t)
	cluster := newJobs(t, 1)
	addJobs(cluster, 0, 5)
	first := startReader(t, cluster, minikafka.CommitInterval(10*time.Millisecond))
	await(t, "all to be committed, because more is asked for", func() bool {
		committed := int64(0)
		for partition := range jobPartitions {
			committed += max(cluster.Committed("workers", "jobs", partition), 0)
		}
		return committed == 5*jobPartitions
	})
	first.close(t)
	addJobs(cluster, 5, 8)
	second := startReader(t, cluster)
	await(t, "the second to read what is new", func() bool { return second.count() == 3*jobPartitions })
	second.close(t)
	checkEachOnce(t, 8, first, second)
}

func TestTheDeathOfACoordinatorMovesNoPartition(t *testing.T) {
	checkLeaks(t)
	cluster := newJobs(t, 2)
	// A short session makes short waits of heartbeats, which the test counts.
	session := minikafka.SessionTimeout(1500 * time.Millisecond)
	first, second := startReader(t, cluster, session), startReader(t, cluster, session)
	await(t, "both to own two", func() bool { members, partitions := cluster.Owners("workers"); return members == 2 && partitions == 4 })
	await(t, "both to be told", func() bool {
		return len(first.client.Assignment()) == 2 && len(second.client.Assignment()) == 2
	})
	first.mu.Lock()
	before := len(first.told)
	first.mu.Unlock()
	addJobs(cluster, 0, 5)
	cluster.Move(1)
	cluster.Server(0).Stop()
	addJobs(cluster, 5, 10)
	await(t, "both to read on", func() bool { return first.count()+second.count() == 10*jobPartitions })
	await(t, "the new coordinator to hear of both", func() bool { members, _ := cluster.Members("workers"); return members == 2 })
	_, heartbeats := cluster.Members("workers")
	await(t, "both to go on with their heartbeats", func() bool { _, more := cluster.Members("workers"); return more > heartbeats+2 })
	first.mu.Lock()
	if len(first.told) != before || len(first.values) != 20 {
		t.Errorf("the first was told %v, and has read %d", first.told, len(first.values))
	}
	first.mu.Unlock()
	first.close(t)
	second.close(t)
	checkEachOnce(t, 10, first, second)
}

func TestAnExpelledMemberLosesWhatItHadAndJoinsAnew(t *testing.T) {
	checkLeaks(t)
	cluster := newJobs(t, 1)
	addJobs(cluster, 0, 3)
	reader := startReader(t, cluster)
	await(t, "it to read all", func() bool { return reader.count() == 3*jobPartitions })
	await(t, "it to have said what it owns, and to be expelled", func() bool { return cluster.Expel("workers") })
	await(t, "it to be told", func() bool { return reader.wasTold("lost 4") })
	// Nothing was committed, so all of it comes again.
	await(t, "it to read all again", func() bool { return reader.count() == 6*jobPartitions })
	if reader.wasTold("revoked 4") {
		t.Error("what was lost was revoked, too")
	}
	reader.close(t)
	if committed := cluster.Committed("workers", "jobs", 0); committed != 3 {
		t.Errorf("committed at %d", committed)
	}
}

func TestAStaticMemberIsReplacedAndFencesTheOldOne(t *testing.T) {
	checkLeaks(t)
	cluster := newJobs(t, 1)
	other := startReader(t, cluster)
	old := startReader(t, cluster, minikafka.Instance("a"))
	await(t, "both to own two", func() bool {
		return len(other.client.Assignment()) == 2 && len(old.client.Assignment()) == 2
	})
	other.mu.Lock()
	before := len(other.told)
	other.mu.Unlock()
	successor := startReader(t, cluster, minikafka.Instance("a"))
	await(t, "the successor to have the partitions", func() bool { return successor.wasTold("assigned 2") })
	<-old.done
	if !errors.Is(old.err, minikafka.MemberFenced) {
		t.Errorf("the old one ended with %v", old.err)
	}
	if !old.wasTold("lost 2") {
		t.Errorf("the old one was told %v", old.told)
	}
	other.mu.Lock()
	if len(other.told) != before {
		t.Errorf("the other member noticed: %v", other.told)
	}
	other.mu.Unlock()
	// Closed, it keeps its partitions for whoever comes back under its name.
	successor.close(t)
	if _, partitions := cluster.Owners("workers"); partitions != 4 {
		t.Errorf("%d partitions are owned", partitions)
	}
}

func TestTheLowestRecordNotAcknowledgedIsCommitted(t *testing.T) {
	checkLeaks(t)
	cluster := fakecluster.New(t, 1)
	cluster.CreateTopic("jobs", 1)
	cluster.Append("jobs", 0, "a", "b", "c", "d")
	cluster.Append("jobs", 0, "e", "f")
	ctx := testContext(t)
	client := newClient(t, cluster.Gateways()[0], minikafka.Group("workers"), minikafka.ConsumeTopics("jobs"),
		minikafka.CommitByAck(), minikafka.CommitInterval(0))
	batch, err := client.Poll(ctx)
	if err != nil {
		t.Fatal(err)
	}
	records := make([]minikafka.Record, batch.Len())
	for i := range records {
		records[i] = batch.Record(i)
	}
	commit := func(expected int64) {
		t.Helper()
		if err := client.Commit(ctx); err != nil {
			t.Fatal(err)
		}
		if committed := cluster.Committed("workers", "jobs", 0); committed != expected {
			t.Errorf("committed at %d, not %d", committed, expected)
		}
	}
	client.Ack(&records[1], &records[2])
	commit(-1)
	client.Ack(&records[0])
	commit(3)
	second, err := client.Poll(ctx)
	if err != nil {
		t.Fatal(err)
	}
	commit(3)
	second.Ack()
	commit(3)
	client.Ack(&records[3])
	commit(6)
}

func TestHeartbeatsGoOnWhileTheApplicationIsBusy(t *testing.T) {
	checkLeaks(t)
	cluster := newJobs(t, 1)
	addJobs(cluster, 0, 1)
	ctx := testContext(t)
	client := newClient(t, cluster.Gateways()[0], minikafka.Group("workers"), minikafka.ConsumeTopics("jobs"), minikafka.SessionTimeout(time.Second))
	if _, err := client.Poll(ctx); err != nil {
		t.Fatal(err)
	}
	// It does not poll any more, for longer than its session lasts: each heartbeat waits for a third of that.
	_, before := cluster.Members("workers")
	await(t, "heartbeats of more than a session", func() bool { _, now := cluster.Members("workers"); return now > before+4 })
	if members, partitions := cluster.Owners("workers"); members != 1 || partitions != 4 {
		t.Errorf("%d members own %d partitions", members, partitions)
	}
}

func TestWhereThereIsNoCommit(t *testing.T) {
	checkLeaks(t)
	cluster := newJobs(t, 1)
	addJobs(cluster, 0, 3)
	latest := startReader(t, cluster, minikafka.StartLatest())
	await(t, "it to be assigned", func() bool { return latest.wasTold("assigned 4") })
	await(t, "it to begin at the end", func() bool {
		for partition := range int32(jobPartitions) {
			if position, err := latest.client.Position("jobs", partition); err != nil || position != 3 {
				return false
			}
		}
		return true
	})
	addJobs(cluster, 3, 4)
	await(t, "it to read what is new", func() bool { return latest.count() == jobPartitions })
	latest.close(t)

	client := newClient(t, cluster.Gateways()[0], minikafka.Group("strict"), minikafka.ConsumeTopics("jobs"), minikafka.FailWithoutCommit())
	ctx := testContext(t)
	if _, err := client.Poll(ctx); !errors.Is(err, minikafka.OffsetOutOfRange) {
		t.Errorf("without a commit: %v", err)
	}
	for partition := range int32(jobPartitions) {
		if err := client.Seek("jobs", partition, 2); err != nil {
			t.Fatal(err)
		}
	}
	if record, err := client.PollRecord(ctx); err != nil || record.Offset != 2 {
		t.Errorf("after the seek comes %d (%v)", record.Offset, err)
	}
}

func TestWhatIsInHandIsFinishedBeforeItIsHandedOver(t *testing.T) {
	checkLeaks(t)
	cluster := fakecluster.New(t, 1)
	cluster.CreateTopic("jobs", 1)
	cluster.Append("jobs", 0, "1", "2", "3")
	ctx := testContext(t)
	client := newClient(t, cluster.Gateways()[0], minikafka.Group("workers"), minikafka.ConsumeTopics("jobs"),
		minikafka.RevokeWait(20*time.Second), minikafka.CommitInterval(0))
	if batch, err := client.Poll(ctx); err != nil || batch.Len() != 3 {
		t.Fatal(err)
	}
	// The only partition is to go to another member, while its records are in the application's hands.
	cluster.Prefer("workers")
	second := startReader(t, cluster)
	await(t, "reading to stop", func() bool { return len(client.Assignment()) == 0 })
	if _, partitions := cluster.Owners("workers"); partitions != 1 || cluster.Committed("workers", "jobs", 0) >= 0 {
		t.Error("it is handed over with records in hand")
	}
	// Asking for more says that they are handled.
	short, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
	defer cancel()
	if _, err := client.Poll(short); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatal(err)
	}
	await(t, "the second to have the partition", func() bool { return second.wasTold("assigned 1") })
	cluster.Append("jobs", 0, "4")
	await(t, "the second to read what is new", func() bool { return second.count() == 1 })
	if committed := cluster.Committed("workers", "jobs", 0); committed != 3 {
		t.Errorf("committed at %d", committed)
	}
}

func TestGroupsAreAdministered(t *testing.T) {
	checkLeaks(t)
	cluster := newJobs(t, 1)
	addJobs(cluster, 0, 2)
	reader := startReader(t, cluster, minikafka.ClientName("tester"))
	await(t, "it to read all", func() bool { return reader.count() == 2*jobPartitions })
	ctx := testContext(t)
	admin := newClient(t, cluster.Gateways()[0])
	described, err := admin.DescribeGroup(ctx, "workers")
	if err != nil || described.State != "stable" || len(described.Members) != 1 || len(described.Members[0].Owned) != 4 ||
		described.Members[0].ClientName != "tester" || described.Members[0].Topics[0] != "jobs" {
		t.Errorf("%+v (%v)", described, err)
	}
	listed, err := admin.ListGroups(ctx)
	if err != nil || len(listed) != 1 || listed[0] != (minikafka.GroupListing{Group: "workers", State: "stable", Members: 1}) {
		t.Errorf("%+v (%v)", listed, err)
	}
	at := minikafka.GroupOffset{TopicPartition: minikafka.TopicPartition{Topic: "jobs", Partition: 1}, Offset: 1, Metadata: "why"}
	if err := admin.SetGroupOffsets(ctx, "workers", []minikafka.GroupOffset{at}); !errors.Is(err, minikafka.NotAssigned) {
		t.Errorf("an owned partition: %v", err)
	}
	if err := admin.DeleteGroup(ctx, "workers"); !errors.Is(err, minikafka.GroupNotEmpty) {
		t.Errorf("a group with members: %v", err)
	}
	reader.close(t)
	if err := admin.SetGroupOffsets(ctx, "workers", []minikafka.GroupOffset{at}); err != nil {
		t.Error(err)
	}
	offsets, err := admin.GroupOffsets(ctx, "workers")
	if err != nil || len(offsets) != 4 || offsets[0].Offset != 2 || offsets[1] != at {
		t.Errorf("%+v (%v)", offsets, err)
	}
	if err := admin.DeleteGroup(ctx, "workers"); err != nil {
		t.Error(err)
	}
	if _, err := admin.DescribeGroup(ctx, "workers"); !errors.Is(err, minikafka.UnknownGroup) || minikafka.IsRetriable(err) {
		t.Errorf("a group that is not there: %v", err)
	}
}
