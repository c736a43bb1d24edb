//! The binary as it ships, run as processes of their own: started, asked, killed, started again.

use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{OnceLock, mpsc};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use tempfile::TempDir;

/// A node that takes longer than this to listen is broken.
pub const START_DEADLINE: Duration = Duration::from_secs(60);
/// A node that takes longer than this to drain and close is broken.
pub const STOP_DEADLINE: Duration = Duration::from_secs(60);
/// Ports tried are below the range from which the system takes the ports of outgoing connections.
const PORTS: std::ops::Range<u16> = 12_000..32_000;
/// Unit of `/proc/PID/statm` on every machine that this runs on.
const PAGE_BYTES: u64 = 4096;
/// Unit of the times in `/proc/PID/stat`: fixed by Linux for all that is not kernel.
const TICKS_PER_SECOND: u64 = 100;
/// Lines of a node's log that a failure shows.
const LOG_LINES_SHOWN: usize = 40;

/// A child process that ends at the latest with its handle.
#[derive(Debug)]
struct Process(Child);

/// How a node is started; the same again after a crash.
#[derive(Clone, Debug)]
pub struct NodeSetup {
    /// The binary; see [`binary`].
    pub binary: PathBuf,
    /// `dev` or `server`.
    pub command: &'static str,
    /// Where it keeps its data; its log goes to `node.log` beside it.
    pub data_dir: PathBuf,
    /// Port of the gateway.
    pub gateway_port: u16,
    /// Port of the first shard.
    pub port_base: u16,
    /// How many shards.
    pub cores: u16,
    /// Whatever else stands on the command line.
    pub more: Vec<String>,
}

/// What a node tells when it listens.
#[derive(Clone, Debug, Deserialize)]
pub struct Ready {
    /// `host:port` of its gateway.
    pub gateway: String,
    /// `host:port` of shard 0, 1, …
    pub shards: Vec<String>,
}

/// A node that has been started and may not listen yet.
#[derive(Debug)]
pub struct Launch {
    child: Process,
    lines: mpsc::Receiver<String>,
    log: PathBuf,
}

/// What a process has taken of the machine so far.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Usage {
    /// Memory that it has now.
    pub resident_bytes: u64,
    /// Processor time since its start, of all its threads.
    pub processor: Duration,
}

/// A running node. Dropping it kills it.
#[derive(Debug)]
pub struct Node {
    child: Process,
    ready: Ready,
    log: PathBuf,
}

impl NodeSetup {
    /// A node of its own under `directory`, on ports that are free now.
    pub fn new(directory: &Path, command: &'static str) -> Result<Self> {
        let cores = 2;
        let gateway_port = free_ports(cores + 1)?;
        let (port_base, data_dir) = (gateway_port + 1, directory.join("data"));
        Ok(Self { binary: binary()?, command, data_dir, gateway_port, port_base, cores, more: Vec::new() })
    }

    /// `host:port` at which its gateway will be.
    pub fn gateway(&self) -> String {
        format!("127.0.0.1:{}", self.gateway_port)
    }

    /// Starts the node and waits until it listens.
    pub fn start(&self) -> Result<Node> {
        self.launch()?.ready()
    }

    /// Starts the node and does not wait.
    pub fn launch(&self) -> Result<Launch> {
        let log = self.data_dir.with_file_name("node.log");
        let mut child = self.spawn(&log)?;
        let lines = first_line(&mut child);
        Ok(Launch { child: Process(child), lines, log })
    }

    fn spawn(&self, log: &Path) -> Result<Child> {
        fs::create_dir_all(&self.data_dir)?;
        let stderr = OpenOptions::new().create(true).append(true).open(log)?;
        let mut command = Command::new(&self.binary);
        command.args([self.command, "--json", "--data-dir"]).arg(&self.data_dir);
        command.args(["--gateway-listen", &self.gateway()]);
        command.args(["--port-base", &self.port_base.to_string(), "--cores", &self.cores.to_string()]);
        command.args(&self.more).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(stderr);
        command.spawn().with_context(|| format!("starting {}", self.binary.display()))
    }
}

impl Launch {
    /// Waits until the node listens.
    pub fn ready(mut self) -> Result<Node> {
        let Ok(line) = self.lines.recv_timeout(START_DEADLINE) else {
            // Already dead in one case, stuck in the other.
            let status = self.child.kill()?;
            bail!("the node did not get ready ({status}); the end of its log:\n{}", end_of(&self.log));
        };
        let ready = serde_json::from_str(&line).with_context(|| format!("not a ready message: {line}"))?;
        Ok(Node { child: self.child, ready, log: self.log })
    }

    /// SIGKILL, wherever its start has got to.
    pub fn kill(mut self) -> Result<()> {
        self.child.kill().map(|_| ())
    }
}

/// Hears the first line that a child prints; nothing if it ends before.
fn first_line(child: &mut Child) -> mpsc::Receiver<String> {
    let (sender, lines) = mpsc::channel();
    let stdout = child.stdout.take().expect("the child was spawned with a pipe as its output");
    std::thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            // After the first nobody listens; the pipe is still read, so that the child never blocks on it.
            let _ = sender.send(line);
        }
    });
    lines
}

impl Node {
    /// `host:port` of its gateway.
    pub fn gateway(&self) -> &str {
        &self.ready.gateway
    }

    /// `host:port` of shard 0, 1, …
    pub fn shards(&self) -> &[String] {
        &self.ready.shards
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.0.id()
    }

