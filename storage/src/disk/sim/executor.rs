//! A seeded, single-threaded executor on virtual time: which ready task runs next follows from the seed.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

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
    /// `None` while a task is being polled.
    tasks: RefCell<BTreeMap<u64, Option<Task>>>,
    ready: Arc<Mutex<Vec<u64>>>,
    timers: RefCell<BTreeMap<(Duration, u64), Waker>>,
    now: Cell<Duration>,
    ids: Cell<u64>,
}

struct TaskWaker {
    id: u64,
    ready: Arc<Mutex<Vec<u64>>>,
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        let mut ready = self.ready.lock().unwrap_or_else(PoisonError::into_inner);
        if !ready.contains(&self.id) {
            ready.push(self.id);
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
        self.core.tasks.borrow_mut().insert(id, Some(Box::pin(task)));
        self.waker(id).wake();
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
        let ready = {
            let mut ready = self.core.ready.lock().unwrap_or_else(PoisonError::into_inner);
            let count = ready.len() as u64;
            (count > 0).then(|| ready.swap_remove(self.random(|random| random.below(count)) as usize))
        };
        match ready {
            Some(id) => {
                self.poll(id);
                true
            }
            None => self.advance(),
        }
    }

    /// Drops every task: the process is gone.
    pub fn abandon(&self) {
        let tasks = std::mem::take(&mut *self.core.tasks.borrow_mut());
        let timers = std::mem::take(&mut *self.core.timers.borrow_mut());
        drop((tasks, timers));
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

    fn poll(&self, id: u64) {
        let Some(mut task) = self.core.tasks.borrow_mut().get_mut(&id).and_then(Option::take) else { return };
        let waker = self.waker(id);
        let poll = task.as_mut().poll(&mut Context::from_waker(&waker));
        let mut tasks = self.core.tasks.borrow_mut();
        match poll {
            Poll::Ready(()) => {
                tasks.remove(&id);
                drop(tasks);
                drop(task);
            }
            Poll::Pending => {
                tasks.insert(id, Some(task));
            }
        }
    }

    fn advance(&self) -> bool {
        let Some(((time, _), waker)) = self.core.timers.borrow_mut().pop_first() else { return false };
        self.core.now.set(self.now().max(time));
        waker.wake();
        true
    }

    fn next_id(&self) -> u64 {
        self.core.ids.set(self.core.ids.get() + 1);
        self.core.ids.get()
    }

    fn waker(&self, id: u64) -> Waker {
        Waker::from(Arc::new(TaskWaker { id, ready: self.core.ready.clone() }))
    }
}
