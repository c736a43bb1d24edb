// Package handled keeps how far the application has handled the records of each partition: what a group commits. Pure.
package handled

import "sort"

// Tracker is the record of one partition: which records were given out, and which of them are handled.
//
//	          low                                  given
//	…─────────┼────────[ handled )────[ handled )────┼───────▶ offsets
//	 handled            ranges                         not given out yet
//
// What is committed is low: the lowest record given out and not handled, or, when all are, the one after the last.
type Tracker struct {
	low    int64
	given  int64
	ranges []offsetRange
	// committed is what needs no commit: where reading began, or the last commit that was made.
	committed int64
}

type offsetRange struct{ from, to int64 }

// NewTracker begins at the position from which records are given out.
func NewTracker(position int64) *Tracker {
	return &Tracker{low: position, given: position, committed: position}
}

// GiveOut says that the records from first to before next are in the application's hands. What lies between them and those
// given out before does not exist, and counts as handled.
func (t *Tracker) GiveOut(first, next int64) {
	before := t.given
	t.given = max(before, next)
	if first > before {
		t.Handle(before, first)
	}
}

// Handle says that the records from from to before to are handled, in any order. What was not given out does not count.
func (t *Tracker) Handle(from, to int64) {
	to = min(to, max(t.given, from))
	if from > t.given {
		return
	}
	if from <= t.low {
		t.low = max(t.low, to)
	} else if from < to {
		t.insert(offsetRange{from, to})
	}
	taken := 0
	for taken < len(t.ranges) && t.ranges[taken].from <= t.low {
		t.low = max(t.low, t.ranges[taken].to)
		taken++
	}
	t.ranges = t.ranges[taken:]
}

func (t *Tracker) insert(added offsetRange) {
	at := sort.Search(len(t.ranges), func(i int) bool { return t.ranges[i].to >= added.from })
	end := at
	for end < len(t.ranges) && t.ranges[end].from <= added.to {
		added.from = min(added.from, t.ranges[end].from)
		added.to = max(added.to, t.ranges[end].to)
		end++
	}
	if at < end {
		t.ranges[at] = added
		t.ranges = append(t.ranges[:at+1], t.ranges[end:]...)
		return
	}
	t.ranges = append(t.ranges, offsetRange{})
	copy(t.ranges[at+1:], t.ranges[at:])
	t.ranges[at] = added
}

// Restart begins anew at a position: what was given out before does not matter any more.
func (t *Tracker) Restart(position int64) {
	t.low, t.given, t.ranges = position, position, nil
}

// Position is what is to be committed.
func (t *Tracker) Position() int64 { return t.low }

// InHand tells whether records are given out and not handled.
func (t *Tracker) InHand() bool { return t.low < t.given }

// Uncommitted is Position, when it is not committed yet.
func (t *Tracker) Uncommitted() (int64, bool) {
	return t.low, t.low != t.committed
}

// Committed says that an offset was committed.
func (t *Tracker) Committed(offset int64) { t.committed = offset }
