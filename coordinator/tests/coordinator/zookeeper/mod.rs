//! The coordinator in a real ZooKeeper: the conformance suite, and what networks and servers do to it.

mod installation;
mod proxy;
mod server;
mod weather;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use minikafka_coordinator::zookeeper::{SESSION_TIMEOUT, SESSION_TIMEOUT_MIN};
use minikafka_coordinator::{CoordinatorClient, ZooKeeperAddress, ZooKeeperSession};

use crate::conformance::{self, TestSession};
use server::ZooKeeperServer;

/// A session that a busy machine does not lose.
fn session(address: &ZooKeeperAddress) -> TestSession {
    session_of(address, SESSION_TIMEOUT)
}

/// A session that expires soon.
fn brief_session(address: &ZooKeeperAddress) -> TestSession {
    session_of(address, SESSION_TIMEOUT_MIN)
}

fn session_of(address: &ZooKeeperAddress, timeout: Duration) -> TestSession {
    let session = Arc::new(ZooKeeperSession::open_with(address, timeout).expect("one more thread"));
    let client = CoordinatorClient::new(session.clone());
    TestSession { client, session: session.clone(), lose: Box::new(move || session.expire()) }
}

#[test]
fn it_conforms() {
    let server = ZooKeeperServer::shared();
    let roots = AtomicU32::new(0);
    conformance::run(&|| {
        let address = server.address(&format!("/conformance/{}", roots.fetch_add(1, Ordering::Relaxed)));
        Box::new(move || session(&address))
    });
}
