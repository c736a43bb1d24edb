//! What is asked and what an answer means, without a network.

use minikafka_core::topic::{TopicConfig, TopicState};
use minikafka_core::wire::{ChainPlace, FetchedPartition, NodeAddress, RangeChain, ResolveReply, RingMap};
use minikafka_core::{ClusterId, Epoch, ErrorCode, NodeId, RangeId, RingId, ShardId};

use super::super::entries::tests::{PARTITION, entries};
use super::super::entries::verified;
use super::*;

/// Two shards, two ranges: partition 1 lies in range 0, partition 0 in range 1.
fn topic() -> Arc<TopicDescription> {
    let placement =
        |partition, range| minikafka_core::wire::Placement { partition: Partition(partition), range: RangeId(range) };
    Arc::new(TopicDescription {
        name: "orders".into(),
        error: None,
        topic: PARTITION.topic,
        partitions: 2,
        ring: RingId(1),
        state: TopicState::Ready,
        config: TopicConfig::default(),
        placement: vec![placement(1, 0), placement(0, 1)],
    })
}

fn map() -> ClusterMap {
    map_with(&topic())
}

fn map_with(topic: &TopicDescription) -> ClusterMap {
    let node =
        |node: u32| NodeAddress { node: NodeId(node), rack: String::new(), shards: vec![format!("shard-{node}:1")] };
    let chain =
        |node| RangeChain { epoch: Epoch(4), places: vec![ChainPlace { node: NodeId(node), shard: ShardId(0) }] };
    let reply = ResolveReply {
        cluster: ClusterId(1),
        internal_ring: RingId(1),
        nodes: vec![node(0), node(1)],
        rings: vec![RingMap { ring: RingId(1), replication: 1, chains: vec![chain(0), chain(1)] }],
        topics: vec![topic.clone()],
    };
    ClusterMap::default().succeeded_by(reply).expect("a good map")
}

struct World {
    progress: Progress,
    map: ClusterMap,
    now: Instant,
}

impl World {
    /// One partition from offset 10 on.
    fn new(options: ConsumerOptions) -> Self {
        let progress = Progress::new(topic(), &options, [(PARTITION.partition, Offset(10), false)]);
        Self { progress, map: map(), now: Instant::now() }
    }

    fn plan(&mut self) -> Vec<ShardFetch> {
        self.progress.plan(self.now, &self.map)
    }

    fn only_fetch(&mut self) -> ShardFetch {
        let mut fetches = self.plan();
        assert_eq!(fetches.len(), 1, "{fetches:?}");
        fetches.remove(0)
    }

    /// Answers with entries of the given counts from `base` on.
    fn answer(&mut self, fetch: ShardFetch, base: u64, counts: &[u64]) {
        let (entries, damage) = verified(&entries(base, counts).into(), PARTITION, fetch.asked[0].position);
        let end = base + counts.iter().sum::<u64>();
        let fetched = FetchedPartition { committed_end: Offset(end), ..fetched(None) };
        self.absorb(fetch, Ok(vec![PartitionAnswer { fetched, entries, damage }]));
    }

    fn refuse(&mut self, fetch: ShardFetch, fetched: FetchedPartition) {
        self.absorb(fetch, Ok(vec![PartitionAnswer { fetched, entries: Vec::new(), damage: None }]));
    }

    fn absorb(&mut self, fetch: ShardFetch, answer: Result<Vec<PartitionAnswer>, Error>) {
        self.progress.absorb(self.now, self.now, fetch, answer);
    }

    fn wait_for_retry(&mut self) {
        self.now = self.progress.wake_at(self.now).expect("a failure is followed by a back-off");
    }

    fn position(&self) -> u64 {
        self.progress.positions().next().expect("one partition").1.0
    }
}

