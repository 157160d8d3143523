//! What a run takes from the process that it is in, which may hold many of them.

use std::any::Any;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use tokio::runtime::{Handle, Runtime};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::failure::Failure;
use super::world::Task;
use crate::error::{Error, Kind, Result};

/// Threads for the calls of a process with one pipeline.
const THREADS: usize = 2;

/// A place for runs: the threads on which their calls are made, and how often each looks at itself.
#[derive(Clone, Debug)]
pub struct Host {
    runtime: Arc<Mutex<Option<Runtime>>>,
    handle: Handle,
    look: Duration,
}

impl Host {
    /// For one pipeline: with threads of its own.
    ///
    /// # Errors
    /// `Internal`.
    pub fn new() -> Result<Host> {
        let runtime = runtime(THREADS)?;
        let handle = runtime.handle().clone();
        Ok(Host { runtime: Arc::new(Mutex::new(Some(runtime))), handle, look: Duration::from_millis(50) })
    }

    /// For many: they share the threads of `handle`, and each looks at itself every `look`.
    pub fn shared(handle: Handle, look: Duration) -> Host {
        Host { runtime: Arc::default(), handle, look }
    }

    /// How often a run looks at itself.
    pub fn look(&self) -> Duration {
        self.look
    }

    /// A place for the tasks of one run.
    pub fn tasks(&self) -> Tasks {
        Tasks {
            handle: self.handle.clone(),
            tracker: TaskTracker::new(),
            over: CancellationToken::new(),
            failure: Failure::default(),
        }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if Arc::strong_count(&self.runtime) > 1 {
            return;
        }
        let runtime = self.runtime.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(runtime) = runtime {
            // It may be dropped where blocking is not allowed.
            runtime.shutdown_background();
        }
    }
}

/// The error that a panic in `what` comes to.
pub fn panicked(what: &str, panic: &(dyn Any + Send)) -> Error {
    let words = panic.downcast_ref::<&str>().map(|words| (*words).to_owned());
    let words = words.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
    Error::new(Kind::Internal, format!("{what} panicked: {words}"))
        .hint("this is a defect of migrans: report it, with the lines of the log before it")
}

/// A runtime with `threads` threads.
///
/// # Errors
/// `Internal`.
pub fn runtime(threads: usize) -> Result<Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads)
        .thread_name("calls")
        .enable_all()
        .build()
        .map_err(|cause| Error::new(Kind::Internal, "can't start the runtime for calls").caused_by(cause))
}

/// The tasks of one run: they end with it.
#[derive(Clone, Debug)]
pub struct Tasks {
    handle: Handle,
    tracker: TaskTracker,
    over: CancellationToken,
    failure: Failure,
}

impl Tasks {
    /// Where a task that panics tells of it.
    pub fn failure(&self) -> Failure {
        self.failure.clone()
    }

    /// Runs `task` until it is done or the run is over.
    pub fn spawn(&self, task: Task) {
        let over = self.over.clone();
        let failure = self.failure.clone();
        let task = async move {
            if let Err(panic) = AssertUnwindSafe(task).catch_unwind().await {
                failure.set(panicked("a call", &*panic));
            }
        };
        let task = async move {
            tokio::select! {
                biased;
                () = over.cancelled_owned() => {}
                () = task => {}
            }
        };
        self.tracker.spawn_on(task, &self.handle);
    }

    /// Waits for `future`. Not to be called on a thread of the runtime.
    pub fn block_on<F: Future>(&self, future: F) -> F::Output {
        self.handle.block_on(future)
    }

    /// Drops every task at its next pause, and waits until they are gone, for `at_most`.
    pub fn end(self, at_most: Duration) {
        self.over.cancel();
        self.tracker.close();
        let wait = async { tokio::time::timeout(at_most, self.tracker.wait()).await };
        if self.handle.block_on(wait).is_err() {
            tracing::warn!("a task does not end; it is left behind");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tasks_end_with_their_run_and_leave_those_of_others_alone() {
        let shared = runtime(1).unwrap();
        let host = Host::shared(shared.handle().clone(), Duration::ZERO);
        let (one, other) = (host.tasks(), host.tasks());
        let (held, gone) = crossbeam_channel::bounded::<()>(0);
        one.spawn(Box::pin(async move {
            let _held = held;
            std::future::pending::<()>().await;
        }));
        let (told, heard) = tokio::sync::oneshot::channel();
        other.spawn(Box::pin(async move {
            tokio::time::sleep(Duration::from_millis(100)).await;
            let _ = told.send(7);
        }));
        one.end(Duration::from_secs(5));
        assert_eq!(gone.try_recv(), Err(crossbeam_channel::TryRecvError::Disconnected));
        assert_eq!(other.block_on(heard), Ok(7));
    }

    #[test]
    fn a_task_that_panics_fails_its_run() {
        let shared = runtime(1).unwrap();
        let tasks = Host::shared(shared.handle().clone(), Duration::ZERO).tasks();
        let failure = tasks.failure();
        tasks.spawn(Box::pin(async { panic!("{} is odd", 3) }));
        tasks.tracker.close();
        tasks.block_on(tasks.tracker.wait());
        let error = failure.take().unwrap();
        assert_eq!((error.kind(), error.message()), (Kind::Internal, "a call panicked: 3 is odd"));
    }
}
