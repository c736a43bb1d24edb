//! Clients that are too many, too slow, or do not listen.

use std::io::{ErrorKind, Write};
use std::time::{Duration, Instant};

use minikafka_client::core::limits;
use minikafka_client::core::wire::{
    Api, FetchRequest, Hello, ListOffsetsReply, ListOffsetsRequest, ProduceReply, Role,
};
use minikafka_tests::raw::{RawClient, frame, hello};

use super::scene::{Scene, produce};

/// Idle connections to one shard, and to the gateway.
const IDLE_SHARD: usize = 1_000;
const IDLE_GATEWAY: usize = 200;
/// What one of them may cost in memory, kernel not counted.
const BYTES_PER_CONNECTION_MAX: u64 = 16 << 10;
/// For so long their processor time is measured.
const IDLE_WATCHED: Duration = Duration::from_secs(1);
/// Of that second, for the whole process: deadlines are swept, shards and gateway tick.
const PROCESSOR_MAX: Duration = Duration::from_millis(250);
/// Files that must be open for all that, in this process.
const FILES_MIN: u64 = 4_096;
/// A deadline is noticed at the next sweep, on a machine that may be busy.
const LATE_MAX: Duration = Duration::from_secs(5);
/// Memory that a client who never reads may cost: the replies queued for it, and as much again for fetches in work.
const UNREAD_BYTES_MAX: u64 = 2 * limits::CONNECTION_REPLY_BYTES_MAX as u64;

/// Raises how many files this process may have open.
fn raise_file_limit() {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the call writes one struct, which is ours.
    assert_eq!(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) }, 0);
    limit.rlim_cur = limit.rlim_max;
    // SAFETY: the call reads one struct, which is ours.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) }, 0);
    assert!(limit.rlim_max >= FILES_MIN, "at most {} files may be open: raise it with ulimit -n", limit.rlim_max);
}

fn is_well(client: &mut RawClient) {
    client.ask(&frame(Api::ListOffsets, 3, &ListOffsetsRequest { partitions: Vec::new() })).good::<ListOffsetsReply>();
}

#[test]
fn a_thousand_idle_connections_cost_little() {
    raise_file_limit();
    let mut scene = Scene::quiet();
    let address = scene.targets[0].address.clone();
    // What the first connections make the process allocate once is not theirs.
    drop((0..50).map(|_| RawClient::greeted(&address)).collect::<Vec<_>>());
    let before = scene.node.usage().expect("proc");
    let mut clients: Vec<_> = (0..IDLE_SHARD).map(|_| RawClient::greeted(&address)).collect();
    let gateways: Vec<_> = (0..IDLE_GATEWAY).map(|_| RawClient::greeted(scene.node.gateway())).collect();
    let opened = scene.node.usage().expect("proc");
    let each = opened.resident_bytes.saturating_sub(before.resident_bytes) / (IDLE_SHARD + IDLE_GATEWAY) as u64;
    std::thread::sleep(IDLE_WATCHED);
    let idle = scene.node.usage().expect("proc");
    let processor = idle.processor - opened.processor;
    println!("{each} bytes each; {processor:?} of processor time in {IDLE_WATCHED:?}");
    assert!(each <= BYTES_PER_CONNECTION_MAX, "{each} bytes per connection");
    assert!(processor <= PROCESSOR_MAX, "{processor:?} in {IDLE_WATCHED:?} of idleness");
    clients.iter_mut().step_by(50).for_each(is_well);
    // Others work as ever, and the idle ones are still there afterwards.
    scene.start_load();
    clients.iter_mut().step_by(50).for_each(is_well);
    drop((clients, gateways));
    scene.finish();
}

#[test]
fn a_client_that_never_reads_stops_only_itself() {
    let mut scene = Scene::start();
    let target = scene.topic_of_one("large", limits::BATCH_BODY_BYTES_MAX);
    let mut good = RawClient::greeted(&target.address);
    let value = vec![5; 1 << 20];
    for _ in 0..4 {
        let (request, body) = target.batch(&[&value]);
        good.ask(&produce(&request, &body)).good::<ProduceReply>();
    }
    let before = scene.node.usage().expect("proc");
    let mut deaf = RawClient::greeted(&target.address);
    deaf.stream.set_write_timeout(Some(Duration::from_millis(200))).expect("a timeout can be set");
    let fetch = frame(
        Api::Fetch,
        3,
        &FetchRequest { wait_ms_max: 0, bytes_min: 0, bytes_max: 4 << 20, partitions: vec![target.fetch()] },
    );
    let mut asked = 0;
    let stopped = loop {
        match deaf.stream.write_all(&fetch) {
            Ok(()) => asked += 1,
            Err(error) => break error,
        }
        assert!(asked < 1 << 20, "the server reads on, whatever is unread");
    };
    assert!(matches!(stopped.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut), "{stopped}");
    scene.undisturbed();
    is_well(&mut good);
    let grown = scene.node.usage().expect("proc").resident_bytes.saturating_sub(before.resident_bytes);
    println!("{asked} fetches of 4 MiB asked for and not read: {} KiB more", grown >> 10);
    assert!(grown <= UNREAD_BYTES_MAX + (64 << 20), "{grown} bytes more");
    drop(deaf);
    scene.undisturbed();
    scene.finish();
}

#[test]
fn a_hello_that_drips_is_sent_away() {
    let scene = Scene::quiet();
    // Long enough that its bytes, one at a time, do not run out before the deadline.
    let greeting = frame(Api::Hello, 1, &Hello { client_name: "x".repeat(1_000), ..hello(Role::Client) });
    let deadline = Duration::from_millis(limits::HELLO_DEADLINE_MS);
    let started = Instant::now();
    let dripping: Vec<_> = scene
        .ports()
        .into_iter()
        .map(|(_, address)| {
            let bytes = greeting.clone();
            std::thread::spawn(move || RawClient::connect(&address).drip(&bytes, deadline + LATE_MAX))
        })
        .collect();
    let mut silent = RawClient::connect(&scene.targets[0].address);
    silent.is_ended();
    assert!(started.elapsed() >= deadline && started.elapsed() < deadline + LATE_MAX);
    for client in dripping {
        let after = client.join().expect("a client that drips is sent away");
        assert!(after >= deadline, "sent away after {after:?} already");
    }
    scene.finish();
}
