//! Waiting within one thread: a condition variable, a FIFO budget of bytes, and joining of futures.
//!
//! All of it is fair in order of arrival and independent of the executor. Absent: anything `Send`.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

/// Runs futures concurrently within this task and returns their results in order. Polls only those that were woken: glommio
/// keeps a waker for every poll of an I/O future, in a count of 16 bits, which polling hundreds of them at each other's
/// wake overflows.
pub use futures_util::future::join_all;

/// Wakes all who wait for a condition to look again.
#[derive(Default)]
pub struct Notify {
    wakers: RefCell<Vec<Waker>>,
}

impl Notify {
    /// Waits until `condition` gives a value; it is asked at once and after every [`Notify::notify_all`].
    pub async fn wait_for<T>(&self, mut condition: impl FnMut() -> Option<T>) -> T {
        poll_fn(|context| match condition() {
            Some(value) => Poll::Ready(value),
            None => {
                self.register(context);
                Poll::Pending
            }
        })
        .await
    }

    /// Wakes everyone who waits.
    pub fn notify_all(&self) {
        let wakers = std::mem::take(&mut *self.wakers.borrow_mut());
        wakers.into_iter().for_each(Waker::wake);
    }

    fn register(&self, context: &Context<'_>) {
        let mut wakers = self.wakers.borrow_mut();
        if !wakers.iter().any(|waker| waker.will_wake(context.waker())) {
            wakers.push(context.waker().clone());
        }
    }
}

/// A number of bytes that may be in use at once; those who wait for more are served first come, first served.
#[derive(Clone)]
pub struct ByteBudget {
    state: Rc<BudgetState>,
}

struct BudgetState {
    bytes_max: u64,
    bytes_used: Cell<u64>,
    waiting: RefCell<VecDeque<Rc<Waiter>>>,
}

struct Waiter {
    bytes: u64,
    granted: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

/// Bytes taken from a [`ByteBudget`]; dropping it gives them back.
pub struct Permit {
    budget: ByteBudget,
    bytes: u64,
}

impl ByteBudget {
    /// A budget of `bytes_max` bytes.
    pub fn new(bytes_max: u64) -> Self {
        let state = BudgetState { bytes_max, bytes_used: Cell::new(0), waiting: RefCell::default() };
        Self { state: Rc::new(state) }
    }

    /// Takes `bytes`, waiting behind everyone who came before. More than the whole budget counts as the whole budget.
    pub async fn take(&self, bytes: u64) -> Permit {
        let bytes = bytes.min(self.state.bytes_max);
        if let Some(permit) = self.try_take(bytes) {
            return permit;
        }
        let waiter = Rc::new(Waiter { bytes, granted: Cell::new(false), waker: RefCell::new(None) });
        self.state.waiting.borrow_mut().push_back(waiter.clone());
        let mut place = Place { budget: self, waiter, taken: false };
        self.grant();
        poll_fn(|context| {
            if place.waiter.granted.get() {
                return Poll::Ready(());
            }
            *place.waiter.waker.borrow_mut() = Some(context.waker().clone());
            Poll::Pending
        })
        .await;
        place.taken = true;
        Permit { budget: self.clone(), bytes: place.waiter.bytes }
    }

    /// Takes `bytes` if they are there and nobody waits.
    pub fn try_take(&self, bytes: u64) -> Option<Permit> {
        let fits = self.state.waiting.borrow().is_empty() && self.bytes_used() + bytes <= self.state.bytes_max;
        fits.then(|| {
            self.state.bytes_used.set(self.bytes_used() + bytes);
            Permit { budget: self.clone(), bytes }
        })
    }

    /// Bytes that may be in use.
    pub fn bytes_max(&self) -> u64 {
        self.state.bytes_max
    }

    /// Bytes in use.
    pub fn bytes_used(&self) -> u64 {
        self.state.bytes_used.get()
    }

    fn grant(&self) {
        loop {
            let waiter = {
                let mut waiting = self.state.waiting.borrow_mut();
                let fits = |first: &Rc<Waiter>| self.bytes_used() + first.bytes <= self.state.bytes_max;
                if !waiting.front().is_some_and(fits) {
                    return;
                }
                waiting.pop_front()
            };
            let Some(waiter) = waiter else { return };
            self.state.bytes_used.set(self.bytes_used() + waiter.bytes);
            waiter.granted.set(true);
            if let Some(waker) = waiter.waker.take() {
                waker.wake();
            }
        }
    }

    fn give_back(&self, bytes: u64) {
        self.state.bytes_used.set(self.bytes_used() - bytes);
        self.grant();
    }
}

/// A place in the queue, given up when its future is dropped.
struct Place<'a> {
    budget: &'a ByteBudget,
    waiter: Rc<Waiter>,
    taken: bool,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if self.taken {
            return;
        }
        if self.waiter.granted.get() {
            self.budget.give_back(self.waiter.bytes);
        } else {
            self.budget.state.waiting.borrow_mut().retain(|other| !Rc::ptr_eq(other, &self.waiter));
            self.budget.grant();
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.budget.give_back(self.bytes);
    }
}

/// A gate that lets one through at a time, first come first served, while a condition holds.
#[derive(Default)]
pub struct FifoGate {
    waiting: RefCell<VecDeque<Rc<Waiter>>>,
}

impl FifoGate {
    /// Waits until everyone who came before is through and `condition` gives a value. What it permits must be done before the
    /// next await: the next in the queue looks at the condition after that.
    pub async fn pass<T>(&self, mut condition: impl FnMut() -> Option<T>) -> T {
        let waiter = Rc::new(Waiter { bytes: 0, granted: Cell::new(false), waker: RefCell::new(None) });
        self.waiting.borrow_mut().push_back(waiter.clone());
        let place = GatePlace { gate: self, waiter };
        poll_fn(|context| {
            let is_first = self.waiting.borrow().front().is_some_and(|first| Rc::ptr_eq(first, &place.waiter));
            match is_first.then(&mut condition).flatten() {
                Some(value) => Poll::Ready(value),
                None => {
                    *place.waiter.waker.borrow_mut() = Some(context.waker().clone());
                    Poll::Pending
                }
            }
        })
        .await
    }

    /// Makes the first in the queue look at its condition again.
    pub fn wake_first(&self) {
        let waker = self.waiting.borrow().front().and_then(|first| first.waker.take());
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// A place in a gate's queue, left when its future ends or is dropped.
struct GatePlace<'a> {
    gate: &'a FifoGate,
    waiter: Rc<Waiter>,
}

impl Drop for GatePlace<'_> {
    fn drop(&mut self) {
        self.gate.waiting.borrow_mut().retain(|other| !Rc::ptr_eq(other, &self.waiter));
        self.gate.wake_first();
    }
}
