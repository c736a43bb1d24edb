//! Neighbours: streams, acknowledgements, what is committed, signs of life (R1, R3, R4, R8).

use super::*;
use crate::limits::{
    COMPLAINT_REPEAT_TICKS, HEARTBEAT_TICKS, LINK_LOST_TICKS, PEER_RETRY_TICKS, SILENCE_TICKS_MAX, STALL_TICKS_MAX,
    SUSPICION_TICKS,
};

const E1: Epoch = Epoch(1);

pub(super) fn opening() -> ControlEntry {
    ControlEntry::PartitionOpen {
        partition: PARTITION,
        config: TopicConfig::default(),
        version: ConfigVersion::FIRST,
        start_offset: Offset(0),
        previous: None,
    }
}

/// Members in epoch 1 behind each other, with no stream open yet; the first outputs are those of each activation.
fn activated<const N: usize>() -> ([Member; N], [Vec<Output>; N]) {
    let mut members: [Member; N] = std::array::from_fn(|at| Member::new(at as u32 + 1));
    let chain: Vec<_> = members.iter().map(Member::me).collect();
    let outputs = std::array::from_fn(|at| {
        let member = &mut members[at];
        member.seal(1);
        member.reconcile_to_own_end(1);
        member.activate(1, &chain)
    });
    (members, outputs)
}

fn opened(out: &[Output]) -> StreamId {
    let stream = out.iter().find_map(|output| match output {
        Output::OpenStream { stream, .. } => Some(*stream),
        _ => None,
    });
    stream.unwrap_or_else(|| panic!("expected a stream to be opened, got {out:?}"))
}

fn request_stream(tail: &mut Member, head: ChainMember, stream: StreamId) -> Vec<Output> {
    let to = tail.me();
    tail.step(Input::StreamRequested { epoch: E1, stream, from: head, to })
}

/// Head and tail of a chain of two, a stream open, the partition opened and committed at index 1.
pub(super) fn pair() -> (Member, Member, StreamId) {
    let ([mut head, mut tail], [out, _]) = activated();
    let stream = opened(&out);
    let accepted = request_stream(&mut tail, head.me(), stream);
    let to = head.me();
    assert_eq!(accepted[0], Output::AcceptStream { epoch: E1, stream, to, end: LogPoint::START });
    let out = head.step(Input::StreamOpened { epoch: E1, stream, end: LogPoint::START });
    assert_eq!(out, [Output::StreamFrom { epoch: E1, stream, to: tail.me(), after: LogIndex(0) }]);
    let header = header_of(&head.open_partition(1));
    replicate(&mut tail, stream, header, Some(opening()), 0);
    tail.durable(1);
    head.durable(1);
    acknowledge(&mut head, stream, 1);
    tail.step(Input::CommittedAdvanced { epoch: E1, stream, index: LogIndex(1) });
    (head, tail, stream)
}

pub(super) fn replicate(
    tail: &mut Member,
    stream: StreamId,
    header: EntryHeader,
    control: Option<ControlEntry>,
    committed: u64,
) -> Vec<Output> {
    let request = tail.request();
    tail.step(Input::Replicate { request, epoch: E1, stream, header, control, committed: LogIndex(committed) })
}

fn acknowledge(head: &mut Member, stream: StreamId, index: u64) -> Vec<Output> {
    head.step(Input::SuccessorAcknowledged { epoch: E1, stream, index: LogIndex(index) })
}

fn ticks(member: &mut Member, ticks: u32) -> Vec<Output> {
    (0..ticks).flat_map(|_| member.step(Input::Tick)).collect()
}

fn complaints(out: &[Output]) -> Vec<(u32, ComplaintReason)> {
    let complaint = |output: &Output| match output {
        Output::Complain(complaint) => Some((complaint.about.0, complaint.reason)),
        _ => None,
    };
    out.iter().filter_map(complaint).collect()
}

