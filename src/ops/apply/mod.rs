//! `apply`: sends the work to the target and waits for its answers.
//!
//! Input: spans of work. Output: nothing but the frontier.
//! Capability held: that of each span until all of its calls are acknowledged.
//! What moves the frontier: acknowledgements. So the output's frontier **is** the durable frontier F.
//!
//! Calls run as tokio tasks; their results come back through a queue that wakes the operator.

use std::collections::{HashMap, HashSet, VecDeque};
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crossbeam_channel::Sender;
use futures_util::future::{Either, select};
use timely::container::CapacityContainerBuilder;
use timely::dataflow::Stream;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::Capability;
use timely::dataflow::operators::generic::operator::Operator;

use super::Parcel;
use super::coalesce::{SpanWork, Work};
use crate::dataflow::checkpoint::{Checkpoint, Update, Writer};
use crate::dataflow::shared::Shared;
use crate::error::{Error, Kind, Result};
use crate::failpoint::{self, Point};
use crate::milvus::catalog::{Catalog, CollectionId, Ddl};
use crate::milvus::channel::VChannel;
use crate::milvus::tso::Tso;
use crate::sinks::{Found, Sink};
use crate::sources::catalog::applied_after;

pub mod lanes;
pub mod pace;

use lanes::{Action, CallId, Lanes, Limits};

/// What the operator needs besides its input.
pub struct Apply {
    /// The target.
    pub sink: Arc<dyn Sink>,
    /// The checkpoint.
    pub writer: Writer,
    /// What it said at the start.
    pub checkpoint: Checkpoint,
    /// Whether collections that are there already may be taken over.
    pub adopt: bool,
    /// Settings.
    pub limits: Limits,
}

enum Event {
    Ended(CallId, Result<()>),
    Recorded(Vec<(VChannel, Tso)>, u64, Result<()>),
}

