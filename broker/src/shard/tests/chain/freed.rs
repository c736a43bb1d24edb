//! Learning from members that freed the beginning of their logs, and runs in the middle (R7).
//!
//! Proof that it can fail: a source that offers no segments (`offer_segment` answers `None`) lets nobody learn.

use super::*;

const OTHER: PartitionKey = PartitionKey { topic: TopicId(0xdef), partition: Partition(1) };
/// So many records of one partition, then as many of the other: runs that are worth a hole.
const TURN: i32 = 20;
const VALUE_BYTES: usize = 6_000;

fn large(sequence: i32) -> Vec<u8> {
    sequence.to_le_bytes().into_iter().cycle().take(VALUE_BYTES).collect()
}

/// Records of both partitions, in turns.
async fn produce(scene: &Scene, epoch: u64, sequences: std::ops::Range<i32>) {
    let answers = Answers::default();
    let life = scene.life(1, epoch);
    let before = sequences.len() * 2;
    for first in sequences.clone().step_by(TURN as usize) {
        for partition in [PARTITION, OTHER] {
            for sequence in first..(first + TURN).min(sequences.end) {
                let (header, body) = batch(sequence, &large(sequence));
                let header = EntryHeader { topic: partition.topic, partition: partition.partition, ..header };
                let range = life.range();
                range.append_space().await;
                let deadline = life.shard.clock().monotonic() + Duration::from_secs(3_600);
                let note = Note { sequence, answers: answers.clone() };
                range.produce(header, life.epoch, Body::Copied(&body), Box::new(note), deadline);
            }
        }
    }
    scene.until("everything is acknowledged", || committed(&answers) == before).await;
}

async fn open(scene: &Scene, epoch: u64) {
    for partition in [PARTITION, OTHER] {
        assert_eq!(scene.life(1, epoch).control(open_entry(partition, TopicConfig::default())).await, None);
    }
}

async fn delete_before(scene: &Scene, partition: PartitionKey, before: u64) {
    let wanted = DeleteRecordsPartition { range: RANGE, epoch: Epoch(1), partition, before: Offset(before) };
    let reply = scene.shard(1).delete_records(&DeleteRecordsRequest { partitions: vec![wanted] }).await;
    assert_eq!(reply.partitions[0].error, None);
}

/// All members free what is deleted, until holes are punched, too.
async fn free_space(scene: &Scene, nodes: &[u32]) {
    for _ in 0..3 {
        for &node in nodes {
            scene.shard(node).retention_round(true, &Cell::new(false)).await;
        }
        scene.advance(Duration::from_millis(limits::PUNCH_PATIENCE_MS as u64 + 1));
        scene.sleep(1_000).await;
    }
}

/// What a member serves of a partition, from its log start on.
async fn served(scene: &Scene, node: u32, epoch: u64, partition: PartitionKey) -> Vec<(Offset, Vec<u8>)> {
    let life = scene.life(node, epoch);
    let offsets = life.range().offsets(partition).expect("the partition is open");
    let (mut values, mut offset) = (Vec::new(), offsets.log_start);
    while offset < offsets.committed_end {
        let wanted = FetchPartition { range: RANGE, epoch: life.epoch, partition, offset, bytes_max: 1 << 16 };
        let request = FetchRequest { wait_ms_max: 0, bytes_min: 0, bytes_max: 1 << 16, partitions: vec![wanted] };
        let fetched = life.shard.fetch(None, &request, None).await;
        assert_eq!(fetched.reply.partitions[0].error, None, "node {node}, {partition:?}, from {offset}");
        let bytes: Vec<u8> = fetched.entries.iter().flat_map(|slice| slice.to_vec()).collect();
        values.extend(values_of(&bytes));
        offset = Offset(values.last().expect("there is more").0.0 + 1);
    }
    values
}

