//! [`Session`]: what each request does in ZooKeeper, and what a lost reply means.
//!
//! A key's version is its `mzxid`, the number of the change that wrote it over all keys, so that a key that was
//! deleted and created again does not repeat versions. ZooKeeper compares another number, that of the changes of this one
//! key: it is looked up right before, and both must fit.

use std::collections::BTreeMap;

use minikafka_core::coordination::{
    CoordinationError, CoordinatorReply, CoordinatorRequest, KeyLife, KeyVersion, Versioned,
};
use zookeeper_async::{Acl, CreateMode, Stat, ZkError};

use super::connection::{Connection, Failure};
use crate::key::{ancestors, check, malformed};

/// From here on a lost reply may well be the doing of the server's own limit.
const LARGE_VALUE_BYTES: usize = 64 * 1024;
/// Keys that exist for a moment, to learn the session's number.
const PROBE: &str = "session-";

/// Why a request has no outcome to tell.
#[derive(Debug)]
pub(super) enum Trouble {
    /// This is the outcome.
    Told(CoordinationError),
    /// Nothing was asked: ask again when there is contact.
    NotAsked,
    /// The reply to an ephemeral's creation is lost. The session knows its own: [`Session::settle`] it in the next contact.
    Doubtful,
}

type Outcome = Result<CoordinatorReply, Trouble>;

/// One ZooKeeper session.
pub(super) struct Session {
    pub(super) connection: Connection,
    root: String,
    /// Ephemerals of this session and the numbers of their creation.
    own: BTreeMap<String, i64>,
    /// Its number at the server. The library does not tell; ephemerals do.
    number: Option<i64>,
}

impl Session {
    pub(super) fn new(connection: Connection, root: &str) -> Self {
        Self { connection, root: root.to_owned(), own: BTreeMap::new(), number: None }
    }

    /// What the session leaves behind when it is lost: its ephemerals and the numbers of their creation.
    pub(super) fn into_own(self) -> BTreeMap<String, i64> {
        self.own
    }

    /// Where a key is for ZooKeeper.
    pub(super) fn absolute(&self, path: &str) -> String {
        format!("{}{}", self.root, path.trim_end_matches('/'))
    }

    /// Which key a path of ZooKeeper is, if it is one of ours.
    pub(super) fn relative(&self, path: &str) -> Option<String> {
        match path.strip_prefix(&self.root) {
            Some("") => Some("/".to_owned()),
            Some(rest) => rest.starts_with('/').then(|| rest.to_owned()),
            None => None,
        }
    }

    /// Does a request that only reads; several may be under way.
    pub(super) async fn read(&self, request: &CoordinatorRequest) -> Outcome {
        match request {
            CoordinatorRequest::Get { path } => self.get(path).await,
            CoordinatorRequest::Children { path } => self.children(path).await,
            other => unreachable!("{other:?} changes something"),
        }
    }

    /// Does a request that changes something; nothing else is under way.
    pub(super) async fn change(&mut self, request: &CoordinatorRequest) -> Outcome {
        match request {
            CoordinatorRequest::Create { path, value, life } => self.create(path, value, *life).await,
            CoordinatorRequest::CompareAndSet { path, value, version } => self.set(path, value, *version).await,
            CoordinatorRequest::Delete { path, version } => self.delete(path, *version).await,
            other => unreachable!("{other:?} changes nothing"),
        }
    }

    /// Finds out, in a new contact of the same session, what became of a creation whose reply was lost: the key is
    /// there and ours, or it was never made and is made now. (A new contact sees all that happened in the last one.)
    pub(super) async fn settle(&mut self, request: &CoordinatorRequest) -> Outcome {
        let CoordinatorRequest::Create { path, value, life } = request else {
            unreachable!("only creations are settled, not {request:?}");
        };
        let candidates = match life {
            KeyLife::EphemeralSequential => self.names_like(path).await?,
            KeyLife::Ephemeral | KeyLife::Persistent => vec![path.clone()],
        };
        for candidate in candidates {
            if let Some(reply) = self.recognise(&candidate, value).await? {
                return Ok(reply);
            }
        }
        self.create(path, value, *life).await
    }

    /// Deletes ephemerals that a lost session may have left, so that nobody takes them for alive.
    pub(super) async fn sweep(&mut self, left: &BTreeMap<String, i64>) -> Result<(), Failure> {
        for (path, created) in left {
            let at = self.absolute(path);
            let Some(stat) = self.connection.ask(|keeper| keeper.exists(&at, false)).await? else { continue };
            if stat.czxid == *created {
                match self.connection.ask(|keeper| keeper.delete(&at, Some(stat.version))).await {
                    Ok(()) | Err(Failure::Refused(_)) => {}
                    Err(failure) => return Err(failure),
                }
            }
        }
        Ok(())
    }

