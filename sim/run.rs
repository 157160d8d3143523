//! One simulation: a source, a target and a disk, and runs of the real dataflow between them, until everything that the
//! source did is on the target. The seed decides all of it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crossbeam_channel::Sender;
use migrans::dataflow::channels::Channels;
use migrans::dataflow::checkpoint::records::{self, Seal};
use migrans::dataflow::checkpoint::{Checkpoint, RecordChange, Serving, Storage, Update, Writer};
use migrans::dataflow::credits::Credits;
use migrans::dataflow::directory::Directory;
use migrans::dataflow::failure::Failure;
use migrans::dataflow::graph::{Ends, build};
use migrans::dataflow::progress::Progress;
use migrans::dataflow::shared::Shared;
use migrans::dataflow::world::World;
use migrans::milvus::channel::VChannel;
use migrans::milvus::tso::Tso;
use migrans::ops::apply::Apply;
use migrans::ops::apply::lanes::Limits;
use migrans::ops::follow::Entry;
use migrans::pipeline::Delivery;
use migrans::sinks::Operation;
use migrans::sources::LogSource;
use migrans::sources::catalog::{CatalogUpdate, applied_after};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use timely::scheduling::SyncActivator;
use timely::worker::Worker;
use tokio::sync::watch;

use super::disk::Disk;
use super::queue::{SimQueue, Topics};
use super::source::{Habits, Row, Source};
use super::target::{Faults, SimTarget, Tables, Watch, lock, rows, texts};
use super::world::SimWorld;

/// Steps after which a pipeline that only has to finish is stuck.
const STUCK: usize = 20_000;

/// What a simulation came to.
#[derive(Clone, Copy, Debug, Default)]
pub struct Summary {
    /// Steps taken.
    pub steps: u64,
    /// Runs of the pipeline that ended without warning.
    pub crashes: u64,
    /// Runs that were stopped.
    pub stops: u64,
    /// Calls made to the target.
    pub calls: u64,
    /// Everything that happened, in one number: equal for equal seeds.
    pub trace: u64,
}

/// Simulates `seed`.
///
/// # Errors
/// What went wrong, in words. With `told`, each step is printed.
pub fn simulate(seed: u64, told: bool) -> Result<Summary, String> {
    let mut simulation = Simulation::new(seed, told);
    loop {
        // The worker wants a closure that could go to another thread.
        let (back, end) = timely::execute_directly(move |worker| {
            let end = simulation.run(worker);
            // Whatever is left of the graph would be waited for.
            for dataflow in worker.installed_dataflows() {
                worker.drop_dataflow(dataflow);
            }
            (simulation, end)
        });
        simulation = back;
        match end? {
            End::Again => simulation.between_runs(),
            End::Done => {
                simulation.compare(Tso::MAX, "INVARIANT 6: at the end")?;
                simulation.summary.calls = lock(&simulation.tables).made;
                return Ok(simulation.summary);
            }
        }
    }
}

/// How a run of the pipeline ended.
enum End {
    /// By a crash, a stop or an error: there is another one.
    Again,
    /// With everything applied.
    Done,
}

/// What happens in a simulation, as chances.
struct Plan {
    requests: usize,
    crashes: usize,
    crash: f64,
    stop: f64,
    faults: Faults,
    /// The longest that the clock moves at a time.
    pace: Duration,
}

struct Simulation {
    seed: u64,
    told: bool,
    chance: StdRng,
    plan: Plan,
    delivery: Delivery,
    world: SimWorld,
    topics: Topics,
    source: Arc<Mutex<Source>>,
    tables: Arc<Mutex<Tables>>,
    disk: Disk,
    frontier: Tso,
    summary: Summary,
}

/// One run of the pipeline: the real graph, and the ends that it is connected to.
struct Run {
    shared: Rc<Shared>,
    queue: SimQueue,
    serving: Serving,
    writer: Writer,
    updates: Sender<CatalogUpdate>,
    ticks: watch::Receiver<Tso>,
    wake: SyncActivator,
    failure: Failure,
    progress: Arc<Progress>,
    stop: Arc<AtomicBool>,
    /// Whether a channel that was opened late had not come to F at the step before.
    was_behind: bool,
    /// Whether more is held than the bound, because of such a channel.
    over_behind: bool,
    /// A read of the catalog under way.
    reading: Option<CatalogUpdate>,
}

