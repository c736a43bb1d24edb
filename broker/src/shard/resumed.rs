//! Two bugs that tests plant (`core::chain::planted`): a member that restarts takes up the epoch it had, which R6 forbids.
//!
//! The honest form of it: what a member was told at its activation is kept in a file of its own, and taken for true at the
//! next start, for every range whose marker is of that epoch (`is_restart_forgotten`). Neighbours only talk to the process that the record
//! names, so the bug also needs a node that keeps its incarnation, which is up to whoever starts it. Without the feature
//! nothing here is ever called.

use std::path::PathBuf;
use std::rc::Rc;

use minikafka_core::wire::{ActivateRange, Wire, codec::Reader};
use minikafka_core::{RangeKey, RingId};
use minikafka_storage::DiskError;
use minikafka_storage::disk::{BLOCK_BYTES, Disk, DiskFile};

use super::Shard;

impl<D: Disk> Shard<D> {
    /// `acting` in the data directory.
    fn acting_dir(&self) -> PathBuf {
        self.data_dir.join("acting")
    }

    /// Keeps what a range was activated with.
    pub(crate) async fn remember(&self, ring: RingId, activated: ActivateRange) {
        let name = format!("{ring}-{}-{}", activated.range, activated.epoch);
        let written = async {
            let (disk, dir) = (self.disk(), self.acting_dir());
            disk.create_dir(&dir).await?;
            if disk.list(&dir).await?.contains(&name) {
                return Ok(());
            }
            let file = disk.create(&dir.join(&name), BLOCK_BYTES as u64).await?;
            let mut block = disk.allocate(BLOCK_BYTES);
            let mut bytes = activated.to_bytes();
            bytes.resize(BLOCK_BYTES, 0);
            block.as_mut().copy_from_slice(&bytes);
            file.write_durable(Rc::new(block), 0).await?;
            disk.sync_dir(&dir).await
        };
        if let Err(error) = written.await {
            let error = DiskError::new("keep", &self.acting_dir().join(&name), error);
            tracing::warn!(%error, "this member will not know what it was");
        }
    }

    /// Acts again wherever the marker equals the promise.
    pub(crate) async fn resume(&self) {
        for (ring, activated) in self.remembered().await {
            let key = RangeKey { ring, range: activated.range };
            if let Ok(range) = self.open_range(key).await
                && range.epoch() == activated.epoch
            {
                let answer = range.activate(activated.epoch, activated.chain, activated.start).await;
                tracing::warn!(range = %key, epoch = %activated.epoch, ?answer, "planted: took up what it was");
            }
        }
    }

    async fn remembered(&self) -> Vec<(RingId, ActivateRange)> {
        let (disk, dir) = (self.disk(), self.acting_dir());
        let mut found = Vec::new();
        for name in disk.list(&dir).await.unwrap_or_default() {
            let mut numbers = name.split('-').map_while(|number| number.parse::<u64>().ok());
            let Some(ring) = numbers.next().and_then(|ring| u16::try_from(ring).ok()) else { continue };
            let read = async { disk.open(&dir.join(&name)).await?.read_at(0, BLOCK_BYTES).await };
            let Ok(block) = read.await else { continue };
            if let Ok(activated) = Reader::new((*block).as_ref()).take::<ActivateRange>() {
                found.push((RingId(ring), activated));
            }
        }
        found
    }
}
