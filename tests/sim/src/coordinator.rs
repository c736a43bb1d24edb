//! The coordinator: one record with a version, and the brokers that live, as it would tell them.
//!
//! Requests and replies take time on their way, and a reply can get lost; that is the caller's part ([`crate::controller`]).
//! Every change of the record passes [`crate::invariants`].

use std::collections::BTreeMap;

use minikafka_core::NodeId;
use minikafka_core::coordination::{BrokerRecord, KeyVersion, RangeRecord, RingChunk};
use minikafka_core::{RangeId, RingId};

use crate::plan::Plan;
use crate::queue::Time;

/// The coordinator's facts.
pub struct Coordinator {
    /// The record.
    pub chunk: RingChunk,
    /// Its version.
    pub version: KeyVersion,
    /// Live brokers and the session that registered each.
    pub brokers: BTreeMap<NodeId, (BrokerRecord, u64)>,
    /// It answers nobody until then.
    pub away_until: Time,
    sessions: u64,
}

impl Coordinator {
    /// A new cluster's.
    pub fn new(plan: &Plan) -> Self {
        let ranges = vec![RangeRecord::default(); plan.ranges as usize];
        let ring = RingId(plan.replication);
        let first = RangeId(0);
        let chunk = RingChunk { ring, replication: plan.replication, ranges_total: plan.ranges, first, ranges };
        Self { chunk, version: KeyVersion(0), brokers: BTreeMap::new(), away_until: 0, sessions: 0 }
    }

    /// A broker registers; gives its session.
    pub fn register(&mut self, record: BrokerRecord) -> u64 {
        self.sessions += 1;
        self.brokers.insert(record.node, (record, self.sessions));
        self.sessions
    }

    /// A session ends; false when another one has the key by now.
    pub fn expire(&mut self, node: NodeId, session: u64) -> bool {
        let is_its = self.brokers.get(&node).is_some_and(|(_, holder)| *holder == session);
        if is_its {
            self.brokers.remove(&node);
        }
        is_its
    }

    /// All live brokers.
    pub fn live(&self) -> Vec<BrokerRecord> {
        self.brokers.values().map(|(record, _)| record.clone()).collect()
    }

    /// Replaces the record if it is at that version, or whatever its version is.
    pub fn replace(&mut self, chunk: RingChunk, version: KeyVersion, whatever: bool) -> Option<KeyVersion> {
        if version != self.version && !whatever {
            return None;
        }
        self.version = KeyVersion(self.version.0 + 1);
        self.chunk = chunk;
        Some(self.version)
    }
}
