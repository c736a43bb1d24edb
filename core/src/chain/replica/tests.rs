//! A member alone, and two members wired together by hand: every durable write and message is delivered explicitly.

use super::*;
use crate::topic::TopicConfig;

const RANGE: RangeKey = RangeKey { ring: RingId(1), range: RangeId(3) };
const PARTITION: PartitionKey = PartitionKey { topic: TopicId(9), partition: Partition(2) };
const NOW: Timestamp = Timestamp(1_000);

struct Member {
    replica: Replica,
    out: Vec<Output>,
    requests: u64,
}

impl Member {
    fn new(node: u32) -> Self {
        Self::restarted(
            node,
            1,
            Recovered { state: RangeState::default(), promised: Epoch(0), marker: Epoch(0), damaged: false },
        )
    }

    fn restarted(node: u32, incarnation: u64, recovered: Recovered) -> Self {
        let me = ChainMember {
            node: NodeId(node),
            shard: ShardId(0),
            store: StoreId(node.into()),
            incarnation: Incarnation(incarnation),
        };
        Self { replica: Replica::new(RANGE, me, recovered), out: Vec::new(), requests: 0 }
    }

    fn me(&self) -> ChainMember {
        self.replica.me
    }

    fn step(&mut self, input: Input) -> Vec<Output> {
        self.replica.step(NOW, input, &mut self.out);
        std::mem::take(&mut self.out)
    }

    fn request(&mut self) -> RequestId {
        self.requests += 1;
        RequestId(self.requests)
    }

    fn seal(&mut self, epoch: u64) -> SealReport {
        let request = self.request();
        let mut out = self.step(Input::Seal { request, epoch: Epoch(epoch) });
        if out.contains(&Output::PersistPromise { epoch: Epoch(epoch) }) {
            out = self.step(Input::PromiseDurable { epoch: Epoch(epoch) });
        }
        match out.pop() {
            Some(Output::ReportSeal { report, .. }) => report,
            other => panic!("expected a seal report, got {other:?}"),
        }
    }

    fn reconcile_to_own_end(&mut self, epoch: u64) {
        let (request, end) = (self.request(), self.replica.state().end());
        let out = self.step(Input::Reconcile { request, epoch: Epoch(epoch), end });
        assert_eq!(out, [Output::PersistMarker { epoch: Epoch(epoch) }]);
        let out = self.step(Input::MarkerDurable { epoch: Epoch(epoch) });
        assert_eq!(out, [Output::Answer { request, answer: DONE }]);
    }

    fn activate(&mut self, epoch: u64, chain: &[ChainMember]) -> Vec<Output> {
        let (request, start) = (self.request(), self.replica.state().end());
        self.step(Input::Activate { request, epoch: Epoch(epoch), chain: chain.to_vec(), start })
    }

    fn produce(&mut self, believed: u64, sequence: i32) -> (RequestId, Vec<Output>) {
        let request = self.request();
        let header = batch(sequence);
        (request, self.step(Input::Produce { request, header, believed: Epoch(believed) }))
    }

    fn open_partition(&mut self, believed: u64) -> Vec<Output> {
        let request = self.request();
        let entry = ControlEntry::PartitionOpen {
            partition: PARTITION,
            config: TopicConfig::default(),
            version: ConfigVersion::FIRST,
            start_offset: Offset(0),
            previous: None,
        };
        self.step(Input::AppendControl { request, entry, believed: Epoch(believed) })
    }

    fn durable(&mut self, index: u64) -> Vec<Output> {
        self.step(Input::Durable { index: LogIndex(index) })
    }

    fn recovered(&self) -> Recovered {
        Recovered {
            state: self.replica.state.clone(),
            promised: self.replica.promised,
            marker: self.replica.marker,
            damaged: false,
        }
    }
}

fn batch(sequence: i32) -> EntryHeader {
    let opened = ControlEntry::PartitionDelete { partition: PARTITION };
    EntryHeader {
        kind: EntryKind::Batch,
        body_format: BodyFormat::Columnar,
        record_count: 10,
        last_offset_delta: 9,
        base_sequence: Sequence(sequence),
        producer_id: ProducerId(77),
        ..control_header(RANGE, &opened, b"body")
    }
}