#[test]
fn two_members_commit_what_both_hold() {
    let (mut head, mut tail, stream) = pair();
    let (_, out) = head.produce(1, 0);
    assert!(matches!(out[..], [Output::Append { forward: true, .. }]), "written and forwarded at the same time");
    let out = replicate(&mut tail, stream, header_of(&out), None, 1);
    assert!(matches!(out[0], Output::Append { forward: false, .. }));
    assert_eq!(out.len(), 1, "nothing is acknowledged before it is durable");
    assert_eq!(tail.replica.readable_index(), LogIndex(1));

    assert_eq!(head.durable(2), [], "durable at the head alone is not committed");
    let out = tail.durable(2);
    assert_eq!(out, [Output::AcknowledgeUpstream { epoch: E1, stream, to: head.me(), index: LogIndex(2) }]);
    let out = acknowledge(&mut head, stream, 2);
    assert_eq!(out[0], Output::Committed { index: LogIndex(2) });
    assert!(matches!(out[1], Output::Answer { answer: Answer::Done { .. }, .. }));
    let told = Output::TellCommitted { epoch: E1, stream, to: tail.me(), index: LogIndex(2) };
    assert_eq!(out[2..], [told], "nothing is under way that would carry it");
    assert_eq!(head.step(Input::Tick), [], "told once");
    let out = tail.step(Input::CommittedAdvanced { epoch: E1, stream, index: LogIndex(2) });
    assert_eq!(out, [Output::Committed { index: LogIndex(2) }]);
    assert_eq!(tail.replica.state(), head.replica.state());
    assert_eq!(tail.replica.state().snapshot(), head.replica.state().snapshot());
}

#[test]
fn an_acknowledgement_counts_in_its_epoch_on_its_stream_and_up_to_the_own_end() {
    let (mut head, mut tail, stream) = pair();
    head.produce(1, 0);
    head.durable(2);
    let acknowledged = |epoch, stream, index| Input::SuccessorAcknowledged { epoch, stream, index: LogIndex(index) };
    assert_eq!(head.step(acknowledged(Epoch(0), stream, 2)), [], "another epoch");
    assert_eq!(head.step(acknowledged(E1, StreamId(stream.0 + 1), 2)), [], "another stream");
    assert_eq!(head.step(acknowledged(E1, stream, 3)), [], "more than there is");
    assert_eq!(head.replica.committed(), LogIndex(1));

    let chain = [head.me(), tail.me()];
    for member in [&mut head, &mut tail] {
        member.seal(2);
    }
    head.reconcile_to_own_end(2);
    let stream = opened(&head.activate(2, &chain));
    head.produce(2, 10);
    head.durable(3);
    assert_eq!(head.step(acknowledged(E1, stream, 3)), []);
    assert_eq!(head.replica.committed(), LogIndex(2), "the start only");
}

/// Its successor held more than the source of the next epoch, whose log is shorter.
pub(super) fn acknowledgements_restart_at_the_start() {
    let ([mut head, mut middle, tail], [at_head, at_middle, _]) = activated();
    let stream = opened(&at_head);
    request_stream(&mut middle, head.me(), stream);
    let lower = opened(&at_middle);
    middle.step(Input::StreamOpened { epoch: E1, stream: lower, end: LogPoint::START });
    let header = header_of(&head.open_partition(1));
    replicate(&mut middle, stream, header, Some(opening()), 0);
    let short = middle.recovered().state;
    for sequence in [0, 10] {
        let header = header_of(&head.produce(1, sequence).1);
        replicate(&mut middle, stream, header, None, 0);
    }
    middle.step(Input::SuccessorAcknowledged { epoch: E1, stream: lower, index: LogIndex(3) });
    middle.durable(3);
    middle.seal(2);
    let (request, end) = (middle.request(), short.end());
    let out = middle.step(Input::Reconcile { request, epoch: Epoch(2), end, source: Some(head.me()) });
    assert_eq!(out, [Output::Truncate { end }]);
    middle.step(Input::Truncated { state: Box::new(short) });
    middle.step(Input::MarkerDurable { epoch: Epoch(2) });
    let chain = [middle.me(), tail.me()];
    middle.activate(2, &chain);
    middle.produce(2, 0);
    assert_eq!(middle.durable(2), [], "nobody acknowledged it in this epoch");
}

