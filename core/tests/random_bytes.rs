//! Decoders against bytes from anywhere: none panics, none takes memory out of proportion to what was sent, and what one
//! accepts means the same when it is sent on.
//!
//! Batch bodies and entry headers have the same properties beside their code (`core/src/batch/tests.rs`,
//! `core/src/entry/tests.rs`). A failure prints the smallest input that shows it.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::fmt::Debug;

use minikafka_core::chain::peer::{Complaint, ComplaintReason, CopyOutcome, PeerBody, PeerMessage};
use minikafka_core::control::{ControlEntry, OwnerChange};
use minikafka_core::group::{GroupName, GroupTable, InstanceName};
use minikafka_core::range_state::RangeState;
use minikafka_core::topic::{TopicConfig, TopicConfigChange, TopicState};
use minikafka_core::wire::frame::{Envelope, FrameLimits};
use minikafka_core::wire::*;
use minikafka_core::*;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::Config;

/// Memory that a decoder may take for each byte of a message: an empty text is 2 bytes sent and 24 in memory, and a list
/// that grows is there twice for a moment, the new one half empty.
const MEMORY_PER_BYTE_MAX: usize = 40;
/// For errors and small lists.
const MEMORY_MIN: usize = 1 << 10;

/// The system's allocator, which remembers per thread how much was in use at once.
struct Measuring;

