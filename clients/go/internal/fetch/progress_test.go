package fetch

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"testing"
	"time"

	"github.com/minikafka/minikafka/clients/go/internal/batch"
	"github.com/minikafka/minikafka/clients/go/internal/cluster"
	"github.com/minikafka/minikafka/clients/go/internal/errorcode"
	"github.com/minikafka/minikafka/clients/go/internal/fault"
	"github.com/minikafka/minikafka/clients/go/internal/wire"
)

// What is asked and what an answer means, without a network.

var (
	orders = TopicPartition{Topic: "orders", Partition: 1}
	key    = wire.PartitionKey{Topic: 5, Partition: 1}
)

// topic has partition 1 in range 0, partition 0 in range 1.
func topic() *wire.TopicDescription {
	return &wire.TopicDescription{
		Name: "orders", Topic: key.Topic, Partitions: 2, Ring: 1, State: wire.TopicReady,
		Placement: []wire.Placement{{Partition: 1, Range: 0}, {Partition: 0, Range: 1}},
	}
}

// mapOf has nodes 0, 1, … in racks of their own; range i is held by the chain given for it, head first.
func mapOf(t *testing.T, epoch wire.Epoch, chains ...[]wire.NodeID) *cluster.Map {
	t.Helper()
	return mapWith(t, epoch, topic(), chains...)
}

