//! What the operators take from the world beside their inputs: the time, chance, and a place where calls run.
//!
//! They take it from nowhere else, so that a simulation which provides it decides everything that happens.

use std::future::Future;
use std::pin::Pin;
use std::time::{Duration, Instant};

use super::host::Tasks;
use crate::clock::Clock;

/// A call under way, or a pause.
pub type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Time, chance, and a place for calls.
pub trait World: Send + Sync {
    /// The monotonic clock.
    fn now(&self) -> Instant;

    /// The time of day as it is recorded, in Unix milliseconds.
    fn unix_now(&self) -> u64;

    /// Runs `task` beside the dataflow.
    fn spawn(&self, task: Task);

    /// Ends after `time`. To be awaited within a spawned task.
    fn sleep(&self, time: Duration) -> Task;

    /// Where chance begins.
    fn seed(&self) -> u64;
}

/// The real world.
#[derive(Clone, Debug)]
pub struct RealWorld {
    /// Where calls run.
    pub tasks: Tasks,
    /// The time of day.
    pub clock: Clock,
}

impl World for RealWorld {
    fn now(&self) -> Instant {
        Instant::now()
    }

    fn unix_now(&self) -> u64 {
        self.clock.unix_now()
    }

    fn spawn(&self, task: Task) {
        self.tasks.spawn(task);
    }

    fn sleep(&self, time: Duration) -> Task {
        // The timer is made where it is awaited: operators have no runtime around them.
        Box::pin(async move { tokio::time::sleep(time).await })
    }

    fn seed(&self) -> u64 {
        rand::random()
    }
}
