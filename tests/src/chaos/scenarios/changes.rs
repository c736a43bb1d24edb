//! What operators do, and what goes wrong when they do it.

use crate::chaos::{Needs, Scenario};

/// Members of a chain.
const MEMBERS: usize = 3;

pub(super) const ROLLING_RESTART: Scenario = Scenario {
    name: "rolling-restart",
    promise: "`minikafka cluster restart` of each broker, one after the other: nothing is lost, no write fails, and every range \
              has all its members again before the next one goes",
    brokers: 3,
    needs: Needs::Processes,
    run: |world| {
        for _ in 0..world.rounds(1, 3) {
            for broker in 1..=3 {
                world.restart(broker, &[])?;
                world.at_work()?;
            }
        }
        Ok(())
    },
};

pub(super) const ROLLING_RESTART_DRAINED: Scenario = Scenario {
    name: "rolling-restart-drained",
    promise: "the same with `--drain`, on a node more than ranges have copies: each broker gives its ranges away before it is \
              restarted and gets its share afterwards",
    brokers: 4,
    needs: Needs::Processes,
    run: |world| {
        for broker in 1..=world.rounds(1, 4) as u8 {
            world.restart(broker, &["--drain", "--at-once", "256"])?;
            world.at_work()?;
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