impl Simulation {
    fn new(seed: u64, told: bool) -> Simulation {
        let mut chance = StdRng::seed_from_u64(seed);
        let calm = chance.random_bool(0.2);
        let chances =
            |chance: &mut StdRng, most: f64| if calm { 0.0 } else { chance.random_range(0.0..most) };
        let faults = Faults {
            lost: chances(&mut chance, 0.25),
            busy: chances(&mut chance, 0.2),
            fatal: chances(&mut chance, 0.01),
            slow: chances(&mut chance, 0.2),
        };
        let plan = Plan {
            requests: chance.random_range(5..80),
            crashes: if calm { 0 } else { chance.random_range(0..6) },
            crash: chances(&mut chance, 0.02),
            stop: if chance.random_bool(0.5) { 0.004 } else { 0.0 },
            faults,
            pace: Duration::from_millis(chance.random_range(1..800)),
        };
        let habits = Habits {
            channels: chance.random_range(1..5),
            collections: chance.random_range(1..4),
            keys: [3, 10, 60][chance.random_range(0..3)],
            ddl: chance.random_bool(0.7),
            repeats: if chance.random_bool(0.5) { 0.1 } else { 0.0 },
            late_ticks: if chance.random_bool(0.5) { 0.3 } else { 0.0 },
        };
        let delivery = Delivery {
            memory: [600, 3000, 50_000][chance.random_range(0..3)],
            max_lag: Duration::from_millis(chance.random_range(0..200)),
            batch: chance.random_range(20..1000),
            max_calls: chance.random_range(1..6),
            call_deadline: Duration::from_millis(chance.random_range(500..4000)),
            checkpoint_interval: Duration::from_millis(chance.random_range(0..500)),
        };
        let mut plan = plan;
        // Tasks must have their turn before a call's time is over.
        plan.pace = plan.pace.min(delivery.call_deadline / 4);
        let topics = Topics::default();
        Simulation {
            seed,
            told,
            chance,
            plan,
            delivery,
            world: SimWorld::new(seed),
            source: Arc::new(Mutex::new(Source::new(habits, topics.clone()))),
            topics,
            tables: Arc::default(),
            disk: Disk::default(),
            frontier: Tso::ZERO,
            summary: Summary::default(),
        }
    }

    fn tell(&mut self, what: impl FnOnce() -> String) {
        if self.told {
            let at = self.world.elapsed();
            println!("{:>10.3} {}", at.as_secs_f64(), what());
        }
    }

    /// Sums up that `step` was taken.
    fn note(&mut self, step: u64) {
        self.summary.steps += 1;
        self.summary.trace = (self.summary.trace ^ step).wrapping_mul(0x100_0000_01b3);
    }

    /// The process is gone; some time passes; calls may still take effect.
    fn between_runs(&mut self) {
        self.world.forget_tasks();
        let unsynced = self.disk.unsynced();
        self.disk.crash(if unsynced == 0 { 0 } else { self.chance.random_range(0..=unsynced) });
        source(&self.source).forget_reader();
        for _ in 0..self.chance.random_range(0..4) {
            self.target_goes_on();
        }
        let pause = if self.chance.random_bool(0.5) { 100 } else { 5000 };
        self.world.advance(Duration::from_millis(self.chance.random_range(0..pause)));
    }

    fn target_goes_on(&mut self) {
        let now = self.world.elapsed();
        let text = lock(&self.tables).go_on(&mut self.chance, now, &self.plan.faults);
        self.note(u64::try_from(text.len()).unwrap_or(0));
        if !text.is_empty() {
            self.tell(|| text);
        }
    }

