//! The entries of all logs as a tree: an entry's number stands for it and for everything before it.
//!
//! Told apart by what they are, not by their running hash, so that two contents under one hash are seen.

use minikafka_core::control::ControlEntry;
use minikafka_core::entry::EntryHeader;
use minikafka_core::ids::*;
use minikafka_core::range_state::RangeState;

use crate::intern::{Id, Interner};

/// The end of an empty log.
pub const NO_ENTRY: Id = 0;

/// An entry and what it follows.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The end of the log it was appended to.
    pub before: Id,
    /// Its header; none: no entry, the beginning.
    pub header: Option<EntryHeader>,
    /// What it says, of a control entry.
    pub control: Option<ControlEntry>,
}

/// All entries that any member ever appended.
#[derive(Debug)]
pub struct Entries {
    all: Interner<Entry>,
}

impl Default for Entries {
    fn default() -> Self {
        let all = Interner::default();
        all.id(Entry { before: NO_ENTRY, header: None, control: None });
        Self { all }
    }
}

impl Entries {
    /// The log `before` with one more entry.
    pub fn append(&self, before: Id, header: EntryHeader, control: Option<ControlEntry>) -> Id {
        self.all.id(Entry { before, header: Some(header), control })
    }

    /// The last entry of a log.
    pub fn last(&self, end: Id) -> std::sync::Arc<Entry> {
        self.all.get(end)
    }

    /// The index where a log ends.
    pub fn index(&self, end: Id) -> LogIndex {
        self.all.get(end).header.map_or(LogIndex(0), |header| header.index)
    }

    /// The point where a log ends.
    pub fn point(&self, end: Id) -> LogPoint {
        let header = self.all.get(end).header;
        header.map_or(LogPoint::START, |header| LogPoint { index: header.index, hash: header.running_hash })
    }

    /// A log that ends at this point, if anybody ever had one.
    pub fn at(&self, point: LogPoint) -> Option<Id> {
        (0..self.all.count() as Id).find(|id| self.point(*id) == point)
    }

    /// The log cut to `index`.
    pub fn cut(&self, mut end: Id, index: LogIndex) -> Id {
        while self.index(end) > index {
            end = self.all.get(end).before;
        }
        end
    }

    /// Whether the log `short` is the log `long` or its beginning.
    pub fn begins(&self, short: Id, long: Id) -> bool {
        short == long || self.cut(long, self.index(short)) == short
    }

    /// The entries of a log behind an index, oldest first.
    pub fn behind(&self, mut end: Id, index: LogIndex) -> Vec<Id> {
        let mut found = Vec::new();
        while self.index(end) > index {
            found.push(end);
            end = self.all.get(end).before;
        }
        found.reverse();
        found
    }

    /// What a log adds up to.
    pub fn fold(&self, end: Id) -> RangeState {
        let mut state = RangeState::default();
        for id in self.behind(end, LogIndex(0)) {
            let entry = self.all.get(id);
            if let Some(header) = &entry.header {
                state.apply(header, entry.control.as_ref());
            }
        }
        state
    }

    /// Whether a log holds the batch with this body.
    pub fn holds_batch(&self, end: Id, body_crc: u32) -> bool {
        let is_it = |id: Id| self.all.get(id).header.is_some_and(|h| h.body_crc == body_crc && h.record_count > 0);
        self.behind(end, LogIndex(0)).into_iter().any(is_it)
    }
}
