//! Mending the range's log from other members: what rotted here is asked of whoever has it, in any state and epoch.
//!
//! Two ways. A log that lost entries without which its state is not known takes nothing; when the machine says so
//! ([`Output::Mend`]) it is mended and recovered once more. A log in use has lost but bodies, or what lies below its
//! newest footer; its sealed segments are mended beside whatever it does, one after the other, and the active one is
//! rolled first. Entries are verified by the log, by their place in the chain of hashes. Absent: what is damaged, and how a
//! segment is written anew, which are the log's.
//!
//! [`Output::Mend`]: minikafka_core::chain::replica::Output::Mend

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use futures_channel::oneshot;
use futures_lite::future;
use minikafka_core::chain::ChainMember;
use minikafka_core::chain::peer::{CopyOutcome, CopyPurpose, PeerBody, SegmentItem};
use minikafka_core::chain::replica::{Input, MendOutcome};
use minikafka_core::limits::{
    MEND_ANSWER_WAIT_MS, MEND_HOPELESS_TICKS, MEND_PAUSE_TICKS, MEND_RETRY_TICKS, SIDECAR_RETRY_TICKS,
};
use minikafka_core::{CopyId, ErrorCode, LogIndex, LogPoint};
use minikafka_storage::disk::Disk;
use minikafka_storage::wait::Notify;
use minikafka_storage::{DamagedStretch, EntrySource, Lost, MendError, SharedSlice};

use super::recovery::StateVisitor;
use super::{Range, entries as entries_of};

/// Requests of a mending range are told by this from those of its machine, whose numbers never come so far.
const MENDING: u64 = 1 << 63;

type Outcome = CopyOutcome<SharedSlice>;

/// What a range remembers of mending.
#[derive(Default)]
pub(super) struct Mending {
    /// The members of the last chain that the range acted in.
    members: RefCell<Vec<ChainMember>>,
    /// Something is being mended.
    busy: Cell<bool>,
    /// How often it was tried to mend the log in use.
    passes: Cell<u64>,
    /// What was mended on the shard ([`super::RangeShared::mended`]) when something of it was the last time.
    mended_at: Cell<u64>,
    /// What the last pass left, in the chain of now.
    left: Cell<Left>,
    /// Before the log in use is looked at again.
    rest_ticks: Cell<u32>,
    /// Before lists of freed entries that could not be read are asked for again.
    sidecar_rest_ticks: Cell<u32>,
    last_copy: Cell<u64>,
    asked: RefCell<Option<Asked>>,
    changed: Notify,
}

/// What a pass over the log in use could not mend; of several, the greatest counts, which is the one with the most hope.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
enum Left {
    /// Nothing that is known.
    #[default]
    Nothing,
    /// What is in no entries, so that nobody can make up for it.
    NotInEntries,
    /// What everybody said for good that he has nothing of.
    NobodyHas,
    /// Something that a later pass may mend: it is not sealed yet, or somebody did not answer.
    ForLater,
}

/// A request that waits for its answer; nothing: the member was lost.
struct Asked {
    copy: CopyId,
    member: ChainMember,
    sender: oneshot::Sender<Option<Outcome>>,
}

impl Left {
    fn is_hopeful(self) -> bool {
        matches!(self, Self::Nothing | Self::ForLater)
    }

    /// Before the next look. Who is alone asks nobody but its own disk, which may read again what it once could not.
    fn rest_ticks(self, is_alone: bool) -> u32 {
        match self {
            Self::Nothing => MEND_PAUSE_TICKS,
            Self::NobodyHas if is_alone => MEND_HOPELESS_TICKS,
            Self::ForLater | Self::NobodyHas => MEND_RETRY_TICKS,
            Self::NotInEntries => MEND_HOPELESS_TICKS,
        }
    }
}

impl Mending {
    /// The range acts in this chain.
    pub fn set_members(&self, members: Vec<ChainMember>) {
        *self.members.borrow_mut() = members;
        self.rest_ticks.set(0);
        self.left.set(Left::Nothing);
    }

    /// An answer that only mending waits for; given back when it is not.
    pub fn take_answer(&self, copy: CopyId, outcome: Outcome) -> Result<(), Outcome> {
        if copy.0 & MENDING == 0 {
            return Err(outcome);
        }
        self.answer(|asked| asked.copy == copy, Some(outcome));
        Ok(())
    }

    /// The connection to a member is lost.
    pub fn peer_lost(&self, member: ChainMember) {
        self.answer(|asked| asked.member == member, None);
    }

    fn answer(&self, fits: impl FnOnce(&mut Asked) -> bool, outcome: Option<Outcome>) {
        let asked = self.asked.borrow_mut().take_if(fits);
        if let Some(asked) = asked {
            // Who asked may have given up.
            let _ = asked.sender.send(outcome);
        }
    }
}

