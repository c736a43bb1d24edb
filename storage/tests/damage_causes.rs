//! Every cause of damage that a disk is known for, on random logs: after it, everything outside the blocks concerned is
//! served, nothing wrong is, and nothing is missing without a [`Damage`] that names it.
//!
//! A log with sealed, rolled and active segments in recycled files is written and closed; then a cause changes the files, by
//! seed; then the log is opened and each partition is read as a consumer does that skips damage. A failure names cause and
//! seed; `DAMAGE_SEED=n` runs that seed alone. Absent: damage to the last flush of an open log, which looks like a torn end
//! (`crash.rs`), and to the promise file (beside its code).

mod history;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use history::*;
use minikafka_core::entry::EntryHeader;
use minikafka_core::{Epoch, Generation, LogIndex, LogPoint, Offset, RangeId, RangeKey};
use minikafka_storage::disk::Durability;
use minikafka_storage::disk::sim::{SimDisk, SimExecutor, SimRandom};
use minikafka_storage::flush::{FLUSH_HEADER_BYTES, FlushHeader};
use minikafka_storage::{
    AppendError, DamageKind, EntrySource, Lost, MendError, Opened, RangeLog, ReadError, Reader, SharedSlice,
    StorageConfig,
};

const BLOCK: u64 = 4096;
const PARTITIONS: u32 = 4;
const SEEDS: u64 = 12;

/// Many small segments.
fn config() -> StorageConfig {
    StorageConfig { segment_bytes_max: 64 << 10, ..small_config() }
}

/// A flush as it was written.
struct Flush {
    segment: usize,
    blocks: std::ops::Range<u64>,
    entries: Vec<LogIndex>,
}

/// A log, and where everything in it stands.
struct Scene {
    disk: SimDisk,
    book: Book,
    state: RangeState,
    segments: Vec<PathBuf>,
    flushes: Vec<Flush>,
    /// When the files had been used by another range, and not yet by this one.
    before: usize,
}

impl Scene {
    fn written(seed: u64) -> Self {
        Self::ended(seed, true)
    }

    /// The same, closed or just left.
    fn ended(seed: u64, is_closed: bool) -> Self {
        let executor = SimExecutor::new(seed);
        let disk = SimDisk::new(&executor, Durability::Dsync);
        let used = disk.clone();
        let (book, state, before) = executor.run(async move {
            let storage = storage(&used, &sim_dir(), config()).await;
            let former = RangeKey { range: RangeId(1), ..RANGE };
            write(&storage, Writer::of(former, seed ^ 0xf0), 70, 0).await.1.delete().await.expect("delete");
            let before = used.moment();
            let (writer, log) = write(&storage, Writer::new(seed), 90, 50).await;
            if is_closed {
                log.close().await.expect("close");
            }
            (writer.book.borrow().clone(), writer.state.clone(), before)
        });
        executor.abandon();
        let is_segment = |path: &PathBuf| path.extension().is_some_and(|end| end == "segment");
        let segments: Vec<_> = disk.paths().into_iter().filter(is_segment).collect();
        assert!(segments.len() > 4, "seed {seed}: there are several segments");
        let flushes = segments.iter().enumerate().flat_map(|(at, path)| flushes(&disk, at, path)).collect();
        Self { disk, book, state, segments, flushes, before }
    }

    /// Blocks of a segment that flushes take.
    fn used_blocks(&self, segment: usize) -> u64 {
        let of = self.flushes.iter().filter(|flush| flush.segment == segment);
        of.map(|flush| flush.blocks.end).max().unwrap_or(0)
    }

    fn blocks(&self, segment: usize) -> u64 {
        self.disk.contents(&self.segments[segment]).len() as u64 / BLOCK
    }

    fn block(&self, segment: usize, block: u64) -> Vec<u8> {
        let at = (block * BLOCK) as usize;
        self.disk.contents(&self.segments[segment])[at..at + BLOCK as usize].to_vec()
    }

    /// What a block held when the file was another range's.
    fn stale(&self, segment: usize, block: u64) -> Vec<u8> {
        let file = self.disk.medium_at(self.disk.moment()).lookup(&self.segments[segment]).expect("a segment");
        self.disk.medium_at(self.before).read(file, block * BLOCK, BLOCK as usize)
    }
}

