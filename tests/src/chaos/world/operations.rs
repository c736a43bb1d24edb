//! What operators do, by the command line.

use std::fs::File;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::{REPLICATION, World};
use crate::cluster::{GATEWAY_PORT, Member};

/// Longer than any drain and any rebalance of so few records, on a busy machine.
const RESTART_PATIENCE: Duration = Duration::from_secs(240);

/// How an operation goes.
#[derive(Clone, Copy, Debug)]
pub struct Operation {
    /// Its number.
    pub number: u64,
    /// Ranges that it moves.
    pub ranges: u64,
    /// Those that are where they should be.
    pub moved: u64,
}

impl Operation {
    fn of(value: &Value) -> Result<Self> {
        let count = |name: &str| value[name].as_u64().with_context(|| format!("an operation tells {name}: {value}"));
        Ok(Self { number: count("operation")?, ranges: count("ranges")?, moved: count("moved")? })
    }
}

impl World {
    /// Begins an operation, in the words of `minikafka cluster`.
    pub fn begin(&mut self, words: &[&str]) -> Result<Operation> {
        let operation = Operation::of(&self.cluster.operate(words)?)?;
        self.say(&format!("minikafka cluster {}: {} ranges", words.join(" "), operation.ranges));
        Ok(operation)
    }

    /// How an operation goes.
    pub fn operation(&self, number: u64) -> Result<Operation> {
        let status = self.cluster.operate(&["status"])?;
        let operations = status["operations"].as_array().context("the status tells operations")?;
        let operation = operations.iter().find(|operation| operation["operation"] == number);
        Operation::of(operation.with_context(|| format!("operation {number} is known"))?)
    }

    /// Waits until so many of an operation's ranges are moved.
    pub fn await_moved(&mut self, number: u64, due: u64) -> Result<()> {
        let mut last = None;
        let waited = self.wait("the operation goes on", |world| {
            let operation = world.operation(number)?;
            last = Some(operation);
            Ok(operation.moved >= due)
        });
        waited.with_context(|| format!("{last:?}"))?;
        self.say(&format!("{due} ranges are moved"));
        Ok(())
    }

    /// `minikafka cluster restart` of a broker, with all clients under observation. What it says of the cluster in the end is
    /// held to: every chain is whole, without any more waiting.
    pub fn restart(&mut self, broker: u8, options: &[&str]) -> Result<()> {
        let (command, http) = (self.cluster.restart_command(broker)?, self.cluster.http().join(","));
        let (number, log) = (broker.to_string(), self.cluster.directory().join(format!("restart-{broker}.log")));
        let mut restart = Command::new(self.cluster.binary());
        restart.args(["cluster", "restart", &number, "--with", &command, "--http", &http]).args(options);
        let told = File::create(&log)?;
        let mut restart = restart.stdout(told.try_clone()?).stderr(told).spawn()?;
        let mut ended = None;
        let waited = self.wait_within(RESTART_PATIENCE, "the command restarts the broker", |_| {
            ended = restart.try_wait()?;
            Ok(ended.is_some())
        });
        if ended.is_none() {
            restart.kill()?;
            restart.wait()?;
        }
        self.cluster.reload()?;
        let told = std::fs::read_to_string(&log)?;
        waited.with_context(|| told.clone())?;
        ensure!(ended.is_some_and(|status| status.success()), "minikafka cluster restart {broker}: {ended:?}\n{told}");
        let chains = self.chains()?;
        ensure!(chains.iter().all(|chain| chain.len() == usize::from(REPLICATION)), "not whole: {chains:?}\n{told}");
        self.say(told.lines().next_back().unwrap_or_default());
        Ok(())
    }

    /// The number of the gateway that is elected.
    pub fn controller(&self) -> Result<u8> {
        let status = self.cluster.operate(&["status"])?;
        let address = status["cluster"]["controller"]["address"].as_str().context("somebody is elected")?;
        let is_at = |number: &u8| {
            address == format!("{}:{GATEWAY_PORT}", self.cluster.network().address(Member::Gateway(*number)))
        };
        (1..=2).find(is_at).with_context(|| format!("{address} is a gateway of this cluster"))
    }

    /// SIGSTOP for a gateway.
    pub fn pause_member(&mut self, member: Member) -> Result<()> {
        self.cluster.pause(member)?;
        self.say(&format!("{member} stands still (SIGSTOP)"));
        Ok(())
    }

    /// Cuts a gateway off from ZooKeeper only.
    pub fn isolate_from_zookeeper(&mut self, member: Member) -> Result<()> {
        self.cluster.partition(member, Member::ZooKeeper)?;
        self.say(&format!("{member} and ZooKeeper do not hear each other"));
        Ok(())
    }
}
