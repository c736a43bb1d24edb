//! A server on an executor of its own, and plain blocking clients.

#![allow(dead_code, unused_imports, reason = "each test binary uses a part")]

mod client;
mod service;

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use glommio::LocalExecutorBuilder;
use glommio::timer::Timer;
use minikafka_core::wire::{Api, Prover, Role, Wire, prove};
use minikafka_core::{ClusterId, ErrorCode, NodeId, ShardId};
use minikafka_net::{
    ClusterSecret, DeadlineKind, Listener, NetStats, Server, ServerConfig, ServerIdentity, StopReport,
};

pub use client::{Answer, Client, fetch, frame, frame_with, hello};
pub use service::{SLOW_HEAD, TestService, pattern};

pub const CLUSTER: ClusterId = ClusterId(0xc1c1);
pub const SECRET: &[u8] = b"a secret of this cluster";
pub const SERVER_NONCE: [u8; 16] = [9; 16];
/// Anything that does not happen within this never will.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Counters, copied out of the server's thread.
#[derive(Clone, Debug)]
pub struct Snapshot {
    pub open: u32,
    pub refused: u64,
    pub broken: u64,
    pub frames: u64,
    pub receives: u64,
    pub sends: u64,
    pub replies: u64,
    pub forgotten: u64,
    pub skipped: u64,
    pub window_waits: u64,
    pub room_waits: u64,
    pub deadlines: Vec<(DeadlineKind, u64)>,
    pub errors: Vec<(ErrorCode, u64)>,
    /// Processor time of the server's thread.
    pub cpu: Duration,
}

impl Snapshot {
    fn of(stats: &NetStats) -> Self {
        Self {
            open: stats.connections_open(),
            refused: stats.connections_refused.get(),
            broken: stats.connections_broken.get(),
            frames: stats.frames_received.get(),
            receives: stats.receives.get(),
            sends: stats.sends.get(),
            replies: stats.replies.get(),
            forgotten: stats.replies_forgotten.get(),
            skipped: stats.bytes_skipped.get(),
            window_waits: stats.window_waits.get(),
            room_waits: stats.room_waits.get(),
            deadlines: DeadlineKind::ALL.iter().map(|&kind| (kind, stats.deadlines(kind))).collect(),
            errors: ErrorCode::ALL.iter().map(|&code| (code, stats.errors(code))).collect(),
            cpu: thread_cpu(),
        }
    }

    pub fn deadlines(&self, kind: DeadlineKind) -> u64 {
        self.deadlines.iter().find(|(known, _)| *known == kind).expect("every kind is there").1
    }

    pub fn errors(&self, code: ErrorCode) -> u64 {
        self.errors.iter().find(|(known, _)| *known == code).expect("every code is there").1
    }
}

fn thread_cpu() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a valid timespec that the call fills.
    let result = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    assert_eq!(result, 0);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

enum Command {
    Stats(Sender<Snapshot>),
    /// Answers the requests that the service has kept.
    Release,
    Stop(Duration, Sender<StopReport>),
}

/// A server with a [`TestService`], in a thread of its own.
pub struct TestServer {
    pub address: SocketAddr,
    commands: Sender<Command>,
    thread: Option<JoinHandle<()>>,
}

impl TestServer {
    pub fn start() -> Self {
        Self::with(|_| ())
    }

    /// A server whose configuration `change` has adapted.
    pub fn with(change: impl FnOnce(&mut ServerConfig) + Send + 'static) -> Self {
        let (addresses, address) = channel();
        let (commands, received) = channel();
        let thread = std::thread::spawn(move || {
            let executor = LocalExecutorBuilder::default().io_memory(1 << 20).make().expect("an executor");
            executor.run(serve(change, addresses, received));
        });
        let address = address.recv_timeout(PATIENCE).expect("the server listens");
        Self { address, commands, thread: Some(thread) }
    }

    pub fn client(&self) -> Client {
        Client::connect(self.address)
    }

    /// A client that has said hello.
    pub fn greeted(&self) -> Client {
        let mut client = self.client();
        client.hello();
        client
    }

    /// A peer or controller that has proved the secret.
    pub fn proven(&self, role: Role) -> Client {
        let mut peer = self.client();
        peer.ask(&frame(Api::Hello, 1, &hello(role).to_bytes()));
        let proof = prove(SECRET, Prover::Opener, role, &hello(role).nonce, &SERVER_NONCE);
        assert_eq!(peer.ask(&frame(Api::Prove, 2, &proof.to_bytes())).error(), None);
        peer
    }

    pub fn stats(&self) -> Snapshot {
        let (sender, receiver) = channel();
        self.commands.send(Command::Stats(sender)).expect("the server runs");
        receiver.recv_timeout(PATIENCE).expect("the server answers")
    }

    /// Waits for a condition, with a deadline.
    pub fn wait_for(&self, what: &str, condition: impl Fn(&Snapshot) -> bool) -> Snapshot {
        let started = Instant::now();
        loop {
            let stats = self.stats();
            if condition(&stats) {
                return stats;
            }
            assert!(started.elapsed() < PATIENCE, "{what} did not happen: {stats:?}");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Answers the requests that the service has kept.
    pub fn release(&self) {
        self.commands.send(Command::Release).expect("the server runs");
    }

    pub fn begin_stop(&self, drain: Duration) -> Receiver<StopReport> {
        let (sender, receiver) = channel();
        self.commands.send(Command::Stop(drain, sender)).expect("the server runs");
        receiver
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        let (sender, _receiver) = channel();
        let _ = self.commands.send(Command::Stop(Duration::ZERO, sender));
        let ended = self.thread.take().map(JoinHandle::join);
        if !std::thread::panicking() {
            assert!(matches!(ended, Some(Ok(()))), "the server panicked");
        }
    }
}

async fn serve(change: impl FnOnce(&mut ServerConfig), addresses: Sender<SocketAddr>, commands: Receiver<Command>) {
    let identity = ServerIdentity::new(CLUSTER, NodeId(3), ShardId(1), Some(ClusterSecret::new(SECRET)));
    let mut config = ServerConfig::new(identity, || SERVER_NONCE);
    config.deadlines.sweep = Duration::from_millis(20);
    config.deadlines.linger = Duration::from_millis(300);
    change(&mut config);
    let service = Rc::new(TestService::default());
    let listener = Listener::bind("127.0.0.1:0".parse().expect("an address")).expect("a free port");
    let server = Server::start(listener, config, Rc::clone(&service));
    addresses.send(server.local_addr()).expect("the test waits");
    loop {
        match commands.try_recv() {
            Ok(Command::Stats(answer)) => answer.send(Snapshot::of(&server.stats())).expect("the test waits"),
            Ok(Command::Release) => service.release(),
            Ok(Command::Stop(drain, answer)) => {
                let _ = answer.send(server.stop(drain).await);
                return;
            }
            Err(TryRecvError::Empty) => drop(Timer::new(Duration::from_millis(2)).await),
            Err(TryRecvError::Disconnected) => return,
        };
    }
}
