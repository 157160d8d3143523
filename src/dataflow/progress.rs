//! How far a pipeline has come: counted by the operators, read by whoever shows it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hdrhistogram::Histogram;

use super::latency::Latency;
use crate::error::Kind;
use crate::milvus::catalog::{CollectionId, CollectionName};
use crate::milvus::channel::PChannel;
use crate::milvus::tso::Tso;
use crate::ops::batch::Batch;
use crate::sinks::{Forwarded, Operation};

/// Frontiers older than this are backlog; their lag says nothing of how the pipeline keeps up.
const LIVE: Duration = Duration::from_secs(10);

/// Rows and keys, and their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amount {
    /// Rows and keys.
    pub rows: u64,
    /// Bytes of the messages they came in.
    pub bytes: u64,
}

impl Amount {
    fn add(&mut self, rows: u64, bytes: u64) {
        self.rows += rows;
        self.bytes += bytes;
    }
}

/// What one collection got, or what came through one channel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Read from the queue and wanted.
    pub received: Amount,
    /// In order, and handed over to be sent.
    pub dispatched: Amount,
    /// Rows inserted.
    pub inserted: u64,
    /// Rows upserted.
    pub upserted: u64,
    /// Keys deleted.
    pub deleted: u64,
    /// Bytes of rows and keys.
    pub bytes: u64,
}

impl Counts {
    /// Rows and keys that are on the target.
    pub fn durable(&self) -> u64 {
        self.inserted + self.upserted + self.deleted
    }

    fn applied(&mut self, operation: &Operation, rows: u64, bytes: u64) {
        self.bytes += bytes;
        match operation {
            Operation::Insert(_) => self.inserted += rows,
            Operation::Upsert(_) => self.upserted += rows,
            Operation::Delete(_) => self.deleted += rows,
            Operation::Messages(_, messages) => {
                for Forwarded { message, .. } in messages {
                    let rows = u64::try_from(message.rows).unwrap_or(u64::MAX);
                    *if message.is_insert { &mut self.inserted } else { &mut self.deleted } += rows;
                }
            }
        }
    }
}

/// How a call ended.
#[derive(Clone, Copy, Debug)]
pub struct Ended {
    /// `insert`, `upsert`, `delete`, `replicate` or `ddl`.
    pub call: &'static str,
    /// How long it took.
    pub took: Duration,
    /// If it is made again: why.
    pub retried: Option<Kind>,
    /// Rows of which it is not known whether they have arrived.
    pub doubtful_rows: u64,
}

/// Progress of one pipeline.
#[derive(Debug, Default)]
pub struct Progress(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    collections: BTreeMap<CollectionName, Counts>,
    channels: BTreeMap<PChannel, Counts>,
    /// What was received, as long as only ids are known; and the names of these.
    received: HashMap<CollectionId, Amount>,
    names: HashMap<CollectionId, CollectionName>,
    read: Tso,
    highest: Tso,
    ordered: Tso,
    acknowledged: Tso,
    committed: Tso,
    latencies: BTreeMap<&'static str, Latency>,
    retries: BTreeMap<Kind, u64>,
    doubtful_rows: u64,
    waiting: Option<String>,
    calls: usize,
    lag: Option<Histogram<u64>>,
    heads: Heads,
}

/// The end of what was in the log when the pipeline started.
#[derive(Debug, Default)]
struct Heads {
    /// Channels that the pipeline starts with, and the frontier by which its first steps are done; `None` before the
    /// first look at the catalog.
    initial: Option<(BTreeSet<PChannel>, Tso)>,
    passed: BTreeMap<PChannel, Tso>,
}

/// A copy of it all at one moment.
#[derive(Clone, Debug, Default)]
pub struct Now {
    /// Per collection.
    pub collections: BTreeMap<CollectionName, Counts>,
    /// Per channel.
    pub by_channel: BTreeMap<PChannel, Counts>,
    /// Everything up to this has been read from all channels.
    pub read: Tso,
    /// The highest tick that was seen on any channel.
    pub highest: Tso,
    /// Everything up to this was handed over to be sent.
    pub ordered: Tso,
    /// The times of calls, by what they did.
    pub latencies: BTreeMap<&'static str, Latency>,
    /// How often calls were made again, by why.
    pub retries: BTreeMap<Kind, u64>,
    /// Rows that were sent again since it was not known whether they had arrived.
    pub doubtful_rows: u64,
    /// Everything up to this is on the target.
    pub acknowledged: Tso,
    /// Everything up to this is on the target and recorded.
    pub committed: Tso,
    /// What is being waited for.
    pub waiting: Option<String>,
    /// Calls in flight.
    pub calls: usize,
    /// Once that is committed, everything that was in the log at the start is; `None` until known.
    pub head: Option<Tso>,
    /// Milliseconds by which the acknowledged frontier was behind the clock, while it was not far behind: the
    /// 50th, 90th and 99th percentile.
    pub lag: Option<[u64; 3]>,
}

impl Progress {
    /// For a pipeline that resumes from `floor`.
    pub fn new(floor: Tso) -> Progress {
        let state = State {
            read: floor,
            ordered: floor,
            acknowledged: floor,
            committed: floor,
            // Three digits of 1 ms to an hour; the bounds are constants, so this can't fail.
            lag: Histogram::new_with_bounds(1, 3_600_000, 3).ok(),
            ..State::default()
        };
        Progress(Mutex::new(state))
    }

