package member

import (
	"errors"
	"fmt"
	"math/rand"
	"testing"
	"time"

	"github.com/minikafka/minikafka/clients/go/internal/errorcode"
	"github.com/minikafka/minikafka/clients/go/internal/fault"
	"github.com/minikafka/minikafka/clients/go/internal/wire"
)

func partition(number uint32) wire.PartitionKey {
	return wire.PartitionKey{Topic: 5, Partition: number}
}

func answer(generation uint64, partitions ...uint32) *wire.HeartbeatReply {
	reply := &wire.HeartbeatReply{Generation: generation}
	for _, number := range partitions {
		reply.Assigned = append(reply.Assigned, wire.AssignedPartition{Partition: partition(number)})
	}
	return reply
}

// world is a member at one coordinator, and the time.
type world struct {
	t           *testing.T
	machine     *Machine
	coordinator string
	now         time.Time
}

func newWorld(t *testing.T, instance string) *world {
	next := wire.MemberID(100)
	newID := func() wire.MemberID { next++; return next }
	settings := Settings{Group: "g", Instance: instance, ClientName: "c", SessionTimeout: 10 * time.Second}
	subscribed := []wire.SubscribedTopic{{Topic: 5, Partitions: 4}}
	return &world{t: t, machine: New(settings, subscribed, newID), coordinator: "one", now: time.Unix(1000, 0)}
}

// beat is the heartbeat that is due now.
func (w *world) beat() *Heartbeat {
	w.t.Helper()
	h, ok := w.machine.Next(w.now, w.coordinator)
	if !ok {
		w.t.Fatalf("no heartbeat; the next one at %v, now it is %v", w.machine.WakeAt(), w.now)
	}
	return h
}

func (w *world) quiet() {
	w.t.Helper()
	if h, ok := w.machine.Next(w.now, w.coordinator); ok {
		w.t.Fatalf("a heartbeat: %+v", h.Message)
	}
}

func (w *world) wait() { w.now = w.machine.WakeAt() }

func (w *world) answered(h *Heartbeat, reply *wire.HeartbeatReply, err error) string {
	w.now = w.now.Add(200 * time.Millisecond)
	return describe(w.machine.Answered(w.now, h, reply, err))
}

func describe(actions []Action) string {
	text := ""
	numbers := func(what string, keys []wire.PartitionKey) {
		for _, key := range keys {
			what += fmt.Sprintf(" %d", key.Partition)
		}
		text += what + ";"
	}
	for _, action := range actions {
		switch {
		case action.Assigned != nil:
			keys := make([]wire.PartitionKey, len(action.Assigned))
			for i, assigned := range action.Assigned {
				keys[i] = assigned.Partition
			}
			numbers("assigned", keys)
		case action.Revoked != nil:
			numbers("revoked", action.Revoked)
		case action.Lost != nil:
			numbers("lost", action.Lost)
		case action.Failed != nil:
			text += "failed;"
		case action.Left:
			text += "left;"
		}
	}
	return text
}

func (w *world) expect(got, want string) {
	w.t.Helper()
	if got != want {
		w.t.Fatalf("%q, want %q", got, want)
	}
}

func refused(code errorcode.Code) error { return fault.Broker(code, "test") }

// join brings a member to where it owns partitions 0 to 2, and has said so.
func (w *world) join() {
	w.t.Helper()
	h := w.beat()
	if h.Message.Subscribed == nil || h.Message.Owned == nil || len(h.Message.Owned) != 0 {
		w.t.Fatalf("it joins with %+v", h.Message)
	}
	w.expect(w.answered(h, answer(1, 0, 1, 2), nil), "assigned 0 1 2;")
	w.expect(w.answered(w.beat(), answer(1, 0, 1, 2), nil), "")
}

func TestAMemberJoinsAndThenSaysOnlyThatItIsThere(t *testing.T) {
	w := newWorld(t, "")
	w.join()
	h := w.beat()
	if h.Message.Subscribed != nil || h.Message.Owned != nil || h.Message.Generation != 1 || h.Message.WaitMsMax != 3000 {
		t.Errorf("%+v", h.Message)
	}
	w.quiet() // one at a time
}

func TestWhatIsMissingInAnAnswerIsRevokedAndReportedAtOnce(t *testing.T) {
	w := newWorld(t, "")
	w.join()
	w.expect(w.answered(w.beat(), answer(2, 1), nil), "revoked 0 2;")
	w.quiet() // it is held back for the end of the revocation
	w.machine.Released([]wire.PartitionKey{partition(0)})
	w.quiet()
	w.machine.Released([]wire.PartitionKey{partition(2)})
	h := w.beat()
	if len(h.Message.Owned) != 1 || h.Message.Owned[0] != partition(1) {
		t.Errorf("it reports %v", h.Message.Owned)
	}
	w.expect(w.answered(h, answer(3, 1), nil), "")
}

