//! `groups.json`: where groups lie, their control entries and what these add up to; and the frames of group requests.

use minikafka_core::control::{ControlEntry, OwnerChange};
use minikafka_core::entry::{BodyFormat, Codec, EntryHeader, EntryKind};
use minikafka_core::group::{GroupName, InstanceName};
use minikafka_core::range_state::RangeState;
use minikafka_core::ring::{group_range, group_token};
use minikafka_core::wire::*;
use minikafka_core::*;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::frames::{Again, Frame, PARTITION, RANGE, answer, ask, frame};
use crate::{Hex, golden};

const ABOUT: &str = "\
    Consumer groups (docs/GROUPS.md). `placements`: the token of a group's name, and its range among so many. \
    `control_entries`: bodies of control entries (docs/PROTOCOL.md section 2), `malformed_control_entries` are refused. \
    `snapshot`: the state of a range (docs/DATA_FILE.md section 13) after these entries, in order, at indexes 1, 2, 3, \
    with running hash 0 and append timestamps 1790000000001, 2, 3. The frames of group requests are in frames.json.";

#[derive(Serialize, Deserialize)]
struct Groups {
    about: String,
    placements: Vec<Placed>,
    control_entries: Vec<Control>,
    malformed_control_entries: Vec<Malformed>,
    snapshot: Snapshot,
}

#[derive(Serialize, Deserialize)]
struct Placed {
    group: String,
    token: u64,
    ranges: Vec<Choice>,
}

#[derive(Serialize, Deserialize)]
struct Choice {
    of: u32,
    is: u32,
}

#[derive(Serialize, Deserialize)]
struct Control {
    name: String,
    fields: Value,
    bytes: Hex,
}

#[derive(Serialize, Deserialize)]
struct Malformed {
    name: String,
    bytes: Hex,
}

#[derive(Serialize, Deserialize)]
struct Snapshot {
    entries: Vec<String>,
    groups: Value,
    bytes: Hex,
}

const OTHER: PartitionKey = PartitionKey { topic: PARTITION.topic, partition: Partition(4) };
const MEMBER: MemberId = MemberId(0x1111_2222_3333_4444);
const STATIC: MemberId = MemberId(0x5555_6666_7777_8888);

fn group() -> GroupName {
    GroupName::new("billing").expect("a good name")
}

fn instance(name: &str) -> InstanceName {
    InstanceName::new(name).expect("a good name")
}

fn at(partition: PartitionKey, offset: u64, metadata: &str) -> CommittedOffset {
    CommittedOffset { partition, offset: Offset(offset), metadata: metadata.into() }
}

fn key(partition: PartitionKey) -> Value {
    json!({"topic": partition.topic.0, "partition": partition.partition.0})
}

fn asked(fields: Value) -> Value {
    let mut all = json!({"range": {"ring": 1, "range": 209}, "epoch": 5, "group": "billing"});
    let both = all.as_object_mut().zip(fields.as_object().cloned());
    both.expect("both are objects").0.extend(fields.as_object().cloned().unwrap_or_default());
    all
}

fn heartbeat(generation: u64, intent: MemberIntent) -> GroupHeartbeatRequest {
    GroupHeartbeatRequest {
        range: RANGE,
        epoch: Epoch(5),
        group: group(),
        member: MEMBER,
        sequence: GroupSequence(9),
        generation: GroupGeneration(generation),
        instance: instance("worker-3"),
        client_name: "vectors".into(),
        session_timeout_ms: 10_000,
        wait_ms_max: 3_000,
        intent,
        subscribed: None,
        owned: None,
    }
}

