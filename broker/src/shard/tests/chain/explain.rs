//! What is told of a produce hop by hop, over simulated disks, links and clocks.

use minikafka_core::wire::{Explanation, Hop, Stage};

use super::*;
use crate::explain::Trace;

/// A client that asked; what it is told of a batch that is committed is noted.
struct Asking {
    trace: Rc<Trace>,
    life: Life,
    told: Told,
}

type Told = Rc<RefCell<Vec<Vec<Hop>>>>;

impl Completion for Asking {
    fn complete(self: Box<Self>, answer: Answer) {
        if !matches!(answer, Answer::Done { .. }) {
            return;
        }
        let now_ns = self.life.shard.clock().monotonic_ns();
        self.trace.ended(Stage::Answer, now_ns);
        self.told.borrow_mut().push(self.trace.hops(self.life.shard.me(), now_ns));
    }

    fn trace(&self) -> Option<Rc<Trace>> {
        Some(self.trace.clone())
    }
}

fn ask(scene: &Scene, epoch: u64, sequence: i32, told: &Told) {
    let life = scene.life(1, epoch);
    let (header, body) = batch(sequence, &value(sequence));
    let trace = Rc::new(Trace::begin(life.shard.clock().monotonic_ns()));
    let deadline = life.shard.clock().monotonic() + Duration::from_secs(3_600);
    let (range, epoch) = (life.range(), life.epoch);
    let asking = Asking { trace, life, told: told.clone() };
    range.produce(header, epoch, Body::Copied(&body), Box::new(asking), deadline);
}

fn nodes(hops: &[Hop]) -> Vec<u32> {
    hops.iter().map(|hop| hop.node.0).collect()
}

fn stages(hop: &Hop) -> Vec<Stage> {
    let mut stages: Vec<_> = hop.stages.iter().map(|span| span.stage).collect();
    // Which of these two is over first, nobody knows.
    stages.sort_by_key(|stage| stage.number());
    stages
}

/// What is told decodes, so that every stage is within its hop, and nobody behind took longer than was waited for it.
fn check(hops: &[Hop]) {
    let explanation = Explanation { hops: hops.to_vec() };
    assert_eq!(Explanation::from_bytes(&explanation.to_bytes()), Ok(explanation));
    for (hop, behind) in hops.iter().zip(&hops[1..]) {
        // The clocks of this world move in steps, every node's for itself.
        let waited_us = hop.took_us(Stage::Successor).expect("it has a successor");
        assert!(behind.whole_us <= waited_us + 2 * TICK.as_micros() as u32, "{hops:?}");
    }
}

#[test]
fn every_member_of_a_chain_tells_its_stages() {
    use Stage::*;
    each(3, async |scene| {
        three(&scene).await;
        let (told, answers) = (Told::default(), Answers::default());
        for sequence in 0..40 {
            match sequence % 4 {
                0 => ask(&scene, 1, sequence, &told),
                _ => scene.produce(1, 1, sequence..sequence + 1, &answers).await,
            }
            if sequence % 8 == 0 {
                scene.sleep(1).await;
            }
        }
        scene.until("everything is acknowledged", || told.borrow().len() + committed(&answers) == 40).await;
        assert_eq!(told.borrow().len(), 10);
        for hops in &*told.borrow() {
            check(hops);
            assert_eq!(nodes(hops), [1, 2, 3]);
            assert_eq!(stages(&hops[0]), [Append, Durable, Successor, Answer]);
            assert_eq!(stages(&hops[1]), [Receive, Append, Durable, Successor, Answer]);
            assert_eq!(stages(&hops[2]), [Receive, Append, Durable, Answer]);
        }
        scene.agree(&[1, 2, 3]).await;
    });
}

