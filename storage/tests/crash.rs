//! Random histories on the simulated disk, crashed at many moments: what was reported durable is there, what is there was
//! written, and the log goes on. A failure names its seed and its crash; `CRASH_SEED=n` runs that history alone,
//! `CRASH_SEEDS=n` the first n.
//!
//! That these tests can fail is shown by `a_disk_that_lies_is_caught` (acknowledging before durable), and was checked by
//! breaking the code by hand. Each of these made tests here fail: flushes of any generation count; a truncation does not
//! wait for its flush; completions out of order count as durable; recovery does not sync; a file from the pool is used
//! before its name is durable; every void segment is released; footers are written before their entries are committed;
//! bodies are not verified by the scan; the newest sealed segment is dropped. (That flush numbers must grow is a second
//! line behind the generation: taking it out alone is not noticed.)

mod history;

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::time::Duration;

use history::*;
use minikafka_core::{Epoch, LogIndex, LogPoint, RangeId, RangeKey};
use minikafka_storage::disk::Durability;
use minikafka_storage::disk::sim::{Faults, SimDisk, SimExecutor};
use minikafka_storage::{AppendError, Opened, RangeLog, Reader, ShardStorage};

/// What was promised to the outside at a moment.
#[derive(Clone, Copy, Debug)]
struct Fact {
    moment: usize,
    durable: LogPoint,
    marker: Epoch,
}

/// One history: a log under random use, and what it promised.
struct History {
    disk: SimDisk,
    writer: Writer,
    facts: Rc<RefCell<Vec<Fact>>>,
    marker: Epoch,
    committed: LogPoint,
}

impl History {
    /// Notes what is promised from now on.
    fn note(&self, durable: LogPoint) {
        self.facts.borrow_mut().push(Fact { moment: self.disk.moment(), durable, marker: self.marker });
    }

    fn note_durable(&self, log: &RangeLog<SimDisk>) {
        let durable = log.durable_index();
        let path = self.writer.book.borrow().path_to(self.writer.state.end);
        self.note(if durable.0 == 0 { LogPoint::START } else { path[durable.0 as usize - 1] });
    }

    fn draw(&mut self, bound: u64) -> u64 {
        self.writer.random.below(bound)
    }

    async fn run(&mut self, log: &RangeLog<SimDisk>, steps: u64) {
        for _ in 0..steps {
            match self.draw(100) {
                0..55 => self.append(log).await,
                55..65 if log.end().index > log.durable_index() => {
                    drop(log.durable_above(LogIndex(log.end().index.0 - 1)).await);
                }
                55..75 => self.pause().await,
                75..79 => log.roll(minikafka_storage::RecoveryVisitor::take_snapshot(&mut self.writer.state)),
                79..83 => self.mark(log).await,
                83..88 => self.truncate(log).await,
                88..94 => self.commit(log),
                94..96 => self.drop_segments(log).await,
                96..98 => log.seal_tail(),
                _ => self.read(log).await,
            }
            self.note_durable(log);
        }
    }

    async fn append(&mut self, log: &RangeLog<SimDisk>) {
        let partition = self.draw(4) as u32;
        let bytes = match self.draw(40) {
            0..25 => self.draw(600),
            25..35 => self.draw(8000),
            35..39 => 10_000 + self.draw(40_000),
            _ => 300_000 + self.draw(1_000_000),
        };
        let whole = bytes > 60_000 || self.writer.random.one_in(10);
        for _ in 0..1 + self.draw(4) {
            log.append_space().await.expect("space");
            match self.writer.append(log, partition, bytes as u32, whole) {
                Ok(_) | Err(AppendError::Backlog(_)) => {}
                Err(error) => panic!("append: {error}"),
            }
        }
    }

    async fn pause(&mut self) {
        let micros = self.draw(2000);
        self.disk.executor().clone().sleep(Duration::from_micros(micros)).await;
    }