fn heartbeats() -> Vec<(Frame, Again)> {
    let fields = |generation: u64, intent: u8, subscribed: Value, owned: Value| {
        asked(json!({"member": MEMBER.0, "sequence": 9, "generation": generation, "instance": "worker-3",
            "client_name": "vectors", "session_timeout_ms": 10_000, "wait_ms_max": 3_000, "intent": intent,
            "subscribed": subscribed, "owned": owned}))
    };
    let subscribed = vec![TopicSubscription { topic: PARTITION.topic, partitions: 8 }];
    let join = GroupHeartbeatRequest {
        subscribed: Some(subscribed),
        owned: Some(vec![PARTITION, OTHER]),
        ..heartbeat(17, MemberIntent::Stay)
    };
    let assigned = |partition, committed| AssignedPartition { partition, committed };
    let reply = GroupHeartbeatReply {
        generation: GroupGeneration(18),
        assigned: vec![assigned(PARTITION, None), assigned(OTHER, Some(Offset(1_000)))],
    };
    let subscribed = json!([{"topic": PARTITION.topic.0, "partitions": 8}]);
    let reply_fields = json!({"generation": 18, "assigned": [{"partition": key(PARTITION), "committed": null},
        {"partition": key(OTHER), "committed": 1_000}]});
    let refused = ErrorReply::of(ErrorCode::MemberFenced);
    let refused_fields = json!({"epoch": 0, "retry_after_ms": 0, "message": ErrorCode::MemberFenced.advice()});
    vec![
        frame(
            "group_heartbeat",
            ask(Api::GroupHeartbeat),
            &join,
            0,
            fields(17, 0, subscribed, json!([key(PARTITION), key(OTHER)])),
        ),
        frame(
            "group_heartbeat_leave",
            ask(Api::GroupHeartbeat),
            &heartbeat(18, MemberIntent::Leave),
            0,
            fields(18, 1, Value::Null, Value::Null),
        ),
        frame("group_heartbeat_reply", answer(Api::GroupHeartbeat, None), &reply, 0, reply_fields),
        frame(
            "group_heartbeat_fenced",
            answer(Api::GroupHeartbeat, Some(ErrorCode::MemberFenced)),
            &refused,
            0,
            refused_fields,
        ),
    ]
}

fn offsets() -> Vec<(Frame, Again)> {
    let (range, epoch) = (RANGE, Epoch(5));
    let commit = GroupCommitRequest {
        range,
        epoch,
        group: group(),
        member: MEMBER,
        sequence: GroupSequence(10),
        generation: GroupGeneration(18),
        offsets: vec![at(OTHER, 1_001, ""), at(PARTITION, 7, "note")],
    };
    let outcome = |partition, error| CommitOutcome { partition, error };
    let committed =
        GroupCommitReply { partitions: vec![outcome(OTHER, None), outcome(PARTITION, Some(ErrorCode::NotAssigned))] };
    let some = GroupOffsetsRequest { range, epoch, group: group(), partitions: Some(vec![PARTITION]) };
    let all = GroupOffsetsRequest { partitions: None, ..some.clone() };
    let reply = GroupOffsetsReply { offsets: vec![at(PARTITION, 7, "note")] };
    let at_fields = |partition, offset: u64, metadata: &str| json!({"partition": key(partition), "offset": offset, "metadata": metadata});
    let commit_fields = asked(json!({"member": MEMBER.0, "sequence": 10, "generation": 18,
        "offsets": [at_fields(OTHER, 1_001, ""), at_fields(PARTITION, 7, "note")]}));
    let committed_fields = json!({"partitions": [{"partition": key(OTHER), "error": 0},
        {"partition": key(PARTITION), "error": 133}]});
    vec![
        frame("group_commit", ask(Api::GroupCommit), &commit, 0, commit_fields),
        frame("group_commit_reply", answer(Api::GroupCommit, None), &committed, 0, committed_fields),
        frame("group_offsets", ask(Api::GroupOffsets), &some, 0, asked(json!({"partitions": [key(PARTITION)]}))),
        frame("group_offsets_all", ask(Api::GroupOffsets), &all, 0, asked(json!({"partitions": null}))),
        frame(
            "group_offsets_reply",
            answer(Api::GroupOffsets, None),
            &reply,
            0,
            json!({"offsets": [at_fields(PARTITION, 7, "note")]}),
        ),
    ]
}

