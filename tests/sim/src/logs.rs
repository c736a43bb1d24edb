//! Every replica's whole log at the end, as a power loss of all nodes would leave it: read back from the disks alone and
//! given to the checker, which compares them entry by entry.
//!
//! Members of the active chain must hold all that is committed; whoever else still has a log, what it knew of that. Reading
//! all disks takes a quarter of the time of a seed, so one in [`ONE_IN`] does it.

use std::path::Path;
use std::rc::Rc;

use minikafka_checker::{History, LogDump, LogEntry, Member};
use minikafka_core::entry::EntryHeader;
use minikafka_core::*;
use minikafka_storage::disk::sim::{SimDisk, SimExecutor};
use minikafka_storage::{Damage, RangeLog, ReadError, RecoveryVisitor, ShardStorage, StorageConfig};

use crate::invariants::{Checked, Violation};
use crate::world::World;

/// One in so many seeds ends with it.
const ONE_IN: u64 = 4;
/// Bytes read at once.
const READ_BYTES: usize = 1 << 20;

impl World {
    /// Adds what every replica has to the history.
    pub fn dump_logs(&mut self, history: &mut History) -> Checked {
        if !self.random.one_in(ONE_IN) {
            return Ok(());
        }
        for node in 0..self.nodes.len() {
            let Some(life) = &self.nodes[node].life else { continue };
            let member = Member { node: node as u32 + 1, life: life.incarnation.0 };
            let executor = SimExecutor::new(self.random.next_u64());
            let disk = life.disk.crash_now(self.random.next_u64(), &executor);
            for shard in life.shards() {
                for range in shard.ranges() {
                    let key = range.key();
                    let view = range.with_member(|member| member.view());
                    let active = self.coordinator.chunk.ranges[key.range.0 as usize].active.as_ref();
                    // Whoever left a chain may never have heard of it.
                    let committed = match active.is_some_and(|active| view.acts_in == Some(active.epoch)) {
                        true => self.truth.committed(key.range),
                        false => view.known_committed.index.min(view.durable),
                    };
                    let place = (shard.me().shard, self.plan.shards);
                    let read = read_log(&executor, &disk, place, key, self.plan.storage.clone());
                    let (first, entries) = match read {
                        // Nobody mends who is in no chain, nor what only a lost footer knew.
                        Err(_) if self.nodes[node].has_rot && (view.acts_in.is_none() || range.is_beyond_mending()) => {
                            continue;
                        }
                        read => read.map_err(|what| {
                            Violation::data(format!("range {}: the log of node {}: {what}", key.range, node + 1))
                        })?,
                    };
                    let (range, committed) = (key.range.0, committed.0);
                    history.log_dump(LogDump { range, member, first: first.0, committed, entries });
                }
            }
        }
        Ok(())
    }
}

/// Reads a log from a disk on which nobody runs: what it begins with, and all its entries.
fn read_log(
    executor: &SimExecutor,
    disk: &SimDisk,
    (shard, shards): (ShardId, u16),
    range: RangeKey,
    config: StorageConfig,
) -> Result<(LogIndex, Vec<LogEntry>), String> {
    let disk = disk.clone();
    executor.run(async move {
        let storage = ShardStorage::open(disk, Path::new("/data"), shard, shards, config).await;
        let storage = Rc::new(storage.map_err(|error| error.to_string())?);
        let opened = RangeLog::open(storage, range, &mut Ignored).await.map_err(|error| error.to_string())?;
        let (log, mut first) = (opened.log, opened.report.first_index);
        let mut entries = Vec::new();
        let mut next = first;
        while next <= log.end().index {
            match log.read_index(next, READ_BYTES).await {
                Ok(runs) if runs.is_empty() => return Err(format!("entry {next} is not there")),
                Ok(runs) => {
                    for mut bytes in runs.iter().map(|run| &run[..]) {
                        while !bytes.is_empty() {
                            let header = EntryHeader::decode(bytes).map_err(|error| error.to_string())?;
                            let (index, epoch) = (header.index.0, header.epoch.0);
                            entries.push(LogEntry { index, epoch, hash: header.running_hash.0 });
                            next = header.index.next();
                            bytes = &bytes[header.entry_bytes()..];
                        }
                    }
                }
                // What retention took is nobody's to miss.
                Err(ReadError::Freed { run }) => {
                    next = run.borders()[1].index.next();
                    first = next;
                }
                Err(error) => return Err(error.to_string()),
            }
        }
        Ok((first, entries))
    })
}

/// Nothing is folded: the entries are read afterwards.
struct Ignored;

impl RecoveryVisitor for Ignored {
    fn snapshot(&mut self, _: Option<&[u8]>) {}

    fn entry(&mut self, _: &EntryHeader, _: &[u8]) {}

    fn take_snapshot(&mut self) -> Vec<u8> {
        Vec::new()
    }

    fn header(&mut self, _: &EntryHeader) {}

    fn damaged(&mut self, _: &Damage) {}
}
