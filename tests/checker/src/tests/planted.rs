//! The table: each anomaly, planted by itself in a right history, is found, and nothing else is.

use super::world::{RANGE, World, member, owner};
use crate::*;

const SEED: u64 = 11;

fn extra(producer: u32, sequence: u64) -> RecordId {
    RecordId { producer, partition: 0, sequence }
}

fn poll(at: Time, node: u64) -> Poll {
    Poll { invoked: at, returned: at + 1, member: Some(member(node)), ..Poll::default() }
}

/// A right history in which `plant` went wrong gives exactly these kinds.
#[track_caller]
fn finds(kinds: &[&str], plant: impl FnOnce(&mut World)) {
    let mut world = World::new(SEED, 300);
    assert_eq!(world.kinds(), [""; 0], "without the plant");
    plant(&mut world);
    let report = world.history().check();
    assert_eq!(report.kinds().into_keys().collect::<Vec<_>>(), kinds, "{report}");
}

/// Adds a reader with these answers, none of which brings a record.
fn hear(world: &mut World, name: &str, polls: impl IntoIterator<Item = Poll>) {
    let answers = polls.into_iter().map(|poll| super::world::Answered { poll, records: Vec::new() }).collect();
    world.readers.push(super::world::Reader { name: name.into(), partition: 0, from: 0, last: false, answers });
}

#[test]
fn losses() {
    finds(&["lost"], |world| {
        // Nobody read it, and no end was told that covers it.
        world.attempt(extra(9, 0), Some(Outcome::Acknowledged(world.stored[0].len() as u64)));
    });
    finds(&["lost"], |world| world.attempt(extra(9, 0), Some(Outcome::Stored)));
    finds(&["vanished"], |world| {
        world.attempt(extra(9, 0), None);
        let end = world.stored[0].len() as u64;
        world.early(end, &[(end, extra(9, 0))]);
    });
    finds(&["unread"], |world| world.readers.retain(|reader| !reader.last || reader.partition == 0));
    finds(&["unread"], |world| world.last(0).for_each(|answer| answer.poll.committed = Some(1_000_000)));
    finds(&["unread"], |world| {
        let last = world.readers.iter_mut().find(|reader| reader.last).expect("there is a final reader");
        last.from = 2;
        last.answers[0].records.drain(..2);
    });
}

#[test]
fn retention_is_no_loss() {
    finds(&[], |world| world.retain_from(10));
    finds(&["gap"], |world| {
        world.retain_from(10);
        world.early(0, &[]);
        let later = (12, world.stored[0][12]);
        world.readers[0].answers[0].poll.log_start = Some(10);
        world.readers[0].answers[0].records.push((later.0, Ok(later.1)));
    });
    finds(&["lost", "vanished"], |world| {
        // What is lost is behind the log start.
        let at = (12..).find(|&at| acknowledged(world, at)).expect("most are acknowledged");
        world.retain_from(10);
        // The final reader gets nothing from there on, and no end was told that would make it stop short.
        world.last(0).for_each(|answer| answer.records.retain(|(offset, _)| *offset < at));
        let answers = world.readers.iter_mut().flat_map(|reader| &mut reader.answers);
        answers.for_each(|answer| answer.poll.committed = None);
    });
}

fn acknowledged(world: &World, at: u64) -> bool {
    let record = world.stored[0][at as usize];
    let sent = world.sent.iter().find(|sent| sent.record == record).expect("all that is stored was sent");
    sent.answer.is_some_and(|answer| answer.outcome.is_acknowledged())
}

#[test]
fn places() {
    finds(&["duplicate"], |world| world.append(world.stored[0][3]));
    finds(&["duplicate"], |world| {
        world.attempt(extra(9, 0), None);
        [(), ()].iter().for_each(|()| world.append(extra(9, 0)));
    });
    finds(&["rewritten"], |world| {
        world.attempt(extra(9, 0), None);
        world.early(4, &[(4, extra(9, 0))]);
        // Sent before all else, so that only its place is wrong.
        world.sent.last_mut().expect("just sent").invoked = 0;
    });
    finds(&["rewritten"], |world| {
        // Of an acknowledgement and a reader: below the log start in the end, so that nothing is missed there.
        let place = world.sent.iter().find(|sent| sent.record == world.stored[0][4]).and_then(|sent| sent.answer);
        assert!(place.is_some(), "another seed: this one was not answered");
        world.attempt(extra(9, 0), None);
        world.sent.last_mut().expect("just sent").invoked = 0;
        for reader in world.readers.iter_mut().filter(|reader| reader.partition == 0) {
            reader.answers.iter_mut().for_each(|answer| {
                answer.records.iter_mut().filter(|(offset, _)| *offset == 4).for_each(|read| read.1 = Ok(extra(9, 0)));
            });
        }
        world.retain_from(10);
    });
    finds(&["misplaced"], |world| {
        let end = world.stored[0].len() as u64;
        world.attempt(extra(9, 0), Some(Outcome::Acknowledged(end + 7)));
        world.append(extra(9, 0));
    });
    finds(&["contradiction"], |world| {
        let end = world.stored[0].len() as u64;
        world.attempt(extra(8, 0), Some(Outcome::Acknowledged(end)));
        world.attempt(extra(9, 0), Some(Outcome::Acknowledged(end)));
        world.last(0).for_each(|answer| answer.poll.log_start = Some(end + 1));
        world.last(0).for_each(|answer| answer.poll.committed = None);
    });
}

