//! The two neighbours of an active member: the stream it opens to its successor, the one it takes from its predecessor,
//! and when it complains about either (R8). Time is counted in ticks.
//!
//! ```text
//!   closed ── PEER_RETRY_TICKS, or at activation: open stream ──► opening ── opened, hashes agree: stream from there ──► open
//!     ▲                                                              │ refused, lost, no answer                          │
//!     └──────────────────────────────────────────────────────────────┴─────────── refused, lost: stop stream ────────────┘
//! ```

use super::role::Standing;
use super::{Output, Replica};
use crate::chain::ChainMember;
use crate::chain::peer::{Complaint, ComplaintReason};
use crate::chain::planted::{PlantedBug, is_planted};
use crate::error_code::ErrorCode;
use crate::ids::*;
use crate::limits::{
    COMPLAINT_REPEAT_TICKS, HEARTBEAT_TICKS, LINK_LOST_TICKS, PEER_RETRY_TICKS, SILENCE_TICKS_MAX, STALL_TICKS_MAX,
    SUSPICION_TICKS,
};

/// A request for a stream, kept while this member is not told yet that it acts.
#[derive(Clone, Copy, Debug)]
pub(super) struct EarlyStream {
    pub stream: StreamId,
    pub from: ChainMember,
    pub to: ChainMember,
}

/// The predecessor, and the stream taken from it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Upstream {
    pub predecessor: ChainMember,
    /// None: none was taken yet, or it is over.
    pub stream: Option<StreamId>,
    /// The newest that was ever taken.
    newest: StreamId,
    /// Something came on it: both ways to the predecessor worked.
    is_proven: bool,
    acknowledged: LogIndex,
    /// Since the predecessor was last heard.
    pub quiet_ticks: u32,
    /// Since its connection broke, unless it opened a stream again.
    lost_ticks: Option<u32>,
    complained: Complained,
}

impl Upstream {
    pub fn new(predecessor: ChainMember, start: LogIndex) -> Self {
        Self {
            predecessor,
            stream: None,
            newest: StreamId(0),
            is_proven: false,
            acknowledged: start,
            quiet_ticks: 0,
            lost_ticks: None,
            complained: Complained::default(),
        }
    }

    /// Something came on the stream.
    pub fn heard(&mut self) {
        self.is_proven = true;
        self.quiet_ticks = 0;
        self.complained.forget();
    }

    /// Takes a stream, unless it is not newer than one that was taken.
    pub fn accept(&mut self, stream: StreamId) -> bool {
        if stream <= self.newest {
            return false;
        }
        (self.stream, self.newest, self.lost_ticks) = (Some(stream), stream, None);
        self.heard();
        self.is_proven = false;
        true
    }

    /// Its connection broke. One that worked breaks when the process behind it dies: that is said at once. One that never
    /// did may be on its way, because processes learn of each other one after the other.
    fn lost(&mut self) -> Option<ComplaintReason> {
        self.lost_ticks.get_or_insert(0);
        let worked = self.stream.take().is_some() && self.is_proven;
        self.complained.about(worked.then_some(ComplaintReason::LinkLost))
    }

    /// Acknowledges what is held, if that is more than before.
    pub fn acknowledge(&mut self, epoch: Epoch, held: LogIndex, out: &mut Vec<Output>) {
        if held > self.acknowledged {
            self.repeat_acknowledgement(epoch, held, out);
        }
    }

    /// Acknowledges what is held, once more if need be: after a lost connection, and as a sign of life.
    pub fn repeat_acknowledgement(&mut self, epoch: Epoch, held: LogIndex, out: &mut Vec<Output>) {
        if let Some(stream) = self.stream {
            self.acknowledged = held;
            out.push(Output::AcknowledgeUpstream { epoch, stream, to: self.predecessor, index: held });
        }
    }

    fn tick(&mut self) -> Option<ComplaintReason> {
        self.quiet_ticks = (self.quiet_ticks + 1).min(SILENCE_TICKS_MAX);
        self.lost_ticks = self.lost_ticks.map(|ticks| (ticks + 1).min(LINK_LOST_TICKS));
        let reason = match self.lost_ticks {
            Some(LINK_LOST_TICKS) => Some(ComplaintReason::LinkLost),
            _ => (self.quiet_ticks >= SUSPICION_TICKS).then_some(ComplaintReason::Silent),
        };
        self.complained.tick();
        self.complained.about(reason)
    }
}

/// What a neighbour was complained about, so that it is not said at every tick, and how long ago.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Complained(Option<(ComplaintReason, u32)>);

impl Complained {
    /// What there is to say: nothing if it was said a short while ago.
    fn about(&mut self, reason: Option<ComplaintReason>) -> Option<ComplaintReason> {
        let news = reason.filter(|_| self.0.is_none())?;
        self.0 = Some((news, 0));
        Some(news)
    }

    /// A complaint may be lost, and nothing else would end what it is about.
    fn tick(&mut self) {
        self.0 = self.0.map(|(reason, ticks)| (reason, ticks + 1)).filter(|(_, ticks)| *ticks < COMPLAINT_REPEAT_TICKS);
    }

