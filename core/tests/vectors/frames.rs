//! `frames.json`: one frame of every message, and frames and heads to be refused.

use minikafka_core::chain::ChainMember;
use minikafka_core::chain::peer::{
    Complaint, ComplaintReason, CopyOutcome, CopyPurpose, PeerBody, PeerMessage, SegmentCursor, SegmentItem,
    SegmentPart,
};
use minikafka_core::control::ControlEntry;
use minikafka_core::entry::EntryHeader;
use minikafka_core::topic::{TopicConfig, TopicConfigChange, TopicState};
use minikafka_core::wire::frame::{Envelope, FrameLimits};
use minikafka_core::wire::*;
use minikafka_core::*;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{Hex, golden};

const ABOUT: &str = "\
    Frames (docs/PROTOCOL.md). Each of `frames` is a whole frame without its bulk: `head` is the message \
    whose fields `fields` tells, `bulk_bytes` what follows; `explain` stands where its flag is set. `malformed_frames` are refused by their \
    header or checksum under the limits of a request, `malformed_heads` by their fields; `error` names \
    the refusal.";

#[derive(Serialize, Deserialize)]
struct Frames {
    about: String,
    frames: Vec<Frame>,
    malformed_frames: Vec<MalformedFrame>,
    malformed_heads: Vec<MalformedHead>,
}

#[derive(Serialize, Deserialize)]
pub struct Frame {
    name: String,
    api: u16,
    version: u8,
    correlation: u64,
    is_reply: bool,
    /// Left out when false.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    explain: bool,
    error: u16,
    fields: Value,
    head: Hex,
    bulk_bytes: u32,
    frame: Hex,
}

#[derive(Serialize, Deserialize)]
struct MalformedFrame {
    name: String,
    error: String,
    frame: Hex,
}

#[derive(Serialize, Deserialize)]
struct MalformedHead {
    name: String,
    message: String,
    error: String,
    head: Hex,
}

/// Decodes a head and encodes it again.
pub type Again = fn(&[u8]) -> Result<Vec<u8>, DecodeError>;

fn again<M: Wire>(head: &[u8]) -> Result<Vec<u8>, DecodeError> {
    M::from_bytes(head).map(|message| message.to_bytes())
}

pub const RANGE: RangeKey = RangeKey { ring: RingId(1), range: RangeId(209) };
pub const PARTITION: PartitionKey = PartitionKey { topic: TopicId(0x0123_4567_89ab_cdef), partition: Partition(3) };
const CONFIG: TopicConfig = TopicConfig {
    retention_ms: -1,
    retention_bytes: 1 << 40,
    batch_bytes_max: 1 << 20,
    produce_bytes_per_second: 100_000_000,
};

pub fn frame<M: Wire>(name: &str, envelope: Envelope, message: &M, bulk_bytes: u32, fields: Value) -> (Frame, Again) {
    let head = message.to_bytes();
    let mut bytes = Vec::new();
    encode_frame(&mut bytes, envelope, &head, bulk_bytes);
    let frame = Frame {
        name: name.to_owned(),
        api: envelope.api,
        version: envelope.version,
        correlation: envelope.correlation,
        is_reply: envelope.is_reply,
        explain: envelope.explain,
        error: envelope.error.map_or(0, |code| code as u16),
        fields,
        head: Hex(head),
        bulk_bytes,
        frame: Hex(bytes),
    };
    (frame, again::<M>)
}

pub fn ask(api: Api) -> Envelope {
    Envelope::request(api, 7)
}

pub fn answer(api: Api, error: Option<ErrorCode>) -> Envelope {
    Envelope { is_reply: true, error, ..Envelope::request(api, 0xfedc_ba98_7654_3210) }
}

fn opening() -> Vec<(Frame, Again)> {
    let hello = Hello {
        protocol_min: 1,
        protocol_max: 1,
        role: Role::Controller,
        nonce: *b"0123456789abcdef",
        cluster: ClusterId(0),
        client_name: "vectors".into(),
        client_version: "1.2.3".into(),
    };
    let reply = HelloReply {
        protocol: 1,
        nonce: *b"fedcba9876543210",
        cluster: ClusterId(42),
        node: NodeId(1),
        shard: GATEWAY_SHARD,
        server_version: "0.1.0".into(),
        batch_body_bytes_max: 4 << 20,
        record_bytes_max: 2 << 20,
        in_flight_max: 1024,
        idle_deadline_ms: 600_000,
    };
    let proof = prove(b"secret", Prover::Opener, hello.role, &hello.nonce, &reply.nonce);
    let hello_fields = json!({"protocol_min": 1, "protocol_max": 1, "role": 2, "nonce": "0123456789abcdef",
        "cluster": 0, "client_name": "vectors", "client_version": "1.2.3"});
    let reply_fields = json!({"protocol": 1, "nonce": "fedcba9876543210", "cluster": 42, "node": 1, "shard": 65535,
        "server_version": "0.1.0", "batch_body_bytes_max": 4 << 20, "record_bytes_max": 2 << 20,
        "in_flight_max": 1024, "idle_deadline_ms": 600_000});
    let proof_fields = json!({"secret": "secret", "prover": "minikafka opener", "of": ["hello", "hello_reply"]});
    vec![
        frame("hello", ask(Api::Hello), &hello, 0, hello_fields),
        frame("hello_reply", answer(Api::Hello, None), &reply, 0, reply_fields),
        frame("prove", ask(Api::Prove), &proof, 0, proof_fields),
    ]
}

