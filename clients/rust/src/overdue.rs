//! Requests of which nothing is heard although their connection seems to live: their server may have been cut off without a
//! trace, and others may own its ranges by now.
//!
//! An answer that is overdue makes the client look at the map, now and then, for as long as it takes. When the map names
//! another epoch or another member, nobody waits any longer: the request is over, with its outcome unknown.

use std::sync::Arc;
use std::time::Duration;

use minikafka_core::{Epoch, RangeKey};

use crate::client::ClientShared;
use crate::error::Error;
use crate::map::ClusterMap;

/// An answer is overdue after this, beyond what its server was asked to wait.
pub(crate) const OVERDUE: Duration = Duration::from_millis(500);
/// Then the map is looked at this often.
const LOOK: Duration = Duration::from_millis(200);

/// What a request was addressed by.
#[derive(Clone, Debug)]
pub(crate) struct Addressed {
    pub(crate) address: Arc<str>,
    pub(crate) range: RangeKey,
    pub(crate) epoch: Epoch,
}

impl Addressed {
    /// Whether the map still says so.
    fn holds(&self, map: &ClusterMap) -> bool {
        map.epoch_of(self.range) <= self.epoch
            && map.members_of(self.range).any(|member| member.address == self.address)
    }
}

impl ClientShared {
    /// Ends when `after` is over and the map, looked at again and again, sends requests like one of these elsewhere.
    pub(crate) async fn moved(&self, after: Duration, addressed: &[Addressed]) -> Error {
        tokio::time::sleep(after).await;
        loop {
            // Without a gateway, what is known goes on to count.
            let map = self.map.no_older_than(LOOK, &self.gateways).await.unwrap_or_else(|_| self.map.current());
            if let Some(moved) = addressed.iter().find(|addressed| !addressed.holds(&map)) {
                let epoch = map.epoch_of(moved.range);
                return Error::ConnectionLost {
                    address: moved.address.clone(),
                    reason: format!("no answer, and range {} is in epoch {epoch} by now", moved.range).into(),
                };
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}
