//! Bytes of replies that one connection may have queued: who needs many waits for them, first come, first served.
//!
//! Room goes to the one who waits longest at the moment it becomes free, so a large reply is not starved by small ones.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use crate::service::Hangup;

/// The room of one connection.
pub(crate) struct Room {
    bytes_max: usize,
    free: Cell<usize>,
    closed: Cell<bool>,
    waiting: RefCell<VecDeque<Rc<Waiter>>>,
}

struct Waiter {
    bytes: usize,
    progress: Cell<Progress>,
    waker: RefCell<Waker>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Progress {
    Waiting,
    Granted,
    Abandoned,
}

impl Room {
    pub(crate) fn new(bytes_max: usize) -> Rc<Self> {
        Rc::new(Self { bytes_max, free: Cell::new(bytes_max), closed: Cell::new(false), waiting: RefCell::default() })
    }

    /// Waits for `bytes`, or for all of the room if that is less.
    pub(crate) fn wait(self: &Rc<Self>, bytes: usize) -> RoomWait {
        RoomWait { room: Rc::clone(self), bytes: bytes.min(self.bytes_max), waiter: None }
    }

    /// Sends everyone away who waits, now and later.
    pub(crate) fn close(&self) {
        self.closed.set(true);
        for waiter in self.waiting.take() {
            waiter.waker.borrow().wake_by_ref();
        }
    }

    fn release(&self, bytes: usize) {
        self.free.set(self.free.get() + bytes);
        self.grant();
    }

    fn grant(&self) {
        let mut waiting = self.waiting.borrow_mut();
        while let Some(first) = waiting.front() {
            if first.progress.get() == Progress::Waiting {
                let Some(free) = self.free.get().checked_sub(first.bytes) else { return };
                self.free.set(free);
                first.progress.set(Progress::Granted);
                first.waker.borrow().wake_by_ref();
            }
            waiting.pop_front();
        }
    }
}

/// Waits for room.
pub(crate) struct RoomWait {
    room: Rc<Room>,
    bytes: usize,
    waiter: Option<Rc<Waiter>>,
}

impl Future for RoomWait {
    type Output = Result<RoomPermit, Hangup>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let (room, bytes) = (Rc::clone(&self.room), self.bytes);
        if room.closed.get() {
            return Poll::Ready(Err(Hangup::new()));
        }
        let Some(waiter) = &self.waiter else {
            let progress = Cell::new(Progress::Waiting);
            let waiter = Rc::new(Waiter { bytes, progress, waker: RefCell::new(context.waker().clone()) });
            room.waiting.borrow_mut().push_back(Rc::clone(&waiter));
            self.waiter = Some(waiter);
            room.grant();
            return self.take_if_granted();
        };
        waiter.waker.borrow_mut().clone_from(context.waker());
        self.take_if_granted()
    }
}

impl RoomWait {
    fn take_if_granted(&mut self) -> Poll<Result<RoomPermit, Hangup>> {
        if !self.waiter.as_ref().is_some_and(|waiter| waiter.progress.get() == Progress::Granted) {
            return Poll::Pending;
        }
        self.waiter = None;
        Poll::Ready(Ok(RoomPermit { room: Rc::clone(&self.room), bytes: self.bytes }))
    }
}

impl Drop for RoomWait {
    fn drop(&mut self) {
        let Some(waiter) = self.waiter.take() else { return };
        match waiter.progress.replace(Progress::Abandoned) {
            Progress::Granted => self.room.release(self.bytes),
            Progress::Waiting | Progress::Abandoned => self.room.grant(),
        }
    }
}

/// Room that is given back when this is dropped.
pub(crate) struct RoomPermit {
    room: Rc<Room>,
    bytes: usize,
}

impl RoomPermit {
    /// Gives back what is not needed after all.
    pub(crate) fn shrink_to(&mut self, bytes: usize) {
        if let Some(unused) = self.bytes.checked_sub(bytes) {
            self.bytes = bytes;
            self.room.release(unused);
        }
    }
}

impl Drop for RoomPermit {
    fn drop(&mut self) {
        self.room.release(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn poll(wait: &mut RoomWait) -> Poll<Result<RoomPermit, Hangup>> {
        Pin::new(wait).poll(&mut Context::from_waker(Waker::noop()))
    }

    fn taken(wait: &mut RoomWait) -> RoomPermit {
        match poll(wait) {
            Poll::Ready(Ok(permit)) => permit,
            _ => panic!("there is room"),
        }
    }

    #[test]
    fn a_small_one_does_not_overtake_a_large_one() {
        let room = Room::new(100);
        let held = taken(&mut room.wait(60));
        let (mut large, mut small) = (room.wait(1_000), room.wait(10));
        assert!(poll(&mut large).is_pending() && poll(&mut small).is_pending(), "40 are free, the large one is first");
        drop(held);
        let all = taken(&mut large);
        assert!(poll(&mut small).is_pending());
        drop(all);
        drop(taken(&mut small));
        assert_eq!(room.free.get(), 100);
    }

    #[test]
    fn who_gives_up_waiting_holds_nobody_back() {
        let room = Room::new(100);
        let held = taken(&mut room.wait(60));
        let (mut large, mut small) = (room.wait(50), room.wait(10));
        assert!(poll(&mut large).is_pending() && poll(&mut small).is_pending());
        drop(large);
        drop(taken(&mut small));
        let mut granted = room.wait(100);
        assert!(poll(&mut granted).is_pending());
        drop(held);
        drop(granted);
        assert_eq!(room.free.get(), 100, "granted, but never taken");
    }

    #[test]
    fn closing_sends_everyone_away() {
        let room = Room::new(1);
        let _held = taken(&mut room.wait(1));
        let mut waiting = room.wait(1);
        assert!(poll(&mut waiting).is_pending());
        room.close();
        assert!(matches!(poll(&mut waiting), Poll::Ready(Err(_))));
    }
}
