//! A log that lost entries is mended from other members, and nothing else happens to it meanwhile.

use super::*;
use crate::limits::MEND_RETRY_TICKS;

fn other(node: u32) -> ChainMember {
    let (node, store) = (NodeId(node), StoreId(node.into()));
    ChainMember { node, shard: ShardId(0), store, incarnation: Incarnation(1) }
}

/// A member that restarted and found entries missing; and what its log adds up to when they are there.
fn damaged() -> (Member, RangeState) {
    let mut whole = alone();
    whole.produce(1, 0);
    whole.durable(2);
    let recovered = whole.recovered();
    let state = recovered.state.clone();
    (Member::restarted(1, 2, Recovered { damaged: true, ..recovered }), state)
}

fn seal(member: &mut Member, epoch: u64, members: &[ChainMember]) -> Vec<Output> {
    let (request, epoch) = (member.request(), Epoch(epoch));
    let mut out = member.step(Input::Seal { request, epoch, members: members.to_vec() });
    if out.contains(&Output::PersistPromise { epoch }) {
        out = member.step(Input::PromiseDurable { epoch });
    }
    out
}

fn asks(out: &[Output]) -> Option<Vec<ChainMember>> {
    out.iter().find_map(|output| match output {
        Output::Mend { members } => Some(members.clone()),
        _ => None,
    })
}

fn is_damaged(out: &[Output]) -> Option<bool> {
    out.iter().find_map(|output| match output {
        Output::ReportSeal { report, .. } => Some(report.damaged),
        _ => None,
    })
}

#[test]
fn a_sealed_member_is_mended_from_whom_was_sealed_with_it_and_says_so_when_asked_again() {
    let (mut member, state) = damaged();
    let me = member.me();
    let out = seal(&mut member, 2, &[me, other(2), other(3)]);
    assert_eq!((is_damaged(&out), asks(&out)), (Some(true), Some(vec![other(2), other(3)])));
    let out = seal(&mut member, 2, &[me, other(2), other(3)]);
    assert_eq!((is_damaged(&out), asks(&out)), (Some(true), None), "it is being done");
    let request = member.request();
    let end = member.replica.state().end();
    let out = member.step(Input::Reconcile { request, epoch: Epoch(2), end, source: Some(other(2)) });
    assert_eq!(codes(&out), [ErrorCode::CatchingUp], "nothing is marked while files change");
    member.step(Input::Mended { outcome: MendOutcome::Whole(Box::new(state)) });
    let out = seal(&mut member, 2, &[me, other(2)]);
    assert_eq!((is_damaged(&out), asks(&out)), (Some(false), None));
    member.reconcile_to_own_end(2);
    member.activate(2, &[me]);
    assert_eq!(codes(&member.produce(2, 10).1), [], "it takes writes again");
}

#[test]
fn whom_nobody_could_help_asks_again_and_alone_asks_nobody() {
    let (mut member, _) = damaged();
    let me = member.me();
    assert_eq!(asks(&seal(&mut member, 2, &[me])), None, "there is nobody else");
    assert!(asks(&seal(&mut member, 3, &[me, other(2)])).is_some());
    member.step(Input::Mended { outcome: MendOutcome::Later });
    let mut asked = None;
    for tick in 1..=MEND_RETRY_TICKS {
        let out = member.step(Input::Tick);
        asked = asks(&out);
        assert_eq!(asked.is_some(), tick == MEND_RETRY_TICKS, "tick {tick}");
    }
    assert_eq!(asked, Some(vec![other(2)]));
    member.step(Input::WriteFailed);
    member.step(Input::Mended { outcome: MendOutcome::Later });
    for _ in 0..2 * MEND_RETRY_TICKS {
        assert_eq!(asks(&member.step(Input::Tick)), None, "a failed disk mends nothing");
    }
}