fn data(header: EntryHeader) -> Vec<(Frame, Again)> {
    let produce = ProduceRequest { epoch: Epoch(5), timeout_ms: 30_000, header };
    let produced = ProduceReply { base_offset: Offset(1_000_000_007), append_timestamp: Timestamp(1_790_000_000_123) };
    let wanted =
        FetchPartition { range: RANGE, epoch: Epoch(5), partition: PARTITION, offset: Offset(17), bytes_max: 1 << 20 };
    let fetch = FetchRequest { wait_ms_max: 500, bytes_min: 1, bytes_max: 4 << 20, partitions: vec![wanted] };
    let fetched = |error, previous, resume, entries_bytes| FetchedPartition {
        partition: PARTITION,
        error,
        epoch: Epoch(6),
        log_start: Offset(10),
        committed_end: Offset(99),
        previous,
        resume,
        entries_bytes,
    };
    let moved = fetched(Some(ErrorCode::Moved), Some(RANGE), None, 0);
    let damaged = fetched(Some(ErrorCode::DataDamaged), None, Some(Offset(23)), 0);
    let reply = FetchReply { partitions: vec![fetched(None, None, None, 272), moved, damaged] };
    let query = |query| ListOffsetsPartition { range: RANGE, epoch: Epoch(5), partition: PARTITION, query };
    let times = OffsetQuery::AppendedAtOrAfter(Timestamp(1_790_000_000_000));
    let list =
        ListOffsetsRequest { partitions: vec![query(OffsetQuery::Earliest), query(OffsetQuery::Latest), query(times)] };
    let listed = ListedOffset { partition: PARTITION, error: None, epoch: Epoch(5), offset: Offset(12) };
    let listed = ListOffsetsReply { partitions: vec![listed] };
    let partition = json!({"topic": PARTITION.topic.0, "partition": 3});
    let fetched_fields = |error: u16, previous: Value, resume: Value, bytes: u32| {
        json!({"partition": partition, "error": error, "epoch": 6, "log_start": 10, "committed_end": 99,
            "previous": previous, "resume": resume, "entries_bytes": bytes})
    };
    let range = json!({"ring": 1, "range": 209});
    let fetch_fields = json!({"wait_ms_max": 500, "bytes_min": 1, "bytes_max": 4 << 20, "partitions": [
        {"range": range, "epoch": 5, "partition": partition, "offset": 17, "bytes_max": 1 << 20}]});
    let query_fields = |kind: u8, timestamp: i64| json!({"range": range, "epoch": 5, "partition": partition, "kind": kind, "timestamp": timestamp});
    vec![
        frame("produce", ask(Api::Produce), &produce, header.body_bytes, json!({"epoch": 5, "timeout_ms": 30_000})),
        frame(
            "produce_reply",
            answer(Api::Produce, None),
            &produced,
            0,
            json!({"base_offset": 1_000_000_007, "append_timestamp": 1_790_000_000_123u64}),
        ),
        frame("fetch", ask(Api::Fetch), &fetch, 0, fetch_fields),
        frame(
            "fetch_reply",
            answer(Api::Fetch, None),
            &reply,
            272,
            json!({"partitions": [fetched_fields(0, Value::Null, Value::Null, 272),
                fetched_fields(125, range.clone(), Value::Null, 0), fetched_fields(140, Value::Null, json!(23), 0)]}),
        ),
        frame(
            "list_offsets",
            ask(Api::ListOffsets),
            &list,
            0,
            json!({"partitions": [query_fields(0, 0), query_fields(1, 0), query_fields(2, 1_790_000_000_000)]}),
        ),
        frame(
            "list_offsets_reply",
            answer(Api::ListOffsets, None),
            &listed,
            0,
            json!({"partitions": [{"partition": partition, "error": 0, "epoch": 5, "offset": 12}]}),
        ),
    ]
}