#[test]
fn what_a_successor_held_in_an_older_epoch_does_not_count() {
    acknowledgements_restart_at_the_start();
}

#[test]
fn a_successor_takes_only_what_follows() {
    let (mut head, mut tail, stream) = pair();
    let first = header_of(&head.produce(1, 0).1);
    let second = header_of(&head.produce(1, 10).1);
    let over = |stream, to| Output::RefuseStream { epoch: E1, stream, to, code: ErrorCode::OutOfOrder };
    assert_eq!(replicate(&mut tail, stream, second, None, 1), [over(stream, head.me())], "a gap");
    assert_eq!(replicate(&mut tail, stream, first, None, 1), [], "the stream is over");
    let stream = StreamId(stream.0 + 1);
    request_stream(&mut tail, head.me(), stream);
    assert!(matches!(replicate(&mut tail, stream, first, None, 1)[..], [Output::Append { .. }]));
    assert_eq!(replicate(&mut tail, stream, first, None, 1), [], "the same again");
    let mut other = first;
    other.append_timestamp = Timestamp(5);
    other.running_hash = RunningHash(5);
    assert_eq!(replicate(&mut tail, stream, other, None, 1), [over(stream, head.me())], "another entry there");
    tail.durable(2);
    tail.seal(2);
    assert_eq!(replicate(&mut tail, stream, second, None, 1), [], "sealed");
    assert_eq!(codes(&tail.produce(1, 0).1), [ErrorCode::Stale]);
}

#[test]
fn a_stream_is_taken_from_exactly_the_predecessor_and_the_newest_wins() {
    let (mut head, mut tail, stream) = pair();
    let (from, to) = (head.me(), tail.me());
    let mut asked = |epoch, stream, from, to| {
        let out = tail.step(Input::StreamRequested { epoch: Epoch(epoch), stream: StreamId(stream), from, to });
        match out.first() {
            Some(Output::RefuseStream { code, .. }) => Err(*code),
            Some(Output::AcceptStream { .. }) => Ok(true),
            _ => Ok(false),
        }
    };
    let stranger = ChainMember { incarnation: Incarnation(9), ..from };
    assert_eq!(asked(1, 7, stranger, to), Err(ErrorCode::NotOwner));
    assert_eq!(asked(1, 7, from, ChainMember { incarnation: Incarnation(9), ..to }), Err(ErrorCode::NotOwner));
    assert_eq!(asked(0, 7, from, to), Err(ErrorCode::Stale));
    assert_eq!(asked(2, 7, from, to), Err(ErrorCode::Stale));
    assert_eq!(asked(1, 8, from, to), Ok(true));
    assert_eq!(asked(1, 7, from, to), Ok(false), "an older one that comes late");
    let header = header_of(&head.produce(1, 0).1);
    assert_eq!(replicate(&mut tail, stream, header, None, 1), [], "the old stream is over");
    assert!(matches!(replicate(&mut tail, StreamId(8), header, None, 1)[..], [Output::Append { .. }]));
}

#[test]
fn a_request_that_comes_just_before_the_activation_is_answered_with_it() {
    let (mut head, mut tail) = (Member::new(1), Member::new(2));
    let chain = [head.me(), tail.me()];
    for member in [&mut head, &mut tail] {
        member.seal(1);
        member.reconcile_to_own_end(1);
    }
    let stream = opened(&head.activate(1, &chain));
    assert_eq!(request_stream(&mut tail, head.me(), stream), []);
    let out = tail.activate(1, &chain);
    assert!(out.contains(&Output::AcceptStream { epoch: E1, stream, to: head.me(), end: LogPoint::START }));
}