async fn write(
    storage: &std::rc::Rc<minikafka_storage::ShardStorage<SimDisk>>,
    mut writer: Writer,
    entries: u32,
    committed: u64,
) -> (Writer, RangeLog<SimDisk>) {
    let opened = RangeLog::open(storage.clone(), writer.range, &mut RangeState::default()).await.expect("open");
    let log = opened.log;
    for at in 0..entries {
        log.append_space().await.expect("space");
        let bytes = match writer.random.below(8) {
            0..3 => writer.random.below(200),
            3..6 => 300 + writer.random.below(3000),
            _ => 5000 + writer.random.below(12_000),
        };
        let (partition, whole) = (writer.random.below(PARTITIONS.into()) as u32, writer.random.one_in(6));
        writer.append(&log, partition, bytes as u32, whole).expect("append");
        if writer.random.one_in(4) {
            log.durable_above(LogIndex(u64::from(at))).await.expect("durable");
        }
        log.set_committed(LogIndex(u64::from(at).min(committed)));
    }
    log.durable_above(LogIndex(u64::from(entries) - 1)).await.expect("durable");
    storage.disk().executor().clone().sleep(std::time::Duration::from_secs(1)).await;
    (writer, log)
}

/// Finds the flushes of a good segment.
fn flushes(disk: &SimDisk, segment: usize, path: &std::path::Path) -> Vec<Flush> {
    let contents = disk.contents(path);
    let name = path.file_stem().and_then(|name| name.to_str()).expect("a name");
    let generation = Generation(u64::from_str_radix(&name[17..], 16).expect("a generation"));
    let (mut found, mut at) = (Vec::new(), 0);
    while at < contents.len() {
        let header = FlushHeader::decode(&contents[at..]).filter(|header| header.generation == generation);
        let Some(header) = header else {
            at += BLOCK as usize;
            continue;
        };
        let (mut entries, mut from) = (Vec::new(), FLUSH_HEADER_BYTES);
        while from < header.length as usize {
            let entry = EntryHeader::decode(&contents[at + from..]).expect("a good entry");
            entries.push(entry.index);
            from += entry.entry_bytes();
        }
        let end = at + header.padded_bytes();
        found.push(Flush { segment, blocks: at as u64 / BLOCK..end as u64 / BLOCK, entries });
        at = end;
    }
    found
}

/// Blocks that a cause changed, by segment.
type Touched = BTreeSet<(usize, u64)>;
/// Changes a disk.
type Cause = fn(&Scene, &SimDisk, &mut SimRandom) -> Touched;

fn any_block(scene: &Scene, random: &mut SimRandom) -> (usize, u64) {
    let segment = random.below(scene.segments.len() as u64) as usize;
    (segment, random.below(scene.used_blocks(segment).max(1)))
}

/// A segment that is neither the first nor the last.
fn middle(scene: &Scene, random: &mut SimRandom) -> usize {
    1 + random.below(scene.segments.len() as u64 - 2) as usize
}

fn put(scene: &Scene, disk: &SimDisk, (segment, block): (usize, u64), bytes: &[u8]) {
    disk.overwrite(&scene.segments[segment], block * BLOCK, bytes);
}

fn flipped_bit(scene: &Scene, disk: &SimDisk, random: &mut SimRandom) -> Touched {
    let (segment, block) = any_block(scene, random);
    disk.flip_bit(&scene.segments[segment], block * BLOCK + random.below(BLOCK), random.below(8) as u8);
    Touched::from([(segment, block)])
}

fn swapped_blocks(scene: &Scene, disk: &SimDisk, random: &mut SimRandom) -> Touched {
    let (one, segment) = (any_block(scene, random), middle(scene, random));
    let segment = if random.one_in(2) { one.0 } else { segment };
    let other = (segment, random.below(scene.used_blocks(segment).max(1)));
    if is_last_flush(scene, one) || is_last_flush(scene, other) {
        return Touched::new();
    }
    put(scene, disk, one, &scene.block(other.0, other.1));
    put(scene, disk, other, &scene.block(one.0, one.1));
    Touched::from([one, other])
}

/// Two whole flushes of one block each change places: every byte verifies by itself.
fn swapped_flushes(scene: &Scene, disk: &SimDisk, random: &mut SimRandom) -> Touched {
    let last = scene.flushes.len() - 1;
    let is_small = |flush: &&Flush| flush.blocks.end - flush.blocks.start == 1;
    let small: Vec<_> = scene.flushes[..last].iter().filter(is_small).collect();
    let pick = |random: &mut SimRandom| {
        let flush = small[random.below(small.len() as u64) as usize];
        (flush.segment, flush.blocks.start)
    };
    let (one, other) = (pick(random), pick(random));
    put(scene, disk, one, &scene.block(other.0, other.1));
    put(scene, disk, other, &scene.block(one.0, one.1));
    Touched::from([one, other])
}

