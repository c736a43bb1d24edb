//! ZooKeeper and gateways are gone: data go on, changes wait.

use std::time::Duration;

use anyhow::Context;

use crate::chaos::Scenario;
use crate::cluster::Member;

/// Members of a chain.
const MEMBERS: usize = 3;

pub(super) const ZOOKEEPER_DOWN: Scenario = Scenario {
    name: "zookeeper-down",
    promise: "ZooKeeper is gone for a minute (brief: 15 s), and a broker dies meanwhile: chains without that broker never \
              stop, the others change once ZooKeeper is back, nothing acknowledged is lost",
    brokers: 4,
    cuts_links: false,
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
    cuts_links: false,
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
    cuts_links: false,
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