    /// Ends the session: its ephemerals are gone when this returns, if there is contact. (The library does not wait
    /// for the server when it closes a session, hence one by one.)
    pub(super) async fn leave(mut self) {
        let own = std::mem::take(&mut self.own);
        if let Err(failure) = self.sweep(&own).await {
            tracing::warn!(?failure, "closing without contact: ephemeral keys stay until the session times out");
        }
        self.connection.close().await;
    }

    async fn get(&self, path: &str) -> Outcome {
        let at = self.absolute(path);
        match self.connection.ask(|keeper| keeper.get_data(&at, false)).await {
            Ok((value, stat)) => {
                Ok(CoordinatorReply::Value(Some(Versioned { value, version: KeyVersion(stat.mzxid) })))
            }
            Err(Failure::Refused(ZkError::NoNode)) => Ok(CoordinatorReply::Value(None)),
            Err(failure) => Err(reading(path, failure)),
        }
    }

    async fn children(&self, path: &str) -> Outcome {
        let at = self.absolute(path);
        match self.connection.ask(|keeper| keeper.get_children(&at, false)).await {
            Ok(mut names) => {
                names.sort_unstable();
                Ok(CoordinatorReply::Children(names))
            }
            Err(Failure::Refused(ZkError::NoNode)) => Ok(CoordinatorReply::Children(Vec::new())),
            Err(failure) => Err(reading(path, failure)),
        }
    }

    async fn create(&mut self, path: &str, value: &[u8], life: KeyLife) -> Outcome {
        check(path, value).map_err(Trouble::Told)?;
        let at = self.absolute(path);
        let mode = match life {
            KeyLife::Persistent => CreateMode::Persistent,
            KeyLife::Ephemeral => CreateMode::Ephemeral,
            KeyLife::EphemeralSequential => CreateMode::EphemeralSequential,
        };
        loop {
            let made = self.connection.ask(|keeper| keeper.create2(&at, value.to_vec(), acl(), mode)).await;
            match made {
                Ok((made, stat)) => return Ok(self.created(&made, &stat)),
                Err(Failure::Refused(ZkError::NoNode)) => self.create_parents(&at).await?,
                Err(Failure::Refused(refusal)) => return Err(refused(path, refusal)),
                Err(Failure::NotAsked) => return Err(Trouble::NotAsked),
                Err(Failure::Lost) if life == KeyLife::Persistent => return Err(unknown(value)),
                Err(Failure::Lost) => return Err(Trouble::Doubtful),
            }
        }
    }

    /// Makes what is missing above a key, the root too. May be done twice, so a lost reply is as good as no question.
    async fn create_parents(&self, at: &str) -> Result<(), Trouble> {
        for above in ancestors(at) {
            let made = self.connection.ask(|keeper| keeper.create(above, Vec::new(), acl(), CreateMode::Persistent));
            match made.await {
                Ok(_) | Err(Failure::Refused(ZkError::NodeExists)) => {}
                Err(Failure::Refused(refusal)) => return Err(refused(above, refusal)),
                Err(Failure::NotAsked | Failure::Lost) => return Err(Trouble::NotAsked),
            }
        }
        Ok(())
    }

    async fn set(&self, path: &str, value: &[u8], version: KeyVersion) -> Outcome {
        check(path, value).map_err(Trouble::Told)?;
        let at = self.absolute(path);
        let found = self.stat_at(path, version).await?;
        match self.connection.ask(|keeper| keeper.set_data(&at, value.to_vec(), Some(found.version))).await {
            Ok(stat) => Ok(CoordinatorReply::Set(KeyVersion(stat.mzxid))),
            Err(failure) => Err(changing(path, value, failure)),
        }
    }

    async fn delete(&mut self, path: &str, version: KeyVersion) -> Outcome {
        let at = self.absolute(path);
        let found = self.stat_at(path, version).await?;
        match self.connection.ask(|keeper| keeper.delete(&at, Some(found.version))).await {
            Ok(()) => {
                self.own.remove(path);
                Ok(CoordinatorReply::Deleted)
            }
            Err(failure) => Err(changing(path, &[], failure)),
        }
    }

    /// The key's numbers, if it is at `version`. Asks nothing that could change something.
    async fn stat_at(&self, path: &str, version: KeyVersion) -> Result<Stat, Trouble> {
        match self.stat(path).await? {
            None => Err(Trouble::Told(CoordinationError::Missing { path: path.to_owned() })),
            Some(stat) if stat.mzxid != version.0 => {
                Err(Trouble::Told(CoordinationError::Conflict { path: path.to_owned() }))
            }
            Some(stat) => Ok(stat),
        }
    }

    async fn stat(&self, path: &str) -> Result<Option<Stat>, Trouble> {
        let at = self.absolute(path);
        match self.connection.ask(|keeper| keeper.exists(&at, false)).await {
            Ok(stat) => Ok(stat),
            Err(Failure::Refused(refusal)) => Err(refused(path, refusal)),
            // Only a question: it can be put again.
            Err(Failure::NotAsked | Failure::Lost) => Err(Trouble::NotAsked),
        }
    }

