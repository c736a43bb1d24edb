//! A node joins and gets its share, and dies on the way, or those die that it copies from.

use anyhow::{Result, ensure};

use crate::chaos::{Needs, Scenario, World};

/// Members of a chain.
const MEMBERS: usize = 3;
/// The new node's link while ranges move, so that there is a way to die on.
const RATE: &str = "40mbit";

/// Who dies.
#[derive(Clone, Copy, Debug)]
enum Side {
    New,
    Old,
}

pub(super) const NODE_ADDED: Scenario = Scenario {
    name: "node-added",
    promise: "a broker joins the cluster, and one of the old ones dies for good: the new one is filled while writes go on, and \
              takes its place in all chains",
    brokers: 3,
    needs: Needs::Processes,
    run: |world| {
        let added = world.add()?;
        world.await_write(0)?;
        let victim = world.chain(0)?[0];
        world.kill(&[victim])?;
        world.await_writes()?;
        world.wait_for_chains("the new broker is in every chain, the dead one in none", |chains| {
            chains.iter().all(|chain| chain.len() == MEMBERS && chain.contains(&added) && !chain.contains(&victim))
        })?;
        world.say("the new broker has taken the dead one's place");
        world.at_work()
    },
};

pub(super) const NODE_ADDED_AMID_DEATHS: Scenario = Scenario {
    name: "node-added-amid-deaths",
    promise: "a broker joins and ranges are moved to it; at every step of that it dies, or one that it copies from does: writes go \
              on, the operation is carried to its end, nothing acknowledged is lost",
    brokers: 3,
    needs: Needs::Links,
    run: |world| {
        let added = world.add()?;
        world.slow_link(added, RATE)?;
        let operation = world.begin(&["rebalance", "--at-once", "8"])?;
        let steps = world.rounds(2, 8);
        for step in 0..steps {
            // From "nothing is moved yet" to "all but the last".
            let due = operation.ranges * u64::from(step) / u64::from(steps);
            world.await_moved(operation.number, due)?;
            let side = if step % 2 == 0 { Side::New } else { Side::Old };
            one_dies(world, side, added)?;
        }
        world.heal()?;
        world.await_moved(operation.number, operation.ranges)?;
        let chains = world.chains()?;
        ensure!(chains.iter().all(|chain| chain.len() == MEMBERS), "chains are whole: {chains:?}");
        world.at_work()
    },
};

fn one_dies(world: &mut World, side: Side, added: u8) -> Result<()> {
    let victim = match side {
        Side::New => added,
        Side::Old => world.chain(0)?.into_iter().find(|&node| node != added).unwrap_or(1),
    };
    world.kill(&[victim])?;
    world.await_writes()?;
    world.start_brokers(&[victim])
}