    async fn mark(&mut self, log: &RangeLog<SimDisk>) {
        self.writer.epoch = self.writer.epoch.next();
        if log.persist_marker(self.writer.epoch).await.expect("a marker") {
            self.marker = self.writer.epoch;
        }
    }

    fn commit(&mut self, log: &RangeLog<SimDisk>) {
        let durable = log.durable_index();
        let path = self.writer.book.borrow().path_to(self.writer.state.end);
        if durable > self.committed.index {
            let index = self.committed.index.0 + 1 + self.draw(durable.0 - self.committed.index.0);
            self.committed = path[index as usize - 1];
            log.set_committed(LogIndex(index));
        }
    }

    /// Truncates to somewhere between what is committed and the end.
    async fn truncate(&mut self, log: &RangeLog<SimDisk>) {
        let end = self.writer.state.end;
        let index = self.committed.index.0 + self.draw(end.index.0 - self.committed.index.0 + 1);
        let path = self.writer.book.borrow().path_to(end);
        let point = if index == 0 { LogPoint::START } else { path[index as usize - 1] };
        // From here on, only what stays is promised.
        let durable = log.durable_index().0.min(index);
        self.note(if durable == 0 { LogPoint::START } else { path[durable as usize - 1] });
        let mut state = RangeState::default();
        log.truncate_to(point, &mut state).await.expect("truncate");
        let moment = self.disk.moment();
        let mut book = self.writer.book.borrow_mut();
        for point in &path[index as usize..] {
            if let Some(written) = book.entries.get_mut(&(point.index.0, point.hash.0)) {
                written.void_since = Some(moment);
            }
        }
        assert_eq!(state, book.state_at(point), "the state is replayed up to the truncation");
        drop(book);
        self.writer.state = state;
        self.writer.epoch = self.writer.epoch.next();
        assert_eq!((log.end(), log.durable_index()), (point, point.index));
    }

    async fn drop_segments(&mut self, log: &RangeLog<SimDisk>) {
        let below = LogIndex(self.draw(self.committed.index.0 + 2));
        let before = log.first_index();
        let first = log.drop_segments_before(below).await.expect("drop segments");
        assert_eq!(first, log.first_index());
        assert!(first >= before && first <= below.max(before), "what is not below stays");
    }

    async fn read(&mut self, log: &RangeLog<SimDisk>) {
        let book = self.writer.book.borrow().clone();
        check_by_index(log, &book, "while running").await;
        check_by_partition(log, &book, 40_000, "while running").await;
    }
}

/// Fills the pool with files of a range that is gone, whose flushes had higher numbers than the log's will have.
async fn use_pool(storage: &Rc<ShardStorage<SimDisk>>, seed: u64) {
    let former = RangeKey { range: RangeId(1), ..RANGE };
    let Opened { log, .. } = RangeLog::open(storage.clone(), former, &mut RangeState::default()).await.expect("open");
    let mut writer = Writer::of(former, seed ^ 0xf0);
    for at in 0..60 {
        log.append_space().await.expect("space");
        writer.append(&log, at % 4, 2000, false).expect("append");
        log.seal_tail();
        log.durable_above(LogIndex(u64::from(at))).await.expect("durable");
    }
    log.delete().await.expect("delete");
}

/// Runs a history from an empty disk.
fn history(seed: u64, faults: Faults) -> (SimDisk, Rc<RefCell<Book>>, Vec<Fact>) {
    let durability = if seed.is_multiple_of(2) { Durability::Dsync } else { Durability::GroupFdatasync };
    let executor = SimExecutor::new(seed);
    let disk = SimDisk::new(&executor, durability);
    disk.set_faults(faults);
    let facts: Rc<RefCell<Vec<Fact>>> = Rc::default();
    let mut history = History {
        disk: disk.clone(),
        writer: Writer::new(seed ^ 0x5eed),
        facts: facts.clone(),
        marker: Epoch(0),
        committed: LogPoint::START,
    };
    let book = history.writer.book.clone();
    let used = disk.clone();
    executor.run(async move {
        let storage = storage(&used, &sim_dir(), small_config()).await;
        use_pool(&storage, seed).await;
        let Opened { log, .. } = open(&storage, &mut RangeState::default()).await;
        history.run(&log, 120).await;
        if history.draw(2) == 0 {
            log.close().await.expect("close");
            history.note_durable(&log);
        }
    });
    executor.abandon();
    let facts = facts.borrow().clone();
    (disk, book, facts)
}