/// What a produce, a fetch and a replicated entry are told of themselves.
fn explained(header: EntryHeader) -> Vec<(Frame, Again)> {
    let produce = ProduceRequest { epoch: Epoch(5), timeout_ms: 30_000, header };
    let span = |(stage, start_us, took_us)| StageSpan { stage: Stage::from_number(stage), start_us, took_us };
    let hop = |node, shard, whole_us, spans: &[(u8, u32, u32)]| Hop {
        node: NodeId(node),
        shard: ShardId(shard),
        whole_us,
        stages: spans.iter().copied().map(span).collect(),
    };
    let hop_fields = |node: u32, shard: u16, whole_us: u32, spans: &[(u8, u32, u32)]| {
        let stages = spans
            .iter()
            .map(|(stage, start_us, took_us)| json!({"stage": stage, "start_us": start_us, "took_us": took_us}));
        json!({"node": node, "shard": shard, "whole_us": whole_us, "stages": stages.collect::<Vec<_>>()})
    };
    let head = [(1, 0, 20), (2, 20, 5), (3, 25, 10), (4, 35, 200), (5, 35, 410), (6, 445, 3)];
    let second = [(1, 0, 8), (3, 8, 30), (4, 38, 310), (5, 38, 300)];
    let produced = ProduceReply { base_offset: Offset(1_000_000_007), append_timestamp: Timestamp(1_790_000_000_123) };
    let hops = vec![hop(1, 0, 448, &head), hop(2, 3, 350, &second), Hop::untold(NodeId(4), ShardId(1))];
    let hops_fields = json!([hop_fields(1, 0, 448, &head), hop_fields(2, 3, 350, &second), hop_fields(4, 1, 0, &[])]);
    let of_produce = Explained { message: produced, explanation: Explanation { hops: hops.clone() } };
    let read = [(16, 0, 1), (17, 1, 40), (18, 41, 9_000), (17, 9_041, 60), (200, 9_101, 2)];
    let of_fetch = Explained {
        message: FetchReply { partitions: Vec::new() },
        explanation: Explanation { hops: vec![hop(1, 2, 9_110, &read)] },
    };
    let fetch = FetchRequest { wait_ms_max: 500, bytes_min: 1, bytes_max: 4 << 20, partitions: Vec::new() };
    let (stream, index) = (StreamId(4), LogIndex(18));
    let told = PeerBody::Explained { stream, index, hops: hops[1..].to_vec() };
    let told_fields = json!({"kind": 14, "stream": 4, "index": 18,
        "hops": [hop_fields(2, 3, 350, &second), hop_fields(4, 1, 0, &[])]});
    vec![
        frame(
            "produce_explain",
            ask(Api::Produce).explained(),
            &produce,
            header.body_bytes,
            json!({"epoch": 5, "timeout_ms": 30_000}),
        ),
        frame(
            "produce_explained",
            answer(Api::Produce, None).explained(),
            &of_produce,
            0,
            json!({"base_offset": 1_000_000_007, "append_timestamp": 1_790_000_000_123u64, "hops": hops_fields}),
        ),
        frame(
            "fetch_explain",
            ask(Api::Fetch).explained(),
            &fetch,
            0,
            json!({"wait_ms_max": 500, "bytes_min": 1, "bytes_max": 4 << 20, "partitions": []}),
        ),
        frame(
            "fetch_explained",
            answer(Api::Fetch, None).explained(),
            &of_fetch,
            0,
            json!({"partitions": [], "hops": [hop_fields(1, 2, 9_110, &read)]}),
        ),
        say("peer_explain", PeerBody::Explain { stream, index }, json!({"kind": 13, "stream": 4, "index": 18})),
        say("peer_explained", told, told_fields),
    ]
}

fn deletion() -> Vec<(Frame, Again)> {
    let before = Offset(u64::MAX);
    let delete = DeleteRecordsPartition { range: RANGE, epoch: Epoch(5), partition: PARTITION, before };
    let delete = DeleteRecordsRequest { partitions: vec![delete] };
    let deleted = DeletedRecords { partition: PARTITION, error: None, epoch: Epoch(5), log_start: Offset(99) };
    let deleted = DeleteRecordsReply { partitions: vec![deleted] };
    let partition = json!({"topic": PARTITION.topic.0, "partition": 3});
    let range = json!({"ring": 1, "range": 209});
    vec![
        frame(
            "delete_records",
            ask(Api::DeleteRecords),
            &delete,
            0,
            json!({"partitions": [{"range": range, "epoch": 5, "partition": partition, "before": u64::MAX}]}),
        ),
        frame(
            "delete_records_reply",
            answer(Api::DeleteRecords, None),
            &deleted,
            0,
            json!({"partitions": [{"partition": partition, "error": 0, "epoch": 5, "log_start": 99}]}),
        ),
    ]
}

