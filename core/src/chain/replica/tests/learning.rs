//! Learners, and what a source lets others copy (R7).

use super::change::{log, point, serve, with_log};
use super::*;
use crate::limits::PEER_RETRY_TICKS;

fn member(node: u32) -> ChainMember {
    Member::new(node).me()
}

fn learn(learner: &mut Member, epoch: u64, source: u32) -> (LearnReport, Vec<Output>) {
    let (request, chain) = (learner.request(), vec![member(5), member(6)]);
    let mut out = learner.step(Input::Learn { request, epoch: Epoch(epoch), chain, source: member(source) });
    let place = out.iter().position(|output| matches!(output, Output::ReportLearn { .. }));
    match out.remove(place.unwrap_or_else(|| panic!("expected a report, got {out:?}"))) {
        Output::ReportLearn { report, .. } => (report, out),
        _ => unreachable!("it was just found"),
    }
}

#[test]
fn a_learner_copies_what_its_source_lets_it_and_says_how_far_it_is() {
    let source = log(7, 100);
    for own in [log(0, 100), log(3, 100), log(9, 5)] {
        let mut learner = with_log(1, &own);
        let (report, out) = learn(&mut learner, 3, 5);
        assert_eq!((report.error, report.limit), (None, None), "the source did not answer yet");
        assert_eq!(*learner.replica.standing(), Standing::Learning(Epoch(3)));
        assert_eq!(serve(&mut learner, &own, &source, out), []);
        let (report, out) = learn(&mut learner, 3, 5);
        assert_eq!((report.error, report.end, report.limit), (None, LogIndex(7), Some(LogIndex(7))));
        assert_eq!(out, [], "it rests");
        assert_eq!(learner.replica.state().end(), point(&source, 7));
        assert_eq!(learner.replica.check_read(learner.replica.epoch()), Err(ErrorCode::NotOwner));
        let out: Vec<_> = (0..PEER_RETRY_TICKS).flat_map(|_| learner.step(Input::Tick)).collect();
        assert!(matches!(out[..], [Output::RequestCopy { purpose: CopyPurpose::Learn, .. }]), "and asks again");
        // Sealed, it takes nothing from that source any more.
        let [Output::RequestCopy { copy, .. }] = out[..] else { unreachable!("just seen") };
        let report = learner.seal(4);
        assert_eq!((report.error, report.end, report.known_committed), (None, point(&source, 7), LogIndex(0)));
        let (header, control) = log(8, 100)[7].clone();
        let request = learner.request();
        assert_eq!(learner.step(Input::Copied { request, copy, header, control }), []);
    }
}

#[test]
fn who_may_be_a_survivor_or_is_promised_to_a_later_epoch_does_not_learn() {
    let refusal = |learner: &mut Member, epoch, source| learn(learner, epoch, source).0.error;
    let mut learner = with_log(1, &log(3, 100));
    assert_eq!(refusal(&mut learner, 1, 5), Some(ErrorCode::Stale), "its marker says that it may be a survivor");
    learner.seal(3);
    assert_eq!(refusal(&mut learner, 2, 5), Some(ErrorCode::Stale), "sealed above");
    assert_eq!(refusal(&mut learner, 3, 1), Some(ErrorCode::InvalidArgument), "no member of the chain");
    assert_eq!(refusal(&mut learner, 3, 5), None, "its own change became active without it");
    let request = learner.request();
    let late = Input::Reconcile { request, epoch: Epoch(3), end: LogPoint::START, source: None };
    assert_eq!(codes(&learner.step(late)), [ErrorCode::Stale], "and cannot come late");
    let mut acting = alone();
    acting.produce(1, 0);
    let (report, out) = learn(&mut acting, 2, 5);
    assert_eq!((report.error, codes(&out)), (None, vec![ErrorCode::Stale]), "it stops acting");
    assert_eq!(codes(&acting.produce(1, 10).1), [ErrorCode::NotOwner]);
    // After a restart, a promise of an earlier life does not count.
    let recovered = Recovered { promised: Epoch(9), ..with_log(1, &[]).recovered() };
    assert_eq!(refusal(&mut Member::restarted(1, 2, recovered), 2, 5), None);
}

