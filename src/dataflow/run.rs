//! Running a pipeline: from the file to the last commit.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::RecvTimeoutError;
use timely::scheduling::SyncActivator;
use tokio::sync::watch;

use super::channels::{ChannelNow, Channels};
use super::checkpoint::{self, Checkpoint, Store, Update, Writer};
use super::credits::Credits;
use super::directory::Directory;
use super::failure::Failure;
use super::graph::{Ends, build};
use super::host::{Host, Tasks, panicked};
use super::progress::{Now, Progress};
use super::shared::Shared;
use super::unprotected;
use super::world::{RealWorld, World};
use crate::check;
use crate::clock::Clock;
use crate::error::{Disposition, Error, Kind, Result};
use crate::failpoint::{self, Point};
use crate::milvus::tso::Tso;
use crate::ops::apply::lanes::Limits;
use crate::ops::apply::{Apply, describe};
use crate::ops::follow::Entry;
use crate::ownership::{Candidate, Fence, Standing, Term, election};
use crate::pipeline::{MqConfig, Pipeline, StartAt, TargetConfig};
use crate::sinks::{self, Sink};
use crate::sources::catalog::{CatalogSource, applied_after};
use crate::sources::{self, Context};

/// The worker looks around this often even if nothing wakes it, or as often as the run looks at itself if that is less often.
const PARK: Duration = Duration::from_millis(100);

/// How often a step that the last run had begun is tried, and the pause between.
const FINISH_ATTEMPTS: u32 = 30;
const FINISH_PAUSE: Duration = Duration::from_secs(1);

/// A stop that takes longer is cut short; the next start repairs what that leaves.
const STOP_WITHIN: Duration = Duration::from_secs(9);

/// A run that may end by itself looks at itself this often at least.
const QUICK_LOOK: Duration = Duration::from_millis(50);

/// How long a stop waits until the target shows what it holds.
const SETTLE_WITHIN: Duration = Duration::from_secs(5);

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
#[derive(Clone, Debug, Default)]
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
    /// Who owns the pipeline, where that is not for the state folder alone to decide.
    pub standing: Option<Standing>,
}

impl Status {
    fn standing_by(standing: Standing) -> Status {
        Status { standing: Some(standing), ..Status::default() }
    }
}

/// How a run ended.
#[derive(Clone, Debug)]
pub struct Summary {
    /// The last status.
    pub status: Status,
    /// How long it ran.
    pub elapsed: Duration,
}

/// Runs `pipeline` on `host` until `until`, an error, or `stop` being set. `observe` is called whenever the host has it
/// look at itself.
///
/// With `[ownership]` it first stands by until no other process owns the pipeline.
pub fn run(
    pipeline: &Pipeline,
    until: Until,
    stop: &Arc<AtomicBool>,
    host: &Host,
    mut observe: impl FnMut(&Status),
) -> Result<Summary> {
    let started = Instant::now();
    let store = Store::open(&pipeline.state_dir)?;
    let tasks = host.tasks();
    // What ends the ownership, and the run by itself, is to be noticed soon.
    let quick = pipeline.ownership.is_some() || until != Until::Forever;
    let look = if quick { host.look().min(QUICK_LOOK) } else { host.look() };
    let Some(mut candidate) = Candidate::new(pipeline)? else {
        let (writer, checkpoint) = checkpoint::open(store, pipeline)?;
        let Some(ends) = connect(pipeline, Fence::open(), &tasks, stop)? else {
            return Ok(Summary { status: Status::default(), elapsed: started.elapsed() });
        };
        return Run { pipeline, until, stop, started, look, tasks, ends, term: None }.go(
            writer,
            checkpoint,
            &mut observe,
        );
    };
    candidate.check_definition(pipeline)?;
    // Before it stands by: what keeps it from connecting is to be found out now.
    let ends = connect(pipeline, candidate.fence(), &tasks, stop)?;
    let term = candidate.stand_by(pipeline, stop, |standing| observe(&Status::standing_by(standing)))?;
    let (Some(term), Some(ends)) = (term, ends) else {
        return Ok(Summary { status: Status::default(), elapsed: started.elapsed() });
    };
    let (writer, checkpoint) = match take_over(pipeline, store, &term) {
        Ok(opened) => opened,
        Err(error) => {
            // Nothing has been sent.
            term.release();
            return Err(error);
        }
    };
    Run { pipeline, until, stop, started, look, tasks, ends, term: Some(term) }.go(
        writer,
        checkpoint,
        &mut observe,
    )
}