fn directory() -> Vec<(Frame, Again)> {
    let topic = TopicDescription {
        name: "orders".into(),
        error: None,
        topic: PARTITION.topic,
        partitions: 8,
        ring: RingId(1),
        state: TopicState::Ready,
        config: CONFIG,
        placement: vec![Placement { partition: Partition(2), range: RangeId(7) }],
    };
    let chain = RangeChain { epoch: Epoch(5), places: vec![ChainPlace { node: NodeId(1), shard: ShardId(0) }] };
    let ring = RingMap { ring: RingId(1), replication: 1, chains: vec![chain.clone(), RangeChain { ..chain }] };
    let node = NodeAddress { node: NodeId(1), rack: String::new(), shards: vec!["127.0.0.1:19100".into()] };
    let resolve =
        ResolveRequest { topics: vec!["orders".into()], all_topics: false, with_rings: true, create_missing: false };
    let reply = ResolveReply {
        cluster: ClusterId(42),
        internal_ring: RingId(1),
        nodes: vec![node],
        rings: vec![ring],
        topics: vec![topic.clone()],
    };
    let create =
        CreateTopicRequest { name: "orders".into(), partitions: 8, replication: 0, config: CONFIG, timeout_ms: 10_000 };
    let change =
        TopicConfigChange { retention_ms: Some(-1), produce_bytes_per_second: Some(0), ..TopicConfigChange::default() };
    let alter = AlterTopicRequest { name: "orders".into(), change, timeout_ms: 10_000 };
    let delete = DeleteTopicRequest { name: "orders".into(), timeout_ms: 10_000 };
    let refused = ErrorReply::because("range 1/209 is at epoch 6").at_epoch(Epoch(6)).after_ms(20);
    let config = json!({"retention_ms": -1, "retention_bytes": 1u64 << 40, "batch_bytes_max": 1 << 20,
        "produce_bytes_per_second": 100_000_000});
    let topic_fields = json!({"name": "orders", "error": 0, "topic": PARTITION.topic.0, "partitions": 8, "ring": 1,
        "state": 2, "config": config, "placement": [{"partition": 2, "range": 7}]});
    let chain_fields = json!({"epoch": 5, "places": [{"node": 1, "shard": 0}]});
    let reply_fields = json!({"cluster": 42, "internal_ring": 1, "nodes": [{"node": 1, "rack": "", "shards": ["127.0.0.1:19100"]}],
        "rings": [{"ring": 1, "replication": 1, "chains": [chain_fields, chain_fields]}], "topics": [topic_fields]});
    let resolve_fields =
        json!({"topics": ["orders"], "all_topics": false, "with_rings": true, "create_missing": false});
    let create_fields =
        json!({"name": "orders", "partitions": 8, "replication": 0, "config": config, "timeout_ms": 10_000});
    let change_fields = json!({"retention_ms": -1, "retention_bytes": null, "batch_bytes_max": null,
        "produce_bytes_per_second": 0});
    let alter_fields = json!({"name": "orders", "change": change_fields, "timeout_ms": 10_000});
    let error_fields = json!({"epoch": 6, "retry_after_ms": 20, "message": "range 1/209 is at epoch 6"});
    vec![
        frame("resolve", ask(Api::Resolve), &resolve, 0, resolve_fields),
        frame("resolve_reply", answer(Api::Resolve, None), &reply, 0, reply_fields),
        frame("create_topic", ask(Api::CreateTopic), &create, 0, create_fields),
        frame("create_topic_reply", answer(Api::CreateTopic, None), &topic, 0, topic_fields),
        frame("delete_topic", ask(Api::DeleteTopic), &delete, 0, json!({"name": "orders", "timeout_ms": 10_000})),
        frame("alter_topic", ask(Api::AlterTopic), &alter, 0, alter_fields),
        frame("error_reply", answer(Api::Produce, Some(ErrorCode::Stale)), &refused, 0, error_fields),
    ]
}

