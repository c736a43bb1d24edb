package handled

import (
	"math/rand"
	"testing"
)

func TestTheLowestRecordNotAcknowledgedIsCommitted(t *testing.T) {
	tracker := NewTracker(10)
	tracker.GiveOut(10, 20)
	steps := []struct{ from, to, position int64 }{
		{12, 13, 10}, {15, 18, 10}, {10, 11, 11}, {11, 12, 13}, {13, 15, 18}, {18, 25, 20},
	}
	for _, step := range steps {
		tracker.Handle(step.from, step.to)
		if tracker.Position() != step.position {
			t.Fatalf("after %+v: %d", step, tracker.Position())
		}
	}
	if tracker.InHand() {
		t.Error("all are handled")
	}
}

func TestOffsetsThatDoNotExistAreNotWaitedFor(t *testing.T) {
	tracker := NewTracker(0)
	tracker.GiveOut(5, 8)
	if tracker.Position() != 5 || !tracker.InHand() {
		t.Fatal(tracker.Position())
	}
	tracker.GiveOut(10, 12)
	tracker.Handle(5, 8)
	if tracker.Position() != 10 {
		t.Fatal(tracker.Position())
	}
}

func TestASeekForgetsWhatWasGivenOut(t *testing.T) {
	tracker := NewTracker(0)
	tracker.GiveOut(0, 10)
	tracker.Handle(3, 5)
	tracker.Restart(2)
	if tracker.Position() != 2 || tracker.InHand() {
		t.Fatal(tracker.Position())
	}
	tracker.Handle(3, 5) // of before the seek
	if tracker.Position() != 2 {
		t.Fatal("what was not given out since counts")
	}
	tracker.Committed(2)
	if _, ok := tracker.Uncommitted(); ok {
		t.Error("committed twice")
	}
}

// Against a model that keeps every record by itself.
func TestAgainstAModel(t *testing.T) {
	for seed := range int64(2000) {
		random := rand.New(rand.NewSource(seed))
		tracker := NewTracker(0)
		handled := map[int64]bool{}
		given := int64(0)
		for range 60 {
			if random.Intn(3) == 0 {
				next := given + random.Int63n(6)
				tracker.GiveOut(given, next)
				given = next
				continue
			}
			from := random.Int63n(given + 3)
			to := from + random.Int63n(4)
			tracker.Handle(from, to)
			for offset := from; offset < min(to, given); offset++ {
				handled[offset] = true
			}
			lowest := int64(0)
			for handled[lowest] {
				lowest++
			}
			if tracker.Position() != lowest {
				t.Fatalf("seed %d: %d, the model says %d", seed, tracker.Position(), lowest)
			}
		}
	}
}
