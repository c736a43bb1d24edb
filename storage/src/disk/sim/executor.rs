//! A seeded, single-threaded executor on virtual time: which ready task runs next follows from the seed.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use slab::Slab;

use super::random::SimRandom;

type Task = Pin<Box<dyn Future<Output = ()>>>;

/// Runs tasks one poll at a time. Clones share it.
#[derive(Clone)]
pub struct SimExecutor {
    core: Rc<Core>,
}

struct Core {
    seed: u64,
    random: RefCell<SimRandom>,
    tasks: RefCell<Slab<Slot>>,
    ready: Arc<Mutex<Vec<Arc<TaskWaker>>>>,
    timers: RefCell<BTreeMap<(Duration, u64), Waker>>,
    now: Cell<Duration>,
    ids: Cell<u64>,
}

/// A task; `None` while it is being polled.
struct Slot {
    id: u64,
    task: Option<Task>,
    waker: Waker,
}

struct TaskWaker {
    slot: usize,
    /// Whose; the slot may have another task by now.
    id: u64,
    /// In the list already.
    is_queued: AtomicBool,
    ready: Arc<Mutex<Vec<Arc<TaskWaker>>>>,
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.is_queued.swap(true, Relaxed) {
            self.ready.lock().unwrap_or_else(PoisonError::into_inner).push(self.clone());
        }
    }
}

impl SimExecutor {
    /// An executor without tasks, at time 0.
    pub fn new(seed: u64) -> Self {
        let core = Core {
            seed,
            random: RefCell::new(SimRandom::new(seed)),
            tasks: RefCell::default(),
            ready: Arc::default(),
            timers: RefCell::default(),
            now: Cell::default(),
            ids: Cell::default(),
        };
        Self { core: Rc::new(core) }
    }

    /// The seed this was made with.
    pub fn seed(&self) -> u64 {
        self.core.seed
    }

    /// Virtual time since the start.
    pub fn now(&self) -> Duration {
        self.core.now.get()
    }

    /// Draws from the executor's generator.
    pub fn random<T>(&self, draw: impl FnOnce(&mut SimRandom) -> T) -> T {
        draw(&mut self.core.random.borrow_mut())
    }

    /// Adds a task; it is first polled later, never within this call.
    pub fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        let id = self.next_id();
        let mut tasks = self.core.tasks.borrow_mut();
        let entry = tasks.vacant_entry();
        let ready = self.core.ready.clone();
        let waker = Arc::new(TaskWaker { slot: entry.key(), id, is_queued: AtomicBool::new(false), ready });
        entry.insert(Slot { id, task: Some(Box::pin(task)), waker: Waker::from(waker.clone()) });
        waker.wake();
    }

    /// Runs until `future` is done; panics, naming the seed, when everything waits and nothing can ever happen.
    pub fn run<T: 'static>(&self, future: impl Future<Output = T> + 'static) -> T {
        let result = Rc::new(Cell::new(None));
        let done = result.clone();
        self.spawn(async move { done.set(Some(future.await)) });
        loop {
            if let Some(value) = result.take() {
                return value;
            }
            assert!(self.step(), "seed {}: every task waits and nothing can happen any more", self.core.seed);
        }
    }

    /// Runs until nothing can happen any more.
    pub fn run_until_idle(&self) {
        while self.step() {}
    }

    /// One poll of a ready task, or one step of time to the next timer; false when there is neither.
    pub fn step(&self) -> bool {
        self.poll_ready() || self.fire_timer()
    }

    /// Polls ready tasks until none is ready; time stands still. Says how many polls that took.
    pub fn run_ready(&self) -> u64 {
        let mut polls = 0;
        while self.poll_ready() {
            polls += 1;
        }
        polls
    }

    /// When the next timer is due.
    pub fn next_timer(&self) -> Option<Duration> {
        self.core.timers.borrow().first_key_value().map(|((time, _), _)| *time)
    }

    /// Goes to the time of the next timer, unless that is past, and wakes who waits for it; false when nobody waits.
    pub fn fire_timer(&self) -> bool {
        let Some(((time, _), waker)) = self.core.timers.borrow_mut().pop_first() else { return false };
        self.core.now.set(self.now().max(time));
        waker.wake();
        true
    }

    /// Lets time pass without waking anybody: whoever drives several executors decides who is next.
    pub fn advance_to(&self, time: Duration) {
        self.core.now.set(self.now().max(time));
    }

    /// Drops every task: the process is gone.
    pub fn abandon(&self) {
        // Dropping a task may wake or spawn others: they go too.
        loop {
            let tasks = std::mem::take(&mut *self.core.tasks.borrow_mut());
            let timers = std::mem::take(&mut *self.core.timers.borrow_mut());
            let ready = std::mem::take(&mut *self.core.ready.lock().unwrap_or_else(PoisonError::into_inner));
            if tasks.is_empty() && timers.is_empty() && ready.is_empty() {
                return;
            }
            drop((tasks, timers, ready));
        }
    }

    /// Completes after `duration` of virtual time.
    pub async fn sleep(&self, duration: Duration) {
        let until = self.now() + duration;
        let id = self.next_id();
        poll_fn(|context| {
            if self.now() >= until {
                return Poll::Ready(());
            }
            self.core.timers.borrow_mut().insert((until, id), context.waker().clone());
            Poll::Pending
        })
        .await;
    }

    fn poll_ready(&self) -> bool {
        let ready = {
            let mut ready = self.core.ready.lock().unwrap_or_else(PoisonError::into_inner);
            let count = ready.len() as u64;
            (count > 0).then(|| ready.swap_remove(self.random(|random| random.below(count)) as usize))
        };
        let Some(ready) = ready else { return false };
        ready.is_queued.store(false, Relaxed);
        self.poll(&ready);
        true
    }

    fn poll(&self, ready: &Arc<TaskWaker>) {
        let taken = {
            let mut tasks = self.core.tasks.borrow_mut();
            let slot = tasks.get_mut(ready.slot).filter(|slot| slot.id == ready.id);
            slot.and_then(|slot| Some((slot.task.take()?, slot.waker.clone())))
        };
        let Some((mut task, waker)) = taken else { return };
        let poll = task.as_mut().poll(&mut Context::from_waker(&waker));
        let mut tasks = self.core.tasks.borrow_mut();
        match poll {
            Poll::Ready(()) => {
                let slot = tasks.try_remove(ready.slot);
                drop(tasks);
                drop((slot, task));
            }
            Poll::Pending => {
                if let Some(slot) = tasks.get_mut(ready.slot) {
                    slot.task = Some(task);
                }
            }
        }
    }

    fn next_id(&self) -> u64 {
        self.core.ids.set(self.core.ids.get() + 1);
        self.core.ids.get()
    }
}