fn control() -> Vec<(Frame, Again)> {
    let entries = [
        ControlEntry::PartitionOpen {
            partition: PARTITION,
            config: CONFIG,
            version: ConfigVersion::FIRST,
            start_offset: Offset(0),
            previous: Some(RANGE),
        },
        ControlEntry::PartitionConfig { partition: PARTITION, config: CONFIG, version: ConfigVersion(2) },
        ControlEntry::PartitionDelete { partition: PARTITION },
        ControlEntry::LogStart { partition: PARTITION, log_start: Offset(10) },
    ];
    let append = AppendControlRequest {
        entries: entries.map(|entry| AppendControlRange { range: RANGE, epoch: Epoch(5), entry }).into(),
    };
    let kinds = json!({"kinds": ["partition_open", "partition_config", "partition_delete", "log_start"]});
    let seal = SealRequest {
        writer: WriterId(9),
        incarnation: Incarnation(11),
        ring: RingId(1),
        ranges: vec![SealRange { range: RANGE.range, epoch: Epoch(6), members: vec![MEMBER] }],
    };
    let asked = json!([{"range": 209, "epoch": 6, "members": [MEMBER.node.0]}]);
    let seal_fields = json!({"writer": 9, "incarnation": 11, "ring": 1, "ranges": asked});
    vec![
        frame("seal", ask(Api::Seal), &seal, 0, seal_fields),
        frame("append_control", ask(Api::AppendControl), &append, 0, kinds),
    ]
}

const MEMBER: ChainMember =
    ChainMember { node: NodeId(1), shard: ShardId(2), store: StoreId(3), incarnation: Incarnation(11) };

/// What carries a chain from one epoch to the next.
fn change() -> Vec<(Frame, Again)> {
    let range = RANGE.range;
    let end = LogPoint { index: LogIndex(17), hash: RunningHash(0x0102_0304_0506_0708) };
    let (writer, incarnation, ring) = (WriterId(9), Incarnation(11), RingId(1));
    let copied = ReconcileRange { range, epoch: Epoch(6), end, source: Some(MEMBER) };
    let source = ReconcileRange { range, epoch: Epoch(6), end, source: None };
    let reconcile = ReconcileRequest { writer, incarnation, ring, ranges: vec![copied, source] };
    let outcome = |error, end| RangeOutcome { range, error, epoch: Epoch(6), end: LogIndex(end) };
    let outcomes = RangesReply { ranges: vec![outcome(None, 0), outcome(Some(ErrorCode::CatchingUp), 12)] };
    let learn = LearnRange { range, epoch: Epoch(5), chain: vec![MEMBER], source: MEMBER };
    let learn = LearnRequest { incarnation, ring, ranges: vec![learn] };
    let report =
        |error, end| LearnReport { range, error, promised: Epoch(4), end: LogIndex(end), limit: Some(LogIndex(17)) };
    let learned = LearnReply {
        incarnation,
        store: StoreId(3),
        ranges: vec![report(None, 12), report(Some(ErrorCode::DataDamaged), 13)],
    };
    let measure = MeasureRequest { ring: RingId(1), ranges: vec![RangeId(209), RangeId(210)] };
    let size = |range: u32, error, bytes| MeasuredRange { range: RangeId(range), error, bytes };
    let ranges = vec![size(209, None, 1 << 40), size(210, Some(ErrorCode::NotOwner), 0)];
    let measured = MeasureReply { ranges };
    let size_fields = |range: u32, error: u16, bytes: u64| json!({"range": range, "error": error, "bytes": bytes});
    let not_owner = ErrorCode::NotOwner as u16;
    let measured_fields = json!({"ranges": [size_fields(209, 0, 1 << 40), size_fields(210, not_owner, 0)]});
    let member = json!({"node": 1, "shard": 2, "store": 3, "incarnation": 11});
    let end_fields = json!({"index": 17, "hash": 0x0102_0304_0506_0708u64});
    let range_fields = |source: Value| json!({"range": 209, "epoch": 6, "end": end_fields, "source": source});
    let reconcile_fields = json!({"writer": 9, "incarnation": 11, "ring": 1,
        "ranges": [range_fields(member.clone()), range_fields(Value::Null)]});
    let outcome_fields = |error: u16, end: u64| json!({"range": 209, "error": error, "epoch": 6, "end": end});
    let outcomes_fields = json!({"ranges": [outcome_fields(0, 0), outcome_fields(17, 12)]});
    let learn_fields = json!({"incarnation": 11, "ring": 1,
        "ranges": [{"range": 209, "epoch": 5, "chain": [member], "source": member}]});
    let report_fields =
        |error: u16, end: u64| json!({"range": 209, "error": error, "promised": 4, "end": end, "limit": 17});
    let learned_fields =
        json!({"incarnation": 11, "store": 3, "ranges": [report_fields(0, 12), report_fields(140, 13)]});
    vec![
        frame("reconcile", ask(Api::Reconcile), &reconcile, 0, reconcile_fields),
        frame("ranges_reply", answer(Api::Reconcile, None), &outcomes, 0, outcomes_fields),
        frame("learn", ask(Api::Learn), &learn, 0, learn_fields),
        frame("learn_reply", answer(Api::Learn, None), &learned, 0, learned_fields),
        frame("measure", ask(Api::Measure), &measure, 0, json!({"ring": 1, "ranges": [209, 210]})),
        frame("measure_reply", answer(Api::Measure, None), &measured, 0, measured_fields),
    ]
}

