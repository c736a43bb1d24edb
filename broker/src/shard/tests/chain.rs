//! Chains of several members over simulated disks and links, changed by hand as the controller changes them.
//!
//! Proof that they can fail: see each test.

use minikafka_core::chain::peer::{PeerBody, PeerMessage};

use super::*;

mod explain;
mod freed;
mod groups;
mod mending;
#[cfg(feature = "planted-bugs")]
mod planted;
mod scene;

use scene::Scene;

fn run<T: 'static, F: Future<Output = T> + 'static>(
    seed: u64,
    nodes: u32,
    work: impl FnOnce(Scene) -> F + 'static,
) -> T {
    let executor = SimExecutor::new(seed);
    let scene = Scene::begin(executor.clone(), nodes);
    executor.run(async move { work(scene.await).await })
}

fn seeds() -> std::ops::Range<u64> {
    let seed = std::env::var("MINIKAFKA_SEED").ok();
    seed.map_or(0..8, |seed| {
        let seed: u64 = seed.parse().expect("MINIKAFKA_SEED is a number");
        seed..seed + 1
    })
}

/// Runs `work` for some seeds.
fn each<F: Future<Output = ()> + 'static>(nodes: u32, work: impl Fn(Scene) -> F + Clone + 'static) {
    for seed in seeds() {
        println!("seed {seed}");
        run(seed, nodes, work.clone());
    }
}

/// A chain of three that acts in epoch 1, with an open partition.
async fn three(scene: &Scene) {
    scene.change(1, &[1, 2, 3], &[1]).await;
    scene.open_partition(1, 1).await;
}

#[test]
fn what_the_head_takes_is_committed_on_all_with_the_same_bytes() {
    each(3, async |scene| {
        three(&scene).await;
        let answers = Answers::default();
        scene.produce(1, 1, 0..60, &answers).await;
        scene.until("everything is acknowledged", || committed(&answers) == 60).await;
        // Whoever commits what the tail has not must fail here.
        assert!((1..=3).all(|node| scene.range(node).log().durable_index() == LogIndex(61)));
        scene.agree(&[1, 2, 3]).await;
        let values: Vec<_> = (0..60).map(|sequence| (Offset(sequence as u64), value(sequence))).collect();
        for node in 1..=3 {
            assert_eq!(scene.life(node, 1).read_all().await, values, "node {node} serves what is committed");
        }
    });
}

#[test]
fn a_link_that_broke_is_resumed_in_the_same_epoch() {
    each(3, async |scene| {
        three(&scene).await;
        let answers = Answers::default();
        scene.produce(1, 1, 0..10, &answers).await;
        scene.sleep(1).await;
        scene.cut(1, 2);
        scene.produce(1, 1, 10..30, &answers).await;
        scene.sleep(300).await;
        assert!(committed(&answers) < 30, "without its successor the head commits nothing");
        assert!(scene.complaints().iter().any(|complaint| complaint.about == NodeId(2)), "the head complained at once");
        scene.heal();
        scene.until("everything is acknowledged", || committed(&answers) == 30).await;
        scene.agree(&[1, 2, 3]).await;
        assert_eq!(scene.range(1).epoch(), Epoch(1));
    });
}

#[test]
fn the_window_holds_a_head_back_that_hears_no_acknowledgement() {
    run(7, 2, async |scene| {
        scene.change(1, &[1, 2], &[1]).await;
        scene.open_partition(1, 1).await;
        // Entries reach the tail, its acknowledgements go nowhere.
        scene.silence(2, 1);
        let (answers, large) = (Answers::default(), vec![7; 1 << 20]);
        for sequence in 0..24 {
            scene.life(1, 1).produce(sequence, &large, &answers).await;
        }
        scene.sleep(1_000).await;
        let (sent, window) = (scene.range(2).log().end().index.0, limits::STREAM_WINDOW_BYTES >> 20);
        assert!((window - 1..=window + 2).contains(&sent), "{sent} entries of a MiB were sent");
        assert_eq!(committed(&answers), 0);
    });
}