    /// One run of the pipeline, from what is on the disk.
    fn run(&mut self, worker: &mut Worker) -> Result<End, String> {
        let mut run = self.start(worker)?;
        let mut stopping = false;
        let mut left = STUCK;
        loop {
            let worth = self.chance.random_range(0..100);
            self.note(worth);
            match worth {
                0..6 if self.plan.requests > 0 => {
                    self.plan.requests -= 1;
                    let unix_now = self.world.unix_now();
                    let text = source(&self.source).execute(&mut self.chance, unix_now);
                    self.tell(|| format!("source: {text}"));
                }
                6..12 => source(&self.source).publish(&mut self.chance),
                12..16 => {
                    let unix_now = self.world.unix_now();
                    let mut source = source(&self.source);
                    source.pass_time(unix_now);
                    // In the end all topics get their ticks.
                    let all = self.plan.requests == 0;
                    source.tick(&mut self.chance, all);
                }
                16..32 => {
                    let readable = run.queue.readable();
                    if !readable.is_empty() {
                        let channel = &readable[self.chance.random_range(0..readable.len())];
                        run.queue.feed(channel, self.chance.random_range(1..8));
                    }
                }
                32..40 => self.read_catalog(&mut run),
                40..55 => self.target_goes_on(),
                55..62 => drop(run.serving.next(false)),
                62..72 => self.world.run_tasks(self.chance.random_range(0..8)),
                72..92 => {
                    run.shared.activate_all();
                    worker.step();
                }
                _ => {
                    // In the end, what is only waited for has to pass.
                    let least = if self.plan.requests == 0 { 120 } else { 1 };
                    let millis = u64::try_from(self.plan.pace.as_millis()).unwrap_or(1).max(least);
                    self.world.advance(Duration::from_micros(self.chance.random_range(0..millis * 1000)));
                }
            }
            self.check(&mut run)?;
            if let Some(error) = run.failure.take() {
                if error.message().contains("refused by the simulation") {
                    self.tell(|| format!("the pipeline stops: {error}"));
                    return Ok(End::Again);
                }
                return Err(format!("INVARIANT 7: the pipeline stops with an error: {}", error.report()));
            }
            if self.plan.crashes > 0 && self.chance.random_bool(self.plan.crash) {
                self.plan.crashes -= 1;
                self.summary.crashes += 1;
                self.tell(|| String::from("--- crash"));
                if self.chance.random_bool(0.5) {
                    // In the middle of a write.
                    self.disk.fail();
                    run.serving.next(false);
                }
                return Ok(End::Again);
            }
            if stopping {
                if run.shared.is_drained() && self.finish(worker, &mut run)? {
                    return Ok(End::Again);
                }
            } else if self.plan.requests > 0 && self.chance.random_bool(self.plan.stop) {
                self.tell(|| String::from("--- stop"));
                stopping = true;
                run.stop.store(true, Ordering::Release);
            }
            if self.plan.requests == 0 {
                left -= 1;
                if self.is_done(&run) {
                    return Ok(End::Done);
                }
                if left == 0 {
                    return Err(format!("INVARIANT 7: stuck: {}", self.standing(&run)));
                }
                // The faults end as well.
                if left == STUCK / 2 {
                    self.plan.faults = Faults { lost: 0.0, busy: 0.0, fatal: 0.0, slow: 0.0 };
                    self.plan.crashes = 0;
                }
            }
        }
    }