fn header_of(out: &[Output]) -> EntryHeader {
    match out {
        [Output::Append { header, .. }] => *header,
        other => panic!("expected one append, got {other:?}"),
    }
}

fn codes(out: &[Output]) -> Vec<ErrorCode> {
    let code = |output: &Output| match output {
        Output::Answer { answer: Answer::Refused { code, .. }, .. } => Some(*code),
        _ => None,
    };
    out.iter().filter_map(code).collect()
}

/// A chain of one in epoch 1 with its partition open and committed at index 1.
fn alone() -> Member {
    let mut member = Member::new(1);
    member.seal(1);
    member.reconcile_to_own_end(1);
    let me = member.me();
    member.activate(1, &[me]);
    member.open_partition(1);
    member.durable(1);
    member
}

#[test]
fn nothing_is_taken_before_activation() {
    let mut member = Member::new(1);
    assert_eq!(codes(&member.produce(0, 0).1), [ErrorCode::NotOwner]);
    member.seal(1);
    assert_eq!(codes(&member.produce(1, 0).1), [ErrorCode::Stale]);
    member.reconcile_to_own_end(1);
    assert_eq!(codes(&member.produce(1, 0).1), [ErrorCode::Stale]);
    let me = member.me();
    member.activate(1, &[me]);
    assert_eq!(codes(&member.produce(1, 0).1), [ErrorCode::PartitionNotReady]);
    assert_eq!(codes(&member.produce(2, 0).1), [ErrorCode::Stale]);
}

#[test]
fn an_acknowledgement_waits_for_durability_and_offsets_have_no_gaps() {
    let mut member = alone();
    let (first, out) = member.produce(1, 0);
    assert_eq!((header_of(&out).index, header_of(&out).base_offset), (LogIndex(2), Offset(0)));
    let (second, out) = member.produce(1, 10);
    assert_eq!((header_of(&out).index, header_of(&out).base_offset), (LogIndex(3), Offset(10)));
    assert_eq!(member.replica.offsets(PARTITION), Some((Offset(0), Offset(0))), "nothing is readable yet");

    let out = member.durable(2);
    let done = |base_offset| Answer::Done { base_offset: Offset(base_offset), append_timestamp: NOW };
    let committed = Output::Committed { index: LogIndex(2) };
    assert_eq!(out, [committed, Output::Answer { request: first, answer: done(0) }]);
    assert_eq!(member.replica.offsets(PARTITION), Some((Offset(0), Offset(10))));

    let out = member.durable(3);
    assert_eq!(out.last(), Some(&Output::Answer { request: second, answer: done(10) }));
    assert_eq!(member.replica.offsets(PARTITION), Some((Offset(0), Offset(20))));
}

#[test]
fn a_duplicate_is_answered_with_its_original_and_not_before_it() {
    let mut member = alone();
    let (original, _) = member.produce(1, 0);
    let (duplicate, out) = member.produce(1, 0);
    assert_eq!(out, [], "the original is not committed yet");
    let answered: Vec<_> = member.durable(2).into_iter().filter(|o| matches!(o, Output::Answer { .. })).collect();
    let done = Answer::Done { base_offset: Offset(0), append_timestamp: NOW };
    let expected = [original, duplicate].map(|request| Output::Answer { request, answer: done });
    assert_eq!(answered, expected);
    let (late, out) = member.produce(1, 0);
    assert_eq!(out, [Output::Answer { request: late, answer: done }]);
    assert_eq!(codes(&member.produce(1, 20).1), [ErrorCode::OutOfOrder]);
}