func mapWith(t *testing.T, epoch wire.Epoch, of *wire.TopicDescription, chains ...[]wire.NodeID) *cluster.Map {
	t.Helper()
	reply := &wire.ResolveReply{Cluster: 1, Topics: []wire.TopicDescription{*of}}
	ring := wire.RingMap{Ring: 1, Replication: 3}
	for node := range wire.NodeID(3) {
		reply.Nodes = append(reply.Nodes, wire.NodeAddress{Node: node, Rack: fmt.Sprint("rack-", node), Shards: []string{fmt.Sprintf("shard-%d:1", node)}})
	}
	for _, chain := range chains {
		places := make([]wire.ChainPlace, len(chain))
		for i, node := range chain {
			places[i].Node = node
		}
		ring.Chains = append(ring.Chains, wire.RangeChain{Epoch: epoch, Places: places})
	}
	reply.Rings = []wire.RingMap{ring}
	m, err := (&cluster.Map{}).Succeed(reply)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func mapOfThree(t *testing.T, epoch wire.Epoch) *cluster.Map {
	all := []wire.NodeID{0, 1, 2}
	return mapOf(t, epoch, all, all)
}

// entries are batches with so many records each, from base on.
func entries(base uint64, counts ...int) (bytes []byte) {
	for i, count := range counts {
		var builder batch.Builder
		for range count {
			builder.Push(&batch.Record{Value: []byte("some value"), Timestamp: 7}, 10, wire.BatchBodyBytesMax)
		}
		finished := builder.Finish(nil)
		header := wire.EntryHeader{
			Kind: wire.EntryBatch, BodyFormat: wire.BodyColumnar, BodyBytes: uint32(len(finished.Body)),
			UncompressedBytes: uint32(len(finished.Body)), Epoch: 4, Index: base + uint64(i) + 1, Topic: key.Topic, Partition: key.Partition,
			RecordCount: uint32(count), LastOffsetDelta: uint32(count - 1), BaseOffset: base, BaseTimestamp: 7, ProducerID: -1,
			BodyCRC: wire.CRC32C(finished.Body),
		}
		start := len(bytes)
		bytes = append(header.AppendSealed(bytes), finished.Body...)
		bytes = append(bytes, make([]byte, header.EntryBytes()-(len(bytes)-start))...)
		base += uint64(count)
	}
	return bytes
}

type world struct {
	t        *testing.T
	progress *Progress
	m        *cluster.Map
	now      time.Time
}

func defaults() Settings {
	return Settings{PrefetchBytesMax: 32 << 20, PartitionBytesMax: 1 << 20, Wait: 500 * time.Millisecond, BytesMin: 1}
}

// newWorld reads one partition from offset 10 on.
func newWorld(t *testing.T, settings Settings) *world {
	progress := NewProgress(settings, slog.New(slog.NewTextHandler(io.Discard, nil)))
	progress.Add(topic(), orders.Partition, 10, false, false)
	return &world{t: t, progress: progress, m: mapOf(t, 4, []wire.NodeID{0}, []wire.NodeID{1}), now: time.Unix(1000, 0)}
}

func (w *world) plan() []Request { return w.progress.Plan(w.now, w.m) }

// ask is the only request that is made now.
func (w *world) ask() *Request {
	w.t.Helper()
	requests := w.plan()
	if len(requests) != 1 || len(requests[0].Asked) != 1 {
		w.t.Fatalf("%d requests are made", len(requests))
	}
	return &requests[0]
}

func (w *world) quiet() {
	w.t.Helper()
	if requests := w.plan(); len(requests) > 0 {
		w.t.Fatalf("a request is made: %+v", requests[0])
	}
}

func fetched(code errorcode.Code) wire.FetchedPartition {
	return wire.FetchedPartition{Partition: key, Error: code, Epoch: 4}
}

// answer answers with batches of the given counts from base on.
func (w *world) answer(request *Request, base uint64, counts ...int) {
	w.t.Helper()
	bytes := entries(base, counts...)
	reply := fetched(errorcode.None)
	reply.CommittedEnd, reply.EntriesBytes = base, uint32(len(bytes))
	for _, count := range counts {
		reply.CommittedEnd += uint64(count)
	}
	answers, err := request.Answers(&wire.FetchReply{Partitions: []wire.FetchedPartition{reply}}, bytes, &Buffers{})
	if err != nil {
		w.t.Fatal(err)
	}
	w.progress.Absorb(w.now, w.now, request, answers, nil)
}

func (w *world) refuse(request *Request, reply wire.FetchedPartition) {
	w.progress.Absorb(w.now, w.now, request, []Answer{{Fetched: reply}}, nil)
}

func (w *world) fail(request *Request, err error) {
	w.progress.Absorb(w.now, w.now, request, nil, err)
}

func (w *world) waitForRetry() {
	w.t.Helper()
	at := w.progress.WakeAt(w.now)
	if at.IsZero() {
		w.t.Fatal("a failure is followed by a back-off")
	}
	w.now = at
}

func (w *world) take() Taken {
	w.t.Helper()
	taken, err, ok := w.progress.Take()
	if !ok || err != nil {
		w.t.Fatalf("nothing to take (%v)", err)
	}
	return taken
}

func (w *world) nothing() {
	w.t.Helper()
	if taken, err, ok := w.progress.Take(); ok {
		w.t.Fatalf("there is %+v (%v)", taken, err)
	}
}

func (w *world) failure() error {
	w.t.Helper()
	_, err, ok := w.progress.Take()
	if !ok || err == nil {
		w.t.Fatal("no failure is told")
	}
	return err
}

func (w *world) position() int64 {
	position, _, _ := w.progress.Position(orders)
	return position
}

func (w *world) expect(what string, got, want any) {
	w.t.Helper()
	if got != want {
		w.t.Fatalf("%s: %v, want %v", what, got, want)
	}
}

func TestAPartitionIsInOneRequestAndGoesOnBehindWhatCame(t *testing.T) {
	w := newWorld(t, defaults())
	request := w.ask()
	w.expect("address", request.Address, "shard-0:1")
	w.expect("offset", request.Message.Partitions[0].Offset, uint64(10))
	w.expect("epoch", request.Message.Partitions[0].Epoch, wire.Epoch(4))
	w.quiet()
	w.answer(request, 10, 3, 2)
	w.expect("offset, while the application works", w.ask().Message.Partitions[0].Offset, uint64(15))
	w.expect("position", w.position(), int64(10))
	taken := w.take()
	w.expect("taken from", taken.Position, int64(10))
	w.expect("position", w.position(), int64(13))
	w.take()
	w.nothing()
	w.expect("buffered", w.progress.bufferedBytes, 0)
	w.expect("position", w.position(), int64(15))
}

func TestWhatWaitsIsBoundedPerPartitionAndInTotal(t *testing.T) {
	settings := defaults()
	settings.PartitionBytesMax = 4 << 10
	w := newWorld(t, settings)
	request := w.ask()
	w.expect("bytes", request.Message.Partitions[0].BytesMax, uint32(4<<10))
	w.answer(request, 10, 400)
	w.quiet()
	w.take()
	request = w.ask()
	w.expect("reserved", w.progress.reservedBytes, int(request.Message.BytesMax))
	w.progress.bufferedBytes += settings.PrefetchBytesMax
	w.fail(request, fault.Broker(errorcode.Overloaded, "test"))
	w.waitForRetry()
	w.quiet()
	w.expect("reserved", w.progress.reservedBytes, 0)
}

func TestPartitionsThatWaitAtTheirEndKeepNothingFromWhatIsThere(t *testing.T) {
	settings := defaults()
	settings.PartitionBytesMax = 4 << 10
	w := newWorld(t, settings)
	first := w.ask()
	crowd := topic()
	crowd.Placement = nil
	for number := range uint32(6) {
		crowd.Placement = append(crowd.Placement, wire.Placement{Partition: number})
	}
	w.m = mapWith(t, 4, crowd, []wire.NodeID{0}, []wire.NodeID{1})
	for number := int32(2); number < 5; number++ {
		w.progress.Add(crowd, number, 0, false, false)
		w.expect("what can come, not all that there is memory for", w.ask().Message.BytesMax, uint32(4<<10))
	}
	w.progress.Add(crowd, 5, 0, false, false)
	w.quiet() // As many requests wait as may.
	w.answer(first, 10, 200, 200, 200)
	w.expect("asked while partition 1 has no room", w.ask().Message.Partitions[0].Partition.Partition, uint32(5))
	w.progress.partitions[orders].committedEnd = 1000
	for range 3 {
		w.take()
	}
	w.expect("offset", w.ask().Message.Partitions[0].Offset, uint64(610))
}

func TestFailuresBackOffAndAskForANewerMapOnce(t *testing.T) {
	for code, wantsMap := range map[errorcode.Code]bool{errorcode.NotOwner: true, errorcode.Stale: true, errorcode.Overloaded: false} {
		w := newWorld(t, defaults())
		w.refuse(w.ask(), fetched(code))
		seen, wants := w.progress.TakeMapWish()
		w.expect(code.Name(), wants, wantsMap)
		if wants {
			w.expect("newer than", seen, w.m.Version())
		}
		_, again := w.progress.TakeMapWish()
		w.expect("again", again, false)
		w.quiet()
		w.waitForRetry()
		w.ask()
	}
}

func TestABeyondCommittedPositionIsNeverReset(t *testing.T) {
	settings := defaults()
	settings.OutOfRange = OutOfRangeEarliest
	w := newWorld(t, settings)
	w.refuse(w.ask(), fetched(errorcode.BeyondCommitted))
	w.waitForRetry()
	w.expect("offset", w.ask().Message.Partitions[0].Offset, uint64(10))
}

func TestEmptyAnswersThatComeAtOnceDoNotMakeItSpin(t *testing.T) {
	w := newWorld(t, defaults())
	asked := 0
	for requests := w.plan(); len(requests) > 0; requests = w.plan() {
		if asked++; asked > 10 {
			t.Fatal("it spins")
		}
		w.answer(&requests[0], 10)
	}
	w.waitForRetry()
	w.ask()
}

func TestASeekMakesAnswersToOlderQuestionsVoid(t *testing.T) {
	w := newWorld(t, defaults())
	older := w.ask()
	w.expect("sought", w.progress.Seek(orders, 40), true)
	newer := w.ask()
	w.expect("offset", newer.Message.Partitions[0].Offset, uint64(40))
	w.answer(older, 10, 5)
	w.nothing()
	w.quiet()
	w.answer(newer, 40, 2)
	w.take()
	w.expect("position", w.position(), int64(42))
	w.expect("reserved", w.progress.reservedBytes, 0)
}

func TestARemovedPartitionIsNotReadAnyMore(t *testing.T) {
	w := newWorld(t, defaults())
	request := w.ask()
	w.progress.Remove(orders)
	w.answer(request, 10, 5)
	w.nothing()
	w.quiet()
	w.expect("buffered", w.progress.bufferedBytes, 0)
	// Added again, it begins anew: held, until the application was told of it.
	w.progress.Add(topic(), orders.Partition, 12, false, true)
	w.quiet()
	w.progress.Unhold(orders)
	w.expect("offset", w.ask().Message.Partitions[0].Offset, uint64(12))
}

func TestAFailureWaitsForWhatCameBeforeItAndIsToldAgainWhenNothingElseCanCome(t *testing.T) {
	w := newWorld(t, defaults())
	w.answer(w.ask(), 10, 5)
	w.refuse(w.ask(), fetched(errorcode.OffsetOutOfRange))
	w.quiet()
	w.take()
	for range 3 {
		if err := w.failure(); !errors.Is(err, errorcode.OffsetOutOfRange) {
			t.Fatal(err)
		}
	}
	w.progress.Seek(orders, 12)
	w.nothing()
	w.ask()
}

func TestOlderOffsetsAreReadWhereTheShardSaysUntilItsOwnBegin(t *testing.T) {
	w := newWorld(t, defaults())
	moved := fetched(errorcode.Moved)
	moved.LogStart, moved.Previous = 15, &wire.RangeKey{Ring: 1, Range: 1}
	w.refuse(w.ask(), moved)
	request := w.ask()
	w.expect("address", request.Address, "shard-1:1")
	w.expect("range", request.Message.Partitions[0].Range, wire.RangeKey{Ring: 1, Range: 1})
	w.answer(request, 10, 5)
	if _, end, _ := w.progress.Position(orders); end >= 0 {
		t.Errorf("an older range does not know the end, it is told as %d", end)
	}
	request = w.ask()
	w.expect("address", request.Address, "shard-0:1")
	w.expect("offset", request.Message.Partitions[0].Offset, uint64(15))
}

func TestTwoRangesThatNameEachOtherAreGivenUp(t *testing.T) {
	w := newWorld(t, defaults())
	for turn := 0; ; turn++ {
		if turn > 50 {
			t.Fatal("it follows for ever")
		}
		requests := w.plan()
		if len(requests) == 0 {
			break
		}
		moved := fetched(errorcode.Moved)
		other := requests[0].Message.Partitions[0].Range
		other.Range = 1 - other.Range
		moved.LogStart, moved.Previous = 15, &other
		w.refuse(&requests[0], moved)
	}
	if err := w.failure(); !errors.Is(err, errorcode.Moved) {
		t.Error(err)
	}
}

func TestDamageIsAskedForAgainAndThenTold(t *testing.T) {
	w := newWorld(t, defaults())
	for attempt := 1; attempt <= damagesMax; attempt++ {
		request := w.ask()
		answers := []Answer{{Fetched: fetched(errorcode.None), Damage: errors.New("flipped")}}
		w.progress.Absorb(w.now, w.now, request, answers, nil)
		if attempt < damagesMax {
			w.nothing()
			w.waitForRetry()
		}
	}
	var damaged *fault.DamagedError
	if err := w.failure(); !errors.As(err, &damaged) || damaged.First != 10 || damaged.Stored {
		t.Error(err)
	}
}

func TestAPausedPartitionIsNeitherAskedForNorHandedOut(t *testing.T) {
	w := newWorld(t, defaults())
	request := w.ask()
	w.progress.SetPaused(orders, true)
	w.answer(request, 10, 5)
	w.nothing()
	w.quiet()
	w.progress.SetPaused(orders, false)
	taken := w.take()
	w.ask()
	// Put back, it comes again, from where the application was.
	w.progress.PutBack(taken, 12)
	w.expect("position", w.position(), int64(12))
	w.expect("taken from", w.take().Position, int64(12))
}

func TestDamagedRecordsStopTheirPartitionWithAnErrorThatSaysWhich(t *testing.T) {
	w := newWorld(t, defaults())
	w.answer(w.ask(), 10, 3)
	damaged, resume := fetched(errorcode.DataDamaged), uint64(20)
	damaged.Resume, damaged.CommittedEnd = &resume, 30
	w.refuse(w.ask(), damaged)
	w.take()
	var told *fault.DamagedError
	if err := w.failure(); !errors.As(err, &told) || told.First != 13 || told.Resume != 20 || !errors.Is(err, errorcode.DataDamaged) {
		t.Fatal(err)
	}
	w.quiet()
	w.expect("position", w.position(), int64(13))
}

func TestDamagedRecordsAreSkippedAndToldWhenThatIsWanted(t *testing.T) {
	settings := defaults()
	settings.SkipDamage = true
	w := newWorld(t, settings)
	w.answer(w.ask(), 10, 3)
	damaged, resume := fetched(errorcode.DataDamaged), uint64(20)
	damaged.Resume, damaged.CommittedEnd = &resume, 30
	w.refuse(w.ask(), damaged)
	w.expect("position", w.position(), int64(10))
	w.expect("offset", w.ask().Message.Partitions[0].Offset, uint64(20))
	w.take()
	w.expect("position", w.position(), int64(20))
	if skipped := w.progress.Skipped(); len(skipped) != 1 || skipped[0] != (Skipped{orders, 13, 20}) {
		t.Errorf("%+v", skipped)
	}
	w = newWorld(t, settings)
	w.refuse(w.ask(), fetched(errorcode.DataDamaged))
	w.quiet() // at the end it asks again after a while
	w.waitForRetry()
	w.expect("offset", w.ask().Message.Partitions[0].Offset, uint64(10))
}

func nearest(t *testing.T, rack string) *world {
	settings := defaults()
	settings.ReadFrom, settings.Rack = ReadFromNearest, rack
	w := newWorld(t, settings)
	w.m = mapOfThree(t, 4)
	return w
}

func TestTheMemberOfTheRackIsReadFromAndOthersWhileItFails(t *testing.T) {
	w := nearest(t, "rack-2")
	request := w.ask()
	w.expect("address", request.Address, "shard-2:1")
	w.answer(request, 10, 3)
	w.fail(w.ask(), &fault.ConnectionError{Address: "shard-2:1", Lost: true})
	w.waitForRetry()
	for _, base := range []uint64{13, 14} {
		request := w.ask()
		w.expect("address", request.Address, "shard-0:1")
		w.answer(request, base, 1)
	}
	w.now = w.now.Add(leftAlone)
	request = w.ask()
	w.expect("it goes back", request.Address, "shard-2:1")
	w.expect("offset", request.Message.Partitions[0].Offset, uint64(15))
	w.expect("nobody is near", nearest(t, "elsewhere").ask().Address, "shard-0:1")
	any := nearest(t, "")
	any.progress.settings.ReadFrom = ReadFromAny
	w.expect("spread by partition", any.ask().Address, "shard-1:1")
}

func TestAMemberThatDoesNotActAnyMoreIsLeftAtOnceButNotForAnOldMap(t *testing.T) {
	w := nearest(t, "rack-1")
	stale := fetched(errorcode.Stale)
	stale.Epoch = 5
	w.refuse(w.ask(), stale)
	_, wants := w.progress.TakeMapWish()
	w.expect("the map is what is old", wants, true)
	w.m = mapOfThree(t, 5)
	w.waitForRetry()
	request := w.ask()
	w.expect("address", request.Address, "shard-1:1")
	w.refuse(request, stale)
	request = w.ask()
	w.expect("at once", request.Address, "shard-0:1")
	w.refuse(request, fetched(errorcode.Overloaded))
	w.waitForRetry()
	w.expect("the head's refusal is waited out", w.ask().Address, "shard-0:1")
}

func TestAMemberThatLagsIsAskedAgainAndThenLeftAlone(t *testing.T) {
	w := nearest(t, "rack-1")
	for range lagsMax - 1 {
		request := w.ask()
		w.expect("address", request.Address, "shard-1:1")
		w.refuse(request, fetched(errorcode.BeyondCommitted))
		w.quiet()
		w.waitForRetry()
	}
	w.refuse(w.ask(), fetched(errorcode.BeyondCommitted))
	w.expect("address", w.ask().Address, "shard-0:1")
}

func TestOnlyTheHeadSaysWhereALogBeginsAndEnds(t *testing.T) {
	w := nearest(t, "rack-1")
	w.progress.settings.OutOfRange = OutOfRangeEarliest
	w.answer(w.ask(), 10, 5)
	behind := fetched(errorcode.OffsetOutOfRange)
	behind.CommittedEnd = 12
	w.refuse(w.ask(), behind)
	request := w.ask()
	w.expect("address", request.Address, "shard-0:1")
	w.expect("offset", request.Message.Partitions[0].Offset, uint64(15))
	behind = fetched(errorcode.None)
	behind.CommittedEnd = 13
	w.refuse(request, behind)
	if _, end, _ := w.progress.Position(orders); end != 15 {
		t.Errorf("what is committed stays so, the end is %d", end)
	}
}

func TestReleasedMemoryIsUsedAgainOnlyWhenNobodyHoldsIt(t *testing.T) {
	buffers := &Buffers{}
	memory := buffers.Allocate(1000)
	owner := buffers.Own(memory)
	second := owner.retain()
	owner.Release()
	if other := buffers.Allocate(1000); &other[0] == &memory[0] {
		t.Fatal("memory in use is given out")
	}
	second.Release()
	if again := buffers.Allocate(900); &again[0] != &memory[0] {
		t.Error("released memory is not used again")
	}
	var none *Buffer
	none.Release() // a copy has no counted memory
}

func FuzzVerified(f *testing.F) {
	f.Add(entries(10, 3, 2), uint64(10))
	f.Add(entries(10, 3, 2), uint64(14))
	f.Add(entries(0, 1), uint64(0))
	f.Fuzz(func(t *testing.T, bytes []byte, position uint64) {
		// A fuzzer does not find checksums: those of the first header and body are made right, where there is one.
		if header, err := wire.DecodeUnsealed(bytes); err == nil && header.EntryBytes() <= len(bytes) {
			bytes = append([]byte(nil), bytes...)
			header.BodyCRC = wire.CRC32C(bytes[wire.EntryHeaderBytes:][:header.BodyBytes])
			copy(bytes, header.AppendSealed(nil))
		}
		found, damage := Verified(bytes, key, position, nil)
		next := position
		for i, entry := range found {
			if i > 0 && entry.Header.BaseOffset < next || entry.Header.NextOffset() <= position {
				t.Fatalf("entry %d begins at %d, after %d", i, entry.Header.BaseOffset, next)
			}
			next = entry.Header.NextOffset()
		}
		if damage == nil && len(bytes) > 0 && len(bytes)%wire.EntryAlignment != 0 {
			t.Fatal("bytes that are no entry are passed over")
		}
	})
}
