// Package fetch decides how far each partition is fetched and read: what to ask which shard, and what an answer means.
//
// Pure and synchronous: time, the map and answers come in; requests and batches come out. A partition is in at most one
// request. What waits for the application is bounded: requests reserve their share of the prefetch memory before they leave.
// Every failure is followed by a back-off, and so is an answer without data that came at once: nothing spins.
package fetch

import (
	"log/slog"
	"sort"
	"time"

	"github.com/minikafka/minikafka/clients/go/internal/backoff"
	"github.com/minikafka/minikafka/clients/go/internal/cluster"
	"github.com/minikafka/minikafka/clients/go/internal/wire"
)

const (
	// fetchesPerShardMax bounds requests in flight to one shard for partitions that are behind; and as many that wait for data:
	// one, and others for partitions that were not in it.
	fetchesPerShardMax = 4
	// roomMin: with less memory than this, nothing is asked for.
	roomMin = 32 << 10
)

// OutOfRange says what happens to a position that does not exist.
type OutOfRange int

// The policies: the error is told, or reading goes on at the first record, or behind the last one.
const (
	OutOfRangeError OutOfRange = iota
	OutOfRangeEarliest
	OutOfRangeLatest
)

// Settings are what reading is told once.
type Settings struct {
	PrefetchBytesMax  int
	PartitionBytesMax int
	Wait              time.Duration
	BytesMin          uint32
	OutOfRange        OutOfRange
	SkipDamage        bool
	ReadFrom          ReadFrom
	Rack              string
}

// TopicPartition names a partition as applications do.
type TopicPartition struct {
	Topic     string
	Partition int32
}

// Skipped are records that were left out because they are damaged: From to before To.
type Skipped struct {
	TopicPartition
	From, To int64
}

// Progress has every partition that is read.
type Progress struct {
	settings   Settings
	log        *slog.Logger
	partitions map[TopicPartition]*partition
	// idle partitions are in no request, the longest waiting first.
	idle []*partition
	// ready partitions have something for the application, each once.
	ready         []*partition
	bufferedBytes int
	reservedBytes int
	inFlight      map[flight]int
	// outdatedMap is the newest map that has turned out to be out of date; wantsMap: there is one.
	outdatedMap uint64
	wantsMap    bool
	skipped     []Skipped
}

type partition struct {
	name  TopicPartition
	topic *wire.TopicDescription
	// position is the offset of the next record for the application, fetchFrom that of the next one to be fetched.
	position  uint64
	fetchFrom uint64
	batches   []Entry
	buffered  int
	// committedEnd is as last heard; heard: something was.
	committedEnd uint64
	heard        bool
	isPaused     bool
	// isHeld: it was assigned, and the application has not been told yet.
	isHeld    bool
	isIdle    bool
	isReady   bool
	isRemoved bool
	// isStarting: it began at "earliest", and its first position may be below the log's start.
	isStarting bool
	// generation grows when the application seeks: answers to older questions do not count.
	generation int
	// elsewhere: older offsets are in this range, below until.
	elsewhere *wire.RangeKey
	until     uint64
	members   members
	hops      int
	failures  int
	damages   int
	// emptyAnswers came at once and without data.
	emptyAnswers int
	retryAt      time.Time
	// failure: it stands still until a seek.
	failure        error
	failureWasTold bool
}

// Request is a request to one shard, and the partitions in its order.
type Request struct {
	Address    string
	Message    wire.FetchRequest
	Asked      []Asked
	mapVersion uint64
	isBehind   bool
}

// flight is where requests go, and whether they are for something that is certainly there, so that the shard does not wait.
type flight struct {
	address  string
	isBehind bool
}

// Asked is one partition of a request: an answer counts only while the partition is still in the same generation.
type Asked struct {
	partition  *partition
	generation int
	Position   uint64
	node       wire.NodeID
	isHead     bool
	epoch      wire.Epoch
}

