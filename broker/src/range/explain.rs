//! Entries whose stages somebody asked for, from the append until they are answered, and along the chain.
//!
//! In front of the entries the successor is asked about them, in front of the acknowledgement it answers. Both messages
//! keep their place on their connection, are sent only to a member that knows them, and may be lost: then that hop is told
//! without stages. The machine knows nothing of all this. What is under way is forgotten with the epoch, as in [`Stages`].
//!
//! [`Stages`]: crate::metrics::Stages

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use minikafka_core::chain::ChainMember;
use minikafka_core::chain::peer::PeerBody;
use minikafka_core::limits::EXPLAINED_ENTRIES_MAX;
use minikafka_core::wire::{Hop, Stage};
use minikafka_core::{Epoch, LogIndex, StreamId};
use minikafka_storage::disk::Disk;

use super::Range;
use crate::explain::Trace;

/// Entries that are watched. Both queues are in the order of indexes, and nearly always empty.
#[derive(Default)]
pub(super) struct Explained {
    /// Asked for by the predecessor, and not appended yet.
    asked: RefCell<VecDeque<(LogIndex, Rc<Trace>)>>,
    /// Appended, and neither committed nor acknowledged to the predecessor.
    under_way: RefCell<VecDeque<(LogIndex, Rc<Trace>)>>,
}

impl Explained {
    /// The trace of an entry that comes from the predecessor, if one was asked for.
    pub fn take_asked(&self, index: LogIndex) -> Option<Rc<Trace>> {
        let mut asked = self.asked.borrow_mut();
        while let Some((of, _)) = asked.front().filter(|(of, _)| *of <= index) {
            let is_it = *of == index;
            let trace = asked.pop_front().map(|(_, trace)| trace);
            if is_it {
                return trace;
            }
        }
        None
    }

    /// An entry with a trace was appended.
    pub fn appended(&self, index: LogIndex, trace: Rc<Trace>) {
        let mut under_way = self.under_way.borrow_mut();
        if under_way.len() < EXPLAINED_ENTRIES_MAX {
            under_way.push_back((index, trace));
        }
    }

    /// Everything up to `index` is durable here.
    pub fn durable(&self, index: LogIndex, now_ns: impl Fn() -> u64) {
        self.for_each_up_to(index, |trace| {
            if !trace.has(Stage::Durable) {
                trace.ended_since_append(Stage::Durable, now_ns());
            }
        });
    }

    /// Everything up to `index` is answered.
    pub fn committed(&self, index: LogIndex) {
        let mut under_way = self.under_way.borrow_mut();
        while under_way.front().is_some_and(|(of, _)| *of <= index) {
            under_way.pop_front();
        }
    }

    /// What is under way is not what it was.
    pub fn forget(&self) {
        self.asked.borrow_mut().clear();
        self.under_way.borrow_mut().clear();
    }

    fn for_each_up_to(&self, index: LogIndex, work: impl Fn(&Trace)) {
        let under_way = self.under_way.borrow();
        under_way.iter().take_while(|(of, _)| *of <= index).for_each(|(_, trace)| work(trace));
    }

    fn indexes(&self, after: LogIndex, until: LogIndex) -> Vec<LogIndex> {
        let under_way = self.under_way.borrow();
        under_way.iter().map(|(index, _)| *index).filter(|index| *index > after && *index <= until).collect()
    }
}

impl<D: Disk> Range<D> {
    /// The predecessor asks about an entry that it is about to send; what was appended already cannot be told.
    pub(super) fn explain_asked(&self, index: LogIndex) {
        let mut asked = self.explained.asked.borrow_mut();
        let is_next = asked.back().map_or(self.log.end().index, |(last, _)| *last) < index;
        if is_next && asked.len() < EXPLAINED_ENTRIES_MAX {
            asked.push_back((index, Rc::new(Trace::begin(self.shared.clock.monotonic_ns()))));
        }
    }

