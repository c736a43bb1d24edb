//! Links are cut, both ways and one way, from some and from all, and slowed.

use std::time::Duration;

use anyhow::Result;

use crate::chaos::world::SESSION_TIMEOUT;
use crate::chaos::{Needs, Scenario, World};
use crate::cluster::Others;

/// Members of a chain.
const MEMBERS: usize = 3;

pub(super) const FROM_PEERS: Scenario = Scenario {
    name: "cut-peers",
    promise: "a head loses the other brokers only; coordinator, gateways and clients reach it: its chains go on without it, \
              and it acknowledges nothing alone",
    brokers: 3,
    needs: Needs::Links,
    run: |world| isolated(world, Others::Peers),
};

pub(super) const FROM_PEERS_THEN_KILLED: Scenario = Scenario {
    name: "cut-peers-then-kill",
    promise: "a head loses the other brokers, goes on hearing clients for a second, and dies with its disk: it acknowledged \
              nothing that it alone had",
    brokers: 3,
    needs: Needs::Links,
    run: |world| {
        for _ in 0..world.rounds(1, 3) {
            let head = world.chain(0)?[0];
            world.isolate(head, Others::Peers)?;
            world.last(Duration::from_secs(1))?;
            world.kill(&[head])?;
            world.wipe(head)?;
            world.heal()?;
            world.await_write(0)?;
            world.start_brokers(&[head])?;
            world.await_chains(MEMBERS, &[])?;
        }
        Ok(())
    },
};

pub(super) const FROM_ZOOKEEPER: Scenario = Scenario {
    name: "cut-zookeeper",
    promise: "a head loses the coordinator only, for longer than its session: writes go on or resume by themselves",
    brokers: 3,
    needs: Needs::Links,
    run: |world| isolated(world, Others::ZooKeeper),
};

pub(super) const FROM_CLIENTS: Scenario = Scenario {
    name: "cut-clients",
    promise: "a head loses its clients only: its partitions wait for the network (no chain is at fault), the others go on, \
              nothing acknowledged is lost",
    brokers: 3,
    needs: Needs::Links,
    run: |world| {
        let head = world.chain(0)?[0];
        world.isolate(head, Others::Clients)?;
        let others = (0..).zip(world.chains()?).filter(|(_, chain)| chain[0] != head);
        let other: Option<u32> = others.map(|(partition, _)| partition).next();
        other.map_or(Ok(()), |partition| world.await_write(partition))?;
        world.last(duration(world))?;
        world.heal()?;
        world.await_write(0)
    },
};

pub(super) const TO_SUCCESSOR: Scenario = Scenario {
    name: "one-way-to-successor",
    promise: "what a head sends does not reach its successor, whom it still hears: the chain changes, nothing is acknowledged \
              that the successor lacks",
    brokers: 3,
    needs: Needs::Links,
    run: |world| one_way(world, 0, 1),
};

pub(super) const FROM_SUCCESSOR: Scenario = Scenario {
    name: "one-way-from-successor",
    promise: "a head does not hear its successor, which hears it: the chain changes, nothing acknowledged is lost",
    brokers: 3,
    needs: Needs::Links,
    run: |world| one_way(world, 1, 0),
};

pub(super) const PARTIAL: Scenario = Scenario {
    name: "cut-between-two",
    promise: "two brokers do not hear each other, everybody else hears both: writes resume with one of them left out",
    brokers: 3,
    needs: Needs::Links,
    run: |world| {
        let chain = world.chain(0)?;
        world.partition(chain[0], chain[1])?;
        harmed(world)
    },
};

pub(super) const HEAD_FROM_ALL: Scenario = Scenario {
    name: "cut-all",
    promise: "a head is cut off from everybody: its chains go on without it, and it serves nobody what it does not know",
    brokers: 3,
    needs: Needs::Links,
    run: |world| isolated(world, Others::All),
};

pub(super) const SLOW_LINK: Scenario = Scenario {
    name: "slow-link",
    promise: "a broker's link becomes slow: clients slow down or go on without it, nothing acknowledged is lost",
    brokers: 3,
    needs: Needs::Links,
    run: |world| {
        let head = world.chain(0)?[0];
        world.slow_link(head, "2mbit")?;
        world.await_write(0)?;
        world.last(duration(world))?;
        world.await_write(0)?;
        world.heal()
    },
};

/// The head of partition 0 loses the others for a while; writes resume meanwhile.
fn isolated(world: &mut World, others: Others) -> Result<()> {
    let head = world.chain(0)?[0];
    world.isolate(head, others)?;
    harmed(world)
}

fn one_way(world: &mut World, from: usize, to: usize) -> Result<()> {
    let chain = world.chain(0)?;
    world.one_way(chain[from], chain[to])?;
    harmed(world)
}

/// What every cut inside of the cluster promises: partition 0 takes writes while it lasts, and afterwards.
fn harmed(world: &mut World) -> Result<()> {
    world.await_write(0)?;
    world.at_work()?;
    world.last(duration(world))?;
    world.await_write(0)?;
    world.heal()?;
    world.await_chains(MEMBERS, &[])
}

/// Long enough for sessions to end.
fn duration(world: &World) -> Duration {
    SESSION_TIMEOUT + Duration::from_secs(world.rounds(1, 6).into())
}
