//! Running a pipeline: from the file to the last commit.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use timely::scheduling::SyncActivator;
use tokio::runtime::Runtime;
use tokio::sync::watch;

use super::channels::{ChannelNow, Channels};
use super::checkpoint::{self, Checkpoint, Update, Writer};
use super::credits::Credits;
use super::directory::Directory;
use super::failure::Failure;
use super::graph::{Ends, build};
use super::progress::{Now, Progress};
use super::shared::Shared;
use super::world::{RealWorld, World};
use crate::check;
use crate::error::{Error, Kind, Result};
use crate::milvus::tso::Tso;
use crate::ops::apply::Apply;
use crate::ops::apply::lanes::Limits;
use crate::ops::follow::Entry;
use crate::pipeline::{MqConfig, Pipeline, StartAt, TargetConfig};
use crate::sinks;
use crate::sources::catalog::CatalogSource;
use crate::sources::{self, Context};

/// The worker looks around this often even if nothing wakes it.
const PARK: Duration = Duration::from_millis(100);

/// A stop that takes longer is cut short; the next start repairs what that leaves.
const STOP_WITHIN: Duration = Duration::from_secs(9);

/// When to stop by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// Never.
    Forever,
    /// Once everything that was in the log at the start is applied.
    CaughtUp,
    /// Once everything up to this is applied; nothing later is.
    Time(Tso),
}

/// What is shown while a pipeline runs.
#[derive(Clone, Debug)]
pub struct Status {
    /// Counted by the operators.
    pub now: Now,
    /// Where this run began.
    pub began_at: Tso,
    /// Bytes of the budget in use.
    pub held_bytes: u64,
    /// The most bytes of it that were ever in use.
    pub peak_bytes: u64,
    /// The budget.
    pub budget: u64,
    /// Each channel that is read.
    pub channels: Vec<ChannelNow>,
}

/// How a run ended.
#[derive(Clone, Debug)]
pub struct Summary {
    /// The last status.
    pub status: Status,
    /// How long it ran.
    pub elapsed: Duration,
}

