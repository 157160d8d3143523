//! The simulated world: a clock that moves when it is told to, and tasks that run when it is their turn.

use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use migrans::dataflow::world::{Task, World};

/// Where the wall clock begins, in Unix milliseconds.
const EPOCH: u64 = 1_700_000_000_000;

/// A world. Clones are the same one.
#[derive(Clone)]
pub struct SimWorld(Arc<Inside>);

struct Inside {
    began: Instant,
    state: Mutex<State>,
    seed: u64,
}

#[derive(Default)]
struct State {
    elapsed: Duration,
    tasks: Vec<Task>,
}

impl SimWorld {
    /// A world at its beginning.
    pub fn new(seed: u64) -> SimWorld {
        SimWorld(Arc::new(Inside { began: Instant::now(), state: Mutex::default(), seed }))
    }

    /// Time since the beginning.
    pub fn elapsed(&self) -> Duration {
        self.lock().elapsed
    }

    /// Lets time pass.
    pub fn advance(&self, time: Duration) {
        self.lock().elapsed += time;
    }

    /// Lets each task go on as far as it can, in an order that begins at `first`. New tasks have their turn next time.
    pub fn run_tasks(&self, first: usize) {
        let mut tasks = std::mem::take(&mut self.lock().tasks);
        if !tasks.is_empty() {
            let first = first % tasks.len();
            tasks.rotate_left(first);
        }
        let mut context = Context::from_waker(Waker::noop());
        tasks.retain_mut(|task| task.as_mut().poll(&mut context).is_pending());
        let mut state = self.lock();
        tasks.append(&mut state.tasks);
        state.tasks = tasks;
    }

    /// The process is gone, and its tasks with it.
    pub fn forget_tasks(&self) {
        let tasks = std::mem::take(&mut self.lock().tasks);
        drop(tasks);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl World for SimWorld {
    fn now(&self) -> Instant {
        self.0.began + self.elapsed()
    }

    fn unix_now(&self) -> u64 {
        EPOCH + u64::try_from(self.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn spawn(&self, task: Task) {
        self.lock().tasks.push(task);
    }

    fn sleep(&self, time: Duration) -> Task {
        let world = self.clone();
        let until = self.elapsed() + time;
        Box::pin(poll_fn(move |_| if world.elapsed() >= until { Poll::Ready(()) } else { Poll::Pending }))
    }

    fn seed(&self) -> u64 {
        self.0.seed
    }
}