#[test]
fn a_repeated_question_may_raise_the_epoch_or_change_the_source() {
    let mut learner = with_log(1, &[]);
    let (_, out) = learn(&mut learner, 3, 5);
    let [Output::RequestCopy { copy, epoch: Epoch(3), .. }] = out[..] else {
        panic!("expected a request, got {out:?}")
    };
    assert_eq!(learn(&mut learner, 4, 5).1, [], "the same source goes on");
    assert_eq!(learn(&mut learner, 3, 5).0.error, Some(ErrorCode::Stale));
    learner.step(Input::CopyFailed { copy, code: ErrorCode::DataDamaged });
    assert_eq!(learn(&mut learner, 4, 5).0.error, Some(ErrorCode::DataDamaged), "told once");
    assert_eq!(learn(&mut learner, 4, 5).0.error, None);
    let (_, out) = learn(&mut learner, 4, 6);
    let [Output::RequestCopy { epoch, source, .. }] = out[..] else { panic!("expected a request, got {out:?}") };
    assert_eq!((epoch, source), (Epoch(4), member(6)));
}

#[test]
fn a_source_lets_copy_what_its_standing_allows() {
    let limits = |member: &Member, epoch| {
        [CopyPurpose::Learn, CopyPurpose::Reconcile].map(|purpose| member.replica.copy_limit(Epoch(epoch), purpose))
    };
    let mut member = alone();
    member.produce(1, 0);
    assert_eq!(limits(&member, 1), [Ok(LogIndex(1)), Err(ErrorCode::Stale)], "active: what is committed");
    assert_eq!(limits(&member, 2)[0], Err(ErrorCode::Stale), "it is in no chain of that epoch");
    let request = member.request();
    member.step(Input::Seal { request, epoch: Epoch(2), members: Vec::new() });
    assert_eq!(limits(&member, 1), [Err(ErrorCode::CatchingUp); 2]);
    member.step(Input::PromiseDurable { epoch: Epoch(2) });
    member.durable(2);
    assert_eq!(limits(&member, 2), [Err(ErrorCode::Stale), Ok(LogIndex(2))]);
    assert_eq!(limits(&member, 1), [Ok(LogIndex(1)), Err(ErrorCode::Stale)]);
    member.reconcile_to_own_end(2);
    assert_eq!(limits(&member, 2), [Ok(LogIndex(1)), Ok(LogIndex(2))]);
    assert_eq!(limits(&with_log(1, &[]), 1), [Err(ErrorCode::NotOwner); 2]);
}

#[test]
fn replies_do_not_pile_up_before_a_slow_disk() {
    let mut learner = with_log(1, &[]);
    let (_, mut out) = learn(&mut learner, 3, 5);
    for (header, control) in log(3, 100) {
        let [Output::RequestCopy { copy, .. }] = out[..] else { panic!("expected a request, got {out:?}") };
        let (index, request) = (header.index.0, learner.request());
        learner.step(Input::Copied { request, copy, header, control });
        out = learner.step(Input::CopyEnded { copy, limit: LogIndex(9) });
        if index == 2 {
            assert_eq!(out, [], "the first reply is not durable, and there is a second one");
            out = learner.durable(1);
        }
    }
}

/// Cause: the source was cut under a later epoch, and the learner waited until its log was durable up to where its last
/// request had begun, which lies behind the cut. Effect: it never asked again. Fix: a cut forgets that wait.
#[test]
fn a_learner_follows_when_what_it_copied_is_not_what_the_chain_holds_any_more() {
    let (first, second) = (log(9, 100), log(9, 3));
    let mut learner = with_log(1, &[]);
    let (_, out) = learn(&mut learner, 3, 5);
    serve(&mut learner, &[], &first, out);
    let out = (0..PEER_RETRY_TICKS).flat_map(|_| learner.step(Input::Tick)).collect();
    serve(&mut learner, &first, &second, out);
    assert_eq!(learner.replica.state().end(), point(&second, 9));
}