/// Builds the operator.
pub fn apply<'scope>(
    spans: Stream<'scope, Tso, Vec<Parcel<SpanWork>>>,
    apply: Apply,
    shared: Rc<Shared>,
) -> Stream<'scope, Tso, Vec<()>> {
    let worker = spans.scope().worker().clone();
    spans.unary_frontier::<CapacityContainerBuilder<Vec<()>>, _, _, _>(Pipeline, "apply", move |capability, info| {
        drop(capability);
        let activator = worker.activator_for(Rc::clone(&info.address));
        let wake = worker.sync_activator_for(info.address.to_vec());
        shared.set_apply_activator(worker.activator_for(Rc::clone(&info.address)));
        let (events_in, events) = crossbeam_channel::unbounded::<Event>();
        let world = Arc::clone(&shared.world);
        let wait = apply.checkpoint.calls_over_in(world.unix_now());
        let hold_until = (!wait.is_zero()).then(|| world.now() + wait);
        if hold_until.is_some() {
            tracing::info!(
                "the last run did not stop cleanly: waiting {:.1} s until none of its calls can still take effect",
                wait.as_secs_f64()
            );
        }
        let recorded: HashMap<VChannel, Tso> = if apply.checkpoint.clean {
            HashMap::new()
        } else {
            apply.checkpoint.sent_high.clone().into_iter().collect()
        };
        let mut lanes = Lanes::new(apply.limits, recorded, hold_until).named(apply.sink.names());
        let steps = Arc::new(Steps::new(&apply));
        let wake = Arc::new(Mutex::new(wake));
        let notify = move || {
            // A worker that has gone needs no waking.
            let _ = wake.lock().unwrap_or_else(PoisonError::into_inner).activate();
        };
        let mut holds: VecDeque<(u64, Capability<Tso>)> = VecDeque::new();
        move |(input, _frontier), output| {
            input.for_each(|cap, spans| {
                for span in spans.drain(..) {
                    let span = span.take();
                    shared.taken_span(span.bytes);
                    for work in &span.work {
                        if let Work::Batch(batch) = work {
                            let doubtful = batch.high <= apply.checkpoint.in_doubt_up_to(&batch.vchannel);
                            shared.progress.dispatched(batch, doubtful);
                        }
                    }
                    let Some(time) = cap.least().copied() else { continue };
                    let id = lanes.push(span);
                    holds.push_back((id, cap.delayed(&time, output.output_index())));
                }
            });
            let now = world.now();
            while let Ok(event) = events.try_recv() {
                match event {
                    Event::Recorded(highs, until, Ok(())) => {
                        lanes.recorded(highs, until);
                        failpoint::pass(Point::SentHighRecorded);
                    }
                    Event::Recorded(_, _, Err(error)) => shared.fail(error),
                    Event::Ended(id, result) => {
                        let outcome = lanes.ended(id, result, now);
                        if let Some(ended) = &outcome.ended {
                            shared.progress.ended(ended);
                        }
                        if let Some(batch) = outcome.done {
                            failpoint::pass(Point::CallAcknowledged);
                            shared.progress.applied(&batch);
                        }
                        if let Some(reason) = outcome.waiting {
                            tracing::warn!("waiting: {reason}");
                            shared.progress.waiting(Some(reason));
                        } else {
                            shared.progress.waiting(None);
                        }
                        if let Some(error) = outcome.fatal {
                            shared.fail(error);
                        }
                    }
                }
            }
            if shared.has_failed() {
                lanes.stop(true);
            } else if shared.is_stopping() {
                lanes.stop(false);
            }
            for action in lanes.next(now, world.unix_now()) {
                match action {
                    Action::Send(id, mut batch) => {
                        // What an adopted collection held before is not known, so nothing is inserted blindly.
                        if steps.has_adopted(batch.write.collection.id)
                            && let Err(error) = batch.make_repeatable()
                        {
                            shared.fail(error);
                        }
                        let sink = Arc::clone(&apply.sink);
                        let deadline = apply.limits.call_deadline;
                        let events_in = events_in.clone();
                        let notify = notify.clone();
                        let write = batch.write.clone();
                        let clock = Arc::clone(&world);
                        world.spawn(Box::pin(async move {
                            failpoint::pass(Point::CallBefore);
                            // What is recorded covers the time from the decision on, not from when the task had its turn.
                            let left = (now + deadline).saturating_duration_since(clock.now());
                            let name = &write.collection.name;
                            let result = if left.is_zero() {
                                let text = format!("a call for {name} had no turn within {deadline:?}");
                                Err(Error::new(Kind::Unavailable, text))
                            } else {
                                let call = failpoint::meanwhile(Point::CallSent, sink.write(&write, left));
                                match select(Box::pin(call), clock.sleep(left)).await {
                                    Either::Left((result, _)) => result,
                                    Either::Right(_) => {
                                        let text = format!("no answer within {deadline:?} to a call for {name}");
                                        Err(Error::new(Kind::InDoubt, text))
                                    }
                                }
                            };
                            failpoint::pass(Point::CallAnswered);
                            send(&events_in, Event::Ended(id, result), &notify);
                        }));
                    }
                    Action::Apply(id, ddl) => {
                        let steps = Arc::clone(&steps);
                        let events_in = events_in.clone();
                        let notify = notify.clone();
                        world.spawn(Box::pin(async move {
                            let result = steps.run(&ddl).await;
                            send(&events_in, Event::Ended(id, result), &notify);
                        }));
                    }
                    Action::Record(highs, until) => {
                        let events_in = events_in.clone();
                        let notify = notify.clone();
                        failpoint::pass(Point::SentHighBefore);
                        apply.writer.submit(vec![Update::SentHigh(highs.clone(), until)], move |result| {
                            failpoint::pass(Point::SentHighDurable);
                            send(&events_in, Event::Recorded(highs, until, result), &notify);
                        });
                    }
                }
            }
            let first = lanes.first_incomplete();
            while holds.front().is_some_and(|(id, _)| *id < first) {
                failpoint::pass(Point::SpanDone);
                holds.pop_front();
            }
            shared.set_load(&lanes);
            if let Some(at) = lanes.wake_at() {
                activator.activate_after(at.saturating_duration_since(now).max(Duration::from_millis(1)));
            }
        }
    })
}

