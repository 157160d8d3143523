//! What may go out now: the logic of `apply`, without timely, tokio or a clock.
//!
//! Work waits in one queue per collection *name* (that on the target), so that a collection which is created again under its name comes
//! after the drop of the old one. Within a queue, the batches of different shards are independent, those of one shard
//! go out in order, side by side where they touch no common key, and a step of the catalog waits for everything before
//! it and holds back everything after it.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::pace::Pace;
use crate::dataflow::progress::Ended;
use crate::error::{Disposition, Error, Kind, Result};
use crate::failpoint::{self, Point};
use crate::milvus::catalog::{CollectionName, Ddl};
use crate::milvus::channel::VChannel;
use crate::milvus::tso::Tso;
use crate::ops::batch::Batch;
use crate::ops::coalesce::{SpanWork, Work};
use crate::pipeline::Names;
use crate::sinks::Operation;

/// The first pause before a call is sent again, and the longest.
const BACKOFF_FIRST: Duration = Duration::from_millis(50);
const BACKOFF_MOST: Duration = Duration::from_secs(5);

/// How often rows are sent again to a collection or partition that is said not to be there: for about ten seconds.
const NOT_FOUND_TRIES: u32 = 8;

/// How far ahead of need `sent_high` is recorded, in time of the rows.
const AHEAD: Duration = Duration::from_secs(2);

/// The same in time of the clock. A start after a crash waits this long beyond the calls' deadline, at most.
const AHEAD_OF_CLOCK: Duration = Duration::from_secs(1);

/// Added to a call's deadline before its outcome is taken as settled.
const SETTLE: Duration = Duration::from_millis(200);

/// Names a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallId(pub u64);

/// What is to be done now.
#[derive(Debug)]
pub enum Action {
    /// Send this batch.
    Send(CallId, Batch),
    /// Bring this step about.
    Apply(CallId, Ddl),
    /// Record these, and call [`Lanes::recorded`] when they are durable: some batch waits for it.
    Record(Vec<(VChannel, Tso)>, u64),
}

/// What became of a call.
#[derive(Debug, Default)]
pub struct Outcome {
    /// The batch, if it is on the target now.
    pub done: Option<Batch>,
    /// Why the pipeline must stop, if it must.
    pub fatal: Option<Error>,
    /// What is being waited for, for the user.
    pub waiting: Option<String>,
    /// How the call ended; `None` if there was no such call.
    pub ended: Option<Ended>,
}

/// Settings.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The most calls in flight.
    pub max_calls: usize,
    /// How long a call may take.
    pub call_deadline: Duration,
    /// Whether what is sent is recorded first; `false` only to measure what that costs.
    pub protected: bool,
    /// Where the chance in pauses begins, which keeps callers of one target from coming back all at once.
    pub seed: u64,
}

/// The logic of the operator.
pub struct Lanes {
    limits: Limits,
    names: Names,
    chance: StdRng,
    pace: Pace,
    queues: BTreeMap<String, Queue>,
    /// Steps that are not done and are about more queues than the one that they wait in, by number: the others.
    wide: BTreeMap<u64, Vec<String>>,
    flights: BTreeMap<CallId, Flight>,
    spans: VecDeque<SpanState>,
    next_span: u64,
    /// Of the spans before this one something was sent, of a later one nothing: they are finished also if it is to end. A
    /// span whose turn came first may wait behind a step or a pause while later ones go out.
    begun: u64,
    next_item: u64,
    next_call: u64,
    queued_bytes: u64,
    recorded: HashMap<VChannel, Tso>,
    /// Unix milliseconds up to which recorded calls may be alive.
    recorded_until: u64,
    recording: bool,
    /// Nothing goes out before this: calls of an earlier run may still be alive.
    hold_until: Option<Instant>,
    stop: Stop,
}

/// How far a stop has gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stop {
    No,
    /// Spans of which anything was sent are completed.
    AfterSpans,
    /// Only calls in flight are completed.
    AfterCalls,
}

struct Queue {
    items: VecDeque<Item>,
    in_flight: usize,
}

struct Item {
    span: u64,
    /// Its place among all work.
    number: u64,
    work: Work,
    attempt: u32,
    not_before: Option<Instant>,
}