    /// It works again.
    fn forget(&mut self) {
        self.0 = None;
    }

    fn forget_only(&mut self, reason: ComplaintReason) {
        self.0 = self.0.filter(|(said, _)| *said != reason);
    }
}

/// How far the stream to the successor is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Another attempt after so many ticks.
    Closed { ticks: u32 },
    /// Asked for, so many ticks ago.
    Opening { ticks: u32 },
    /// Taken.
    Open,
}

/// The successor, and the stream opened to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Downstream {
    pub successor: ChainMember,
    /// The newest opened.
    pub stream: StreamId,
    /// What the successor acknowledged in this epoch.
    pub acknowledged: LogIndex,
    phase: Phase,
    told_committed: LogIndex,
    /// Since a committed index was last told.
    idle_ticks: u32,
    /// Since something new was acknowledged, or everything was.
    stalled_ticks: u32,
    /// A member with others behind its successor waits longer, so that whoever is next to the culprit complains first.
    stalled_ticks_max: u32,
    /// Since the successor was last heard.
    pub quiet_ticks: u32,
    complained: Complained,
}

impl Downstream {
    pub fn new(successor: ChainMember, behind_successor: u32, start: LogIndex) -> Self {
        Self {
            successor,
            stream: StreamId(0),
            acknowledged: start,
            phase: Phase::Closed { ticks: 0 },
            told_committed: start,
            idle_ticks: 0,
            stalled_ticks: 0,
            stalled_ticks_max: STALL_TICKS_MAX + behind_successor * HEARTBEAT_TICKS,
            quiet_ticks: 0,
            complained: Complained::default(),
        }
    }

    /// An acknowledgement on the newest stream; `end` is that of the own log.
    pub fn heard_acknowledgement(&mut self, index: LogIndex, end: LogIndex) {
        self.quiet_ticks = 0;
        if index > self.acknowledged || index == end {
            self.stalled_ticks = 0;
            self.complained.forget();
        }
        self.acknowledged = self.acknowledged.max(index);
    }

    fn open(&mut self, epoch: Epoch, stream: StreamId, out: &mut Vec<Output>) {
        (self.stream, self.phase) = (stream, Phase::Opening { ticks: 0 });
        out.push(Output::OpenStream { epoch, stream, to: self.successor });
    }

    fn close(&mut self, out: &mut Vec<Output>) {
        if self.phase == Phase::Open {
            out.push(Output::StopStream);
        }
        self.phase = Phase::Closed { ticks: PEER_RETRY_TICKS };
    }

    fn tell_committed(&mut self, epoch: Epoch, index: LogIndex, out: &mut Vec<Output>) {
        (self.told_committed, self.idle_ticks) = (index, 0);
        out.push(Output::TellCommitted { epoch, stream: self.stream, to: self.successor, index });
    }

    /// Counts; whether a new stream is due, and what there is to complain about.
    fn tick(&mut self, end: LogIndex) -> (bool, Option<ComplaintReason>) {
        self.quiet_ticks = (self.quiet_ticks + 1).min(SILENCE_TICKS_MAX);
        self.stalled_ticks =
            if self.acknowledged < end { self.stalled_ticks + 1 } else { 0 }.min(self.stalled_ticks_max);
        let mut is_unanswered = false;
        let is_due = match &mut self.phase {
            Phase::Closed { ticks } => {
                *ticks = ticks.saturating_sub(1);
                *ticks == 0
            }
            Phase::Opening { ticks } => {
                *ticks += 1;
                is_unanswered = *ticks >= STALL_TICKS_MAX;
                is_unanswered
            }
            Phase::Open => {
                self.idle_ticks += 1;
                false
            }
        };
        let is_stalled =
            is_unanswered || self.stalled_ticks == self.stalled_ticks_max || self.quiet_ticks >= SUSPICION_TICKS;
        self.complained.tick();
        (is_due, self.complained.about(is_stalled.then_some(ComplaintReason::Stalled)))
    }
}

impl Replica {
    /// Opens a stream to the successor, if there is one.
    pub(super) fn open_stream(&mut self, out: &mut Vec<Output>) {
        let stream = StreamId(self.last_stream.0 + 1);
        if let Standing::Active(active) = &mut self.standing
            && active.overtaken_by.is_none()
            && let (epoch, Some(downstream)) = (active.epoch(), &mut active.downstream)
        {
            downstream.open(epoch, stream, out);
            self.last_stream = stream;
        }
    }

    /// Nothing more is sent to the successor: this member stops acting.
    pub(super) fn stop_acting(&mut self, out: &mut Vec<Output>) {
        if let Standing::Active(active) = &self.standing
            && let Some(downstream) = &active.downstream
        {
            if is_planted(PlantedBug::AcknowledgementsKeptAcrossEpochs) {
                self.kept_acknowledgement = downstream.acknowledged;
            }
            if downstream.phase == Phase::Open {
                out.push(Output::StopStream);
            }
        }
    }

