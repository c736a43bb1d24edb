//! Seal and reconcile: repeats, cuts, copies, alignment, and what is refused (R5, R10, R11).

use super::chain::{opening, pair, replicate};
use super::*;
use crate::limits::{COPY_REQUESTS_LOST_MAX, PEER_RETRY_TICKS};

const SOURCE: ChainMember =
    ChainMember { node: NodeId(9), shard: ShardId(0), store: StoreId(9), incarnation: Incarnation(1) };
const E2: Epoch = Epoch(2);

/// A log of so many entries; from index `differs` on they are those of another head.
pub(super) fn log(entries: u64, differs: u64) -> Vec<(EntryHeader, Option<ControlEntry>)> {
    let mut end = LogPoint::START;
    let entry = |index| {
        let mut header = batch((index as i32 - 2) * 10);
        let mut control = None;
        if index == 1 {
            header = control_header(RANGE, &opening(), b"opening");
            control = Some(opening());
        }
        header.epoch = Epoch(1);
        header.index = LogIndex(index);
        header.base_offset = Offset(index.saturating_sub(2) * 10);
        header.append_timestamp = if index < differs { NOW } else { Timestamp(7_000) };
        header.seal(end.hash);
        end = LogPoint { index: header.index, hash: header.running_hash };
        (header, control)
    };
    (1..=entries).map(entry).collect()
}

fn fold(log: &[(EntryHeader, Option<ControlEntry>)]) -> RangeState {
    let mut state = RangeState::default();
    log.iter().for_each(|(header, control)| state.apply(header, control.as_ref()));
    state
}

pub(super) fn point(log: &[(EntryHeader, Option<ControlEntry>)], index: u64) -> LogPoint {
    match index.checked_sub(1).and_then(|at| log.get(at as usize)) {
        Some((header, _)) => LogPoint { index: header.index, hash: header.running_hash },
        None => LogPoint::START,
    }
}

/// A member that restarted with this log.
pub(super) fn with_log(node: u32, log: &[(EntryHeader, Option<ControlEntry>)]) -> Member {
    let recovered = Recovered { state: fold(log), promised: Epoch(1), marker: Epoch(1), damaged: false };
    Member::restarted(node, 2, recovered)
}

/// Answers what the member asks of its disk and its source until it asks for nothing; what it said otherwise.
pub(super) fn serve(
    member: &mut Member,
    own: &[(EntryHeader, Option<ControlEntry>)],
    source: &[(EntryHeader, Option<ControlEntry>)],
    mut out: Vec<Output>,
) -> Vec<Output> {
    let mut own = own.to_vec();
    let mut said = Vec::new();
    let limit = LogIndex(source.len() as u64);
    for _ in 0..1_000 {
        if out.is_empty() {
            return said;
        }
        for output in std::mem::take(&mut out) {
            match output {
                Output::ReadPoint { index } => {
                    let point = Some(point(&own, index.0));
                    out.extend(member.step(Input::PointRead { index, point }));
                }
                Output::Truncate { end } => {
                    assert_eq!(point(&own, end.index.0), end);
                    own.truncate(end.index.0 as usize);
                    out.extend(member.step(Input::Truncated { state: Box::new(fold(&own)) }));
                }
                Output::RequestCopy { copy, after, .. } if point(source, after.index.0) != after => {
                    out.extend(member.step(Input::CopyDisagreed { copy, limit }));
                }
                Output::RequestCopy { copy, after, until, .. } => {
                    // Two at a time.
                    for index in after.index.0 + 1..=until.min(limit).0.min(after.index.0 + 2) {
                        let (header, control) = source[index as usize - 1].clone();
                        let request = member.request();
                        let appended = member.step(Input::Copied { request, copy, header, control: control.clone() });
                        assert!(matches!(appended[..], [Output::Append { forward: false, .. }]));
                        own.push((header, control));
                    }
                    let asked = member.step(Input::CopyEnded { copy, limit });
                    let durable = member.durable(own.len() as u64);
                    out.extend(asked.into_iter().chain(durable));
                }
                Output::PersistMarker { epoch } => {
                    assert_eq!(member.replica.durable, member.replica.state.end().index, "first durable, then marked");
                    out.extend(member.step(Input::MarkerDurable { epoch }));
                }
                output => said.push(output),
            }
        }
    }
    panic!("it goes on asking: {out:?}");
}