#[test]
fn a_slow_hop_is_seen_in_itself_and_in_who_waits_for_it() {
    run(3, 3, async |scene| {
        three(&scene).await;
        let told = Told::default();
        scene.silence(3, 2);
        ask(&scene, 1, 0, &told);
        scene.sleep(450).await;
        assert!(told.borrow().is_empty(), "the tail's acknowledgement is lost");
        scene.heal();
        // Reopening the stream acknowledges what the tail has; what it would have told is lost.
        scene.cut(2, 3);
        scene.heal();
        scene.until("it is acknowledged", || !told.borrow().is_empty()).await;
        let hops = told.borrow()[0].clone();
        check(&hops);
        let waited_us = [&hops[0], &hops[1]].map(|hop| hop.took_us(Stage::Successor).expect("it has a successor"));
        assert!(waited_us.iter().all(|&waited_us| waited_us >= 400_000), "{hops:?}");
        assert!(hops[0].took_us(Stage::Durable).expect("its own disk works") <= 200_000, "{hops:?}");
        assert_eq!(hops[2], Hop::untold(NodeId(3), ShardId(0)));
    });
}

#[test]
fn a_member_of_an_older_release_is_not_asked_and_told_without_stages() {
    each(3, async |scene| {
        scene.is_older(2);
        three(&scene).await;
        let told = Told::default();
        ask(&scene, 1, 0, &told);
        scene.until("it is acknowledged", || !told.borrow().is_empty()).await;
        let hops = told.borrow()[0].clone();
        assert_eq!((nodes(&hops), &hops[1]), (vec![1, 2], &Hop::untold(NodeId(2), ShardId(0))));
    });
}

#[test]
fn an_index_that_comes_again_is_another_entry() {
    each(3, async |scene| {
        three(&scene).await;
        let (lost, told) = (Told::default(), Told::default());
        // The head alone has it, and loses it to those who go on without.
        scene.cut(1, 2);
        scene.cut(1, 3);
        ask(&scene, 1, 0, &lost);
        let index = scene.range(1).log().end().index;
        scene.change(2, &[2, 3], &[2, 3]).await;
        scene.heal();
        scene.change(3, &[1, 2, 3], &[2, 3]).await;
        ask(&scene, 3, 0, &told);
        assert_eq!(scene.range(1).log().end().index, index, "it has the place of the one that was lost");
        scene.until("it is acknowledged", || !told.borrow().is_empty()).await;
        let hops = told.borrow()[0].clone();
        check(&hops);
        assert_eq!(nodes(&hops), [1, 2, 3]);
        assert!(hops.iter().all(|hop| hop.took_us(Stage::Durable).is_some()), "{hops:?}");
        assert!(lost.borrow().is_empty(), "the client of the first one was told to send again");
    });
}

#[test]
fn a_fetch_tells_what_it_waited_for() {
    run(5, 1, async |scene| {
        scene.change(1, &[1], &[1]).await;
        scene.open_partition(1, 1).await;
        let life = scene.life(1, 1);
        let fetch = |offset, wait_ms_max| FetchRequest {
            wait_ms_max,
            bytes_min: 1,
            bytes_max: 20_000,
            partitions: vec![FetchPartition {
                range: RANGE,
                epoch: Epoch(1),
                partition: PARTITION,
                offset: Offset(offset),
                bytes_max: 20_000,
            }],
        };
        let explained = async |request: &FetchRequest| {
            let trace = Trace::begin(life.shard.clock().monotonic_ns());
            life.shard.fetch(None, request, Some(&trace)).await;
            let hops = trace.hops(life.shard.me(), life.shard.clock().monotonic_ns());
            check(&hops);
            hops
        };
        let (late, answers) = (scene.clone(), Answers::default());
        scene.spawn(async move {
            late.sleep(1_000).await;
            late.produce(1, 1, 0..1, &answers).await;
        });
        let hops = explained(&fetch(0, 5_000)).await;
        assert_eq!(nodes(&hops), [1]);
        let rounds: Vec<_> = hops[0].stages.iter().map(|span| span.stage).collect();
        assert_eq!(rounds, [Stage::Memory, Stage::Read, Stage::Wait, Stage::Memory, Stage::Read]);
        let waited_us = hops[0].took_us(Stage::Wait).expect("it waited");
        assert!((800_000..=1_200_000).contains(&waited_us), "{hops:?}");
        let hops = explained(&fetch(0, 0)).await;
        assert_eq!(stages(&hops[0]), [Stage::Memory, Stage::Read], "what is there is not waited for");
    });
}