fn looking() -> Vec<(Frame, Again)> {
    let (range, epoch) = (RANGE, Epoch(5));
    let describe = GroupDescribeRequest { range, epoch, group: group() };
    let member = MemberDescription {
        member: MEMBER,
        instance: instance("worker-3"),
        client_name: "vectors".into(),
        silent_ms: 1_234,
        topics: vec![PARTITION.topic],
        owned: vec![PARTITION, OTHER],
        target: vec![PARTITION],
    };
    let described =
        GroupDescribeReply { generation: GroupGeneration(18), phase: GroupPhase::Rebalancing, members: vec![member] };
    let described_fields = json!({"generation": 18, "state": 2, "members": [{"member": MEMBER.0, "instance": "worker-3",
        "client_name": "vectors", "silent_ms": 1_234, "topics": [PARTITION.topic.0],
        "owned": [key(PARTITION), key(OTHER)], "target": [key(PARTITION)]}]});
    let list = GroupListRequest { ranges: vec![GroupListRange { range, epoch }] };
    let summary = GroupSummary { group: group(), phase: GroupPhase::Stable, members: 3 };
    let stale = ListedGroups { range, error: Some(ErrorCode::Stale), epoch: Epoch(6), groups: Vec::new() };
    let listed =
        GroupListReply { ranges: vec![stale, ListedGroups { range, error: None, epoch, groups: vec![summary] }] };
    let place = json!({"ring": 1, "range": 209});
    let listed_fields = json!({"ranges": [{"range": place, "error": 2, "epoch": 6, "groups": []},
        {"range": place, "error": 0, "epoch": 5, "groups": [{"group": "billing", "state": 1, "members": 3}]}]});
    let delete = GroupDeleteRequest { range, epoch, group: group() };
    vec![
        frame("group_describe", ask(Api::GroupDescribe), &describe, 0, asked(json!({}))),
        frame("group_describe_reply", answer(Api::GroupDescribe, None), &described, 0, described_fields),
        frame("group_list", ask(Api::GroupList), &list, 0, json!({"ranges": [{"range": place, "epoch": 5}]})),
        frame("group_list_reply", answer(Api::GroupList, None), &listed, 0, listed_fields),
        frame("group_delete", ask(Api::GroupDelete), &delete, 0, asked(json!({}))),
    ]
}

/// One frame of every message about groups.
pub fn frames() -> Vec<(Frame, Again)> {
    [heartbeats(), offsets(), looking()].into_iter().flatten().collect()
}

fn owners_entry() -> ControlEntry {
    let change = |member, instance, session_timeout_ms, partitions: &[PartitionKey]| OwnerChange {
        member,
        instance,
        session_timeout_ms,
        partitions: partitions.to_vec(),
    };
    ControlEntry::GroupOwners {
        group: group(),
        generation: GroupGeneration(18),
        owners: vec![
            change(MEMBER, InstanceName::none(), 10_000, &[PARTITION]),
            change(STATIC, instance("worker-3"), 30_000, &[OTHER]),
            change(MemberId::NONE, InstanceName::none(), 0, &[]),
        ],
    }
}

fn control_entries() -> Vec<(Control, ControlEntry)> {
    let entry = |name: &str, entry: ControlEntry, fields: Value| {
        (Control { name: name.to_owned(), fields, bytes: Hex(entry.to_bytes()) }, entry)
    };
    let owner = |member: MemberId, instance: &str, timeout: u32, partitions: &[PartitionKey]| {
        let partitions: Vec<Value> = partitions.iter().copied().map(key).collect();
        json!({"member": member.0, "instance": instance, "session_timeout_ms": timeout, "partitions": partitions})
    };
    let owners = json!({"kind": 5, "group": "billing", "generation": 18, "owners": [
        owner(MEMBER, "", 10_000, &[PARTITION]), owner(STATIC, "worker-3", 30_000, &[OTHER]),
        owner(MemberId::NONE, "", 0, &[])]});
    let offsets = vec![at(PARTITION, 7, "note"), at(OTHER, 1_001, "")];
    let commit = ControlEntry::GroupCommit { group: group(), offsets };
    let committed = json!({"kind": 6, "group": "billing", "offsets": [
        {"partition": key(PARTITION), "offset": 7, "metadata": "note"},
        {"partition": key(OTHER), "offset": 1_001, "metadata": ""}]});
    vec![
        entry("group_owners", owners_entry(), owners),
        entry("group_commit", commit, committed),
        entry(
            "group_delete",
            ControlEntry::GroupDelete { group: GroupName::new("gone").expect("a good name") },
            json!({"kind": 7, "group": "gone"}),
        ),
    ]
}

