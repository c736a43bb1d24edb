//! What operators do, and what goes wrong when they do it.

use crate::chaos::{Needs, Scenario};

/// Members of a chain.
const MEMBERS: usize = 3;

pub(super) const ROLLING_RESTART: Scenario = Scenario {
    name: "rolling-restart",
    promise: "each broker is stopped in order and started again, one after the other: nothing is lost, and no write fails",
    brokers: 3,
    needs: Needs::Processes,
    run: |world| {
        for _ in 0..world.rounds(1, 3) {
            for broker in 1..=3 {
                world.stop(broker)?;
                world.await_write(0)?;
                world.start_brokers(&[broker])?;
                world.await_chains(MEMBERS, &[])?;
            }
        }
        Ok(())
    },
};

pub(super) const DUPLICATE_NODE: Scenario = Scenario {
    name: "duplicate-node",
    promise: "a second process with a disk of its own claims to be a node that is alive: it waits, gives up and says why, and \
              nobody notices",
    brokers: 3,
    needs: Needs::Processes,
    run: |world| {
        let impostor = world.add_impostor(1)?;
        world.await_write(0)?;
        world.await_end_of(impostor)?;
        world.await_chains(MEMBERS, &[])?;
        world.forget(impostor)
    },
};

pub(super) const WIPED_DISK: Scenario = Scenario {
    name: "wiped-disk",
    promise: "a broker comes back under its old node id with an empty disk: it is a learner, and is filled from the others",
    brokers: 3,
    needs: Needs::Processes,
    run: |world| {
        for _ in 0..world.rounds(1, 3) {
            let victim = world.chain(0)?[1];
            world.kill(&[victim])?;
            world.wipe(victim)?;
            world.start_brokers(&[victim])?;
            world.await_writes()?;
            world.await_chains(MEMBERS, &[])?;
        }
        Ok(())
    },
};
