//! One pipeline of a server: its thread, and what is known of it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use tokio::sync::watch;

use super::book::{Record, Wanted};
use super::view::{Reason, State, View};
use crate::dataflow::checkpoint;
use crate::dataflow::host::{Host, panicked};
use crate::dataflow::restart::Failures;
use crate::dataflow::run::{self, Status, Until};
use crate::dataflow::tell;
use crate::error::{Error, Result};
use crate::milvus::tso::Tso;
use crate::ownership::Standing;
use crate::pipeline::{self, Pipeline};

/// One pipeline.
pub struct Unit {
    name: String,
    kept: Mutex<Kept>,
    live: Mutex<Live>,
    runner: Mutex<Option<Runner>>,
    /// Counts up with each change of the state.
    changes: watch::Sender<u64>,
    /// F at the last look into a state folder that nobody had open.
    floor: Mutex<Option<Tso>>,
}

struct Kept {
    record: Record,
    /// `None` if the definition can't be read any more.
    pipeline: Option<Arc<Pipeline>>,
}

/// What is known of the run.
#[derive(Default)]
pub struct Live {
    /// How the pipeline is.
    pub state: State,
    /// Why.
    pub reason: Option<Reason>,
    /// The last error, even if the pipeline runs again.
    pub last_error: Option<Reason>,
    /// What the run tells of itself, or the last one did.
    pub status: Option<Status>,
    /// How long it ran until then.
    pub elapsed: Duration,
    /// Failures in a row.
    pub failures: usize,
    /// Starts after failures since the server began.
    pub restarts: u64,
}

struct Runner {
    stop: Arc<AtomicBool>,
    /// Dropped to end a pause.
    awake: Option<Sender<()>>,
    thread: JoinHandle<()>,
}

impl Unit {
    /// A pipeline that does not run.
    pub fn new(name: &str, record: Record, pipeline: Option<Arc<Pipeline>>) -> Arc<Unit> {
        Arc::new(Unit {
            name: name.to_owned(),
            kept: Mutex::new(Kept { record, pipeline }),
            live: Mutex::default(),
            runner: Mutex::default(),
            changes: watch::Sender::new(0),
            floor: Mutex::default(),
        })
    }

    /// F when it was looked for last.
    pub fn floor(&self) -> Option<Tso> {
        *lock(&self.floor)
    }

    /// Looks for F in the state folder. What keeps it from being found is for a run to say.
    pub fn look_for_floor(&self) {
        let Some(pipeline) = self.pipeline() else { return };
        if let Ok(Some(floor)) = checkpoint::peek(&pipeline.state_dir, &pipeline) {
            *lock(&self.floor) = Some(floor);
        }
    }

    /// What is kept of it.
    pub fn record(&self) -> Record {
        lock(&self.kept).record.clone()
    }

    /// What it is to do; `None` if that can't be read any more.
    pub fn pipeline(&self) -> Option<Arc<Pipeline>> {
        lock(&self.kept).pipeline.clone()
    }