#[test]
fn from_its_promise_on_a_head_commits_nothing_and_reports_only_when_writes_are_finished() {
    let mut member = alone();
    let (waiting, _) = member.produce(1, 0);
    let request = member.request();
    let out = member.step(Input::Seal { request, epoch: Epoch(2) });
    assert_eq!(codes(&out), [ErrorCode::Stale]);
    assert!(matches!(out[0], Output::Answer { request, .. } if request == waiting));
    assert_eq!(out.last(), Some(&Output::PersistPromise { epoch: Epoch(2) }));
    assert_eq!(member.step(Input::PromiseDurable { epoch: Epoch(2) }), [], "a write is still in flight");
    let out = member.durable(2);
    let [Output::ReportSeal { report, .. }] = &out[..] else { panic!("expected only a report, got {out:?}") };
    assert_eq!((report.end.index, report.known_committed, report.last_epoch), (LogIndex(2), LogIndex(1), Epoch(1)));

    // The entry becomes committed by the new epoch, and a retry finds it.
    member.reconcile_to_own_end(2);
    let me = member.me();
    let out = member.activate(2, &[me]);
    assert_eq!(out.last(), Some(&Output::Committed { index: LogIndex(2) }));
    let (_, out) = member.produce(2, 0);
    assert!(matches!(out[..], [Output::Answer { answer: Answer::Done { base_offset: Offset(0), .. }, .. }]));
}

#[test]
fn a_seal_at_or_below_the_promise_is_stale_and_a_marker_is_set_once() {
    let mut member = alone();
    assert_eq!(member.seal(1).error, Some(ErrorCode::Stale));
    assert_eq!(member.seal(5).error, None);
    assert_eq!(member.seal(4).error, Some(ErrorCode::Stale));
    member.reconcile_to_own_end(5);
    let (request, end) = (member.request(), member.replica.state().end());
    let out = member.step(Input::Reconcile { request, epoch: Epoch(5), end });
    assert_eq!(codes(&out), [ErrorCode::Stale], "a late or duplicate reconcile");
}

#[test]
fn activation_needs_identity_epoch_marker_and_start() {
    let sealed = || {
        let mut member = alone();
        member.seal(2);
        member
    };
    let mut member = sealed();
    let me = member.me();
    assert_eq!(codes(&member.activate(2, &[me])), [ErrorCode::Stale], "not reconciled");
    member.reconcile_to_own_end(2);
    assert_eq!(codes(&member.activate(1, &[me])), [ErrorCode::Stale], "an older epoch");
    let other = ChainMember { incarnation: Incarnation(2), ..me };
    assert_eq!(codes(&member.activate(2, &[other])), [ErrorCode::Stale], "another incarnation");
    let (request, start) = (member.request(), LogPoint { index: LogIndex(1), hash: RunningHash(5) });
    let out = member.step(Input::Activate { request, epoch: Epoch(2), chain: vec![me], start });
    assert_eq!(codes(&out), [ErrorCode::Stale], "another start");
    assert_eq!(codes(&member.activate(2, &[me])), []);
}

#[test]
fn after_a_restart_the_member_waits_for_a_new_epoch_and_goes_on_behind_its_log() {
    let before = alone();
    let mut member = Member::restarted(1, 2, before.recovered());
    assert_eq!(codes(&member.produce(1, 0).1), [ErrorCode::NotOwner]);
    let me = member.me();
    assert_eq!(codes(&member.activate(1, &[me])), [ErrorCode::Stale], "a clean restart does not keep its epoch");
    let report = member.seal(2);
    assert_eq!((report.marker, report.end.index), (Epoch(1), LogIndex(1)));
    member.reconcile_to_own_end(2);
    member.activate(2, &[me]);
    assert_eq!(header_of(&member.produce(2, 0).1).index, LogIndex(2));
}

#[test]
fn a_failed_write_is_final() {
    let mut member = alone();
    let (request, _) = member.produce(1, 0);
    let out = member.step(Input::WriteFailed);
    assert_eq!(codes(&out), [ErrorCode::RangeFailed]);
    assert!(matches!(out[0], Output::Answer { request: answered, .. } if answered == request));
    assert_eq!(member.durable(2), [], "a later success is not trusted");
    assert_eq!(codes(&member.produce(1, 10).1), [ErrorCode::RangeFailed]);
    assert_eq!(member.seal(2).error, Some(ErrorCode::RangeFailed));
}

