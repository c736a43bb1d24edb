//! What untimed histories show, and damage to bytes: anomalies planted in a history that is otherwise right.

use crate::*;

const PARTITIONS: u32 = 3;
const PRODUCERS: u32 = 2;
const PER_PRODUCER: u64 = 40;

/// What a perfect broker stores: per partition, the records in the order of their offsets.
#[derive(Clone)]
struct World {
    history: History,
    stored: Vec<Vec<RecordId>>,
}

fn record(producer: u32, partition: u32, sequence: u64) -> RecordId {
    RecordId { producer, partition, sequence }
}

/// Two producers interleaved on every partition; every tenth record unknown (every other one of them stored), every
/// eleventh refused.
fn world() -> World {
    let mut world = World { history: History::default(), stored: vec![Vec::new(); PARTITIONS as usize] };
    for sequence in 0..PER_PRODUCER {
        for partition in 0..PARTITIONS {
            for producer in 0..PRODUCERS {
                let id = record(producer, partition, sequence);
                world.history.attempt(id);
                let log = &mut world.stored[partition as usize];
                if sequence % 11 == 10 {
                    world.history.failed(id);
                } else if sequence % 20 == 10 {
                    continue;
                } else {
                    log.push(id);
                    if sequence % 10 != 0 {
                        world.history.acknowledged(id, log.len() as u64 - 1);
                    }
                }
            }
        }
    }
    world
}

impl World {
    /// Reads a partition as `reader`, from the front; `change` alters (offset, key, value) on the way.
    fn read_changed(&mut self, reader: &str, partition: u32, change: impl Fn(&mut Reads)) -> SessionId {
        let with_offsets = self.stored[partition as usize].iter().zip(0u64..);
        let mut reads: Reads = with_offsets
            .map(|(&id, offset)| (offset, payload::key(id), payload::value(id, 20 + (id.sequence as usize * 7) % 200)))
            .collect();
        change(&mut reads);
        let session = self.history.session(reader, partition, 0);
        for (offset, key, value) in &reads {
            self.history.read(session, *offset, Some(key), Some(value));
        }
        session
    }

    fn read_all(&mut self) {
        for partition in 0..PARTITIONS {
            let session = self.read_changed("last", partition, |_| {});
            self.history.finished(session);
        }
    }
}

type Reads = Vec<(u64, Vec<u8>, Vec<u8>)>;

/// The kinds found after a perfect first read and a last read of partition 1 that `change` altered.
fn kinds_after(change: impl Fn(&mut Reads)) -> Vec<&'static str> {
    let mut world = world();
    world.read_changed("first", 1, |_| {});
    for partition in 0..PARTITIONS {
        let change = |reads: &mut Reads| {
            if partition == 1 {
                change(reads)
            }
        };
        let session = world.read_changed("last", partition, change);
        world.history.finished(session);
    }
    world.history.check().kinds().into_keys().collect()
}

#[test]
fn a_right_history_is_clean() {
    let mut world = world();
    world.read_changed("early", 0, |reads| reads.truncate(17));
    world.read_all();
    let report = world.history.check();
    report.assert_clean("nothing is random here");
    assert!(report.acknowledged > 100 && report.failed > 10 && report.unknown_read > 5 && report.unknown_unread > 5);
    assert_eq!(report.attempted, (PARTITIONS * PRODUCERS) as usize * PER_PRODUCER as usize);
    assert_eq!(report.acknowledged, world.history.acknowledged_count());
}

#[test]
fn a_lost_tail_is_found() {
    assert_eq!(kinds_after(|reads| reads.truncate(reads.len() - 1)), ["lost", "vanished"]);
}

#[test]
fn a_lost_record_is_found_where_others_closed_up() {
    let mut world = world();
    world.stored[1].remove(30);
    world.read_all();
    let kinds: Vec<_> = world.history.check().kinds().into_keys().collect();
    assert_eq!(kinds, ["lost", "misplaced", "rewritten"]);
}