// Taken is a batch for the application, from position on.
type Taken struct {
	TopicPartition
	Entry    Entry
	Position int64
}

// NewProgress begins without partitions.
func NewProgress(settings Settings, log *slog.Logger) *Progress {
	return &Progress{settings: settings, log: log, partitions: map[TopicPartition]*partition{}, inFlight: map[flight]int{}}
}

// Add begins to read a partition at a position; isStarting: as early as possible. isHeld: only after Unhold. One that is read
// already is not changed.
func (p *Progress) Add(topic *wire.TopicDescription, number int32, position int64, isStarting, isHeld bool) {
	name := TopicPartition{topic.Name, number}
	if p.partitions[name] != nil {
		return
	}
	added := &partition{name: name, topic: topic, position: uint64(position), fetchFrom: uint64(position), isStarting: isStarting, isHeld: isHeld, isIdle: true}
	p.partitions[name] = added
	p.idle = append(p.idle, added)
}

// Unhold lets a partition be read that was added to be held.
func (p *Progress) Unhold(name TopicPartition) {
	if held := p.partitions[name]; held != nil {
		held.isHeld = false
	}
}

// FailAt makes a partition stand still, and tells the application why.
func (p *Progress) FailAt(name TopicPartition, err error) {
	if failed := p.partitions[name]; failed != nil {
		failed.failure, failed.isHeld = err, false
		p.announce(failed)
	}
}

// Remove stops reading a partition; what was fetched of it is dropped.
func (p *Progress) Remove(name TopicPartition) {
	removed := p.partitions[name]
	if removed == nil {
		return
	}
	delete(p.partitions, name)
	removed.isRemoved = true
	removed.generation++
	p.dropBatches(removed)
	for i, idle := range p.idle {
		if idle == removed {
			p.idle = append(p.idle[:i], p.idle[i+1:]...)
			break
		}
	}
}

func (p *Progress) dropBatches(from *partition) {
	p.bufferedBytes -= from.buffered
	from.buffered = 0
	for i := range from.batches {
		from.batches[i].Buffer.Release()
	}
	from.batches = nil
}

// Plan has the requests to be made now.
func (p *Progress) Plan(now time.Time, current *cluster.Map) []Request {
	room := p.settings.PrefetchBytesMax - p.bufferedBytes - p.reservedBytes
	if room < roomMin || len(p.idle) == 0 {
		return nil
	}
	var requests []Request
	at := map[string]int{}
	idle := p.idle
	p.idle = nil
	for _, candidate := range idle {
		member, fetched, ok := p.question(candidate, now, current)
		if ok {
			number, known := at[member.Address]
			if !known {
				number = len(requests)
				at[member.Address] = number
				requests = append(requests, Request{Address: member.Address, mapVersion: current.Version()})
			}
			// What does not fit in one request waits for the next turn.
			if request := &requests[number]; len(request.Asked) < wire.RequestPartitionsMax {
				request.Message.Partitions = append(request.Message.Partitions, fetched)
				request.Asked = append(request.Asked, Asked{
					candidate, candidate.generation, fetched.Offset, member.Node, member.IsHead, fetched.Epoch,
				})
				request.isBehind = request.isBehind || candidate.isBehind()
				candidate.isIdle = false
				continue
			}
		}
		p.idle = append(p.idle, candidate)
	}
	if len(requests) == 0 {
		return nil
	}
	share := min(room/len(requests), wire.FetchBytesMax)
	for i := range requests {
		message := &requests[i].Message
		message.WaitMsMax, message.BytesMin = uint32(p.settings.Wait.Milliseconds()), p.settings.BytesMin
		// Reserved is what can come, so that requests that wait at the end leave the others their memory.
		wanted := 0
		for j := range message.Partitions {
			wanted += int(message.Partitions[j].BytesMax)
		}
		message.BytesMax = uint32(min(share, wanted))
		p.reservedBytes += int(message.BytesMax)
		p.inFlight[requests[i].flight()]++
	}
	return requests
}

