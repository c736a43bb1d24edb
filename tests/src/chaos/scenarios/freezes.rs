//! Brokers stand still (SIGSTOP): no connection breaks, and nothing is heard.

use std::time::Duration;

use crate::chaos::world::SESSION_TIMEOUT;
use crate::chaos::{Needs, Scenario};

/// Members of a chain.
const MEMBERS: usize = 3;

pub(super) const HEAD: Scenario = Scenario {
    name: "freeze-head",
    promise: "a head stands still for longer than its session and goes on: its chain goes on without it, and what it believes \
              when it wakes harms nobody",
    brokers: 3,
    needs: Needs::Processes,
    run: |world| {
        for _ in 0..world.rounds(1, 3) {
            let head = world.chain(0)?[0];
            world.pause(head)?;
            world.await_write(0)?;
            world.await_chains(MEMBERS - 1, &[head])?;
            world.last(SESSION_TIMEOUT + Duration::from_secs(1))?;
            world.resume(head)?;
            world.await_chains(MEMBERS, &[])?;
        }
        Ok(())
    },
};

pub(super) const FLAPPING: Scenario = Scenario {
    name: "flapping",
    promise: "a broker stands still again and again, each time for less than its session: nothing acknowledged is lost, and \
              writes go on between and after",
    brokers: 3,
    needs: Needs::Processes,
    run: |world| {
        let victim = world.chain(0)?[0];
        for _ in 0..world.rounds(4, 12) {
            world.pause(victim)?;
            world.last(Duration::from_millis(600))?;
            world.resume(victim)?;
            world.last(Duration::from_millis(400))?;
        }
        for partition in [0, 1] {
            world.await_write(partition)?;
        }
        Ok(())
    },
};
