//! Which shard of this process has opened which range: a range is never open twice.
//!
//! Asked only when a range is opened, so a lock is good enough.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use minikafka_core::{RangeKey, ShardId};

/// Shared by the shards of a process.
#[derive(Clone, Debug, Default)]
pub struct RangeOwners {
    owners: Arc<Mutex<HashMap<RangeKey, ShardId>>>,
}

impl RangeOwners {
    /// Takes a range for a shard; fails with the shard that has it.
    pub fn claim(&self, range: RangeKey, shard: ShardId) -> Result<(), ShardId> {
        let mut owners = self.owners.lock().unwrap_or_else(PoisonError::into_inner);
        match *owners.entry(range).or_insert(shard) {
            owner if owner == shard => Ok(()),
            owner => Err(owner),
        }
    }

    /// Gives a range up that could not be opened.
    pub fn release(&self, range: RangeKey) {
        self.owners.lock().unwrap_or_else(PoisonError::into_inner).remove(&range);
    }
}
