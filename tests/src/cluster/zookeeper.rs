//! ZooKeeper of a cluster: configured, started, asked whether it serves. How it is installed and called is known to the
//! coordinator's conformance suite, whose file is used here.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Error, Result, ensure};

use super::member::Member;
use super::network::Network;
use super::running::{LOOK_INTERVAL, Running};

#[path = "../../../coordinator/tests/coordinator/zookeeper/installation.rs"]
mod installation;

/// Where it listens.
pub const PORT: u16 = 2181;
/// Sessions are granted between two ticks and this.
const TICK_MS: u32 = 500;
const SESSION_TIMEOUT_MS_MAX: u32 = 60_000;
/// Java starts slowly on a machine that is busy.
const START_DEADLINE: Duration = Duration::from_secs(60);

/// Starts it with the data it has, and waits until it serves.
pub fn start(network: &Network, directory: &Path) -> Result<Running> {
    let classpath = installation::classpath().map_err(Error::msg)?;
    fs::create_dir_all(directory)?;
    let listen = SocketAddr::new(network.address(Member::ZooKeeper).into(), PORT);
    let configuration = installation::configuration(&directory.join("data"), listen, TICK_MS, SESSION_TIMEOUT_MS_MAX);
    let configured = directory.join("zoo.cfg");
    fs::write(&configured, configuration)?;
    let mut command: Command = network.command(Member::ZooKeeper, "java");
    command.args(installation::JAVA_OPTIONS);
    command.args(["-cp", &classpath, installation::MAIN_CLASS]).arg(&configured);
    let log = directory.join("log");
    let running = Running::start(&mut command, &directory.join("printed"), &log)?;
    let deadline = Instant::now() + START_DEADLINE;
    while !installation::answers(listen) {
        let lives = running.is_running() && Instant::now() < deadline;
        if !lives {
            running.kill()?;
        }
        ensure!(lives, "ZooKeeper does not start; see {}; {}", log.display(), installation::HOW_TO_INSTALL);
        std::thread::sleep(LOOK_INTERVAL);
    }
    Ok(running)
}
