//! `migrans verify`: whether the target holds what the source holds, row by row, while the pipeline runs.
//!
//! ```text
//! source ──pages in key order──► scan ──suspects──► settle ──► tally ──► report
//! target ──pages in key order──►   ▲                  ▲ ▲
//!                                  └── a unit: one    │ └── F, from the state folder
//!                                      partition      └──── the same keys on both sides, again
//! ```
//!
//! Both sides are read at the same time, a page of about 4 MiB each, and merged by key: what is compared of a row is a hash
//! over all its columns (`cells`). So memory does not depend on how much there is. What is unequal is a suspect, and
//! suspects are read again until it is known what they are (`settle`, `motion`): F, which the pipeline keeps in its state
//! folder (`frontier`), tells what the target has to show by then. Beside each page, `count(*)` of its range of keys is
//! compared with the number of keys: a query shows a key that is there several times only once.
//!
//! Every query names a time of its own server that the answer must not be older than (`Client::time`); so it does not
//! matter which replica answers.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use self::frontier::{Frontier, State};
use self::key::Range;
use self::motion::Beyond;
use self::plan::{CollectionPlan, Plan};
pub use self::report::{CollectionReport, Difference, Outcome, PartitionReport, Report};
use self::report::{PipelineReport, Tally};
use self::scan::{Scan, merge};
use self::unit::{PageSize, Unit, is_gone};
use crate::error::{Error, Kind, Result};
use crate::milvus::catalog::CollectionName;
use crate::ownership::Fence;
use crate::pipeline::{MilvusServer, Names, Pipeline, Select, TargetConfig, TargetMode};
use crate::progress::Work;
use crate::proxy::{Client, Role};
use crate::sources::catalog::CatalogSource;

mod cells;
mod frontier;
mod key;
mod motion;
mod plan;
mod report;
mod scan;
mod settle;
mod unit;

/// So many partitions are compared at the same time.
const PARALLEL: usize = 4;
/// Suspects are settled when there are so many of them, or when their keys take so many bytes.
const SUSPECTS: usize = 16_384;
const SUSPECT_BYTES: usize = 4 << 20;
/// How often a catalog that differs, and a partition that went away, is looked at again.
const LOOKS: u32 = 5;
const PAUSE: Duration = Duration::from_secs(1);
/// How long collections that are being loaded are waited for.
const LOADING: Duration = Duration::from_secs(60);
/// The port that Milvus' proxy listens on if nothing else is said.
const PROXY_PORT: u16 = 19530;
/// How long connecting to the source's proxy may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// What to compare, and how.
#[derive(Clone, Debug)]
pub struct Options {
    /// Only collections that match, of those that the pipeline selects.
    pub collections: Option<Select>,
    /// The most differing rows to describe.
    pub limit: usize,
    /// How long F may stand still until the pipeline counts as not running.
    pub patience: Duration,
}

/// What everything shares.
struct Context {
    source: Client,
    target: Client,
    mode: TargetMode,
    names: Names,
    frontier: Frontier,
    meter: Arc<Work>,
    differences: Mutex<Vec<Difference>>,
    limit: usize,
}

impl Context {
    /// How many differing rows can still be described.
    fn room(&self) -> usize {
        let kept = self.differences.lock().unwrap_or_else(PoisonError::into_inner).len();
        self.limit.saturating_sub(kept)
    }

    fn keep(&self, difference: Difference) {
        let mut kept = self.differences.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() < self.limit {
            kept.push(difference);
        }
    }
}

/// Compares the source of `pipeline` with its target. `meter` hears how far it is.
///
/// # Errors
/// If it can't be compared at all: a server can't be reached, nothing matches, the state folder is another pipeline's.
/// What can't be compared in part is in the report.
pub async fn verify(pipeline: &Pipeline, options: &Options, meter: Arc<Work>) -> Result<Report> {
    let began = Instant::now();
    let TargetConfig::Milvus(target) = &pipeline.target else {
        return Err(Error::new(Kind::Usage, "a target of type `null` keeps nothing that could be compared"));
    };
    let select = {
        let (all, some) = (pipeline.select.clone(), options.collections.clone());
        Arc::new(move |name: &CollectionName| {
            all.matches(name) && some.as_ref().is_none_or(|some| some.matches(name))
        })
    };
    let frontier = Frontier::new(pipeline, options.patience).await?;
    let selected = Arc::clone(&select);
    let catalog = CatalogSource::connect(&pipeline.source, move |name| selected(name)).await?;
    let mode = target.mode;
    let mut target = Client::connect(&target.server(), Role::Target, Fence::open()).await?;
    if pipeline.target.is_standby() {
        target = target.by_clock(frontier.clock());
    }
    let source = connect_source(pipeline, &catalog).await?;
    let context = Arc::new(Context {
        source,
        target,
        mode,
        names: pipeline.target.names(),
        frontier,
        meter,
        differences: Mutex::default(),
        limit: options.limit,
    });
    let verification = Verification { context, catalog, select, began };
    verification.run().await
}