fn fetched(error: Option<ErrorCode>) -> FetchedPartition {
    FetchedPartition {
        partition: PARTITION,
        error,
        epoch: Epoch(4),
        log_start: Offset(0),
        committed_end: Offset(0),
        previous: None,
        resume: None,
        entries_bytes: 0,
    }
}

/// The map of a chain of three, each in a rack of its own, that holds partition 1.
fn map_of_three(epoch: u64) -> ClusterMap {
    let node = |node: u32| NodeAddress {
        node: NodeId(node),
        rack: format!("rack-{node}"),
        shards: vec![format!("shard-{node}:1")],
    };
    let place = |node| ChainPlace { node: NodeId(node), shard: ShardId(0) };
    let chain = RangeChain { epoch: Epoch(epoch), places: vec![place(0), place(1), place(2)] };
    let reply = ResolveReply {
        cluster: ClusterId(1),
        internal_ring: RingId(1),
        nodes: vec![node(0), node(1), node(2)],
        rings: vec![RingMap { ring: RingId(1), replication: 3, chains: vec![chain.clone(), chain] }],
        topics: vec![TopicDescription::clone(&topic())],
    };
    ClusterMap::default().succeeded_by(reply).expect("a good map")
}

fn reading_from(read_from: ReadFrom) -> World {
    let options = ConsumerOptions { read_from, ..ConsumerOptions::default() };
    World { map: map_of_three(4), ..World::new(options) }
}

fn nearest(rack: &str) -> World {
    reading_from(ReadFrom::Nearest { rack: rack.into() })
}

fn range(number: u32) -> RangeKey {
    RangeKey { ring: RingId(1), range: RangeId(number) }
}

#[test]
fn a_partition_is_in_one_request_and_goes_on_behind_what_came() {
    let mut world = World::new(ConsumerOptions::default());
    let fetch = world.only_fetch();
    assert_eq!(&*fetch.address, "shard-0:1");
    assert_eq!((fetch.request.partitions[0].offset, fetch.request.partitions[0].epoch), (Offset(10), Epoch(4)));
    assert!(world.plan().is_empty(), "it is under way");
    world.answer(fetch, 10, &[3, 2]);
    assert_eq!(world.only_fetch().request.partitions[0].offset, Offset(15), "while the application works");
    assert_eq!(world.position(), 10);
    let taken = world.progress.take().expect("a batch").expect("no error");
    assert_eq!((taken.position, taken.entry.header.base_offset), (Offset(10), Offset(10)));
    assert_eq!(world.position(), 13);
    assert!(world.progress.take().expect("a batch").is_ok());
    assert!(world.progress.take().is_none());
    assert_eq!((world.progress.buffered_bytes, world.position()), (0, 15));
}

#[test]
fn what_waits_is_bounded_per_partition_and_in_total() {
    let options = ConsumerOptions { partition_fetch_bytes_max: 4 << 10, ..ConsumerOptions::default() };
    let mut world = World::new(options);
    let fetch = world.only_fetch();
    assert_eq!(fetch.request.partitions[0].bytes_max, 4 << 10);
    world.answer(fetch, 10, &[400]);
    assert!(world.plan().is_empty(), "the partition's share is full");
    assert!(world.progress.take().is_some());
    let fetch = world.only_fetch();
    assert_eq!(world.progress.reserved_bytes, fetch.request.bytes_max as usize);
    world.progress.buffered_bytes += world.progress.prefetch_bytes_max;
    world.absorb(fetch, Err(Error::broker(ErrorCode::Overloaded, "test")));
    world.wait_for_retry();
    assert!(world.plan().is_empty(), "the memory of all is full");
    assert_eq!(world.progress.reserved_bytes, 0);
}