fn stale_blocks(scene: &Scene, disk: &SimDisk, random: &mut SimRandom) -> Touched {
    let (segment, first) = any_block(scene, random);
    let touched = (first..(first + 1 + random.below(6)).min(scene.used_blocks(segment))).map(|block| (segment, block));
    let touched: Touched = touched.filter(|place| !is_last_flush(scene, *place)).collect();
    touched.iter().for_each(|place| put(scene, disk, *place, &scene.stale(place.0, place.1)));
    touched
}

fn truncated(scene: &Scene, disk: &SimDisk, random: &mut SimRandom) -> Touched {
    let segment = middle(scene, random);
    let bytes = random.below(scene.used_blocks(segment).max(1) * BLOCK);
    disk.truncate(&scene.segments[segment], bytes);
    (bytes / BLOCK..scene.blocks(segment)).map(|block| (segment, block)).collect()
}

fn zeroed_region(scene: &Scene, disk: &SimDisk, random: &mut SimRandom) -> Touched {
    let (segment, first) = any_block(scene, random);
    let blocks = first..(first + 1 + random.below(8)).min(scene.blocks(segment));
    let touched: Touched = blocks.map(|block| (segment, block)).filter(|place| !is_last_flush(scene, *place)).collect();
    touched.iter().for_each(|place| put(scene, disk, *place, &[0; BLOCK as usize]));
    touched
}

fn zeroed_segment(scene: &Scene, disk: &SimDisk, random: &mut SimRandom) -> Touched {
    let segment = middle(scene, random);
    let touched: Touched = (0..scene.blocks(segment)).map(|block| (segment, block)).collect();
    touched.iter().for_each(|place| put(scene, disk, *place, &[0; BLOCK as usize]));
    touched
}

fn missing_segment(scene: &Scene, disk: &SimDisk, random: &mut SimRandom) -> Touched {
    let segment = middle(scene, random);
    let (from, to) = (scene.segments[segment].clone(), sim_dir().join("lost"));
    let executor = disk.executor().clone();
    let moved = disk.clone();
    executor.run(async move { minikafka_storage::disk::Disk::rename(&moved, &from, &to).await.expect("rename") });
    (0..scene.blocks(segment)).map(|block| (segment, block)).collect()
}

/// Something behind the last flush of a segment: footer body with its snapshot, or trailer.
fn damaged_footer(scene: &Scene, disk: &SimDisk, random: &mut SimRandom) -> Touched {
    let segment = random.below(scene.segments.len() as u64) as usize;
    let (first, end) = (scene.used_blocks(segment), scene.blocks(segment));
    let block = if random.one_in(2) { end - 1 } else { first + random.below(end - first) };
    let bit = random.below(if block == end - 1 { 144 } else { 200 });
    disk.flip_bit(&scene.segments[segment], block * BLOCK + bit, random.below(8) as u8);
    Touched::new()
}

/// No footer is left, and so no snapshot.
fn damaged_footers(scene: &Scene, disk: &SimDisk, random: &mut SimRandom) -> Touched {
    for (segment, path) in scene.segments.iter().enumerate() {
        disk.flip_bit(path, (scene.blocks(segment) - 1) * BLOCK + random.below(144), random.below(8) as u8);
    }
    Touched::new()
}

fn unreadable_block(scene: &Scene, disk: &SimDisk, random: &mut SimRandom) -> Touched {
    let segment = random.below(scene.segments.len() as u64) as usize;
    let block = random.below(scene.blocks(segment));
    disk.spoil(&scene.segments[segment], block * BLOCK);
    Touched::from([(segment, block)])
}

/// The flush that closed the log: without it the last entries have nobody who knew them durable.
fn is_last_flush(scene: &Scene, (segment, block): (usize, u64)) -> bool {
    scene.flushes.last().is_some_and(|flush| flush.segment == segment && flush.blocks.contains(&block))
}

const CAUSES: &[(&str, Cause)] = &[
    ("flipped bit", flipped_bit),
    ("swapped blocks", swapped_blocks),
    ("swapped flushes", swapped_flushes),
    ("stale blocks", stale_blocks),
    ("truncated segment", truncated),
    ("zeroed region", zeroed_region),
    ("zeroed segment", zeroed_segment),
    ("missing segment", missing_segment),
    ("damaged footer", damaged_footer),
    ("damaged footers", damaged_footers),
    ("unreadable block", unreadable_block),
];