#[test]
fn inventions() {
    finds(&["phantom"], |world| world.append(extra(9, 0)));
    finds(&["phantom"], |world| {
        world.attempt(extra(9, 0), Some(Outcome::Failed));
        world.append(extra(9, 0));
    });
    finds(&["phantom"], |world| {
        let elsewhere = RecordId { partition: 1, ..extra(9, 0) };
        world.attempt(elsewhere, None);
        world.early(0, &[(0, elsewhere)]);
    });
    finds(&["corrupted"], |world| {
        world.early(0, &[]);
        world.readers[0].answers[0].records.push((0, Err(Damage::Checksum)));
    });
}

#[test]
fn order() {
    finds(&["reordered"], |world| {
        [1, 2].into_iter().for_each(|sequence| world.attempt(extra(9, sequence), None));
        world.sent.iter_mut().for_each(|sent| sent.invoked = 0);
        [2, 1].into_iter().for_each(|sequence| world.append(extra(9, sequence)));
    });
    let two = |world: &mut World, second_begins: Time| {
        let end = world.stored[0].len() as u64;
        world.attempt(extra(8, 0), Some(Outcome::Acknowledged(end + 1)));
        world.attempt(extra(9, 0), Some(Outcome::Acknowledged(end)));
        let first_known = world.sent[world.sent.len() - 2].answer.expect("it has one").returned;
        world.sent.last_mut().expect("just sent").invoked = first_known + second_begins;
        [9, 8].into_iter().for_each(|producer| world.append(extra(producer, 0)));
        world.last(0).for_each(|answer| answer.poll.returned = TIME_UNTOLD);
    };
    finds(&["overtook"], |world| two(world, 1));
    finds(&[], |world| two(world, 0));
    finds(&["overtook"], |world| {
        // Nobody acknowledged the first one, but it was read before the second was sent.
        world.attempt(extra(8, 0), None);
        world.append(extra(8, 0));
        let (place, now) = (world.stored[0].len() as u64 - 1, world.now);
        world.early(place, &[(place, extra(8, 0))]);
        world.readers[0].answers[0].poll.returned = now;
        world.attempt(extra(9, 0), Some(Outcome::Acknowledged(place - 1)));
        world.last(0).for_each(|answer| answer.poll.returned = TIME_UNTOLD);
        let moved = world.stored[0][place as usize - 1];
        world.sent.retain(|sent| sent.record != moved);
        for reader in world.readers.iter_mut().filter(|reader| reader.partition == 0) {
            for read in reader.answers.iter_mut().flat_map(|answer| &mut answer.records) {
                if read.1 == Ok(moved) {
                    read.1 = Ok(extra(9, 0));
                }
            }
        }
    });
}

#[test]
fn steps_of_a_reader() {
    finds(&["gap"], |world| world.early(0, &[(0, world.stored[0][0]), (2, world.stored[0][2])]));
    finds(&["gap"], |world| world.early(0, &[(1, world.stored[0][1])]));
    finds(&["backwards"], |world| {
        let log = world.stored[0].clone();
        world.early(0, &[(0, log[0]), (1, log[1]), (1, log[1])]);
    });
    finds(&["backwards"], |world| world.early(3, &[(2, world.stored[0][2])]));
}