/// Other members, as a source of what is lost here.
struct Others<'a, D: Disk> {
    range: &'a Rc<Range<D>>,
    members: Vec<ChainMember>,
    /// Who helped last is asked first.
    first: Cell<usize>,
    /// Somebody did not answer, or not for good.
    may_help_later: Cell<bool>,
}

impl<D: Disk> EntrySource for Others<'_, D> {
    async fn entries_behind(&self, after: LogPoint, until: LogIndex) -> Option<Lost> {
        for turn in 0..self.members.len() {
            let at = (self.first.get() + turn) % self.members.len();
            match self.range.ask_for_lost(self.members[at], after, until).await {
                Some(CopyOutcome::Agreed { entries, .. }) if !entries.is_empty() => {
                    self.first.set(at);
                    let bytes = entries_of::total_bytes(&entries);
                    self.range.shared.metrics.mended_bytes.add(bytes);
                    return Some(Lost::Entries(entries));
                }
                Some(CopyOutcome::Segment { part, .. }) => {
                    if let Some(SegmentItem::Freed(to)) = part.items.first() {
                        return Some(Lost::Freed(*to));
                    }
                }
                Some(CopyOutcome::Refused { code: ErrorCode::DataDamaged }) => {}
                Some(CopyOutcome::Agreed { .. } | CopyOutcome::Disagreed { .. } | CopyOutcome::Gone { .. }) => {}
                Some(CopyOutcome::Refused { .. }) | None => self.may_help_later.set(true),
            }
        }
        None
    }
}