#[test]
fn what_no_damage_touches_is_served_and_what_it_touches_is_named() {
    let seeds = match std::env::var("DAMAGE_SEED") {
        Ok(seed) => seed.parse().map(|seed: u64| seed..seed + 1).expect("DAMAGE_SEED is a number"),
        Err(_) => 0..SEEDS,
    };
    let (mut losses, mut lost) = (BTreeMap::new(), BTreeMap::new());
    for seed in seeds.clone() {
        let scene = Scene::written(seed);
        for (name, cause) in CAUSES {
            for round in 0..4 {
                let executor = SimExecutor::new(seed);
                let disk = scene.disk.killed(&executor);
                let mut random = SimRandom::new(seed * 1000 + round);
                let touched = cause(&scene, &disk, &mut random);
                let context = format!("{name}, seed {seed}, round {round}, blocks {touched:?}");
                let found = check(&scene, &disk, &touched, &context);
                *losses.entry(*name).or_insert(0) += usize::from(found.is_loss);
                *lost.entry(*name).or_insert(0) += found.unserved;
                executor.abandon();
            }
        }
    }
    println!("logs whose state was lost: {losses:?}; entries that were not served: {lost:?}");
    if seeds.count() > 1 {
        for (name, _) in CAUSES.iter().filter(|(name, _)| !name.starts_with("damaged footer")) {
            assert!(lost[name] > 0, "{name} never hit an entry: the test misses its aim");
        }
        assert_eq!(
            lost["damaged footer"] + lost["damaged footers"],
            0,
            "a footer says nothing that flushes do not say"
        );
        assert!(losses["flipped bit"] < 30, "most flips cost a body and leave the state known");
    }
}

struct Found {
    is_loss: bool,
    unserved: usize,
}

/// Opens the log and holds all that it serves and says against what was written.
fn check(scene: &Scene, disk: &SimDisk, touched: &Touched, context: &str) -> Found {
    let (disk, context) = (disk.clone(), context.to_owned());
    let is_touched = |flush: &&Flush| flush.blocks.clone().any(|block| touched.contains(&(flush.segment, block)));
    let excused: BTreeSet<LogIndex> =
        scene.flushes.iter().filter(is_touched).flat_map(|flush| flush.entries.clone()).collect();
    let (book, expected) = (scene.book.clone(), scene.state.clone());
    disk.executor().clone().run(async move {
        let storage = storage(&disk, &sim_dir(), config()).await;
        let mut state = RangeState::default();
        let Opened { log, report } = open(&storage, &mut state).await;
        assert_eq!(log.end(), expected.end, "{context}: the end stays: {:?}", report.damage);
        let served = serve(&log, &book, &context).await;
        let unserved: Vec<LogIndex> =
            (1..=expected.end.index.0).map(LogIndex).filter(|index| !served.contains(index)).collect();
        let damage = log.damage();
        for index in &unserved {
            assert!(excused.contains(index), "{context}: entry {index} is good and not served: {damage:?}");
            let is_named = damage.iter().any(|damage| damage.first_index <= *index && *index <= damage.last_index);
            assert!(is_named, "{context}: entry {index} is missing and nobody says so: {damage:?}");
        }
        let has_names = damage.iter().all(|damage| damage.path.starts_with(sim_dir()));
        assert!(has_names, "{context}: damage names its file");
        match &report.loss {
            None => assert_eq!(state.offsets, expected.offsets, "{context}: the state is known: {damage:?}"),
            Some(loss) => {
                assert!(loss.kind != DamageKind::Body && loss.kind != DamageKind::Footer, "{context}: {loss}")
            }
        }
        let is_loss = report.loss.is_some();
        if context.starts_with("damaged footers") {
            assert!(damage.iter().any(|damage| damage.kind == DamageKind::Footer), "{context}: {damage:?}");
        }
        go_on(&disk, log, is_loss, &expected, &context).await;
        Found { is_loss, unserved: unserved.len() }
    })
}