#[test]
fn a_truncation_cuts_state_and_log_alike() {
    let mut member = alone();
    let short = member.recovered().state;
    member.produce(1, 0);
    member.durable(1);
    let cut = LogPoint { ..short.end() };
    let request = member.request();
    member.step(Input::Seal { request, epoch: Epoch(2) });
    member.step(Input::PromiseDurable { epoch: Epoch(2) });
    member.durable(2);
    let request = member.request();
    let out = member.step(Input::Reconcile { request, epoch: Epoch(2), end: cut });
    assert_eq!(out, [Output::Truncate { end: cut }]);
    let out = member.step(Input::Truncated { state: Box::new(short) });
    assert_eq!(out, [Output::PersistMarker { epoch: Epoch(2) }]);
    assert_eq!(member.replica.offsets(PARTITION), Some((Offset(0), Offset(0))));

    let mut committed = alone();
    committed.seal(2);
    let request = committed.request();
    let out = committed.step(Input::Reconcile { request, epoch: Epoch(2), end: LogPoint::START });
    assert_eq!(codes(&out), [ErrorCode::RangeFailed], "never below what is known to be committed");
}

impl Member {
    fn control(&mut self, entry: ControlEntry) -> Vec<Output> {
        let (request, believed) = (self.request(), self.replica.epoch());
        self.step(Input::AppendControl { request, entry, believed })
    }

    fn active_with_records(records: i32) -> Self {
        let mut member = Self::new(1);
        let chain = [member.me()];
        member.seal(1);
        member.reconcile_to_own_end(1);
        member.activate(1, &chain);
        member.open_partition(1);
        for batch in 0..records / 10 {
            member.produce(1, batch * 10);
        }
        member.durable(1 + records as u64 / 10);
        member
    }
}

#[test]
fn what_may_be_freed_follows_the_committed_log_start() {
    let mut member = Member::active_with_records(40);
    let certain = |member: &Member| member.replica.committed_log_start(PARTITION);
    let move_to = |offset| ControlEntry::LogStart { partition: PARTITION, log_start: Offset(offset) };
    assert_eq!(certain(&member), Some(Offset(0)));
    member.control(move_to(10));
    member.control(move_to(20));
    assert_eq!(member.replica.offsets(PARTITION), Some((Offset(20), Offset(40))), "what readers are told");
    assert_eq!(certain(&member), Some(Offset(0)), "nothing of it is committed");
    member.durable(6);
    assert_eq!(certain(&member), Some(Offset(0)), "too low for a while is safe");
    assert_eq!(member.replica.log_starts_settled(), LogIndex(0));
    member.durable(7);
    assert_eq!(certain(&member), Some(Offset(20)));
    assert_eq!(member.replica.log_starts_settled(), LogIndex(7), "whoever frees space looks at this");
    assert_eq!(codes(&member.control(move_to(5))), [], "below: held already, answered without an entry");
    assert_eq!(member.replica.state().end().index, LogIndex(7), "a log start only grows");

    member.control(ControlEntry::PartitionDelete { partition: PARTITION });
    assert_eq!(certain(&member), Some(Offset(20)), "a deletion may still be cut off");
    member.durable(8);
    assert_eq!(certain(&member), None);
}

#[test]
fn settings_follow_their_version_whatever_order_they_come_in() {
    let mut member = Member::active_with_records(0);
    let with = |retention_ms, version| ControlEntry::PartitionConfig {
        partition: PARTITION,
        config: TopicConfig { retention_ms, ..TopicConfig::default() },
        version: ConfigVersion(version),
    };
    let known = |member: &Member| member.replica.state().partition(PARTITION).map(|p| p.config.retention_ms);
    member.control(with(3_000, 3));
    member.control(with(2_000, 2));
    assert_eq!(known(&member), Some(3_000), "an older change that arrives late undoes nothing");
    assert_eq!(member.replica.state().end().index, LogIndex(2), "nor does it cost an entry");
    member.control(with(4_000, 4));
    assert_eq!(known(&member), Some(4_000));
}

