//! What connections cost, and what they leave behind. In a process of its own, one test after the other, because it
//! measures the process.

#[path = "support/mod.rs"]
mod support;

use std::net::TcpStream;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use minikafka_core::wire::{Api, Role};
use support::*;

const CONNECTIONS: usize = 1_000;
const BYTES_PER_CONNECTION_MAX: usize = 8 << 10;

static ALONE: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn open_files() -> usize {
    std::fs::read_dir("/proc/self/fd").expect("proc").count()
}

fn resident_bytes() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("proc");
    let pages: usize = statm.split(' ').nth(1).and_then(|pages| pages.parse().ok()).expect("resident pages");
    pages * 4096
}

#[test]
fn a_thousand_idle_connections_cost_little() {
    let _alone = alone();
    let server = TestServer::start();
    drop((0..50).map(|_| server.greeted()).collect::<Vec<_>>());
    server.wait_for("the end of the first", |stats| stats.open == 0);
    let before = resident_bytes();
    let mut clients: Vec<_> = (0..CONNECTIONS).map(|_| server.greeted()).collect();
    clients.iter_mut().for_each(Client::is_well);
    let each = resident_bytes().saturating_sub(before) / CONNECTIONS;
    let busy = server.stats().cpu;
    std::thread::sleep(Duration::from_secs(1));
    let idle = server.stats();
    let cpu = idle.cpu - busy;
    println!("{each} bytes and {:?} of processor time per second each", cpu / CONNECTIONS as u32);
    assert_eq!(idle.open, CONNECTIONS as u32);
    assert!(each <= BYTES_PER_CONNECTION_MAX, "{each} bytes per connection");
    // Most of it is the test's own polling; the sweep runs every 20 ms here.
    assert!(cpu < Duration::from_millis(150), "{cpu:?} of one idle second");
    clients.iter_mut().for_each(Client::is_well);
}

#[test]
fn connections_that_come_and_go_leave_nothing() {
    let _alone = alone();
    let server = TestServer::start();
    let mut bystander = server.greeted();
    let before = open_files();
    for round in 0..600 {
        let mut client = server.greeted();
        match round % 3 {
            0 => client.is_well(),
            1 => client.send(&fetch(1, 50, 1 << 20, 4_096)),
            _ => drop(TcpStream::connect(server.address)),
        }
    }
    server.wait_for("the end of all others", |stats| stats.open == 1);
    assert_eq!(open_files(), before);
    bystander.is_well();
}

#[test]
fn an_answer_still_owed_does_not_keep_the_socket() {
    let _alone = alone();
    let server = TestServer::with(|config| config.deadlines.finish = Duration::from_millis(20));
    let before = open_files();
    for _ in 0..20 {
        server.proven(Role::Peer).send(&frame(Api::Reconcile, 3, b""));
    }
    server.wait_for("all requests", |stats| stats.frames == 3 * 20 && stats.open == 0);
    assert_eq!(open_files(), before);
    server.release();
    server.greeted().is_well();
}
