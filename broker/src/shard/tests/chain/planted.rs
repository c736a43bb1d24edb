//! The planted bugs of the interpreter do what they say. A planted bug is there for the whole process, so this is one test,
//! to be run alone: `cargo test -p minikafka-broker --features planted-bugs -- --ignored planted`.

use minikafka_core::chain::planted::{PlantedBug, plant};

use super::*;

#[test]
#[ignore = "plants bugs that every other test would meet"]
fn planted_bugs_of_the_interpreter_do_what_they_say() {
    for bug in [PlantedBug::RestartWithoutNewEpoch, PlantedBug::PromiseNotPersisted] {
        plant(Some(bug));
        run(1, 3, async |scene| {
            three(&scene).await;
            let answers = Answers::default();
            scene.produce(1, 1, 0..20, &answers).await;
            scene.until("everything is acknowledged", || committed(&answers) == 20).await;
            // The same life again: the incarnation is kept.
            scene.restart(2, 1).await;
            scene.produce(1, 1, 20..30, &answers).await;
            scene.until("the chain goes on in its epoch", || committed(&answers) == 30).await;
            assert_eq!(scene.range(2).epoch(), Epoch(1));
        });
    }
    plant(Some(PlantedBug::PromiseNotPersisted));
    let forgotten = |scene: Scene| async move {
        three(&scene).await;
        scene.seal(3, 9).await;
        scene.restart(3, 2).await;
        // Below what was promised: any other member would answer `stale`.
        scene.seal(3, 5).await.promised
    };
    assert_eq!(run(2, 3, forgotten), Epoch(5));
    plant(None);
    dedup_is_lost_with_a_snapshot();
}

fn dedup_is_lost_with_a_snapshot() {
    let again = || {
        run(3, 1, async |scene| {
            scene.change(1, &[1], &[1]).await;
            scene.open_partition(1, 1).await;
            let (first, again) = (Answers::default(), Answers::default());
            produce_as_another(&scene, 1, &first).await;
            // Several segments, so that recovery begins from a snapshot.
            scene.produce(1, 1, 0..600, &first).await;
            scene.until("everything is acknowledged", || committed(&first) == 601).await;
            scene.sleep(1_000).await;
            scene.restart(1, 2).await;
            scene.change(2, &[1], &[1]).await;
            produce_as_another(&scene, 2, &again).await;
            scene.until("it is answered", || again.borrow().len() == 1).await;
            scene.range(1).log().end().index
        })
    };
    let right = again();
    plant(Some(PlantedBug::DedupLostWithSegment));
    assert_eq!(again().0, right.0 + 1, "a batch that was stored long ago is stored again");
    plant(None);
}

/// A producer that writes one batch, and will not be in any later segment.
async fn produce_as_another(scene: &Scene, epoch: u64, answers: &Answers) {
    let (header, body) = batch(0, b"once");
    let header = EntryHeader { producer_id: ProducerId(10), ..header };
    let deadline = scene.shard(1).clock().monotonic() + Duration::from_secs(60);
    let note = Note { sequence: 0, answers: answers.clone() };
    scene.range(1).produce(header, Epoch(epoch), Body::Copied(&body), Box::new(note), deadline);
}