/// Runs `pipeline` until `until`, an error, or `stop` being set. `observe` is called a few times a second.
pub fn run(
    pipeline: &Pipeline,
    until: Until,
    stop: &Arc<AtomicBool>,
    mut observe: impl FnMut(&Status),
) -> Result<Summary> {
    let started = Instant::now();
    let (writer, mut checkpoint) = checkpoint::open(&pipeline.state_dir, pipeline)?;
    let first = checkpoint.frontier.is_none();
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().map_err(
            |cause| Error::new(Kind::Internal, "can't start the runtime for calls").caused_by(cause),
        )?;
    let sink = runtime.block_on(sinks::connect(&pipeline.target))?;
    let select = pipeline.select.clone();
    let source = CatalogSource::connect(&pipeline.source, move |name| select.matches(name));
    let catalog = runtime.block_on(source)?.resume(checkpoint.applied.clone());
    let recognised = checkpoint.recognise(&runtime.block_on(catalog.standing())?)?;
    let read = runtime.block_on(catalog.read())?.catalog;
    let adopt = matches!(&pipeline.target, TargetConfig::Milvus(target) if target.adopt);
    let mut obstacles = runtime.block_on(check::obstacles(&*sink, &read, &checkpoint, adopt))?;
    if checkpoint.frontier.is_none() {
        obstacles.extend(check::stray_positions(&pipeline.source, &read));
    }
    if let Some(error) = check::as_error(obstacles) {
        return Err(error);
    }
    if let Update::Source(source) = recognised {
        checkpoint.source = Some(source);
    }
    writer.write(vec![recognised])?;
    begin(pipeline, &writer, &mut checkpoint)?;
    let began_at = checkpoint.frontier.unwrap_or(Tso::ZERO);
    tracing::info!(
        pipeline = %pipeline.name,
        source = %catalog.describe(),
        target = %sink.describe(),
        collections = read.collections.len(),
        "{}",
        match (first, began_at) {
            (true, Tso::ZERO) => "starting".to_owned(),
            (true, after) => format!("starting with what is later than {after}"),
            (false, after) => format!("resuming after {after}"),
        }
    );

    let world: Arc<dyn World> = Arc::new(RealWorld(runtime.handle().clone()));
    let credits = Credits::new(budget(pipeline));
    let channels = Arc::new(Channels::default());
    let progress = Arc::new(Progress::new(began_at));
    let failure = Failure::default();
    let ended = Arc::new(AtomicBool::new(false));
    let (ticks_in, ticks) = watch::channel(Tso::ZERO);
    let (updates_in, updates) = crossbeam_channel::unbounded();
    let worker = Worker {
        pipeline: pipeline.clone(),
        credits: Arc::clone(&credits),
        channels: Arc::clone(&channels),
        progress: Arc::clone(&progress),
        world: Arc::clone(&world),
        failure: failure.clone(),
        stop: Arc::clone(stop),
        ended: Arc::clone(&ended),
        apply: Apply {
            sink,
            writer: writer.clone(),
            checkpoint,
            adopt,
            limits: Limits {
                max_calls: pipeline.delivery.max_calls,
                call_deadline: pipeline.delivery.call_deadline,
                seed: world.seed(),
            },
        },
        updates,
        ticks: ticks_in,
        ceiling: if let Until::Time(tso) = until { tso } else { Tso::MAX },
        seen: catalog.seen(),
    };
    let (wake_in, wake) = crossbeam_channel::bounded::<Result<SyncActivator>>(1);
    let thread = thread::Builder::new()
        .name("dataflow".into())
        .spawn(move || worker.run(move |wake| drop(wake_in.send(wake))))
        .map_err(|cause| Error::new(Kind::Internal, "can't start the dataflow's thread").caused_by(cause))?;
    if let Ok(Ok(wake)) = wake.recv() {
        let wake = Mutex::new(wake);
        let failure = failure.clone();
        runtime.spawn(async move {
            let out = move |update| {
                drop(updates_in.send(update));
                if let Ok(wake) = wake.lock() {
                    let _ = wake.activate();
                }
            };
            if let Err(error) = Box::pin(catalog.run(ticks, out)).await {
                failure.set(error);
            }
        });
    }

    let status = || Status {
        now: progress.now(),
        began_at,
        held_bytes: credits.held(),
        peak_bytes: credits.peak(),
        budget: credits.budget(),
        channels: channels.now(&credits),
    };
    while !thread.is_finished() {
        thread::sleep(Duration::from_millis(50));
        let status = status();
        if is_reached(until, &status.now) {
            stop.store(true, Ordering::Release);
        }
        channels.tell();
        observe(&status);
    }
    let clean = thread.join().map_err(|_| Error::new(Kind::Internal, "the dataflow panicked"))?;
    ended.store(true, Ordering::Release);
    finish(runtime, &writer, clean && !failure.is_set())?;
    if let Some(error) = failure.take() {
        return Err(error);
    }
    Ok(Summary { status: status(), elapsed: started.elapsed() })
}

/// The bytes that the dataflow may hold. What a broker's client has read ahead is not counted there, so a quarter is left
/// for that.
fn budget(pipeline: &Pipeline) -> u64 {
    let memory = pipeline.delivery.memory;
    match pipeline.source.mq {
        MqConfig::Rocksmq(_) => memory,
        MqConfig::Kafka(_) | MqConfig::Pulsar(_) => memory - memory / 4,
    }
}

/// Makes the beginning of a pipeline that starts at a time its frontier: what is not later is not to be applied, which
/// is what a frontier says. With a beginning for single channels, the latest of these is what nobody may go back behind.
fn begin(pipeline: &Pipeline, writer: &Writer, checkpoint: &mut Checkpoint) -> Result<()> {
    if checkpoint.frontier.is_some() {
        return Ok(());
    }
    let start = match pipeline.source.start {
        StartAt::Latest => Some(Tso::now()),
        StartAt::After(tso) => Some(tso),
        StartAt::Collection | StartAt::Earliest => None,
    };
    let positions = pipeline.source.positions.values().map(|position| position.time);
    let began = positions.chain(start).max();
    let mut updates: Vec<Update> = began.into_iter().map(Update::Began).collect();
    updates.extend(start.map(|start| Update::Frontier(start, BTreeMap::new())));
    if !updates.is_empty() {
        writer.write(updates)?;
    }
    (checkpoint.began, checkpoint.frontier) = (began, start);
    Ok(())
}

