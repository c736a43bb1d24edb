//! The operator: wants ranges on other nodes, in the middle of everything that goes wrong (R7).
//!
//! A wish may name anybody: the dead, those who do not exist, one node twice, too few or too many. The machine must do no
//! harm with any of them. Once the world is healed, every range must be where it is wished to be, if that is possible,
//! and whole anyhow. Absent: racks and balance, which are the proposal's and proved where it lives (`core::ring`).

use minikafka_core::chain::controller::{Input, min_in_sync};
use minikafka_core::{NodeId, RangeId};

use crate::plan::Plan;
use crate::queue::SECOND;
use crate::world::{Event, World};

impl World {
    /// The operator changes their mind about a range.
    pub fn wish(&mut self) {
        if self.random.one_in(5) {
            return self.drain();
        }
        let range = RangeId(self.random.below(self.plan.ranges.into()) as u32);
        let nodes = if self.random.one_in(5) { None } else { Some(self.draw_nodes()) };
        let words = nodes.iter().flatten().fold(0, |all, node| all << 8 | u64::from(node.0));
        self.note("wish", [range.0.into(), nodes.is_some().into(), 0, words]);
        match &nodes {
            Some(nodes) => drop(self.wishes.insert(range, nodes.clone())),
            None => drop(self.wishes.remove(&range)),
        }
        self.tell_wish(range, nodes);
    }

    /// The operator drains one node, perhaps all of them one after the other, or none any more.
    fn drain(&mut self) {
        match self.random.one_in(3) {
            true => self.draining.clear(),
            false => {
                let node = self.random.below(self.nodes.len() as u64) as usize;
                self.draining.insert(self.nodes[node].id);
            }
        }
        self.note("drain", [self.draining.len() as u64, 0, 0, 0]);
        self.tell_draining();
    }

    /// Tells whoever controls, at their own time.
    pub fn tell_draining(&mut self) {
        for controller in self.controllers.keys().copied().collect::<Vec<_>>() {
            let at = self.queue.now() + self.plan.delay(&mut self.random);
            let input = Box::new(Input::Draining(self.draining.clone()));
            self.queue.add(at, Event::ToController { controller, input });
        }
    }

    /// Mostly a chain as it should be, of anybody; now and then nonsense.
    fn draw_nodes(&mut self) -> Vec<NodeId> {
        let mut nodes: Vec<NodeId> = self.nodes.iter().map(|node| node.id).collect();
        for at in (1..nodes.len()).rev() {
            nodes.swap(at, self.random.below(at as u64 + 1) as usize);
        }
        let size = match self.random.below(8) {
            0 => self.random.below(nodes.len() as u64 + 1) as usize,
            _ => usize::from(self.plan.replication).min(nodes.len()),
        };
        nodes.truncate(size);
        if size > 0 && self.random.one_in(12) {
            nodes[0] = if self.random.one_in(2) { nodes[size - 1] } else { NodeId(99) };
        }
        nodes
    }

    /// Tells whoever controls, at their own time.
    pub fn tell_wish(&mut self, range: RangeId, nodes: Option<Vec<NodeId>>) {
        for controller in self.controllers.keys().copied().collect::<Vec<_>>() {
            let at = self.queue.now() + self.plan.delay(&mut self.random);
            let input = Box::new(Input::Desired { range, nodes: nodes.clone() });
            self.queue.add(at, Event::ToController { controller, input });
        }
    }

    /// The world is healed: of the wishes that can be fulfilled some stand, the others are forgotten. No node is drained any
    /// more, so that there are enough.
    pub fn wish_again(&mut self) {
        if !std::mem::take(&mut self.draining).is_empty() {
            self.tell_draining();
        }
        let wishes = std::mem::take(&mut self.wishes);
        for (range, nodes) in wishes {
            if self.is_possible(&nodes) && self.random.one_in(2) {
                self.wishes.insert(range, nodes.clone());
                let at = self.queue.now() + Plan::around(&mut self.random, SECOND);
                for controller in self.controllers.keys().copied().collect::<Vec<_>>() {
                    let input = Box::new(Input::Desired { range, nodes: Some(nodes.clone()) });
                    self.queue.add(at, Event::ToController { controller, input });
                }
            }
        }
    }

    fn is_possible(&self, nodes: &[NodeId]) -> bool {
        let sizes = min_in_sync(self.plan.replication)..=usize::from(self.plan.replication);
        let is_distinct = nodes.iter().enumerate().all(|(at, node)| !nodes[..at].contains(node));
        is_distinct && sizes.contains(&nodes.len()) && nodes.iter().all(|node| self.nodes.iter().any(|n| n.id == *node))
    }
}