/// Recovers what a crash left and checks every invariant.
fn check_crash(disk: SimDisk, moment: usize, book: &Book, facts: &[Fact], context: &str) {
    let promised = facts.iter().rev().find(|fact| fact.moment <= moment);
    let (durable, marker) = promised.map_or((LogPoint::START, Epoch(0)), |fact| (fact.durable, fact.marker));
    let book = book.clone();
    let context = context.to_owned();
    let executor = disk.executor().clone();
    executor.run(async move {
        let storage = storage(&disk, &sim_dir(), small_config()).await;
        let mut state = RangeState::default();
        let Opened { log, report } = open(&storage, &mut state).await;
        assert_eq!(report.damage, [], "{context}: a crash is not rot");
        let end = log.end();
        assert!(end.index >= durable.index, "{context}: {durable:?} was durable, the log ends at {end:?}");
        assert!(end == LogPoint::START || book.at(end).is_some(), "{context}: {end:?} was never written");
        let path = book.path_to(end);
        assert!(
            durable.index.0 == 0 || path[durable.index.0 as usize - 1] == durable,
            "{context}: {durable:?} is lost"
        );
        for point in &path {
            let void_since = book.at(*point).and_then(|written| written.void_since);
            assert!(void_since.is_none_or(|since| since > moment), "{context}: {point:?} was truncated away");
        }
        assert!(log.marker() >= marker, "{context}: marker {marker} is lost, {} is there", log.marker());
        assert_eq!(state, book.state_at(end), "{context}: the state is rebuilt");
        assert_eq!(report.last_epoch, book.at(end).map_or(Epoch(0), |written| written.header.epoch), "{context}");
        check_by_index(&log, &book, &context).await;
        check_by_partition(&log, &book, 50_000, &context).await;
        go_on(&disk, log, state, book, &context).await;
    });
    executor.abandon();
}

/// Recovers once more, appends, closes, recovers: nothing changes but what was appended.
async fn go_on(disk: &SimDisk, log: RangeLog<SimDisk>, state: RangeState, book: Book, context: &str) {
    let end = log.end();
    drop(log);
    // Tasks of the first log may still run; the second one works on what a kill of the process left.
    let disk = &disk.killed(disk.executor());
    let again = storage(disk, &sim_dir(), small_config()).await;
    let mut second = RangeState::default();
    let Opened { log, .. } = open(&again, &mut second).await;
    assert_eq!((log.end(), &second), (end, &state), "{context}: a second recovery finds the same");
    let mut writer = Writer::new(end.hash.0);
    (writer.state, writer.epoch) = (second, Epoch(1_000_000));
    *writer.book.borrow_mut() = book;
    for at in 0..12 {
        writer.append(&log, at % 4, 100 + at * 900, at % 5 == 4).expect("append after recovery");
    }
    let last = writer.state.end;
    log.durable_above(LogIndex(last.index.0 - 1)).await.expect("durable after recovery");
    log.set_committed(last.index);
    log.close().await.expect("close after recovery");
    let third = storage(disk, &sim_dir(), small_config()).await;
    let mut state = RangeState::default();
    let Opened { log, report } = open(&third, &mut state).await;
    assert_eq!((report.damage, log.end(), &state), (vec![], last, &writer.state), "{context}: the log went on");
    let book = writer.book.borrow().clone();
    check_by_index(&log, &book, context).await;
}