fn reconcile(member: &mut Member, end: LogPoint, source: Option<ChainMember>) -> (RequestId, Vec<Output>) {
    let request = member.request();
    (request, member.step(Input::Reconcile { request, epoch: E2, end, source }))
}

#[test]
fn every_log_is_brought_to_the_exact_end_of_its_source() {
    let source = log(9, 100);
    let end = point(&source, 9);
    let cases = [
        ("equal", log(9, 100)),
        ("empty", log(0, 100)),
        ("shorter", log(4, 100)),
        ("longer", log(20, 100)),
        ("longer, and other from the end on", log(20, 10)),
        ("longer, and other before it", log(20, 6)),
        ("as long, and other at the end", log(9, 9)),
        ("other from the first entry on", log(9, 1)),
        ("shorter and other", log(7, 3)),
    ];
    for (what, own) in cases {
        let mut member = with_log(1, &own);
        member.seal(2);
        let (request, out) = reconcile(&mut member, end, Some(SOURCE));
        let said = serve(&mut member, &own, &source, out);
        assert_eq!(said, [Output::Answer { request, answer: DONE }], "{what}");
        assert_eq!(member.replica.state(), &fold(&source), "{what}");
        let chain = [member.me()];
        member.activate(2, &chain);
        assert!(member.replica.acts(), "{what}");
    }
}

#[test]
fn nothing_below_what_is_known_to_be_committed_is_cut() {
    // It knows index 1 to be committed, and lacks nothing of index 2.
    let (mut head, mut tail, stream) = pair();
    let header = header_of(&head.produce(1, 0).1);
    replicate(&mut tail, stream, header, None, 1);
    tail.durable(2);
    tail.seal(2);
    let (_, out) = reconcile(&mut tail, LogPoint::START, Some(head.me()));
    assert_eq!(codes(&out), [ErrorCode::RangeFailed], "the end lies below");
    assert_eq!(*tail.replica.standing(), Standing::Sealed);

    // Another entry at index 2: the search ends at index 1 at once, and the log is cut to what is committed.
    let source = log(2, 2);
    head.durable(2);
    head.seal(2);
    let committed = head.replica.committed;
    assert_eq!(committed.index, LogIndex(1));
    let (_, out) = reconcile(&mut head, point(&source, 2), Some(SOURCE));
    assert_eq!(out, [Output::Truncate { end: committed }]);
}

#[test]
fn a_source_that_disagrees_with_what_is_committed_is_no_source() {
    let (mut head, _, _) = pair();
    head.seal(2);
    let end = LogPoint { index: LogIndex(4), hash: RunningHash(4) };
    let (_, out) = reconcile(&mut head, end, Some(SOURCE));
    let [Output::RequestCopy { copy, after, until, .. }] = out[..] else { panic!("expected a request, got {out:?}") };
    assert_eq!((after, until), (head.replica.state().end(), LogIndex(4)));
    let out = head.step(Input::CopyDisagreed { copy, limit: LogIndex(4) });
    assert_eq!(codes(&out), [ErrorCode::RangeFailed]);
    let (_, out) = reconcile(&mut head, LogPoint { index: LogIndex(5), ..end }, Some(SOURCE));
    assert_eq!(codes(&out), [ErrorCode::Stale], "one epoch, one decision, also after a refusal");
}