#[test]
fn a_restarted_middle_member_is_in_no_chain_until_the_next_epoch() {
    each(3, async |scene| {
        three(&scene).await;
        let answers = Answers::default();
        scene.produce(1, 1, 0..20, &answers).await;
        scene.until("some are acknowledged", || committed(&answers) > 5).await;
        scene.restart(2, 2).await;
        scene.produce(1, 1, 20..30, &answers).await;
        scene.sleep(500).await;
        let before = committed(&answers);
        assert!(before < 30, "a restarted member takes nothing in the epoch it was in");
        scene.change(2, &[1, 2, 3], &[1, 3]).await;
        scene.agree(&[1, 2, 3]).await;
        // Whoever was told `stale` sends again; what is stored already is answered, not stored again.
        let again = Answers::default();
        scene.produce(1, 2, 22..30, &again).await;
        scene.produce(1, 2, 30..40, &again).await;
        scene.until("everything is acknowledged", || committed(&again) == 18).await;
        scene.agree(&[1, 2, 3]).await;
        let values: Vec<_> = (0..40).map(|sequence| (Offset(sequence as u64), value(sequence))).collect();
        assert_eq!(scene.life(2, 2).read_all().await, values);
    });
}

#[test]
fn a_learner_copies_everything_and_joins() {
    each(3, async |scene| {
        scene.change(1, &[1, 2], &[1]).await;
        scene.open_partition(1, 1).await;
        let answers = Answers::default();
        // Several segments, and more than one copy reply.
        scene.produce(1, 1, 0..300, &answers).await;
        scene.until("everything is acknowledged", || committed(&answers) == 300).await;
        for _ in 0..100 {
            let report = scene.learn(3, 1, &[1, 2], 2).await;
            assert_eq!((report.error, report.promised), (None, Epoch(0)));
            if report.end == LogIndex(301) {
                break;
            }
            scene.sleep(limits::PROGRESS_POLL_MS).await;
        }
        assert_eq!(scene.range(3).log().end(), scene.range(1).log().end(), "the learner has all that is committed");
        assert_eq!(scene.range(3).check_read(Epoch(1)), Err(ErrorCode::NotOwner), "and serves none of it");
        scene.produce(1, 1, 300..310, &answers).await;
        scene.change(2, &[1, 2, 3], &[1, 2]).await;
        scene.agree(&[1, 2, 3]).await;
        assert_eq!(scene.range(3).log().marker(), Epoch(2));
    });
}

#[test]
fn a_member_without_anything_copies_all_of_it_when_it_is_reconciled() {
    each(2, async |scene| {
        scene.change(1, &[1], &[1]).await;
        scene.open_partition(1, 1).await;
        let answers = Answers::default();
        scene.produce(1, 1, 0..100, &answers).await;
        scene.until("everything is acknowledged", || committed(&answers) == 100).await;
        scene.change(2, &[1, 2], &[1]).await;
        scene.produce(1, 2, 100..110, &answers).await;
        scene.until("everything is acknowledged", || committed(&answers) == 110).await;
        scene.agree(&[1, 2]).await;
    });
}

#[test]
fn a_former_head_with_a_longer_tail_is_cut() {
    each(3, async |scene| {
        three(&scene).await;
        let answers = Answers::default();
        scene.produce(1, 1, 0..20, &answers).await;
        scene.until("everything is acknowledged", || committed(&answers) == 20).await;
        scene.cut(1, 2);
        scene.cut(1, 3);
        let lost = Answers::default();
        scene.produce(1, 1, 20..40, &lost).await;
        scene.change(2, &[2, 3], &[2, 3]).await;
        let rest = Answers::default();
        scene.produce(2, 2, 20..30, &rest).await;
        scene.until("the others go on", || committed(&rest) == 10).await;
        assert_eq!(committed(&lost), 0, "nobody else has what the former head took alone");
        scene.heal();
        assert!(scene.range(1).log().end().index > scene.range(2).log().end().index);
        scene.change(3, &[2, 3, 1], &[2, 3]).await;
        scene.agree(&[2, 3, 1]).await;
        let values: Vec<_> = (0..30).map(|sequence| (Offset(sequence as u64), value(sequence))).collect();
        assert_eq!(scene.life(1, 3).read_all().await, values);
    });
}

#[test]
fn the_tail_serves_only_what_it_knows_to_be_committed() {
    each(2, async |scene| {
        scene.change(1, &[1, 2], &[1]).await;
        scene.open_partition(1, 1).await;
        scene.agree(&[1, 2]).await;
        scene.silence(2, 1);
        let answers = Answers::default();
        scene.produce(1, 1, 0..5, &answers).await;
        scene.until("the tail has them", || scene.range(2).log().durable_index() == LogIndex(6)).await;
        assert_eq!(scene.life(2, 1).read_all().await, [], "its own durable log says nothing about the head's");
        assert_eq!(scene.range(1).readable_index(), LogIndex(1));
        scene.heal();
        scene.produce(1, 1, 5..6, &answers).await;
        scene.until("everything is acknowledged", || committed(&answers) == 6).await;
        scene.until("the tail hears of it", || scene.range(2).readable_index() == LogIndex(7)).await;
        assert_eq!(scene.life(2, 1).read_all().await.len(), 6);
    });
}