thread_local! {
    static IN_USE: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

fn count(bytes: isize) {
    IN_USE.set(IN_USE.get() + bytes);
    PEAK.set(PEAK.get().max(IN_USE.get()));
}

// SAFETY: both calls are the system allocator's, unchanged; counting touches thread-locals that need neither an
// initialiser nor a destructor, so it never allocates.
unsafe impl GlobalAlloc for Measuring {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Measuring = Measuring;

/// What `work` returns, and how much memory it had in use at once.
fn measured<T>(work: impl FnOnce() -> T) -> (T, usize) {
    let before = IN_USE.get();
    PEAK.set(before);
    let result = work();
    (result, (PEAK.get() - before) as usize)
}

/// Decodes `bytes` as an `M` and holds the decoder to its promises.
fn check<M: Wire + PartialEq + Debug>(bytes: &[u8]) -> Result<(), TestCaseError> {
    let (decoded, memory) = measured(|| M::from_bytes(bytes));
    let name = std::any::type_name::<M>();
    prop_assert!(
        memory <= MEMORY_MIN + MEMORY_PER_BYTE_MAX * bytes.len(),
        "{name}: {memory} bytes of memory for {} bytes",
        bytes.len()
    );
    if let Ok(message) = decoded {
        // Not the same bytes: an error code of a newer release becomes `internal`.
        prop_assert_eq!(M::from_bytes(&message.to_bytes()), Ok(message), "{}", name);
    }
    Ok(())
}

/// The same for every message there is.
fn check_all(bytes: &[u8]) -> Result<(), TestCaseError> {
    check::<Hello>(bytes)?;
    check::<HelloReply>(bytes)?;
    check::<Proof>(bytes)?;
    check::<ErrorReply>(bytes)?;
    check::<ProduceRequest>(bytes)?;
    check::<ProduceReply>(bytes)?;
    check::<FetchRequest>(bytes)?;
    check::<FetchReply>(bytes)?;
    check::<Explained<FetchReply>>(bytes)?;
    check::<ListOffsetsRequest>(bytes)?;
    check::<ListOffsetsReply>(bytes)?;
    check::<DeleteRecordsRequest>(bytes)?;
    check::<DeleteRecordsReply>(bytes)?;
    check::<AlterTopicRequest>(bytes)?;
    check::<ResolveRequest>(bytes)?;
    check::<ResolveReply>(bytes)?;
    check::<CreateTopicRequest>(bytes)?;
    check::<DeleteTopicRequest>(bytes)?;
    check::<TopicDescription>(bytes)?;
    check::<SealRequest>(bytes)?;
    check::<SealReply>(bytes)?;
    check::<ReconcileRequest>(bytes)?;
    check::<ActivateRequest>(bytes)?;
    check::<RangesReply>(bytes)?;
    check::<AppendControlRequest>(bytes)?;
    check::<AppendControlReply>(bytes)?;
    check::<LearnRequest>(bytes)?;
    check::<LearnReply>(bytes)?;
    check::<PeerMessage<RunBytes>>(bytes)?;
    check::<ComplainRequest>(bytes)?;
    check::<GroupHeartbeatRequest>(bytes)?;
    check::<GroupHeartbeatReply>(bytes)?;
    check::<GroupCommitRequest>(bytes)?;
    check::<GroupCommitReply>(bytes)?;
    check::<GroupOffsetsRequest>(bytes)?;
    check::<GroupOffsetsReply>(bytes)?;
    check::<GroupDescribeRequest>(bytes)?;
    check::<GroupDescribeReply>(bytes)?;
    check::<GroupListRequest>(bytes)?;
    check::<GroupListReply>(bytes)?;
    check::<GroupDeleteRequest>(bytes)?;
    check::<ControlEntry>(bytes)
}

const RANGE: RangeKey = RangeKey { ring: RingId(1), range: RangeId(2) };
const PARTITION: PartitionKey = PartitionKey { topic: TopicId(3), partition: Partition(4) };
const CONFIG: TopicConfig =
    TopicConfig { retention_ms: -1, retention_bytes: 5, batch_bytes_max: 6, produce_bytes_per_second: 7 };

fn control_entries() -> Vec<ControlEntry> {
    let (partition, config, version) = (PARTITION, CONFIG, ConfigVersion(9));
    let (group, instance) = (group(), InstanceName::new("worker-1").expect("a good name"));
    let owner = OwnerChange { member: MemberId(5), instance, session_timeout_ms: 6, partitions: vec![PARTITION; 3] };
    let (generation, owners) = (GroupGeneration(7), vec![owner; 3]);
    vec![
        ControlEntry::PartitionOpen { partition, config, version, start_offset: Offset(7), previous: Some(RANGE) },
        ControlEntry::PartitionConfig { partition, config, version },
        ControlEntry::PartitionDelete { partition },
        ControlEntry::LogStart { partition, log_start: Offset(8) },
        ControlEntry::GroupOwners { group: group.clone(), generation, owners },
        ControlEntry::GroupCommit { group: group.clone(), offsets: vec![committed(); 3] },
        ControlEntry::GroupDelete { group },
    ]
}

fn group() -> GroupName {
    GroupName::new("billing").expect("a good name")
}

fn committed() -> CommittedOffset {
    CommittedOffset { partition: PARTITION, offset: Offset(9), metadata: "note".into() }
}

/// Messages about groups with lists, texts and options in them.
fn group_messages() -> Vec<Vec<u8>> {
    let (range, epoch, instance) = (RANGE, Epoch(1), InstanceName::none());
    let subscription = TopicSubscription { topic: TopicId(3), partitions: 8 };
    let heartbeat = GroupHeartbeatRequest {
        range,
        epoch,
        group: group(),
        member: MemberId(5),
        sequence: GroupSequence(2),
        generation: GroupGeneration(3),
        instance: instance.clone(),
        client_name: "client".into(),
        session_timeout_ms: 4,
        wait_ms_max: 5,
        intent: MemberIntent::Leave,
        subscribed: Some(vec![subscription; 3]),
        owned: Some(vec![PARTITION; 3]),
    };
    let assigned = AssignedPartition { partition: PARTITION, committed: Some(Offset(4)) };
    let commit = GroupCommitRequest {
        range,
        epoch,
        group: group(),
        member: MemberId(5),
        sequence: GroupSequence(2),
        generation: GroupGeneration(3),
        offsets: vec![committed(); 3],
    };
    let outcome = CommitOutcome { partition: PARTITION, error: Some(ErrorCode::NotAssigned) };
    let member = MemberDescription {
        member: MemberId(5),
        instance,
        client_name: "client".into(),
        silent_ms: 6,
        topics: vec![TopicId(3); 3],
        owned: vec![PARTITION; 3],
        target: vec![PARTITION; 3],
    };
    let (generation, phase) = (GroupGeneration(3), GroupPhase::Stable);
    let groups = vec![GroupSummary { group: group(), phase, members: 4 }; 3];
    vec![
        heartbeat.to_bytes(),
        GroupHeartbeatReply { generation, assigned: vec![assigned; 3] }.to_bytes(),
        commit.to_bytes(),
        GroupCommitReply { partitions: vec![outcome; 3] }.to_bytes(),
        GroupOffsetsRequest { range, epoch, group: group(), partitions: Some(vec![PARTITION; 3]) }.to_bytes(),
        GroupOffsetsReply { offsets: vec![committed(); 3] }.to_bytes(),
        GroupDescribeReply { generation, phase, members: vec![member; 3] }.to_bytes(),
        GroupListReply { ranges: vec![ListedGroups { range, error: None, epoch, groups }; 3] }.to_bytes(),
    ]
}

fn topic() -> TopicDescription {
    TopicDescription {
        name: "orders".to_owned(),
        error: None,
        topic: TopicId(3),
        partitions: 9,
        ring: RingId(1),
        state: TopicState::Ready,
        config: CONFIG,
        placement: vec![Placement { partition: Partition(1), range: RangeId(2) }; 3],
    }
}

/// Good messages with lists, texts and options in them, to be spoiled.
fn good_messages() -> Vec<Vec<u8>> {
    let fetched = FetchedPartition {
        partition: PARTITION,
        error: Some(ErrorCode::Moved),
        epoch: Epoch(1),
        log_start: Offset(2),
        committed_end: Offset(3),
        previous: Some(RANGE),
        resume: Some(Offset(5)),
        entries_bytes: 4,
    };
    let wanted =
        FetchPartition { range: RANGE, epoch: Epoch(1), partition: PARTITION, offset: Offset(2), bytes_max: 3 };
    let query = OffsetQuery::AppendedAtOrAfter(Timestamp(5));
    let offset = ListOffsetsPartition { range: RANGE, epoch: Epoch(1), partition: PARTITION, query };
    let chain = RangeChain { epoch: Epoch(4), places: vec![ChainPlace { node: NodeId(1), shard: ShardId(0) }; 2] };
    let resolved = ResolveReply {
        cluster: ClusterId(1),
        internal_ring: RingId(1),
        nodes: vec![NodeAddress { node: NodeId(1), rack: "a".into(), shards: vec!["host:1".into(), "host:2".into()] }],
        rings: vec![RingMap { ring: RingId(1), replication: 1, chains: vec![chain; 4] }],
        topics: vec![topic(); 2],
    };
    let change = TopicConfigChange { retention_ms: Some(-1), batch_bytes_max: Some(5), ..TopicConfigChange::default() };
    let topics = vec!["one".to_owned(), String::new(), "zwei".to_owned()];
    let span = StageSpan { stage: Stage::Wait, start_us: 5, took_us: 6 };
    let hop = Hop { node: NodeId(1), shard: ShardId(0), whole_us: 20, stages: vec![span; 3] };
    let message = FetchReply { partitions: vec![fetched.clone(); 2] };
    let mut all = vec![
        Explained { message, explanation: Explanation { hops: vec![hop; 2] } }.to_bytes(),
        FetchRequest { wait_ms_max: 1, bytes_min: 2, bytes_max: 3, partitions: vec![wanted; 3] }.to_bytes(),
        FetchReply { partitions: vec![fetched; 3] }.to_bytes(),
        ListOffsetsRequest { partitions: vec![offset; 3] }.to_bytes(),
        AlterTopicRequest { name: "orders".into(), change, timeout_ms: 9 }.to_bytes(),
        ResolveRequest { topics, all_topics: false, with_rings: true, create_missing: true }.to_bytes(),
        resolved.to_bytes(),
        topic().to_bytes(),
        ErrorReply::of(ErrorCode::Stale).to_bytes(),
    ];
    let (stream, copy, limit, range, epoch) = (StreamId(1), CopyId(2), LogIndex(3), RANGE, Epoch(4));
    let entries = PeerBody::Entries { stream, committed: limit, entries: vec![160; 5] };
    let reply = PeerBody::CopyReply { copy, outcome: CopyOutcome::Agreed { limit, entries: vec![4_096, 128] } };
    let reason = ComplaintReason::Stalled;
    let complaints = vec![Complaint { range, epoch, by: NodeId(1), about: NodeId(2), reason }; 3];
    all.extend([entries, reply].map(|body| PeerMessage::<RunBytes> { range, epoch, body }.to_bytes()));
    all.push(ComplainRequest { complaints }.to_bytes());
    all.extend(control_entries().iter().map(Wire::to_bytes));
    all.extend(group_messages());
    all
}

/// Changes of single bytes, then a cut, then bytes behind it.
type Spoiling = (Vec<(Index, u8)>, Option<Index>, Vec<u8>);

fn spoiling() -> impl Strategy<Value = Spoiling> {
    (vec((any::<Index>(), any::<u8>()), 0..6), proptest::option::weighted(0.3, any::<Index>()), vec(any::<u8>(), 0..6))
}

fn spoil(mut bytes: Vec<u8>, (changes, cut, behind): Spoiling) -> Vec<u8> {
    for (at, value) in changes {
        let at = at.index(bytes.len());
        bytes[at] = value;
    }
    if let Some(cut) = cut {
        bytes.truncate(cut.index(bytes.len()));
    }
    bytes.extend(behind);
    bytes
}

proptest! {
    #![proptest_config(Config { failure_persistence: None, ..Config::with_cases(512) })]

    #[test]
    fn messages_of_random_bytes(bytes in vec(any::<u8>(), 0..400)) {
        check_all(&bytes)?;
    }

    /// Zeros make the longest lists of the smallest items.
    #[test]
    fn messages_of_counts_and_zeros(count in any::<u32>(), lead in 0_usize..40, zeros in 0_usize..20_000) {
        let mut bytes = vec![0; lead];
        bytes.extend((count % 30_000).to_le_bytes());
        bytes.resize(bytes.len() + zeros, 0);
        check_all(&bytes)?;
    }

    #[test]
    fn good_messages_that_were_spoiled(message in any::<Index>(), spoiling in spoiling()) {
        let good = good_messages();
        check_all(&spoil(good[message.index(good.len())].clone(), spoiling))?;
    }

    #[test]
    fn frame_headers(
        random in vec(any::<u8>(), 32),
        keep_magic in any::<bool>(),
        head in vec(any::<u8>(), 0..64),
    ) {
        let mut bytes: [u8; FRAME_HEADER_BYTES] = random.try_into().expect("as many as were asked for");
        if keep_magic {
            bytes[..4].copy_from_slice(b"MKw1");
        }
        for limits in [FrameLimits::REQUEST, FrameLimits::REPLY] {
            let (decoded, memory) = measured(|| FrameHeader::decode(&bytes, limits));
            prop_assert_eq!(memory, 0, "a header is decoded where it is");
            if let Ok(header) = decoded {
                prop_assert!(header.head_bytes <= limits.head_bytes_max && header.bulk_bytes <= limits.bulk_bytes_max);
                prop_assert!(header.verify(&bytes, &head).is_err(), "nobody hits a checksum by chance");
            }
        }
    }

    #[test]
    fn a_frame_with_any_bit_flipped_is_refused(
        head in vec(any::<u8>(), 0..64),
        correlation in any::<u64>(),
        bit in any::<Index>(),
    ) {
        let mut bytes = Vec::new();
        encode_frame(&mut bytes, Envelope::request(Api::Resolve, correlation), &head, 0);
        let bit = bit.index(bytes.len() * 8);
        bytes[bit / 8] ^= 1 << (bit % 8);
        let (header, head) = bytes.split_first_chunk().expect("a frame begins with its header");
        let decoded = FrameHeader::decode(header, FrameLimits::REQUEST);
        prop_assert!(decoded.and_then(|frame| frame.verify(header, head)).is_err(), "bit {}", bit);
    }

    #[test]
    fn snapshots_that_were_spoiled(spoiling in spoiling(), behind in vec(any::<u8>(), 0..400)) {
        check::<RangeState>(&spoil(RangeState::default().snapshot(), spoiling.clone()))?;
        let mut groups = GroupTable::default();
        control_entries().iter().for_each(|entry| groups.apply(entry, Timestamp(1)));
        check::<GroupTable>(&spoil(groups.to_bytes(), spoiling))?;
        // A version that is known, then anything.
        let version = RangeState::default().snapshot()[..2].to_vec();
        check::<RangeState>(&[version, behind].concat())?;
    }
}
