package fetch

import (
	"errors"
	"time"

	"github.com/minikafka/minikafka/clients/go/internal/errorcode"
	"github.com/minikafka/minikafka/clients/go/internal/explain"
	"github.com/minikafka/minikafka/clients/go/internal/fault"
	"github.com/minikafka/minikafka/clients/go/internal/wire"
)

const (
	// damagesMax is how often the same position is damaged before its partition stands still.
	damagesMax = 3
	// skippedMax bounds the stretches of damaged records that are remembered.
	skippedMax = 1024
	// hopsMax bounds how often a partition is followed to older ranges without a record in between.
	hopsMax = 16
	// emptyAnswersMax are answers without data that came at once and are taken for chance; then a pause is made.
	emptyAnswersMax  = 2
	emptyAnswerPause = 20 * time.Millisecond
	// atOnce is what counts as at once, whatever the shard was asked to wait.
	atOnce = 5 * time.Millisecond
)

// Answer is one partition's part of a reply, its entries verified.
type Answer struct {
	Fetched wire.FetchedPartition
	Entries []Entry
	// Damage is what is wrong behind the entries, if anything.
	Damage error
}

// Explain notes where the time of the fetch went; nil: nobody told.
func (a *Answer) Explain(told *explain.Explain) {
	for i := range a.Entries {
		a.Entries[i].Explain = told
	}
}

// Answers cuts a reply into those of its partitions, and verifies them. An error means that the reply is not one to this
// request.
func (r *Request) Answers(reply *wire.FetchReply, bulk []byte, buffers *Buffers) ([]Answer, error) {
	if len(reply.Partitions) != len(r.Asked) {
		return nil, errors.New("it is about other partitions than were asked for")
	}
	total := 0
	for i := range reply.Partitions {
		if reply.Partitions[i].Partition != r.Message.Partitions[i].Partition {
			return nil, errors.New("it is about other partitions than were asked for")
		}
		total += int(reply.Partitions[i].EntriesBytes)
	}
	if total != len(bulk) {
		return nil, errors.New("its partitions' bytes do not add up to the bytes that came")
	}
	buffer := buffers.Own(bulk)
	defer buffer.Release()
	answers := make([]Answer, len(reply.Partitions))
	for i, fetched := range reply.Partitions {
		bytes := bulk[:fetched.EntriesBytes]
		bulk = bulk[fetched.EntriesBytes:]
		owner := buffer
		if len(bytes) < total/sliceShare {
			// Its few bytes must not keep the whole reply in memory.
			bytes, owner = append([]byte(nil), bytes...), nil
		}
		entries, damage := Verified(bytes, fetched.Partition, r.Asked[i].Position, owner)
		answers[i] = Answer{fetched, entries, damage}
	}
	return answers, nil
}

// sliceShare: a partition with less than one in so many bytes of a reply gets a copy of them.
const sliceShare = 16

// outcome is what to do about one partition: ask again at once (zero), after a back-off, or stand still (failure).
type outcome struct {
	backsOff   bool
	needsMap   bool
	serverAsks time.Duration
	failure    error
}

// Absorb takes an answer, or says that none will come (err). sentAt is when its request left.
func (p *Progress) Absorb(now, sentAt time.Time, request *Request, answers []Answer, err error) {
	p.reservedBytes -= int(request.Message.BytesMax)
	flight := request.flight()
	if p.inFlight[flight]--; p.inFlight[flight] == 0 {
		delete(p.inFlight, flight)
	}
	if err != nil {
		for i := range request.Asked {
			asked := &request.Asked[i]
			if of := asked.current(); of != nil {
				if of.members.failed(now, asked.node, asked.isHead) {
					p.log.Debug("records are read elsewhere for a while", "node", asked.node, "error", err)
				}
				p.conclude(of, now, request.mapVersion, p.takeFailure(of, err))
			}
		}
		return
	}
	isEmpty := true
	for i := range answers {
		isEmpty = isEmpty && answers[i].Fetched.Error == errorcode.None && len(answers[i].Entries) == 0
	}
	isSuspicious := isEmpty && now.Sub(sentAt) < max(p.settings.Wait/2, atOnce)
	// Who got nothing comes first in the next request.
	for _, withEntries := range [...]bool{false, true} {
		for i := range answers {
			if asked := &request.Asked[i]; (len(answers[i].Entries) > 0) == withEntries {
				p.absorbOne(now, request, asked, &answers[i], isSuspicious)
			}
		}
	}
}

