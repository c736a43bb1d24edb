//! The chain of a range: who is in it, and the machines that keep it right (`docs/REPLICATION.md`).

pub mod controller;
pub mod peer;
pub mod planted;
pub mod replica;

use serde::{Deserialize, Serialize};

use crate::ids::*;
use crate::wire::codec::wire_form;

/// One place in a chain. Whoever restarts has another incarnation, whoever lost its disk another store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ChainMember {
    /// The node.
    pub node: NodeId,
    /// Its shard.
    pub shard: ShardId,
    /// Its disk.
    pub store: StoreId,
    /// Its process.
    pub incarnation: Incarnation,
}

wire_form! { ChainMember { node shard store incarnation } }
