//! What must never happen, under random reordering, loss, doubling, restarts, wiped disks, complaints, wishes, drained nodes, and a
//! second controller; and that everything heals afterwards.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::world::*;
use super::write_everywhere;
use crate::chain::controller::*;
use crate::chain::peer::ComplaintReason;

/// One random step; `dice` chooses what, `pick` chooses which.
fn stumble(world: &mut World, dice: u8, pick: u16) {
    let nodes = world.nodes.len() as u32;
    let node = u32::from(pick) % nodes + 1;
    match dice {
        0..=3 => world.restart(node, 1 + pick % 3),
        4 => world.stop(node),
        5 if world.may_wipe(NodeId(node)) => world.wipe(node),
        6..=8 => complain(world, pick),
        9 => wish(world, pick),
        10 => drain(world, pick),
        5..=30 => world.write(RangeId(u32::from(pick) % world.chunk.ranges_total)),
        31..=40 => {
            world.now_ms += u64::from(pick) % 3_000;
            (0..world.controllers.len()).for_each(|controller| world.input(controller, Input::Tick));
        }
        _ if world.events.is_empty() => {}
        _ => {
            let event = world.events.remove(usize::from(pick) % world.events.len());
            // Compare-and-sets end exactly once and reads are repeated until they are done; everything else may get lost.
            let is_message = match &event {
                Event::Deliver { .. } => true,
                Event::Tell { input, .. } => matches!(**input, Input::Answered { .. }),
                _ => false,
            };
            match dice {
                41..=60 if is_message => {}
                61..=80 if is_message => {
                    world.events.push(event.clone());
                    world.run(event, false);
                }
                81..=90 => world.run(event, true),
                _ => world.run(event, false),
            }
        }
    }
}

/// A member of an active chain complains about another one, or about its own disk.
fn complain(world: &mut World, pick: u16) {
    let range = RangeId(u32::from(pick) % world.chunk.ranges_total);
    let Some(active) = world.chunk.ranges[range.0 as usize].active.clone() else { return };
    let member = |pick: u16| active.chain[usize::from(pick) % active.chain.len()].node;
    let (by, about) = (member(pick / 4), member(pick / 16));
    let reason = if by == about { ComplaintReason::WriteFailed } else { ComplaintReason::LinkLost };
    let complaint = Complaint { range: RangeKey { ring: RING, range }, epoch: active.epoch, by, about, reason };
    let controller = usize::from(pick) % world.controllers.len();
    world.input(controller, Input::Complaints(vec![complaint]));
}

/// An operator wants a range on the nodes from one on.
fn wish(world: &mut World, pick: u16) {
    let nodes = world.nodes.len() as u16;
    let chain = (0..world.chunk.replication).map(|at| NodeId(u32::from((pick / 4 + at) % nodes) + 1)).collect();
    let range = RangeId(u32::from(pick) % world.chunk.ranges_total);
    let controller = usize::from(pick) % world.controllers.len();
    world.input(controller, Input::Desired { range, nodes: Some(chain) });
}

/// An operator drains some nodes, or none any more.
fn drain(world: &mut World, pick: u16) {
    let nodes = 1..=world.nodes.len() as u32;
    let draining = nodes.filter(|node| pick >> node & 1 == 1).map(NodeId).collect();
    let controller = usize::from(pick) % world.controllers.len();
    world.let_seats_differ();
    world.input(controller, Input::Draining(draining));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Two controllers, messages lost, doubled and reordered, nodes restarting: what was committed stays, an epoch has
    /// one decision, no range log is opened by two shards, sources are survivors, chains keep the floor (all asserted inside the world);
    /// and when the weather clears, one controller makes everything whole, with as many members as there should be.
    #[test]
    fn nothing_is_lost_and_everything_heals(
        replication in 1u16..=3,
        spares in 0usize..=2,
        steps in prop::collection::vec((any::<u8>(), any::<u16>()), 50..600),
    ) {
        let mut world = World::new(replication, 4, &vec![2; usize::from(replication) + spares]);
        world.add_controller();
        world.add_controller();
        for (dice, pick) in steps {
            stumble(&mut world, dice, pick);
        }
        world.controllers.truncate(1);
        world.events.retain(|event| match event {
            Event::Deliver { controller, .. } | Event::Tell { controller, .. } | Event::Cas { controller, .. }
            | Event::Read { controller } => *controller == 0,
        });
        for node in 1..=world.nodes.len() as u32 {
            world.restart(node, 2);
        }
        world.input(0, Input::Draining(BTreeSet::new()));
        world.settle(200_000);
        prop_assert!(world.is_full(), "{} {:?} {}", world.now_ms, world.alerts.last(), world.unwell());
        write_everywhere(&mut world);
    }
}
