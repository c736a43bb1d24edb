//! Cleans up after a harness that ended without doing so: by Ctrl-C, a panic that aborts, SIGKILL.
//!
//! A process of its own waits at a pipe whose other end only the harness has. However the harness ends, the pipe does; then
//! the guard takes the cluster down. After an orderly end there is nothing left for it to do.

use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};

use super::Cluster;
use crate::process;

/// The word by which the program `cluster` becomes a guard.
pub const COMMAND: &str = "guard";

/// A guard at work. Dropping it ends it.
#[derive(Debug)]
pub struct Guard(Child);

impl Guard {
    /// Sets a guard over the cluster in this directory.
    pub fn set(directory: &Path) -> Result<Self> {
        let program = process::program("cluster")?;
        ensure!(program.exists(), "{} is not built: cargo build -p minikafka-tests --bins", program.display());
        let mut command = Command::new(&program);
        command.arg(COMMAND).arg(directory).stdin(Stdio::piped()).stdout(Stdio::null()).process_group(0);
        Ok(Self(command.spawn().with_context(|| format!("starting {}", program.display()))?))
    }
}

impl Guard {
    /// The cluster is to live on: the guard ends, and does nothing.
    pub fn dismiss(mut self) {
        // It has ended by itself, or ends now.
        let _ = self.0.kill();
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        // It finds nothing to do, or does it; either way it ends.
        let _ = self.0.wait();
    }
}

/// What the guard does: waits for the end of its input, and takes down what is there then.
pub fn watch(directory: &Path) -> Result<()> {
    let mut nothing = Vec::new();
    std::io::stdin().read_to_end(&mut nothing)?;
    match Cluster::open(directory)? {
        Some(cluster) => cluster.destroy(),
        None => Ok(()),
    }
}