#[test]
fn partitions_that_wait_at_their_end_keep_nothing_from_what_is_there() {
    let options = ConsumerOptions { partition_fetch_bytes_max: 4 << 10, ..ConsumerOptions::default() };
    let mut world = World::new(options.clone());
    let mut topic = TopicDescription::clone(&topic());
    topic.partitions = 6;
    topic.placement.iter_mut().for_each(|placement| placement.range = RangeId(0));
    let place = |number| minikafka_core::wire::Placement { partition: Partition(number), range: RangeId(0) };
    topic.placement.extend((2..6).map(place));
    world.map = map_with(&topic);
    let starts = [1, 2, 3, 4, 5].map(|number| (Partition(number), Offset(10), false));
    world.progress = Progress::new(Arc::new(topic), &options, starts);
    for paused in 2..6 {
        world.progress.set_paused(&[Partition(paused)], true);
    }
    let first = world.only_fetch();
    for number in 2..5 {
        world.progress.set_paused(&[Partition(number)], false);
        assert_eq!(world.only_fetch().request.bytes_max, 4 << 10, "what can come, not all that there is memory for");
    }
    world.progress.set_paused(&[Partition(5)], false);
    assert!(world.plan().is_empty(), "as many requests wait as may");
    world.answer(first, 10, &[200, 200, 200]);
    assert_eq!(world.only_fetch().request.partitions[0].partition.partition, Partition(5), "1 has no room for more");
    world.progress.partitions[0].committed_end = Some(Offset(1000));
    for _ in 0..3 {
        assert!(world.progress.take().is_some());
    }
    assert_eq!(world.only_fetch().asked[0].position, Offset(610));
}

#[test]
fn failures_back_off_and_ask_for_a_newer_map_once() {
    for (code, wants_map) in [(ErrorCode::NotOwner, true), (ErrorCode::Stale, true), (ErrorCode::Overloaded, false)] {
        let mut world = World::new(ConsumerOptions::default());
        let fetch = world.only_fetch();
        world.refuse(fetch, fetched(Some(code)));
        assert_eq!(world.progress.take_map_wish(), wants_map.then_some(world.map.version()), "{code}");
        assert_eq!(world.progress.take_map_wish(), None);
        assert!(world.plan().is_empty(), "it does not spin");
        world.wait_for_retry();
        world.only_fetch();
    }
}

#[test]
fn a_beyond_committed_position_is_never_reset() {
    let mut world = World::new(ConsumerOptions { out_of_range: OutOfRangePolicy::Earliest, ..Default::default() });
    let fetch = world.only_fetch();
    world.refuse(fetch, fetched(Some(ErrorCode::BeyondCommitted)));
    world.wait_for_retry();
    assert_eq!(world.only_fetch().request.partitions[0].offset, Offset(10));
}

#[test]
fn empty_answers_that_come_at_once_do_not_make_it_spin() {
    let mut world = World::new(ConsumerOptions::default());
    let mut asked = 0;
    while let Some(fetch) = world.plan().pop() {
        asked += 1;
        assert!(asked < 10, "it spins");
        world.answer(fetch, 10, &[]);
    }
    world.wait_for_retry();
    world.only_fetch();
}

#[test]
fn a_seek_makes_answers_to_older_questions_void() {
    let mut world = World::new(ConsumerOptions::default());
    let older = world.only_fetch();
    assert!(world.progress.seek(PARTITION.partition, Offset(40)));
    let newer = world.only_fetch();
    assert_eq!(newer.request.partitions[0].offset, Offset(40));
    world.answer(older, 10, &[5]);
    assert!(world.progress.take().is_none());
    assert!(world.plan().is_empty(), "the newer question is still under way");
    world.answer(newer, 40, &[2]);
    assert!(world.progress.take().is_some());
    assert_eq!((world.position(), world.progress.reserved_bytes), (42, 0));
}

