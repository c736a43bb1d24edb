//! The fold against a plainer one, and its snapshots.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

fn name(group: &str) -> GroupName {
    GroupName::new(group).expect("a good name")
}

fn partition(number: u32) -> PartitionKey {
    PartitionKey { topic: TopicId(u64::from(number) / 4 + 1), partition: Partition(number % 4) }
}

fn change(member: u64, partitions: &[u32]) -> OwnerChange {
    let instance = if member % 2 == 1 { format!("instance-{member}") } else { String::new() };
    OwnerChange {
        member: MemberId(member),
        instance: InstanceName::new(&instance).expect("a good name"),
        session_timeout_ms: 1_000 + member as u32,
        partitions: partitions.iter().copied().map(partition).collect(),
    }
}

fn owners(group: &str, generation: u64, owners: Vec<OwnerChange>) -> ControlEntry {
    ControlEntry::GroupOwners { group: name(group), generation: GroupGeneration(generation), owners }
}

fn commit(group: &str, offsets: &[(u32, u64, &str)]) -> ControlEntry {
    let committed = |(number, offset, metadata): &(u32, u64, &str)| CommittedOffset {
        partition: partition(*number),
        offset: Offset(*offset),
        metadata: (*metadata).to_owned(),
    };
    ControlEntry::GroupCommit { group: name(group), offsets: offsets.iter().map(committed).collect() }
}

fn table(entries: &[ControlEntry]) -> GroupTable {
    let mut table = GroupTable::default();
    entries.iter().enumerate().for_each(|(at, entry)| table.apply(entry, Timestamp(at as i64)));
    table
}

#[test]
fn partitions_change_hands_and_members_that_own_nothing_are_forgotten() {
    let table = table(&[
        owners("g", 1, vec![change(1, &[0, 1]), change(2, &[2])]),
        owners("g", 2, vec![change(2, &[1]), change(0, &[2])]),
        owners("g", 3, vec![change(3, &[0])]),
    ]);
    let state = table.get(&name("g")).expect("a group");
    let owned: Vec<_> =
        state.ownerships().map(|(partition, owned)| (partition, owned.member.0, owned.since.0)).collect();
    assert_eq!(owned, [(partition(0), 3, 3), (partition(1), 2, 2)]);
    assert_eq!(state.owners().map(|(member, _)| member.0).collect::<Vec<_>>(), [2, 3]);
    assert_eq!(state.owner(MemberId(3)).map(|owner| owner.instance.as_str()), Some("instance-3"));
    assert_eq!((state.generation(), state.changed()), (GroupGeneration(3), Timestamp(2)));
}

#[test]
fn commits_are_replaced_and_go_with_their_group() {
    let entries =
        [commit("g", &[(0, 7, "a"), (1, 8, "")]), commit("g", &[(0, 5, "bb")]), commit("other", &[(0, 1, "")])];
    let mut table = table(&entries);
    let state = table.get(&name("g")).expect("a group");
    let commits: Vec<_> = state.commits().map(|(of, commit)| (of, commit.offset.0, &*commit.metadata)).collect();
    assert_eq!(commits, [(partition(0), 5, "bb"), (partition(1), 8, "")]);
    table.apply(&ControlEntry::GroupDelete { group: name("g") }, Timestamp(9));
    assert_eq!(table.iter().map(|(group, _)| group.as_str()).collect::<Vec<_>>(), ["other"]);
    table.apply(&ControlEntry::GroupDelete { group: name("other") }, Timestamp(9));
    assert_eq!(table, GroupTable::default(), "its bytes are gone, too");
}

#[test]
fn a_generation_never_goes_back() {
    let table = table(&[owners("g", 9, vec![]), owners("g", 4, vec![change(1, &[0])])]);
    let state = table.get(&name("g")).expect("a group");
    assert_eq!(state.generation(), GroupGeneration(9));
    assert_eq!(state.ownership(partition(0)).map(|owned| owned.since), Some(GroupGeneration(4)));
}

#[test]
fn snapshots_that_contradict_themselves_are_refused() {
    let row = |owners| GroupRow {
        group: name("g"),
        generation: GroupGeneration(1),
        changed: Timestamp(1),
        owners,
        commits: Vec::new(),
    };
    let owned = OwnedRow { partition: partition(0), since: GroupGeneration(1) };
    let owner = |member, owned: &[&OwnedRow]| OwnerRow {
        member: MemberId(member),
        instance: InstanceName::none(),
        session_timeout_ms: 1,
        owned: owned.iter().map(|row| (*row).clone()).collect(),
    };
    for (owners, field) in [
        (vec![owner(1, &[])], "partition owner"),
        (vec![owner(0, &[&owned])], "owned partition"),
        (vec![owner(1, &[&owned]), owner(2, &[&owned])], "owned partition"),
        (vec![owner(1, &[&owned]), owner(1, &[&owned])], "owned partition"),
    ] {
        let bytes = vec![row(owners)].to_bytes();
        assert_eq!(GroupTable::from_bytes(&bytes), Err(DecodeError::Field { field }));
    }
    let twice = vec![row(Vec::new()), row(Vec::new())].to_bytes();
    assert_eq!(GroupTable::from_bytes(&twice), Err(DecodeError::Field { field: "group listed twice" }));
}

fn entries() -> impl Strategy<Value = ControlEntry> {
    let group = prop_oneof![Just("a"), Just("b")];
    let change = (0..4u64, vec(0..8u32, 0..5)).prop_map(|(member, partitions)| change(member, &partitions));
    let owners =
        (group.clone(), 1..9u64, vec(change, 0..4)).prop_map(|(group, at, changes)| owners(group, at, changes));
    let offset = (0..8u32, 0..100u64, prop_oneof![Just(""), Just("note")]);
    let commits = (group.clone(), vec(offset, 0..4)).prop_map(|(group, offsets)| commit(group, &offsets));
    let delete = group.prop_map(|group| ControlEntry::GroupDelete { group: name(group) });
    prop_oneof![4 => owners, 4 => commits, 1 => delete]
}

proptest! {
    /// A snapshot says all of it and its size is what is reckoned with; owners are those of the ownerships.
    #[test]
    fn any_history_is_consistent(history in vec(entries(), 0..40)) {
        let table = table(&history);
        let bytes = table.to_bytes();
        prop_assert_eq!(bytes.len() as u64, 4 + table.bytes());
        prop_assert_eq!(GroupTable::from_bytes(&bytes), Ok(table.clone()));
        for (_, state) in table.iter() {
            let mut counted: BTreeMap<MemberId, usize> = BTreeMap::new();
            state.ownerships().for_each(|(_, owned)| *counted.entry(owned.member).or_default() += 1);
            let known: BTreeMap<MemberId, usize> = state.owners().map(|(member, owner)| (member, owner.partitions)).collect();
            prop_assert_eq!(known, counted);
        }
    }
}