/// The source's proxy: where the file says, or else where etcd says that one runs.
async fn connect_source(pipeline: &Pipeline, catalog: &CatalogSource) -> Result<Client> {
    let config = &pipeline.source.milvus;
    let server = |uri: String| MilvusServer {
        uri,
        token: config.token.clone(),
        tls: config.tls.clone(),
        connect_timeout: CONNECT_TIMEOUT,
    };
    if let Some(uri) = &config.uri {
        return Client::connect(&server(uri.clone()), Role::Source, Fence::open()).await;
    }
    const HINT: &str = "write the address of the source's proxy as uri into [source.milvus]";
    let addresses = catalog.proxies().await?;
    let scheme = if config.tls.is_some() { "https" } else { "http" };
    let mut failure = Error::new(Kind::NotFound, "no proxy of the source is in its etcd").hint(HINT);
    for address in addresses {
        let host = address.rsplit_once(':').map_or(address.as_str(), |(host, _)| host);
        match Client::connect(&server(format!("{scheme}://{host}:{PROXY_PORT}")), Role::Source, Fence::open())
            .await
        {
            Ok(client) => return Ok(client),
            Err(error) if error.kind() == Kind::Unavailable => failure = error.hint(HINT),
            Err(error) => return Err(error),
        }
    }
    Err(failure)
}

struct Verification<S> {
    context: Arc<Context>,
    catalog: CatalogSource,
    select: Arc<S>,
    began: Instant,
}

impl<S: Fn(&CollectionName) -> bool + Send + Sync> Verification<S> {
    async fn run(self) -> Result<Report> {
        let mut plan = self.settled_plan().await?;
        if plan.is_empty() {
            return Err(Error::new(
                Kind::NotFound,
                "no collection that is selected is on the source or on the target",
            )
            .hint("check [select] in the pipeline file, and --collection"));
        }
        let (units, mut tallies) = (all_units(&plan), BTreeMap::new());
        self.measure(&units).await?;
        let mut pending = units;
        for look in 1.. {
            let failed = self.compare_all(pending, &mut tallies).await?;
            if failed.is_empty() {
                break;
            }
            // A partition or collection was dropped or released while it was read. Perhaps the other side follows.
            self.context.passed(self.context.source.time().await?).await?;
            let again = self.plan().await?;
            let (there, gone): (Vec<_>, Vec<_>) =
                failed.into_iter().partition(|(unit, _)| all_units(&again).contains(unit));
            for (unit, _) in &gone {
                replan(&mut plan, &again, unit);
            }
            if look == LOOKS {
                for (unit, error) in &there {
                    let planned = plan.entry(unit.collection.clone()).or_default();
                    planned.units.retain(|other| other != unit);
                    planned.gaps.push(error.to_string());
                }
                break;
            }
            pending = there.into_iter().map(|(unit, _)| unit).collect();
        }
        self.report(plan, tallies).await
    }

    async fn plan(&self) -> Result<Plan> {
        let catalog = self.catalog.read().await?.catalog;
        let Context { source, target, mode, names, .. } = &*self.context;
        plan::plan(&catalog, source, target, *mode, names, &*self.select).await
    }