#[test]
fn a_failure_waits_for_what_came_before_it_and_is_told_again_when_nothing_else_can_come() {
    let mut world = World::new(ConsumerOptions::default());
    let fetch = world.only_fetch();
    world.answer(fetch, 10, &[5]);
    let fetch = world.only_fetch();
    world.refuse(fetch, fetched(Some(ErrorCode::OffsetOutOfRange)));
    assert!(world.plan().is_empty());
    assert!(world.progress.take().expect("the batch comes first").is_ok());
    let error = world.progress.take().expect("not a wait").expect_err("out of range");
    assert_eq!(error.code(), Some(ErrorCode::OffsetOutOfRange));
    for _ in 0..3 {
        assert!(world.progress.take().is_none(), "said once");
        let Prospect::Failures(error) = world.progress.prospect() else { panic!("nothing else can come") };
        assert_eq!(error.code(), Some(ErrorCode::OffsetOutOfRange));
    }
    assert!(world.progress.seek(PARTITION.partition, Offset(12)));
    assert!(world.progress.take().is_none() && matches!(world.progress.prospect(), Prospect::Records));
    world.only_fetch();
}

#[test]
fn a_group_reads_what_is_assigned_from_where_it_is_said_and_nothing_else() {
    let mut world = World::new(ConsumerOptions::default());
    world.progress = Progress::of_group(topic(), &ConsumerOptions::default());
    assert!(world.plan().is_empty() && matches!(world.progress.prospect(), Prospect::Nothing));
    assert!(world.progress.assign(PARTITION.partition, Offset(12), false));
    let fetch = world.only_fetch();
    assert_eq!(fetch.asked[0].position, Offset(12));
    world.answer(fetch, 10, &[5]);
    assert_eq!(world.progress.positions().map(|(partition, ..)| partition).collect::<Vec<_>>(), [PARTITION.partition]);
    let late = world.only_fetch();
    // What was fetched is gone with the partition, and so is what comes late.
    world.progress.unassign(PARTITION.partition);
    world.answer(late, 15, &[5]);
    assert!(world.progress.take().is_none() && world.plan().is_empty());
    assert_eq!((world.progress.positions().count(), world.progress.buffered_bytes), (0, 0));
    // Assigned anew it begins where it is said now.
    assert!(world.progress.assign(PARTITION.partition, Offset(40), true));
    let fetch = world.only_fetch();
    assert_eq!(fetch.asked[0].position, Offset(40));
    world.progress.refuse(PARTITION.partition, Error::Closed("nothing"));
    assert!(world.progress.take().expect("told").is_err() && world.progress.take().is_none());
    assert!(!world.progress.assign(Partition(9), Offset(0), true), "there is no such partition");
}

#[test]
fn older_offsets_are_read_where_the_shard_says_until_its_own_begin() {
    let mut world = World::new(ConsumerOptions::default());
    let fetch = world.only_fetch();
    let moved = FetchedPartition { log_start: Offset(15), previous: Some(range(1)), ..fetched(Some(ErrorCode::Moved)) };
    world.refuse(fetch, moved);
    let fetch = world.only_fetch();
    assert_eq!((&*fetch.address, fetch.request.partitions[0].range), ("shard-1:1", range(1)));
    world.answer(fetch, 10, &[5]);
    assert_eq!(world.progress.positions().next().expect("one").2, None, "an older range does not know the end");
    let fetch = world.only_fetch();
    assert_eq!((&*fetch.address, fetch.request.partitions[0].offset), ("shard-0:1", Offset(15)));
}

#[test]
fn two_ranges_that_name_each_other_are_given_up() {
    let mut world = World::new(ConsumerOptions::default());
    for turn in 0_u32.. {
        assert!(turn < 50, "it follows forever");
        let Some(fetch) = world.plan().pop() else { break };
        let previous = Some(range(1 - fetch.request.partitions[0].range.range.0));
        let moved = FetchedPartition { log_start: Offset(15), previous, ..fetched(Some(ErrorCode::Moved)) };
        world.refuse(fetch, moved);
    }
    assert_eq!(world.progress.take().expect("told").expect_err("given up").code(), Some(ErrorCode::Moved));
}