    /// Entries are here: those that were asked about before them.
    pub(super) fn explain_received(&self) {
        for (_, trace) in self.explained.asked.borrow().iter().filter(|(_, trace)| !trace.has(Stage::Receive)) {
            trace.ended(Stage::Receive, self.shared.clock.monotonic_ns());
        }
    }

    /// Asks the successor about the entries behind `after` up to `last`, which it is about to be sent.
    pub(super) fn ask_successor(
        &self,
        (to, epoch, stream): (&ChainMember, Epoch, StreamId),
        after: LogIndex,
        last: LogIndex,
    ) {
        for index in self.explained.indexes(after, last) {
            if self.shared.peers.knows_explain(to) {
                self.say(to, epoch, PeerBody::Explain { stream, index });
            }
        }
    }

    /// The successor told of an entry, for itself and for those behind it.
    pub(super) fn successor_explained(&self, index: LogIndex, hops: Vec<Hop>) {
        let under_way = self.explained.under_way.borrow();
        if let Some((_, trace)) = under_way.iter().find(|(of, _)| *of == index) {
            trace.set_behind(hops);
        }
    }

    /// The successor has everything up to `index`; about what it told nothing of, only that is known.
    pub(super) fn successor_acknowledged(&self, successor: &ChainMember, index: LogIndex) {
        self.explained.for_each_up_to(index, |trace| {
            if trace.has(Stage::Successor) {
                return;
            }
            trace.ended_since_append(Stage::Successor, self.shared.clock.monotonic_ns());
            if !trace.has_behind() {
                trace.set_behind(vec![Hop::untold(successor.node, successor.shard)]);
            }
        });
    }

    /// Tells the predecessor of what it asked about, before it hears that it is durable.
    pub(super) fn explain_to(&self, to: &ChainMember, epoch: Epoch, stream: StreamId, up_to: LogIndex) {
        let next = || {
            let mut under_way = self.explained.under_way.borrow_mut();
            under_way.front().is_some_and(|(index, _)| *index <= up_to).then(|| under_way.pop_front()).flatten()
        };
        while let Some((index, trace)) = next() {
            let now_ns = self.shared.clock.monotonic_ns();
            trace.ended(Stage::Answer, now_ns);
            if self.shared.peers.knows_explain(to) {
                self.say(to, epoch, PeerBody::Explained { stream, index, hops: trace.hops(self.shared.me, now_ns) });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trace() -> Rc<Trace> {
        Rc::new(Trace::begin(0))
    }

    #[test]
    fn what_is_watched_is_bounded_and_ends_in_order() {
        let explained = Explained::default();
        let traces: Vec<_> = (0..2 * EXPLAINED_ENTRIES_MAX as u64).map(|_| trace()).collect();
        for (index, trace) in traces.iter().enumerate() {
            explained.appended(LogIndex(index as u64), trace.clone());
        }
        assert_eq!(explained.under_way.borrow().len(), EXPLAINED_ENTRIES_MAX);
        explained.durable(LogIndex(3), || 7_000);
        explained.durable(LogIndex(3), || unreachable!("they are durable already"));
        assert!(traces[3].has(Stage::Durable) && !traces[4].has(Stage::Durable));
        explained.committed(LogIndex(3));
        assert_eq!(explained.indexes(LogIndex(0), LogIndex(6)), [LogIndex(4), LogIndex(5), LogIndex(6)]);
    }

    #[test]
    fn an_entry_that_was_asked_about_is_found_behind_one_that_never_came() {
        let explained = Explained::default();
        explained.asked.borrow_mut().extend([(LogIndex(4), trace()), (LogIndex(6), trace())]);
        assert!(explained.take_asked(LogIndex(3)).is_none() && explained.take_asked(LogIndex(5)).is_none());
        assert!(explained.take_asked(LogIndex(6)).is_some() && explained.take_asked(LogIndex(7)).is_none());
    }
}