fn malformed(entries: &[(Control, ControlEntry)]) -> Vec<Malformed> {
    let spoiled = |name: &str, at: usize, change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = entries[at].0.bytes.0.clone();
        change(&mut bytes);
        Malformed { name: name.to_owned(), bytes: Hex(bytes) }
    };
    vec![
        spoiled("an unknown kind", 2, &|bytes| bytes[0] = 8),
        spoiled("a name with a slash", 2, &|bytes| bytes[5] = b'/'),
        spoiled("a name of one dot", 2, &|bytes| {
            bytes.truncate(2);
            bytes.extend_from_slice(&[1, 0, b'.']);
        }),
        spoiled("a byte too many", 1, &|bytes| bytes.push(0)),
        spoiled("cut by a byte", 0, &|bytes| bytes.truncate(bytes.len() - 1)),
    ]
}

fn header(index: u64) -> EntryHeader {
    EntryHeader {
        kind: EntryKind::Control,
        body_format: BodyFormat::Control,
        codec: Codec::None,
        body_bytes: 0,
        uncompressed_bytes: 0,
        range: RANGE,
        attributes: 0,
        epoch: Epoch(5),
        index: LogIndex(index),
        topic: TopicId(0),
        partition: Partition(0),
        record_count: 0,
        base_offset: Offset(0),
        last_offset_delta: 0,
        base_sequence: Sequence(0),
        base_timestamp: Timestamp(0),
        max_timestamp: Timestamp(0),
        append_timestamp: Timestamp(1_790_000_000_000 + index as i64),
        producer_id: ProducerId::NONE,
        producer_epoch: ProducerEpoch(0),
        body_crc: 0,
        running_hash: RunningHash(0),
    }
}

#[test]
fn groups() {
    let placed = |name: &str| {
        let group = GroupName::new(name).expect("a good name");
        let choice = |of| Choice { of, is: group_range(&group, of).0 };
        let ranges = [1, 2, 64, 256, 65_536].map(choice).into();
        Placed { group: name.to_owned(), token: group_token(&group).0, ranges }
    };
    let longest = "g".repeat(249);
    let entries = control_entries();
    let malformed_control_entries = malformed(&entries);
    let mut state = RangeState::default();
    for (at, (_, entry)) in entries.iter().enumerate() {
        state.apply(&header(at as u64 + 1), Some(entry));
    }
    let owned = |partition| json!([{"partition": key(partition), "since": 18}]);
    let groups = json!([{"group": "billing", "generation": 18, "changed": 1_790_000_000_002i64, "owners": [
        {"member": MEMBER.0, "instance": "", "session_timeout_ms": 10_000, "owned": owned(PARTITION)},
        {"member": STATIC.0, "instance": "worker-3", "session_timeout_ms": 30_000, "owned": owned(OTHER)}],
        "commits": [{"partition": key(PARTITION), "offset": 7, "metadata": "note"},
            {"partition": key(OTHER), "offset": 1_001, "metadata": ""}]}]);
    let generated = Groups {
        about: ABOUT.to_owned(),
        placements: ["billing", "queue", "a", "abc", "Orders_v2.retry-1", &longest].map(placed).into(),
        snapshot: Snapshot {
            entries: entries.iter().map(|(control, _)| control.name.clone()).collect(),
            groups,
            bytes: Hex(state.snapshot()),
        },
        malformed_control_entries,
        control_entries: entries.into_iter().map(|(control, _)| control).collect(),
    };
    let stored = golden("groups.json", &generated);
    for (control, (_, entry)) in stored.control_entries.iter().zip(control_entries()) {
        assert_eq!(ControlEntry::from_bytes(&control.bytes.0), Ok(entry), "{}", control.name);
    }
    for malformed in &stored.malformed_control_entries {
        assert!(ControlEntry::from_bytes(&malformed.bytes.0).is_err(), "{}", malformed.name);
    }
    assert_eq!(RangeState::restore(&stored.snapshot.bytes.0), Ok(state));
}