#[test]
fn a_broken_stream_begins_again_behind_the_end_of_the_successor() {
    let (mut head, mut tail, stream) = pair();
    let first = header_of(&head.produce(1, 0).1);
    head.produce(1, 10);
    replicate(&mut tail, stream, first, None, 1);
    tail.durable(2);
    head.durable(3);
    let (at_head, at_tail) = (head.me(), tail.me());
    let out = head.step(Input::PeerLost { member: at_tail });
    assert_eq!(out[0], Output::StopStream);
    assert_eq!(complaints(&out), [(2, ComplaintReason::LinkLost)]);
    assert_eq!(complaints(&head.step(Input::PeerLost { member: at_tail })), [], "once");
    tail.step(Input::PeerLost { member: at_head });
    let again = opened(&ticks(&mut head, PEER_RETRY_TICKS));
    assert!(again > stream);
    let out = request_stream(&mut tail, at_head, again);
    let end = tail.replica.state().end();
    let accepted = Output::AcceptStream { epoch: E1, stream: again, to: at_head, end };
    let held = Output::AcknowledgeUpstream { epoch: E1, stream: again, to: at_head, index: LogIndex(2) };
    assert_eq!(out, [accepted, held], "what was acknowledged on the old stream may be lost");
    let out = head.step(Input::StreamOpened { epoch: E1, stream: again, end });
    assert_eq!(out, [Output::StreamFrom { epoch: E1, stream: again, to: at_tail, after: LogIndex(2) }]);
    assert_eq!(acknowledge(&mut head, again, 2)[0], Output::Committed { index: LogIndex(2) });
    assert_eq!(complaints(&head.step(Input::PeerLost { member: at_tail })), [(2, ComplaintReason::LinkLost)], "anew");
}

#[test]
fn a_successor_whose_log_differs_is_not_sent_anything() {
    let (mut head, tail, _) = pair();
    head.produce(1, 0);
    head.step(Input::PeerLost { member: tail.me() });
    for end in
        [LogPoint { index: LogIndex(2), hash: RunningHash(1) }, LogPoint { index: LogIndex(9), hash: RunningHash(0) }]
    {
        let stream = opened(&ticks(&mut head, PEER_RETRY_TICKS));
        assert_eq!(head.step(Input::StreamOpened { epoch: E1, stream, end }), []);
    }
    let stream = opened(&ticks(&mut head, PEER_RETRY_TICKS));
    let code = ErrorCode::Stale;
    assert_eq!(head.step(Input::StreamRefused { epoch: E1, stream, code }), []);
    opened(&ticks(&mut head, PEER_RETRY_TICKS));
}

#[test]
fn an_idle_stream_gives_signs_of_life_and_they_are_answered() {
    let (mut head, mut tail, stream) = pair();
    ticks(&mut head, 1);
    let told = Output::TellCommitted { epoch: E1, stream, to: tail.me(), index: LogIndex(1) };
    assert_eq!(ticks(&mut head, HEARTBEAT_TICKS), [told]);
    let out = tail.step(Input::CommittedAdvanced { epoch: E1, stream, index: LogIndex(1) });
    assert_eq!(out, [Output::AcknowledgeUpstream { epoch: E1, stream, to: head.me(), index: LogIndex(1) }]);
}

#[test]
fn who_hears_nothing_serves_nothing_and_complains_once() {
    let (mut head, mut tail, stream) = pair();
    assert_eq!(complaints(&ticks(&mut tail, SUSPICION_TICKS - 1)), []);
    assert_eq!(complaints(&ticks(&mut tail, 1)), [(1, ComplaintReason::Silent)]);
    let out = ticks(&mut tail, SILENCE_TICKS_MAX - SUSPICION_TICKS - 1);
    assert_eq!((complaints(&out), tail.replica.check_read(E1)), (vec![], Ok(())), "suspicion costs no reads");
    ticks(&mut tail, 1);
    assert_eq!(tail.replica.check_read(E1), Err(ErrorCode::Stale));
    tail.step(Input::CommittedAdvanced { epoch: E1, stream, index: LogIndex(1) });
    assert_eq!(tail.replica.check_read(E1), Ok(()));

    let out = ticks(&mut head, SILENCE_TICKS_MAX);
    assert_eq!(complaints(&out), [(2, ComplaintReason::Stalled)], "signs of life are not answered");
    assert_eq!(head.replica.check_read(E1), Err(ErrorCode::Stale));

    let mut alone = alone();
    ticks(&mut alone, 2 * SILENCE_TICKS_MAX);
    assert_eq!(alone.replica.check_read(E1), Ok(()), "a chain of one has nobody to hear");
    alone.seal(2);
    ticks(&mut alone, SILENCE_TICKS_MAX);
    assert_eq!(alone.replica.check_read(Epoch(2)), Err(ErrorCode::Stale), "sealed, and the controller is gone");
    alone.seal(2);
    assert_eq!(alone.replica.check_read(Epoch(2)), Ok(()));
}