struct Flight {
    queue: String,
    item: Item,
    sent: Instant,
}

struct SpanState {
    id: u64,
    left: usize,
}

impl Lanes {
    /// With nothing to do. `recorded` is what the last run left recorded, which is never lowered. Nothing goes out
    /// before `hold_until`.
    pub fn new(limits: Limits, recorded: HashMap<VChannel, Tso>, hold_until: Option<Instant>) -> Lanes {
        Lanes {
            limits,
            names: Names::default(),
            chance: StdRng::seed_from_u64(limits.seed),
            pace: Pace::new(limits.max_calls),
            queues: BTreeMap::new(),
            wide: BTreeMap::new(),
            flights: BTreeMap::new(),
            spans: VecDeque::new(),
            next_span: 0,
            begun: 0,
            next_item: 0,
            next_call: 0,
            queued_bytes: 0,
            recorded,
            recorded_until: 0,
            recording: false,
            hold_until,
            stop: Stop::No,
        }
    }

    /// The same where collections have these names on the target.
    pub fn named(mut self, names: Names) -> Lanes {
        self.names = names;
        self
    }

    /// Takes a span. Returns its number; numbers count up by one.
    pub fn push(&mut self, span: SpanWork) -> u64 {
        let id = self.next_span;
        self.next_span += 1;
        self.spans.push_back(SpanState { id, left: span.work.len() });
        for work in span.work {
            self.queued_bytes += work.bytes();
            let others = work.other_queues(&self.names);
            if !others.is_empty() {
                self.wide.insert(self.next_item, others);
            }
            let queue = self.queues.entry(work.queue(&self.names)).or_insert_with(Queue::new);
            queue.items.push_back(Item {
                span: id,
                number: self.next_item,
                work,
                attempt: 0,
                not_before: None,
            });
            self.next_item += 1;
        }
        id
    }

    /// Number of the first span that is not complete; all before it are.
    pub fn first_incomplete(&self) -> u64 {
        self.spans.front().map_or(self.next_span, |span| span.id)
    }

    /// Drops complete spans from the front.
    fn settle(&mut self) {
        while self.spans.front().is_some_and(|span| span.left == 0) {
            self.spans.pop_front();
        }
    }

    /// What may go out at `now` (`unix_now`: the same in Unix milliseconds).
    pub fn next(&mut self, now: Instant, unix_now: u64) -> Vec<Action> {
        self.settle();
        let mut actions = Vec::new();
        if self.hold_until.is_some_and(|until| now < until) {
            failpoint::pass(Point::ResumeWaiting);
            return actions;
        }
        if self.stop == Stop::AfterCalls {
            return actions;
        }
        if self.hold_until.take().is_some() {
            failpoint::pass(Point::ResumeReplay);
        }
        let deadline = millis(self.limits.call_deadline);
        let mut unrecorded = false;
        // Oldest span first, so that the frontier moves.
        let mut order: Vec<(u64, String)> = self
            .queues
            .iter()
            .filter_map(|(name, queue)| queue.items.front().map(|item| (item.span, name.clone())))
            .collect();
        order.sort();
        for (_, name) in order {
            if self.flights.values().any(|flight| flight.queue == name && !flight.item.work.is_batch()) {
                // A step is under way, and holds back everything behind it.
                continue;
            }
            let mut blocked: HashSet<VChannel> = HashSet::new();
            let mut index = 0;
            while self.flights.len() < self.pace.limit() {
                let Some(queue) = self.queues.get(&name) else { break };
                let Some(item) = queue.items.get(index) else { break };
                if self.stop == Stop::AfterSpans && !self.has_begun(item.span) {
                    break;
                }
                let waits =
                    item.not_before.is_some_and(|at| now < at) || self.is_held_back(&name, item.number);
                match &item.work {
                    Work::Ddl(ddl) => {
                        if index > 0 || waits || queue.in_flight > 0 || !self.may_run(ddl, item.number) {
                            break;
                        }
                        // It may be alive as long as any other call, and must not come after a later run's.
                        if self.limits.protected && unix_now + deadline > self.recorded_until {
                            unrecorded = true;
                            break;
                        }
                    }
                    Work::Batch(batch) => {
                        let free = !waits
                            && !blocked.contains(&batch.vchannel)
                            && !self.flights.values().any(|flight| flight.conflicts(batch));
                        let covered = !self.limits.protected
                            || self.recorded.get(&batch.vchannel).is_some_and(|high| batch.high <= *high)
                                && unix_now + deadline <= self.recorded_until;
                        if !free || !covered {
                            unrecorded |= free;
                            blocked.insert(batch.vchannel.clone());
                            index += 1;
                            continue;
                        }
                    }
                }
                actions.extend(self.send(&name, index, now));
                if matches!(actions.last(), Some(Action::Apply(..))) {
                    break;
                }
            }
        }
        if !self.recording && (unrecorded || self.running_short(unix_now)) {
            self.recording = true;
            actions.push(self.record(unix_now));
        }
        actions
    }