    /// This was read from `channel`: of each collection so much.
    pub fn received(&self, channel: &PChannel, amounts: &[(CollectionId, Amount)]) {
        let mut state = self.lock();
        let State { channels, received, .. } = &mut *state;
        let of_channel = &mut channels.entry(channel.clone()).or_default().received;
        for (collection, Amount { rows, bytes }) in amounts {
            of_channel.add(*rows, *bytes);
            received.entry(*collection).or_default().add(*rows, *bytes);
        }
    }

    /// The collection with this id is called so.
    pub fn named(&self, id: CollectionId, name: &CollectionName) {
        self.lock().names.insert(id, name.clone());
    }

    /// Everything up to `least` has been read from all channels, and up to `highest` from one.
    pub fn read(&self, least: Tso, highest: Tso) {
        let mut state = self.lock();
        (state.read, state.highest) = (least.max(state.read), highest.max(state.highest));
    }

    /// Everything up to `upto` was handed over to be sent.
    pub fn ordered(&self, upto: Tso) {
        let mut state = self.lock();
        state.ordered = upto.max(state.ordered);
    }

    /// A batch was handed over to be sent. `doubtful`: an earlier run may have sent it already.
    pub fn dispatched(&self, batch: &Batch, doubtful: bool) {
        let rows = u64::try_from(batch.rows).unwrap_or(u64::MAX);
        let mut state = self.lock();
        let name = batch.write.collection.name.clone();
        state.collections.entry(name).or_default().dispatched.add(rows, batch.bytes);
        state.channels.entry(batch.vchannel.pchannel()).or_default().dispatched.add(rows, batch.bytes);
        if doubtful {
            state.doubtful_rows += rows;
        }
    }

    /// A batch is on the target.
    pub fn applied(&self, batch: &Batch) {
        let rows = u64::try_from(batch.rows).unwrap_or(u64::MAX);
        let mut state = self.lock();
        let operation = &batch.write.operation;
        let name = batch.write.collection.name.clone();
        state.collections.entry(name).or_default().applied(operation, rows, batch.bytes);
        state.channels.entry(batch.vchannel.pchannel()).or_default().applied(operation, rows, batch.bytes);
    }

    /// A call has ended.
    pub fn ended(&self, ended: &Ended) {
        let mut state = self.lock();
        state.latencies.entry(ended.call).or_default().record(ended.took);
        if let Some(kind) = ended.retried {
            *state.retries.entry(kind).or_default() += 1;
        }
        state.doubtful_rows += ended.doubtful_rows;
    }

    /// Everything up to `frontier` is on the target.
    pub fn acknowledged(&self, frontier: Tso) {
        let mut state = self.lock();
        state.acknowledged = frontier.max(state.acknowledged);
        let age = frontier.age();
        if age < LIVE
            && let Some(lag) = &mut state.lag
        {
            lag.saturating_record(u64::try_from(age.as_millis()).unwrap_or(u64::MAX));
        }
    }

    /// Everything up to `frontier` is on the target, and recorded.
    pub fn committed(&self, frontier: Tso) {
        let mut state = self.lock();
        state.committed = frontier.max(state.committed);
    }

    /// What is being waited for, if anything.
    pub fn waiting(&self, reason: Option<String>) {
        self.lock().waiting = reason;
    }

    /// How many calls are in flight.
    pub fn calls(&self, calls: usize) {
        self.lock().calls = calls;
    }

    /// The pipeline starts with these channels, and with steps that are done once the frontier is at `due`.
    pub fn starts_with(&self, channels: BTreeSet<PChannel>, due: Tso) {
        self.lock().heads.initial.get_or_insert((channels, due));
    }

    /// All that was in this channel when it was opened has been read; it is complete up to `tick`.
    pub fn head_passed(&self, channel: &PChannel, tick: Tso) {
        self.lock().heads.passed.insert(channel.clone(), tick);
    }

    /// A copy of it all.
    pub fn now(&self) -> Now {
        let state = self.lock();
        let passed = &state.heads.passed;
        let initial = state.heads.initial.as_ref();
        let head = initial
            .filter(|(channels, _)| channels.iter().all(|channel| passed.contains_key(channel)))
            .map(|(channels, due)| {
                channels.iter().filter_map(|channel| passed.get(channel)).fold(*due, |a, b| a.max(*b))
            });
        let lag = state.lag.as_ref().filter(|lag| !lag.is_empty());
        let mut collections = state.collections.clone();
        for (id, Amount { rows, bytes }) in &state.received {
            if let Some(name) = state.names.get(id) {
                collections.entry(name.clone()).or_default().received.add(*rows, *bytes);
            }
        }
        Now {
            collections,
            by_channel: state.channels.clone(),
            read: state.read,
            highest: state.highest,
            ordered: state.ordered,
            latencies: state.latencies.clone(),
            retries: state.retries.clone(),
            doubtful_rows: state.doubtful_rows,
            acknowledged: state.acknowledged,
            committed: state.committed,
            waiting: state.waiting.clone(),
            calls: state.calls,
            head,
            lag: lag.map(|lag| [50.0, 90.0, 99.0].map(|percentile| lag.value_at_percentile(percentile))),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
