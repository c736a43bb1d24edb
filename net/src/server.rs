//! Accepts connections and drives them, until it is stopped.

use std::cell::Cell;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use glommio::net::TcpStream;
use glommio::timer::Timer;
use glommio::{Task, spawn_local};
use minikafka_core::wire::frame::{Envelope, encode_frame};
use minikafka_core::wire::{Api, ErrorReply, Wire};
use minikafka_core::{ErrorCode, limits};

use crate::connection;
use crate::connection_state::ConnectionState;
use crate::deadline::Deadlines;
use crate::handshake::ServerIdentity;
use crate::listener::{Listener, send_away};
use crate::service::Service;
use crate::shard_net::ShardNet;
use crate::stats::NetStats;
use crate::transport::TcpTransport;

/// Pause after a failed accept (out of descriptors), so that it does not spin.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);
/// How often a stopping server looks whether its connections have ended.
const STOP_POLL: Duration = Duration::from_millis(5);
/// What a client that found no place waits before it tries again.
const REFUSED_RETRY_AFTER_MS: u32 = 1_000;

/// How a server treats its connections. The defaults are those of `limits`.
pub struct ServerConfig {
    /// Who it is.
    pub identity: ServerIdentity,
    /// Draws 16 unpredictable bytes, for proofs of the cluster secret.
    pub nonce: Box<dyn Fn() -> [u8; 16]>,
    /// How long things may take.
    pub deadlines: Deadlines,
    /// Connections at most.
    pub connections_max: u32,
    /// Requests in flight per connection.
    pub in_flight_max: u32,
    /// Their bytes.
    pub in_flight_bytes_max: u64,
    /// Bytes of replies queued per connection, beyond which it is not read from.
    pub reply_bytes_max: usize,
}

impl ServerConfig {
    /// The defaults.
    pub fn new(identity: ServerIdentity, nonce: impl Fn() -> [u8; 16] + 'static) -> Self {
        Self {
            identity,
            nonce: Box::new(nonce),
            deadlines: Deadlines::default(),
            connections_max: limits::CONNECTIONS_MAX,
            in_flight_max: limits::CONNECTION_IN_FLIGHT_MAX,
            in_flight_bytes_max: u64::from(limits::CONNECTION_IN_FLIGHT_BYTES_MAX),
            reply_bytes_max: limits::CONNECTION_REPLY_BYTES_MAX as usize,
        }
    }
}

impl fmt::Debug for ServerConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerConfig").field("identity", &self.identity).finish_non_exhaustive()
    }
}

/// A running server of one shard. Stop it with [`Server::stop`].
pub struct Server {
    net: Rc<ShardNet>,
    listener: Rc<Listener>,
    stopping: Rc<Cell<bool>>,
    accepting: Task<()>,
    /// Cancelled when dropped.
    sweeping: Task<()>,
}

/// How stopping went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StopReport {
    /// Connections that were open when the stop began.
    pub connections: usize,
    /// Those that had to be cut off because they were not done by the deadline.
    pub cut_off: usize,
}

impl Server {
    /// Accepts connections from `listener` and hands their requests to `service`. All tasks run in the task queue
    /// that calls this.
    pub fn start<S: Service>(listener: Listener, config: ServerConfig, service: Rc<S>) -> Self {
        let net = ShardNet::new(config);
        let listener = Rc::new(listener);
        let stopping = Rc::new(Cell::new(false));
        let accepting = spawn_local(accept(Rc::clone(&listener), Rc::clone(&net), Rc::clone(&stopping), service));
        let sweeping = spawn_local(sweep(Rc::clone(&net)));
        Self { net, listener, stopping, accepting, sweeping }
    }

    /// The address listened on.
    pub fn local_addr(&self) -> SocketAddr {
        self.listener.local_addr()
    }

    /// What its connections did.
    pub fn stats(&self) -> Rc<NetStats> {
        Rc::clone(&self.net.stats)
    }

    /// Cuts every connection off, whatever is in flight, and takes no more.
    pub fn cut(&self) {
        self.stopping.set(true);
        self.listener.stop();
        self.net.for_each(ConnectionState::close);
    }

    /// Stops: no more connections, no more requests; those in flight are answered within `drain`, then what is left
    /// is cut off.
    pub async fn stop(self, drain: Duration) -> StopReport {
        let Self { net, listener, stopping, accepting, sweeping } = self;
        stopping.set(true);
        listener.stop();
        accepting.await;
        drop(listener);
        let connections = net.connections_open();
        net.for_each(ConnectionState::drain);
        wait_until_none(&net, drain).await;
        let cut_off = net.connections_open();
        net.for_each(ConnectionState::close);
        // What is left now waits inside the service, which alone can end it.
        wait_until_none(&net, net.config.deadlines.linger).await;
        sweeping.cancel().await;
        StopReport { connections, cut_off }
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("address", &self.local_addr()).finish_non_exhaustive()
    }
}

async fn wait_until_none(net: &ShardNet, patience: Duration) {
    let mut left = patience;
    while net.connections_open() > 0 && !left.is_zero() {
        let pause = left.min(STOP_POLL);
        Timer::new(pause).await;
        left -= pause;
    }
}

async fn accept<S: Service>(listener: Rc<Listener>, net: Rc<ShardNet>, stopping: Rc<Cell<bool>>, service: Rc<S>) {
    while !stopping.get() {
        match listener.accept().await {
            Ok(stream) if net.connections_open() >= net.config.connections_max as usize => refuse(&net, stream),
            Ok(stream) => begin(&net, stream, &service),
            Err(_) if stopping.get() => break,
            Err(error) => {
                net.stats.accepts_failed.increment();
                if net.log.pass() {
                    tracing::error!(%error, "accept failed; check the limit of open files");
                }
                Timer::new(ACCEPT_RETRY).await;
            }
        }
        glommio::yield_if_needed().await;
    }
}

fn begin<S: Service>(net: &Rc<ShardNet>, stream: TcpStream, service: &Rc<S>) {
    let peer = stream.peer_addr().ok();
    let transport: io::Result<TcpTransport> = TcpTransport::new(stream);
    match transport {
        Ok(transport) => {
            let state = ConnectionState::new(net, Box::new(transport), peer);
            let registration = net.register(&state);
            let service = Rc::clone(service);
            spawn_local(async move {
                connection::run(state, service).await;
                drop(registration);
            })
            .detach();
        }
        Err(error) => {
            net.stats.accepts_failed.increment();
            tracing::debug!(?peer, %error, "the connection ended before it began");
        }
    }
}

fn refuse(net: &ShardNet, stream: TcpStream) {
    net.stats.connections_refused.increment();
    if net.log.pass() {
        tracing::warn!(peer = ?stream.peer_addr().ok(), max = net.config.connections_max, "too many connections");
    }
    let code = ErrorCode::Overloaded;
    let envelope = Envelope { is_reply: true, error: Some(code), ..Envelope::request(Api::Hello, 0) };
    let mut reply = Vec::new();
    encode_frame(&mut reply, envelope, &ErrorReply::of(code).after_ms(REFUSED_RETRY_AFTER_MS).to_bytes(), 0);
    net.stats.count_error(code);
    send_away(stream, &reply);
}

async fn sweep(net: Rc<ShardNet>) {
    let interval = net.config.deadlines.sweep;
    let mut since_refill = Duration::ZERO;
    loop {
        Timer::new(interval).await;
        net.sweep();
        since_refill += interval;
        if since_refill >= Duration::from_secs(1) {
            since_refill = Duration::ZERO;
            net.refill_log();
        }
    }
}