    /// Builds the graph, as `dataflow::run` does.
    fn start(&mut self, worker: &mut Worker) -> Result<Run, String> {
        let in_words = |error: migrans::Error| error.report().to_string();
        let mut found = self.disk.records();
        if found.is_empty() {
            let changes = beginning().map_err(in_words)?;
            self.disk.write(&changes).map_err(in_words)?;
            found = self.disk.records();
        }
        records::check(&found).map_err(in_words)?;
        let mut checkpoint = Checkpoint::from_records(&found).map_err(in_words)?;
        let frontier = checkpoint.frontier.unwrap_or(Tso::ZERO);
        if frontier < self.frontier {
            return Err(format!("INVARIANT 2: F went back from {} to {frontier}", self.frontier));
        }
        self.tell(|| format!("--- run from {frontier}, clean: {}", checkpoint.clean));
        let (writer, mut serving) =
            Writer::served_by_hand(&found, vec![Box::new(self.disk.clone())]).map_err(in_words)?;
        // As `dataflow::run::finish_steps` does.
        for ddl in std::mem::take(&mut checkpoint.intents) {
            lock(&self.tables).finish(&ddl).map_err(in_words)?;
            applied_after(&mut checkpoint.applied, &ddl);
            writer.submit(vec![Update::Applied(ddl, Arc::new(checkpoint.applied.clone()))], |_| ());
            serving.next(false);
        }
        let world: Arc<dyn World> = Arc::new(self.world.clone());
        let credits = Credits::new(self.delivery.memory);
        let queue = SimQueue::new(self.topics.clone(), Arc::clone(&credits));
        let failure = Failure::default();
        let stop = Arc::new(AtomicBool::new(false));
        let progress = Arc::new(Progress::new(frontier));
        let shared = Rc::new(Shared::new(
            credits,
            Arc::new(Channels::default()),
            Arc::clone(&progress),
            Arc::new(Directory::default()),
            Arc::clone(&world),
            failure.clone(),
            Arc::clone(&stop),
            self.delivery.batch * 2,
        ));
        let (ticks_in, ticks) = watch::channel(Tso::ZERO);
        let (updates, catalog) = crossbeam_channel::unbounded();
        let deadline = self.delivery.call_deadline;
        let sink = SimTarget::new(&self.tables, self.world.clone(), self.watch());
        let log: Box<dyn LogSource> = Box::new(queue.clone());
        let ends = Ends {
            catalog,
            log: Box::new(move |_wake| Ok(log)),
            ticks: ticks_in,
            apply: Apply {
                sink: Arc::new(sink),
                writer: writer.clone(),
                checkpoint,
                adopt: false,
                limits: Limits {
                    max_calls: self.delivery.max_calls,
                    call_deadline: deadline,
                    seed: self.seed,
                    protected: true,
                },
            },
            delivery: self.delivery.clone(),
            entry: Entry::default(),
            seen: Arc::default(),
            standby: false,
            ceiling: Tso::MAX,
        };
        let wake = build(worker, ends, &shared).map_err(in_words)?;
        let mut run = Run {
            shared,
            queue,
            serving,
            writer,
            updates,
            ticks,
            wake,
            failure,
            progress,
            stop,
            was_behind: false,
            over_behind: false,
            reading: None,
        };
        run.reading = Some(source(&self.source).look(None));
        self.read_catalog(&mut run);
        Ok(run)
    }

    /// A read of the catalog begins, or what one has shown arrives.
    fn read_catalog(&mut self, run: &mut Run) {
        match run.reading.take() {
            Some(update) => {
                drop(run.updates.send(update));
                let _ = run.wake.activate();
            }
            None => {
                let tick = *run.ticks.borrow();
                // News come also by a watch, which confirms nothing.
                let confirmed = tick > Tso::ZERO && self.chance.random_bool(0.8);
                run.reading = Some(source(&self.source).look(confirmed.then_some(tick)));
            }
        }
    }

    /// What must hold before a write is sent (invariant 3).
    fn watch(&self) -> Watch {
        let (disk, source_of, world) = (self.disk.clone(), Arc::clone(&self.source), self.world.clone());
        Box::new(move |write, deadline| {
            let checkpoint = match Checkpoint::from_records(&disk.durable()) {
                Ok(checkpoint) => checkpoint,
                Err(error) => return Some(error.to_string()),
            };
            let until = world.unix_now() + u64::try_from(deadline.as_millis()).unwrap_or(0);
            if checkpoint.calls_until < until || checkpoint.clean {
                return Some(format!(
                    "INVARIANT 3: a call may be alive until {until}, recorded is {}",
                    checkpoint.calls_until
                ));
            }
            let source = source(&source_of);
            let frontier = checkpoint.frontier.unwrap_or(Tso::ZERO);
            let collection = &write.collection;
            let high = |key: &str| {
                let shard = super::messages::shard(key, collection.vchannels.len());
                let vchannel: &VChannel = &collection.vchannels[shard];
                checkpoint.sent_high.get(vchannel).copied().unwrap_or(Tso::ZERO)
            };
            match &write.operation {
                Operation::Insert(batches) | Operation::Upsert(batches) => {
                    rows(batches).into_iter().find_map(|(key, value)| {
                        let versions = source.versions().get(&(collection.id, key.clone()))?;
                        let (ts, _) = versions
                            .iter()
                            .find(|(_, row)| row.as_ref().is_some_and(|(_, other)| *other == value))?;
                        let high = high(&key);
                        (*ts > high)
                            .then(|| format!("INVARIANT 3: {key} at {ts} is sent, recorded is {high}"))
                    })
                }
                Operation::Delete(keys) => texts(keys).into_iter().find_map(|key| {
                    let high = high(&key);
                    let mut times = source.deletes(collection.id, &key).iter();
                    // Of what the source has dropped, some things may come late.
                    let is_gone = source.dropped(collection.id).is_some();
                    (!times.any(|ts| (*ts > frontier || is_gone) && *ts <= high))
                        .then(|| format!("INVARIANT 3: a delete of {key} is sent, recorded is {high}"))
                }),
                Operation::Messages(..) => Some("messages are sent, but the target is no standby".to_owned()),
            }
        })
    }