#[test]
fn damage_is_asked_for_again_and_then_told() {
    let mut world = World::new(ConsumerOptions::default());
    for attempt in 1..=3 {
        let fetch = world.only_fetch();
        let damage = Some("flipped".to_owned());
        world.absorb(fetch, Ok(vec![PartitionAnswer { fetched: fetched(None), entries: Vec::new(), damage }]));
        if attempt < 3 {
            assert!(world.progress.take().is_none(), "attempt {attempt}");
            world.wait_for_retry();
        }
    }
    let error = world.progress.take().expect("told").expect_err("damaged");
    assert!(matches!(error, Error::Damaged { offset: Offset(10), .. }), "{error}");
}

#[test]
fn a_paused_partition_is_neither_asked_for_nor_handed_out() {
    let mut world = World::new(ConsumerOptions::default());
    let fetch = world.only_fetch();
    world.progress.set_paused(&[PARTITION.partition], true);
    world.answer(fetch, 10, &[5]);
    assert!(world.progress.take().is_none() && world.plan().is_empty());
    world.progress.set_paused(&[PARTITION.partition], false);
    assert!(world.progress.take().is_some());
    world.only_fetch();
}

#[test]
fn damaged_records_stop_their_partition_with_an_error_that_says_which() {
    let mut world = World::new(ConsumerOptions::default());
    let fetch = world.only_fetch();
    world.answer(fetch, 10, &[3]);
    let fetch = world.only_fetch();
    let damaged = fetched(Some(ErrorCode::DataDamaged));
    world.refuse(fetch, FetchedPartition { resume: Some(Offset(20)), committed_end: Offset(30), ..damaged });
    assert!(world.progress.take().expect("what came before").is_ok());
    let error = world.progress.take().expect("the failure").expect_err("a failure");
    assert!(
        matches!(&error, Error::DataDamaged { first: Offset(13), resume: Some(Offset(20)), .. }),
        "offsets 13 to 19 are lost: {error}"
    );
    assert!(world.plan().is_empty(), "it stands still");
    assert_eq!(world.position(), 13);
}

#[test]
fn damaged_records_are_skipped_and_told_when_that_is_wanted() {
    let options = || ConsumerOptions { on_damage: OnDamage::Skip, ..ConsumerOptions::default() };
    let damaged = |resume: Option<u64>, end| FetchedPartition {
        resume: resume.map(Offset),
        committed_end: Offset(end),
        ..fetched(Some(ErrorCode::DataDamaged))
    };
    let mut world = World::new(options());
    let fetch = world.only_fetch();
    world.answer(fetch, 10, &[3]);
    let fetch = world.only_fetch();
    world.refuse(fetch, damaged(Some(20), 30));
    assert_eq!(world.position(), 10, "what came before is not read yet");
    assert_eq!(world.only_fetch().request.partitions[0].offset, Offset(20), "at once");
    assert!(world.progress.take().expect("what came before").is_ok());
    assert_eq!(world.position(), 20, "the next record is behind the damage");
    let skipped = Skipped { partition: PARTITION.partition, from: Offset(13), to: Offset(20) };
    assert_eq!(world.progress.skipped(), [skipped]);

    let mut world = World::new(options());
    let fetch = world.only_fetch();
    world.refuse(fetch, damaged(None, 10));
    assert!(world.plan().is_empty(), "at the end it asks again after a while");
    world.wait_for_retry();
    assert_eq!(world.only_fetch().request.partitions[0].offset, Offset(10));
    assert_eq!(world.progress.skipped(), []);
}