    fn send(&mut self, name: &str, index: usize, now: Instant) -> Option<Action> {
        let queue = self.queues.get_mut(name)?;
        let item = queue.items.remove(index)?;
        if item.attempt > 0 && item.work.is_batch() {
            failpoint::pass(Point::CallAgain);
        }
        queue.in_flight += 1;
        self.queued_bytes -= item.work.bytes();
        self.begun = self.begun.max(item.span + 1);
        let id = CallId(self.next_call);
        self.next_call += 1;
        let action = match &item.work {
            Work::Batch(batch) => Action::Send(id, (**batch).clone()),
            Work::Ddl(ddl) => Action::Apply(id, ddl.clone()),
        };
        self.flights.insert(id, Flight { queue: name.to_owned(), item, sent: now });
        Some(action)
    }

    /// Whether an earlier step that waits in another queue is about what this item is about too.
    fn is_held_back(&self, queue: &str, number: u64) -> bool {
        let own = self.wide.get(&number);
        let is_own = |other: &String| other == queue || own.is_some_and(|own| own.contains(other));
        self.wide.range(..number).any(|(_, others)| others.iter().any(is_own))
    }

    /// Whether a step has to wait for none in another queue: one that is about several queues goes once all that came before
    /// in each is done, a database goes once all that came before in it is done, and
    /// its collections come once it is there. `number` is the step's own.
    fn may_run(&self, ddl: &Ddl, number: u64) -> bool {
        let others = self.wide.get(&number);
        let is_other = |queue: &str| others.is_some_and(|others| others.iter().any(|other| other == queue));
        let is_before = |queue: &str| {
            is_other(queue)
                || match ddl {
                    Ddl::RenameCollection { to, .. } => {
                        queue.strip_suffix('/') == Some(&*self.names.collection(to).database)
                    }
                    Ddl::DropDatabase { name, .. } => queue
                        .strip_prefix(self.names.database(name))
                        .is_some_and(|rest| rest.starts_with('.')),
                    Ddl::CreateCollection(collection) => {
                        queue.strip_suffix('/') == Some(&*self.names.collection(&collection.name).database)
                    }
                    _ => false,
                }
        };
        let mut waiting =
            self.queues.iter().flat_map(|(name, queue)| queue.items.iter().map(move |item| (name, item)));
        let mut flying = self.flights.values().map(|flight| (&flight.queue, &flight.item));
        !waiting.any(|(queue, item)| item.number < number && is_before(queue))
            && !flying.any(|(queue, item)| item.number < number && is_before(queue))
    }

    fn has_begun(&self, span: u64) -> bool {
        span < self.begun
    }

    /// Whether what is recorded will soon not cover what is queued: then it is renewed before anything waits.
    fn running_short(&self, unix_now: u64) -> bool {
        let soon = unix_now + millis(self.limits.call_deadline) + millis(AHEAD_OF_CLOCK) / 2;
        self.limits.protected && !self.flights.is_empty() && self.recorded_until < soon
    }

    fn record(&self, unix_now: u64) -> Action {
        let mut highs: HashMap<VChannel, Tso> = HashMap::new();
        let waiting = self.queues.values().flat_map(|queue| &queue.items).map(|item| &item.work);
        for work in waiting.chain(self.flights.values().map(|flight| &flight.item.work)) {
            if let Work::Batch(batch) = work {
                let before = self.recorded.get(&batch.vchannel).copied().unwrap_or(Tso::ZERO);
                let high = highs.entry(batch.vchannel.clone()).or_insert(before);
                *high = batch.high.after(AHEAD).max(*high);
            }
        }
        let until = unix_now + millis(self.limits.call_deadline) + millis(AHEAD_OF_CLOCK);
        Action::Record(highs.into_iter().collect(), until)
    }

