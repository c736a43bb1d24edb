//! Brokers die by SIGKILL, alone, together, and with their disk.

use rand::Rng;

use crate::chaos::{Needs, Scenario, World};

/// Members of a chain.
const MEMBERS: usize = 3;

pub(super) const EACH: Scenario = Scenario {
    name: "kill-each",
    promise: "head, middle and tail of a chain die in turn, again and again: nothing acknowledged is lost, and writes resume \
              by themselves while the member is dead",
    brokers: 3,
    needs: Needs::Processes,
    run: |world| {
        for round in 0..world.rounds(1, 4) {
            for place in 0..MEMBERS {
                world.say(&format!("round {round}, place {place} of partition 0's chain"));
                let victim = world.chain(0)?[place];
                world.kill(&[victim])?;
                world.await_writes()?;
                world.at_work()?;
                world.start_brokers(&[victim])?;
                world.await_chains(MEMBERS, &[])?;
            }
        }
        Ok(())
    },
};

pub(super) const ALL_AT_ONCE: Scenario = Scenario {
    name: "kill-all",
    promise: "all three members die at the same moment and are started again: nothing acknowledged is lost, nothing is to be \
              done but to start them",
    brokers: 3,
    needs: Needs::Processes,
    run: |world| {
        for _ in 0..world.rounds(1, 4) {
            world.at_work()?;
            world.kill(&[1, 2, 3])?;
            world.start_brokers(&[1, 2, 3])?;
            world.await_writes()?;
            world.await_chains(MEMBERS, &[])?;
        }
        Ok(())
    },
};

pub(super) const TWO_AND_A_DISK: Scenario = Scenario {
    name: "kill-two-wipe-one",
    promise: "two of a chain of three die at the same moment, one of them loses its disk, a fourth broker is spare: reads go \
              on, writes resume by themselves with the survivor and the spare, nothing acknowledged is lost",
    brokers: 4,
    needs: Needs::Processes,
    run: |world| {
        for _ in 0..world.rounds(1, 3) {
            world.await_chains(MEMBERS, &[])?;
            let chain = world.chain(0)?;
            let (first, second) = (chain[world.random.random_range(0..2)], chain[2]);
            world.kill(&[first, second])?;
            world.wipe(second)?;
            world.await_writes()?;
            world.at_work()?;
            world.start_brokers(&[first, second])?;
            world.await_chains(MEMBERS, &[])?;
        }
        Ok(())
    },
};

pub(super) const AT_RANDOM: Scenario = Scenario {
    name: "kill-at-random",
    promise: "brokers die at random moments, also while others come back: nothing acknowledged is lost, whenever two of three \
              are there writes resume",
    brokers: 3,
    needs: Needs::Processes,
    run: |world| {
        for _ in 0..world.rounds(3, 15) {
            let (first, second) = two_brokers(world);
            world.kill(&[first])?;
            if world.random.random_ratio(1, 2) {
                world.await_writes()?;
            }
            let pause = std::time::Duration::from_millis(world.random.random_range(0..500));
            world.last(pause)?;
            world.start_brokers(&[first])?;
            if world.random.random_ratio(1, 3) {
                // Perhaps before the first one is back in its chains.
                world.kill(&[second])?;
                world.start_brokers(&[second])?;
            }
            world.await_writes()?;
        }
        Ok(())
    },
};

fn two_brokers(world: &mut World) -> (u8, u8) {
    let first = world.random.random_range(1..=3);
    (first, first % 3 + 1)
}
