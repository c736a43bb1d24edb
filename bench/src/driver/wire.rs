//! The fast driver: the protocol on bare non-blocking sockets, all of them on one thread.
//!
//! It must cost far less than the broker, or it measures itself. So bodies are encoded once (`batches`), many small frames
//! leave in one write and large bodies from where they lie (`outgoing`), replies are parsed as many as came (`incoming`),
//! and fetched bytes are checked as they stream through a small buffer (`entries`). `produce` and `fetch` say what is sent
//! and what an answer means; the loop here only moves bytes.

use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use minikafka_core::wire::FrameHeader;
use rustix::buffer::spare_capacity;
use rustix::event::epoll;

use crate::error::{BenchError, Doing, Result};
use crate::measure::Recorder;
use crate::pace::{Clock, Nanos, SECOND};
use crate::progress::Progress;

mod batches;
mod connection;
mod entries;
mod fetch;
mod incoming;
mod outgoing;
mod produce;
mod sink;

use connection::Connection;
pub use fetch::{FetchOptions, fetch};
use outgoing::Outgoing;
pub use produce::produce;
pub use sink::produce_into_sink;

/// Answers that have not come this long after the end are given up.
const DRAIN: Nanos = 30 * SECOND;
/// A request due sooner than this is waited for without sleeping: the kernel's timers are not that exact.
const SPIN: Nanos = 2_000_000;
/// How often the progress is shown.
const TICK: Nanos = 100_000_000;

/// What is sent and what the answers mean.
trait Traffic {
    /// Stages requests for connection `at`. Says whether it could stage more at once if `out` were empty.
    fn fill(&mut self, at: usize, out: &mut Outgoing, now: Nanos) -> Result<bool>;
    /// The head of a reply.
    fn head(&mut self, at: usize, header: &FrameHeader, head: &[u8], now: Nanos) -> Result<()>;
    /// More of the bulk of that reply.
    fn bulk(&mut self, _at: usize, _bytes: &[u8]) -> Result<()> {
        Err(BenchError::failed("a reply came with bulk that nobody asked for"))
    }
    /// All of the bulk was there; called for every reply with bulk.
    fn end(&mut self, _at: usize, _now: Nanos) -> Result<()> {
        Ok(())
    }
    /// When the next request is due, if that is known.
    fn due(&self) -> Option<Nanos>;
    /// Requests without an answer.
    fn in_flight(&self) -> usize;
    /// Whether nothing more is to be sent.
    fn is_done(&self) -> bool;
    /// What is counted.
    fn recorder(&mut self) -> &mut Recorder;
    /// Gives up what is in flight, and what was meant to be sent before `owed` and was not.
    fn give_up(&mut self, now: Nanos, owed: Nanos);
}

/// Runs traffic over its connections until `end`, then waits for the answers. Returns when it ended.
fn drive(
    traffic: &mut impl Traffic,
    connections: &mut [Connection],
    clock: &Clock,
    end: Nanos,
    progress: &Progress,
) -> Result<Nanos> {
    let poll = epoll::create(epoll::CreateFlags::CLOEXEC).doing(|| "creating an epoll".to_owned())?;
    for (at, connection) in connections.iter().enumerate() {
        let data = epoll::EventData::new_u64(at as u64);
        epoll::add(&poll, connection.stream(), data, epoll::EventFlags::IN).doing(|| "watching a socket".to_owned())?;
    }
    let mut events = Vec::with_capacity(connections.len().max(16));
    let (mut ending, mut next_tick, mut first) = (None, 0, 0);
    loop {
        let now = clock.now();
        if now >= next_tick {
            progress.show(now, traffic.recorder());
            next_tick = now + TICK;
        }
        if ending.is_none() && (now >= end || traffic.is_done()) {
            ending = Some(now);
            traffic.recorder().cut(now);
        }
        // An open loop sends everything that was meant for the run, however late: or the end would hide a stall.
        let owed = if now < end { now } else { end - 1 };
        let cut_short = ending.is_some_and(|ended| ended < end);
        let owes = !cut_short && traffic.due().is_some_and(|due| due < end);
        let mut at_once = false;
        // Another connection each time is asked first: requests of an open loop come one by one.
        first = (first + 1) % connections.len();
        for at in (first..connections.len()).chain(0..first) {
            let connection = &mut connections[at];
            if (ending.is_none() || owes) && connection.outgoing.is_short() {
                at_once |= traffic.fill(at, &mut connection.outgoing, owed)?;
            }
            if !connection.is_stuck {
                connection.send()?;
            }
            connection.watch(&poll, at)?;
        }
        if let Some(ended) = ending
            && (traffic.in_flight() == 0 && !owes || now >= ended + DRAIN)
        {
            traffic.give_up(now, if cut_short { 0 } else { end });
            return Ok(ended);
        }
        let (due, until) = match ending {
            None => (traffic.due(), end.min(next_tick)),
            Some(_) => (None, next_tick),
        };
        wait(&poll, &mut events, if at_once { Duration::ZERO } else { sleep(now, due, until) })?;
        for event in events.drain(..) {
            let (at, flags) = (event.data.u64() as usize, event.flags);
            let connection = &mut connections[at];
            if flags.contains(epoll::EventFlags::OUT) {
                connection.is_stuck = false;
            }
            if flags.intersects(epoll::EventFlags::IN | epoll::EventFlags::HUP | epoll::EventFlags::ERR) {
                connection.receive(at, traffic, clock)?;
            }
        }
    }
}

/// How long nothing can happen but an answer.
fn sleep(now: Nanos, due: Option<Nanos>, until: Nanos) -> Duration {
    if due.is_some_and(|due| due < now + SPIN) {
        return Duration::ZERO;
    }
    let wait = due.unwrap_or(Nanos::MAX).min(until).saturating_sub(now);
    Duration::from_millis(wait.div_ceil(1_000_000))
}

fn wait(poll: impl AsFd, events: &mut Vec<epoll::Event>, sleep: Duration) -> Result<()> {
    let timeout = rustix::fs::Timespec { tv_sec: 0, tv_nsec: sleep.as_nanos().min(999_000_000) as i64 };
    match epoll::wait(poll, spare_capacity(events), Some(&timeout)) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(error) => Err(io::Error::from(error)).doing(|| "waiting for sockets".to_owned()),
    }
}