impl<D: Disk> Range<D> {
    fn others(self: &Rc<Self>, members: &[ChainMember]) -> Others<'_, D> {
        let members = members.iter().filter(|member| **member != self.shared.me).copied().collect();
        Others { range: self, members, first: Cell::new(0), may_help_later: Cell::new(false) }
    }

    /// What another member says; none when it is lost, or says nothing for too long.
    async fn ask_for_lost(&self, member: ChainMember, after: LogPoint, until: LogIndex) -> Option<Outcome> {
        let copy = CopyId(MENDING | (self.mending.last_copy.get() + 1));
        self.mending.last_copy.set(copy.0 & !MENDING);
        let (sender, receiver) = oneshot::channel();
        *self.mending.asked.borrow_mut() = Some(Asked { copy, member, sender });
        let (from, purpose) = (self.shared.me, CopyPurpose::Mend);
        let body = PeerBody::CopyRequest { copy, from, to: member, purpose, after, until, segment: None };
        self.say(&member, self.epoch(), body);
        let answered = async { receiver.await.ok().flatten() };
        let late = async {
            self.shared.disk.sleep(Duration::from_millis(MEND_ANSWER_WAIT_MS)).await;
            None
        };
        future::or(answered, late).await
    }

    /// Mends a log that takes nothing, and tells the machine what came of it.
    pub(super) fn mend(self: &Rc<Self>, members: Vec<ChainMember>) {
        let range = self.clone();
        self.shared.disk.spawn(async move {
            tracing::warn!(range = %range.key, others = members.len(), "entries are lost; asking other members for them");
            let outcome = range.mend_lost(&members).await;
            tracing::warn!(range = %range.key, is_whole = matches!(outcome, MendOutcome::Whole(_)), "mended what can be");
            range.drive(Input::Mended { outcome });
            range.committed.notify_all();
        });
    }

    async fn mend_lost(self: &Rc<Self>, members: &[ChainMember]) -> MendOutcome {
        let others = self.others(members);
        let (mut after, mut mended) = (LogIndex(0), false);
        while let Some(stretch) = self.log.damaged_stretch(after) {
            after = stretch.end.index;
            match self.log.mend(&stretch, &others, &mut StateVisitor::default()).await {
                Ok(()) => {
                    self.count_mended(&stretch);
                    mended = true;
                }
                Err(error) => self.not_mended(&stretch, &error, &others),
            }
        }
        if mended {
            let mut visitor = StateVisitor::default();
            let report = match self.log.recover_again(&mut visitor).await {
                Ok(report) => report,
                Err(error) => {
                    self.write_failed(&error);
                    return MendOutcome::Later;
                }
            };
            if let (None, Ok(state)) = (report.loss, visitor.finish(self.key)) {
                return MendOutcome::Whole(Box::new(state));
            }
        }
        if others.may_help_later.get() { MendOutcome::Later } else { MendOutcome::NobodyHas }
    }

    fn count_mended(&self, stretch: &DamagedStretch) {
        self.shared.metrics.mended_entries.add(stretch.end.index.0 - stretch.start.index.0);
    }

    fn not_mended(&self, stretch: &DamagedStretch, error: &MendError, others: &Others<'_, D>) {
        if !matches!(error, MendError::Nobody(_) | MendError::Foreign(_) | MendError::Beyond(_)) {
            others.may_help_later.set(true);
        }
        tracing::warn!(range = %self.key, from = %stretch.start.index, to = %stretch.end.index, %error, "not mended");
    }

    /// Begins to mend the log in use, if something of it is damaged and other members may have it.
    pub(super) fn mend_if_due(self: &Rc<Self>) {
        let rest = self.mending.rest_ticks.get();
        self.mending.rest_ticks.set(rest.saturating_sub(1));
        if rest > 0 || !self.is_mendable() || !self.log.has_damage() {
            return;
        }
        if self.log.damaged_stretch(LogIndex(0)).is_none() {
            return self.mending.rest_ticks.set(MEND_PAUSE_TICKS);
        }
        self.mending.busy.set(true);
        let range = self.clone();
        self.shared.disk.spawn(async move {
            let members = range.mending.members.borrow().clone();
            let left = range.mend_in_use(&members).await;
            if *range.mending.members.borrow() == members {
                range.mending.left.set(left);
                range.mending.rest_ticks.set(left.rest_ticks(members.len() < 2));
            }
            range.mending.busy.set(false);
            range.mending.passes.set(range.mending.passes.get() + 1);
            range.mending.changed.notify_all();
        });
    }

    /// Reads lists of freed entries again that the disk did not give: that needs neither others nor a chain.
    pub(super) fn reread_sidecars_if_due(self: &Rc<Self>) {
        let rest = self.mending.sidecar_rest_ticks.get();
        self.mending.sidecar_rest_ticks.set(if rest > 0 { rest - 1 } else { SIDECAR_RETRY_TICKS });
        if rest > 0 || !self.log.has_unread_sidecars() {
            return;
        }
        let range = self.clone();
        self.shared.disk.spawn(async move {
            match range.log.reread_sidecars().await {
                Ok(found) => {
                    if found > 0 {
                        range.note_mended();
                    }
                    range.mending.changed.notify_all();
                }
                Err(error) => tracing::warn!(range = %range.key, %error, "cannot read a list of freed entries again"),
            }
        });
    }

    /// Whether the log in use could be mended now, were it damaged.
    fn is_mendable(&self) -> bool {
        !self.mending.busy.get() && self.replica.borrow().acts() && self.log.loss().is_none()
    }

    /// Mends what is sealed, and rolls what is not.
    async fn mend_in_use(self: &Rc<Self>, members: &[ChainMember]) -> Left {
        let others = self.others(members);
        let (mut after, mut must_roll, mut left) = (LogIndex(0), false, Left::Nothing);
        while let Some(stretch) = self.log.damaged_stretch(after).filter(|_| self.replica.borrow().acts()) {
            after = stretch.end.index;
            if !stretch.is_sealed {
                must_roll |= stretch.end == self.log.end();
                left = left.max(Left::ForLater);
            } else if let Err(error) = self.log.mend(&stretch, &others, &mut StateVisitor::default()).await {
                self.not_mended(&stretch, &error, &others);
                left = left.max(match error {
                    MendError::Beyond(_) => Left::NotInEntries,
                    _ if others.may_help_later.get() => Left::ForLater,
                    _ => Left::NobodyHas,
                });
            } else {
                self.note_mended();
                self.count_mended(&stretch);
            }
        }
        if must_roll && self.replica.borrow().acts() && self.log.check_append().is_ok() {
            self.roll();
            // It may be sealed at once, when nobody writes.
            self.log.set_committed(self.readable_index());
        }
        left
    }

    /// Whether all that is still damaged is lost for good here, because no entries would do.
    pub fn is_beyond_mending(&self) -> bool {
        self.mending.left.get() == Left::NotInEntries
    }

    /// Damage that a read met before may be gone.
    fn note_mended(&self) {
        let mended = self.shared.mended.get() + 1;
        self.shared.mended.set(mended);
        self.mending.mended_at.set(mended);
    }

    /// Whether something of the log in use was mended since the shard had mended so much.
    pub fn was_mended_since(&self, mended: u64) -> bool {
        self.mending.mended_at.get() > mended
    }

    /// Whether damage that was met may be gone soon: it is being mended, or will be once the range acts again, and that was
    /// not in vain before.
    pub fn may_be_mended(&self) -> bool {
        let is_hopeful = self.mending.left.get().is_hopeful() && self.log.loss().is_none();
        self.mending.busy.get() || is_hopeful && self.log.damaged_stretch(LogIndex(0)).is_some()
    }

    /// For who met damage: waits until it was tried to mend it. False at once when that is not about to happen.
    pub async fn mending(&self) -> bool {
        let is_about_to = self.may_be_mended();
        if is_about_to {
            let before = self.mending.passes.get();
            self.mending.changed.wait_for(|| (self.mending.passes.get() > before).then_some(())).await;
        }
        is_about_to
    }
}