    /// An [`Action::Record`] is durable. INVARIANT 3: batches go out only once it is.
    pub fn recorded(&mut self, highs: Vec<(VChannel, Tso)>, until: u64) {
        self.recording = false;
        self.recorded_until = until.max(self.recorded_until);
        for (vchannel, high) in highs {
            let recorded = self.recorded.entry(vchannel).or_insert(Tso::ZERO);
            *recorded = high.max(*recorded);
        }
    }

    /// A call has ended.
    pub fn ended(&mut self, id: CallId, result: Result<()>, now: Instant) -> Outcome {
        let in_flight = self.flights.len();
        let Some(Flight { queue, mut item, sent }) = self.flights.remove(&id) else {
            return Outcome::default();
        };
        let Some(state) = self.queues.get_mut(&queue) else { return Outcome::default() };
        state.in_flight -= 1;
        let took = now.saturating_duration_since(sent);
        let mut ended = Ended { call: item.work.call(), took, retried: None, doubtful_rows: 0 };
        let error = match result {
            Ok(()) => {
                if state.items.is_empty() && state.in_flight == 0 {
                    self.queues.remove(&queue);
                }
                self.wide.remove(&item.number);
                if let Some(span) = self.spans.iter_mut().find(|span| span.id == item.span) {
                    span.left -= 1;
                    if span.left > 0 {
                        failpoint::pass(Point::SpanPart);
                    }
                }
                self.settle();
                let done = match item.work {
                    Work::Batch(batch) => {
                        self.pace.succeeded(batch.bytes, took, in_flight);
                        tracing::debug!(
                            vchannel = %batch.vchannel, rows = batch.rows, bytes = batch.bytes, ?took, in_flight,
                            limit = self.pace.limit(), "acknowledged"
                        );
                        Some(*batch)
                    }
                    Work::Ddl(_) => None,
                };
                return Outcome { done, ended: Some(ended), ..Outcome::default() };
            }
            Err(error) => error,
        };
        item.attempt += 1;
        // The catalog comes before its rows, so what is not found is not known everywhere yet: a proxy of Milvus may
        // answer from what it remembers for a moment after a partition was created (seen on 2.3.5).
        let soon = error.kind() == Kind::NotFound && item.work.is_batch() && item.attempt <= NOT_FOUND_TRIES;
        let disposition = if soon { Disposition::Retry } else { error.kind().disposition() };
        let pause = match disposition {
            Disposition::Retry => backoff(&mut self.chance, item.attempt),
            Disposition::Wait => backoff(&mut self.chance, item.attempt.max(5)),
            // Nothing may overtake itself: a lost call that takes effect late would undo what came after it.
            Disposition::Resolve => match &mut item.work {
                // It is several calls, the last of which may have gone out just now.
                Work::Ddl(_) => self.limits.call_deadline + SETTLE,
                Work::Batch(batch) => {
                    failpoint::pass(Point::CallInDoubt);
                    if let Err(error) = batch.make_repeatable() {
                        return Outcome { fatal: Some(error), ended: Some(ended), ..Outcome::default() };
                    }
                    ended.doubtful_rows = u64::try_from(batch.rows).unwrap_or(u64::MAX);
                    (sent + self.limits.call_deadline + SETTLE).saturating_duration_since(now)
                }
            },
            Disposition::Stop => {
                return Outcome { fatal: Some(error), ended: Some(ended), ..Outcome::default() };
            }
        };
        if error.kind() == Kind::RateLimited || disposition == Disposition::Wait {
            self.pace.refused(sent, now);
        }
        item.not_before = Some(now + pause);
        self.queued_bytes += item.work.bytes();
        // Back to where it was: before everything of its shard that came after it.
        let place = state.items.iter().position(|other| other.span >= item.span).unwrap_or(state.items.len());
        let waiting = Some(format!("{queue}: {error}"));
        let place = if item.work.is_batch() { place.min(state.items.len()) } else { 0 };
        state.items.insert(place, item);
        ended.retried = Some(error.kind());
        Outcome { waiting, ended: Some(ended), ..Outcome::default() }
    }