#[test]
fn what_is_no_entry_ends_the_stream_and_not_the_member() {
    each(2, async |scene| {
        scene.change(1, &[1, 2], &[1]).await;
        scene.open_partition(1, 1).await;
        let answers = Answers::default();
        scene.produce(1, 1, 0..3, &answers).await;
        scene.until("everything is acknowledged", || committed(&answers) == 3).await;
        // The entry that comes next, which the tail would take.
        scene.silence(1, 2);
        scene.produce(1, 1, 3..4, &answers).await;
        let run = scene.range(1).log().read_index(LogIndex(5), 1).await.expect("it can be read").remove(0);
        let say = |entry: SharedSlice| {
            let body = PeerBody::Entries { stream: StreamId(1), committed: LogIndex(0), entries: vec![entry] };
            scene.shard(2).receive(PeerMessage { range: RANGE, epoch: Epoch(1), body });
        };
        for at in 0..run.len() {
            let mut bytes = run.to_vec();
            bytes[at] ^= 1 << (at % 8);
            say(SharedSlice::new(Rc::new(bytes), 0..run.len()));
            say(run.slice(0..at));
        }
        scene.sleep(500).await;
        assert_eq!(scene.range(2).log().end().index, LogIndex(4), "nothing of it was believed");
        say(run.clone());
        scene.until("the entry itself is taken", || scene.range(2).log().end().index == LogIndex(5)).await;
        scene.heal();
        scene.produce(1, 1, 4..10, &answers).await;
        scene.until("everything is acknowledged", || committed(&answers) == 10).await;
        scene.agree(&[1, 2]).await;
    });
}

#[test]
fn a_follower_without_space_takes_nothing_and_goes_on_when_there_is_some() {
    each(2, async |scene| {
        scene.change(1, &[1, 2], &[1]).await;
        scene.open_partition(1, 1).await;
        scene.disk(2).set_capacity(2 << 20);
        let (answers, large) = (Answers::default(), vec![7; 100_000]);
        for sequence in 0..60 {
            scene.life(1, 1).produce(sequence, &large, &answers).await;
        }
        scene.sleep(1_000).await;
        let held = committed(&answers);
        assert!(held < 60, "{held} batches of 100 kB on a disk of 2 MiB");
        assert_eq!(scene.range(2).log().failed().map(|error| error.to_string()), None, "a full disk is no failure");
        scene.disk(2).set_capacity(u64::MAX);
        scene.until("everything is acknowledged", || committed(&answers) == 60).await;
        scene.agree(&[1, 2]).await;
    });
}

#[test]
fn without_links_a_chain_of_two_is_refused() {
    let executor = SimExecutor::new(1);
    let disk = SimDisk::new(&executor, Durability::Dsync);
    let error = executor.run(async move {
        let life = Life::begin(disk, 1, 1).await;
        let me = life.shard.me();
        let (ring, range, start) = (RANGE.ring, RANGE.range, LogPoint::START);
        let chain = vec![me, ChainMember { node: NodeId(2), ..me }];
        let ranges = vec![ActivateRange { range, epoch: Epoch(2), chain, start }];
        life.shard.activate(ActivateRequest { ring, ranges }).await.ranges[0].error
    });
    assert_eq!(error, Some(ErrorCode::Unsupported));
}

#[test]
fn the_same_seed_does_the_same() {
    let once = |seed| {
        run(seed, 3, async |scene| {
            // Ranges without entries give signs of life, in the order in which the shard goes through them.
            for range in 20..40 {
                scene.turn_to(RangeId(range));
                scene.change(1, &[1, 2], &[1]).await;
            }
            scene.turn_to(RANGE.range);
            three(&scene).await;
            let answers = Answers::default();
            scene.produce(1, 1, 0..40, &answers).await;
            scene.sleep(2_000).await;
            scene.cut(1, 2);
            scene.produce(1, 1, 40..60, &answers).await;
            scene.sleep(50).await;
            scene.heal();
            scene.until("everything is acknowledged", || committed(&answers) == 60).await;
            scene.restart(2, 2).await;
            scene.change(2, &[1, 2, 3], &[1, 3]).await;
            scene.shard(1).retention_round(true, &Cell::new(false)).await;
            scene.agree(&[1, 2, 3]).await;
            let disks = [1, 2, 3].map(|node| scene.disk(node).fingerprint());
            (disks, scene.trace())
        })
    };
    for seed in seeds() {
        assert_eq!(once(seed), once(seed), "seed {seed}");
    }
    assert_ne!(once(100), once(101), "another seed does something else");
}