    /// A key that this session made without knowing.
    async fn recognise(&mut self, path: &str, value: &[u8]) -> Result<Option<CoordinatorReply>, Trouble> {
        let Some(stat) = self.stat(path).await.map_err(still_doubtful)? else { return Ok(None) };
        let known = self.own.get(path) == Some(&stat.czxid);
        if known || !stat.is_ephemeral() || stat.ephemeral_owner != self.number().await? {
            return Ok(None);
        }
        match self.get(path).await.map_err(|_| Trouble::Doubtful)? {
            CoordinatorReply::Value(Some(found)) if found.value == value => {
                let at = self.absolute(path);
                Ok(Some(self.created(&at, &stat)))
            }
            _ => Ok(None),
        }
    }

    /// The sequential keys that `path` may have become.
    async fn names_like(&self, path: &str) -> Result<Vec<String>, Trouble> {
        let (above, stem) = path.rsplit_once('/').expect("a path begins with a slash");
        match self.children(above).await.map_err(|_| Trouble::Doubtful)? {
            CoordinatorReply::Children(names) => {
                Ok(names.iter().filter(|name| name.starts_with(stem)).map(|name| format!("{above}/{name}")).collect())
            }
            other => unreachable!("{other:?} answers no question about children"),
        }
    }

    /// The session's number, from an ephemeral that lives for a moment. It is asked for only where a key exists, so its
    /// root does.
    async fn number(&mut self) -> Result<i64, Trouble> {
        if let Some(number) = self.number {
            return Ok(number);
        }
        let at = format!("{}/{PROBE}", self.root);
        let made =
            self.connection.ask(|keeper| keeper.create2(&at, Vec::new(), acl(), CreateMode::EphemeralSequential));
        let (made, stat) = made.await.map_err(|_| Trouble::Doubtful)?;
        self.number = Some(stat.ephemeral_owner);
        // If it stays, it goes with the session.
        drop(self.connection.ask(|keeper| keeper.delete(&made, None)).await);
        Ok(stat.ephemeral_owner)
    }

    fn created(&mut self, at: &str, stat: &Stat) -> CoordinatorReply {
        let path = self.relative(at).expect("what was created below the root is there");
        if stat.is_ephemeral() {
            self.number = Some(stat.ephemeral_owner);
            self.own.insert(path.clone(), stat.czxid);
        }
        CoordinatorReply::Created { path, version: KeyVersion(stat.mzxid) }
    }
}

/// Whoever reaches the ensemble may do everything, as MiniKafka has no passwords for it: it belongs behind a firewall.
fn acl() -> Vec<Acl> {
    Acl::open_unsafe().clone()
}

/// In a settlement a question that was not put changes nothing about the doubt.
fn still_doubtful(trouble: Trouble) -> Trouble {
    match trouble {
        Trouble::NotAsked => Trouble::Doubtful,
        other => other,
    }
}

fn reading(path: &str, failure: Failure) -> Trouble {
    match failure {
        Failure::Refused(refusal) => refused(path, refusal),
        Failure::NotAsked => Trouble::NotAsked,
        Failure::Lost => Trouble::Told(CoordinationError::Unavailable { reason: "contact was lost".to_owned() }),
    }
}

fn changing(path: &str, value: &[u8], failure: Failure) -> Trouble {
    match failure {
        Failure::Refused(refusal) => refused(path, refusal),
        Failure::NotAsked => Trouble::NotAsked,
        Failure::Lost => unknown(value),
    }
}

/// The server said no: nothing happened.
fn refused(path: &str, refusal: ZkError) -> Trouble {
    let path = path.to_owned();
    Trouble::Told(match refusal {
        ZkError::NodeExists => CoordinationError::Exists { path },
        ZkError::NoNode => CoordinationError::Missing { path },
        ZkError::BadVersion | ZkError::NotEmpty => CoordinationError::Conflict { path },
        ZkError::NoChildrenForEphemerals => malformed(&path, "an ephemeral key cannot have children"),
        ZkError::BadArguments => malformed(&path, "ZooKeeper does not take this path"),
        ZkError::NoAuth => CoordinationError::Unavailable {
            reason: format!("{path} is closed to us; in zkCli: setAcl -R {path} world:anyone:cdrwa"),
        },
        other => CoordinationError::Unavailable { reason: format!("it refuses {path}: {other}") },
    })
}

fn unknown(value: &[u8]) -> Trouble {
    let mut reason = "contact was lost before the reply".to_owned();
    if value.len() >= LARGE_VALUE_BYTES {
        reason.push_str(&format!(
            "; if that repeats, jute.maxbuffer of the servers is below the default of 1 MiB, and the value has {} bytes",
            value.len()
        ));
    }
    Trouble::Told(CoordinationError::Unknown { reason })
}