#[test]
fn the_marker_waits_until_what_was_copied_is_durable() {
    let source = log(2, 100);
    let mut member = with_log(1, &[]);
    member.seal(2);
    let (first, out) = reconcile(&mut member, point(&source, 2), Some(SOURCE));
    let [Output::RequestCopy { copy, .. }] = out[..] else { panic!("expected a request, got {out:?}") };
    for (header, control) in source {
        let request = member.request();
        member.step(Input::Copied { request, copy, header, control });
    }
    assert_eq!(member.step(Input::CopyEnded { copy, limit: LogIndex(2) }), []);
    assert_eq!(member.durable(1), []);
    let end = member.replica.state().end();
    let (second, out) = reconcile(&mut member, end, Some(SOURCE));
    assert_eq!(out, [Output::ReportProgress { request: first, end: LogIndex(2) }]);
    let (_, out) = reconcile(&mut member, LogPoint::START, Some(SOURCE));
    assert_eq!(codes(&out), [ErrorCode::Stale], "another end in the same epoch");
    assert_eq!(member.durable(2), [Output::PersistMarker { epoch: E2 }]);
    let out = member.step(Input::MarkerDurable { epoch: E2 });
    assert_eq!(out, [Output::Answer { request: second, answer: DONE }]);
}

#[test]
fn a_source_that_fails_or_is_lost_is_asked_again_and_late_answers_do_not_count() {
    let source = log(2, 100);
    let mut member = with_log(1, &[]);
    member.seal(2);
    let (_, out) = reconcile(&mut member, point(&source, 2), Some(SOURCE));
    let mut asked = out;
    for failure in 0..3 {
        let [Output::RequestCopy { copy, .. }] = asked[..] else { panic!("expected a request, got {asked:?}") };
        let (header, control) = source[1].clone();
        let request = member.request();
        let out = match failure {
            0 => member.step(Input::CopyFailed { copy, code: ErrorCode::CatchingUp }),
            1 => member.step(Input::PeerLost { member: SOURCE }),
            _ => member.step(Input::Copied { request, copy, header, control }),
        };
        assert_eq!(out, [], "an entry that does not follow is a failure, too");
        assert_eq!(member.step(Input::CopyDisagreed { copy, limit: LogIndex(2) }), []);
        let (header, control) = source[0].clone();
        assert_eq!(member.step(Input::Copied { request, copy, header, control }), []);
        asked = (0..PEER_RETRY_TICKS).flat_map(|_| member.step(Input::Tick)).collect();
    }
    let said = serve(&mut member, &[], &source, asked);
    assert!(matches!(said[..], [Output::Answer { answer: DONE, .. }]));
}

/// The controller reaches a source that this member does not: only another decision helps, so it says so.
#[test]
fn a_source_that_never_answers_is_refused() {
    let source = log(2, 100);
    let mut member = with_log(1, &[]);
    member.seal(2);
    let (request, mut asked) = reconcile(&mut member, point(&source, 2), Some(SOURCE));
    for _ in 1..COPY_REQUESTS_LOST_MAX {
        assert!(matches!(asked[..], [Output::RequestCopy { .. }]), "{asked:?}");
        assert_eq!(member.step(Input::PeerLost { member: SOURCE }), []);
        asked = (0..PEER_RETRY_TICKS).flat_map(|_| member.step(Input::Tick)).collect();
    }
    let refused = Answer::Refused { code: ErrorCode::TimedOut, epoch: E2 };
    assert_eq!(member.step(Input::PeerLost { member: SOURCE }), [Output::Answer { request, answer: refused }]);
}

#[test]
fn the_same_seal_gets_the_same_report_until_a_decision_came() {
    let mut member = alone();
    let (first, second) = (member.request(), member.request());
    member.step(Input::Seal { request: first, epoch: E2, members: Vec::new() });
    assert_eq!(member.step(Input::Seal { request: second, epoch: E2, members: Vec::new() }), []);
    let out = member.step(Input::PromiseDurable { epoch: E2 });
    let [Output::ReportSeal { request: a, report }, Output::ReportSeal { request: b, report: again }] = &out[..] else {
        panic!("expected two reports, got {out:?}")
    };
    assert_eq!((*a, *b, report), (first, second, again));
    assert_eq!(member.seal(2), *report);
    member.reconcile_to_own_end(2);
    assert_eq!(member.seal(2).error, Some(ErrorCode::Stale));
    let mut restarted = Member::restarted(1, 2, member.recovered());
    assert_eq!(restarted.seal(2).error, Some(ErrorCode::Stale), "a promise of an earlier life");
}

