//! A broker under test: a binary as a process of its own, on one core.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};

use crate::error::{BenchError, Doing, Result};
use crate::pin;

/// A broker that takes longer than this to start or to stop is broken.
const DEADLINE: Duration = Duration::from_secs(120);
/// Lines of its log that a failure shows.
const LOG_LINES_SHOWN: usize = 20;
/// Ports below those that the system gives to outgoing connections.
const PORTS: std::ops::Range<u16> = 12_000..32_000;

/// How a broker is started.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    pub binary: PathBuf,
    pub dir: PathBuf,
    pub cpu: usize,
    pub more: Vec<String>,
}

/// A running broker; killed when it is dropped.
#[derive(Debug)]
pub(crate) struct Broker {
    child: Child,
    pub gateway: String,
    /// From the start of the process until it said that it is ready.
    pub ready_after: Duration,
    log: PathBuf,
}

/// Segment files that a broker took over its life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct PoolHits {
    /// In use before.
    pub recycled: u64,
    /// New.
    pub created: u64,
}

#[derive(Deserialize)]
struct Ready {
    gateway: String,
}

impl Setup {
    /// Starts it on the data that is there.
    pub fn start(&self) -> Result<Broker> {
        fs::create_dir_all(&self.dir).doing(|| format!("creating {}", self.dir.display()))?;
        let log = self.dir.join("broker.log");
        let stderr = File::create(&log).doing(|| format!("creating {}", log.display()))?;
        let port = free_ports()?;
        let mut command = Command::new(&self.binary);
        command
            .args(["server", "--json", "--log-level", "info", "--cores", "1", "--data-dir"])
            .arg(self.dir.join("data"));
        command.args(["--gateway-listen", &format!("127.0.0.1:{port}"), "--port-base", &(port + 1).to_string()]);
        command.args(&self.more).env_remove("RUST_LOG");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(stderr);
        let started = Instant::now();
        // A child inherits the core of the thread that starts it.
        let child =
            pin::pinned(Some(self.cpu), || command.spawn().doing(|| format!("starting {}", self.binary.display())))?;
        let mut broker = Broker { child, gateway: String::new(), ready_after: Duration::ZERO, log };
        let lines = broker.lines()?;
        let Ok(line) = lines.recv_timeout(DEADLINE) else {
            return Err(BenchError::failed(format!(
                "the broker did not get ready; the end of its log:\n{}",
                broker.log_end()
            )));
        };
        broker.ready_after = started.elapsed();
        let ready: Ready = serde_json::from_str(&line)
            .map_err(|error| BenchError::failed(format!("the broker said {line:?} instead of being ready: {error}")))?;
        broker.gateway = ready.gateway;
        Ok(broker)
    }

    /// Starts it without any data.
    pub fn start_fresh(&self) -> Result<Broker> {
        self.clear()?;
        self.start()
    }

    /// Removes what it left.
    pub fn clear(&self) -> Result<()> {
        match fs::remove_dir_all(&self.dir) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).doing(|| format!("removing {}", self.dir.display()))
            }
            _ => Ok(()),
        }
    }
}

impl Broker {
    fn lines(&mut self) -> Result<mpsc::Receiver<String>> {
        let (sender, lines) = mpsc::channel();
        let Some(stdout) = self.child.stdout.take() else {
            return Err(BenchError::failed("the broker was started without a pipe for its output"));
        };
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(std::io::Result::ok) {
                // The pipe is read to its end, whoever listens, so that the broker never waits for it.
                let _ = sender.send(line);
            }
        });
        Ok(lines)
    }

    fn proc(&self, file: &str) -> Result<String> {
        let path = format!("/proc/{}/{file}", self.child.id());
        fs::read_to_string(&path).doing(|| format!("reading {path}"))
    }

    /// Bytes of memory: `VmRSS` is now, `VmHWM` the most there ever was.
    pub fn memory(&self, field: &str) -> Result<f64> {
        let status = self.proc("status")?;
        let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
        let kilobytes = line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
        kilobytes
            .map(|kilobytes| kilobytes * 1024.0)
            .ok_or_else(|| BenchError::failed(format!("/proc says nothing of {field}")))
    }

    /// Processor time of all its threads, to the nanosecond.
    pub fn processor_time(&self) -> Result<Duration> {
        let tasks = format!("/proc/{}/task", self.child.id());
        let mut nanos = 0;
        for task in fs::read_dir(&tasks).doing(|| format!("reading {tasks}"))? {
            let path = task.doing(|| format!("reading {tasks}"))?.path().join("schedstat");
            // A thread may end while it is looked at.
            let text = fs::read_to_string(path).unwrap_or_default();
            nanos += text.split(' ').next().and_then(|first| first.parse::<u64>().ok()).unwrap_or_default();
        }
        Ok(Duration::from_nanos(nanos))
    }

    /// SIGTERM, an orderly end, and what it said of its segment files.
    pub fn stop(mut self) -> Result<PoolHits> {
        kill_process(self.pid()?, Signal::TERM).doing(|| "stopping the broker".to_owned())?;
        let deadline = Instant::now() + DEADLINE;
        loop {
            if let Some(status) = self.child.try_wait().doing(|| "waiting for the broker".to_owned())? {
                if status.success() {
                    return Ok(pool_hits(&fs::read_to_string(&self.log).unwrap_or_default()));
                }
                return Err(BenchError::failed(format!("the broker ended with {status}:\n{}", self.log_end())));
            }
            if Instant::now() > deadline {
                return Err(BenchError::failed(format!("the broker does not end:\n{}", self.log_end())));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// SIGKILL; dropping it waits for its end.
    pub fn kill(&self) -> Result<()> {
        kill_process(self.pid()?, Signal::KILL).doing(|| "killing the broker".to_owned())
    }

    fn pid(&self) -> Result<Pid> {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        pid.ok_or_else(|| BenchError::failed("the broker has no process id"))
    }

    fn log_end(&self) -> String {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<_> = text.lines().collect();
        lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..].join("\n")
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        // Ended already, or ended now.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What the shards said when they stopped.
fn pool_hits(log: &str) -> PoolHits {
    let mut hits = PoolHits::default();
    for line in log.lines() {
        let Ok(line) = serde_json::from_str::<serde_json::Value>(line) else { continue };
        hits.recycled += line["segments_recycled"].as_u64().unwrap_or_default();
        hits.created += line["segments_created"].as_u64().unwrap_or_default();
    }
    hits
}

/// The first of two ports in a row that are free now.
fn free_ports() -> Result<u16> {
    for _ in 0..100 {
        let port = rand::random_range(PORTS);
        let bind = |port| TcpListener::bind(("127.0.0.1", port));
        if bind(port).is_ok() && bind(port + 1).is_ok() {
            return Ok(port);
        }
    }
    Err(BenchError::failed(format!("no two free ports in a row among {PORTS:?}")))
}

/// Bytes of everything below a directory.
pub(crate) fn directory_bytes(dir: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(dir) else { return 0 };
    let of_entry = |entry: fs::DirEntry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => directory_bytes(&entry.path()),
        Ok(metadata) => std::os::unix::fs::MetadataExt::blocks(&metadata) * 512,
        Err(_) => 0,
    };
    entries.flatten().map(of_entry).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pool_hits_are_read_from_the_log() {
        let log = "no json\n{\"message\":\"x\"}\n{\"segments_recycled\":7,\"segments_created\":2}\n{\"segments_recycled\":1,\"segments_created\":0}";
        assert_eq!(pool_hits(log), PoolHits { recycled: 8, created: 2 });
    }
}