/// The source's catalog and the target.
struct Connected {
    sink: Arc<dyn Sink>,
    source: CatalogSource,
}

/// Connects, unless `stop` is set before that is done.
fn connect(pipeline: &Pipeline, fence: Fence, tasks: &Tasks, stop: &AtomicBool) -> Result<Option<Connected>> {
    let connected = async {
        let sink = sinks::connect(&pipeline.target, fence).await?;
        let select = pipeline.select.clone();
        let source = CatalogSource::connect(&pipeline.source, move |name| select.matches(name)).await?;
        Ok(Some(Connected { sink, source: source.with_access(pipeline.catalog.rbac) }))
    };
    let stopped = async {
        while !stop.load(Ordering::Acquire) {
            tokio::time::sleep(QUICK_LOOK).await;
        }
    };
    tasks.block_on(async {
        tokio::select! {
            connected = connected => connected,
            () = stopped => Ok(None),
        }
    })
}

/// The checkpoint as the owner before left it.
pub fn take_over(pipeline: &Pipeline, store: Store, term: &Term) -> Result<(Writer, Checkpoint)> {
    let (replica, found) = term.replica()?;
    let (writer, mut checkpoint) =
        checkpoint::open_shared(store, Box::new(replica), found, pipeline, term.epoch(), &term.place())?;
    // By our own clock: that of the owner before may be another one.
    if let Some(settles) = term.settles_in().filter(|_| !checkpoint.clean) {
        let settles = u64::try_from(settles.as_millis()).unwrap_or(u64::MAX);
        checkpoint.calls_until = Clock::go_on(checkpoint.clock.as_ref()).unix_now().saturating_add(settles);
    }
    Ok((writer, checkpoint))
}

/// A run that owns its pipeline.
struct Run<'a> {
    pipeline: &'a Pipeline,
    until: Until,
    stop: &'a Arc<AtomicBool>,
    started: Instant,
    look: Duration,
    tasks: Tasks,
    ends: Connected,
    term: Option<Term>,
}