    /// What must hold at every step.
    fn check(&mut self, run: &mut Run) -> Result<(), String> {
        if let Some(violation) = lock(&self.tables).violations.pop() {
            return Err(violation);
        }
        let held = run.shared.credits.held();
        let bound = self.delivery.memory + self.topics.largest_ticks() * run.queue.opens();
        // Until a channel that was opened late has come to F, nothing that it brings is released. It may come there with
        // the same messages that go beyond the bound, so what was true before them counts as well.
        let is_behind = run.queue.is_behind(self.frontier);
        run.over_behind = held > bound && (run.over_behind || run.was_behind || is_behind);
        run.was_behind = is_behind;
        if held > bound && !run.over_behind {
            return Err(format!("INVARIANT 5: {held} bytes are held, the bound is {bound}"));
        }
        let committed = run.progress.now().committed;
        if committed < self.frontier {
            return Err(format!("INVARIANT 2: F went back from {} to {committed}", self.frontier));
        }
        if committed > self.frontier {
            self.frontier = committed;
            self.tell(|| format!("F = {committed}"));
            self.holds_all_up_to(committed)?;
        }
        Ok(())
    }

    /// INVARIANT 1: what was not changed later is on the target as it was at F.
    fn holds_all_up_to(&self, frontier: Tso) -> Result<(), String> {
        let source = source(&self.source);
        let tables = lock(&self.tables);
        for ((id, key), versions) in source.versions() {
            let is_settled =
                versions.last().is_some_and(|(ts, _)| *ts <= frontier) && source.dropped(*id).is_none();
            let Some(held) = tables.collections.values().find(|held| held.id == *id).filter(|_| is_settled)
            else {
                continue;
            };
            let wanted: Vec<Row> = source.row(*id, key, frontier).into_iter().cloned().collect();
            let there = there(held, key);
            if there != wanted {
                return Err(format!(
                    "INVARIANT 1: F = {frontier}, {key} of {id} is to be {wanted:?}, is {there:?}"
                ));
            }
        }
        Ok(())
    }

    /// After a stop: lets what was acknowledged be recorded. Returns whether that is so.
    fn finish(&mut self, worker: &mut Worker, run: &mut Run) -> Result<bool, String> {
        for _ in 0..16 {
            run.shared.activate_all();
            worker.step();
        }
        while run.serving.next(false) {}
        self.check(run)?;
        if run.progress.now().committed < run.shared.committing() {
            return Ok(false);
        }
        self.summary.stops += 1;
        if run.shared.is_consistent() && run.shared.is_settled(self.frontier) {
            let (done, wait) = crossbeam_channel::bounded(1);
            run.writer.submit(vec![Update::Clean], move |result| drop(done.send(result)));
            while run.serving.next(false) {}
            drop(wait.try_recv());
            if lock(&self.tables).is_quiet(self.world.elapsed()) {
                self.compare(self.frontier, "a stop leaves a consistent cut")?;
            }
        }
        Ok(true)
    }

    fn is_done(&self, run: &Run) -> bool {
        let source = source(&self.source);
        let wanted = source.wanted();
        let upto = run.progress.now().committed;
        // Requests that are no rows have no ticks of their own when no channel is left.
        let rows_done = source.versions().iter().all(|((id, _), versions)| {
            !wanted.collections.contains_key(id) || versions.last().is_none_or(|(ts, _)| *ts <= upto)
        });
        drop(source);
        rows_done && run.shared.is_idle() && self.catalogs_differ().is_none()
    }

    fn standing(&self, run: &Run) -> String {
        let now = run.progress.now();
        let last = source(&self.source).last();
        let quiet = lock(&self.tables).is_quiet(self.world.elapsed());
        format!(
            "F = {}, to be done up to {}; waiting for {:?}; {}; held {}; target quiet: {}; idle {}, released up to {}, highest tick {}, to be read {:?}",
            now.committed,
            last,
            now.waiting,
            self.catalogs_differ().unwrap_or_default(),
            run.shared.credits.held(),
            quiet,
            run.shared.is_idle(),
            run.shared.ordered(),
            *run.ticks.borrow(),
            run.queue.readable(),
        )
    }

