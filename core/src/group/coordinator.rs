//! The coordinator of a range's groups, as a pure machine: `step(now, input) -> outputs` (`docs/GROUPS.md`).
//!
//! A partition of a group, as its coordinator sees it:
//!
//! ```text
//!              target = m                        target = another, or nobody
//!   ┌──► Free ─────────────► Owned(m), assigned ────────────────────────────► Owned(m), asked back
//!   │     ▲                   │            ▲                                   │        │
//!   │     └── m is gone ──────┘            └────────── target = m again ───────┘        │ m released it, is gone,
//!   │                                                                                   │ or kept it too long
//!   └─────────────── target = nobody ◄──────────────────────────────────────────────────┤
//!                                              Owned(other), assigned ◄─────────────────┘ target = other
//! ```
//!
//! | input | while no entry of the group is on its way | while one is |
//! |---|---|---|
//! | heartbeat | noted, waits; what follows is put into one group-owners entry | noted, waits |
//! | its wait is over | answered with what is committed | the same |
//! | leave, silence, fencing | the member is gone; its partitions go on | the member is gone; they go on with the next entry |
//! | commit | judged by who owns what, put into one group-commit entry with others that wait | waits |
//! | delete | refused while there are members or owners, else a group-delete entry | waits |
//! | written | | the entry counts; whoever waits for it is answered, members with news are told |
//! | write refused | | commits and deletes are refused the same way; owners are tried again at the next tick |
//! | it does not hear its chain | heartbeats that wait are answered `stale`; time stands still | the same |
//! | deposed | everybody who waits is refused, everything is forgotten | the same |
//!
//! Each arrow between owners is one group-owners entry with the next generation, and so is each change of what a member is
//! assigned. Nothing counts, and nothing is told, before its entry is committed: the table here is what is committed, and a
//! group has at most one entry on its way.
//!
//! Soft, and lost with the role: who lives, subscriptions, targets. A new coordinator takes the owners in the log for
//! members that it has not heard yet, and lets nobody lose anything before all of them are heard or their time is over.
//!
//! Time passes only while the coordinator is told of it, and hears its chain (`AwakeClock`): who was silent meanwhile is not
//! expelled. A head that was cut off from its chain confirms nobody any more, so that members look for its successor before
//! that one has waited for them in vain.
//!
//! Absent: the log, connections, and how a request finds the range; who may ask.

mod commits;
mod departed;
mod group;
mod heartbeats;
mod input;
mod ownership;
mod view;

use std::collections::BTreeMap;

use super::{GroupName, GroupState, GroupTable};
use crate::chain::planted::{PlantedBug, is_planted};
use crate::error_code::ErrorCode;
use crate::ids::*;
use crate::limits::*;
use crate::wire::group::{GroupCommitRequest, GroupHeartbeatRequest};
use departed::Departed;
use group::{Group, Surroundings};
pub use input::{Answer, Input, Output, Refusal, RequestId};

/// The coordinator of one range's groups.
#[derive(Clone, Debug, Default)]
pub struct Coordinator {
    is_active: bool,
    /// What is committed.
    table: GroupTable,
    /// Groups that have members, or something on its way.
    groups: BTreeMap<GroupName, Group>,
    departed: Departed,
    clock: AwakeClock,
    activated_at: u64,
    /// When it was last looked for groups that nobody uses.
    looked_at: u64,
    /// Requests that are not answered.
    waiting: usize,
    /// What [`Self::groups`] takes, about.
    memory_bytes: u64,
}

/// Counts the time in which the coordinator is told of time.
#[derive(Clone, Copy, Debug, Default)]
struct AwakeClock {
    awake_ms: u64,
    told_ms: u64,
}

impl AwakeClock {
    fn advance(&mut self, now_ms: u64) {
        self.awake_ms += now_ms.saturating_sub(self.told_ms).min(COORDINATOR_GAP_MS_MAX);
        self.skip(now_ms);
    }

    fn skip(&mut self, now_ms: u64) {
        self.told_ms = self.told_ms.max(now_ms);
    }
}

impl Coordinator {
    /// One that coordinates nothing until it is activated.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether it coordinates.
    pub const fn is_active(&self) -> bool {
        self.is_active
    }

    /// What is committed of the groups.
    pub const fn table(&self) -> &GroupTable {
        &self.table
    }

    /// Requests that are not answered yet.
    pub const fn waiting(&self) -> usize {
        self.waiting
    }