/// Everything that a consumer gets which skips damage.
async fn serve(log: &RangeLog<SimDisk>, book: &Book, context: &str) -> BTreeSet<LogIndex> {
    let by_index: BTreeMap<LogIndex, &Written> =
        book.entries.values().map(|written| (written.header.index, written)).collect();
    let (mut served, durable) = (BTreeSet::new(), log.durable_index());
    for partition in 0..PARTITIONS {
        let (mut from, mut reader) = (Offset(0), Reader::default());
        loop {
            match log.read_partition(key(partition), from, durable, 9000, &mut reader).await {
                Ok(slices) if slices.is_empty() => break,
                Ok(slices) => {
                    for (header, bytes) in entries(&slices) {
                        assert_eq!(header.base_offset, from, "{context}: partition {partition} has no gap");
                        assert_eq!(bytes, stored(by_index[&header.index]), "{context}: entry {}", header.index);
                        served.insert(header.index);
                        from = header.next_offset();
                    }
                }
                Err(ReadError::Damaged(damage)) => {
                    let behind =
                        log.readable_behind(damage.last_index, key(partition), from, durable).await.expect("readable");
                    let Some(behind) = behind else { break };
                    assert!(
                        behind > from,
                        "{context}: partition {partition} goes on from {from} at {behind}: {damage}"
                    );
                    (from, reader) = (behind, Reader::default());
                }
                Err(error) => panic!("{context}: {error}"),
            }
        }
    }
    served
}

/// A log whose state is known takes entries; another one takes markers, which hide nothing of what was lost.
async fn go_on(disk: &SimDisk, log: RangeLog<SimDisk>, is_loss: bool, expected: &RangeState, context: &str) {
    let mut writer = Writer::new(1);
    writer.state = expected.clone();
    writer.epoch = Epoch(9);
    log.persist_marker(Epoch(9)).await.expect("a marker");
    let appended = writer.append(&log, 0, 10, false);
    match appended {
        Ok(_) => assert!(!is_loss, "{context}: nothing is appended behind what is lost"),
        Err(AppendError::Failed(_)) => assert!(is_loss, "{context}: the state is known, so appends are taken"),
        Err(error) => panic!("{context}: {error}"),
    }
    log.close().await.expect("close");
    let storage = storage(disk, &sim_dir(), config()).await;
    let Opened { log, report } = open(&storage, &mut RangeState::default()).await;
    assert_eq!(report.loss.is_some(), is_loss, "{context}: what is lost stays known to be lost: {:?}", report.damage);
    assert_eq!((log.marker(), log.end()), (Epoch(9), writer.state.end), "{context}: after another start");
}

/// The last flush of a log that nobody closed is known durable by nobody. Zeros there may be a torn end, but a torn write can
/// be read: what cannot be read may have been acknowledged.
#[test]
fn an_unreadable_end_is_never_taken_for_a_torn_one() {
    let mut bodies = 0;
    for seed in 0..SEEDS {
        let scene = Scene::ended(seed, false);
        let last = scene.flushes.iter().rev().find(|flush| !flush.entries.is_empty()).expect("a flush with entries");
        let (path, blocks) = (scene.segments[last.segment].clone(), last.blocks.clone());
        let (first, book, expected) = (last.entries[0], scene.book.clone(), scene.state.clone());
        // Its header; then, where it has more than one block, a part of a body.
        for block in blocks.clone().take(2) {
            let context = format!("seed {seed}, block {block} of {}", path.display());
            let executor = SimExecutor::new(seed);
            let disk = scene.disk.killed(&executor);
            disk.spoil(&path, block * BLOCK);
            let (path, book, expected, is_header) =
                (path.clone(), book.clone(), expected.clone(), block == blocks.start);
            executor.run(async move {
                let shard = storage(&disk, &sim_dir(), config()).await;
                let Opened { log, report } = open(&shard, &mut RangeState::default()).await;
                let named = report.damage.iter().any(|damage| damage.path == path && damage.last_index >= first);
                assert!(named, "{context}: {:?}", report.damage);
                let is_loss = report.loss.is_some();
                assert!(is_loss || !is_header, "{context}: what began there is not known: {:?}", report);
                if is_header {
                    assert_eq!(log.end().index.next(), first, "{context}: the end that can be seen");
                } else if !is_loss {
                    assert_eq!(log.end(), expected.end, "{context}: only a body is lost");
                }
                serve(&log, &book, &context).await;
                let mut seen = expected.clone();
                seen.end = log.end();
                go_on(&disk, log, is_loss, &seen, &context).await;
                disk.unspoil(&path, block * BLOCK);
                let shard = storage(&disk, &sim_dir(), config()).await;
                let Opened { log, report } = open(&shard, &mut RangeState::default()).await;
                assert_eq!((report.loss, log.marker()), (None, Epoch(9)), "{context}: it only failed for a while");
                assert!(
                    !is_loss || log.end() == expected.end,
                    "{context}: all is there again: {:?}, {:?} {:?} {is_header}",
                    log.end(),
                    expected.end,
                    report.damage
                );
            });
            executor.abandon();
            bodies += usize::from(block != blocks.start);
        }
    }
    assert!(bodies > 0, "no last flush has two blocks: the test misses its aim");
}

