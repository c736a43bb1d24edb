//! Random right histories are clean, random damage to them is found, and all of it is fast. A failure prints its seed.

use std::time::Instant;

use super::world::{Random, World, member, owner};
use crate::*;

const HISTORIES: u64 = 300;

#[test]
fn right_histories_are_clean() {
    for seed in 0..HISTORIES {
        let report = World::new(seed, 20 + seed as usize).history().check();
        report.assert_clean(&format!("seed {seed}"));
        assert!(seed < 100 || report.acknowledged > 30 && report.unknown_read > 0, "seed {seed}: {report}");
    }
}

/// One deed of damage: does it to the world, and says as what it must show.
fn damage(world: &mut World, random: &mut Random) -> &'static str {
    let log = world.stored[0].clone();
    let at = random.below(log.len() as u64) as usize;
    let last = world.readers.iter().position(|reader| reader.last).expect("there is a final reader");
    let extra = RecordId { producer: 50, partition: 0, sequence: 0 };
    match random.below(12) {
        0 => {
            let certain = world.sent.iter().filter(|sent| sent.record.partition == 0);
            let certain = certain.filter(|sent| sent.answer.is_some_and(|answer| answer.outcome.is_acknowledged()));
            let records: Vec<_> = certain.map(|sent| sent.record).collect();
            let victim = records[random.below(records.len() as u64) as usize];
            world.last(0).for_each(|answer| answer.records.retain(|(_, record)| *record != Ok(victim)));
            "lost"
        }
        1 => {
            world.append(log[at]);
            "duplicate"
        }
        2 => {
            world.attempt(extra, None);
            world.early(at as u64, &[(at as u64, extra)]);
            "rewritten"
        }
        3 => {
            world.append(extra);
            "phantom"
        }
        4 => {
            world.readers[last].answers[0].records[at].1 = Err(Damage::Length(3));
            "corrupted"
        }
        5 if at + 1 < log.len() => {
            world.readers[last].answers[0].records.retain(|(offset, _)| *offset != at as u64);
            "gap"
        }
        6 => {
            world.early(at as u64, &[(at as u64, log[at]), (at as u64, log[at])]);
            "backwards"
        }
        7 => {
            let now = world.now;
            world.owners.push((owner(world.epoch + 1), now, now + 1));
            world.owners.push((owner(world.epoch), now + 2, now + 3));
            "stale_owner"
        }
        8 => {
            world.owners.push((Owner { head: member(9), ..owner(world.epoch + 1) }, 1, TIME_UNTOLD));
            world.owners.push((owner(world.epoch + 1), 1, TIME_UNTOLD));
            "two_owners"
        }
        9 => {
            world.dumps[random.below(3) as usize].records.retain(|(offset, _)| *offset != at as u64);
            "diverged"
        }
        10 => {
            let again = world.readers[last].answers[0].clone();
            world.readers[last].answers.push(super::world::Answered { records: Vec::new(), ..again });
            let poll = &mut world.readers[last].answers[1].poll;
            poll.epoch = Some(0);
            "read_epoch_back"
        }
        _ => {
            world.attempt(extra, None);
            world.early(log.len() as u64, &[(log.len() as u64, extra)]);
            "vanished"
        }
    }
}

#[test]
fn random_damage_is_found() {
    let mut kinds = std::collections::BTreeSet::new();
    for seed in 0..HISTORIES {
        let mut random = Random(seed ^ 0xDA_AA_6E);
        let mut world = World::new(seed, 60 + seed as usize);
        let kind = damage(&mut world, &mut random);
        let found = world.kinds();
        assert!(found.contains(&kind), "seed {seed}: {kind} was planted, found {found:?}");
        kinds.insert(kind);
    }
    assert!(kinds.len() > 10, "only {kinds:?} were planted");
}

#[test]
fn one_history_gives_one_report() {
    let mut world = World::new(3, 400);
    world.stored[0].truncate(10);
    world.last(0).for_each(|answer| answer.records.truncate(10));
    let report = world.history().check();
    assert!(!report.anomalies.is_empty());
    assert_eq!(report, world.history().check());
}

/// Shows what a check of some 10,000 events takes: `cargo test --release -p minikafka-checker speed -- --nocapture`. It fails only by an order
/// of magnitude (a quadratic pass), so that a busy machine does not make it fail.
#[test]
fn speed() {
    let world = World::new(1, 1_600);
    let history = world.history();
    let begin = Instant::now();
    const ROUNDS: u32 = 10;
    let report = (1..ROUNDS).fold(history.check(), |_, _| history.check());
    let took = begin.elapsed() / ROUNDS;
    let polls: usize = world.readers.iter().map(|reader| reader.answers.len()).sum();
    println!("{} attempts, {polls} polls, {} reads, {} records dumped: {took:?}", report.attempted, report.reads, {
        world.dumps.iter().map(|dump| dump.records.len()).sum::<usize>()
    });
    assert!(took.as_millis() < 200, "{took:?}");
}