#[test]
fn a_lost_record_is_found_though_its_offset_was_never_told() {
    let mut world = world();
    let [there, lost] = [record(7, 0, 0), record(7, 0, 1)];
    for id in [there, lost] {
        world.history.attempt(id);
        world.history.stored(id);
    }
    world.stored[0].push(there);
    world.read_all();
    assert_eq!(world.history.check().anomalies, [Anomaly::Lost { record: lost, offset: None, reader: "last".into() }]);
}

#[test]
fn a_record_that_only_an_early_reader_saw_has_vanished() {
    let mut world = world();
    // A record of unknown outcome at the end: nobody acknowledged it, but a reader saw it.
    let id = record(7, 2, 0);
    world.history.attempt(id);
    world.stored[2].push(id);
    world.read_changed("first", 2, |_| {});
    world.stored[2].pop();
    world.read_all();
    let report = world.history.check();
    let offset = world.stored[2].len() as u64;
    assert_eq!(report.anomalies, [Anomaly::Vanished { record: id, offset, reader: "last".into() }]);
}

#[test]
fn a_duplicate_is_found() {
    let mut world = world();
    let last = *world.stored[1].last().expect("records were stored");
    world.stored[1].push(last);
    world.read_all();
    let found = world.history.check();
    assert_eq!(found.kinds().into_keys().collect::<Vec<_>>(), ["duplicate"]);
}

#[test]
fn a_duplicate_of_unknown_outcome_is_found() {
    let mut world = world();
    let id = record(7, 0, 0);
    world.history.attempt(id);
    world.stored[0].extend([id, id]);
    world.read_all();
    assert_eq!(world.history.check().kinds().into_keys().collect::<Vec<_>>(), ["duplicate"]);
}

#[test]
fn a_reordering_is_found() {
    let mut world = world();
    let [first, second] = [record(7, 0, 0), record(7, 0, 1)];
    [first, second].into_iter().for_each(|id| world.history.attempt(id));
    world.stored[0].extend([second, first]);
    world.read_all();
    assert_eq!(world.history.check().anomalies, [Anomaly::Reordered { record: first, after: second }]);
}

#[test]
fn a_flipped_bit_is_found_wherever_it_is() {
    for byte in 0..payload::VALUE_BYTES_MIN {
        assert!(kinds_after(|reads| reads[5].2[byte] ^= 1).contains(&"corrupted"), "byte {byte}");
    }
    assert!(kinds_after(|reads| reads[5].1[0] ^= 1).contains(&"corrupted"), "key");
    assert!(kinds_after(|reads| reads[5].2.truncate(10)).contains(&"corrupted"), "cut");
    assert!(kinds_after(|reads| reads[5].1 = reads[6].1.clone()).contains(&"corrupted"), "another record's key");
}

#[test]
fn a_key_lost_or_invented_is_found() {
    let id = record(7, 0, 0);
    let (key, keyed, keyless) = (payload::key(id), payload::value(id, 99), payload::keyless_value(id, 99));
    assert_eq!(payload::decode(Some(&key), Some(&keyed)), Ok(id));
    assert_eq!(payload::decode(None, Some(&keyless)), Ok(id));
    assert_eq!(payload::decode(None, Some(&keyed)), Err(Damage::Key));
    assert_eq!(payload::decode(Some(&key), Some(&keyless)), Err(Damage::Key));
    assert_eq!(payload::decode(Some(b""), Some(&keyless)), Err(Damage::Key));
}

#[test]
fn a_missing_value_is_found() {
    let mut world = world();
    let session = world.history.session("early", 0, 0);
    world.history.read(session, 0, None, None);
    world.read_all();
    assert_eq!(world.history.check().kinds().into_keys().collect::<Vec<_>>(), ["corrupted"]);
}

