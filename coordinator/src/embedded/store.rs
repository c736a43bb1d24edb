//! The keys of the embedded coordinator and what each request does to them. Pure: no files, no threads.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use minikafka_core::coordination::{
    CoordinationError, CoordinatorReply, CoordinatorRequest, KeyLife, KeyVersion, Versioned,
};

use crate::key::{ancestors, check, malformed};

/// A session, unique within the life of the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct SessionId(pub(super) u64);

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Key {
    pub(super) value: Arc<[u8]>,
    pub(super) version: KeyVersion,
    /// The session whose end deletes it.
    pub(super) owner: Option<SessionId>,
}

/// All keys. Cheap to clone: values are shared.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Store {
    pub(super) keys: BTreeMap<Arc<str>, Key>,
    /// Number of the last change; the version of whatever it wrote.
    pub(super) changes: i64,
    /// Number of the last sequential key.
    pub(super) sequence: u64,
    /// Changes that a restart must not lose.
    pub(super) durable_changes: u64,
}

type Outcome = Result<CoordinatorReply, CoordinationError>;

impl Store {
    /// Does one request; paths of changed keys go to `changed`.
    pub(super) fn apply(
        &mut self,
        session: SessionId,
        request: CoordinatorRequest,
        changed: &mut Vec<String>,
    ) -> Outcome {
        match request {
            CoordinatorRequest::Get { path } => Ok(CoordinatorReply::Value(self.get(&path))),
            CoordinatorRequest::Create { path, value, life } => self.create(session, path, value, life, changed),
            CoordinatorRequest::CompareAndSet { path, value, version } => self.set(path, value, version, changed),
            CoordinatorRequest::Delete { path, version } => self.delete(path, version, changed),
            CoordinatorRequest::Children { path } => Ok(CoordinatorReply::Children(self.children(&path))),
        }
    }

    /// Deletes what a session leaves behind; the paths go to `changed`.
    pub(super) fn end_session(&mut self, session: SessionId, changed: &mut Vec<String>) {
        self.keys.retain(|path, key| {
            let goes = key.owner == Some(session);
            if goes {
                changed.push(path.to_string());
            }
            !goes
        });
    }

    fn get(&self, path: &str) -> Option<Versioned> {
        self.keys.get(path).map(|key| Versioned { value: key.value.to_vec(), version: key.version })
    }

    fn create(
        &mut self,
        session: SessionId,
        mut path: String,
        value: Vec<u8>,
        life: KeyLife,
        changed: &mut Vec<String>,
    ) -> Outcome {
        check(&path, &value)?;
        if life == KeyLife::EphemeralSequential {
            self.sequence += 1;
            path.push_str(&format!("{:010}", self.sequence));
        }
        if self.keys.contains_key(path.as_str()) {
            return Err(CoordinationError::Exists { path });
        }
        self.create_parents(&path, changed)?;
        let owner = (life != KeyLife::Persistent).then_some(session);
        let version = self.write(&path, value.into(), owner, changed);
        Ok(CoordinatorReply::Created { path, version })
    }

    fn create_parents(&mut self, path: &str, changed: &mut Vec<String>) -> Result<(), CoordinationError> {
        for above in ancestors(path) {
            match self.keys.get(above) {
                Some(parent) if parent.owner.is_some() => {
                    return Err(malformed(above, "an ephemeral key cannot have children"));
                }
                Some(_) => {}
                None => drop(self.write(above, Arc::default(), None, changed)),
            }
        }
        Ok(())
    }

    fn set(&mut self, path: String, value: Vec<u8>, version: KeyVersion, changed: &mut Vec<String>) -> Outcome {
        check(&path, &value)?;
        let owner = match self.keys.get(path.as_str()) {
            None => return Err(CoordinationError::Missing { path }),
            Some(key) if key.version != version => return Err(CoordinationError::Conflict { path }),
            Some(key) => key.owner,
        };
        Ok(CoordinatorReply::Set(self.write(&path, value.into(), owner, changed)))
    }

    /// A key with children stays, as in ZooKeeper: somebody was faster to create one.
    fn delete(&mut self, path: String, version: KeyVersion, changed: &mut Vec<String>) -> Outcome {
        match self.keys.get(path.as_str()) {
            None => return Err(CoordinationError::Missing { path }),
            Some(key) if key.version != version => return Err(CoordinationError::Conflict { path }),
            Some(_) if !self.children(&path).is_empty() => return Err(CoordinationError::Conflict { path }),
            Some(key) => self.durable_changes += u64::from(key.owner.is_none()),
        }
        self.keys.remove(path.as_str());
        self.changes += 1;
        changed.push(path);
        Ok(CoordinatorReply::Deleted)
    }

    fn children(&self, path: &str) -> Vec<String> {
        let below = format!("{}/", path.trim_end_matches('/'));
        let from = Bound::Included(below.as_str());
        let inside = self.keys.range::<str, _>((from, Bound::Unbounded)).take_while(|(key, _)| key.starts_with(&below));
        inside.map(|(key, _)| &key[below.len()..]).filter(|name| !name.contains('/')).map(str::to_owned).collect()
    }

    fn write(
        &mut self,
        path: &str,
        value: Arc<[u8]>,
        owner: Option<SessionId>,
        changed: &mut Vec<String>,
    ) -> KeyVersion {
        self.changes += 1;
        self.durable_changes += u64::from(owner.is_none());
        let version = KeyVersion(self.changes);
        self.keys.insert(path.into(), Key { value, version, owner });
        changed.push(path.to_owned());
        version
    }
}