/// Whether a history with its crashes passes; prints what replays it when it does not.
fn check_history(seed: u64, faults: Faults, crashes: u64) {
    let (disk, book, facts) = history(seed, faults);
    let book = book.borrow().clone();
    for crash in 0..crashes {
        let moment = (disk.moment() as u64 * crash / (crashes - 1)) as usize;
        let executor = SimExecutor::new(seed.wrapping_mul(1000) + crash);
        let image = disk.crash_at(moment, seed ^ crash << 32, &executor);
        check_crash(image, moment, &book, &facts, &format!("seed {seed}, crash {crash} at {moment}"));
    }
    let executor = SimExecutor::new(seed);
    check_crash(disk.killed(&executor), disk.moment(), &book, &facts, &format!("seed {seed}, killed"));
}

#[test]
fn histories_survive_crashes() {
    let number = |name| std::env::var(name).ok().and_then(|seed| seed.parse::<u64>().ok());
    let count = number("CRASH_SEEDS").unwrap_or(40);
    for seed in number("CRASH_SEED").map_or(0..count, |seed| seed..seed + 1) {
        check_history(seed, Faults::default(), 24);
    }
}

#[test]
fn every_image_of_a_short_history_recovers() {
    for seed in 0..4 {
        let (disk, book, facts) = history(seed + 500, Faults::default());
        let book = book.borrow().clone();
        for step in 1..40 {
            let moment = disk.moment() * step / 40;
            let pending = disk.medium_at(moment).pending();
            for kept in 0..1u64 << pending.min(4) {
                let executor = SimExecutor::new(seed);
                let image = disk.crash_keeping(moment, kept, &executor);
                check_crash(
                    image,
                    moment,
                    &book,
                    &facts,
                    &format!("seed {}, moment {moment}, kept {kept:b}", seed + 500),
                );
            }
        }
    }
}

#[test]
fn a_crash_during_recovery_changes_nothing() {
    for seed in 0..12 {
        let (disk, book, facts) = history(seed + 900, Faults::default());
        let book = book.borrow().clone();
        for crash in 0..6 {
            let moment = disk.moment() * (crash + 1) / 7;
            let executor = SimExecutor::new(seed);
            let first = disk.crash_at(moment, seed ^ (crash as u64) << 20, &executor);
            let used = first.clone();
            executor.run(async move {
                let storage = storage(&used, &sim_dir(), small_config()).await;
                drop(open(&storage, &mut RangeState::default()).await);
            });
            executor.abandon();
            for second in 0..4 {
                let at = first.moment() * second / 3;
                let executor = SimExecutor::new(seed + 1);
                let image = first.crash_at(at, second as u64, &executor);
                let context = format!("seed {}, crash {crash}, second crash at {at}", seed + 900);
                check_crash(image, moment, &book, &facts, &context);
            }
        }
    }
}

#[test]
fn what_recovery_calls_durable_survives_a_power_loss() {
    for seed in 0..28 {
        let (disk, book, _) = history(seed + 1300, Faults::default());
        let book = book.borrow().clone();
        let executor = SimExecutor::new(seed);
        let at = disk.moment() * (seed as usize + 2) / 30;
        let killed = disk.killed_at(at, &executor);
        let used = killed.clone();
        let (durable, marker) = executor.run(async move {
            let storage = storage(&used, &sim_dir(), small_config()).await;
            let Opened { report, .. } = open(&storage, &mut RangeState::default()).await;
            (report.end, report.marker)
        });
        executor.abandon();
        let moment = killed.moment();
        for crash in 0..4 {
            let executor = SimExecutor::new(seed + 1);
            let image = killed.crash_at(moment, crash, &executor);
            // The moments of the second disk count from its own start: nothing of the book is void by then but long ago.
            let fact = Fact { moment, durable, marker };
            let context = format!("seed {}, killed, then crash {crash}", seed + 1300);
            check_crash(image, moment, &without_void(&book, durable), &[fact], &context);
        }
    }
}

/// The book of the entries up to `end` alone.
fn without_void(book: &Book, end: LogPoint) -> Book {
    let mut left = Book::default();
    for point in book.path_to(end) {
        if let Some(written) = book.at(point) {
            left.entries.insert((point.index.0, point.hash.0), Written { void_since: None, ..written.clone() });
        }
    }
    left
}

