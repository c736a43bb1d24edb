//! What all connections of a shard share: configuration, counters, spare buffers, and the sweep that is their clock.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::rc::Rc;

use minikafka_core::limits;

use crate::buffer_pool::BufferPool;
use crate::connection_state::ConnectionState;
use crate::deadline::SweepCounts;
use crate::log_gate::LogGate;
use crate::server::ServerConfig;
use crate::stats::NetStats;

/// Shared by the connections of one shard, on one executor.
pub(crate) struct ShardNet {
    pub(crate) config: ServerConfig,
    pub(crate) sweeps: SweepCounts,
    pub(crate) stats: Rc<NetStats>,
    pub(crate) pool: BufferPool,
    pub(crate) log: LogGate,
    /// Heads of replies are encoded here first, because the frame header in front of them holds their checksum.
    pub(crate) scratch: RefCell<Vec<u8>>,
    now: Cell<u64>,
    connections: RefCell<Slots>,
}

/// Open connections by slot; free slots are used again.
#[derive(Default)]
struct Slots {
    slots: Vec<Option<Rc<ConnectionState>>>,
    free: Vec<usize>,
}

impl ShardNet {
    pub(crate) fn new(mut config: ServerConfig) -> Rc<Self> {
        // What a hello tells is what is enforced.
        config.identity.in_flight_max = config.in_flight_max;
        config.identity.idle_deadline_ms = config.deadlines.idle.as_millis() as u64;
        Rc::new(Self {
            sweeps: SweepCounts::from(config.deadlines),
            config,
            stats: Rc::default(),
            pool: BufferPool::default(),
            log: LogGate::new(limits::CONNECTION_LOG_LINES_PER_SECOND_MAX),
            scratch: RefCell::default(),
            now: Cell::new(0),
            connections: RefCell::default(),
        })
    }

    /// Sweeps since the start.
    pub(crate) fn now(&self) -> u64 {
        self.now.get()
    }

    pub(crate) fn connections_open(&self) -> usize {
        let connections = self.connections.borrow();
        connections.slots.len() - connections.free.len()
    }

    /// Registers a connection until the guard is dropped.
    pub(crate) fn register(self: &Rc<Self>, connection: &Rc<ConnectionState>) -> Registration {
        let mut connections = self.connections.borrow_mut();
        let slot = connections.free.pop().unwrap_or_else(|| {
            connections.slots.push(None);
            connections.slots.len() - 1
        });
        connections.slots[slot] = Some(Rc::clone(connection));
        self.stats.connection_opened();
        Registration { net: Rc::clone(self), slot }
    }

    /// One step of the clock: whatever is overdue ends.
    pub(crate) fn sweep(&self) {
        let now = self.now.get() + 1;
        self.now.set(now);
        self.for_each(|connection| connection.end_if_overdue(now));
    }

    /// Begins another second of log lines.
    pub(crate) fn refill_log(&self) {
        let suppressed = self.log.refill();
        if suppressed > 0 {
            self.stats.log_lines_suppressed.add(suppressed as usize);
            tracing::warn!(suppressed, "more connection events than the log takes per second; see the metrics");
        }
    }

    pub(crate) fn for_each(&self, mut visit: impl FnMut(&ConnectionState)) {
        let mut at = 0;
        loop {
            // One at a time, so that a visited connection may end, or another one come, meanwhile.
            let connection = match self.connections.borrow().slots.get(at) {
                None => return,
                Some(slot) => slot.clone(),
            };
            at += 1;
            if let Some(connection) = connection {
                visit(&connection);
            }
        }
    }
}

impl fmt::Debug for ShardNet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ShardNet").field("stats", &self.stats).finish_non_exhaustive()
    }
}

/// Keeps a connection in the sweep.
pub(crate) struct Registration {
    net: Rc<ShardNet>,
    slot: usize,
}

impl Drop for Registration {
    fn drop(&mut self) {
        let mut connections = self.net.connections.borrow_mut();
        let connection = connections.slots[self.slot].take();
        connections.free.push(self.slot);
        drop(connections);
        drop(connection);
        self.net.stats.connection_closed();
    }
}
