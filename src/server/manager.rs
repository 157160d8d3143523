//! The pipelines of a server: made, changed, paused, resumed, removed, and brought back when it starts.
//!
//! What is wanted of a pipeline is durable before anything is done about it, so a server that is killed at any moment goes on
//! with what was wanted. Changes of one pipeline come one after another; those of different ones don't wait for each other.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::Value;
use tokio::runtime::Handle;
use tokio::sync::watch;

use super::book::{Book, Record, StateOf, Wanted};
use super::definition::{self, Rules};
use super::unit::{self, Unit};
use super::view::{Reason, State, View};
use crate::dataflow::host::Host;
use crate::error::{Error, Kind, Result};

mod change;

/// How often each run looks at itself: with many of them that is most of what idle ones cost.
const LOOK: Duration = Duration::from_millis(500);

/// What a manager is told once.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The folder of the server's own store.
    pub store: PathBuf,
    /// What definitions may do.
    pub rules: Rules,
    /// How often a pipeline is started again after failures in a row, where its definition does not say.
    pub attempts: usize,
    /// Of what is kept with a pipeline: why that is not to run when the manager is opened, although it ran before; `None`: it
    /// is.
    pub held_back: fn(&Value) -> Option<String>,
}

/// What comes with a definition.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// A new pipeline is paused from the beginning, for this reason. One that is there already stays as it is.
    pub paused: Option<String>,
    /// What to keep with the pipeline, in place of what is kept; `None`: that stays. It may hold secrets.
    pub extra: Option<Value>,
    /// The pipeline must not be there yet.
    pub must_be_new: bool,
}

/// What came of a definition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// There is a new pipeline.
    Created,
    /// It was so already.
    Unchanged,
    /// It is another one now, and was started again if it ran.
    Changed,
}

/// The pipelines of a server. A clone is the same manager.
#[derive(Clone)]
pub struct Manager(Arc<Inner>);

struct Inner {
    settings: Settings,
    host: Host,
    runtime: Handle,
    book: Book,
    units: Mutex<BTreeMap<String, Arc<Unit>>>,
    gates: Mutex<BTreeMap<String, Arc<Mutex<()>>>>,
    /// Held by whoever gives a pipeline its state folder, until that is seen in `units`.
    folders: Mutex<()>,
    closing: AtomicBool,
    /// Counts up when a pipeline comes or goes.
    changes: watch::Sender<u64>,
}

impl Manager {
    /// Opens the store and brings all pipelines back. Their calls are made on the threads of `runtime`.
    ///
    /// # Errors
    /// `Checkpoint`: the store can't be used. A pipeline that can't be brought back is no error: it says so itself.
    pub fn open(settings: Settings, runtime: Handle) -> Result<Manager> {
        let (book, records) = Book::open(&settings.store)?;
        let manager = Manager(Arc::new(Inner {
            host: Host::shared(runtime.clone(), LOOK),
            settings,
            runtime,
            book,
            units: Mutex::default(),
            gates: Mutex::default(),
            folders: Mutex::default(),
            closing: AtomicBool::new(false),
            changes: watch::Sender::new(0),
        }));
        for (name, record) in records {
            manager.0.bring_back(&name, record)?;
        }
        Ok(manager)
    }

    /// Makes the pipeline `name` be as `definition` says, which is what a pipeline file would say. The same once more changes
    /// nothing.
    ///
    /// # Errors
    /// `PipelineFile`: the definition is wrong; each problem is a part of the error, with its key. `Conflict`: the pipeline is
    /// there, and can't become that; or it is being removed.
    pub async fn put(&self, name: &str, definition: Value, options: Options) -> Result<Outcome> {
        self.beside(name, move |inner, name| inner.put(name, definition, options)).await
    }

    /// The pipeline `name`.
    pub fn get(&self, name: &str) -> Option<View> {
        self.unit(name).map(|unit| unit.view())
    }

    /// All pipelines, by name.
    pub fn list(&self) -> Vec<View> {
        self.units().iter().map(|(_, unit)| unit.view()).collect()
    }

    /// Stops the pipeline `name` until it is resumed, also over a start of the server. Returns once nothing of it is in
    /// flight. One that is paused already gets the new reason.
    ///
    /// # Errors
    /// `NotFound`, and `Conflict` if it is being removed.
    pub async fn pause(&self, name: &str, reason: Option<String>) -> Result<View> {
        self.beside(name, move |inner, name| {
            inner.change(name, Wanted::Paused(reason), |unit, _| {
                unit.stop();
            })
        })
        .await
    }

    /// Runs the pipeline `name` again, at once if it has failed.
    ///
    /// # Errors
    /// `NotFound`; `Conflict` if it is being removed; `PipelineFile` if its definition does not hold any more.
    pub async fn resume(&self, name: &str) -> Result<View> {
        self.beside(name, move |inner, name| {
            inner.read_again(name)?;
            inner.change(name, Wanted::Running, |unit, inner| {
                let state = unit.live().state;
                if matches!(state, State::Retrying | State::Failed) {
                    unit.stop();
                }
                inner.start(unit);
            })
        })
        .await
    }