    /// When [`Lanes::next`] is worth calling again although nothing has happened.
    pub fn wake_at(&self) -> Option<Instant> {
        let items = self.queues.values().flat_map(|queue| &queue.items);
        items.filter_map(|item| item.not_before).chain(self.hold_until).min()
    }

    /// Bytes that wait to go out.
    pub fn queued_bytes(&self) -> u64 {
        self.queued_bytes
    }

    /// Calls in flight.
    pub fn in_flight(&self) -> usize {
        self.flights.len()
    }

    /// Calls that may be in flight.
    pub fn limit(&self) -> usize {
        self.pace.limit()
    }

    /// Whether there is nothing to do at all.
    pub fn is_idle(&self) -> bool {
        self.spans.is_empty() && self.flights.is_empty()
    }

    /// Spans that have not been begun will not be; with `at_once`, neither will further calls of those that have.
    pub fn stop(&mut self, at_once: bool) {
        self.stop = if at_once { Stop::AfterCalls } else { Stop::AfterSpans };
    }

    /// Whether a stop is complete: nothing is in flight and nothing that should still go out is left.
    pub fn is_drained(&self) -> bool {
        self.flights.is_empty()
            && match self.stop {
                Stop::No => false,
                Stop::AfterSpans => !self.spans.iter().any(|span| span.id < self.begun && span.left > 0),
                Stop::AfterCalls => true,
            }
    }

    /// Whether the target holds all of some spans and nothing of any other.
    pub fn is_consistent(&self) -> bool {
        self.flights.is_empty() && !self.spans.iter().any(|span| span.id < self.begun && span.left > 0)
    }
}

impl Queue {
    fn new() -> Queue {
        Queue { items: VecDeque::new(), in_flight: 0 }
    }
}

impl Flight {
    fn conflicts(&self, batch: &Batch) -> bool {
        matches!(&self.item.work, Work::Batch(other) if other.conflicts(batch))
    }
}

impl Work {
    fn is_batch(&self) -> bool {
        matches!(self, Work::Batch(_))
    }

    /// What sort of call it is made by.
    fn call(&self) -> &'static str {
        match self {
            Work::Ddl(_) => "ddl",
            Work::Batch(batch) => match &batch.write.operation {
                Operation::Insert(_) => "insert",
                Operation::Upsert(_) => "upsert",
                Operation::Delete(_) => "delete",
                Operation::Messages(..) => "replicate",
            },
        }
    }

    fn bytes(&self) -> u64 {
        match self {
            Work::Batch(batch) => batch.bytes,
            Work::Ddl(_) => 0,
        }
    }

    /// Further queues that it is about.
    fn other_queues(&self, names: &Names) -> Vec<String> {
        let Work::Ddl(ddl) = self else { return Vec::new() };
        if ddl.other_names().is_empty() {
            return Vec::new();
        }
        let mut ddl = Ddl::clone(ddl);
        names.put_into(&mut ddl);
        let own = self.queue(names);
        let others = ddl.other_names().into_iter().map(CollectionName::to_string);
        others.filter(|other| *other != own).collect()
    }

    /// The queue it waits in: the collection's name, or the database's with a mark that no collection has.
    fn queue(&self, names: &Names) -> String {
        let name: Option<&CollectionName> = match self {
            Work::Batch(batch) => Some(&batch.write.collection.name),
            Work::Ddl(ddl) => ddl.collection_name(),
        };
        match (name, self) {
            (Some(name), _) => names.collection(name).to_string(),
            (None, Work::Ddl(Ddl::CreateDatabase(database))) => {
                format!("{}/", names.database(&database.name))
            }
            (None, Work::Ddl(Ddl::DropDatabase { name, .. } | Ddl::SetDatabaseProperties { name, .. })) => {
                format!("{}/", names.database(name))
            }
            // Who may do what: one after the other.
            (None, _) => String::from("/"),
        }
    }
}

fn backoff(chance: &mut StdRng, attempt: u32) -> Duration {
    let doubled = BACKOFF_FIRST.saturating_mul(1 << attempt.saturating_sub(1).min(16));
    doubled.min(BACKOFF_MOST).mul_f64(chance.random_range(0.75..1.25))
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