#[test]
fn phantoms_are_found() {
    let stored_after = |id: RecordId, attempt: bool, refuse: bool| {
        let mut world = world();
        if attempt {
            world.history.attempt(id);
        }
        if refuse {
            world.history.failed(id);
        }
        world.stored[0].push(id);
        world.read_all();
        world.history.check().kinds().into_keys().collect::<Vec<_>>()
    };
    assert_eq!(stored_after(record(9, 0, 0), false, false), ["phantom"], "never sent");
    assert_eq!(stored_after(record(9, 0, 0), true, true), ["phantom"], "refused for good");
    assert_eq!(stored_after(record(9, 1, 0), true, false), ["phantom"], "sent to another partition");
    assert_eq!(stored_after(record(9, 0, 0), true, false), [""; 0], "unknown may be stored");
}

#[test]
fn a_gap_is_found() {
    let mut world = world();
    world.read_changed("early", 0, |reads| {
        reads.remove(4);
    });
    world.read_all();
    let gap = Anomaly::Gap { reader: "early".into(), partition: 0, expected: 4, found: 5 };
    assert_eq!(world.history.check().anomalies, [gap]);
}

#[test]
fn a_missing_front_is_a_gap() {
    let mut world = world();
    world.read_changed("early", 0, |reads| {
        reads.remove(0);
    });
    world.read_all();
    assert_eq!(world.history.check().kinds().into_keys().collect::<Vec<_>>(), ["gap"]);
}

#[test]
fn going_backwards_is_found() {
    let mut world = world();
    world.read_changed("early", 0, |reads| {
        let again = reads[3].clone();
        reads.insert(5, again);
    });
    world.read_all();
    let kinds: Vec<_> = world.history.check().kinds().into_keys().collect();
    assert_eq!(kinds, ["backwards", "gap"]);
}

#[test]
fn a_rewritten_offset_is_found() {
    let mut world = world();
    let [first, then] = [record(7, 0, 0), record(8, 0, 0)];
    [first, then].into_iter().for_each(|id| world.history.attempt(id));
    world.stored[0].push(first);
    world.read_changed("first", 0, |_| {});
    world.stored[0].pop();
    world.stored[0].push(then);
    world.read_all();
    assert_eq!(world.history.check().kinds().into_keys().collect::<Vec<_>>(), ["rewritten"]);
}

#[test]
fn a_wrong_acknowledged_offset_is_found() {
    let mut world = world();
    let id = record(7, 0, 0);
    world.history.attempt(id);
    world.stored[0].push(id);
    world.history.acknowledged(id, 1_000_000);
    world.read_all();
    assert_eq!(world.history.check().kinds().into_keys().collect::<Vec<_>>(), ["misplaced"]);
}

#[test]
fn contradicting_acknowledgements_are_found() {
    let mut twice = world();
    twice.history.acknowledged(record(0, 0, 1), 999);
    twice.history.acknowledged(record(0, 0, 1), 2);
    twice.read_all();
    assert!(twice.history.check().kinds().contains_key("contradiction"), "one record at two offsets");

    let mut shared = world();
    let ids = [record(7, 0, 0), record(7, 0, 1)];
    ids.into_iter().for_each(|id| shared.history.attempt(id));
    ids.into_iter().for_each(|id| shared.history.acknowledged(id, 500));
    shared.read_all();
    assert!(shared.history.check().kinds().contains_key("contradiction"), "two records at one offset");
}

#[test]
fn an_unread_partition_is_not_silence() {
    let mut world = world();
    for partition in 0..PARTITIONS {
        let session = world.read_changed("last", partition, |_| {});
        if partition != 2 {
            world.history.finished(session);
        }
    }
    assert_eq!(world.history.check().anomalies, [Anomaly::Unread { partition: 2 }]);
}

#[test]
#[should_panic(expected = "replay: seed 7")]
fn a_report_fails_with_its_replay() {
    world().history.check().assert_clean("seed 7");
}
