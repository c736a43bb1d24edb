//! What counts as committed of a group.

use minikafka_core::control::ControlEntry;
use minikafka_core::group::{GroupName, GroupTable};
use minikafka_core::wire::CommittedOffset;

use super::*;

const PARTITION: u32 = 0;

fn name() -> GroupName {
    GroupName::new("g").expect("a good name")
}

/// A group that goes on at an offset.
fn at(offset: u64) -> GroupState {
    let mut table = GroupTable::default();
    let committed =
        CommittedOffset { partition: partition_key(PARTITION), offset: Offset(offset), metadata: String::new() };
    table.apply(&ControlEntry::GroupCommit { group: name(), offsets: vec![committed] }, Timestamp(0));
    table.get(&name()).cloned().expect("it was just made")
}

fn point(index: u64, hash: u64) -> LogPoint {
    LogPoint { index: LogIndex(index), hash: RunningHash(hash) }
}

/// All that is committed up to an index, whose hashes are known from there on only.
fn follow(truth: &mut GroupTruth, committed: u64, known: &[LogPoint]) {
    let hash_at = |index| known.iter().find(|point| point.index == index).map(|point| point.hash);
    while let Some(change) = truth.next_committed(LogIndex(committed), hash_at) {
        truth.apply(change).expect("nothing goes back");
    }
}

/// Cause: a head appended an entry in an epoch that came to nothing, and what is committed at its index since then nobody
/// was seen to commit, because the next chain began behind it. The next head knew of the group what was known already, so
/// that entry was waited for. Effect: nothing of the group that was committed later counted, and a member that was told of
/// its commit seemed to be told too much. Fix: whatever a head has, nothing of which is uncommitted, settles all up to there.
#[test]
fn what_came_to_nothing_holds_up_nothing() {
    let mut truth = GroupTruth::new(1);
    truth.handed_out(PARTITION, 0, 100);
    truth.appended(point(61, 1), Some(&at(34)));
    follow(&mut truth, 63, &[point(61, 1)]);
    truth.appended(point(64, 2), Some(&at(38)));
    // The next chain begins at 66, where another 64 is.
    truth.is_at(LogIndex(66), Some(&at(34)));
    follow(&mut truth, 66, &[point(66, 3)]);
    assert_eq!(truth.commit_of(PARTITION), Some(34));
    truth.appended(point(67, 4), Some(&at(39)));
    follow(&mut truth, 67, &[point(66, 3), point(67, 4)]);
    assert_eq!(truth.commit_of(PARTITION), Some(39));
}

#[test]
fn what_was_appended_and_is_committed_counts_entry_by_entry() {
    let mut truth = GroupTruth::new(1);
    truth.handed_out(PARTITION, 0, 100);
    truth.appended(point(5, 1), Some(&at(10)));
    truth.appended(point(7, 2), Some(&at(20)));
    follow(&mut truth, 6, &[point(5, 1)]);
    assert_eq!(truth.commit_of(PARTITION), Some(10));
    truth.is_at(LogIndex(7), Some(&at(20)));
    follow(&mut truth, 7, &[point(7, 2)]);
    assert_eq!((truth.commit_of(PARTITION), truth.counts.1), (Some(20), 2));
}