fn send(events: &Sender<Event>, event: Event, notify: &impl Fn()) {
    // After a stop nobody listens, and nothing is lost by that: the checkpoint decides.
    drop(events.send(event));
    notify();
}

/// Brings steps of the catalog about, one collection's at a time, and records what was done.
struct Steps {
    sink: Arc<dyn Sink>,
    writer: Writer,
    adopt: bool,
    protected: bool,
    deadline: Duration,
    state: Mutex<State>,
}

struct State {
    applied: Catalog,
    intents: HashSet<CollectionId>,
    adopted: HashSet<CollectionId>,
}

impl Steps {
    fn new(apply: &Apply) -> Steps {
        let state = State {
            applied: apply.checkpoint.applied.clone(),
            intents: apply.checkpoint.intents.iter().filter_map(Ddl::collection).collect(),
            adopted: apply.checkpoint.adopted.iter().copied().collect(),
        };
        Steps {
            sink: Arc::clone(&apply.sink),
            writer: apply.writer.clone(),
            adopt: apply.adopt,
            protected: apply.limits.protected,
            deadline: apply.limits.call_deadline,
            state: Mutex::new(state),
        }
    }

    async fn run(&self, ddl: &Ddl) -> Result<()> {
        let is_default = matches!(ddl, Ddl::CreateDatabase(database) if database.name == "default");
        if !is_default {
            let on_target = ddl.collection_name().and_then(|name| self.sink.names().other(name));
            let on_target = on_target.map(|name| format!(" ({name} on the target)")).unwrap_or_default();
            tracing::info!("{}{on_target}", describe(ddl));
        }
        failpoint::pass(Point::DdlBefore);
        let adopted = ddl.collection().is_some_and(|id| self.has_adopted(id));
        if let Ddl::CreateCollection(collection) = ddl {
            let ours = self.lock(|state| {
                state.intents.contains(&collection.id)
                    || state.applied.collections.contains_key(&collection.id)
            });
            if !ours && self.sink.find(&collection.name).await? == Found::Collection {
                check_adoption(&*self.sink, self.adopt, collection).await?;
                failpoint::pass(Point::AdoptBefore);
                self.record(vec![Update::Adopted(collection.id)]).await?;
                failpoint::pass(Point::AdoptRecorded);
                self.lock(|state| state.adopted.insert(collection.id));
            }
        }
        let is_drop = matches!(ddl, Ddl::DropCollection { .. } | Ddl::DropPartition { .. });
        if is_drop && adopted {
            let name = ddl.collection_name().map(ToString::to_string).unwrap_or_default();
            tracing::warn!(
                "{name} was there before this pipeline, so what was dropped at the source is kept on the target"
            );
        } else {
            self.begin(ddl, is_drop).await?;
            self.sink.apply(ddl, self.deadline).await?;
        }
        failpoint::pass(Point::DdlApplied);
        self.record(vec![Update::Applied(ddl.clone(), self.applied(ddl))]).await?;
        failpoint::pass(Point::DdlRecorded);
        Ok(())
    }

    /// Puts on record that `ddl` is about to begin: a start after a crash finishes it, so that what is on the target is
    /// what the record says.
    async fn begin(&self, ddl: &Ddl, is_drop: bool) -> Result<()> {
        if !self.protected {
            return Ok(());
        }
        let mut updates = vec![Update::Intent(ddl.clone())];
        if is_drop {
            // Rows from before the drop come again after a crash, and would look in vain for what is gone. So it is
            // gone from the catalog first, and then nobody knows these rows.
            updates.insert(0, Update::Applied(ddl.clone(), self.applied(ddl)));
        }
        failpoint::pass(Point::IntentBefore);
        self.record(updates).await?;
        failpoint::pass(Point::IntentRecorded);
        self.lock(|state| state.intents.extend(ddl.collection()));
        Ok(())
    }

