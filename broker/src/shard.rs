//! One shard: the ranges it has opened, and what they share. One thread, nothing locked, nothing shared with others.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use minikafka_core::chain::ChainMember;
use minikafka_core::chain::peer::{CopyOutcome, PeerBody, PeerMessage};
use minikafka_core::chain::planted::is_restart_forgotten;
use minikafka_core::{Epoch, ErrorCode, RangeKey, limits};
use minikafka_net::BufferPool;
use minikafka_storage::disk::Disk;
use minikafka_storage::segment_pool::PoolCounts;
use minikafka_storage::wait::{ByteBudget, Notify, join_all};
use minikafka_storage::{LogError, Promise, PromiseFile, ShardStorage, SharedSlice, StorageConfig};

use crate::clock::Clock;
use crate::copy_pace::CopyPace;
use crate::fetch::Readers;
use crate::metrics::ShardMetrics;
use crate::owners::RangeOwners;
use crate::peers::Peers;
use crate::quota::Quotas;
use crate::range::{Range, RangeShared};

mod resumed;

/// How often a shard looks after idle logs and requests that waited too long.
pub const TICK: Duration = Duration::from_millis(100);

/// A range that is open, or is being opened by somebody.
enum Slot<D: Disk> {
    Opening,
    Open(Rc<Range<D>>),
}

/// What a shard is opened with.
pub struct ShardSetup<D: Disk> {
    /// Its disk.
    pub disk: D,
    /// The data directory of its node.
    pub data_dir: PathBuf,
    /// Who it is: node, shard, disk and process.
    pub me: ChainMember,
    /// How many shards the node has.
    pub shards: u16,
    /// Which shard of the node has opened which range.
    pub owners: RangeOwners,
    /// Sizes of its logs.
    pub storage: StorageConfig,
    /// Bounds the memory of fetches, and again that of batches on their way.
    pub budget_bytes: u64,
    /// Its clock.
    pub clock: Clock,
    /// What it reaches other members by.
    pub peers: Rc<dyn Peers>,
}

/// One shard.
pub struct Shard<D: Disk> {
    me: ChainMember,
    data_dir: PathBuf,
    pub(crate) storage: Rc<ShardStorage<D>>,
    shared: Rc<RangeShared<D>>,
    /// Every promise this node made before it started, whichever shard made it.
    known: BTreeMap<RangeKey, Promise>,
    owners: RangeOwners,
    /// In order, so that going through them is the same in every run of a simulation.
    ranges: RefCell<BTreeMap<RangeKey, Slot<D>>>,
    opened: Notify,
    /// Memory of fetches from reading until their reply has left.
    pub(crate) fetch_budget: ByteBudget,
    /// Memory of batches from receiving until they are answered.
    pub(crate) produce_budget: ByteBudget,
    /// Memory of entries from other members, from receiving until they are appended.
    pub(crate) peer_budget: ByteBudget,
    /// Where small ones of them arrive.
    pub(crate) peer_buffers: Rc<BufferPool>,
    pub(crate) readers: Readers,
    /// How much may be produced per second.
    pub quotas: Quotas,
    /// What happened so far.
    pub metrics: Rc<ShardMetrics>,
}

impl<D: Disk> Shard<D> {
    /// Opens a shard; its ranges are opened when the controller asks for them.
    pub async fn open(setup: ShardSetup<D>) -> Result<Rc<Self>, LogError> {
        let ShardSetup { disk, data_dir, me, shards, owners, storage, budget_bytes, clock, peers } = setup;
        let known = PromiseFile::read_all(&disk, &data_dir).await?;
        let storage = ShardStorage::open(disk.clone(), &data_dir, me.shard, shards, storage).await?;
        let promises = PromiseFile::open(disk.clone(), &data_dir, me.shard, []).await?;
        let metrics = Rc::new(ShardMetrics::default());
        let shard = Rc::new(Self {
            me,
            data_dir,
            storage: Rc::new(storage),
            shared: Rc::new(RangeShared {
                me,
                promises,
                disk,
                clock,
                peers,
                metrics: metrics.clone(),
                copy_pace: CopyPace::default(),
                mended: Cell::new(0),
            }),
            known,
            owners,
            ranges: RefCell::default(),
            opened: Notify::default(),
            fetch_budget: ByteBudget::new(budget_bytes.max(u64::from(limits::FETCH_BYTES_MAX))),
            produce_budget: ByteBudget::new(budget_bytes.max(u64::from(limits::BATCH_BODY_BYTES_MAX))),
            peer_budget: ByteBudget::new(limits::PEER_BUDGET_BYTES),
            peer_buffers: Rc::default(),
            readers: Readers::default(),
            quotas: Quotas::default(),
            metrics,
        });
        if is_restart_forgotten() {
            shard.resume().await;
        }
        Ok(shard)
    }

    /// Who this shard is.
    pub const fn me(&self) -> ChainMember {
        self.me
    }

    /// Its disk.
    pub fn disk(&self) -> &D {
        &self.shared.disk
    }

    /// Segment files that its logs took since the start.
    pub fn segments_taken(&self) -> PoolCounts {
        self.storage.pool().taken()
    }

    /// Its clock.
    pub fn clock(&self) -> &Clock {
        &self.shared.clock
    }