#[test]
fn a_predecessor_whose_connection_worked_and_broke_is_complained_about_at_once() {
    let (head, mut tail, stream) = pair();
    tail.step(Input::CommittedAdvanced { epoch: E1, stream, index: LogIndex(1) });
    let lost = tail.step(Input::PeerLost { member: head.me() });
    assert_eq!(complaints(&lost), [(1, ComplaintReason::LinkLost)]);
    assert_eq!(complaints(&tail.step(Input::PeerLost { member: head.me() })), [], "once");
    assert_eq!(complaints(&ticks(&mut tail, COMPLAINT_REPEAT_TICKS - 1)), [], "not at every tick");
    assert_eq!(complaints(&ticks(&mut tail, 1)), [(1, ComplaintReason::LinkLost)], "the first may have been lost");
}

#[test]
fn a_predecessor_that_cannot_be_reached_and_does_not_come_back_is_complained_about() {
    let (head, mut tail, stream) = pair();
    // Accepted, but nothing came on it yet: the way back may not be known.
    request_stream(&mut tail, head.me(), StreamId(stream.0 + 1));
    assert_eq!(complaints(&tail.step(Input::PeerLost { member: head.me() })), []);
    assert_eq!(complaints(&ticks(&mut tail, LINK_LOST_TICKS - 1)), []);
    let mut back = tail.replica.clone();
    assert_eq!(complaints(&ticks(&mut tail, LINK_LOST_TICKS)), [(1, ComplaintReason::LinkLost)]);
    assert_eq!(complaints(&ticks(&mut tail, COMPLAINT_REPEAT_TICKS - LINK_LOST_TICKS)), [], "not at every tick");
    let again = complaints(&ticks(&mut tail, LINK_LOST_TICKS));
    assert_eq!(again, [(1, ComplaintReason::LinkLost)], "the first may have been lost");
    std::mem::swap(&mut back, &mut tail.replica);
    request_stream(&mut tail, head.me(), StreamId(stream.0 + 2));
    assert_eq!(complaints(&ticks(&mut tail, LINK_LOST_TICKS)), []);
}

#[test]
fn who_is_next_to_the_culprit_complains_first() {
    let ([mut head, mut middle, tail], [at_head, at_middle, _]) = activated();
    let stream = opened(&at_head);
    request_stream(&mut middle, head.me(), stream);
    head.step(Input::StreamOpened { epoch: E1, stream, end: LogPoint::START });
    let lower = opened(&at_middle);
    middle.step(Input::StreamOpened { epoch: E1, stream: lower, end: LogPoint::START });
    let header = header_of(&head.open_partition(1));
    let out = replicate(&mut middle, stream, header, Some(opening()), 0);
    assert!(matches!(out[..], [Output::Append { forward: true, .. }]));
    head.durable(1);
    assert_eq!(middle.durable(1), [], "the tail did not acknowledge");
    for _ in 0..STALL_TICKS_MAX {
        assert_eq!(complaints(&ticks(&mut head, 1)), []);
        acknowledge(&mut head, stream, 0);
        middle.step(Input::CommittedAdvanced { epoch: E1, stream, index: LogIndex(0) });
        let out = ticks(&mut middle, 1);
        assert!(complaints(&out).iter().all(|(about, _)| *about == 3), "{out:?}");
    }
    assert_eq!(complaints(&ticks(&mut head, HEARTBEAT_TICKS)), [(2, ComplaintReason::Stalled)]);
    let epoch = E1;
    let out = middle.step(Input::SuccessorAcknowledged { epoch, stream: lower, index: LogIndex(1) });
    assert_eq!(out, [Output::AcknowledgeUpstream { epoch, stream, to: head.me(), index: LogIndex(1) }]);
    let out = middle.step(Input::CommittedAdvanced { epoch, stream, index: LogIndex(1) });
    let told = Output::TellCommitted { epoch, stream: lower, to: tail.me(), index: LogIndex(1) };
    assert_eq!(out, [Output::Committed { index: LogIndex(1) }, told], "it travels on");
}