#[test]
fn the_member_of_the_rack_is_read_from_and_others_while_it_fails() {
    let mut world = nearest("rack-2");
    let fetch = world.only_fetch();
    assert_eq!(&*fetch.address, "shard-2:1");
    world.answer(fetch, 10, &[3]);
    let fetch = world.only_fetch();
    let lost = Error::ConnectionLost { address: fetch.address.clone(), reason: "gone".into() };
    assert_eq!((&*fetch.address, fetch.request.partitions[0].offset), ("shard-2:1", Offset(13)));
    world.absorb(fetch, Err(lost));
    world.wait_for_retry();
    for base in [13, 14] {
        let fetch = world.only_fetch();
        assert_eq!((&*fetch.address, fetch.request.partitions[0].offset), ("shard-0:1", Offset(base)));
        world.answer(fetch, base, &[1]);
    }
    world.now += members::LEFT_ALONE;
    let fetch = world.only_fetch();
    assert_eq!((&*fetch.address, fetch.request.partitions[0].offset), ("shard-2:1", Offset(15)), "it goes back");
    assert_eq!(&*nearest("elsewhere").only_fetch().address, "shard-0:1", "nobody is near");
    assert_eq!(&*reading_from(ReadFrom::Head).only_fetch().address, "shard-0:1");
    assert_eq!(&*reading_from(ReadFrom::Any).only_fetch().address, "shard-1:1", "partition 1");
}

#[test]
fn a_member_that_does_not_act_any_more_is_left_at_once_but_not_for_an_old_map() {
    let mut world = nearest("rack-1");
    let fetch = world.only_fetch();
    world.refuse(fetch, FetchedPartition { epoch: Epoch(5), ..fetched(Some(ErrorCode::Stale)) });
    assert_eq!(world.progress.take_map_wish(), Some(world.map.version()), "the map is what is old");
    world.map = map_of_three(5);
    world.wait_for_retry();
    let fetch = world.only_fetch();
    assert_eq!((&*fetch.address, fetch.request.partitions[0].epoch), ("shard-1:1", Epoch(5)));
    world.refuse(fetch, FetchedPartition { epoch: Epoch(5), ..fetched(Some(ErrorCode::Stale)) });
    let fetch = world.only_fetch();
    assert_eq!(&*fetch.address, "shard-0:1", "at once");
    world.refuse(fetch, fetched(Some(ErrorCode::Overloaded)));
    world.wait_for_retry();
    assert_eq!(&*world.only_fetch().address, "shard-0:1", "the head's refusal is waited out as ever");
}

#[test]
fn a_member_that_lags_is_asked_again_and_then_left_alone() {
    let mut world = nearest("rack-1");
    for _ in 0..2 {
        let fetch = world.only_fetch();
        assert_eq!(&*fetch.address, "shard-1:1");
        world.refuse(fetch, fetched(Some(ErrorCode::BeyondCommitted)));
        assert!(world.plan().is_empty(), "it does not spin");
        world.wait_for_retry();
    }
    let fetch = world.only_fetch();
    world.refuse(fetch, fetched(Some(ErrorCode::BeyondCommitted)));
    assert_eq!(&*world.only_fetch().address, "shard-0:1");
}

#[test]
fn only_the_head_says_where_a_log_begins_and_ends() {
    let options = ConsumerOptions {
        out_of_range: OutOfRangePolicy::Earliest,
        read_from: ReadFrom::Nearest { rack: "rack-1".into() },
        ..ConsumerOptions::default()
    };
    let mut world = World { map: map_of_three(4), ..World::new(options) };
    let fetch = world.only_fetch();
    world.answer(fetch, 10, &[5]);
    let fetch = world.only_fetch();
    let behind = FetchedPartition { committed_end: Offset(12), ..fetched(Some(ErrorCode::OffsetOutOfRange)) };
    world.refuse(fetch, behind);
    let fetch = world.only_fetch();
    assert_eq!((&*fetch.address, fetch.request.partitions[0].offset), ("shard-0:1", Offset(15)));
    world.refuse(fetch, FetchedPartition { committed_end: Offset(13), ..fetched(None) });
    assert_eq!(world.progress.positions().next().expect("one").2, Some(Offset(15)), "what is committed stays so");
}