func (p *Progress) absorbOne(now time.Time, request *Request, asked *Asked, answer *Answer, isSuspicious bool) {
	of := asked.current()
	if of == nil {
		for i := range answer.Entries {
			answer.Entries[i].Buffer.Release()
		}
		return
	}
	decided, turnedAway := p.turnAway(now, of, asked, &answer.Fetched)
	if !turnedAway {
		decided = p.takeAnswer(of, answer, isSuspicious)
	}
	p.conclude(of, now, request.mapVersion, decided)
}

// current is the partition of a question that still counts; nil otherwise.
func (a *Asked) current() *partition {
	if a.partition.generation == a.generation {
		return a.partition
	}
	return nil
}

func (p *Progress) conclude(of *partition, now time.Time, mapVersion uint64, decided outcome) {
	if decided.needsMap {
		p.wishMap(mapVersion)
	}
	switch {
	case decided.failure != nil:
		of.failure = decided.failure
	case decided.backsOff:
		of.backOff(now, decided.needsMap, decided.serverAsks)
	default:
		of.retryAt = time.Time{}
	}
	of.isIdle = true
	p.idle = append(p.idle, of)
	p.announce(of)
}

// turnAway: what a member behind the head cannot serve is asked of others, another one at once, or the same one soon again.
func (p *Progress) turnAway(now time.Time, of *partition, asked *Asked, fetched *wire.FetchedPartition) (outcome, bool) {
	code := fetched.Error
	if code == errorcode.None {
		of.members.served()
		return outcome{}, false
	}
	if asked.isHead {
		return outcome{}, false
	}
	var elsewhere bool
	switch {
	case code == errorcode.Stale && fetched.Epoch > asked.epoch:
		// The map is out of date, not the member.
	case code == errorcode.BeyondCommitted:
		elsewhere = of.members.lag(now, asked.node, asked.isHead)
	case code == errorcode.OffsetOutOfRange || code.Retriable() || code == errorcode.DataDamaged:
		// Where a log begins and ends is the head's to say, too.
		elsewhere = of.members.failed(now, asked.node, asked.isHead)
	default:
		return outcome{}, false
	}
	needsMap := code == errorcode.Stale || code == errorcode.NotOwner
	return outcome{backsOff: !elsewhere, needsMap: needsMap}, true
}

func (p *Progress) takeAnswer(of *partition, answer *Answer, isSuspicious bool) outcome {
	fetched := &answer.Fetched
	if fetched.Error != errorcode.None {
		return p.takeError(of, fetched)
	}
	of.isStarting = false
	of.failures = 0
	end := fetched.CommittedEnd
	for i := range answer.Entries {
		entry := &answer.Entries[i]
		of.hops, of.damages, of.emptyAnswers = 0, 0, 0
		of.fetchFrom = entry.Header.NextOffset()
		of.buffered += entry.bufferedBytes()
		p.bufferedBytes += entry.bufferedBytes()
		end = max(end, of.fetchFrom)
		of.batches = append(of.batches, *entry)
	}
	if of.elsewhere == nil {
		// Members learn of commits one after the other; none of it is ever taken back.
		of.committedEnd, of.heard = max(of.committedEnd, end), true
	} else if of.fetchFrom >= of.until {
		// An older range knows only its own end.
		of.elsewhere = nil
	}
	if answer.Damage != nil {
		return p.takeDamage(of, answer.Damage)
	}
	if !isSuspicious {
		of.emptyAnswers = 0
		return outcome{}
	}
	of.emptyAnswers++
	if of.emptyAnswers > emptyAnswersMax {
		return outcome{backsOff: true, serverAsks: emptyAnswerPause}
	}
	return outcome{}
}

