//! What a member handed out of its partitions, and what of that is handled: what may be committed. Pure.
//!
//! Of one partition, offsets growing to the right:
//!
//! ```text
//!     committed          handled up to here                 handed out up to here
//!         │                      │                                  │
//!     ────┼──────────────────────┼──────────────────────────────────┼──────►
//!         automatic:             `handled`                          `next`
//!         by record:             the lowest of `outstanding`, or `next` when there is none
//! ```

use std::collections::{BTreeMap, BTreeSet};

use minikafka_core::limits::ACKNOWLEDGEMENTS_OUTSTANDING_MAX;
use minikafka_core::wire::group::CommittedOffset;
use minikafka_core::{Offset, PartitionKey};

use super::options::Acknowledge;

/// One time of owning a partition; owned again it is another one, and what was handed out before does not count any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Turn(u64);

/// What may be committed of everything that a member has.
#[derive(Debug)]
pub(super) struct Handled {
    acknowledge: Acknowledge,
    turns: u64,
    partitions: BTreeMap<PartitionKey, Holding>,
    /// Automatic: this was handed out last, and is not handled before something else is asked for.
    last: Option<PartitionKey>,
    outstanding: usize,
}

#[derive(Debug)]
struct Holding {
    turn: Turn,
    /// Everything below was handed out. None: nothing was.
    next: Option<Offset>,
    handled: Option<Offset>,
    outstanding: BTreeSet<Offset>,
    /// Asked to be committed.
    said: Option<Offset>,
    /// Known to be committed.
    committed: Option<Offset>,
}

/// What goes into a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// What was not asked to be committed before.
    Unsaid,
    /// What is not known to be committed: after this commit, all of it is.
    Uncommitted,
}

impl Handled {
    pub(super) fn new(acknowledge: Acknowledge) -> Self {
        Self { acknowledge, turns: 0, partitions: BTreeMap::new(), last: None, outstanding: 0 }
    }

    /// A partition is owned from now on; `committed`: the group goes on there.
    pub(super) fn begin(&mut self, partition: PartitionKey, committed: Option<Offset>) -> Turn {
        self.end(partition);
        self.turns += 1;
        let turn = Turn(self.turns);
        let (next, handled, outstanding) = (None, None, BTreeSet::new());
        self.partitions.insert(partition, Holding { turn, next, handled, outstanding, said: committed, committed });
        turn
    }

    /// A partition is not owned any more.
    pub(super) fn end(&mut self, partition: PartitionKey) {
        if let Some(holding) = self.partitions.remove(&partition) {
            self.outstanding -= holding.outstanding.len();
        }
        self.last.take_if(|last| *last == partition);
    }

    pub(super) fn turn_of(&self, partition: PartitionKey) -> Option<Turn> {
        self.partitions.get(&partition).map(|holding| holding.turn)
    }

    /// Records from `first` up to before `next` are handed out.
    pub(super) fn handed_out(&mut self, partition: PartitionKey, first: Offset, next: Offset) -> Option<Turn> {
        let holding = self.partitions.get_mut(&partition)?;
        holding.next = Some(next);
        match self.acknowledge {
            Acknowledge::Automatic => self.last = Some(partition),
            Acknowledge::ByRecord => self.outstanding += usize::from(holding.outstanding.insert(first)),
        }
        Some(holding.turn)
    }

    /// What was handed out last is handled: automatically, because something else is asked for.
    pub(super) fn settle(&mut self) {
        let last = self.last.take();
        if let Some(holding) = last.and_then(|last| self.partitions.get_mut(&last)) {
            holding.handled = holding.next;
        }
    }

    /// What was handed out, `first` being its first record, is handled. False: that does not count (any more).
    pub(super) fn acknowledged(&mut self, partition: PartitionKey, turn: Turn, first: Offset) -> bool {
        let holding = self.partitions.get_mut(&partition).filter(|holding| holding.turn == turn);
        let was_outstanding = holding.is_some_and(|holding| holding.outstanding.remove(&first));
        self.outstanding -= usize::from(was_outstanding);
        was_outstanding
    }

    /// The application goes on elsewhere: that is what is handled. False: it does not have the partition.
    pub(super) fn seek(&mut self, partition: PartitionKey, offset: Offset) -> bool {
        let holding = self.partitions.get_mut(&partition);
        if let Some(holding) = holding {
            self.outstanding -= std::mem::take(&mut holding.outstanding).len();
            (holding.next, holding.handled) = (Some(offset), Some(offset));
            self.last.take_if(|last| *last == partition);
            return true;
        }
        false
    }

    /// So much is handed out and not acknowledged that nothing else may be.
    pub(super) fn is_full(&self) -> bool {
        self.outstanding >= ACKNOWLEDGEMENTS_OUTSTANDING_MAX
    }

    /// What is to be committed, of at most `count_max` of these partitions.
    pub(super) fn take_commits(
        &mut self,
        wanted: Wanted,
        of: impl Fn(PartitionKey) -> bool,
        count_max: usize,
    ) -> Vec<CommittedOffset> {
        let acknowledge = self.acknowledge;
        let commit = |(partition, holding): (&PartitionKey, &mut Holding)| {
            let known = match wanted {
                Wanted::Unsaid => holding.said,
                Wanted::Uncommitted => holding.committed,
            };
            let offset = holding.committable(acknowledge).filter(|offset| Some(*offset) != known)?;
            holding.said = Some(offset);
            Some(CommittedOffset { partition: *partition, offset, metadata: String::new() })
        };
        self.partitions.iter_mut().filter(|(partition, _)| of(**partition)).filter_map(commit).take(count_max).collect()
    }

