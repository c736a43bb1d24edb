//! The world as the checker sees it: nodes by number, messages in flight, the record, every attempt at an epoch.
//!
//! There is no controller process here. Each epoch that was ever claimed is an attempt, and every attempt goes on for ever:
//! whatever the rules let its controller do, it may do at any time, in any order, as often as it likes, also long after
//! another took over. So there are as many controllers as epochs, all but one of them stale, and a message of theirs
//! that is delivered late, twice or never is one that is sent late, twice or never.

use crate::control::Control;
use crate::entries::NO_ENTRY;
use crate::intern::Id;

/// Nodes, at most.
pub const NODES_MAX: usize = 4;
/// Epochs, at most.
pub const EPOCHS_MAX: usize = 5;
/// Stands for "none" in place of a number.
pub const NONE: Id = Id::MAX;

/// A state.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct World {
    /// The nodes, by number of their state.
    pub nodes: [Id; NODES_MAX],
    /// Messages between members: from, to, which. In the order of their sending.
    pub links: Vec<(u8, u8, Id)>,
    /// The attempts, epoch 1 first.
    pub attempts: [Attempt; EPOCHS_MAX],
    /// The highest epoch claimed.
    pub claimed: u8,
    /// The record's pending epoch; 0: none.
    pub pending: u8,
    /// The record's active epoch.
    pub active: u8,
    /// The longest log that was ever committed.
    pub ledger: Id,
    /// What was spent.
    pub spent: Spent,
    /// Shipping controllers, if the case has any.
    pub control: Option<Box<Control>>,
    /// Which property does not hold, by its place in [`crate::model::PROMISES`]; 0: all hold.
    pub broken: u8,
}

/// One claimed epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Attempt {
    /// Newest seal reports, by node.
    pub reports: [Id; NODES_MAX],
    /// The decision.
    pub decision: Id,
    /// Which places of its chain replied to reconcile.
    pub done: u8,
    /// Whether the record named it once.
    pub activated: bool,
}

impl Attempt {
    /// Nothing was done.
    pub const NEW: Self = Self { reports: [NONE; NODES_MAX], decision: NONE, done: 0, activated: false };
}

/// What of the case's budgets was spent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Spent {
    /// See [`crate::case::Case`].
    pub batches: u8,
    /// Batches sent again.
    pub resends: u8,
    /// See there.
    pub crashes: u8,
    /// See there.
    pub wipes: u8,
    /// See there.
    pub losses: u8,
    /// See there.
    pub breaks: u8,
    /// See there.
    pub tick_bursts: u8,
    /// See there.
    pub write_failures: u8,
}

impl World {
    /// Nodes with these states, and nothing else.
    pub const fn new(nodes: [Id; NODES_MAX]) -> Self {
        Self {
            nodes,
            links: Vec::new(),
            attempts: [Attempt::NEW; EPOCHS_MAX],
            claimed: 1,
            pending: 0,
            active: 1,
            ledger: NO_ENTRY,
            spent: Spent {
                batches: 0,
                resends: 0,
                crashes: 0,
                wipes: 0,
                losses: 0,
                breaks: 0,
                tick_bursts: 0,
                write_failures: 0,
            },
            control: None,
            broken: 0,
        }
    }

    /// The attempt at an epoch.
    pub const fn attempt(&self, epoch: u8) -> &Attempt {
        &self.attempts[epoch as usize - 1]
    }

    /// The attempt at an epoch.
    pub const fn attempt_mut(&mut self, epoch: u8) -> &mut Attempt {
        &mut self.attempts[epoch as usize - 1]
    }

    /// The epoch that was active when `epoch` was claimed. While its claim stands none other becomes active (R5f), so this
    /// is what its controller read.
    pub fn active_before(&self, epoch: u8) -> u8 {
        (1..epoch).rev().find(|earlier| self.attempt(*earlier).activated).unwrap_or(0)
    }
}