async fn serve_the_same(scene: &Scene, nodes: &[u32], epoch: u64, expected: &[(PartitionKey, std::ops::Range<i32>)]) {
    let end = scene.range(nodes[0]).log().end().index;
    let all = || nodes.iter().all(|&node| scene.range(node).readable_index() == end);
    scene.until("everything is committed everywhere", all).await;
    for (partition, sequences) in expected {
        let expected: Vec<_> = sequences.clone().map(|at| (Offset(at as u64), large(at))).collect();
        for &node in nodes {
            let served = served(scene, node, epoch, *partition).await;
            assert!(served == expected, "node {node}, {partition:?}: {} records", served.len());
        }
    }
    let states: Vec<_> =
        nodes.iter().map(|&node| scene.range(node).with_member(|member| member.state().clone())).collect();
    assert!(states.windows(2).all(|pair| pair[0] == pair[1]), "the same partitions and producers");
}

/// Asks a learner until it has what its source knows to be committed.
async fn learn(scene: &Scene, node: u32, epoch: u64, chain: &[u32], source: u32) {
    for _ in 0..100 {
        let report = scene.learn(node, epoch, chain, source).await;
        assert_eq!(report.error, None);
        if report.limit.is_some_and(|limit| report.end >= limit) {
            return;
        }
        scene.sleep(limits::PROGRESS_POLL_MS).await;
    }
    panic!("node {node} does not get there");
}

/// A chain of three whose logs begin in the middle and have holes: 400 records each, some of them live.
async fn freed(scene: &Scene) {
    scene.change(1, &[1, 2, 3], &[1]).await;
    open(scene, 1).await;
    produce(scene, 1, 0..400).await;
    delete_before(scene, PARTITION, 150).await;
    delete_before(scene, OTHER, 380).await;
    produce(scene, 1, 400..500).await;
    free_space(scene, &[1, 2, 3]).await;
    for node in 1..=3 {
        let range = scene.range(node);
        assert!(range.log().first_index() > LogIndex(1), "node {node} dropped its first segments");
        assert!(range.log().usage().freed_bytes > 0, "node {node} punched holes");
    }
}

const LIVE: [(PartitionKey, std::ops::Range<i32>); 2] = [(PARTITION, 150..500), (OTHER, 380..500)];
const LIVE_LATER: [(PartitionKey, std::ops::Range<i32>); 2] = [(PARTITION, 150..540), (OTHER, 380..540)];

#[test]
fn a_wiped_member_learns_what_is_left_and_joins() {
    each(3, async |scene| {
        freed(&scene).await;
        scene.wipe(3, 2).await;
        scene.change(2, &[1, 2], &[1, 2]).await;
        learn(&scene, 3, 2, &[1, 2], 2).await;
        let copied = scene.range(3).log().usage();
        assert!(copied.file_bytes < scene.range(2).log().usage().file_bytes, "holes take no room: {copied:?}");
        scene.change(3, &[1, 2, 3], &[1, 2]).await;
        serve_the_same(&scene, &[1, 2, 3], 3, &LIVE).await;
        produce(&scene, 3, 500..540).await;
        serve_the_same(&scene, &[1, 2, 3], 3, &LIVE_LATER).await;
        // Also from what its disk holds.
        scene.restart(3, 3).await;
        scene.change(4, &[1, 2, 3], &[1, 2, 3]).await;
        serve_the_same(&scene, &[1, 2, 3], 4, &LIVE_LATER).await;
        // It is a source as good as any.
        scene.wipe(1, 2).await;
        scene.change(5, &[2, 3], &[2, 3]).await;
        learn(&scene, 1, 5, &[2, 3], 3).await;
        scene.change(6, &[1, 2, 3], &[2, 3]).await;
        serve_the_same(&scene, &[1, 2, 3], 6, &LIVE_LATER).await;
    });
}