fn is_reached(until: Until, now: &Now) -> bool {
    match until {
        Until::Forever => false,
        Until::CaughtUp => now.head.is_some_and(|head| now.committed >= head),
        Until::Time(tso) => now.committed >= tso,
    }
}

fn finish(runtime: Runtime, writer: &Writer, clean: bool) -> Result<()> {
    runtime.shutdown_timeout(Duration::from_millis(500));
    if clean { writer.write(vec![Update::Clean]) } else { Ok(()) }
}

/// What the thread of the dataflow needs.
struct Worker {
    pipeline: Pipeline,
    credits: Arc<Credits>,
    channels: Arc<Channels>,
    progress: Arc<Progress>,
    world: Arc<dyn World>,
    failure: Failure,
    stop: Arc<AtomicBool>,
    ended: Arc<AtomicBool>,
    apply: Apply,
    updates: crossbeam_channel::Receiver<sources::catalog::CatalogUpdate>,
    ticks: watch::Sender<Tso>,
    ceiling: Tso,
    seen: Arc<AtomicI64>,
}

impl Worker {
    /// Builds the graph, steps it until it is to stop, and lets it finish what it has begun. Returns whether the
    /// target is left at a consistent cut with nothing in flight.
    fn run(self, built: impl FnOnce(Result<SyncActivator>) + Send + Sync + 'static) -> bool {
        let failure = self.failure.clone();
        timely::execute_directly(move |worker| {
            let directory = Arc::new(Directory::default());
            let delivery = &self.pipeline.delivery;
            let calls = u64::try_from(delivery.max_calls).unwrap_or(u64::MAX);
            let saturated_bytes =
                delivery.batch.saturating_mul(2).saturating_mul(calls).min(delivery.memory / 2);
            let shared = Rc::new(Shared::new(
                Arc::clone(&self.credits),
                Arc::clone(&self.channels),
                Arc::clone(&self.progress),
                directory,
                Arc::clone(&self.world),
                self.failure.clone(),
                Arc::clone(&self.stop),
                saturated_bytes,
            ));
            let mq = self.pipeline.source.mq.clone();
            let context = Context::new(
                Arc::clone(&self.credits),
                Arc::clone(&self.channels),
                Arc::clone(&self.ended),
                self.pipeline.state_dir.join("scratch"),
            );
            let ends = Ends {
                catalog: self.updates,
                log: Box::new(move |wake| {
                    let wake = Mutex::new(wake);
                    let wake = Arc::new(move || {
                        if let Ok(wake) = wake.lock() {
                            let _ = wake.activate();
                        }
                    });
                    sources::connect(&mq, Context { wake, ..context })
                }),
                ticks: self.ticks,
                apply: self.apply,
                delivery: delivery.clone(),
                entry: Entry {
                    start: self.pipeline.source.start,
                    positions: self.pipeline.source.positions.clone(),
                },
                ceiling: self.ceiling,
                seen: self.seen,
            };
            match build(worker, ends, &shared) {
                Ok(wake) => built(Ok(wake)),
                Err(error) => {
                    failure.set(error);
                    built(Err(Error::new(Kind::Internal, "the graph could not be built")));
                }
            }
            while !shared.is_stopping() {
                worker.step_or_park(Some(PARK));
            }
            let clean = settle(worker, &shared, &self.progress);
            for dataflow in worker.installed_dataflows() {
                worker.drop_dataflow(dataflow);
            }
            clean
        })
    }
}

/// Steps until what was begun is finished and recorded. Returns whether the target is at a consistent cut.
fn settle(worker: &mut timely::worker::Worker, shared: &Shared, progress: &Progress) -> bool {
    let deadline = Instant::now() + STOP_WITHIN;
    shared.activate_all();
    worker.step();
    while !shared.is_drained() {
        if Instant::now() > deadline {
            tracing::warn!("calls are still in flight; the next start settles what became of them");
            return false;
        }
        worker.step_or_park(Some(Duration::from_millis(20)));
        shared.activate_all();
    }
    // The last acknowledgements have to travel to `commit`, a few steps of the worker.
    for _ in 0..16 {
        shared.activate_all();
        worker.step();
    }
    while progress.now().committed < shared.committing() && Instant::now() < deadline && !shared.has_failed()
    {
        thread::sleep(Duration::from_millis(1));
    }
    shared.is_consistent()
}