#[test]
fn one_that_is_told_to_learn_is_mended_first_and_drops_its_log_only_when_nobody_has_what_it_lost() {
    let learn = |member: &mut Member| {
        let request = member.request();
        let (chain, source) = (vec![other(2), other(3)], other(3));
        member.step(Input::Learn { request, epoch: Epoch(5), chain, source })
    };
    let error = |out: &[Output]| {
        out.iter().find_map(|output| match output {
            Output::ReportLearn { report, .. } => report.error,
            _ => None,
        })
    };
    let (mut member, state) = damaged();
    let out = learn(&mut member);
    assert_eq!(asks(&out), Some(vec![other(2), other(3)]));
    assert_eq!(error(&out), Some(ErrorCode::CatchingUp));
    member.step(Input::Mended { outcome: MendOutcome::Later });
    let out = learn(&mut member);
    assert!(!out.contains(&Output::StartOver), "they may only be out of reach: {out:?}");
    for _ in 0..MEND_RETRY_TICKS {
        member.step(Input::Tick);
    }
    member.step(Input::Mended { outcome: MendOutcome::Whole(Box::new(state)) });
    let out = learn(&mut member);
    assert!(matches!(out[..], [Output::ReportLearn { .. }, Output::RequestCopy { .. }]), "it learns: {out:?}");

    let (mut member, _) = damaged();
    learn(&mut member);
    member.step(Input::Mended { outcome: MendOutcome::NobodyHas });
    let out = learn(&mut member);
    assert!(out.contains(&Output::StartOver), "an active chain has everything that counts: {out:?}");
    assert_eq!(member.replica.marker(), Epoch(0), "nobody counts on it");
    member.step(Input::Truncated { state: Box::default() });
    let out = learn(&mut member);
    assert!(matches!(out[..], [Output::ReportLearn { .. }, Output::RequestCopy { .. }]), "{out:?}");
}

/// What it has beyond the source's end, damaged or not, was never committed; and alone the source would be below the floor.
#[test]
fn one_that_is_told_to_reconcile_with_another_drops_its_log_once_nobody_has_what_it_lost() {
    let (mut member, _) = damaged();
    let me = member.me();
    seal(&mut member, 2, &[me, other(2)]);
    let reconcile = |member: &mut Member| {
        let (request, end) = (member.request(), LogPoint { index: LogIndex(1), hash: RunningHash(7) });
        member.step(Input::Reconcile { request, epoch: Epoch(2), end, source: Some(other(2)) })
    };
    assert_eq!(codes(&reconcile(&mut member)), [ErrorCode::CatchingUp], "it is being mended");
    member.step(Input::Mended { outcome: MendOutcome::Later });
    let out = reconcile(&mut member);
    assert_eq!(codes(&out), [ErrorCode::CatchingUp]);
    assert!(!out.contains(&Output::StartOver), "they may only be out of reach: {out:?}");
    for _ in 0..MEND_RETRY_TICKS {
        member.step(Input::Tick);
    }
    member.step(Input::Mended { outcome: MendOutcome::NobodyHas });
    assert_eq!(reconcile(&mut member), [Output::StartOver]);
    assert_eq!(member.replica.marker(), Epoch(0), "nobody counts on it");
    let out = member.step(Input::Truncated { state: Box::default() });
    assert!(matches!(out[..], [Output::RequestCopy { .. }]), "it copies everything: {out:?}");
}

#[test]
fn a_member_gives_what_it_has_to_whom_mends_whatever_it_does_itself() {
    let limit = |member: &Member| member.replica.copy_limit(Epoch(9), CopyPurpose::Mend);
    let mut member = alone();
    member.produce(1, 0);
    assert_eq!(limit(&member), Ok(LogIndex(1)), "what is durable here, in any epoch");
    member.durable(2);
    assert_eq!(limit(&member), Ok(LogIndex(2)));
    assert_eq!(limit(&damaged().0), Ok(LogIndex(2)), "also when it is damaged itself, and acts in no chain");
}
