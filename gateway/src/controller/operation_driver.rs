//! Carries out what operations want: tells the machines which ranges shall be where, and which nodes get none, and writes down
//! how far it is. What to tell is decided by [`progress`], which needs nothing from before; here is only what was told
//! already, and how long nodes are away.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use minikafka_core::chain::controller::Input;
use minikafka_core::coordination::{CoordinationError, KeyVersion, OperationRecord, OperationState, path};
use minikafka_core::{NodeId, OperationId, RangeKey, limits};
use tokio::time::Instant;

use super::{ChunkKey, Controller, Done};
use crate::backoff::Backoff;
use crate::gateway::Shared;
use crate::map::{ClusterMap, keeper};
use crate::operations::{describe, progress};

/// What the machines were told, and what is waited for.
#[derive(Debug, Default)]
pub(super) struct OperationDriver {
    wishes: BTreeMap<RangeKey, Vec<NodeId>>,
    pub(super) draining: BTreeSet<NodeId>,
    /// Nodes that moves are to, and since when they are away.
    away_since: BTreeMap<NodeId, Instant>,
    /// Records that are being written.
    writing: BTreeSet<OperationId>,
    written: BTreeMap<OperationId, Instant>,
    /// When to look again although nothing changed.
    pub(super) due: Option<Instant>,
}

impl Controller {
    /// Brings what the machines want in line with what operators want.
    pub(super) fn drive_operations(&mut self, map: &ClusterMap) {
        let now = Instant::now();
        self.operations.due = None;
        let long_away = self.operations.long_away(map, now);
        let advance = progress::advance(map, &long_away);
        if advance.draining != self.operations.draining {
            self.operations.draining.clone_from(&advance.draining);
            for key in self.machines.keys().copied().collect::<Vec<_>>() {
                self.step(key, Input::Draining(advance.draining.clone()));
            }
        }
        let told = std::mem::replace(&mut self.operations.wishes, advance.wishes.clone());
        for range in told.keys().filter(|range| !advance.wishes.contains_key(range)) {
            self.step(chunk_of(*range), Input::Desired { range: range.range, nodes: None });
        }
        for (range, nodes) in advance.wishes {
            if told.get(&range) != Some(&nodes) {
                self.step(chunk_of(range), Input::Desired { range: range.range, nodes: Some(nodes) });
            }
        }
        for (record, version) in advance.changed {
            self.write_operation(map, record, version, now);
        }
    }

    /// Writes how far an operation is: its end at once, anything else now and then.
    fn write_operation(&mut self, map: &ClusterMap, record: OperationRecord, version: KeyVersion, now: Instant) {
        let operation = record.operation;
        let before = map.operations.get(&operation).map(|at| at.record.state);
        let is_news = before != Some(record.state);
        let driver = &mut self.operations;
        let pause = Duration::from_millis(limits::OPERATION_WRITE_MS);
        let written = driver.written.get(&operation).copied();
        if let Some(next) = written.map(|at| at + pause).filter(|next| !is_news && *next > now) {
            driver.due = Some(driver.due.map_or(next, |due| due.min(next)));
            return;
        }
        if driver.writing.insert(operation) {
            driver.written.insert(operation, now);
            if is_news {
                let moved = record.moved();
                tracing::info!(%operation, task = describe(record.task), state = ?record.state, moved, "operation");
            }
            self.tasks.spawn(write(self.shared.clone(), record, version));
        }
    }

    /// A record was written, or will have to be written anew.
    pub(super) fn operation_written(&mut self, operation: OperationId) {
        self.operations.writing.remove(&operation);
        self.aligned = None;
    }
}

impl OperationDriver {
    /// Whether it is to look again although nothing changed.
    pub(super) fn is_due(&self) -> bool {
        self.due.is_some_and(|due| due <= Instant::now())
    }

    /// Nodes that moves are to, and that have been away for so long that a drain waits for them no more.
    fn long_away(&mut self, map: &ClusterMap, now: Instant) -> BTreeSet<NodeId> {
        let running = map.operations.values().filter(|at| at.record.state == OperationState::Running);
        let away: BTreeSet<NodeId> = running.flat_map(|at| progress::waits_for(map, &at.record)).collect();
        self.away_since.retain(|node, _| away.contains(node));
        let patience = Duration::from_millis(limits::MOVE_TARGET_WAIT_MS);
        let mut long = BTreeSet::new();
        for node in away {
            let until = *self.away_since.entry(node).or_insert(now) + patience;
            if until <= now {
                long.insert(node);
            } else {
                self.due = Some(self.due.map_or(until, |due| due.min(until)));
            }
        }
        long
    }
}

fn chunk_of(range: RangeKey) -> ChunkKey {
    (range.ring.0, range.range.0 / limits::RANGES_PER_CHUNK)
}

async fn write(shared: Arc<Shared>, record: OperationRecord, version: KeyVersion) -> Done {
    let (operation, path) = (record.operation, path::operation(record.operation));
    match shared.client.compare_and_set(&path, &record, version).await {
        Ok(version) => {
            shared.map.set_operation(record, version);
            return Done::Operation(operation);
        }
        Err(error @ (CoordinationError::Conflict { .. } | CoordinationError::Missing { .. })) => {
            tracing::debug!(%path, %error, "somebody else changed an operation");
        }
        Err(error) => tracing::warn!(%path, %error, "cannot write how far an operation is"),
    }
    let mut backoff = Backoff::default();
    backoff.wait().await;
    while let Err(error) = keeper::read(&shared.client, &shared.map, &path).await {
        tracing::warn!(%path, %error, "cannot read an operation");
        backoff.wait().await;
    }
    Done::Operation(operation)
}
