//! A chain of one.

use super::*;

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
    let out = member.step(Input::Seal { request, epoch: Epoch(2), members: Vec::new() });
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
    let out = member.step(Input::Reconcile { request, epoch: Epoch(5), end, source: None });
    assert_eq!(out, [Output::Answer { request, answer: DONE }], "a duplicate: only the answer is repeated");
    let request = member.request();
    let out = member.step(Input::Reconcile { request, epoch: Epoch(5), end: LogPoint::START, source: None });
    assert_eq!(codes(&out), [ErrorCode::Stale], "one epoch, one decision");
    let me = member.me();
    member.activate(5, &[me]);
    let request = member.request();
    let out = member.step(Input::Reconcile { request, epoch: Epoch(5), end, source: None });
    assert_eq!(codes(&out), [ErrorCode::Stale], "a late reconcile");
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
    assert!(
        matches!(out.last(), Some(Output::Complain(Complaint { about: NodeId(1), reason, .. })) if *reason == ComplaintReason::WriteFailed)
    );
    assert!(matches!(out[0], Output::Answer { request: answered, .. } if answered == request));
    assert_eq!(member.durable(2), [], "a later success is not trusted");
    assert_eq!(member.durable(99), [], "nor what was being installed when it failed, which the machine is not told of");
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
    member.step(Input::Seal { request, epoch: Epoch(2), members: Vec::new() });
    member.step(Input::PromiseDurable { epoch: Epoch(2) });
    member.durable(2);
    let request = member.request();
    let out = member.step(Input::Reconcile { request, epoch: Epoch(2), end: cut, source: None });
    assert_eq!(out, [Output::Truncate { end: cut }]);
    let out = member.step(Input::Truncated { state: Box::new(short) });
    assert_eq!(out, [Output::PersistMarker { epoch: Epoch(2) }]);
    assert_eq!(member.replica.offsets(PARTITION), Some((Offset(0), Offset(0))));

    let mut committed = alone();
    committed.seal(2);
    let request = committed.request();
    let out = committed.step(Input::Reconcile { request, epoch: Epoch(2), end: LogPoint::START, source: None });
    assert_eq!(codes(&out), [ErrorCode::RangeFailed], "never below what is known to be committed");
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
    let cut = member.step(Input::Reconcile { request, epoch: Epoch(2), end, source: None });
    assert_eq!(codes(&cut), [ErrorCode::RangeFailed], "what is lost stays known to be lost");
    member.seal(3);
    member.reconcile_to_own_end(3);
    let me = member.me();
    member.activate(3, &[me]);
    assert_eq!(member.replica.check_read(Epoch(3)), Ok(()));
    assert_eq!(
        member.replica.readable_index(),
        LogIndex(2),
        "of a chain of one, everything that is there is committed"
    );
    let (_, out) = member.produce(3, 1);
    assert_eq!(codes(&out), [ErrorCode::RangeFailed]);
    assert_eq!(codes(&member.open_partition(3)), [ErrorCode::RangeFailed]);
}