impl Run<'_> {
    fn go(
        self,
        writer: Writer,
        mut checkpoint: Checkpoint,
        observe: &mut dyn FnMut(&Status),
    ) -> Result<Summary> {
        let was_clean = checkpoint.clean;
        match self.prepare(&writer, &mut checkpoint) {
            Ok(()) => self.follow(writer, checkpoint, observe),
            Err(error) => {
                if let Some(term) = self.term {
                    // Nothing has been sent in this term: what was so before it still is.
                    if was_clean && let Err(error) = writer.write(vec![Update::Clean]) {
                        tracing::warn!("{}", error.report());
                    }
                    drop(writer);
                    term.release();
                }
                Err(error)
            }
        }
    }

    /// Looks whether anything stands in the way, and where to begin.
    fn prepare(&self, writer: &Writer, checkpoint: &mut Checkpoint) -> Result<()> {
        let Run { pipeline, tasks, ends: Connected { sink, source }, .. } = self;
        let first = checkpoint.frontier.is_none();
        unprotected::check(!first)?;
        tasks.block_on(finish_steps(&**sink, writer, checkpoint, call_deadline(pipeline)))?;
        let recognised = checkpoint.recognise(&tasks.block_on(source.standing())?)?;
        let read = tasks.block_on(source.read())?.catalog;
        let adopt = adopts(pipeline);
        let mut obstacles = tasks.block_on(check::obstacles(&**sink, &read, checkpoint, adopt))?;
        if first {
            obstacles.extend(check::stray_positions(&pipeline.source, &read));
        }
        if let Some(error) = check::as_error(obstacles) {
            return Err(error);
        }
        if let Update::Source(source) = recognised {
            checkpoint.source = Some(source);
        }
        let clock = Clock::go_on(checkpoint.clock.as_ref());
        writer.write(vec![recognised, Update::Clock(clock.clone())])?;
        checkpoint.clock = Some(clock);
        begin(pipeline, writer, checkpoint)?;
        tasks.block_on(sink.resume(&checkpoint.applied, checkpoint.frontier))?;
        let began_at = checkpoint.frontier.unwrap_or(Tso::ZERO);
        tracing::info!(
            pipeline = %pipeline.name,
            source = %source.describe(),
            target = %sink.describe(),
            collections = read.collections.len(),
            "{}",
            match (first, began_at) {
                (true, Tso::ZERO) => "starting".to_owned(),
                (true, after) => format!("starting with what is later than {after}"),
                (false, after) => format!("resuming after {after}"),
            }
        );
        Ok(())
    }

    /// Runs the dataflow until it is to stop.
    fn follow(
        self,
        writer: Writer,
        checkpoint: Checkpoint,
        observe: &mut dyn FnMut(&Status),
    ) -> Result<Summary> {
        let Run { pipeline, until, stop, started, look, tasks, ends, term } = self;
        let sink = Arc::clone(&ends.sink);
        let catalog = ends.source.resume(checkpoint.applied.clone());
        let began_at = checkpoint.frontier.unwrap_or(Tso::ZERO);
        let world: Arc<dyn World> =
            Arc::new(RealWorld { tasks: tasks.clone(), clock: Clock::go_on(checkpoint.clock.as_ref()) });
        let credits = Credits::new(budget(pipeline));
        let channels = Arc::new(Channels::default());
        let progress = Arc::new(Progress::new(began_at));
        let failure = tasks.failure();
        let ended = Arc::new(AtomicBool::new(false));
        let (ticks_in, ticks) = watch::channel(Tso::ZERO);
        let (updates_in, updates) = crossbeam_channel::unbounded();
        let worker = Worker {
            park: PARK.max(look),
            pipeline: pipeline.clone(),
            credits: Arc::clone(&credits),
            channels: Arc::clone(&channels),
            progress: Arc::clone(&progress),
            world: Arc::clone(&world),
            failure: failure.clone(),
            stop: Arc::clone(stop),
            ended: Arc::clone(&ended),
            apply: Apply {
                sink: ends.sink,
                writer: writer.clone(),
                checkpoint,
                adopt: adopts(pipeline),
                limits: Limits {
                    max_calls: pipeline.delivery.max_calls,
                    call_deadline: call_deadline(pipeline),
                    protected: !unprotected::is_on(),
                    seed: world.seed(),
                },
            },
            updates,
            ticks: ticks_in,
            ceiling: if let Until::Time(tso) = until { tso } else { Tso::MAX },
            seen: catalog.seen(),
        };
        let (wake_in, wake) = crossbeam_channel::bounded::<Result<SyncActivator>>(1);
        let (alive, over) = crossbeam_channel::bounded::<()>(0);
        let thread = thread::Builder::new()
            .name("dataflow".into())
            .spawn(move || {
                let _alive = alive;
                worker.run(move |wake| drop(wake_in.send(wake)))
            })
            .map_err(|cause| {
                Error::new(Kind::Internal, "can't start the dataflow's thread").caused_by(cause)
            })?;
        if let Ok(Ok(wake)) = wake.recv() {
            let wake = Mutex::new(wake);
            let failure = failure.clone();
            tasks.spawn(Box::pin(async move {
                let out = move |update| {
                    drop(updates_in.send(update));
                    if let Ok(wake) = wake.lock() {
                        let _ = wake.activate();
                    }
                };
                if let Err(error) = Box::pin(catalog.run(ticks, out)).await {
                    failure.set(error);
                }
            }));
        }

        let status = || Status {
            now: progress.now(),
            began_at,
            held_bytes: credits.held(),
            peak_bytes: credits.peak(),
            budget: credits.budget(),
            channels: channels.now(&credits),
            standing: term.as_ref().map(Term::standing),
        };
        // Nothing is ever sent: it ends with the thread, whichever way that ends.
        while let Err(RecvTimeoutError::Timeout) = over.recv_timeout(look) {
            let lost = term.as_ref().and_then(Term::lost);
            if let Some(error) = lost.or_else(|| sink.failed()).filter(|_| !failure.is_set()) {
                failure.set(error);
            }
            let status = status();
            if is_reached(until, &status.now) {
                stop.store(true, Ordering::Release);
            }
            channels.tell();
            observe(&status);
        }
        let clean = thread.join().unwrap_or_else(|panic| {
            failure.set(panicked("the dataflow", &*panic));
            false
        });
        ended.store(true, Ordering::Release);
        let last = status();
        let settled = match clean && !failure.is_set() {
            true => tasks.block_on(sink.settle(SETTLE_WITHIN)),
            false => Ok(()),
        };
        let finished = finish(tasks, writer, term, clean && !failure.is_set());
        if let Some(error) = failure.take() {
            return Err(error);
        }
        finished.and(settled)?;
        Ok(Summary { status: last, elapsed: started.elapsed() })
    }
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
        failpoint::pass(Point::StartBegun);
    }
    (checkpoint.began, checkpoint.frontier) = (began, start);
    Ok(())
}