    /// Whether it is still there.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.0.try_wait(), Ok(None))
    }

    /// SIGKILL: it gets no chance to do anything.
    pub fn kill(mut self) -> Result<()> {
        self.child.kill().map(|_| ())
    }

    /// SIGTERM, and waits for an orderly end.
    pub fn stop(mut self) -> Result<()> {
        self.signal(libc::SIGTERM)?;
        let status = self.wait()?;
        ensure!(status.success(), "the node ended with {status}; the end of its log:\n{}", self.log_end());
        Ok(())
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: i32) -> Result<()> {
        let pid = i32::try_from(self.pid()).context("process ids fit")?;
        // SAFETY: `kill` takes no memory; the child has not been waited for, so its id is still its own.
        let sent = unsafe { libc::kill(pid, signal) };
        ensure!(sent == 0, "kill: {}", std::io::Error::last_os_error());
        Ok(())
    }

    /// Waits until it has ended.
    pub fn wait(&mut self) -> Result<ExitStatus> {
        let deadline = Instant::now() + STOP_DEADLINE;
        loop {
            if let Some(status) = self.child.0.try_wait()? {
                return Ok(status);
            }
            ensure!(Instant::now() < deadline, "the node does not end; its log:\n{}", self.log_end());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// What it has taken of the machine so far, as `/proc` says.
    pub fn usage(&self) -> Result<Usage> {
        let read = |name: &str| fs::read_to_string(format!("/proc/{}/{name}", self.pid())).context("reading /proc");
        let (memory, times) = (read("statm")?, read("stat")?);
        let resident: u64 = memory.split(' ').nth(1).context("the second field of statm")?.parse()?;
        // The second field of stat is a name in parentheses, which may hold anything; user and system time are the
        // 14th and 15th.
        let fields: Vec<_> = times.rsplit(") ").next().unwrap_or_default().split(' ').collect();
        let ticks: u64 =
            fields.get(11..13).context("the times of stat")?.iter().flat_map(|text| text.parse::<u64>()).sum();
        Ok(Usage {
            resident_bytes: resident * PAGE_BYTES,
            processor: Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND),
        })
    }

    /// The last lines of its log.
    pub fn log_end(&self) -> String {
        end_of(&self.log)
    }

    /// Goes on running when this handle is dropped.
    pub fn leave_running(self) {
        std::mem::forget(self);
    }
}

impl Process {
    fn kill(&mut self) -> Result<ExitStatus> {
        self.0.kill()?;
        Ok(self.0.wait()?)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Ended already, or ended now: either is what is wanted.
        let _ = self.kill();
    }
}

fn end_of(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..].join("\n")
}

/// A directory for one test, on a disk (beside the build) and not in memory.
pub fn directory() -> Result<TempDir> {
    Ok(tempfile::tempdir_in(build_directory()?)?)
}

/// Where such directories lie.
pub fn build_directory() -> Result<PathBuf> {
    let parent = target_directory()?.join("tmp");
    fs::create_dir_all(&parent)?;
    Ok(parent)
}

/// The binary, built in the same profile as this code if it is not there or older than its source.
/// `MINIKAFKA_BINARY` names another one.
pub fn binary() -> Result<PathBuf> {
    static BUILT: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let built = BUILT.get_or_init(|| build().map_err(|error| format!("{error:#}")));
    built.clone().map_err(anyhow::Error::msg)
}

fn build() -> Result<PathBuf> {
    if let Some(binary) = std::env::var_os("MINIKAFKA_BINARY") {
        return Ok(binary.into());
    }
    let target = target_directory()?;
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["build", "--quiet", "--locked", "--package", "minikafka", "--target-dir"]).arg(&target);
    if !cfg!(debug_assertions) {
        cargo.arg("--release");
    }
    let status = cargo.current_dir(crate::source::repository()).status().context("running cargo")?;
    ensure!(status.success(), "cargo build of the binary failed");
    Ok(target.join(profile()).join("minikafka"))
}

/// Where a program of this package lies that was built together with this one.
pub fn program(name: &str) -> Result<PathBuf> {
    Ok(target_directory()?.join(profile()).join(name))
}

fn profile() -> &'static str {
    if cfg!(debug_assertions) { "debug" } else { "release" }
}

/// Where this very program was built: `TARGET/PROFILE/deps/program` or `TARGET/PROFILE/program`.
fn target_directory() -> Result<PathBuf> {
    let program = std::env::current_exe()?;
    let profiles = ["debug", "release", "simulate"];
    let profile = program.ancestors().find(|path| profiles.iter().any(|profile| path.ends_with(profile)));
    let target = profile.and_then(Path::parent).context("this program does not lie in a target directory")?;
    Ok(target.to_path_buf())
}

/// Runs the binary to its end, as a person would.
pub fn run(arguments: &[&str], input: &[u8]) -> Result<Output> {
    let input_file = directory()?;
    let path = input_file.path().join("input");
    fs::write(&path, input)?;
    let mut command = Command::new(binary()?);
    command.args(arguments).stdin(File::open(&path)?).env_remove("MINIKAFKA_GATEWAY").env_remove("RUST_LOG");
    Ok(command.output()?)
}

/// The first of `count` ports in a row that are free now.
pub fn free_ports(count: u16) -> Result<u16> {
    for _ in 0..100 {
        let first = rand::random_range(PORTS.start..PORTS.end - count);
        let listeners: Result<Vec<_>, _> =
            (first..first + count).map(|port| TcpListener::bind(("127.0.0.1", port))).collect();
        if listeners.is_ok() {
            return Ok(first);
        }
    }
    bail!("no {count} free ports in a row among {PORTS:?}")
}