    /// Takes one input at `now_ms` of a clock that never goes back; what must follow is appended to `out`.
    pub fn step(&mut self, now_ms: u64, input: Input, out: &mut Vec<Output>) {
        match input {
            Input::Tick { hears_chain: false, .. } => self.clock.skip(now_ms),
            _ => self.clock.advance(now_ms),
        }
        let before = out.len();
        match input {
            Input::Activated { groups } => self.activate(groups, out),
            Input::Deposed { code, epoch } => self.depose(code, epoch, out),
            Input::Heartbeat { request, heartbeat } => self.heartbeat(request, heartbeat, out),
            Input::Commit { request, commit } => self.commit(request, commit, out),
            Input::Delete { request, group } => self.delete(request, &group, out),
            Input::Written { group, appended } => self.written(&group, appended, out),
            Input::WriteRefused { group, code, epoch } => self.write_refused(&group, code, epoch, out),
            Input::Tick { hears_chain: false, .. } => self.doubt(out),
            Input::Tick { wall, .. } => self.tick(wall, out),
        }
        let answered = out[before..].iter().filter(|output| matches!(output, Output::Answer { .. })).count();
        self.waiting = self.waiting.saturating_sub(answered);
    }

    fn activate(&mut self, groups: GroupTable, out: &mut Vec<Output>) {
        self.depose(ErrorCode::Stale, Epoch(0), out);
        (self.is_active, self.table) = (true, groups);
        (self.activated_at, self.looked_at) = (self.clock.awake_ms, self.clock.awake_ms);
        let owned: Vec<GroupName> = self
            .table
            .iter()
            .filter(|(_, state)| state.owners().next().is_some())
            .map(|(name, _)| name.clone())
            .collect();
        for name in owned {
            self.with_group(&name, out, |_, _| {});
        }
    }

    fn depose(&mut self, code: ErrorCode, epoch: Epoch, out: &mut Vec<Output>) {
        let refusal = Refusal { epoch, ..Refusal::of(code) };
        for group in std::mem::take(&mut self.groups).into_values() {
            group.into_requests().into_iter().for_each(|request| refuse(request, refusal, out));
        }
        (self.is_active, self.table, self.memory_bytes) = (false, GroupTable::default(), 0);
        self.departed = Departed::default();
    }

    /// A request has come: whether it is taken at all.
    fn admit(&mut self, request: RequestId, out: &mut Vec<Output>) -> bool {
        self.waiting += 1;
        let code = match () {
            () if !self.is_active => ErrorCode::NotOwner,
            () if self.waiting > GROUP_REQUESTS_WAITING_MAX => ErrorCode::Overloaded,
            () => return true,
        };
        refuse(request, Refusal::of(code), out);
        false
    }

    fn heartbeat(&mut self, request: RequestId, heartbeat: GroupHeartbeatRequest, out: &mut Vec<Output>) {
        if !self.admit(request, out) {
            return;
        }
        let name = heartbeat.group.clone();
        let says_more = heartbeat.subscribed.is_some() || heartbeat.owned.is_some();
        if let Some(what) = heartbeats::defect(&heartbeat) {
            return refuse(request, Refusal::because(ErrorCode::InvalidArgument, what), out);
        }
        if says_more && (self.is_full() || !self.has_room_for(&name)) {
            return refuse(request, Refusal::of(ErrorCode::Overloaded), out);
        }
        self.with_group(&name, out, |group, around| group.heartbeat(request, heartbeat, around));
    }

    fn commit(&mut self, request: RequestId, commit: GroupCommitRequest, out: &mut Vec<Output>) {
        if !self.admit(request, out) {
            return;
        }
        if commit.offsets.len() > COMMIT_PARTITIONS_MAX {
            let what = "a commit names at most 10,000 partitions";
            return refuse(request, Refusal::because(ErrorCode::InvalidArgument, what), out);
        }
        if self.is_full() || !self.has_room_for(&commit.group) {
            return refuse(request, Refusal::of(ErrorCode::Overloaded), out);
        }
        let name = commit.group.clone();
        self.with_group(&name, out, |group, around| group.commit(request, commit, around));
    }

    fn delete(&mut self, request: RequestId, name: &GroupName, out: &mut Vec<Output>) {
        if !self.admit(request, out) {
            return;
        }
        if self.table.get(name).is_none() && !self.groups.contains_key(name) {
            return refuse(request, Refusal::of(ErrorCode::UnknownGroup), out);
        }
        self.with_group(name, out, |group, around| group.delete(request, around));
    }