    /// Removes the pipeline `name`; its target stays as it is. Returns what was removed with it, in words.
    ///
    /// # Errors
    /// `NotFound`; and with `StateOf::Remove` whatever keeps its state or subscriptions from being removed: then it stays
    /// there, stopped, and can be removed again.
    pub async fn remove(&self, name: &str, state: StateOf) -> Result<Vec<String>> {
        self.beside(name, move |inner, name| inner.remove(name, state)).await
    }

    /// The pipelines themselves, by name.
    pub fn units(&self) -> Vec<(String, Arc<Unit>)> {
        lock(&self.0.units).iter().map(|(name, unit)| (name.clone(), Arc::clone(unit))).collect()
    }

    /// The pipeline `name` itself.
    pub fn unit(&self, name: &str) -> Option<Arc<Unit>> {
        lock(&self.0.units).get(name).cloned()
    }

    /// Tells of pipelines that come or go.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.0.changes.subscribe()
    }

    /// Whether it is being closed.
    pub fn is_closing(&self) -> bool {
        self.0.closing.load(Ordering::Acquire)
    }

    /// Stops all pipelines, side by side, and waits until they have. They run again when the server is started again.
    pub async fn close(&self) {
        self.0.closing.store(true, Ordering::Release);
        self.0.changes.send_modify(|changes| *changes += 1);
        let units = self.units();
        units.iter().for_each(|(_, unit)| unit.ask_to_stop());
        let stopped = self.0.runtime.spawn_blocking(move || units.iter().for_each(|(_, unit)| unit.stop()));
        if stopped.await.is_err() {
            tracing::error!("a pipeline could not be stopped");
        }
    }

    /// Does what may block where blocking is allowed, while nobody else changes the pipeline `name`.
    async fn beside<T: Send + 'static>(
        &self,
        name: &str,
        act: impl FnOnce(&Arc<Inner>, &str) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (inner, name) = (Arc::clone(&self.0), name.to_owned());
        let task = self.0.runtime.spawn_blocking(move || inner.alone(&name, |name| act(&inner, name)));
        task.await
            .map_err(|error| Error::new(Kind::Internal, "the request was not finished").caused_by(error))?
    }
}

impl Inner {
    /// Does it while nobody else changes the pipeline `name`.
    fn alone<T>(&self, name: &str, act: impl FnOnce(&str) -> Result<T>) -> Result<T> {
        let gate = Arc::clone(lock(&self.gates).entry(name.to_owned()).or_default());
        let passed = lock(&gate);
        let result = if self.closing.load(Ordering::Acquire) { Err(closing()) } else { act(name) };
        drop(passed);
        drop(gate);
        // Names that nobody works with any more are forgotten: they may be anything.
        lock(&self.gates).retain(|_, gate| Arc::strong_count(gate) > 1);
        result
    }

    /// What the book says of the pipeline `name` goes on.
    fn bring_back(self: &Arc<Self>, name: &str, mut record: Record) -> Result<()> {
        if record.wanted == Wanted::Running
            && let Some(reason) = (self.settings.held_back)(&record.extra)
        {
            record.wanted = Wanted::Paused(Some(reason));
            self.book.put(name, &record)?;
        }
        let mut definition = record.definition.clone();
        let read = definition::read(name, &mut definition, &self.settings.rules);
        let (pipeline, error) = match read {
            Ok(pipeline) => (Some(Arc::new(pipeline)), None),
            Err(error) => (None, Some(error)),
        };
        let wanted = record.wanted.clone();
        let (state, reason) = unit::resting(&wanted, &record.changed);
        let unit = Unit::new(name, record, pipeline);
        unit.set_state(state, reason);
        unit.look_for_floor();
        lock(&self.units).insert(name.to_owned(), Arc::clone(&unit));
        match (wanted, error) {
            (Wanted::Running, Some(error)) => {
                tracing::error!(pipeline = name, "{}", error.report());
                unit.set_state(State::Failed, Some(Reason::of(&error)));
            }
            (Wanted::Running, None) => self.start(&unit),
            (Wanted::Paused(_), _) => {}
            (Wanted::Gone(state), _) => {
                let (inner, name) = (Arc::clone(self), name.to_owned());
                self.runtime.spawn_blocking(move || {
                    if let Err(error) = inner.alone(&name, |name| inner.remove(name, state)) {
                        tracing::error!(pipeline = name, "{}", error.report());
                    }
                });
            }
        }
        Ok(())
    }

    fn start(&self, unit: &Arc<Unit>) {
        if !self.closing.load(Ordering::Acquire) {
            unit.start(&self.host, self.settings.attempts);
        }
    }
}

fn closing() -> Error {
    Error::new(Kind::Unavailable, "the server is being stopped").hint("try again once it is back")
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