#[test]
fn a_seal_waits_for_a_cut_and_a_marker_under_way() {
    let (own, source) = (log(5, 100), log(3, 100));
    let mut member = with_log(1, &own);
    member.seal(2);
    let end = point(&source, 3);
    let (request, out) = reconcile(&mut member, end, Some(SOURCE));
    assert_eq!(out, [Output::ReadPoint { index: LogIndex(3) }]);
    let out = member.step(Input::PointRead { index: LogIndex(3), point: Some(end) });
    assert_eq!(out, [Output::Truncate { end }]);
    let out = member.step(Input::Seal { request, epoch: Epoch(3), members: Vec::new() });
    assert_eq!(codes(&out), [ErrorCode::Stale]);
    assert_eq!(member.step(Input::PromiseDurable { epoch: Epoch(3) }), [], "the log is being cut");
    let out = member.step(Input::Truncated { state: Box::new(fold(&source)) });
    let [Output::ReportSeal { report, .. }] = &out[..] else { panic!("expected a report, got {out:?}") };
    assert_eq!((report.end, report.marker), (end, Epoch(1)));

    let request = member.request();
    let out = member.step(Input::Reconcile { request, epoch: Epoch(3), end, source: None });
    assert_eq!(out, [Output::PersistMarker { epoch: Epoch(3) }]);
    member.step(Input::Seal { request, epoch: Epoch(4), members: Vec::new() });
    assert_eq!(member.step(Input::PromiseDurable { epoch: Epoch(4) }), [], "a marker is being written");
    let out = member.step(Input::MarkerDurable { epoch: Epoch(3) });
    let [Output::ReportSeal { report, .. }] = &out[..] else { panic!("expected a report, got {out:?}") };
    assert_eq!((report.end, report.marker, report.error), (end, Epoch(3), None));
}

#[test]
fn a_failed_write_ends_whatever_goes_on() {
    let mut member = with_log(1, &log(1, 100));
    member.seal(2);
    let (_, out) = reconcile(&mut member, LogPoint { index: LogIndex(5), hash: RunningHash(5) }, Some(SOURCE));
    let [Output::RequestCopy { copy, .. }] = out[..] else { panic!("expected a request, got {out:?}") };
    let out = member.step(Input::WriteFailed);
    assert_eq!(codes(&out), [ErrorCode::RangeFailed]);
    assert_eq!(member.step(Input::CopyEnded { copy, limit: LogIndex(5) }), []);
    assert_eq!(member.replica.copy_limit(E2, CopyPurpose::Reconcile), Err(ErrorCode::RangeFailed));
    let request = member.request();
    member.step(Input::Seal { request, epoch: Epoch(3), members: Vec::new() });
    let out = member.step(Input::WriteFailed);
    assert!(matches!(&out[..], [Output::ReportSeal { report, .. }] if report.error == Some(ErrorCode::RangeFailed)));
}

/// A restarted member knows nothing to be committed, so it cannot say where a partition's committed end is.
#[test]
fn a_restarted_member_serves_nothing_before_it_acts() {
    let mut member = with_log(1, &log(3, 100));
    assert_eq!(member.replica.check_read(Epoch(1)), Err(ErrorCode::NotOwner));
    member.seal(2);
    assert_eq!(member.replica.check_read(E2), Err(ErrorCode::Stale));
    member.reconcile_to_own_end(2);
    let chain = [member.me()];
    member.activate(2, &chain);
    assert_eq!(member.replica.check_read(E2), Ok(()));
    assert_eq!(member.replica.offsets(PARTITION), Some((Offset(0), Offset(20))));
}