/// A message from a member of a chain to another.
fn say(name: &str, body: PeerBody<RunBytes>, fields: Value) -> (Frame, Again) {
    let message = PeerMessage { range: RANGE, epoch: Epoch(6), body };
    let mut all = json!({"range": {"ring": 1, "range": 209}, "epoch": 6});
    for (field, value) in fields.as_object().expect("fields") {
        all[field] = value.clone();
    }
    let bulk_bytes = message.bulk_bytes();
    frame(name, ask(Api::Peer), &message, bulk_bytes, all)
}

fn point() -> (LogPoint, Value) {
    let hash = 0x0102_0304_0506_0708;
    (LogPoint { index: LogIndex(17), hash: RunningHash(hash) }, json!({"index": 17, "hash": hash}))
}

/// Two members next to each other.
fn neighbours() -> ([ChainMember; 2], [Value; 2]) {
    let fields = |node: u32| json!({"node": node, "shard": 2, "store": 3, "incarnation": 11});
    ([MEMBER, ChainMember { node: NodeId(2), ..MEMBER }], [fields(1), fields(2)])
}

/// What members of a chain say to each other on their streams, and complain about.
fn peers() -> Vec<(Frame, Again)> {
    let (end, end_fields) = point();
    let ([from, to], [from_fields, to_fields]) = neighbours();
    let (stream, index) = (StreamId(4), LogIndex(18));
    let complaint = |reason| Complaint { range: RANGE, epoch: Epoch(6), by: NodeId(1), about: NodeId(2), reason };
    let reasons =
        [ComplaintReason::LinkLost, ComplaintReason::Stalled, ComplaintReason::Silent, ComplaintReason::WriteFailed];
    let complain = ComplainRequest { complaints: reasons.map(complaint).into() };
    let open = PeerBody::OpenStream { stream, from, to };
    let open_fields = json!({"kind": 1, "stream": 4, "from": from_fields, "to": to_fields});
    let opened = PeerBody::StreamOpened { stream, end };
    let entries = PeerBody::Entries { stream, committed: index, entries: vec![160, 1_040] };
    let entries_fields = json!({"kind": 4, "stream": 4, "committed": 18, "runs": [160, 1_040]});
    let refused = PeerBody::StreamRefused { stream, code: ErrorCode::Stale };
    let word = |kind: u8| json!({"kind": kind, "stream": 4, "index": 18});
    vec![
        say("peer_open_stream", open, open_fields),
        say("peer_stream_opened", opened, json!({"kind": 2, "stream": 4, "end": end_fields})),
        say("peer_stream_refused", refused, json!({"kind": 3, "stream": 4, "code": 2})),
        say("peer_entries", entries, entries_fields),
        say("peer_committed", PeerBody::Committed { stream, index }, word(5)),
        say("peer_acknowledged", PeerBody::Acknowledged { stream, index }, word(6)),
        frame("complain", ask(Api::Complain), &complain, 0, json!({"reasons": [1, 2, 3, 4]})),
    ]
}