#[test]
fn a_higher_promise_behind_ends_the_waiting_of_everybody_before() {
    let ([mut head, mut middle, tail], [at_head, at_middle, _]) = activated();
    let (stream, lower) = (opened(&at_head), opened(&at_middle));
    request_stream(&mut middle, head.me(), stream);
    head.step(Input::StreamOpened { epoch: E1, stream, end: LogPoint::START });
    middle.step(Input::StreamOpened { epoch: E1, stream: lower, end: LogPoint::START });
    head.open_partition(1);
    let waiting = RequestId(head.requests);
    let (refused, code) = (Epoch(7), ErrorCode::Stale);
    let out = middle.step(Input::StreamRefused { epoch: refused, stream: lower, code });
    assert_eq!(out, [Output::StopStream, Output::RefuseStream { epoch: refused, stream, to: head.me(), code }]);
    let out = head.step(Input::StreamRefused { epoch: refused, stream, code });
    let answer = Answer::Refused { code, epoch: E1 };
    assert_eq!(out, [Output::StopStream, Output::Answer { request: waiting, answer }]);
    let (request, out) = head.produce(1, 0);
    assert_eq!(out, [Output::Answer { request, answer }], "nothing is taken that cannot be committed");
    for member in [&mut head, &mut middle] {
        let out = ticks(member, 4 * PEER_RETRY_TICKS);
        assert!(!out.iter().any(|output| matches!(output, Output::OpenStream { .. })), "no stream would be taken");
    }
    let again = StreamId(stream.0 + 1);
    let out = request_stream(&mut middle, head.me(), again);
    assert_eq!(
        out,
        [Output::RefuseStream { epoch: refused, stream: again, to: head.me(), code }],
        "a lost word is said again"
    );
    head.durable(1);
    assert_eq!(head.seal(7).error, None, "it can be taken in again");
    assert_eq!(tail.replica.promised, E1);
}

/// A member behind the head holds two moves of a log start, and the next epoch begins between them.
#[test]
fn a_truncation_takes_a_log_start_back_and_the_one_before_it_is_certain_then() {
    let (mut head, mut tail, stream) = pair();
    let certain = |member: &Member| member.replica.committed_log_start(PARTITION);
    let batch = header_of(&head.produce(1, 0).1);
    replicate(&mut tail, stream, batch, None, 1);
    let mut states = Vec::new();
    for log_start in [5, 8] {
        let entry = ControlEntry::LogStart { partition: PARTITION, log_start: Offset(log_start) };
        let header = header_of(&head.control(entry.clone()));
        replicate(&mut tail, stream, header, Some(entry), 1);
        states.push(tail.recovered().state);
    }
    tail.durable(4);
    assert_eq!(certain(&tail), Some(Offset(0)), "durable here is not committed");
    tail.seal(2);
    let (state, request) = (states.remove(0), tail.request());
    let end = state.end();
    let out = tail.step(Input::Reconcile { request, epoch: Epoch(2), end, source: Some(head.me()) });
    assert_eq!(out, [Output::Truncate { end }]);
    tail.step(Input::Truncated { state: Box::new(state) });
    tail.step(Input::MarkerDurable { epoch: Epoch(2) });
    assert_eq!(certain(&tail), Some(Offset(0)));
    let chain = [tail.me()];
    tail.activate(2, &chain);
    assert_eq!(certain(&tail), Some(Offset(5)));
    assert_eq!(tail.replica.log_starts_settled(), LogIndex(3));
}