    /// The entry of a group that was on its way is committed.
    fn written(&mut self, name: &GroupName, appended: Timestamp, out: &mut Vec<Output>) {
        let Some(entry) = self.groups.get(name).and_then(Group::entry_on_its_way).cloned() else { return };
        self.table.apply(&entry, appended);
        self.with_group(name, out, |group, around| group.written(around));
    }

    fn write_refused(&mut self, name: &GroupName, code: ErrorCode, epoch: Epoch, out: &mut Vec<Output>) {
        let refusal = Refusal { epoch, ..Refusal::of(code) };
        if let Some(group) = self.groups.get_mut(name) {
            group.write_refused(refusal, out);
        }
    }

    /// Somebody else may coordinate by now: nobody is kept waiting.
    fn doubt(&mut self, out: &mut Vec<Output>) {
        for group in self.groups.values_mut() {
            group.refuse_heartbeats(Refusal::of(ErrorCode::Stale), out);
        }
    }

    fn tick(&mut self, wall: Timestamp, out: &mut Vec<Output>) {
        if !self.is_active {
            return;
        }
        let names: Vec<GroupName> = self.groups.keys().cloned().collect();
        for name in names {
            self.with_group(&name, out, |group, around| group.tick(around));
        }
        if self.clock.awake_ms >= self.looked_at + GROUP_EXPIRY_LOOK_MS {
            self.looked_at = self.clock.awake_ms;
            self.expire(wall, out);
        }
    }

    /// Deletes groups that nobody used for a long time. A member that owns nothing is not in the log: each has the longest
    /// session time-out to be heard by a new coordinator.
    fn expire(&mut self, wall: Timestamp, out: &mut Vec<Output>) {
        if self.clock.awake_ms < self.activated_at + u64::from(SESSION_TIMEOUT_MS_MAX) {
            return;
        }
        let is_old = |state: &GroupState| wall.0.saturating_sub(state.changed().0) >= GROUP_KEPT_MS;
        let unused = self.table.iter().filter(|(name, state)| is_old(state) && !self.groups.contains_key(name));
        let unused: Vec<GroupName> = unused.map(|(name, _)| name.clone()).collect();
        for name in unused {
            self.with_group(&name, out, |group, around| group.expire(around));
        }
    }

    /// Does something with a group, and what follows from it.
    fn with_group(
        &mut self,
        name: &GroupName,
        out: &mut Vec<Output>,
        what: impl FnOnce(&mut Group, &mut Surroundings<'_>),
    ) {
        let nothing = GroupState::default();
        let committed = self.table.get(name);
        let mut around = Surroundings {
            now: self.clock.awake_ms,
            name,
            exists: committed.is_some(),
            committed: committed.unwrap_or(&nothing),
            state_bytes_left: GROUPS_STATE_BYTES_MAX.saturating_sub(self.table.bytes()),
            departed: &mut self.departed,
            out,
        };
        let group = self.groups.entry(name.clone()).or_insert_with(|| Group::new(&around));
        let before = group.memory_counted();
        what(group, &mut around);
        group.settle(&mut around);
        self.memory_bytes = self.memory_bytes - before + group.count_memory();
        if group.is_idle() {
            self.memory_bytes -= group.memory_counted();
            self.groups.remove(name);
        } else if is_planted(PlantedBug::GroupToldBeforeCommitted) && group.entry_on_its_way().is_some() {
            self.written(name, Timestamp(0), out);
        }
    }

    const fn is_full(&self) -> bool {
        self.memory_bytes >= GROUPS_MEMORY_BYTES_MAX || self.table.bytes() >= GROUPS_STATE_BYTES_MAX
    }

    /// Whether there is room for a group of this name, because it is there or others are few.
    fn has_room_for(&self, name: &GroupName) -> bool {
        let is_known = self.groups.contains_key(name) || self.table.get(name).is_some();
        let unwritten = || self.groups.keys().filter(|name| self.table.get(name).is_none()).count();
        is_known || self.table.len() + unwritten() < GROUPS_PER_RANGE_MAX
    }
}

fn refuse(request: RequestId, refusal: Refusal, out: &mut Vec<Output>) {
    out.push(Output::Answer { request, answer: Answer::Refused(refusal) });
}

#[cfg(test)]
mod tests;
