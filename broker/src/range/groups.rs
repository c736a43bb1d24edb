//! Consumer groups of a range, at its head: interprets [`Coordinator`] over the range's log (`docs/GROUPS.md`).
//!
//! The coordinator acts exactly as long as the range's machine is the head of an active chain, in one epoch; when that
//! ends, whoever waits is told so, and what was on its way no longer concerns it. Its entries go through the range like
//! all others, and come back as written only when they are committed. Absent: every decision.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;

use minikafka_core::chain::replica;
use minikafka_core::control::ControlEntry;
use minikafka_core::group::GroupName;
use minikafka_core::group::coordinator::{Answer, Coordinator, Input, Output, Refusal, RequestId};
use minikafka_core::wire::{GroupCommitRequest, GroupDeleteRequest, GroupHeartbeatRequest};
use minikafka_core::{Epoch, ErrorCode};
use minikafka_storage::disk::Disk;
use slab::Slab;

use super::Range;

/// Takes the outcome of a group request to whoever asked; called exactly once.
pub type GroupCompletion = Box<dyn FnOnce(Answer)>;

/// The groups of one range.
#[derive(Default)]
pub(super) struct Groups {
    coordinator: RefCell<Coordinator>,
    /// The epoch in which it coordinates.
    epoch: Cell<Option<Epoch>>,
    /// Who waits; bounded by the coordinator.
    waiting: RefCell<Slab<GroupCompletion>>,
    inputs: RefCell<VecDeque<Input>>,
    driving: Cell<bool>,
    /// The broker stops: it coordinates no more, whatever becomes of the range's role.
    stopped: Cell<bool>,
}

impl<D: Disk> Range<D> {
    /// A member says what it has, and waits for news.
    pub fn group_heartbeat(self: &Rc<Self>, heartbeat: GroupHeartbeatRequest, done: GroupCompletion) {
        if let Some(done) = self.coordinated(heartbeat.epoch, done) {
            let request = self.wait_for_group(done);
            self.coordinate(Input::Heartbeat { request, heartbeat });
        }
    }

    /// Somebody commits offsets.
    pub fn group_commit(self: &Rc<Self>, commit: GroupCommitRequest, done: GroupCompletion) {
        if let Some(done) = self.coordinated(commit.epoch, done) {
            let request = self.wait_for_group(done);
            self.coordinate(Input::Commit { request, commit });
        }
    }

    /// Somebody deletes a group.
    pub fn group_delete(self: &Rc<Self>, delete: GroupDeleteRequest, done: GroupCompletion) {
        if let Some(done) = self.coordinated(delete.epoch, done) {
            let request = self.wait_for_group(done);
            self.coordinate(Input::Delete { request, group: delete.group });
        }
    }

    /// Looks at the groups, for a client that believes in `believed`.
    ///
    /// # Errors
    /// Why they are not coordinated here.
    pub fn look_at_groups<T>(&self, believed: Epoch, look: impl FnOnce(&Coordinator) -> T) -> Result<T, Refusal> {
        self.check_coordinated(believed)?;
        Ok(look(&self.groups.coordinator.borrow()))
    }

    /// What its coordinator is at, for a simulation.
    pub fn with_coordinator<T>(&self, look: impl FnOnce(&Coordinator) -> T) -> T {
        look(&self.groups.coordinator.borrow())
    }

    fn check_coordinated(&self, believed: Epoch) -> Result<(), Refusal> {
        let replica = self.replica.borrow();
        match replica.check_write(believed) {
            // A head that does not hear its chain may be one no more.
            Ok(_) if !replica.hears_chain() => Err(Refusal::of(ErrorCode::Stale)),
            Err(replica::Answer::Refused { code, epoch }) => Err(Refusal { epoch, ..Refusal::of(code) }),
            // The role changes before anybody is asked: a request of this epoch finds its coordinator.
            Ok(epoch) if self.groups.epoch.get() == Some(epoch) => Ok(()),
            _ => Err(Refusal { epoch: replica.epoch(), ..Refusal::of(ErrorCode::Stale) }),
        }
    }

    /// Refuses a request that this range does not coordinate.
    fn coordinated(&self, believed: Epoch, done: GroupCompletion) -> Option<GroupCompletion> {
        match self.check_coordinated(believed) {
            Ok(()) => Some(done),
            Err(refusal) => {
                done(Answer::Refused(refusal));
                None
            }
        }
    }

    fn wait_for_group(&self, done: GroupCompletion) -> RequestId {
        RequestId(self.groups.waiting.borrow_mut().insert(done) as u64)
    }

    /// The range's machine may have begun, or ceased, to be the head of a chain that takes writes.
    pub(super) fn follow_role(self: &Rc<Self>) {
        let (head, epoch) = {
            let replica = self.replica.borrow();
            let head = replica.head_epoch();
            (head.filter(|epoch| replica.check_write(*epoch).is_ok()), replica.epoch())
        };
        if self.groups.stopped.get() || self.groups.epoch.get() == head {
            return;
        }
        if self.groups.epoch.replace(head).is_some() {
            self.coordinate(Input::Deposed { code: ErrorCode::NotOwner, epoch });
        }
        if head.is_some() {
            let groups = self.replica.borrow().state().groups().clone();
            self.coordinate(Input::Activated { groups });
        }
    }

    /// Tells everybody who waits that the broker stops.
    pub(crate) fn stop_groups(self: &Rc<Self>) {
        self.groups.stopped.set(true);
        if self.groups.epoch.take().is_some() {
            self.coordinate(Input::Deposed { code: ErrorCode::ShuttingDown, epoch: Epoch(0) });
        }
    }

    pub(super) fn tick_groups(self: &Rc<Self>) {
        if self.groups.epoch.get().is_some() {
            let (wall, hears_chain) = (self.shared.clock.wall(), self.replica.borrow().hears_chain());
            self.coordinate(Input::Tick { wall, hears_chain });
        }
    }

    /// Steps the coordinator and carries out what follows. Inputs that arise on the way are taken in turn.
    fn coordinate(self: &Rc<Self>, input: Input) {
        self.groups.inputs.borrow_mut().push_back(input);
        if self.groups.driving.replace(true) {
            return;
        }
        let mut outputs = Vec::new();
        loop {
            let Some(input) = self.groups.inputs.borrow_mut().pop_front() else { break };
            let now_ms = self.shared.clock.monotonic_ns() / 1_000_000;
            self.groups.coordinator.borrow_mut().step(now_ms, input, &mut outputs);
            for output in outputs.drain(..) {
                match output {
                    Output::Append { group, entry } => self.append_group(group, entry),
                    Output::Answer { request, answer } => {
                        let done = self.groups.waiting.borrow_mut().remove(request.0 as usize);
                        done(answer);
                    }
                }
            }
        }
        self.groups.driving.set(false);
    }

    /// Appends a group's entry; the coordinator hears of it when it is committed, if it still coordinates in that epoch.
    fn append_group(self: &Rc<Self>, group: GroupName, entry: ControlEntry) {
        let Some(epoch) = self.groups.epoch.get() else { return };
        let range = self.clone();
        self.shared.disk.spawn(async move {
            let answer = range.append_control(entry, epoch).await;
            if range.groups.epoch.get() != Some(epoch) {
                return;
            }
            range.coordinate(match answer {
                replica::Answer::Done { append_timestamp, .. } => Input::Written { group, appended: append_timestamp },
                replica::Answer::Refused { code, epoch } => Input::WriteRefused { group, code, epoch },
            });
        });
    }
}