    /// A commit was answered: it is there, or not, and will be said again.
    pub(super) fn commit_answered(&mut self, partition: PartitionKey, offset: Offset, is_committed: bool) {
        if let Some(holding) = self.partitions.get_mut(&partition) {
            match is_committed {
                true => holding.committed = Some(offset),
                false => holding.said = holding.said.filter(|said| *said != offset).and(holding.committed),
            }
        }
    }
}

impl Holding {
    fn committable(&self, acknowledge: Acknowledge) -> Option<Offset> {
        match acknowledge {
            Acknowledge::Automatic => self.handled,
            Acknowledge::ByRecord => self.outstanding.first().copied().or(self.next),
        }
    }
}

#[cfg(test)]
mod tests {
    use minikafka_core::{Partition, TopicId};

    use super::*;

    const A: PartitionKey = PartitionKey { topic: TopicId(1), partition: Partition(0) };
    const B: PartitionKey = PartitionKey { topic: TopicId(1), partition: Partition(1) };

    fn commits(handled: &mut Handled, wanted: Wanted) -> Vec<(PartitionKey, u64)> {
        let commits = handled.take_commits(wanted, |_| true, 100);
        commits.into_iter().map(|commit| (commit.partition, commit.offset.0)).collect()
    }

    #[test]
    fn automatically_a_record_is_handled_when_another_one_is_asked_for() {
        let mut handled = Handled::new(Acknowledge::Automatic);
        handled.begin(A, Some(Offset(10)));
        handled.begin(B, None);
        assert_eq!(commits(&mut handled, Wanted::Unsaid), []);
        handled.handed_out(A, Offset(10), Offset(11));
        assert_eq!(commits(&mut handled, Wanted::Unsaid), [], "it is still being handled");
        handled.settle();
        handled.handed_out(B, Offset(7), Offset(9));
        assert_eq!(commits(&mut handled, Wanted::Unsaid), [(A, 11)]);
        handled.settle();
        assert_eq!(commits(&mut handled, Wanted::Unsaid), [(B, 9)], "the other one was said already");
        assert_eq!(commits(&mut handled, Wanted::Uncommitted), [(A, 11), (B, 9)], "but who knows");
        handled.commit_answered(A, Offset(11), true);
        handled.commit_answered(B, Offset(9), false);
        assert_eq!(commits(&mut handled, Wanted::Unsaid), [(B, 9)], "what came to nothing is said again");
        assert_eq!(commits(&mut handled, Wanted::Uncommitted), [(B, 9)]);
    }

    #[test]
    fn by_record_the_lowest_one_that_is_not_acknowledged_is_where_the_group_goes_on() {
        let mut handled = Handled::new(Acknowledge::ByRecord);
        let turn = handled.begin(A, Some(Offset(10)));
        for offset in 10..14 {
            assert_eq!(handled.handed_out(A, Offset(offset), Offset(offset + 1)), Some(turn));
        }
        handled.settle();
        assert_eq!(commits(&mut handled, Wanted::Uncommitted), [], "asking for more acknowledges nothing");
        assert!(handled.acknowledged(A, turn, Offset(12)) && handled.acknowledged(A, turn, Offset(10)));
        assert!(!handled.acknowledged(A, turn, Offset(10)), "once");
        assert_eq!(commits(&mut handled, Wanted::Unsaid), [(A, 11)]);
        assert!(handled.acknowledged(A, turn, Offset(11)) && handled.acknowledged(A, turn, Offset(13)));
        assert_eq!(commits(&mut handled, Wanted::Unsaid), [(A, 14)]);
    }

    #[test]
    fn what_was_handed_out_in_an_earlier_turn_does_not_count() {
        let mut handled = Handled::new(Acknowledge::ByRecord);
        let first = handled.begin(A, None);
        handled.handed_out(A, Offset(0), Offset(1));
        handled.end(A);
        assert!(!handled.acknowledged(A, first, Offset(0)));
        let second = handled.begin(A, Some(Offset(5)));
        handled.handed_out(A, Offset(5), Offset(6));
        assert!(!handled.acknowledged(A, first, Offset(5)) && handled.turn_of(A) == Some(second));
        assert_eq!(commits(&mut handled, Wanted::Unsaid), []);
        assert!(handled.acknowledged(A, second, Offset(5)));
        assert_eq!((commits(&mut handled, Wanted::Unsaid), handled.outstanding), (vec![(A, 6)], 0));
    }

    #[test]
    fn a_seek_is_where_the_group_goes_on() {
        for acknowledge in [Acknowledge::Automatic, Acknowledge::ByRecord] {
            let mut handled = Handled::new(acknowledge);
            handled.begin(A, Some(Offset(10)));
            handled.handed_out(A, Offset(10), Offset(20));
            assert!(handled.seek(A, Offset(3)) && !handled.seek(B, Offset(3)));
            handled.settle();
            assert_eq!(commits(&mut handled, Wanted::Unsaid), [(A, 3)], "{acknowledge:?}");
            assert_eq!(handled.outstanding, 0);
        }
    }

    #[test]
    fn what_is_not_acknowledged_is_bounded() {
        let mut handled = Handled::new(Acknowledge::ByRecord);
        let turn = handled.begin(A, None);
        for offset in 0..ACKNOWLEDGEMENTS_OUTSTANDING_MAX as u64 {
            assert!(!handled.is_full());
            handled.handed_out(A, Offset(offset), Offset(offset + 1));
        }
        assert!(handled.is_full());
        handled.acknowledged(A, turn, Offset(9));
        assert!(!handled.is_full());
        handled.end(A);
        assert_eq!(handled.outstanding, 0);
    }
}