    /// What is known of its run.
    pub fn live(&self) -> MutexGuard<'_, Live> {
        lock(&self.live)
    }

    /// Tells of changes of its state.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Replaces what is kept of it. A run that goes on keeps to what it began with.
    pub fn keep(&self, record: Record, pipeline: Option<Arc<Pipeline>>) {
        *lock(&self.kept) = Kept { record, pipeline };
    }

    /// It is like this now, for this reason.
    pub fn set_state(&self, state: State, reason: Option<Reason>) {
        let mut live = self.live();
        let is_new = live.state != state || live.reason != reason;
        if reason.as_ref().is_some_and(|reason| reason.kind.is_some()) {
            live.last_error.clone_from(&reason);
        }
        (live.state, live.reason) = (state, reason);
        drop(live);
        if is_new {
            self.changes.send_modify(|changes| *changes += 1);
        }
    }

    /// It as a user sees it.
    pub fn view(&self) -> View {
        let Kept { record, pipeline } = &*lock(&self.kept);
        let live = self.live();
        let labels = pipeline.as_ref().map(|pipeline| pipeline.labels.clone());
        let names = pipeline.as_ref().map(|pipeline| pipeline.target.names()).unwrap_or_default();
        View {
            name: self.name.clone(),
            state: live.state,
            reason: live.reason.clone(),
            definition: pipeline::masked(&record.definition),
            labels: labels.unwrap_or_default(),
            failures: live.failures,
            created: record.created.clone(),
            changed: record.changed.clone(),
            report: live.status.as_ref().map(|status| tell::report(status, &names, live.elapsed)),
            extra: record.extra.clone(),
        }
    }

    /// Whether a thread runs it, or will do so after a pause.
    pub fn is_active(&self) -> bool {
        lock(&self.runner).as_ref().is_some_and(|runner| !runner.thread.is_finished())
    }

    /// Starts it, unless it is active. `attempts` are how often it is started again where its definition does not say.
    pub fn start(self: &Arc<Unit>, host: &Host, attempts: usize) {
        let mut runner = lock(&self.runner);
        if runner.as_ref().is_some_and(|runner| !runner.thread.is_finished()) {
            return;
        }
        let Some(pipeline) = self.pipeline() else { return };
        self.set_state(State::Initial, None);
        let stop = Arc::new(AtomicBool::new(false));
        let (awake, pauses) = crossbeam_channel::bounded(0);
        let failures = Failures::new(pipeline.restart, attempts);
        let (unit, host, stopping) = (Arc::clone(self), host.clone(), Arc::clone(&stop));
        let spawned = thread::Builder::new().name("pipeline".to_owned()).spawn(move || {
            let span = tracing::info_span!("", pipeline = %pipeline.name);
            span.in_scope(|| unit.supervise(&pipeline, &host, &stopping, &pauses, failures));
        });
        match spawned {
            Ok(thread) => *runner = Some(Runner { stop, awake: Some(awake), thread }),
            Err(cause) => {
                let error = Error::new(crate::Kind::Internal, "can't start a thread").caused_by(cause);
                self.set_state(State::Failed, Some(Reason::of(&error)));
            }
        }
    }

    /// Has it stop, without waiting.
    pub fn ask_to_stop(&self) {
        if let Some(runner) = &mut *lock(&self.runner) {
            runner.stop.store(true, Ordering::Release);
            runner.awake = None;
        }
    }

    /// Has it stop, and waits until it has. What it failed with before does not count any more.
    pub fn stop(&self) {
        self.ask_to_stop();
        // Others may look at it meanwhile.
        let runner = lock(&self.runner).take();
        if let Some(runner) = runner {
            drop(runner.thread.join());
        }
        self.live().failures = 0;
    }

    /// Runs the pipeline, again and again if need be.
    fn supervise(
        &self,
        pipeline: &Pipeline,
        host: &Host,
        stop: &Arc<AtomicBool>,
        pauses: &Receiver<()>,
        mut failures: Failures,
    ) {
        loop {
            let began = Instant::now();
            let Err(error) = self.run(pipeline, host, stop, began, &mut failures) else { return };
            tracing::error!("{}", error.report());
            let reason = Some(Reason::of(&error));
            let pause = failures.next(error.kind(), began.elapsed());
            self.live().failures = failures.in_a_row();
            let Some(pause) = pause else {
                tracing::error!("stopped; it is not started again by itself");
                return self.set_state(State::Failed, reason);
            };
            tracing::info!("starting again in {:.1} s", pause.as_secs_f64());
            self.set_state(State::Retrying, reason);
            match pauses.recv_timeout(pause) {
                Err(RecvTimeoutError::Timeout) if !stop.load(Ordering::Acquire) => {}
                _ => return,
            }
            self.live().restarts += 1;
        }
    }

    fn run(
        &self,
        pipeline: &Pipeline,
        host: &Host,
        stop: &Arc<AtomicBool>,
        began: Instant,
        failures: &mut Failures,
    ) -> Result<()> {
        let observe = |status: &Status| {
            let state = match status.standing {
                Some(Standing::By(_)) => State::StandingBy,
                _ => State::Running,
            };
            failures.ran(began.elapsed());
            let mut live = self.live();
            (live.status, live.elapsed) = (Some(status.clone()), began.elapsed());
            live.failures = failures.in_a_row();
            let is_new = live.state != state;
            drop(live);
            if is_new {
                self.set_state(state, None);
            }
        };
        let run = || run::run(pipeline, Until::Forever, stop, host, observe);
        // Nothing of a run is used after its panic but what it has told of itself.
        match catch_unwind(AssertUnwindSafe(run)) {
            Ok(result) => {
                let summary = result?;
                let mut live = self.live();
                (live.status, live.elapsed) = (Some(summary.status), summary.elapsed);
                Ok(())
            }
            Err(panic) => Err(panicked("the pipeline", &*panic)),
        }
    }
}

/// What a pipeline is said to be when it does not run.
pub fn resting(wanted: &Wanted, since: &str) -> (State, Option<Reason>) {
    match wanted {
        Wanted::Running => (State::Initial, None),
        Wanted::Paused(words) => {
            let reason = words.clone().map(|words| Reason::words(words, since.to_owned()));
            (State::Paused, reason)
        }
        Wanted::Gone(_) => (State::Removing, None),
    }
}

// What is behind these locks is replaced as a whole, so a panic can't leave it half-changed.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
