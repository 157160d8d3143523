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
use super::view::{Reason, State, View, now};
use crate::dataflow::host::Host;
use crate::error::{Error, Kind, Part, Result};
use crate::pipeline::{Pipeline, keys};
use crate::remove;

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
            closing: AtomicBool::new(false),
            changes: watch::Sender::new(0),
        }));
        for (name, record) in records {
            manager.0.bring_back(&name, record);
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
                if unit.live().state == State::Retrying {
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

    fn bring_back(self: &Arc<Self>, name: &str, record: Record) {
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
    }

    fn start(&self, unit: &Arc<Unit>) {
        if !self.closing.load(Ordering::Acquire) {
            unit.start(&self.host, self.settings.attempts);
        }
    }

    fn put(&self, name: &str, mut definition: Value, options: Options) -> Result<Outcome> {
        let pipeline = definition::read(name, &mut definition, &self.settings.rules)?;
        let Some(unit) = self.unit(name) else { return self.create(name, pipeline, definition, options) };
        let mut record = unit.record();
        check_not_gone(name, &record)?;
        if options.must_be_new {
            let message = format!("there is a pipeline {name:?} already");
            return Err(Error::new(Kind::Conflict, message).hint("choose another name, or remove that one"));
        }
        let is_same = record.definition == definition && unit.pipeline().is_some();
        if let Some(extra) = options.extra {
            record.extra = extra;
        }
        if is_same {
            if record != unit.record() {
                self.book.put(name, &record)?;
                unit.keep(record, unit.pipeline());
            }
            return Ok(Outcome::Unchanged);
        }
        definition::check_change(&pipeline, &record.fingerprint)?;
        self.check_folder(name, &pipeline)?;
        (record.definition, record.changed) = (definition, now());
        self.book.put(name, &record)?;
        unit.stop();
        let wanted = record.wanted.clone();
        unit.keep(record, Some(Arc::new(pipeline)));
        tracing::info!(pipeline = name, "changed");
        if wanted == Wanted::Running {
            self.start(&unit);
        }
        Ok(Outcome::Changed)
    }

    fn create(&self, name: &str, pipeline: Pipeline, definition: Value, options: Options) -> Result<Outcome> {
        self.check_folder(name, &pipeline)?;
        let now = now();
        let record = Record {
            definition,
            fingerprint: pipeline.fingerprint(),
            wanted: options.paused.map_or(Wanted::Running, |reason| Wanted::Paused(Some(reason))),
            extra: options.extra.unwrap_or_default(),
            created: now.clone(),
            changed: now,
        };
        self.book.put(name, &record)?;
        let (state, reason) = unit::resting(&record.wanted, &record.changed);
        let is_running = record.wanted == Wanted::Running;
        let unit = Unit::new(name, record, Some(Arc::new(pipeline)));
        unit.set_state(state, reason);
        unit.look_for_floor();
        lock(&self.units).insert(name.to_owned(), Arc::clone(&unit));
        tracing::info!(pipeline = name, "created");
        if is_running {
            self.start(&unit);
        }
        self.changes.send_modify(|changes| *changes += 1);
        Ok(Outcome::Created)
    }

    /// Reads the definition once more if it could not be read: what it refers to may be there now.
    fn read_again(&self, name: &str) -> Result<()> {
        let unit = self.find(name)?;
        let record = unit.record();
        if unit.pipeline().is_none() {
            let mut definition = record.definition.clone();
            let pipeline = definition::read(name, &mut definition, &self.settings.rules)?;
            unit.keep(record, Some(Arc::new(pipeline)));
        }
        Ok(())
    }

    fn change(&self, name: &str, wanted: Wanted, act: impl FnOnce(&Arc<Unit>, &Inner)) -> Result<View> {
        let unit = self.find(name)?;
        let mut record = unit.record();
        check_not_gone(name, &record)?;
        if record.wanted != wanted {
            record.wanted = wanted.clone();
            self.book.put(name, &record)?;
            unit.keep(record, unit.pipeline());
        }
        act(&unit, self);
        if let Wanted::Paused(reason) = &wanted {
            tracing::info!(pipeline = name, reason = reason.as_deref(), "paused");
            let (state, reason) = unit::resting(&wanted, &now());
            unit.set_state(state, reason);
        }
        Ok(unit.view())
    }

    fn remove(&self, name: &str, state: StateOf) -> Result<Vec<String>> {
        let unit = self.find(name)?;
        let mut record = unit.record();
        let wanted = Wanted::Gone(state);
        if record.wanted != wanted {
            record.wanted = wanted;
            self.book.put(name, &record)?;
            unit.keep(record, unit.pipeline());
        }
        unit.stop();
        unit.set_state(State::Removing, None);
        let removed = match (state, unit.pipeline()) {
            (StateOf::Keep, _) => Ok(Vec::new()),
            (StateOf::Remove, Some(pipeline)) => remove::remove(&pipeline),
            (StateOf::Remove, None) => {
                let message =
                    format!("the definition of {name:?} can't be read any more, so its state is not found");
                Err(Error::new(Kind::PipelineFile, message).hint("remove it with state=keep"))
            }
        };
        let removed =
            removed.inspect_err(|error| unit.set_state(State::Removing, Some(Reason::of(error))))?;
        self.book.delete(name)?;
        lock(&self.units).remove(name);
        tracing::info!(pipeline = name, ?removed, "removed");
        self.changes.send_modify(|changes| *changes += 1);
        Ok(removed)
    }

    fn unit(&self, name: &str) -> Option<Arc<Unit>> {
        lock(&self.units).get(name).cloned()
    }

    fn find(&self, name: &str) -> Result<Arc<Unit>> {
        self.unit(name).ok_or_else(|| Error::new(Kind::NotFound, format!("there is no pipeline {name:?}")))
    }

    /// Two pipelines can't share a state folder.
    fn check_folder(&self, name: &str, pipeline: &Pipeline) -> Result<()> {
        let units = lock(&self.units);
        let other = units.iter().find(|(other, unit)| {
            *other != name
                && unit.pipeline().is_some_and(|other| {
                    other.state_dir.starts_with(&pipeline.state_dir)
                        || pipeline.state_dir.starts_with(&other.state_dir)
                })
        });
        let Some((other, _)) = other else { return Ok(()) };
        let message = format!("\"state_dir\" is that of the pipeline {other:?}, or one is within the other");
        let hint = "leave it out";
        let part =
            Part { key: Some(keys::STATE_DIR.path()), message: message.clone(), hint: Some(hint.to_owned()) };
        Err(Error::new(Kind::Conflict, message).hint(hint).with_parts(vec![part]))
    }
}

fn check_not_gone(name: &str, record: &Record) -> Result<()> {
    match record.wanted {
        Wanted::Gone(_) => Err(Error::new(Kind::Conflict, format!("the pipeline {name:?} is being removed"))
            .hint("remove it again to see what keeps that from being finished")),
        _ => Ok(()),
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