    /// How much of the logs in use was mended so far: see [`Range::was_mended_since`].
    pub(crate) fn mended(&self) -> u64 {
        self.shared.mended.get()
    }

    /// Whether it can promise nothing more, because a durable write of its promises failed (R11): it must be started again.
    pub fn has_failed(&self) -> bool {
        self.shared.promises.has_failed()
    }

    /// A range, if it is open here.
    pub fn range(&self, key: RangeKey) -> Option<Rc<Range<D>>> {
        match self.ranges.borrow().get(&key) {
            Some(Slot::Open(range)) => Some(range.clone()),
            _ => None,
        }
    }

    /// Every open range.
    pub fn ranges(&self) -> Vec<Rc<Range<D>>> {
        let open = |slot: &Slot<D>| match slot {
            Slot::Open(range) => Some(range.clone()),
            Slot::Opening => None,
        };
        self.ranges.borrow().values().filter_map(open).collect()
    }

    /// A range, opened now if it is not; whoever comes while it is being opened waits.
    pub async fn open_range(&self, key: RangeKey) -> Result<Rc<Range<D>>, ErrorCode> {
        loop {
            if let Some(range) = self.range(key) {
                return Ok(range);
            }
            if !self.ranges.borrow().contains_key(&key) {
                return self.open_absent_range(key).await;
            }
            let done = || (!matches!(self.ranges.borrow().get(&key), Some(Slot::Opening))).then_some(());
            self.opened.wait_for(done).await;
        }
    }

    async fn open_absent_range(&self, key: RangeKey) -> Result<Rc<Range<D>>, ErrorCode> {
        if let Err(owner) = self.owners.claim(key, self.me.shard) {
            tracing::warn!(range = %key, %owner, "another shard of this node has opened the range");
            return Err(ErrorCode::NotOwner);
        }
        self.ranges.borrow_mut().insert(key, Slot::Opening);
        let promise = self.known.get(&key).copied();
        let opened = self.open_with_promise(key, promise).await;
        let result = match opened {
            Ok(range) => {
                self.ranges.borrow_mut().insert(key, Slot::Open(range.clone()));
                Ok(range)
            }
            Err(error) => {
                tracing::error!(range = %key, %error, "cannot open the range");
                self.ranges.borrow_mut().remove(&key);
                self.owners.release(key);
                Err(ErrorCode::RangeFailed)
            }
        };
        self.opened.notify_all();
        result
    }

    async fn open_with_promise(&self, key: RangeKey, promise: Option<Promise>) -> Result<Rc<Range<D>>, LogError> {
        let own = self.shared.promises.get(key);
        if let Some(promise) = promise.filter(|promise| own != Some(*promise)) {
            // Made by another shard before a restart: it is this shard's to keep now.
            self.shared.promises.update([promise]).await?;
        }
        Range::open(&self.storage, self.shared.clone(), key, promise).await
    }

    /// Bytes that learners may copy from this shard per second, all together; none: as many as they can.
    pub fn set_copy_rate(&self, per_second: Option<u64>) {
        self.shared.copy_pace.set_rate(per_second, self.clock().monotonic_ns());
    }

    /// Takes a message of another member, in the order in which its connection brought it. Never waits.
    pub fn receive(&self, message: PeerMessage<SharedSlice>) {
        match self.range(message.range) {
            Some(range) => range.receive(message),
            None => self.refuse_message(message),
        }
    }

    /// Who waits for an answer of a range that is not open here gets one: nothing is promised for it in this life.
    fn refuse_message(&self, PeerMessage { range, epoch, body }: PeerMessage<SharedSlice>) {
        let code = ErrorCode::NotOwner;
        let (to, epoch, body) = match body {
            PeerBody::OpenStream { stream, from, .. } => (from, Epoch(0), PeerBody::StreamRefused { stream, code }),
            PeerBody::CopyRequest { copy, from, .. } => {
                (from, epoch, PeerBody::CopyReply { copy, outcome: CopyOutcome::Refused { code } })
            }
            _ => return,
        };
        self.shared.peers.send(&to, PeerMessage { range, epoch, body });
    }

    /// The connection to another member broke, or cannot be opened: what was sent to it and not answered is lost.
    pub fn peer_lost(&self, member: ChainMember) {
        for range in self.ranges() {
            range.peer_lost(member);
        }
    }

    /// Looks after idle logs, requests that waited too long, and quotas.
    pub fn tick(&self) {
        let now = self.clock().monotonic();
        for range in self.ranges() {
            range.tick();
            self.metrics.produce_timeouts.add(range.expire(now) as u64);
        }
        self.quotas.forget_full(self.clock().monotonic_ns());
    }

    /// Closes every log; the first error is told, the others are logged.
    pub async fn close(&self) -> Result<(), LogError> {
        let ranges = std::mem::take(&mut *self.ranges.borrow_mut());
        let closing = ranges.into_values().filter_map(|slot| match slot {
            Slot::Open(range) => Some(range.close()),
            Slot::Opening => None,
        });
        let mut first = Ok(());
        for closed in join_all(closing).await {
            if let Err(error) = &closed {
                tracing::error!(%error, "a log did not close cleanly");
            }
            first = first.and(closed);
        }
        first
    }
}

#[cfg(test)]
mod tests;