func (r *Request) flight() flight { return flight{r.Address, r.isBehind} }

// isBehind says whether there is certainly more to be fetched.
func (of *partition) isBehind() bool { return of.heard && of.fetchFrom < of.committedEnd }

// question is what to ask about a partition, and whom, if it is time to.
func (p *Progress) question(of *partition, now time.Time, current *cluster.Map) (cluster.Member, wire.FetchPartition, bool) {
	if of.isPaused || of.isHeld || of.failure != nil || of.retryAt.After(now) || of.buffered >= p.settings.PartitionBytesMax {
		return cluster.Member{}, wire.FetchPartition{}, false
	}
	topic := of.topic
	// The map's own description, if it is of the same topic: its placement is newer.
	if known := current.Usable(topic.Name); known != nil && known.Topic == topic.Topic {
		topic = known
	}
	number := uint32(of.name.Partition)
	key, ok := current.RangeOf(topic, number)
	if of.elsewhere != nil {
		key, ok = *of.elsewhere, true
	}
	var member cluster.Member
	if ok {
		member, ok = of.members.choose(now, &p.settings, current, key, of.name.Partition)
	}
	if !ok {
		p.wishMap(current.Version())
		of.backOff(now, true, 0)
		return member, wire.FetchPartition{}, false
	}
	if p.inFlight[flight{member.Address, of.isBehind()}] >= fetchesPerShardMax {
		return member, wire.FetchPartition{}, false
	}
	return member, wire.FetchPartition{
		Range: key, Epoch: current.Epoch(key), Partition: wire.PartitionKey{Topic: topic.Topic, Partition: number},
		Offset: of.fetchFrom, BytesMax: uint32(p.settings.PartitionBytesMax - of.buffered),
	}, true
}

// WakeAt is when Plan has something to do, if nothing else happens before; zero: never.
func (p *Progress) WakeAt(now time.Time) time.Time {
	var at time.Time
	for _, waiting := range p.idle {
		if waiting.failure == nil && !waiting.isPaused && !waiting.isHeld && waiting.retryAt.After(now) && (at.IsZero() || waiting.retryAt.Before(at)) {
			at = waiting.retryAt
		}
	}
	return at
}

func (p *Progress) wishMap(seen uint64) {
	p.outdatedMap = max(p.outdatedMap, seen)
	p.wantsMap = true
}

// TakeMapWish tells whether a map newer than this version is needed; said once per failure.
func (p *Progress) TakeMapWish() (seen uint64, ok bool) {
	ok = p.wantsMap
	p.wantsMap = false
	return p.outdatedMap, ok
}

// Take is the next batch for the application, partitions taking turns; or the next failure, told once. False: nothing yet.
func (p *Progress) Take() (Taken, error, bool) {
	for len(p.ready) > 0 {
		next := p.ready[0]
		p.ready[0] = nil
		p.ready = p.ready[1:]
		next.isReady = false
		if next.isPaused || next.isRemoved {
			continue
		}
		if len(next.batches) > 0 {
			return p.takeBatch(next), nil, true
		}
		if next.failure != nil && !next.failureWasTold {
			next.failureWasTold = true
			return Taken{}, next.failure, true
		}
	}
	// Nothing can come any more: better told again than waited for in vain.
	var failure error
	for _, partition := range p.partitions {
		if partition.isPaused {
			continue
		}
		if partition.failure == nil || partition.isHeld {
			return Taken{}, nil, false
		}
		failure = partition.failure
	}
	return Taken{}, failure, failure != nil
}

func (p *Progress) takeBatch(from *partition) Taken {
	entry := from.batches[0]
	from.batches[0] = Entry{}
	from.batches = from.batches[1:]
	from.buffered -= entry.bufferedBytes()
	p.bufferedBytes -= entry.bufferedBytes()
	position := from.position
	from.position = max(position, entry.Header.NextOffset())
	if len(from.batches) == 0 {
		// Behind it may be records that were skipped.
		from.position = max(from.position, from.fetchFrom)
		from.batches = nil
	}
	p.announce(from)
	return Taken{from.name, entry, int64(position)}
}