#[test]
fn a_deleted_topic_is_not_opened_again_by_a_message_that_comes_late() {
    let mut member = Member::active_with_records(0);
    member.control(ControlEntry::PartitionDelete { partition: PARTITION });
    member.durable(2);
    assert_eq!(codes(&member.open_partition(1)), [ErrorCode::UnknownTopic]);
    assert!(member.replica.state().partition(PARTITION).is_none());
    // A partition that was never opened is remembered as well: its opening may be what is late.
    let other = PartitionKey { topic: TopicId(10), partition: Partition(0) };
    member.control(ControlEntry::PartitionDelete { partition: other });
    let (config, version, start_offset) = (TopicConfig::default(), ConfigVersion::FIRST, Offset(0));
    let open = ControlEntry::PartitionOpen { partition: other, config, version, start_offset, previous: None };
    assert_eq!(codes(&member.control(open)), [ErrorCode::UnknownTopic]);
}

// ---- Two members ----

fn pair() -> (Member, Member) {
    let (mut head, mut tail) = (Member::new(1), Member::new(2));
    let chain = [head.me(), tail.me()];
    for member in [&mut head, &mut tail] {
        member.seal(1);
        member.reconcile_to_own_end(1);
        member.activate(1, &chain);
    }
    let opened = header_of(&head.open_partition(1));
    let entry = ControlEntry::PartitionOpen {
        partition: PARTITION,
        config: TopicConfig::default(),
        version: ConfigVersion::FIRST,
        start_offset: Offset(0),
        previous: None,
    };
    replicate(&mut tail, opened, Some(entry), 0);
    tail.durable(1);
    head.durable(1);
    head.step(Input::SuccessorAcknowledged { epoch: Epoch(1), index: LogIndex(1) });
    (head, tail)
}

fn replicate(tail: &mut Member, header: EntryHeader, control: Option<ControlEntry>, committed: u64) -> Vec<Output> {
    let request = tail.request();
    tail.step(Input::Replicate { request, epoch: Epoch(1), header, control, committed: LogIndex(committed) })
}

#[test]
fn two_members_commit_what_both_hold() {
    let (mut head, mut tail) = pair();
    let (_, out) = head.produce(1, 0);
    assert!(matches!(out[..], [Output::Append { forward: true, .. }]), "written and forwarded at the same time");
    let out = replicate(&mut tail, header_of(&out), None, 1);
    assert!(matches!(out[0], Output::Append { forward: false, .. }));
    assert_eq!(tail.replica.readable_index(), LogIndex(1));

    assert_eq!(head.durable(2), [], "durable at the head alone is not committed");
    let out = tail.durable(2);
    assert_eq!(out, [Output::AcknowledgeUpstream { epoch: Epoch(1), index: LogIndex(2) }]);
    let out = head.step(Input::SuccessorAcknowledged { epoch: Epoch(1), index: LogIndex(2) });
    assert_eq!(out[0], Output::Committed { index: LogIndex(2) });

    let told = head.step(Input::Tick);
    assert_eq!(told, [Output::TellCommitted { epoch: Epoch(1), index: LogIndex(2) }]);
    assert_eq!(head.step(Input::Tick), [], "told once");
    let out = tail.step(Input::CommittedAdvanced { epoch: Epoch(1), index: LogIndex(2) });
    assert_eq!(out, [Output::Committed { index: LogIndex(2) }]);
    assert_eq!(tail.replica.state(), head.replica.state());
    assert_eq!(tail.replica.state().snapshot(), head.replica.state().snapshot());
}