/// Finishes the steps of the catalog that the last run had begun. Nothing else goes out before its calls are over.
async fn finish_steps(
    sink: &dyn Sink,
    writer: &Writer,
    checkpoint: &mut Checkpoint,
    deadline: Duration,
) -> Result<()> {
    for ddl in std::mem::take(&mut checkpoint.intents) {
        tracing::info!("finishing what the last run had begun: {}", describe(&ddl));
        let mut attempt = 1;
        while let Err(error) = sink.apply(&ddl, deadline).await {
            if error.kind().disposition() == Disposition::Stop || attempt == FINISH_ATTEMPTS {
                return Err(error);
            }
            tracing::warn!("waiting: {error}");
            attempt += 1;
            tokio::time::sleep(FINISH_PAUSE).await;
        }
        failpoint::pass(Point::ResumeFinished);
        applied_after(&mut checkpoint.applied, &ddl);
        writer.write(vec![Update::Applied(ddl, Arc::new(checkpoint.applied.clone()))])?;
    }
    Ok(())
}

fn is_reached(until: Until, now: &Now) -> bool {
    match until {
        Until::Forever => false,
        Until::CaughtUp => now.head.is_some_and(|head| now.committed >= head),
        Until::Time(tso) => now.committed >= tso,
    }
}

fn finish(tasks: Tasks, writer: Writer, term: Option<Term>, clean: bool) -> Result<()> {
    if let Some(term) = &term {
        term.close();
    }
    tasks.end(Duration::from_millis(500));
    let mut finished = Ok(());
    if clean {
        failpoint::pass(Point::StopBefore);
        finished = writer.write(vec![Update::Clean]);
        failpoint::pass(Point::StopRecorded);
    }
    drop(writer);
    if let Some(term) = term
        && clean
        && finished.is_ok()
    {
        // Otherwise it ends by itself: until then calls that were sent are covered by it.
        term.release();
    }
    finished
}

fn adopts(pipeline: &Pipeline) -> bool {
    matches!(&pipeline.target, TargetConfig::Milvus(target) if target.adopt)
}

/// How long a call may take.
fn call_deadline(pipeline: &Pipeline) -> Duration {
    let wanted = pipeline.delivery.call_deadline;
    pipeline.ownership.as_ref().map_or(wanted, |config| wanted.min(election::longest_call(config)))
}

/// What the thread of the dataflow needs.
struct Worker {
    pipeline: Pipeline,
    park: Duration,
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
        let (failure, park) = (self.failure.clone(), self.park);
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
                    names: self.pipeline.target.names(),
                },
                standby: self.pipeline.target.is_standby(),
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
            failpoint::pass(Point::StartBuilt);
            while !shared.is_stopping() {
                worker.step_or_park(Some(park));
            }
            failpoint::pass(Point::StopBegun);
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
    if !shared.is_settled(progress.now().committed) {
        tracing::info!(
            "stopped before all was settled that an earlier crash had left in doubt; the next start goes on with that"
        );
        return false;
    }
    shared.is_consistent()
}
