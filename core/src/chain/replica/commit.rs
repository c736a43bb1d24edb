//! What is appended, durable and committed: the fold of the own log, and R3.

use super::role::{Standing, Uncommitted};
use super::{Output, Replica};
use crate::chain::planted::{PlantedBug, is_planted};
use crate::control::ControlEntry;
use crate::entry::EntryHeader;
use crate::ids::*;

impl Replica {
    /// Folds in an entry that is being appended.
    pub(super) fn fold(&mut self, header: &EntryHeader, control: Option<&ControlEntry>) {
        self.uncommitted_starts.note(&self.state, header.index, control);
        self.state.apply(header, control);
        if control.is_some_and(|control| control.group().is_some()) {
            self.groups_at = self.state.end();
        }
        if self.untracked {
            return;
        }
        let entry = Uncommitted::of(header);
        if let Some(partition) = entry.partition {
            self.uncommitted_from.entry(partition).or_insert(entry.base_offset);
        }
        self.uncommitted.push_back(entry);
    }

    /// Forgets which records lie behind the committed ones, because they are too many. Nothing is read from here until
    /// everything is committed.
    pub(super) fn stop_tracking(&mut self) {
        self.untracked = true;
        self.uncommitted.clear();
        self.uncommitted_from.clear();
    }

    /// A point of the own log, if it is known without reading.
    pub(super) fn own_point(&self, index: LogIndex) -> Option<LogPoint> {
        let end = self.state.end();
        if index == end.index {
            return Some(end);
        }
        if index <= self.committed.index {
            return Some(self.committed).filter(|point| point.index == index);
        }
        let place = self.uncommitted.binary_search_by_key(&index, |entry| entry.index).ok()?;
        self.uncommitted.get(place).map(|entry| LogPoint { index, hash: entry.hash })
    }

    /// Whether the log ends exactly there, as R1 and R5e want it.
    pub(super) fn ends_at(&self, point: LogPoint) -> bool {
        let own = self.state.end();
        own == point
            || (is_planted(PlantedBug::TruncationSkipped) && own.index > point.index)
            || (is_planted(PlantedBug::LearnerToCommittedOnly)
                && own.index < point.index
                && self.copying.is_none_or(|copying| copying.copy > CopyId(0) && Some(own.index) >= copying.limit))
    }

    pub(super) fn durable_advanced(&mut self, index: LogIndex, out: &mut Vec<Output>) {
        if self.standing == Standing::Failed {
            // What was being cut or installed when it failed was done behind its back.
            return;
        }
        debug_assert!(index <= self.state.end().index, "what was never appended cannot be durable");
        self.durable = self.durable.max(index);
        match self.standing {
            Standing::Active(_) => self.acknowledge(out),
            _ => {
                self.report_seal_if_due(out);
                self.advance_copy(out);
            }
        }
    }

    pub(super) fn successor_acknowledged(
        &mut self,
        epoch: Epoch,
        stream: StreamId,
        index: LogIndex,
        out: &mut Vec<Output>,
    ) {
        let end = self.state.end().index;
        // Only a head has requests waiting.
        if is_planted(PlantedBug::SealedHeadCommits)
            && matches!(self.standing, Standing::Sealing | Standing::Sealed)
            && !self.waiting.is_empty()
        {
            return self.commit(index.min(self.durable), out);
        }
        let Standing::Active(active) = &mut self.standing else { return };
        if active.epoch() != epoch || index > end {
            return;
        }
        let Some(downstream) = active.downstream.as_mut().filter(|downstream| downstream.stream == stream) else {
            return;
        };
        downstream.heard_acknowledgement(index, end);
        self.acknowledge(out);
    }

    /// R3: acknowledges what is durable here and acknowledged behind, in this epoch; at the head, that is committed.
    pub(super) fn acknowledge(&mut self, out: &mut Vec<Output>) {
        let end = self.state.end().index;
        let Standing::Active(active) = &mut self.standing else { return };
        let durable = if is_planted(PlantedBug::AcknowledgeBeforeDurable) { end } else { self.durable };
        let held = active.held(durable);
        let epoch = active.epoch();
        match &mut active.upstream {
            None => self.commit(held, out),
            Some(upstream) => upstream.acknowledge(epoch, held, out),
        }
    }

    /// Everything up to `index`, which is appended, is committed.
    pub(super) fn commit(&mut self, index: LogIndex, out: &mut Vec<Output>) {
        if index <= self.committed.index {
            return;
        }
        self.committed.index = index;
        while self.uncommitted.front().is_some_and(|entry| entry.index <= index) {
            let entry = self.uncommitted.pop_front().expect("its front was just looked at");
            self.committed.hash = entry.hash;
            self.uncommitted_from_moves_past(&entry);
        }
        out.push(Output::Committed { index });
        while self.waiting.front().is_some_and(|(waiting, _, _)| *waiting <= index) {
            let (_, request, answer) = self.waiting.pop_front().expect("its front was just looked at");
            out.push(Output::Answer { request, answer });
        }
        self.tell_committed_if_idle(out);
    }

    /// The whole log, which ends at `start`, is committed by the record (R5f).
    pub(super) fn commit_start(&mut self, start: LogPoint, out: &mut Vec<Output>) {
        self.uncommitted.clear();
        self.uncommitted_from.clear();
        self.uncommitted_starts.all_committed();
        self.untracked = false;
        if start.index > self.committed.index {
            out.push(Output::Committed { index: start.index });
        }
        self.committed = start;
    }

    fn uncommitted_from_moves_past(&mut self, entry: &Uncommitted) {
        let Some(partition) = entry.partition else {
            return self.uncommitted_starts.committed(entry.concerns, self.committed.index);
        };
        if self.state.partition(partition).is_some_and(|state| state.next_offset > entry.next_offset) {
            self.uncommitted_from.insert(partition, entry.next_offset);
        } else {
            self.uncommitted_from.remove(&partition);
        }
    }
}
