//! Opening a range: its log is recovered, folded, and joined with what was promised for it.

use std::cell::{Cell, RefCell};
use std::path::PathBuf;
use std::rc::Rc;

use minikafka_core::chain::planted::{PlantedBug, is_planted, is_restart_forgotten};
use minikafka_core::chain::replica::{Recovered, Replica};
use minikafka_core::control::ControlEntry;
use minikafka_core::entry::{EntryHeader, EntryKind};
use minikafka_core::range_state::RangeState;
use minikafka_core::wire::Wire;
use minikafka_core::{Epoch, RangeKey};
use minikafka_storage::disk::Disk;
use minikafka_storage::wait::Notify;
use minikafka_storage::{Damage, LogError, Promise, RangeLog, RecoveryReport, RecoveryVisitor, ShardStorage};

use super::{Explained, Groups, Inbox, LogPromise, Mending, Outgoing, Range, RangeShared, Upkeep};
use crate::metrics::Stages;

/// Folds what recovery delivers.
#[derive(Default)]
pub(super) struct StateVisitor {
    state: RangeState,
    /// Entries before the next one are lost: it may name partitions that nobody saw opened.
    damaged: bool,
    /// The first thing that was readable as bytes but not as what it should be.
    defect: Option<String>,
}

impl StateVisitor {
    /// The fold, or why there is none.
    pub fn finish(self, range: RangeKey) -> Result<RangeState, LogError> {
        match self.defect {
            None => Ok(self.state),
            Some(reason) => Err(LogError::Format { path: PathBuf::from(format!("range {range}")), reason }),
        }
    }

    /// A batch behind a lost stretch tells that its partition is open, and where it stands.
    fn fold(&mut self, header: &EntryHeader, control: Option<&ControlEntry>) {
        if self.damaged && header.kind == EntryKind::Batch {
            self.state.open_unknown(header.partition_key(), header.base_offset);
        }
        self.state.apply(header, control);
    }

    fn defect(&mut self, what: &str, reason: impl std::fmt::Display) {
        let text = format!("{what} is whole but not of this release ({reason}); start the release that wrote it");
        self.defect.get_or_insert(text);
    }
}

impl RecoveryVisitor for StateVisitor {
    fn snapshot(&mut self, snapshot: Option<&[u8]>) {
        (self.state, self.damaged) = (RangeState::default(), false);
        match snapshot.map(RangeState::restore) {
            Some(Ok(state)) => self.state = state,
            Some(Err(error)) => self.defect("the snapshot", error),
            None => {}
        }
        if is_planted(PlantedBug::DedupLostWithSegment) {
            self.state.forget_producers();
        }
    }

    fn entry(&mut self, header: &EntryHeader, body: &[u8]) {
        let control = match header.kind {
            EntryKind::Batch => None,
            EntryKind::Control => match ControlEntry::from_bytes(body) {
                Ok(control) => Some(control),
                Err(error) => return self.defect(&format!("control entry {}", header.index), error),
            },
        };
        self.fold(header, control.as_ref());
    }

    fn header(&mut self, header: &EntryHeader) {
        self.fold(header, None);
    }

    fn damaged(&mut self, _damage: &Damage) {
        self.damaged = true;
    }

    fn take_snapshot(&mut self) -> Vec<u8> {
        self.state.snapshot()
    }
}

impl<D: Disk> Range<D> {
    /// Opens a range with what is promised for it.
    pub async fn open(
        storage: &Rc<ShardStorage<D>>,
        shared: Rc<RangeShared<D>>,
        key: RangeKey,
        promise: Option<Promise>,
    ) -> Result<Rc<Self>, LogError> {
        let mut visitor = StateVisitor::default();
        let opened = RangeLog::open(storage.clone(), key, &mut visitor).await?;
        let report = opened.report;
        let mut state = visitor.finish(key)?;
        if report.loss.is_some() {
            // The last entries may be among the lost; where the log ends is known all the same.
            state.end_at(report.end);
        }
        let promised = promise.map_or(Epoch(0), |promise| promise.promised);
        let marker = marker(key, &report, promise);
        // Planted: a promise that was never persisted is not missed, because the marker says where the member was.
        let promised = if is_restart_forgotten() { promised.max(marker) } else { promised };
        let recovered = Recovered { state, promised, marker, damaged: report.loss.is_some() };
        let log_promise = match promise {
            Some(Promise { has_log: true, .. }) => LogPromise::Durable,
            _ => LogPromise::Absent,
        };
        let range = Rc::new(Self {
            key,
            log: opened.log,
            replica: RefCell::new(Replica::new(key, shared.me, recovered)),
            shared,
            pending: RefCell::default(),
            inputs: RefCell::default(),
            outputs: RefCell::default(),
            driving: Cell::new(false),
            log_promise: Cell::new(log_promise),
            committed: Notify::default(),
            upkeep: Upkeep::default(),
            groups: Groups::default(),
            inbox: Inbox::default(),
            outgoing: Outgoing::default(),
            copies_answered: Cell::new(0),
            copied_segment: RefCell::default(),
            mending: Mending::default(),
            stages: Stages::default(),
            explained: Explained::default(),
        });
        let weak = Rc::downgrade(&range);
        range.log.on_durable(move || {
            if let Some(range) = weak.upgrade() {
                range.log_moved();
            }
        });
        range.note_recovery(&report);
        Ok(range)
    }

    fn note_recovery(self: &Rc<Self>, report: &RecoveryReport) {
        if report.torn_bytes > 0 {
            tracing::info!(range = %self.key, bytes = report.torn_bytes, "dropped a torn end that was never acknowledged");
        }
        for damage in &report.damage {
            tracing::error!(range = %self.key, %damage, "stored data is damaged");
        }
        if let Some(loss) = &report.loss {
            tracing::error!(range = %self.key, %loss, "entries are lost: the range serves what is good and takes no writes");
        }
        if report.has_file && self.log_promise.get() == LogPromise::Absent {
            // A crash came between the first flush and the promise: nothing was acknowledged, but there is a log now.
            self.promise_log();
        }
    }
}

/// The last epoch into which the log was reconciled. A log that should be there and is not took its marker with it.
fn marker(key: RangeKey, report: &RecoveryReport, promise: Option<Promise>) -> Epoch {
    match promise {
        _ if report.has_file => report.marker,
        Some(Promise { has_log: true, .. }) => {
            tracing::error!(range = %key, "the log of this range is gone; it is no survivor of its chain");
            Epoch(0)
        }
        Some(promise) => promise.marker,
        None => Epoch(0),
    }
}
