//! ZooKeeper and gateways are gone: data go on, changes wait.

use std::time::Duration;

use anyhow::{Context, Result};

use crate::chaos::world::SESSION_TIMEOUT;
use crate::chaos::{Needs, Scenario, World};
use crate::cluster::Member;

/// Members of a chain.
const MEMBERS: usize = 3;

pub(super) const ZOOKEEPER_DOWN: Scenario = Scenario {
    name: "zookeeper-down",
    promise: "ZooKeeper is gone for a minute (brief: 15 s), and a broker dies meanwhile: chains without that broker never \
              stop, the others change once ZooKeeper is back, nothing acknowledged is lost",
    brokers: 4,
    needs: Needs::Processes,
    run: |world| {
        let chains = world.chains()?;
        let victim = chains[0][0];
        let untouched = (0..).zip(&chains).find(|(_, chain)| !chain.contains(&victim)).map(|(partition, _)| partition);
        world.kill_member(Member::ZooKeeper)?;
        world.last(Duration::from_secs(2))?;
        for partition in 0..2 {
            world.await_write(partition)?;
        }
        world.kill(&[victim])?;
        let seconds = world.rounds(11, 56);
        for _ in 0..seconds {
            world.last(Duration::from_secs(1))?;
            if let Some(partition) = untouched {
                let before = world.probed(partition);
                world.wait("a chain that nothing happened to goes on", |world| Ok(world.probed(partition) > before))?;
            }
        }
        world.start_again(&[Member::ZooKeeper])?;
        world.await_writes().context("ZooKeeper is back")?;
        world.start_brokers(&[victim])?;
        world.await_chains(MEMBERS, &[])
    },
};

pub(super) const GATEWAY_KILLED: Scenario = Scenario {
    name: "kill-gateway",
    promise: "a gateway dies, and a broker after it: clients ask the other gateway, which takes over as controller when the \
              dead one's session ends",
    brokers: 3,
    needs: Needs::Processes,
    run: |world| {
        for number in [1, 2] {
            let gateway = Member::Gateway(number);
            world.kill_member(gateway)?;
            world.at_work()?;
            let victim = world.chain(0)?[0];
            world.kill(&[victim])?;
            world.await_writes()?;
            world.start_again(&[gateway, Member::Broker(victim)])?;
            world.await_chains(MEMBERS, &[])?;
        }
        Ok(())
    },
};

pub(super) const ALL_GATEWAYS_KILLED: Scenario = Scenario {
    name: "kill-gateways",
    promise: "all gateways are gone: produce and fetch go on with the map that clients have",
    brokers: 3,
    needs: Needs::Processes,
    run: |world| {
        let gateways = [Member::Gateway(1), Member::Gateway(2)];
        for gateway in gateways {
            world.kill_member(gateway)?;
        }
        world.last(Duration::from_secs(2))?;
        for partition in 0..2 {
            world.await_write(partition)?;
        }
        world.start_again(&gateways)
    },
};

pub(super) const TWO_CONTROLLERS: Scenario = Scenario {
    name: "two-controllers",
    promise: "the elected gateway is cut off from ZooKeeper, or stands still, until the other one is elected, and goes on as if it \
              still were: two controllers change chains at the same time, the record lets one of them win each epoch, and nothing \
              acknowledged is lost",
    brokers: 3,
    needs: Needs::Links,
    run: |world| {
        for round in 0..world.rounds(2, 6) {
            let first = world.controller()?;
            let gateway = Member::Gateway(first);
            if round % 2 == 0 {
                world.isolate_from_zookeeper(gateway)?
            } else {
                world.pause_member(gateway)?
            }
            // Complaints go to whoever is believed to be elected, so a change is under way while they change places.
            let victim = world.chain(0)?[0];
            world.kill(&[victim])?;
            world.wait("the other gateway is elected", |world| Ok(world.controller().is_ok_and(|now| now != first)))?;
            world.say("the other gateway is elected");
            world.heal()?;
            another_dies_at_once(world, victim)?;
            world.await_chains(MEMBERS, &[])?;
        }
        Ok(())
    },
};

/// Both controllers find the same chains in need of a change.
fn another_dies_at_once(world: &mut World, dead: u8) -> Result<()> {
    world.start_brokers(&[dead])?;
    world.await_writes()?;
    let victim = world.chain(0)?[0];
    world.kill(&[victim])?;
    world.await_writes()?;
    world.last(SESSION_TIMEOUT)?;
    world.start_brokers(&[victim])
}