/// Another member of the chain, of which some entries may be damaged.
struct Neighbour<'a> {
    book: &'a Book,
    lacks: &'a dyn Fn(LogIndex) -> bool,
}

impl EntrySource for Neighbour<'_> {
    async fn entries_behind(&self, after: LogPoint, until: LogIndex) -> Option<Lost> {
        let entry = |index: u64| self.book.entries.values().find(|written| written.header.index.0 == index);
        let indexes = (after.index.0 + 1..=until.0).take(3).take_while(|index| !(self.lacks)(LogIndex(*index)));
        let entries: Vec<SharedSlice> = indexes
            .filter_map(entry)
            .map(stored)
            .map(|bytes| SharedSlice::new(std::rc::Rc::new(bytes.clone()), 0..bytes.len()))
            .collect();
        (!entries.is_empty()).then_some(Lost::Entries(entries))
    }
}

/// Mends whatever of a log can be; how many stretches could not.
async fn mend(log: &RangeLog<SimDisk>, neighbour: &Neighbour<'_>, context: &str) -> usize {
    let (mut after, mut left) = (LogIndex(0), 0);
    while let Some(stretch) = log.damaged_stretch(after) {
        if !stretch.is_sealed && log.loss().is_none() {
            // It takes appends: its user would roll it, and come again.
            after = stretch.end.index;
            continue;
        }
        match log.mend(&stretch, neighbour, &mut RangeState::default()).await {
            Ok(()) => {}
            Err(MendError::Nobody(_) | MendError::NotNow(_)) => left += 1,
            Err(error) => panic!("{context}: {stretch:?}: {error}"),
        }
        after = stretch.end.index;
    }
    if log.loss().is_some() {
        let mut state = RangeState::default();
        let report = log.recover_again(&mut state).await.expect("recovery");
        assert_eq!(report.end, log.end(), "{context}");
        if report.loss.is_none() {
            assert_eq!(state.end, log.end(), "{context}: the state is known again");
        }
    }
    left
}

/// Whatever the damage is, another member makes up for it, and nothing is cut.
#[test]
fn a_neighbour_makes_up_for_every_damage() {
    let (mut mended, mut stuck) = (0, 0);
    for seed in 0..SEEDS {
        let scene = Scene::written(seed);
        for (name, cause) in CAUSES {
            for round in 0..4 {
                // Another seed than that of the scene, so that new files are no old ones.
                let executor = SimExecutor::new(!seed);
                let disk = scene.disk.killed(&executor);
                let mut random = SimRandom::new(seed * 1000 + round);
                let touched = cause(&scene, &disk, &mut random);
                let context = format!("{name}, seed {seed}, round {round}, blocks {touched:?}");
                let (book, expected) = (scene.book.clone(), scene.state.clone());
                let was_mended = disk.executor().clone().run(async move {
                    let shard = storage(&disk, &sim_dir(), config()).await;
                    let Opened { log, report } = open(&shard, &mut RangeState::default()).await;
                    let end = report.end;
                    serve(&log, &book, &context).await;
                    let had_damage = log.damaged_stretch(LogIndex(0)).is_some();
                    let neighbour = Neighbour { book: &book, lacks: &|_| false };
                    let left = mend(&log, &neighbour, &context).await;
                    if left > 0 || log.loss().is_some() {
                        return None;
                    }
                    assert_eq!(log.end(), end, "{context}: nothing is cut");
                    let is_rolled = log.damaged_stretch(LogIndex(0)).is_none_or(|stretch| !stretch.is_sealed);
                    assert!(is_rolled, "{context}: {:?}", log.damaged_stretch(LogIndex(0)));
                    let served = serve(&log, &book, &context).await;
                    if log.damaged_stretch(LogIndex(0)).is_none() {
                        assert_eq!(served.len(), book.entries.len(), "{context}: everything is served again");
                    }
                    go_on(&disk, log, false, &expected, &context).await;
                    Some(had_damage)
                });
                match was_mended {
                    Some(had_damage) => mended += usize::from(had_damage),
                    None => stuck += 1,
                }
                executor.abandon();
            }
        }
    }
    println!("{mended} damaged logs were mended, {stuck} were not");
    assert!(mended > 200, "{mended}");
    assert_eq!(stuck, 0);
}
