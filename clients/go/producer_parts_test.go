package minikafka

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/minikafka/minikafka/clients/go/internal/batch"
	"github.com/minikafka/minikafka/clients/go/internal/produce"
	"github.com/minikafka/minikafka/clients/go/internal/wire"
)

// The parts of a producer that have no server: memory, tickets, gathering, the clock.

func TestMemoryGoesToThoseWhoWaitFirst(t *testing.T) {
	m := newMemoryBudget(100)
	if !m.tryReserve(80) || m.tryReserve(30) || !m.tryReserve(20) {
		t.Fatal("100 bytes are 80 and 20")
	}
	ctx := context.Background()
	order := make(chan int, 2)
	for _, bytes := range []int{60, 10} {
		waiting := m.waiting.Load()
		go func() {
			if err := m.reserve(ctx, bytes, func() {}); err != nil {
				t.Error(err)
			}
			order <- bytes
		}()
		for m.waiting.Load() == waiting {
			time.Sleep(time.Millisecond)
		}
	}
	m.release(20) // enough for the second one, which waits behind the first
	if m.tryReserve(5) {
		t.Error("who comes later passes those who wait")
	}
	m.release(50)
	if first, second := <-order, <-order; first+second != 70 {
		t.Error(first, second)
	}
	if left := m.available.Load(); left != 0 {
		t.Errorf("%d bytes are left", left)
	}
}

func TestAWaitForMemoryEndsWithItsContextAndGivesBack(t *testing.T) {
	m := newMemoryBudget(10)
	m.tryReserve(10)
	ctx, cancel := context.WithCancel(context.Background())
	hurried := false
	cancel()
	if err := m.reserve(ctx, 5, func() { hurried = true }); !errors.Is(err, context.Canceled) || !hurried {
		t.Error(err)
	}
	m.release(10)
	if m.waiting.Load() != 0 || !m.tryReserve(10) {
		t.Error("who gave up is still waited for")
	}
	m.close()
	if err := m.reserve(context.Background(), 1, func() {}); !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
}

// Many take and give back at the same time: in the end all is there again.
func TestMemoryIsNeitherLostNorMade(t *testing.T) {
	const bytes = 1000
	m := newMemoryBudget(bytes)
	var all sync.WaitGroup
	for worker := range 8 {
		all.Add(1)
		go func() {
			defer all.Done()
			ctx, cancel := context.WithTimeout(context.Background(), time.Duration(worker+1)*5*time.Millisecond)
			defer cancel()
			for i := range 2000 {
				take := 1 + (worker*131+i*17)%400
				if !m.tryReserve(take) && m.reserve(ctx, take, func() {}) != nil {
					continue
				}
				m.release(take)
			}
		}()
	}
	all.Wait()
	if left := m.available.Load(); left != bytes {
		t.Errorf("%d of %d bytes are there", left, bytes)
	}
}

func TestAFlushWaitsForWhatWasOpenedBeforeItAndTellsOneFailure(t *testing.T) {
	var u unresolvedBatches
	first, second := u.open(), u.open()
	end := u.next()
	later := u.open()
	done := make(chan error, 1)
	go func() { done <- u.allBefore(context.Background(), end) }()
	failure := errors.New("failed")
	stillWaits := func(what string) {
		t.Helper()
		select {
		case err := <-done:
			t.Fatalf("%s, and the flush ends with %v", what, err)
		case <-time.After(10 * time.Millisecond):
		}
	}
	stillWaits("nothing is resolved")
	u.resolve(first, nil)
	stillWaits("the second is not resolved")
	u.resolve(later, nil)
	stillWaits("the second is not resolved")
	u.resolve(second, failure)
	if err := <-done; err != failure {
		t.Error(err)
	}
	if err := u.allBefore(context.Background(), end); err != nil {
		t.Errorf("told again: %v", err)
	}
}

// gatheringWorld is a topic without a sender.
func gatheringWorld() (*gathering, *topicProducer) {
	p := &producer{recycler: recycler{bodyBytesMax: 4000}}
	return &gathering{}, &topicProducer{producer: p, batchBytesMax: 2000, bodyBytesMax: 4000}
}

func gather(g *gathering, topic *topicProducer, bytes int) gathered {
	record := &batch.Record{Value: make([]byte, bytes), Timestamp: 5}
	return g.push(record, bytes, 1, nil, topic)
}

