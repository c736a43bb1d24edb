//! A real ZooKeeper on loopback, as a child process with its data in a temporary directory.

use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, TcpListener};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use minikafka_coordinator::ZooKeeperAddress;
use rustix::process::{Pid, Signal, kill_process};

use super::installation::{self, HOW_TO_INSTALL};
use crate::conformance::PATIENCE;

/// Kills the server when the test's end of the pipe closes, also when the test is killed itself.
const KEEPER: &str = "java \"$@\" & echo $!; read -r _; kill -9 $!; wait";
/// Several servers may start at once on two slow cores.
const START_WITHIN: Duration = Duration::from_secs(60);
/// A short tick, so that sessions may be brief.
const TICK_MS: u32 = 100;
const SESSION_TIMEOUT_MS_MAX: u32 = 60_000;

pub struct ZooKeeperServer {
    directory: tempfile::TempDir,
    port: u16,
    options: Vec<String>,
    running: Mutex<Option<Running>>,
}

struct Running {
    keeper: Child,
    server: Pid,
    /// Its end is the server's.
    _alive: ChildStdin,
}

impl ZooKeeperServer {
    /// The server that tests share which neither pause nor kill it; it stops with the last of them.
    pub fn shared() -> Arc<Self> {
        static SHARED: Mutex<Weak<ZooKeeperServer>> = Mutex::new(Weak::new());
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        shared.upgrade().unwrap_or_else(|| {
            let server = Arc::new(Self::start(&[]));
            *shared = Arc::downgrade(&server);
            server
        })
    }

    /// A server of one's own, with further options for java.
    pub fn start(options: &[&str]) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let port = free_port();
        let configuration = installation::configuration(
            &directory.path().join("data"),
            (Ipv4Addr::LOCALHOST, port).into(),
            TICK_MS,
            SESSION_TIMEOUT_MS_MAX,
        );
        std::fs::write(directory.path().join("zoo.cfg"), configuration).expect("a writable directory");
        let options = options.iter().map(|option| (*option).to_owned()).collect();
        let server = Self { directory, port, options, running: Mutex::new(None) };
        server.restart();
        server
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Where it is; each test has a root of its own.
    pub fn address(&self, root: &str) -> ZooKeeperAddress {
        address(self.port, root)
    }

    /// SIGSTOP; returns when every thread stands still.
    pub fn pause(&self) {
        self.signal(Signal::STOP);
        let tasks = format!("/proc/{}/task", self.running().as_ref().expect("a running server").server.as_raw_pid());
        let stands = |task: std::io::Result<std::fs::DirEntry>| {
            // The state follows the name in parentheses. A thread that is gone stands still.
            let stat = task.and_then(|task| std::fs::read_to_string(task.path().join("stat"))).unwrap_or_default();
            stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with('T'))
        };
        let deadline = Instant::now() + PATIENCE;
        while !std::fs::read_dir(&tasks).expect("a running server").all(stands) {
            assert!(Instant::now() < deadline, "the server does not stop");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    pub fn resume(&self) {
        self.signal(Signal::CONT);
    }

    /// SIGKILL; the data stay.
    pub fn kill(&self) {
        if let Some(mut running) = self.running().take() {
            kill_process(running.server, Signal::KILL).expect("a running server");
            drop(running._alive);
            running.keeper.wait().expect("its keeper ends with it");
        }
    }

    /// Starts it (again) with the data it has, and waits until it answers.
    pub fn restart(&self) {
        *self.running() = Some(self.spawn());
        let deadline = Instant::now() + START_WITHIN;
        while !self.answers() {
            let ended = self
                .running()
                .as_mut()
                .is_none_or(|running| rustix::process::test_kill_process(running.server).is_err());
            if ended || Instant::now() > deadline {
                let log = std::fs::read_to_string(self.directory.path().join("log")).unwrap_or_default();
                panic!("ZooKeeper does not answer on port {}; {HOW_TO_INSTALL}. It says:\n{log}", self.port);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn spawn(&self) -> Running {
        let classpath = installation::classpath().unwrap_or_else(|missing| panic!("{missing}"));
        let log = std::fs::File::create(self.directory.path().join("log")).expect("a writable directory");
        let mut keeper = Command::new("sh")
            .args(["-c", KEEPER, "sh"])
            .args(installation::JAVA_OPTIONS)
            .args(&self.options)
            .args(["-cp", &classpath, installation::MAIN_CLASS])
            .arg(self.directory.path().join("zoo.cfg"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .expect("a shell");
        let mut pid = String::new();
        BufReader::new(keeper.stdout.take().expect("a pipe")).read_line(&mut pid).expect("the server's pid");
        let pid = pid.trim().parse().expect("a number");
        let server = Pid::from_raw(pid).expect("no process is 0");
        let alive = keeper.stdin.take().expect("a pipe");
        Running { keeper, server, _alive: alive }
    }

    fn answers(&self) -> bool {
        installation::answers((Ipv4Addr::LOCALHOST, self.port).into())
    }

    fn signal(&self, signal: Signal) {
        let running = self.running();
        kill_process(running.as_ref().expect("a running server").server, signal).expect("a running server");
    }

    fn running(&self) -> std::sync::MutexGuard<'_, Option<Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for ZooKeeperServer {
    fn drop(&mut self) {
        self.kill();
    }
}

pub fn address(port: u16, root: &str) -> ZooKeeperAddress {
    format!("zk://127.0.0.1:{port}{root}").parse().expect("a good address")
}

pub fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    listener.local_addr().expect("it is bound").port()
}