/// What who lacks entries asks a source, and is answered.
fn copies() -> Vec<(Frame, Again)> {
    let (point, point_fields) = point();
    let ([from, to], [from_fields, to_fields]) = neighbours();
    let (copy, index) = (CopyId(6), LogIndex(18));
    let reply = |outcome| PeerBody::CopyReply { copy, outcome };
    let limited = |kind: u8| json!({"kind": kind, "copy": 6, "limit": 18});
    let cursor = SegmentCursor { end: index, at: point, snapshot_bytes: 40 };
    let cursor_fields = json!({"end": 18, "at": point_fields, "snapshot_bytes": 40});
    let request =
        |purpose, segment| PeerBody::CopyRequest { copy, from, to, purpose, after: point, until: index, segment };
    let request_fields = |purpose: u8, segment: Value| {
        json!({"kind": 7, "copy": 6, "from": from_fields, "to": to_fields, "purpose": purpose,
            "after": point_fields, "until": 18, "segment": segment})
    };
    let agreed = CopyOutcome::Agreed { limit: index, entries: vec![272] };
    let snapshot = SegmentItem::Snapshot { total: 90, bytes: 50 };
    let items = vec![SegmentItem::Entries(272), SegmentItem::Freed(point), snapshot];
    let part = SegmentPart { start: point, end: point, at: point, items };
    let part_fields = json!({"kind": 11, "copy": 6, "limit": 18, "start": point_fields, "end": point_fields,
        "at": point_fields, "items": [{"entries": 272}, {"freed": point_fields}, {"snapshot": 90, "bytes": 50}]});
    let refused = CopyOutcome::Refused { code: ErrorCode::DataDamaged };
    vec![
        say("peer_copy_request_learn", request(CopyPurpose::Learn, Some(cursor)), request_fields(1, cursor_fields)),
        say("peer_copy_request_reconcile", request(CopyPurpose::Reconcile, None), request_fields(2, Value::Null)),
        say("peer_copy_agreed", reply(agreed), json!({"kind": 8, "copy": 6, "limit": 18, "runs": [272]})),
        say("peer_copy_disagreed", reply(CopyOutcome::Disagreed { limit: index }), limited(9)),
        say("peer_copy_refused", reply(refused), json!({"kind": 10, "copy": 6, "code": 140})),
        say("peer_copy_segment", reply(CopyOutcome::Segment { limit: index, part }), part_fields),
        say("peer_copy_gone", reply(CopyOutcome::Gone { limit: index }), limited(12)),
    ]
}

fn malformed_frames(good: &[u8]) -> Vec<MalformedFrame> {
    let spoiled = |name: &str, error: &str, at: usize, bytes: &[u8]| {
        let mut frame = good.to_vec();
        frame[at..at + bytes.len()].copy_from_slice(bytes);
        MalformedFrame { name: name.into(), error: error.into(), frame: Hex(frame) }
    };
    vec![
        spoiled("an http request", "magic", 0, b"GET "),
        spoiled("a head of 4 GiB", "too_large", 4, &[0xff; 4]),
        spoiled("a bulk of 4 MiB and one byte", "too_large", 8, &((4u32 << 20) + 1).to_le_bytes()),
        spoiled("an unknown flag", "field", 15, &[4]),
        spoiled("an explain of what is not explained", "field", 15, &[2]),
        spoiled("a reserved field that is set", "field", 26, &[1]),
        spoiled("a flipped bit in the correlation", "crc", 16, &[good[16] ^ 1]),
        spoiled("a flipped bit in the head", "crc", 32, &[good[32] ^ 0x80]),
        spoiled("a flipped bit in the checksum", "crc", 28, &[good[28] ^ 4]),
    ]
}

fn malformed_heads(frames: &[Frame]) -> Vec<MalformedHead> {
    let head_of = |name: &str| frames.iter().find(|frame| frame.name == name).expect("a frame above").head.0.clone();
    let spoiled = |name: &str, message: &str, error: &str, change: &dyn Fn(&mut Vec<u8>)| {
        let mut head = head_of(message);
        change(&mut head);
        MalformedHead { name: name.into(), message: message.into(), error: error.into(), head: Hex(head) }
    };
    vec![
        spoiled("cut by a byte", "fetch", "truncated", &|head| head.truncate(head.len() - 1)),
        spoiled("a byte too many", "fetch", "trailing", &|head| head.push(0)),
        spoiled("a list of four thousand million", "fetch", "truncated", &|head| head[12..16].fill(0xff)),
        spoiled("an unknown role", "hello", "field", &|head| head[4] = 9),
        spoiled("a text that is not UTF-8", "hello", "field", &|head| head[31] = 0xff),
        spoiled("a text longer than 1024", "hello", "field", &|head| head[29..31].copy_from_slice(&[0xff, 0x7f])),
        spoiled("a bool that is 2", "resolve", "field", &|head| *head.last_mut().expect("not empty") = 2),
        spoiled("an unknown offset query", "list_offsets", "field", &|head| head[30] = 3),
        spoiled("produce flags", "produce", "field", &|head| head[12] = 1),
        spoiled("an explanation that is missing", "produce_explained", "truncated", &|head| head.truncate(16)),
        spoiled("a byte behind an explanation", "produce_explained", "trailing", &|head| head.push(0)),
        spoiled("eight hops", "produce_explained", "field", &|head| head[16] = 8),
        spoiled("seventeen stages", "fetch_explained", "field", &|head| head[18] = 17),
        spoiled("a stage that ends after its hop", "fetch_explained", "field", &|head| {
            let whole_us = head[14..18].first_chunk_mut().expect("behind node and shard");
            *whole_us = 9_102u32.to_le_bytes();
        }),
        spoiled("a stage of more time than there is", "fetch_explained", "field", &|head| head[27..31].fill(0xff)),
        spoiled("no entry header", "produce", "field", &|head| head[16..20].fill(0)),
        spoiled("an unknown item of a segment", "peer_copy_segment", "field", &|head| {
            let items = head.len() - (1 + 4) - (1 + 16) - (1 + 8 + 4);
            head[items] = 4;
        }),
        spoiled("an unknown kind of peer message", "peer_entries", "field", &|head| head[0] = 15),
        spoiled("a run that is shorter than an entry", "peer_entries", "field", &|head| head[35] = 16),
        spoiled("a run of 4 GiB", "peer_entries", "field", &|head| {
            head[35..39].copy_from_slice(&[0xf0, 255, 255, 255])
        }),
        spoiled("a refusal without a reason", "peer_stream_refused", "field", &|head| head[23..25].fill(0)),
        spoiled("an unknown purpose of a copy", "peer_copy_request_learn", "field", &|head| head[67] = 4),
        spoiled("an unknown reason to complain", "complain", "field", &|head| head[26] = 5),
        spoiled("a group without a name", "group_describe", "field", &|head| {
            head.truncate(16);
            head[14..16].fill(0);
        }),
        spoiled("a group's name with a space", "group_delete", "field", &|head| head[17] = b' '),
        spoiled("an unknown intent", "group_heartbeat_leave", "field", &|head| {
            let intent = head.len() - 3;
            head[intent] = 3;
        }),
        spoiled("a commit with metadata of 257 bytes", "group_commit", "field", &|head| {
            head.truncate(head.len() - 2 - 4);
            head.extend_from_slice(&257u16.to_le_bytes());
            head.extend_from_slice(&[b'x'; 257]);
        }),
        spoiled("an unknown state of a group", "group_list_reply", "field", &|head| {
            let state = head.len() - 5;
            head[state] = 3;
        }),
    ]
}