#[test]
fn epochs() {
    let answered = |epoch, node| Poll { epoch: Some(epoch), ..poll(0, node) };
    finds(&["read_epoch_back"], |world| hear(world, "e", [answered(5, 0), answered(4, 0)]));
    finds(&[], |world| hear(world, "e", [answered(5, 0), answered(4, 1), answered(5, 0)]));
    finds(&["read_epoch_back"], |world| {
        // Of the same node in another life, in another session.
        hear(world, "e", [answered(5, 0)]);
        let member = Some(Member { life: 999, ..member(0) });
        hear(world, "e", [Poll { member, ..answered(4, 0) }]);
    });
    let two = |world: &mut World, producers: [u32; 2], epochs: [u64; 2]| {
        for (number, (producer, epoch)) in producers.into_iter().zip(epochs).enumerate() {
            let record = extra(producer, number as u64);
            world.attempt(record, Some(Outcome::Acknowledged(world.stored[0].len() as u64)));
            let answer = world.sent.last_mut().and_then(|sent| sent.answer.as_mut()).expect("it has an answer");
            answer.owner = Some(owner(epoch));
            world.append(record);
        }
        world.last(0).for_each(|answer| answer.poll.returned = TIME_UNTOLD);
    };
    finds(&["produce_epoch_back"], |world| two(world, [9, 9], [1_000, 999]));
    finds(&["stale_owner"], |world| two(world, [8, 9], [1_000, 999]));
    finds(&[], |world| two(world, [8, 9], [999, 1_000]));
}

#[test]
fn owners() {
    let at = |world: &World, after: Time| world.now + after;
    finds(&["two_owners"], |world| {
        let second = Owner { head: member(7), ..owner(2_000) };
        let now = at(world, 1);
        world.owners.extend([(owner(2_000), now, now + 9), (second, now, now + 9)]);
    });
    finds(&["two_owners"], |world| {
        let restarted = Member { life: 999, ..owner(2_000).head };
        let now = at(world, 1);
        world.owners.extend([owner(2_000), Owner { head: restarted, ..owner(2_000) }].map(|owner| (owner, now, now)));
    });
    finds(&["stale_owner"], |world| {
        let now = at(world, 1);
        world.owners.extend([(owner(2_001), now, now + 1), (owner(2_000), now + 2, now + 3)]);
    });
    finds(&[], |world| {
        // It was sent before the later one had acknowledged; and another range has epochs of its own.
        let now = at(world, 1);
        let elsewhere = Owner { range: RANGE + 1, head: member(7), ..owner(2_000) };
        world.owners.extend([
            (owner(2_001), now, now + 1),
            (owner(2_000), now + 1, now + 3),
            (elsewhere, now + 9, now),
        ]);
    });
}

#[test]
fn committed_ends() {
    let told = |at, node, end| Poll { committed: Some(end), ..poll(at, node) };
    finds(&["commit_back"], |world| hear(world, "c", [told(0, 8, 5), told(0, 8, 4)]));
    finds(&["commit_back"], |world| {
        hear(world, "c", [told(10, 8, 5)]);
        hear(world, "d", [told(12, 8, 4)]);
    });
    finds(&[], |world| {
        // Asked before the higher end was told; of another life; of another member.
        hear(world, "c", [told(10, 8, 5)]);
        hear(world, "d", [told(11, 8, 4), told(13, 9, 3)]);
        let member = Some(Member { life: 999, ..member(8) });
        hear(world, "e", [Poll { member, ..told(14, 8, 2) }]);
    });
    finds(&["commit_forgotten"], |world| hear(world, "c", [told(10, 8, 1_000_000)]));
}

#[test]
fn replicas() {
    finds(&["diverged"], |world| world.logs[1].entries[29].hash = 1);
    finds(&["diverged"], |world| world.logs[2].entries[6].epoch = 99);
    finds(&["diverged"], |world| world.logs[0].entries.truncate(39));
    finds(&["diverged"], |world| world.logs.iter_mut().for_each(|log| log.entries.truncate(20)));
    finds(&["diverged"], |world| world.logs[0].entries.retain(|entry| entry.index != 4));
    finds(&[], |world| world.logs[1].entries.truncate(30));
    finds(&[], |world| world.logs[2].entries.retain(|entry| entry.index > 6));
    finds(&["diverged"], |world| world.dumps[1].records[3].1 = Ok(extra(9, 9)));
    finds(&["diverged"], |world| world.dumps[1].records[3].1 = Err(Damage::NoValue));
    finds(&["diverged"], |world| world.dumps[1].records.truncate(20));
}

#[test]
fn a_divergence_names_place_and_holders() {
    let mut world = World::new(SEED, 50);
    world.logs[2].entries[30].hash = 5;
    let [one, other] = [31 * 77, 5].map(|hash| Content::Entry { epoch: 4, hash });
    let holders = [(member(0), one), (member(2), other)];
    let diverged = Anomaly::Diverged { log: Log::Range(RANGE), at: 31, holders };
    assert_eq!(world.history().check().anomalies, [diverged]);
}