#[test]
fn a_disk_that_lies_is_caught() {
    let lies = Faults { lies_about_durability: true, ..Faults::default() };
    let caught = (0..10).filter(|seed| {
        let checked = catch_unwind(AssertUnwindSafe(|| check_history(*seed, lies.clone(), 24)));
        checked.is_err()
    });
    assert!(caught.count() >= 8, "acknowledging before durable must be noticed by nearly every history");
}

#[test]
fn a_failed_write_stops_the_log_and_what_was_durable_stays() {
    for seed in 0..20 {
        let executor = SimExecutor::new(seed);
        let disk = SimDisk::new(&executor, Durability::Dsync);
        let used = disk.clone();
        let (durable, book) = executor.run(async move {
            let storage = storage(&used, &sim_dir(), small_config()).await;
            let Opened { log, .. } = open(&storage, &mut RangeState::default()).await;
            let mut writer = Writer::new(seed);
            used.set_faults(Faults { write: Some(5 + seed), ..Faults::default() });
            loop {
                if log.append_space().await.is_err() {
                    break;
                }
                match writer.append(&log, 0, 3000, false) {
                    Ok(_) => used.executor().clone().sleep(Duration::from_micros(400)).await,
                    Err(AppendError::Failed(_)) => break,
                    Err(error) => panic!("seed {seed}: {error}"),
                }
            }
            let durable = log.durable_index();
            used.executor().clone().sleep(Duration::from_secs(1)).await;
            assert_eq!(log.durable_index(), durable, "seed {seed}: nothing becomes durable after a failure");
            assert!(log.failed().is_some() && log.durable_above(durable).await.is_err());
            assert!(log.persist_marker(Epoch(9)).await.is_err());
            let mut reader = Reader::default();
            let read = log.read_partition(key(0), minikafka_core::Offset(0), durable, 1000, &mut reader).await;
            assert_eq!(entries(&read.expect("reads go on")).len(), 1);
            (durable, writer.book.borrow().clone())
        });
        executor.abandon();
        let path = book.path_to(
            book.entries
                .values()
                .next_back()
                .map_or(LogPoint::START, |last| LogPoint { index: last.header.index, hash: last.header.running_hash }),
        );
        let fact = Fact { moment: 0, durable: path[durable.0 as usize - 1], marker: Epoch(0) };
        let after = SimExecutor::new(seed + 1);
        check_crash(disk.crash_at(disk.moment(), seed, &after), disk.moment(), &book, &[fact], &format!("seed {seed}"));
    }
}

#[test]
fn a_full_disk_refuses_and_recovers_by_itself() {
    let executor = SimExecutor::new(3);
    let disk = SimDisk::new(&executor, Durability::Dsync);
    let used = disk.clone();
    executor.run(async move {
        let storage = storage(&used, &sim_dir(), small_config()).await;
        let Opened { log, .. } = open(&storage, &mut RangeState::default()).await;
        let mut writer = Writer::new(3);
        used.set_capacity(400 << 10);
        let mut refused = 0;
        while refused < 3 {
            log.append_space().await.expect("space in memory");
            match writer.append(&log, 0, 3000, false) {
                Ok(_) => used.executor().clone().sleep(Duration::from_millis(1)).await,
                Err(AppendError::NoSpace | AppendError::Backlog(_)) => {
                    refused += 1;
                    used.executor().clone().sleep(Duration::from_secs(3)).await;
                }
                Err(error) => panic!("{error}"),
            }
        }
        assert!(log.failed().is_none(), "a full disk is no failure");
        used.set_capacity(u64::MAX);
        used.executor().clone().sleep(Duration::from_secs(3)).await;
        writer.append(&log, 0, 3000, false).expect("appends go on");
        let end = log.end().index;
        log.durable_above(LogIndex(end.0 - 1)).await.expect("what waited becomes durable");
        let book = writer.book.borrow().clone();
        check_by_index(&log, &book, "after the disk was full").await;
    });
}