func (p *Progress) takeError(of *partition, fetched *wire.FetchedPartition) outcome {
	code := fetched.Error
	err := fault.Broker(code, "topic %s partition %d", of.name.Topic, of.name.Partition)
	err.Epoch = uint64(fetched.Epoch)
	switch {
	case code == errorcode.DataDamaged:
		return p.takeDamagedRange(of, fetched)
	case code == errorcode.Moved:
		if of.follow(fetched) {
			return outcome{}
		}
	case code == errorcode.OffsetOutOfRange:
		policy := p.settings.OutOfRange
		if of.isStarting {
			policy = OutOfRangeEarliest
		}
		if p.reset(of, policy, fetched) {
			return outcome{}
		}
	case code.Retriable():
		if code == errorcode.UnknownPartition {
			// An older range that no longer has it is not worth asking again.
			of.elsewhere = nil
		}
		return outcome{backsOff: true, needsMap: fault.WantsRefresh(err)}
	}
	return outcome{failure: err}
}

// takeDamagedRange: records are damaged where they are stored; the partition stands still, or goes on behind them.
func (p *Progress) takeDamagedRange(of *partition, fetched *wire.FetchedPartition) outcome {
	of.isStarting = false
	first := of.fetchFrom
	if of.elsewhere == nil {
		of.committedEnd, of.heard = fetched.CommittedEnd, true
	}
	resume := int64(-1)
	if fetched.Resume != nil && *fetched.Resume > first {
		resume = int64(*fetched.Resume)
	}
	if !p.settings.SkipDamage {
		return outcome{failure: &fault.DamagedError{
			Topic: of.name.Topic, Partition: of.name.Partition, First: int64(first), Resume: resume, Stored: true,
		}}
	}
	log := p.log.With("topic", of.name.Topic, "partition", of.name.Partition, "from", first)
	if resume < 0 {
		// The end of what is known; whether there was more, nobody can tell.
		if of.failures == 0 {
			log.Warn("records at the end may be lost")
		}
		return outcome{backsOff: true}
	}
	log.Warn("damaged records were skipped", "to", resume)
	of.failures = 0
	of.fetchFrom = uint64(resume)
	if len(of.batches) == 0 {
		of.position = uint64(resume)
	}
	if len(p.skipped) == skippedMax {
		p.skipped = p.skipped[1:]
	}
	p.skipped = append(p.skipped, Skipped{of.name, int64(first), resume})
	return outcome{}
}

func (p *Progress) takeDamage(of *partition, reason error) outcome {
	of.damages++
	p.log.Warn("fetched data are damaged", "topic", of.name.Topic, "partition", of.name.Partition, "offset", of.fetchFrom, "reason", reason)
	if of.damages < damagesMax {
		return outcome{backsOff: true}
	}
	return outcome{failure: &fault.DamagedError{
		Topic: of.name.Topic, Partition: of.name.Partition, First: int64(of.fetchFrom), Resume: -1, Reason: reason.Error(),
	}}
}

func (p *Progress) takeFailure(of *partition, err error) outcome {
	var malformed *fault.MalformedError
	if errors.As(err, &malformed) {
		return p.takeDamage(of, err)
	}
	if fault.Retriable(err) {
		return outcome{backsOff: true, needsMap: fault.WantsRefresh(err), serverAsks: fault.RetryAfter(err)}
	}
	return outcome{failure: err}
}

// follow: older offsets are in another range, until the log that named it begins.
func (of *partition) follow(fetched *wire.FetchedPartition) bool {
	of.hops++
	if fetched.Previous == nil || of.hops > hopsMax || fetched.LogStart <= of.fetchFrom {
		return false
	}
	previous := *fetched.Previous
	of.elsewhere, of.until = &previous, fetched.LogStart
	return true
}

// reset: the position does not exist; it goes where the policy says, or nowhere.
func (p *Progress) reset(of *partition, policy OutOfRange, fetched *wire.FetchedPartition) bool {
	var position uint64
	switch {
	case policy == OutOfRangeEarliest:
		position = fetched.LogStart
	case policy == OutOfRangeLatest && of.elsewhere == nil:
		position = fetched.CommittedEnd
	case policy == OutOfRangeLatest:
		// The end of an older range is not the partition's.
		position = of.until
	default:
		return false
	}
	of.hops++
	if of.hops > hopsMax {
		return false
	}
	p.log.Info("position reset", "topic", of.name.Topic, "partition", of.name.Partition, "from", of.fetchFrom, "to", position)
	of.fetchFrom = position
	if len(of.batches) == 0 {
		of.position = position
	}
	if of.elsewhere != nil && position >= of.until {
		of.elsewhere = nil
	}
	return true
}
