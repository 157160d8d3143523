//! How far a pipeline has come: counted by the operators, read by whoever shows it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hdrhistogram::Histogram;

use crate::milvus::catalog::CollectionName;
use crate::milvus::channel::PChannel;
use crate::milvus::tso::Tso;
use crate::ops::batch::Batch;
use crate::sinks::{Forwarded, Operation};

/// Frontiers older than this are backlog; their lag says nothing of how the pipeline keeps up.
const LIVE: Duration = Duration::from_secs(10);

/// What one collection got.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Rows inserted.
    pub inserted: u64,
    /// Rows upserted.
    pub upserted: u64,
    /// Keys deleted.
    pub deleted: u64,
    /// Bytes of rows and keys.
    pub bytes: u64,
}

/// Progress of one pipeline.
#[derive(Debug, Default)]
pub struct Progress(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    collections: BTreeMap<CollectionName, Counts>,
    acknowledged: Tso,
    committed: Tso,
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
            acknowledged: floor,
            committed: floor,
            // Three digits of 1 ms to an hour; the bounds are constants, so this can't fail.
            lag: Histogram::new_with_bounds(1, 3_600_000, 3).ok(),
            ..State::default()
        };
        Progress(Mutex::new(state))
    }

    /// A batch is on the target.
    pub fn applied(&self, batch: &Batch) {
        let rows = u64::try_from(batch.rows).unwrap_or(u64::MAX);
        let mut state = self.lock();
        let counts = state.collections.entry(batch.write.collection.name.clone()).or_default();
        counts.bytes += batch.bytes;
        match &batch.write.operation {
            Operation::Insert(_) => counts.inserted += rows,
            Operation::Upsert(_) => counts.upserted += rows,
            Operation::Delete(_) => counts.deleted += rows,
            Operation::Messages(_, messages) => {
                for Forwarded { message, .. } in messages {
                    let rows = u64::try_from(message.rows).unwrap_or(u64::MAX);
                    *if message.is_insert { &mut counts.inserted } else { &mut counts.deleted } += rows;
                }
            }
        }
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
        Now {
            collections: state.collections.clone(),
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