fn frame_error(error: &FrameError) -> &'static str {
    match error {
        FrameError::Magic(_) => "magic",
        FrameError::TooLarge { .. } => "too_large",
        FrameError::Crc { .. } => "crc",
        FrameError::Field(_) => "field",
    }
}

fn head_error(error: &DecodeError) -> &'static str {
    match error {
        DecodeError::Truncated { .. } => "truncated",
        DecodeError::Trailing(_) => "trailing",
        DecodeError::Field { .. } => "field",
    }
}

fn read_frame(bytes: &[u8]) -> Result<FrameHeader, FrameError> {
    let header = bytes.first_chunk().expect("vectors hold whole headers");
    let decoded = FrameHeader::decode(header, FrameLimits::REQUEST)?;
    decoded.verify(header, &bytes[FRAME_HEADER_BYTES..]).map(|()| decoded)
}

#[test]
fn frames() {
    let (frames, agains): (Vec<_>, Vec<_>) = [
        opening(),
        data(crate::entries::produced()),
        explained(crate::entries::produced()),
        deletion(),
        directory(),
        control(),
        change(),
        peers(),
        copies(),
        crate::groups::frames(),
    ]
    .into_iter()
    .flatten()
    .unzip();
    let malformed_frames = malformed_frames(&frames[0].frame.0);
    let malformed_heads = malformed_heads(&frames);
    let stored = golden("frames.json", &Frames { about: ABOUT.into(), frames, malformed_frames, malformed_heads });

    let by_name = |name: &str| {
        let at = stored.frames.iter().position(|frame| frame.name == name);
        agains[at.expect("a message of a frame above")]
    };
    for frame in &stored.frames {
        let header = read_frame(&frame.frame.0).unwrap_or_else(|error| panic!("{}: {error}", frame.name));
        assert_eq!((header.api, header.correlation, header.is_reply), (frame.api, frame.correlation, frame.is_reply));
        assert_eq!((header.bulk_bytes, header.explain), (frame.bulk_bytes, frame.explain));
        assert_eq!(header.error.map_or(0, |code| code as u16), frame.error);
        assert_eq!(by_name(&frame.name)(&frame.head.0).as_ref(), Ok(&frame.head.0), "{}", frame.name);
    }
    for malformed in &stored.malformed_frames {
        let error = read_frame(&malformed.frame.0).expect_err(&malformed.name);
        assert_eq!(frame_error(&error), malformed.error, "{}: {error}", malformed.name);
    }
    for malformed in &stored.malformed_heads {
        let error = by_name(&malformed.message)(&malformed.head.0).expect_err(&malformed.name);
        assert_eq!(head_error(&error), malformed.error, "{}: {error}", malformed.name);
    }
}