func TestALongRevocationDoesNotStopHeartbeats(t *testing.T) {
	w := newWorld(t, "")
	w.join()
	w.expect(w.answered(w.beat(), answer(2, 1, 2), nil), "revoked 0;")
	w.wait()
	h := w.beat()
	if h.Message.WaitMsMax != 100 {
		t.Errorf("it waits for %d ms", h.Message.WaitMsMax)
	}
	// It is over while the heartbeat waits, whose answer still speaks of the partition: that is no new assignment.
	w.machine.Released([]wire.PartitionKey{partition(0)})
	w.expect(w.answered(h, answer(2, 0, 1, 2), nil), "")
	h = w.beat()
	if len(h.Message.Owned) != 2 {
		t.Errorf("it reports %v", h.Message.Owned)
	}
	// Given back to it later, it is one.
	w.expect(w.answered(h, answer(3, 0, 1, 2), nil), "assigned 0;")
}

func TestANewCoordinatorIsToldEverythingAndNothingMoves(t *testing.T) {
	w := newWorld(t, "")
	w.join()
	h := w.beat()
	w.expect(w.answered(h, nil, &fault.ConnectionError{Address: "one", Lost: true}), "")
	w.quiet() // it backs off
	w.wait()
	w.coordinator = "two"
	h = w.beat()
	if len(h.Message.Subscribed) != 1 || len(h.Message.Owned) != 3 {
		t.Errorf("it says %+v", h.Message)
	}
	w.expect(w.answered(h, answer(1, 0, 1, 2), nil), "")
	if h = w.beat(); h.Message.Owned != nil {
		t.Errorf("it says again %+v", h.Message)
	}
}

func TestACoordinatorThatHasForgottenIsToldEverything(t *testing.T) {
	w := newWorld(t, "")
	w.join()
	id := w.machine.ID()
	w.expect(w.answered(w.beat(), nil, refused(errorcode.UnknownMember)), "")
	h := w.beat()
	if len(h.Message.Owned) != 3 || h.Message.Member != id {
		t.Errorf("it introduces itself with %+v", h.Message)
	}
	// One of them is missing: it is asked back, or others have it by now, which its commit will tell.
	w.expect(w.answered(h, answer(2, 0, 1), nil), "revoked 2;")
	w.expect(describe(w.machine.Refused(w.machine.Committer(), []wire.PartitionKey{partition(2)})), "lost 2;")
}

// The answer tells where to go on in a partition that this member says it owns: others went on there meanwhile.
func TestWhatWasSomebodyElsesMeanwhileIsLostAndReadAnew(t *testing.T) {
	w := newWorld(t, "")
	w.join()
	late := w.machine.Committer()
	reply, offset := answer(5, 0, 1, 2), uint64(30)
	reply.Assigned[1].Committed = &offset
	w.expect(w.answered(w.beat(), reply, nil), "lost 1;assigned 1;")
	if turn, owned := w.machine.Turn(partition(1)); !owned || turn != 5 {
		t.Errorf("turn %d", turn)
	}
	// A commit of the first turn says nothing of the second one.
	w.expect(describe(w.machine.Refused(late, []wire.PartitionKey{partition(0), partition(1)})), "lost 0;")
}

func TestAnAnswerOfAnOlderGenerationIsNotBelieved(t *testing.T) {
	w := newWorld(t, "")
	w.join()
	w.expect(w.answered(w.beat(), answer(4, 0, 1, 2), nil), "")
	w.expect(w.answered(w.beat(), answer(3), nil), "")
	w.quiet()
	if w.machine.Generation() != 4 || len(w.machine.Owned()) != 3 {
		t.Errorf("generation %d, it owns %v", w.machine.Generation(), w.machine.Owned())
	}
}

func TestEveryRequestHasAHigherSequence(t *testing.T) {
	w := newWorld(t, "")
	h := w.beat()
	commit := w.machine.NextSequence()
	w.answered(h, nil, &fault.ConnectionError{Lost: true})
	w.wait()
	if again := w.beat(); h.Message.Sequence >= commit || commit >= again.Message.Sequence {
		t.Errorf("%d, %d, %d", h.Message.Sequence, commit, again.Message.Sequence)
	}
}

func TestAnExpelledMemberLosesEverythingAndJoinsUnderANewID(t *testing.T) {
	w := newWorld(t, "")
	w.join()
	id, before := w.machine.ID(), w.machine.Committer()
	w.expect(w.answered(w.beat(), nil, refused(errorcode.UnknownMember)), "")
	w.expect(w.answered(w.beat(), nil, refused(errorcode.UnknownMember)), "lost 0 1 2;")
	h := w.beat()
	if h.Message.Member == id || len(h.Message.Owned) != 0 || h.Message.Generation != 0 {
		t.Errorf("it joins with %+v", h.Message)
	}
	// A coordinator that knows nobody is not asked all the time.
	w.expect(w.answered(h, nil, refused(errorcode.UnknownMember)), "")
	w.quiet()
	w.wait()
	w.expect(w.answered(w.beat(), answer(1, 0), nil), "assigned 0;")
	// Who it was before says nothing of who it is.
	w.expect(describe(w.machine.Refused(before, []wire.PartitionKey{partition(0)})), "")
}

