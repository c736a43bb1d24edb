//! What becomes of one request, measured for a client that asked (`docs/PROTOCOL.md`, "Explain").
//!
//! A [`Trace`] is begun where the request arrives and shared by all who work on it; at the end it becomes a [`Hop`]. Times
//! are passed in. Absent: any part in what is measured; a request without a trace is served the same way.

use std::cell::{Cell, RefCell};

use minikafka_core::chain::ChainMember;
use minikafka_core::limits::{CHAIN_MAX, EXPLAIN_STAGES_MAX};
use minikafka_core::wire::{Explanation, Hop, Stage, StageSpan};

/// The stages of one request at this shard, and what those behind it told.
#[derive(Debug)]
pub struct Trace {
    began_ns: u64,
    /// When the last stage ended that is over.
    ended_ns: Cell<u64>,
    appended_ns: Cell<u64>,
    spans: RefCell<Vec<Span>>,
    behind: RefCell<Vec<Hop>>,
}

#[derive(Clone, Copy, Debug)]
struct Span {
    stage: Stage,
    start_ns: u64,
    took_ns: u64,
}

impl Trace {
    /// The request is here.
    pub fn begin(now_ns: u64) -> Self {
        Self {
            began_ns: now_ns,
            ended_ns: Cell::new(now_ns),
            appended_ns: Cell::new(now_ns),
            spans: RefCell::default(),
            behind: RefCell::default(),
        }
    }

    /// The stage is over that began when the one before it was.
    pub fn ended(&self, stage: Stage, now_ns: u64) {
        self.add(stage, self.ended_ns.get(), now_ns);
    }

    /// The log has it: durable and successor begin.
    pub(crate) fn appended(&self, now_ns: u64) {
        self.ended(Stage::Append, now_ns);
        self.appended_ns.set(now_ns);
    }

    /// A stage is over that began with the append.
    pub(crate) fn ended_since_append(&self, stage: Stage, now_ns: u64) {
        self.add(stage, self.appended_ns.get(), now_ns);
    }

    pub(crate) fn has(&self, stage: Stage) -> bool {
        self.spans.borrow().iter().any(|span| span.stage == stage)
    }

    /// What the members behind this one told.
    pub(crate) fn set_behind(&self, mut hops: Vec<Hop>) {
        hops.truncate(CHAIN_MAX - 1);
        self.behind.replace(hops);
    }

    pub(crate) fn has_behind(&self) -> bool {
        !self.behind.borrow().is_empty()
    }

    /// This hop, which ends now, and those behind it.
    pub fn hops(&self, me: ChainMember, now_ns: u64) -> Vec<Hop> {
        let us = |ns: u64| u32::try_from(ns.saturating_sub(self.began_ns) / 1_000).unwrap_or(u32::MAX);
        // Both ends are rounded the same way, so that no stage ends after its hop.
        let told = |span: &Span| {
            let start_us = us(span.start_ns);
            let took_us = us(span.start_ns.saturating_add(span.took_ns)) - start_us;
            StageSpan { stage: span.stage, start_us, took_us }
        };
        let stages = self.spans.borrow().iter().map(told).collect();
        let whole_us = us(now_ns.max(self.ended_ns.get()));
        let hop = Hop { node: me.node, shard: me.shard, whole_us, stages };
        [vec![hop], self.behind.borrow().clone()].concat()
    }

    /// The same, for who asked.
    pub fn explanation(&self, me: ChainMember, now_ns: u64) -> Explanation {
        Explanation { hops: self.hops(me, now_ns) }
    }

    /// When there are many already, a stage that comes again is added to the last one of its kind, from whose beginning it
    /// is then counted.
    fn add(&self, stage: Stage, start_ns: u64, now_ns: u64) {
        let took_ns = now_ns.saturating_sub(start_ns);
        self.ended_ns.set(self.ended_ns.get().max(now_ns));
        let mut spans = self.spans.borrow_mut();
        if spans.len() < EXPLAIN_STAGES_MAX {
            spans.push(Span { stage, start_ns, took_ns });
        } else if let Some(last) = spans.iter_mut().rev().find(|span| span.stage == stage) {
            last.took_ns += took_ns;
        }
    }
}

#[cfg(test)]
mod tests {
    use minikafka_core::wire::Wire;
    use minikafka_core::{Incarnation, NodeId, ShardId, StoreId};

    use super::*;

    const ME: ChainMember =
        ChainMember { node: NodeId(1), shard: ShardId(2), store: StoreId(3), incarnation: Incarnation(4) };

    fn hop(trace: &Trace, now_ns: u64) -> Hop {
        let explanation = trace.explanation(ME, now_ns);
        let taken = Explanation::from_bytes(&explanation.to_bytes());
        assert_eq!(taken.as_ref(), Ok(&explanation), "what is told is what every reader takes");
        explanation.hops.into_iter().next().expect("its own")
    }

    #[test]
    fn durable_and_successor_begin_with_the_append() {
        let trace = Trace::begin(1_000_500);
        trace.ended(Stage::Receive, 1_010_400);
        trace.appended(1_020_300);
        trace.ended_since_append(Stage::Successor, 1_900_000);
        trace.ended_since_append(Stage::Durable, 1_520_999);
        trace.ended(Stage::Answer, 1_901_600);
        let hop = hop(&trace, 1_901_600);
        let spans: Vec<_> = hop.stages.iter().map(|span| (span.stage, span.start_us, span.took_us)).collect();
        let expected = [
            (Stage::Receive, 0, 9),
            (Stage::Append, 9, 10),
            (Stage::Successor, 19, 880),
            (Stage::Durable, 19, 501),
            (Stage::Answer, 899, 2),
        ];
        assert_eq!((&spans[..], hop.whole_us), (&expected[..], 901));
        assert!(trace.has(Stage::Durable) && !trace.has(Stage::Checksum));
    }

    #[test]
    fn many_rounds_are_bounded_and_none_is_lost() {
        let trace = Trace::begin(0);
        for round in 0..100 {
            trace.ended(Stage::Read, round * 10_000 + 1_000);
            trace.ended(Stage::Wait, round * 10_000 + 10_000);
        }
        let hop = hop(&trace, 1_000_000);
        assert_eq!(hop.stages.len(), EXPLAIN_STAGES_MAX);
        assert_eq!((hop.took_us(Stage::Read), hop.took_us(Stage::Wait), hop.whole_us), (Some(100), Some(900), 1_000));
    }

    #[test]
    fn more_hops_than_a_chain_has_are_not_told() {
        let trace = Trace::begin(0);
        trace.set_behind(vec![Hop::untold(NodeId(2), ShardId(0)); CHAIN_MAX]);
        assert_eq!(trace.explanation(ME, 0).hops.len(), CHAIN_MAX);
    }
}
