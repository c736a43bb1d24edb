//! Whole segments, and starting over (R7).
//!
//! Proof that they can fail: without the look at `learned` in `start_over`, the survivor's test drops its log.

use super::change::{log, point, with_log};
use super::*;
use crate::range_state::RangeState;

fn member(node: u32) -> ChainMember {
    Member::new(node).me()
}

/// Tells a member to learn; what it asks for.
fn asked(learner: &mut Member, epoch: u64) -> CopyId {
    let (request, chain) = (learner.request(), vec![member(5), member(6)]);
    let out = learner.step(Input::Learn { request, epoch: Epoch(epoch), chain, source: member(5) });
    match out[..] {
        [Output::ReportLearn { .. }, Output::RequestCopy { copy, .. }] => copy,
        _ => panic!("expected a report and a request, got {out:?}"),
    }
}

fn state_of(entries: &[(EntryHeader, Option<ControlEntry>)]) -> RangeState {
    let mut state = RangeState::default();
    entries.iter().for_each(|(header, control)| state.apply(header, control.as_ref()));
    state
}

#[test]
fn a_learner_whose_end_is_gone_drops_its_log_and_asks_from_nothing() {
    let mut learner = with_log(1, &log(3, 100));
    assert_eq!(learner.replica.marker(), Epoch(1));
    let copy = asked(&mut learner, 3);
    let limit = LogIndex(9);
    assert_eq!(learner.step(Input::CopyGone { copy, limit }), [Output::StartOver]);
    // What the disk does is waited for.
    let request = learner.request();
    learner.step(Input::Seal { request, epoch: Epoch(4), members: Vec::new() });
    assert_eq!(learner.step(Input::PromiseDurable { epoch: Epoch(4) }), [], "the log is being dropped");
    let out = learner.step(Input::Truncated { state: Box::default() });
    let [Output::ReportSeal { report, .. }] = &out[..] else { panic!("expected a report, got {out:?}") };
    assert_eq!((report.end, report.marker), (LogPoint::START, Epoch(0)), "the marker went with the log");
    // It is one that has nothing now, and can be told again.
    let mut learner = with_log(1, &log(3, 100));
    let copy = asked(&mut learner, 3);
    learner.step(Input::CopyGone { copy, limit });
    let out = learner.step(Input::Truncated { state: Box::default() });
    assert!(matches!(out[..], [Output::RequestCopy { after: LogPoint::START, .. }]), "{out:?}");
}

#[test]
fn who_may_be_a_survivor_never_drops_its_log() {
    let mut survivor = with_log(1, &log(3, 100));
    survivor.seal(4);
    let (request, end) = (survivor.request(), point(&log(9, 100), 9));
    let out = survivor.step(Input::Reconcile { request, epoch: Epoch(4), end, source: Some(member(5)) });
    let [Output::RequestCopy { copy, .. }] = out[..] else { panic!("expected a request, got {out:?}") };
    assert_eq!(codes(&survivor.step(Input::CopyGone { copy, limit: LogIndex(9) })), [ErrorCode::RangeFailed]);
    assert_eq!(survivor.replica.state().end(), point(&log(3, 100), 3));
    assert_eq!(survivor.replica.marker(), Epoch(1));
}

#[test]
fn a_segment_is_in_the_log_at_once_and_waited_for_by_a_seal() {
    let source = log(9, 100);
    let mut learner = with_log(1, &[]);
    let copy = asked(&mut learner, 3);
    let (limit, end) = (LogIndex(12), point(&source, 9));
    let out = learner.step(Input::SegmentPart { copy, limit, at: LogIndex(4) });
    let [Output::RequestCopy { copy: second, after: LogPoint::START, .. }] = out[..] else {
        panic!("expected a request for the next part, got {out:?}")
    };
    assert_eq!(learner.step(Input::SegmentReady { copy, limit, end }), [], "not the answer that is waited for");
    assert!(learner.replica.awaits_copy(second) && !learner.replica.awaits_copy(copy));
    assert_eq!(learner.step(Input::SegmentReady { copy: second, limit, end }), [Output::InstallSegment]);
    assert_eq!(learner.replica.state().end(), LogPoint::START, "not before it is durable");
    let request = learner.request();
    learner.step(Input::Seal { request, epoch: Epoch(4), members: Vec::new() });
    assert_eq!(learner.step(Input::PromiseDurable { epoch: Epoch(4) }), []);
    let out = learner.step(Input::Truncated { state: Box::new(state_of(&source)) });
    let [Output::ReportSeal { report, .. }] = &out[..] else { panic!("expected a report, got {out:?}") };
    assert_eq!((report.end, report.marker, report.error), (end, Epoch(1), None), "its marker is its own");
}

#[test]
fn a_refused_segment_leaves_the_log_and_a_refused_cut_starts_over() {
    let mut learner = with_log(1, &log(3, 100));
    let copy = asked(&mut learner, 3);
    let (limit, end) = (LogIndex(12), point(&log(9, 100), 9));
    assert_eq!(learner.step(Input::SegmentReady { copy, limit, end }), [Output::InstallSegment]);
    assert_eq!(learner.step(Input::CutRefused), [], "it rests, and asks again");
    assert_eq!(learner.replica.state().end().index, LogIndex(3));
    let mut learner = with_log(1, &log(1, 100));
    let copy = asked(&mut learner, 3);
    assert_eq!(learner.step(Input::CopyDisagreed { copy, limit }), [Output::Truncate { end: LogPoint::START }]);
    assert_eq!(learner.step(Input::CutRefused), [Output::StartOver], "its sealed segments are not the source's");
}

/// Cause: a log that was cut to nothing has a file with an empty flush, which no segment goes behind, and one without entries
/// did not start over. Effect: it never learned from a source that had freed its beginning. Fix: it drops that file, too.
#[test]
fn a_log_cut_to_nothing_is_dropped_too_and_not_again_and_again_at_once() {
    let mut learner = with_log(1, &[]);
    let copy = asked(&mut learner, 3);
    assert_eq!(learner.step(Input::CopyGone { copy, limit: LogIndex(9) }), [Output::StartOver]);
    assert_eq!(learner.step(Input::Truncated { state: Box::default() }), [], "it rests first");
    let out: Vec<_> = (0..crate::limits::PEER_RETRY_TICKS).flat_map(|_| learner.step(Input::Tick)).collect();
    assert!(matches!(out[..], [Output::RequestCopy { after: LogPoint::START, .. }]), "{out:?}");
}
