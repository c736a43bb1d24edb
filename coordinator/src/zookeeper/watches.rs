//! [`Armed`]: ZooKeeper's watches tell once, about one key; here they are armed so that whole trees are heard.
//!
//! Every key below a watched path has a watch on itself and one on its children. Armed first and told afterwards, so
//! that whoever reads after being told hears of the next change. Nothing is armed across contacts.

use std::collections::BTreeSet;

use futures_util::future::join_all;
use zookeeper_async::{WatchedEventType, ZkError};

use super::connection::{Connection, Failure, QUESTIONS_IN_FLIGHT};

/// The keys that are there and watched, in ZooKeeper's paths.
#[derive(Debug, Default)]
pub(super) struct Armed {
    keys: BTreeSet<String>,
}

impl Armed {
    /// Watches keys and everything below them; a key that is not there is watched for its creation. Returns what is
    /// there and was not known.
    pub(super) async fn arm(&mut self, connection: &Connection, keys: Vec<String>) -> Result<Vec<String>, Failure> {
        let mut found = Vec::new();
        let mut level = keys;
        while !level.is_empty() {
            let mut below = Vec::new();
            for some in level.chunks(QUESTIONS_IN_FLIGHT) {
                let looks = join_all(some.iter().map(|key| look(connection, key))).await;
                for (key, children) in some.iter().zip(looks) {
                    let Some(children) = children? else { continue };
                    if self.keys.insert(key.clone()) {
                        found.push(key.clone());
                    }
                    below.extend(children.into_iter().filter(|child| !self.keys.contains(child)));
                }
            }
            level = below;
        }
        Ok(found)
    }

    /// Arms what has fired and returns what is to be told. `is_root`: the key itself is watched, not only found.
    pub(super) async fn fired(
        &mut self,
        connection: &Connection,
        event: WatchedEventType,
        key: String,
        is_root: bool,
    ) -> Result<Vec<String>, Failure> {
        match event {
            WatchedEventType::NodeDeleted if !is_root => {
                // Its parent tells if it comes back.
                self.keys.remove(&key);
                Ok(vec![key])
            }
            WatchedEventType::NodeChildrenChanged => {
                let found = self.arm(connection, vec![key.clone()]).await?;
                // A child that went tells by itself; one that came and went in between does not.
                Ok(if found.is_empty() { vec![key] } else { found })
            }
            _ => {
                self.keys.remove(&key);
                let mut told = self.arm(connection, vec![key.clone()]).await?;
                if !told.contains(&key) {
                    told.push(key);
                }
                Ok(told)
            }
        }
    }
}

/// Watches one key and its children. `None`: it is not there.
async fn look(connection: &Connection, key: &str) -> Result<Option<Vec<String>>, Failure> {
    let Some(stat) = connection.ask(|keeper| keeper.exists(key, true)).await? else { return Ok(None) };
    if stat.is_ephemeral() {
        return Ok(Some(Vec::new()));
    }
    match connection.ask(|keeper| keeper.get_children(key, true)).await {
        Ok(names) => Ok(Some(names.iter().map(|name| format!("{key}/{name}")).collect())),
        Err(Failure::Refused(ZkError::NoNode)) => Ok(None),
        Err(failure) => Err(failure),
    }
}