    /// How the target's catalog differs from the source's.
    fn catalogs_differ(&self) -> Option<String> {
        let wanted = source(&self.source).wanted();
        let tables = lock(&self.tables);
        for collection in wanted.collections.values() {
            let name = &collection.name;
            let Some(held) = tables.collections.get(name) else { return Some(format!("{name} is missing")) };
            if held.id != collection.id {
                return Some(format!("{name} is an older one"));
            }
            let partitions = collection.partitions.values().map(|partition| &partition.name);
            let indexes = collection.indexes.values().map(|index| &index.name);
            let mut partitions: Vec<&String> = partitions.collect();
            partitions.sort();
            if !held.partitions.keys().eq(partitions.iter().copied()) {
                return Some(format!(
                    "{name} has the partitions {:?}, not {partitions:?}",
                    held.partitions.keys()
                ));
            }
            if !held.indexes.iter().eq(indexes) || held.load != collection.load {
                return Some(format!("{name} has other indexes or another load state"));
            }
            if held.properties != collection.properties {
                return Some(format!("{name} has other properties"));
            }
        }
        let aliases: BTreeMap<_, _> =
            wanted.aliases.iter().map(|(name, alias)| (name.clone(), alias.collection)).collect();
        if aliases != tables.aliases {
            return Some(format!("the aliases are {:?}, not {aliases:?}", tables.aliases));
        }
        let extra = tables
            .collections
            .keys()
            .find(|name| wanted.collections.values().all(|other| other.name != **name));
        extra.map(|name| format!("{name} is there still"))
    }

    /// Whether the target holds exactly what the source held at `ts`.
    fn compare(&self, ts: Tso, when: &str) -> Result<(), String> {
        let source = source(&self.source);
        let tables = lock(&self.tables);
        let mut differences = String::new();
        let mut wanted: BTreeMap<_, BTreeMap<String, Vec<Row>>> = BTreeMap::new();
        for (id, key) in source.versions().keys() {
            if let Some(row) = source.row(*id, key, ts) {
                wanted.entry(*id).or_default().entry(key.clone()).or_default().push(row.clone());
            }
        }
        for (name, held) in &tables.collections {
            // What the source has dropped is not brought up to date before it goes here too.
            if source.dropped(held.id).is_some() && ts != Tso::MAX {
                continue;
            }
            let mut there: BTreeMap<String, Vec<Row>> = BTreeMap::new();
            for (partition, rows) in &held.partitions {
                for (key, value) in rows {
                    there.entry(key.clone()).or_default().push((partition.clone(), *value));
                }
            }
            let wanted = wanted.remove(&held.id).unwrap_or_default();
            let keys: std::collections::BTreeSet<&String> = wanted.keys().chain(there.keys()).collect();
            for key in keys {
                // The same goes for a partition: a drop that a crash interrupted is finished first, whatever F is.
                let is_gone = |row: &Row| ts != Tso::MAX && !held.partitions.contains_key(&row.0);
                let wanted = wanted.get(key).filter(|rows| !rows.iter().any(is_gone));
                let there = there.get(key);
                if wanted != there {
                    let _ = write!(differences, "; {key} of {name}: source {wanted:?}, target {there:?}");
                }
            }
        }
        if differences.is_empty() { Ok(()) } else { Err(format!("{when}, {ts}{differences}")) }
    }
}

/// The rows of a key.
fn there(held: &super::target::Held, key: &str) -> Vec<Row> {
    let rows = held.partitions.iter().flat_map(|(partition, rows)| {
        rows.iter().filter(|(other, _)| other == key).map(|(_, value)| (partition.clone(), *value))
    });
    rows.collect()
}

fn source(source: &Mutex<Source>) -> std::sync::MutexGuard<'_, Source> {
    source.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// The records of a pipeline that has not run yet.
fn beginning() -> migrans::Result<Vec<RecordChange>> {
    let mut changes = records::nothing_yet()?;
    changes.push(records::put("pipeline", &"simulated")?);
    Seal::default().seal(&mut changes)?;
    Ok(changes)
}