    /// The plan once the pipeline has brought about what was to be brought about. (Indexes and load states have no place
    /// among the rows: they come some time after.)
    async fn settled_plan(&self) -> Result<Plan> {
        let mut looks = 1;
        let loaded_by = Instant::now() + LOADING;
        loop {
            let time = self.context.source.time().await?;
            let plan = self.plan().await?;
            if plan.values().any(|plan| plan.is_loading) && Instant::now() < loaded_by {
                tokio::time::sleep(PAUSE).await;
                continue;
            }
            if looks == LOOKS || !plan.values().any(|plan| plan.is_unsettled) {
                return Ok(plan);
            }
            if self.context.passed(time).await? == Beyond::Standing {
                return Ok(plan);
            }
            looks += 1;
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Tells the meter how many rows there are.
    async fn measure(&self, units: &[Unit]) -> Result<()> {
        let now = self.context.source.time().await?;
        for unit in units {
            match unit.count(&self.context.source, &Range::default(), now).await {
                Ok(count) => self.context.meter.expect(count),
                Err(error) if is_gone(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Compares `units`. Those that went away meanwhile are returned.
    async fn compare_all(
        &self,
        units: Vec<Unit>,
        tallies: &mut BTreeMap<(CollectionName, Option<String>), Tally>,
    ) -> Result<Vec<(Unit, Error)>> {
        let mut waiting = units.into_iter();
        let mut running = JoinSet::new();
        let mut failed = Vec::new();
        loop {
            while running.len() < PARALLEL
                && let Some(unit) = waiting.next()
            {
                let context = Arc::clone(&self.context);
                running.spawn(async move {
                    let result = Box::pin(compare(&context, unit.clone())).await;
                    (unit, result)
                });
            }
            let Some(joined) = running.join_next().await else { return Ok(failed) };
            let (unit, result) =
                joined.map_err(|cause| Error::new(Kind::Internal, "a comparison ended").caused_by(cause))?;
            match result {
                Ok(tally) => drop(tallies.insert((unit.collection, unit.partition), tally)),
                Err(error) if is_gone(&error) => failed.push((unit, error)),
                Err(error) => return Err(error),
            }
        }
    }

    async fn report(
        self,
        plan: Plan,
        mut tallies: BTreeMap<(CollectionName, Option<String>), Tally>,
    ) -> Result<Report> {
        let mut collections = Vec::new();
        for (name, planned) in plan {
            let mut found = Vec::new();
            for unit in &planned.units {
                if let Some(tally) = tallies.remove(&(unit.collection.clone(), unit.partition.clone())) {
                    found.push((unit.partition.clone(), tally));
                }
            }
            collections.push(self.collection(name, planned, found).await?);
        }
        let context = &self.context;
        let now = context.source.time().await?;
        let (frontier, state) = context.frontier.now().await?;
        let pipeline = PipelineReport {
            running: match state {
                State::Running => Some(true),
                State::Standing | State::Absent => Some(false),
                State::Unknown => None,
            },
            frontier,
            lag_ms: frontier.map(|frontier| now.millis().saturating_sub(frontier.millis())),
        };
        let mut differences =
            std::mem::take(&mut *context.differences.lock().unwrap_or_else(PoisonError::into_inner));
        differences.sort_by(|a, b| (&a.collection, &a.partition).cmp(&(&b.collection, &b.partition)));
        Ok(Report {
            outcome: collections.iter().map(|found| found.outcome).max().unwrap_or(Outcome::NotCompared),
            source: context.source.uri().to_owned(),
            target: context.target.uri().to_owned(),
            pipeline,
            seconds: self.began.elapsed().as_secs_f64(),
            collections,
            differences,
        })
    }

    async fn collection(
        &self,
        name: CollectionName,
        planned: CollectionPlan,
        tallies: Vec<(Option<String>, Tally)>,
    ) -> Result<CollectionReport> {
        let CollectionPlan { mut problems, gaps: mut not_compared, mut notes, lone, .. } = planned;
        let mut partitions = Vec::new();
        for (partition, mut tally) in tallies {
            let place = partition.as_ref().map(|name| format!("partition {name}: ")).unwrap_or_default();
            not_compared.append(&mut tally.withheld);
            let (source, target) = (tally.source_copies, tally.target_copies);
            if source != target {
                problems.push(format!(
                    "{place}{source} rows more than keys on the source, {target} on the target: keys are there several times"
                ));
            } else if source > 0 {
                notes.push(format!(
                    "{place}{source} rows more than keys on both sides: of a key that is there several times one row is \
                     compared, and not always the same"
                ));
            }
            if tally.uncounted_ranges > 0 {
                notes.push(format!(
                    "{place}rows came and went too fast to tell whether keys are there several times"
                ));
            }
            partitions.push(tally.into_report(partition.unwrap_or_else(|| "*".to_owned())));
        }
        let unit_outcome =
            |is_problem: bool| if is_problem { Outcome::Different } else { Outcome::NotCompared };
        for lone in lone {
            let mut report =
                Tally::default().into_report(lone.unit.partition.clone().unwrap_or("*".to_owned()));
            report.outcome = unit_outcome(lone.only.is_some());
            (report.source_hash, report.target_hash) = (None, None);
            let here = |role| lone.only.is_none_or(|only| only == role);
            report.source_rows = self.lone_rows(&lone, Role::Source, here(Role::Source)).await?;
            report.target_rows = self.lone_rows(&lone, Role::Target, here(Role::Target)).await?;
            match lone.only {
                Some(Role::Source) => report.source_only = report.source_rows.unwrap_or(0),
                Some(Role::Target) => report.target_only = report.target_rows.unwrap_or(0),
                None => {}
            }
            partitions.push(report);
        }
        partitions.sort_by(|a, b| a.name.cmp(&b.name));
        let worst = partitions.iter().map(|found| found.outcome).max().unwrap_or(Outcome::Equal);
        let outcome = match () {
            () if !problems.is_empty() => Outcome::Different,
            () if !not_compared.is_empty() => worst.max(Outcome::NotCompared),
            () => worst,
        };
        problems.dedup();
        not_compared.sort_unstable();
        not_compared.dedup();
        let on_target = self.context.names.other(&name).map(|name| name.to_string());
        let name = name.to_string();
        Ok(CollectionReport { name, on_target, outcome, problems, not_compared, notes, partitions })
    }

    /// The number of rows where they can be counted. Milvus' statistics are no help: they count deleted rows too.
    async fn lone_rows(&self, lone: &plan::Lone, role: Role, is_here: bool) -> Result<Option<u64>> {
        if !is_here {
            return Ok(Some(0));
        }
        if !lone.loaded.contains(&role) {
            return Ok(None);
        }
        let client = match role {
            Role::Source => &self.context.source,
            Role::Target => &self.context.target,
        };
        match lone.unit.count(client, &Range::default(), client.time().await?).await {
            Ok(count) => Ok(Some(count)),
            Err(error) if is_gone(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

fn all_units(plan: &Plan) -> Vec<Unit> {
    plan.values().flat_map(|planned| &planned.units).cloned().collect()
}

/// A unit went away: what there is to say of it instead comes from a later plan.
fn replan(plan: &mut Plan, again: &Plan, unit: &Unit) {
    let Some(planned) = plan.get_mut(&unit.collection) else { return };
    planned.units.retain(|other| other != unit);
    match again.get(&unit.collection) {
        None => drop(plan.remove(&unit.collection)),
        Some(later) => {
            let known: BTreeSet<String> = planned.problems.drain(..).chain(planned.gaps.drain(..)).collect();
            planned.problems = later.problems.clone();
            planned.gaps = later.gaps.clone();
            planned.lone = later.lone.clone();
            tracing::debug!(collection = %unit.collection, ?known, "the collection changed while it was compared");
        }
    }
}

/// Compares one unit.
async fn compare(context: &Context, mut unit: Unit) -> Result<Tally> {
    let Context { source, target, .. } = context;
    let (source_time, target_time) = tokio::try_join!(source.time(), target.time())?;
    let mut tally = Tally::default();
    for (client, time) in [(source, source_time), (target, target_time)] {
        for (field, why) in unit.withheld(client, time).await? {
            unit.fields.retain(|other| *other != field);
            unit.vectors.retain(|other| *other != field);
            tally
                .withheld
                .push(format!("field `{field}`, which the {} does not return: {why}", client.role().word()));
        }
    }
    let mut left = Scan::new(&unit, source, source_time);
    let mut right = Scan::new(&unit, target, target_time);
    let mut size = PageSize::new(unit.row_size);
    let mut row_size = unit.row_size.max(1);
    let (mut suspects, mut suspect_bytes) = (Vec::new(), 0);
    let mut odd: Vec<Range> = Vec::new();
    loop {
        let (a, b) = tokio::try_join!(left.fill(size), right.fill(size))?;
        if let Some(found) = a.max(b) {
            row_size = found.max(1);
            size.follow(row_size);
        }
        let (equal, suspect) = (
            |hash| tally.equal(Some(hash)),
            |key: key::Key| {
                suspect_bytes += key.size();
                suspects.push(key);
            },
        );
        let before = left.left();
        merge(&mut left, &mut right, equal, suspect);
        context.meter.done((before - left.left()) as u64);
        let is_done = left.is_done() && right.is_done();
        if suspects.len() >= SUSPECTS || suspect_bytes >= SUSPECT_BYTES || is_done {
            settle::rows(context, &unit, std::mem::take(&mut suspects), row_size, &mut tally).await?;
            suspect_bytes = 0;
        }
        odd.extend(left.take_odd());
        odd.extend(right.take_odd());
        if is_done {
            break;
        }
    }
    settle::copies(context, &unit, odd, &mut tally).await?;
    Ok(tally)
}

/// Runs `task` beside a display: `show` is called five times a second until it ends.
pub async fn shown<T>(task: impl Future<Output = T>, mut show: impl FnMut()) -> T {
    tokio::pin!(task);
    loop {
        show();
        tokio::select! {
            result = &mut task => return result,
            () = tokio::time::sleep(Duration::from_millis(200)) => {}
        }
    }
}