func TestABatchIsAnnouncedOnceAndAgainWhenFullAfterALook(t *testing.T) {
	g, topic := gatheringWorld()
	if !gather(g, topic, 900).announce || gather(g, topic, 900).announce || gather(g, topic, 900).announce {
		t.Fatal("a new batch is announced, and the sender is on its way already")
	}
	if full := g.takeFull(); full == nil || full.builder.Records() != 2 {
		t.Fatal("the first batch is full with two")
	}
	gather(g, topic, 900)
	if !gather(g, topic, 900).announce {
		t.Fatal("the second batch is full, and the sender has looked")
	}
}

// A full batch must not be overtaken by the one that is opened behind it.
func TestAFullBatchLeavesFirst(t *testing.T) {
	g, topic := gatheringWorld()
	for range 3 {
		gather(g, topic, 900)
	}
	always := func(*openBatch) bool { return true }
	if first, second := g.takeNext(always), g.takeNext(always); first.builder.Records() != 2 || second.builder.Records() != 1 {
		t.Fatal(first.builder.Records(), second.builder.Records())
	}
	if g.takeNext(always) != nil || !g.openedAt().IsZero() {
		t.Fatal("something is left")
	}
}

func TestALargeRecordGoesAlone(t *testing.T) {
	g, topic := gatheringWorld()
	gather(g, topic, 10)
	if done := gather(g, topic, 3000); done.fullBytes < 3010 {
		t.Errorf("%d bytes are full", done.fullBytes)
	}
	if first, second := g.takeFull(), g.takeFull(); first.builder.Records() != 1 || second.builder.Records() != 1 {
		t.Fatal("it shares a batch")
	}
}

func TestPromisesBeginWithTheFirstThatIsThere(t *testing.T) {
	g, topic := gatheringWorld()
	gather(g, topic, 1)
	called := []int64{}
	promise := func(d Delivery, err error) { called = append(called, d.Offset) }
	g.push(&batch.Record{Value: []byte{1}}, 1, 1, promise, topic)
	gather(g, topic, 1)
	open := g.takeNext(func(*openBatch) bool { return true })
	resolved := resolvedBatch{batch: &sentBatch{topic: topic, promises: open.promises}, stored: produce.Stored{BaseOffset: 40}}
	resolved.callPromises()
	if len(called) != 1 || called[0] != 41 {
		t.Errorf("called for %v", called)
	}
}

func TestTheSharedClockEndsWithTheActivity(t *testing.T) {
	defer goleak.VerifyNone(t)
	client := &Client{}
	client.lifetime, client.endLifetime = context.WithCancel(context.Background())
	var clock recordClock
	clock.batchFull(client, func() int64 { return 7 })
	for end := time.Now().Add(5 * time.Second); clock.isRunning.Load(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it runs on although no record comes")
		}
	}
	if clock.shared.Load() != 0 {
		t.Error("it is still valid")
	}
	if late := time.Since(time.UnixMilli(clock.milliseconds())); late > time.Second {
		t.Errorf("the time is %v late", late)
	}
	client.endLifetime()
	client.tasks.wait()
}

func TestOptionsOutsideOfTheirRangeAreRefused(t *testing.T) {
	quiet := Logger(slog.New(slog.NewTextHandler(io.Discard, nil)))
	good := []Option{Gateways("localhost:9000"), quiet, ConsumeTopics("t")}
	for name, bad := range map[string][]Option{
		"no gateway":         {Gateways()},
		"no port":            {Gateways("localhost")},
		"batch":              {BatchBytes(wire.BatchBodyBytesMax + 1)},
		"buffer":             {BufferBytes(10)},
		"in flight":          {InFlight(9)},
		"level":              {CompressZstd(23)},
		"delivery":           {DeliveryTimeout(0)},
		"prefetch":           {PrefetchBytes(1)},
		"partition bytes":    {PartitionFetchBytes(1)},
		"wait":               {FetchWait(time.Minute)},
		"group":              {Group("a b")},
		"session":            {Group("g"), SessionTimeout(time.Millisecond)},
		"instance":           {Instance("i")},
		"partitions":         {Group("g"), ConsumePartitions("t", 1)},
		"offset in a group":  {Group("g"), StartAtOffset(1)},
		"revoke":             {Group("g"), RevokeWait(time.Hour)},
		"negative interval":  {Group("g"), CommitInterval(-1)},
		"connect":            {ConnectTimeout(0)},
		"no logger":          {Logger(nil)},
		"name":               {ClientName(string(make([]byte, 2000)))},
		"negative start":     {StartAtOffset(-1)},
		"negative min bytes": {FetchMinBytes(-1)},
	} {
		client, err := New(append(append([]Option{}, good...), bad...)...)
		var refused *OptionError
		if !errors.As(err, &refused) || refused.Option == "" {
			t.Errorf("%s: %v", name, err)
		}
		if client != nil {
			t.Errorf("%s: there is a client", name)
		}
	}
}
