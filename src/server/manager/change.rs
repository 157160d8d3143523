//! What is done to one pipeline, while nobody else changes it.

use std::sync::Arc;

use serde_json::Value;

use super::{Inner, Options, Outcome, lock};
use crate::error::{Error, Kind, Part, Result};
use crate::pipeline::{Pipeline, keys};
use crate::remove;
use crate::server::book::{Record, StateOf, Wanted};
use crate::server::definition;
use crate::server::unit::{self, Unit};
use crate::server::view::{Reason, State, View, now};

impl Inner {
    /// See [`super::Manager::put`].
    pub(super) fn put(&self, name: &str, mut definition: Value, options: Options) -> Result<Outcome> {
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
        let wanted = record.wanted.clone();
        {
            let _alone = lock(&self.folders);
            self.check_folder(name, &pipeline)?;
            (record.definition, record.changed) = (definition, now());
            self.book.put(name, &record)?;
            unit.keep(record, Some(Arc::new(pipeline)));
        }
        unit.stop();
        tracing::info!(pipeline = name, "changed");
        if wanted == Wanted::Running {
            self.start(&unit);
        }
        Ok(Outcome::Changed)
    }

    fn create(&self, name: &str, pipeline: Pipeline, definition: Value, options: Options) -> Result<Outcome> {
        let alone = lock(&self.folders);
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
        drop(alone);
        tracing::info!(pipeline = name, "created");
        if is_running {
            self.start(&unit);
        }
        self.changes.send_modify(|changes| *changes += 1);
        Ok(Outcome::Created)
    }

    /// Reads the definition once more if it could not be read: what it refers to may be there now.
    pub(super) fn read_again(&self, name: &str) -> Result<()> {
        let unit = self.find(name)?;
        let record = unit.record();
        if unit.pipeline().is_none() {
            let mut definition = record.definition.clone();
            let pipeline = definition::read(name, &mut definition, &self.settings.rules)?;
            unit.keep(record, Some(Arc::new(pipeline)));
        }
        Ok(())
    }

    /// Makes `wanted` durable, then does it.
    pub(super) fn change(
        &self,
        name: &str,
        wanted: Wanted,
        act: impl FnOnce(&Arc<Unit>, &Inner),
    ) -> Result<View> {
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

    /// See [`super::Manager::remove`].
    pub(super) fn remove(&self, name: &str, state: StateOf) -> Result<Vec<String>> {
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