    /// The catalog with `ddl` brought about.
    fn applied(&self, ddl: &Ddl) -> Arc<Catalog> {
        self.lock(|state| {
            applied_after(&mut state.applied, ddl);
            Arc::new(state.applied.clone())
        })
    }

    fn has_adopted(&self, collection: CollectionId) -> bool {
        self.lock(|state| state.adopted.contains(&collection))
    }

    async fn record(&self, updates: Vec<Update>) -> Result<()> {
        let (done, wait) = tokio::sync::oneshot::channel();
        self.writer.submit(updates, move |result| drop(done.send(result)));
        wait.await.map_err(|_| Error::new(Kind::Internal, "the checkpoint's writer has ended"))?
    }

    fn lock<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        act(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Whether `wanted` may be written to the collection of its name that is on the target already.
pub async fn check_adoption(
    sink: &dyn Sink,
    adopt: bool,
    wanted: &crate::milvus::catalog::Collection,
) -> Result<()> {
    let name = sink.names().collection(&wanted.name);
    if !adopt {
        return Err(Error::new(
            Kind::Conflict,
            format!("the target already has a collection {name} that this pipeline did not create"),
        )
        .hint(
            "drop or rename it, exclude it from the selection, or set adopt = true under [target] \
             to write into it if its schema matches",
        ));
    }
    let differences = sink.differences(wanted).await?;
    if differences.is_empty() {
        return Ok(());
    }
    Err(Error::new(
        Kind::Conflict,
        format!("the target's collection {name} can't be adopted, it differs: {}", differences.join("; ")),
    )
    .hint("make its schema equal to the source's, or drop it and let migrans create it"))
}

/// A step in words.
pub fn describe(ddl: &Ddl) -> String {
    match ddl {
        Ddl::CreateDatabase(database) => format!("create database {}", database.name),
        Ddl::DropDatabase { name, .. } => format!("drop database {name}"),
        Ddl::CreateCollection(collection) => format!("create collection {}", collection.name),
        Ddl::DropCollection { name, .. } => format!("drop collection {name}"),
        Ddl::CreatePartition { name, partition, .. } => {
            format!("create partition {} of {name}", partition.name)
        }
        Ddl::DropPartition { name, partition, .. } => format!("drop partition {partition} of {name}"),
        Ddl::CreateIndex { name, index, .. } => {
            format!("create index {} on {name}.{}", index.name, index.field)
        }
        Ddl::DropIndex { name, index, .. } => format!("drop index {} on {name}.{}", index.name, index.field),
        Ddl::SetLoad { name, to: Some(load), .. } => match &load.partitions {
            None => format!("load {name} with {} replica(s)", load.replicas),
            Some(partitions) => format!("load {} partition(s) of {name}", partitions.len()),
        },
        Ddl::SetLoad { name, to: None, .. } => format!("release {name}"),
        Ddl::SetProperties { name, .. } => format!("set properties of {name}"),
        Ddl::SetDatabaseProperties { name, .. } => format!("set properties of database {name}"),
        Ddl::RenameCollection { name, to, .. } => format!("rename collection {name} to {to}"),
        Ddl::SetAlias { alias, name, .. } => format!("let the alias {alias} stand for {name}"),
        Ddl::DropAlias { alias, .. } => format!("drop the alias {alias}"),
        Ddl::AlterIndex { name, index, .. } => {
            format!("alter index {} on {name}.{}", index.name, index.field)
        }
        Ddl::Access(step) => step.to_string(),
    }
}