func TestAFencedMemberStops(t *testing.T) {
	for _, code := range []errorcode.Code{errorcode.MemberFenced, errorcode.UnknownAPI, errorcode.InvalidArgument} {
		w := newWorld(t, "a")
		w.join()
		w.expect(w.answered(w.beat(), nil, refused(code)), "lost 0 1 2;failed;")
		w.quiet()
		if !w.machine.IsOver() {
			t.Error("it goes on")
		}
	}
}

func TestAMemberLeavesAtOnce(t *testing.T) {
	for _, forGood := range []bool{false, true} {
		w := newWorld(t, "a")
		w.join()
		waiting := w.beat()
		w.machine.Leave(forGood)
		h := w.beat() // although the one before waits at the coordinator
		if h.Message.Intent != map[bool]wire.HeartbeatIntent{false: wire.IntentLeave, true: wire.IntentLeaveForGood}[forGood] ||
			len(h.Message.Owned) != 3 || h.Message.WaitMsMax != 0 { // a static one keeps them there
			t.Errorf("it leaves with %+v", h.Message)
		}
		w.expect(w.answered(waiting, answer(9, 0, 1, 2, 3), nil), "")
		w.expect(w.answered(h, nil, refused(errorcode.Stale)), "")
		w.wait()
		w.expect(w.answered(w.beat(), answer(9), nil), "left;")
		w.quiet()
	}
}

func TestAnswersThatComeAtOnceAndBringNothingDoNotMakeItSpin(t *testing.T) {
	w := newWorld(t, "")
	w.join()
	asked := 0
	for end := w.now.Add(time.Second); w.now.Before(end); {
		h, ok := w.machine.Next(w.now, w.coordinator)
		if !ok {
			w.wait()
			continue
		}
		asked++
		w.machine.Answered(w.now, h, answer(1, 0, 1, 2), nil)
	}
	if asked > 11 {
		t.Errorf("asked %d times in a second", asked)
	}
}

func TestAChangedSubscriptionIsToldAgainUntilItIsAnswered(t *testing.T) {
	w := newWorld(t, "")
	w.join()
	waiting := w.beat()
	w.machine.Subscribe([]wire.SubscribedTopic{{Topic: 5, Partitions: 4}, {Topic: 6, Partitions: 1}})
	w.expect(w.answered(waiting, answer(1, 0, 1, 2), nil), "")
	if h := w.beat(); len(h.Message.Subscribed) != 2 {
		t.Errorf("it says %+v", h.Message)
	}
}

// Whatever answers come, in whatever order things happen, a member does as it is told: what it owns is what it was assigned and
// has not released or lost, and what was assigned twice was given up in between.
func TestWhateverIsAnswered(t *testing.T) {
	for seed := range int64(3000) {
		random := rand.New(rand.NewSource(seed))
		w := newWorld(t, "")
		owned, revoking := map[wire.PartitionKey]bool{}, map[wire.PartitionKey]bool{}
		var waiting *Heartbeat
		for range 60 {
			switch random.Intn(4) {
			case 0:
				w.now = w.now.Add(time.Duration(random.Intn(3000)) * time.Millisecond)
			case 1:
				for key := range revoking {
					w.machine.Released([]wire.PartitionKey{key})
					delete(revoking, key)
					delete(owned, key)
					break
				}
			default:
				if h, ok := w.machine.Next(w.now, []string{"one", "two"}[random.Intn(2)]); ok {
					waiting = h
				}
				if waiting == nil {
					continue
				}
				reply, err := answer(uint64(random.Intn(9))), error(nil)
				for number := range uint32(4) {
					if random.Intn(2) == 0 {
						given := wire.AssignedPartition{Partition: partition(number)}
						if random.Intn(4) == 0 {
							given.Committed = new(uint64)
						}
						reply.Assigned = append(reply.Assigned, given)
					}
				}
				switch random.Intn(6) {
				case 0:
					err = refused(errorcode.UnknownMember)
				case 1:
					err = &fault.ConnectionError{Lost: true}
				}
				for _, action := range w.machine.Answered(w.now, waiting, reply, err) {
					for _, given := range action.Assigned {
						if owned[given.Partition] {
							t.Fatalf("seed %d: %v is assigned twice", seed, given.Partition)
						}
						owned[given.Partition] = true
					}
					for _, key := range action.Revoked {
						if !owned[key] || revoking[key] {
							t.Fatalf("seed %d: %v is revoked, and not owned", seed, key)
						}
						revoking[key] = true
					}
					for _, key := range action.Lost {
						if !owned[key] {
							t.Fatalf("seed %d: %v is lost, and not owned", seed, key)
						}
						delete(owned, key)
						delete(revoking, key)
					}
				}
				waiting = nil
			}
			if got := w.machine.Owned(); len(got) != len(owned) {
				t.Fatalf("seed %d: it owns %v, was told of %v", seed, got, owned)
			}
		}
	}
}

func TestErrorsOfAClosedClientEndIt(t *testing.T) {
	w := newWorld(t, "")
	w.join()
	h := w.beat()
	actions := w.machine.Answered(w.now, h, nil, fault.ErrClosed)
	if len(actions) != 2 || !errors.Is(actions[1].Failed, fault.ErrClosed) {
		t.Errorf("%+v", actions)
	}
}