/// Three learners share the least rate that a source can have: some requests are refused, and both get there, no sooner.
#[test]
fn learners_that_wait_for_their_turn_get_there() {
    each(4, async |scene| {
        freed(&scene).await;
        scene.wipe(1, 2).await;
        scene.wipe(3, 2).await;
        scene.change(2, &[2], &[2]).await;
        let source = scene.shard(2);
        source.set_copy_rate(Some(limits::COPY_BYTES_PER_SECOND_MIN));
        let began = source.clock().monotonic();
        let (mut learning, mut throttled) = (vec![1, 3, 4], 0);
        while !learning.is_empty() {
            for node in learning.clone() {
                let report = scene.learn(node, 2, &[2], 2).await;
                assert!(matches!(report.error, None | Some(ErrorCode::Throttled)), "{report:?}");
                throttled += u32::from(report.error.is_some());
                let is_there = report.limit.is_some_and(|limit| report.end >= limit);
                learning.retain(|other| *other != node || !is_there);
            }
            let took = source.clock().monotonic() - began;
            assert!(took < Duration::from_secs(60), "{learning:?} do not get there");
            scene.sleep(limits::PROGRESS_POLL_MS).await;
        }
        let (took, copied) = (source.clock().monotonic() - began, 3 * scene.range(1).log().usage().entry_bytes);
        let least = Duration::from_secs(copied / limits::COPY_BYTES_PER_SECOND_MIN - 1);
        assert!(took >= least && throttled > 0, "{copied} bytes in {took:?}, {throttled} refusals");
        scene.change(3, &[1, 2, 3], &[2]).await;
        serve_the_same(&scene, &[1, 2, 3], 3, &LIVE).await;
    });
}

#[test]
fn a_wiped_member_is_reconciled_with_everything_at_once() {
    each(3, async |scene| {
        freed(&scene).await;
        scene.wipe(3, 2).await;
        scene.change(2, &[1, 2, 3], &[1, 2]).await;
        serve_the_same(&scene, &[1, 2, 3], 2, &LIVE).await;
    });
}

#[test]
fn a_former_member_whose_end_is_gone_starts_over_and_only_as_a_learner() {
    each(3, async |scene| {
        scene.change(1, &[1, 2, 3], &[1]).await;
        open(&scene, 1).await;
        produce(&scene, 1, 0..40).await;
        // It stays behind with what it has, and has known it to be committed.
        let old_end = scene.range(3).log().end().index;
        scene.restart(3, 2).await;
        scene.change(2, &[1, 2], &[1, 2]).await;
        produce(&scene, 2, 40..400).await;
        for partition in [PARTITION, OTHER] {
            let wanted = DeleteRecordsPartition { range: RANGE, epoch: Epoch(2), partition, before: Offset(300) };
            let reply = scene.shard(1).delete_records(&DeleteRecordsRequest { partitions: vec![wanted] }).await;
            assert_eq!(reply.partitions[0].error, None);
        }
        free_space(&scene, &[1, 2]).await;
        assert!(scene.range(1).log().first_index() > old_end, "what it would go on with is gone");
        learn(&scene, 3, 2, &[1, 2], 1).await;
        assert!(scene.range(3).log().first_index() > old_end, "it began anew");
        scene.change(3, &[1, 2, 3], &[1, 2]).await;
        serve_the_same(&scene, &[1, 2, 3], 3, &[(PARTITION, 300..400), (OTHER, 300..400)]).await;
    });
}

#[test]
fn a_learner_that_is_killed_at_any_time_goes_on() {
    for seed in seeds() {
        run(seed, 3, async move |scene| {
            freed(&scene).await;
            scene.wipe(3, 2).await;
            scene.change(2, &[1, 2], &[1, 2]).await;
            for life in 3..9 {
                assert_eq!(scene.learn(3, 2, &[1, 2], 1 + seed as u32 % 2).await.error, None);
                scene.sleep(1 + (seed * 7 + life * 5) % 40).await;
                scene.restart(3, life).await;
                let marker = scene.shard(3).range(RANGE).map(|range| range.with_member(|member| member.marker()));
                assert!(marker.unwrap_or_default() == Epoch(0), "a copy is marked by nothing that its source was");
            }
            learn(&scene, 3, 2, &[1, 2], 1).await;
            scene.change(20, &[1, 2, 3], &[1, 2]).await;
            serve_the_same(&scene, &[1, 2, 3], 20, &LIVE).await;
        });
    }
}