// MayFetch tells whether more can be fetched after the application has taken something.
func (p *Progress) MayFetch() bool { return len(p.idle) > 0 }

// Fail says that a batch turned out to be unreadable: its partition goes back and stands still.
func (p *Progress) Fail(name TopicPartition, position int64, err error) {
	if failed := p.partitions[name]; failed != nil {
		p.restart(failed, position)
		failed.failure, failed.failureWasTold = err, true
	}
}

// Seek lets the application go on at position. False: the partition is not read here.
func (p *Progress) Seek(name TopicPartition, position int64) bool {
	found := p.partitions[name]
	if found != nil {
		p.restart(found, position)
	}
	return found != nil
}

// PutBack puts back what was taken and not read, from position on.
func (p *Progress) PutBack(taken Taken, position int64) {
	to := p.partitions[taken.TopicPartition]
	if to == nil {
		taken.Entry.Buffer.Release()
		return
	}
	to.position = uint64(position)
	to.buffered += taken.Entry.bufferedBytes()
	p.bufferedBytes += taken.Entry.bufferedBytes()
	to.batches = append([]Entry{taken.Entry}, to.batches...)
	p.announce(to)
}

// SetPaused stops handing out, and asking for, records of a partition; or lets it go on. False: it is not read here.
func (p *Progress) SetPaused(name TopicPartition, isPaused bool) bool {
	found := p.partitions[name]
	if found != nil {
		found.isPaused = isPaused
		p.announce(found)
	}
	return found != nil
}

// Position is where a partition is read next, and its committed end as last heard (negative: not heard yet).
func (p *Progress) Position(name TopicPartition) (position, committedEnd int64, ok bool) {
	found := p.partitions[name]
	if found == nil {
		return 0, 0, false
	}
	committedEnd = -1
	if found.heard {
		committedEnd = int64(found.committedEnd)
	}
	return int64(found.position), committedEnd, true
}

// Partitions are those that are read, ordered by topic and number.
func (p *Progress) Partitions() []TopicPartition {
	names := make([]TopicPartition, 0, len(p.partitions))
	for name := range p.partitions {
		names = append(names, name)
	}
	sort.Slice(names, func(i, j int) bool {
		if names[i].Topic != names[j].Topic {
			return names[i].Topic < names[j].Topic
		}
		return names[i].Partition < names[j].Partition
	})
	return names
}

// Skipped is what was left out because it is damaged, the oldest first; the latest 1,024 stretches.
func (p *Progress) Skipped() []Skipped { return append([]Skipped(nil), p.skipped...) }

// restart begins anew at a position. A request that is under way for the old one no longer counts, so the partition is free
// for a new one.
func (p *Progress) restart(of *partition, position int64) {
	p.dropBatches(of)
	fresh := partition{
		name: of.name, topic: of.topic, position: uint64(position), fetchFrom: uint64(position), committedEnd: of.committedEnd,
		heard: of.heard, isPaused: of.isPaused, isHeld: of.isHeld, isReady: of.isReady, generation: of.generation + 1, isIdle: true,
	}
	wasIdle := of.isIdle
	*of = fresh
	if !wasIdle {
		p.idle = append([]*partition{of}, p.idle...)
	}
}

func (p *Progress) announce(of *partition) {
	hasSomething := len(of.batches) > 0 || of.failure != nil && !of.failureWasTold
	if hasSomething && !of.isReady && !of.isPaused && !of.isRemoved {
		of.isReady = true
		p.ready = append(p.ready, of)
	}
}

func (of *partition) backOff(now time.Time, needsMap bool, serverAsks time.Duration) {
	of.failures++
	of.retryAt = now.Add(backoff.Random(of.failures, needsMap, serverAsks))
}
