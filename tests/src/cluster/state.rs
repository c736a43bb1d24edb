//! What a directory knows of its cluster, so that each command, and whoever cleans up after a crash, finds all of it.
//!
//! One JSON file, replaced by renaming after each change. It is a tool's note, not data: nothing is synced.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::member::Member;
use super::network::Network;
use super::running::Running;

const FILE_NAME: &str = "cluster.json";

/// Everything there is to know.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct State {
    /// The binary that gateways and brokers run.
    pub binary: PathBuf,
    /// Where everybody is.
    pub network: Network,
    /// Shards of each broker.
    pub cores: u16,
    /// Options of every broker.
    pub broker_options: Vec<String>,
    /// How long the coordinator keeps the place of a gateway or broker that it does not hear.
    pub session_timeout_ms: u64,
    /// The node id of each broker, by its number: the same, but for impostors.
    pub nodes: BTreeMap<u8, u32>,
    /// Gateways, counted from 1.
    pub gateways: u8,
    /// Who was started last, and not ended on purpose since.
    pub running: BTreeMap<Member, Running>,
    /// (from, to): what the first sends, the second never gets.
    pub cuts: BTreeSet<(Member, Member)>,
    /// Whose links are slow.
    pub slow: BTreeSet<Member>,
    /// Brokers whose disks are slow.
    #[serde(default)]
    pub slow_disks: BTreeSet<u8>,
    /// Brokers that have a small disk of their own.
    #[serde(default)]
    pub small_disks: BTreeSet<u8>,
}

impl State {
    /// What stands in a directory; none: no cluster is there.
    pub fn load(directory: &Path) -> Result<Option<Self>> {
        let path = directory.join(FILE_NAME);
        match fs::read(&path) {
            Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes).with_context(|| path.display().to_string())?)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| path.display().to_string()),
        }
    }

    /// Writes it down.
    pub fn save(&self, directory: &Path) -> Result<()> {
        let path = directory.join(FILE_NAME);
        let aside = path.with_extension("new");
        fs::write(&aside, serde_json::to_vec_pretty(self)?).with_context(|| aside.display().to_string())?;
        fs::rename(&aside, &path).with_context(|| path.display().to_string())
    }

    /// Nothing is there any more.
    pub fn forget(directory: &Path) -> Result<()> {
        match fs::remove_file(directory.join(FILE_NAME)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// Everybody who has an address, but for the clients.
    pub fn members(&self) -> Vec<Member> {
        let gateways = (1..=self.gateways).map(Member::Gateway);
        let brokers = self.nodes.keys().copied().map(Member::Broker);
        [Member::ZooKeeper].into_iter().chain(gateways).chain(brokers).collect()
    }
}
