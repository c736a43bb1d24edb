//! Numbers for things that are equal: a state of the world is then a handful of numbers, and a step of a machine is done once.
//!
//! Two things are the same when their `Debug` forms hash to the same 128 bits. Numbers are given in the order of first
//! use, so they hold within one process only. Absent: forgetting.

use std::collections::HashMap;
use std::fmt::{self, Debug, Write};
use std::hash::Hash;
use std::sync::{Arc, RwLock};

use xxhash_rust::xxh3::Xxh3Default;

/// Number of an interned thing.
pub type Id = u32;

/// Gives equal things one number.
#[derive(Debug)]
pub struct Interner<T> {
    by_key: RwLock<HashMap<u128, Id>>,
    values: RwLock<Vec<Arc<T>>>,
}

impl<T> Default for Interner<T> {
    fn default() -> Self {
        Self { by_key: RwLock::default(), values: RwLock::default() }
    }
}

impl<T: Debug> Interner<T> {
    /// The number of a thing.
    pub fn id(&self, value: T) -> Id {
        let key = debug_hash(&value);
        if let Some(id) = self.by_key.read().expect("no holder of this lock panics").get(&key) {
            return *id;
        }
        let mut by_key = self.by_key.write().expect("no holder of this lock panics");
        let mut values = self.values.write().expect("no holder of this lock panics");
        *by_key.entry(key).or_insert_with(|| {
            values.push(Arc::new(value));
            (values.len() - 1) as Id
        })
    }

    /// The thing of a number.
    pub fn get(&self, id: Id) -> Arc<T> {
        Arc::clone(&self.values.read().expect("no holder of this lock panics")[id as usize])
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.values.read().expect("no holder of this lock panics").len()
    }
}

/// A function that is computed once for each argument.
#[derive(Debug)]
pub struct Memo<K, V> {
    shards: Vec<RwLock<HashMap<K, Arc<V>>>>,
}

impl<K, V> Default for Memo<K, V> {
    fn default() -> Self {
        Self { shards: (0..16).map(|_| RwLock::default()).collect() }
    }
}

impl<K: Hash + Eq, V> Memo<K, V> {
    /// The value at `key`, computed when it is asked for the first time. Two threads may both compute it: the first wins.
    pub fn get(&self, key: K, shard: usize, compute: impl FnOnce() -> V) -> Arc<V> {
        let shard = &self.shards[shard % self.shards.len()];
        if let Some(value) = shard.read().expect("no holder of this lock panics").get(&key) {
            return Arc::clone(value);
        }
        let value = Arc::new(compute());
        let mut shard = shard.write().expect("no holder of this lock panics");
        Arc::clone(shard.entry(key).or_insert(value))
    }
}

/// Hashes what `Debug` writes without keeping it.
fn debug_hash(value: &impl Debug) -> u128 {
    struct Sink(Xxh3Default);
    impl Write for Sink {
        fn write_str(&mut self, text: &str) -> fmt::Result {
            self.0.update(text.as_bytes());
            Ok(())
        }
    }
    let mut sink = Sink(Xxh3Default::new());
    // The sink takes everything.
    let _ = write!(sink, "{value:?}");
    sink.0.digest128()
}
