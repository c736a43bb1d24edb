//! Disks rot, fill up, and become slow, under brokers that are alive or dead.

use std::time::Duration;

use anyhow::Result;

use crate::chaos::{Needs, Scenario, World};
use crate::rot::Share;

/// Members of a chain.
const MEMBERS: usize = 3;
/// What is there before it rots.
const RECORDS: u64 = 3_000;
/// Bits that flip in each range's log, each time.
const FLIPS: usize = 4;
/// A disk that is slow: some tens of durable writes a second.
const SLOW_BYTES_PER_SECOND: u64 = 200_000;

pub(super) const ROT_ONE: Scenario = Scenario {
    name: "rot-one",
    promise: "bits flip and blocks change places in the files of one member, while it is dead and while it is alive: it is mended from \
              the others, nothing is cut away, and no reader sees anything wrong",
    brokers: 3,
    needs: Needs::Processes,
    run: |world| {
        for round in 0..world.rounds(1, 3) as usize {
            world.work(RECORDS)?;
            let victim = world.chain(0)?[round % MEMBERS];
            world.kill(&[victim])?;
            world.await_writes()?;
            rot(world, &[victim])?;
            world.start_brokers(&[victim])?;
            world.await_mended()?;
            world.await_chains(MEMBERS, &[])?;
            rot(world, &[victim])?;
            world.await_mended()?;
        }
        Ok(())
    },
};

pub(super) const ROT_ALL: Scenario = Scenario {
    name: "rot-all",
    promise: "bits flip and blocks change places on all members, in different entries, while all are dead and while all are alive: \
              they mend each other, and nothing acknowledged is lost",
    brokers: 3,
    needs: Needs::Processes,
    run: |world| {
        let all = [1, 2, 3];
        for _ in 0..world.rounds(1, 3) {
            world.work(RECORDS)?;
            world.kill(&all)?;
            rot(world, &all)?;
            world.start_brokers(&all)?;
            world.await_writes()?;
            world.await_mended()?;
            world.await_chains(MEMBERS, &[])?;
            rot(world, &all)?;
            world.await_mended()?;
            world.await_write(0)?;
        }
        Ok(())
    },
};

pub(super) const SLOW_DISK: Scenario = Scenario {
    name: "slow-disk",
    promise: "one member's disk becomes very slow: clients slow down, or its chains go on without it, and nothing acknowledged is \
              lost",
    brokers: 3,
    needs: Needs::SlowDisks,
    run: |world| {
        for place in 0..world.rounds(1, 3) as usize {
            let victim = world.chain(0)?[place];
            world.slow_disk(victim, SLOW_BYTES_PER_SECOND)?;
            for _ in 0..world.rounds(1, 3) {
                world.last(Duration::from_secs(4))?;
                world.await_write(0)?;
            }
            world.heal()?;
            world.await_chains(MEMBERS, &[])?;
            world.at_work()?;
        }
        Ok(())
    },
};

pub(super) const FULL_DISK: Scenario = Scenario {
    name: "full-disk",
    promise: "one member's disk is full: chains that it does not head go on without it, those that it heads refuse writes and serve \
              reads; once there is space all take writes by themselves",
    brokers: 3,
    needs: Needs::SmallDisks,
    run: |world| {
        let victim = world.chain(0)?[1];
        world.kill(&[victim])?;
        world.change_to_small_disk(victim)?;
        world.start_brokers(&[victim])?;
        world.await_chains(MEMBERS, &[])?;
        world.fill_disk(victim)?;
        let chains = world.chains()?;
        world.await_log(victim, "disk_full")?;
        world.await_reads(500)?;
        for (partition, _) in (0..).zip(&chains).filter(|(_, chain)| chain[0] != victim) {
            world.await_write(partition)?;
        }
        world.free_disk(victim)?;
        for partition in 0..chains.len() as u32 {
            world.await_write(partition)?;
        }
        world.await_chains(MEMBERS, &[])
    },
};

/// Damages what these have, each in entries of its own.
fn rot(world: &mut World, brokers: &[u8]) -> Result<()> {
    let of = brokers.len() as u64;
    (0..).zip(brokers).try_for_each(|(number, &broker)| world.spoil(broker, Share { number, of }, FLIPS))
}