/// A member behind the head holds two moves of a log start, and the next epoch begins between them.
#[test]
fn a_truncation_takes_a_log_start_back_and_the_one_before_it_is_certain_then() {
    let (mut head, mut tail) = pair();
    let certain = |member: &Member| member.replica.committed_log_start(PARTITION);
    let batch = header_of(&head.produce(1, 0).1);
    replicate(&mut tail, batch, None, 1);
    let mut states = Vec::new();
    for log_start in [5, 8] {
        let entry = ControlEntry::LogStart { partition: PARTITION, log_start: Offset(log_start) };
        let header = header_of(&head.control(entry.clone()));
        replicate(&mut tail, header, Some(entry), 1);
        states.push(tail.recovered().state);
    }
    tail.durable(4);
    assert_eq!(certain(&tail), Some(Offset(0)), "durable here is not committed");
    tail.seal(2);
    let (state, request) = (states.remove(0), tail.request());
    let end = state.end();
    assert_eq!(tail.step(Input::Reconcile { request, epoch: Epoch(2), end }), [Output::Truncate { end }]);
    tail.step(Input::Truncated { state: Box::new(state) });
    tail.step(Input::MarkerDurable { epoch: Epoch(2) });
    assert_eq!(certain(&tail), Some(Offset(0)));
    let chain = [tail.me()];
    tail.activate(2, &chain);
    assert_eq!(certain(&tail), Some(Offset(5)));
    assert_eq!(tail.replica.log_starts_settled(), LogIndex(3));
}

#[test]
fn an_acknowledgement_of_another_epoch_does_not_count() {
    let (mut head, _) = pair();
    head.produce(1, 0);
    head.durable(2);
    assert_eq!(head.step(Input::SuccessorAcknowledged { epoch: Epoch(0), index: LogIndex(2) }), []);
    let chain = [head.me(), head.me()];
    head.seal(2);
    head.reconcile_to_own_end(2);
    head.activate(2, &chain);
    head.produce(2, 10);
    head.durable(3);
    assert_eq!(head.step(Input::SuccessorAcknowledged { epoch: Epoch(1), index: LogIndex(3) }), []);
}

#[test]
fn a_successor_takes_only_what_follows() {
    let (mut head, mut tail) = pair();
    let first = header_of(&head.produce(1, 0).1);
    let second = header_of(&head.produce(1, 10).1);
    assert_eq!(replicate(&mut tail, second, None, 1), [Output::ResetUpstream], "a gap");
    assert!(matches!(replicate(&mut tail, first, None, 1)[0], Output::Append { .. }));
    assert_eq!(replicate(&mut tail, first, None, 1), [], "the same again");
    let mut other = first;
    other.append_timestamp = Timestamp(5);
    other.running_hash = RunningHash(5);
    assert_eq!(replicate(&mut tail, other, None, 1), [Output::ResetUpstream], "another entry at the same index");
    tail.durable(2);
    tail.seal(2);
    assert_eq!(replicate(&mut tail, second, None, 1), [], "sealed");
    assert_eq!(codes(&tail.produce(1, 0).1), [ErrorCode::Stale]);
}

#[test]
fn a_damaged_log_is_read_and_neither_written_nor_cut() {
    let mut whole = Member::new(1);
    let me = whole.me();
    whole.seal(1);
    whole.reconcile_to_own_end(1);
    whole.activate(1, &[me]);
    whole.open_partition(1);
    whole.produce(1, 0);
    whole.durable(2);
    let mut member = Member::restarted(1, 2, Recovered { damaged: true, ..whole.recovered() });
    assert_eq!(
        member.replica.check_read(Epoch(1)),
        Err(ErrorCode::NotOwner),
        "R6: also a damaged member acts in no epoch"
    );
    let report = member.seal(2);
    assert_eq!((report.error, report.damaged, report.end.index), (None, true, LogIndex(2)));
    let (request, end) = (member.request(), LogPoint::START);
    let cut = member.step(Input::Reconcile { request, epoch: Epoch(2), end });
    assert_eq!(codes(&cut), [ErrorCode::RangeFailed], "what is lost stays known to be lost");
    member.reconcile_to_own_end(2);
    let me = member.me();
    member.activate(2, &[me]);
    assert_eq!(member.replica.check_read(Epoch(2)), Ok(()));
    assert_eq!(
        member.replica.readable_index(),
        LogIndex(2),
        "of a chain of one, everything that is there is committed"
    );
    let (_, out) = member.produce(2, 1);
    assert_eq!(codes(&out), [ErrorCode::RangeFailed]);
    assert_eq!(codes(&member.open_partition(2)), [ErrorCode::RangeFailed]);
}
