//! A configuration to check: how many of everything, and how fine the steps are.

use crate::node::DiskSteps;

/// What is checked. Budgets are for a whole run; what is not named here is unbounded: delays, losses and duplicates of
/// the controller's messages, their order, and how many controllers there are.
#[derive(Clone, Debug)]
pub struct Case {
    /// Its name.
    pub name: &'static str,
    /// Nodes there are.
    pub nodes: usize,
    /// How many of them are the chain of epoch 1.
    pub chain: usize,
    /// Members of a chain, at most.
    pub replication: usize,
    /// Members of a chain, at least (R9).
    pub floor: usize,
    /// The last epoch that is claimed.
    pub epochs: usize,
    /// Batches that clients send.
    pub batches: u32,
    /// Processes killed.
    pub crashes: u8,
    /// Disks wiped.
    pub wipes: u8,
    /// Logs lost.
    pub losses: u8,
    /// Connections that break.
    pub breaks: u8,
    /// Times at which one node sees `ticks` pass.
    pub tick_bursts: u8,
    /// How many, each time.
    pub ticks: u32,
    /// Durable writes that fail.
    pub write_failures: u8,
    /// Whether nodes are told to learn in the background.
    pub learn: bool,
    /// Whether a batch may be sent again, by a producer that counts (R2).
    pub idempotent: bool,
    /// Whether new chains are proposed in both orders of their nodes, or only in one.
    pub both_orders: bool,
    /// How fine the disk is.
    pub disk: DiskSteps,
    /// Whether copies, and the words that open a stream, arrive at once; entries and acknowledgements never do.
    pub quick: bool,
    /// Shipping controllers; 0: every controller that the rules allow.
    pub controllers: usize,
    /// Deadlines that pass at each of those.
    pub deadlines: u8,
    /// Outcomes of their compare-and-sets that are lost.
    pub unknowns: u8,
    /// The rule that is left out, to see that it is needed.
    pub without: Option<Rule>,
}

/// Clauses of `docs/REPLICATION.md` that only the controller can break.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// R5c: only a survivor is the source.
    OnlySurvivors,
    /// R5c: the longest survivor is the source.
    Longest,
    /// R5d: one epoch, one decision.
    OneDecision,
    /// R5f: the record changes when all have replied.
    AllReplied,
    /// R5f: the record changes only while `pending` is one's own.
    OwnPending,
    /// R5b, R7: whoever is decided about was sealed in that epoch.
    SealedFirst,
    /// R9, R10: members act only under what the record says.
    RecordFirst,
}

impl Case {
    /// A chain of one on one node: nothing goes wrong yet.
    pub const fn alone(name: &'static str) -> Self {
        Self {
            name,
            nodes: 1,
            chain: 1,
            replication: 1,
            floor: 1,
            epochs: 3,
            batches: 2,
            crashes: 0,
            wipes: 0,
            losses: 0,
            breaks: 0,
            tick_bursts: 0,
            ticks: 0,
            write_failures: 0,
            learn: false,
            idempotent: false,
            both_orders: false,
            disk: DiskSteps::All,
            quick: false,
            controllers: 0,
            deadlines: 0,
            unknowns: 0,
            without: None,
        }
    }
}