    /// The successor takes the stream. What it has must be what this member has, up to its end.
    pub(super) fn stream_opened(&mut self, epoch: Epoch, stream: StreamId, end: LogPoint, out: &mut Vec<Output>) {
        let agrees = self.own_point(end.index) == Some(end);
        let Some(downstream) = self.downstream_of(epoch, stream) else { return };
        if !matches!(downstream.phase, Phase::Opening { .. }) {
            return;
        }
        downstream.quiet_ticks = 0;
        if !agrees {
            return downstream.close(out);
        }
        // What was told on the stream before may be lost: the next tick tells it again.
        (downstream.phase, downstream.told_committed) = (Phase::Open, LogIndex(0));
        downstream.complained.forget_only(ComplaintReason::LinkLost);
        let to = downstream.successor;
        out.push(Output::StreamFrom { epoch, stream, to, after: end.index });
    }

    /// The successor does not take the stream, or not any more. `epoch` is the highest that anybody behind promised.
    pub(super) fn stream_refused(&mut self, epoch: Epoch, stream: StreamId, out: &mut Vec<Output>) {
        let Standing::Active(active) = &mut self.standing else { return };
        let own = active.epoch();
        let Some(downstream) = active.downstream.as_mut().filter(|downstream| downstream.stream == stream) else {
            return;
        };
        if epoch == own {
            downstream.quiet_ticks = 0;
        }
        downstream.close(out);
        if epoch > own {
            self.overtaken(epoch, out);
        }
    }

    /// R3: nothing is committed in this epoch any more, so nobody shall wait for it; those before are told, too.
    fn overtaken(&mut self, epoch: Epoch, out: &mut Vec<Output>) {
        self.refuse_waiting(ErrorCode::Stale, out);
        let Standing::Active(active) = &mut self.standing else { return };
        active.overtaken_by = active.overtaken_by.max(Some(epoch));
        if let Some(upstream) = &mut active.upstream
            && let Some(stream) = upstream.stream.take()
        {
            out.push(Output::RefuseStream { epoch, stream, to: upstream.predecessor, code: ErrorCode::Stale });
        }
    }

    fn downstream_of(&mut self, epoch: Epoch, stream: StreamId) -> Option<&mut Downstream> {
        let Standing::Active(active) = &mut self.standing else { return None };
        let is_current = active.epoch() == epoch;
        active.downstream.as_mut().filter(|downstream| is_current && downstream.stream == stream)
    }

    /// A connection broke (R8).
    pub(super) fn peer_lost(&mut self, member: ChainMember, out: &mut Vec<Output>) {
        self.copy_source_lost(member, out);
        let Standing::Active(active) = &mut self.standing else { return };
        let upstream = active.upstream.as_mut().filter(|upstream| upstream.predecessor == member);
        let above = upstream.and_then(Upstream::lost);
        let mut below = None;
        if let Some(downstream) = active.downstream.as_mut().filter(|downstream| downstream.successor == member) {
            downstream.close(out);
            below = downstream.complained.about(Some(ComplaintReason::LinkLost));
        }
        for reason in above.into_iter().chain(below) {
            self.complain(member.node, reason, out);
        }
    }

    pub(super) fn complain(&self, about: NodeId, reason: ComplaintReason, out: &mut Vec<Output>) {
        let complaint = Complaint { range: self.range, epoch: self.promised, by: self.me.node, about, reason };
        out.push(Output::Complain(complaint));
    }

    /// Tells the successor what is committed when no entry is under way that would carry it.
    pub(super) fn tell_committed_if_idle(&mut self, out: &mut Vec<Output>) {
        let (end, committed) = (self.state.end().index, self.committed.index);
        if let Standing::Active(active) = &mut self.standing
            && let (epoch, Some(downstream)) = (active.epoch(), &mut active.downstream)
            && downstream.phase == Phase::Open
            && downstream.acknowledged == end
            && downstream.told_committed < committed
        {
            downstream.tell_committed(epoch, committed, out);
        }
    }

    pub(super) fn neighbours_tick(&mut self, out: &mut Vec<Output>) {
        let (end, committed) = (self.state.end().index, self.committed.index);
        let Standing::Active(active) = &mut self.standing else { return };
        let epoch = active.epoch();
        let above = active.upstream.as_mut().and_then(|upstream| Some((upstream.predecessor.node, upstream.tick()?)));
        let (mut is_due, mut below) = (false, None);
        if let Some(downstream) = &mut active.downstream {
            let (due, reason) = downstream.tick(end);
            (is_due, below) = (due, reason.map(|reason| (downstream.successor.node, reason)));
            let is_news = downstream.told_committed < committed || downstream.idle_ticks >= HEARTBEAT_TICKS;
            if downstream.phase == Phase::Open && is_news {
                downstream.tell_committed(epoch, committed, out);
            }
        }
        for (about, reason) in above.into_iter().chain(below) {
            self.complain(about, reason, out);
        }
        if is_due {
            self.open_stream(out);
        }
    }
}
