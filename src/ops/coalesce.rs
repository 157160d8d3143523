//! `coalesce`: turns a span into as few calls as will do.
//!
//! Input: spans. Output: the work of each span, at the span's time.
//! Capability held: none. What moves the frontier: the input's.
//!
//! Within a span and a shard only the net effect of each primary key matters: a set of deletes, applied first, and a
//! set of rows. Insert-then-delete leaves the delete; delete-then-insert leaves both, sent as one upsert where the
//! delete is confined to the row's partition, otherwise as a delete and an insert. Plain inserts stay plain inserts,
//! untouched and unhashed. Rows in doubt (ts ≤ the `sent_high` that the last run left) become upserts of the newest
//! row of each key. A step of the catalog cuts the work of its collection in two.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use arrow_array::{Array, ArrayRef, Int64Array, RecordBatch, StringViewArray};
use rustc_hash::FxHashMap;
use timely::dataflow::Stream;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::generic::operator::Operator;

use super::batch::{Batch, Key, KeySet, for_each_key, keep_rows, key_name, newest_rows};
use super::{Parcel, Span, Step};
use crate::dataflow::credits::Credit;
use crate::dataflow::shared::Shared;
use crate::error::Result;
use crate::milvus::catalog::{Collection, CollectionId, Ddl};
use crate::milvus::change::{Body, Change};
use crate::milvus::channel::VChannel;
use crate::milvus::columns::{array_size, data_size, key_column};
use crate::milvus::tso::Tso;
use crate::sinks::{Forwarded, Operation, Write};

/// `coalesce` → `apply`: what a span comes down to.
#[derive(Clone, Debug, Default)]
pub struct SpanWork {
    /// The end of the span.
    pub upper: Tso,
    /// In an order that is right for each collection.
    pub work: Vec<Work>,
    /// Bytes of the span's messages, as counted by `order`.
    pub bytes: u64,
}

/// One call.
#[derive(Clone, Debug)]
pub enum Work {
    /// Rows or keys.
    Batch(Box<Batch>),
    /// A step of the catalog: everything before it for its collection first, everything after it later.
    Ddl(Ddl),
}

/// Builds the operator.
pub fn coalesce<'scope>(
    spans: Stream<'scope, Tso, Vec<Parcel<Span>>>,
    coalesce: Coalesce,
    shared: Rc<Shared>,
) -> Stream<'scope, Tso, Vec<Parcel<SpanWork>>> {
    spans.unary(Pipeline, "coalesce", move |capability, _info| {
        drop(capability);
        move |input, output| {
            input.for_each(|cap, spans| {
                for span in spans.drain(..) {
                    match coalesce.span(span.take()) {
                        Ok(work) => output.session(&cap).give(Parcel::new(RefCell::new(work))),
                        Err(error) => shared.fail(error),
                    }
                }
            });
        }
    })
}

/// The logic of the operator.
pub struct Coalesce {
    batch_bytes: usize,
    in_doubt: HashMap<VChannel, Tso>,
}

/// The changes of one shard since the last cut.
struct Lane {
    collection: Arc<Collection>,
    changes: Vec<(Change, Option<Arc<str>>)>,
}

impl Coalesce {
    /// Cuts batches at `batch_bytes`; `in_doubt` tells for each shard up to which ts rows may have been sent already.
    pub fn new(batch_bytes: usize, in_doubt: HashMap<VChannel, Tso>) -> Coalesce {
        Coalesce { batch_bytes, in_doubt }
    }

    /// The work of a span.
    pub fn span(&self, span: Span) -> Result<SpanWork> {
        let mut work = Vec::new();
        let bytes = span.bytes();
        let mut lanes: Vec<(VChannel, Lane)> = Vec::new();
        let mut places: HashMap<VChannel, usize> = HashMap::new();
        for step in span.steps {
            match step {
                Step::Change { change, collection, partition } => {
                    let place = *places.entry(change.vchannel.clone()).or_insert_with(|| {
                        let lane = Lane { collection: Arc::clone(&collection), changes: Vec::new() };
                        lanes.push((change.vchannel.clone(), lane));
                        lanes.len() - 1
                    });
                    let lane = &mut lanes[place].1;
                    lane.collection = collection;
                    lane.changes.push((change, partition));
                }
                Step::Ddl(ddl) => {
                    let id: Option<CollectionId> = ddl.collection();
                    for (vchannel, lane) in &mut lanes {
                        if id.is_none_or(|id| lane.collection.id == id) {
                            self.flush(vchannel, lane, &mut work)?;
                        }
                    }
                    work.push(Work::Ddl(ddl));
                }
            }
        }
        for (vchannel, lane) in &mut lanes {
            self.flush(vchannel, lane, &mut work)?;
        }
        Ok(SpanWork { upper: span.upper, work, bytes })
    }

    fn flush(&self, vchannel: &VChannel, lane: &mut Lane, work: &mut Vec<Work>) -> Result<()> {
        let mut changes = std::mem::take(&mut lane.changes);
        let bound = self.in_doubt.get(vchannel).copied().unwrap_or(Tso::ZERO);
        let fresh = changes.split_off(changes.partition_point(|(change, _)| change.ts <= bound));
        for (changes, in_doubt) in [(changes, true), (fresh, false)] {
            // A pipeline has messages or rows, never both.
            if changes.first().is_some_and(|(change, _)| matches!(change.body, Body::Message(_))) {
                self.messages(vchannel, &lane.collection, changes, work);
            } else if !changes.is_empty() {
                Net::new(vchannel, &lane.collection, in_doubt, self.batch_bytes).run(changes, work)?;
            }
        }
        Ok(())
    }

    /// Cuts messages that are to stay as they are into calls.
    fn messages(
        &self,
        vchannel: &VChannel,
        collection: &Arc<Collection>,
        changes: Vec<(Change, Scope)>,
        work: &mut Vec<Work>,
    ) {
        let mut open: Option<Box<Batch>> = None;
        for (change, partition) in changes {
            let Body::Message(message) = change.body else { continue };
            let size = message.payload.len() as u64;
            if open.as_ref().is_some_and(|batch| batch.bytes + size > self.batch_bytes as u64) {
                work.extend(open.take().map(Work::Batch));
            }
            let batch = open.get_or_insert_with(|| {
                let operation = Operation::Messages(vchannel.clone(), Vec::new());
                Box::new(Batch {
                    vchannel: vchannel.clone(),
                    write: Write { collection: Arc::clone(collection), partition: None, operation },
                    high: Tso::ZERO,
                    keys: Rc::new(KeySet::new(Vec::new())),
                    rows: 0,
                    bytes: 0,
                    credits: Vec::new(),
                })
            });
            batch.high = batch.high.max(change.ts);
            batch.rows += message.rows;
            batch.bytes += size;
            batch.credits.push(change.credit);
            if let Operation::Messages(_, messages) = &mut batch.write.operation {
                messages.push(Forwarded { ts: change.ts, partition, message });
            }
        }
        work.extend(open.map(Work::Batch));
    }
}

/// Where a key is deleted: in one partition or in all.
type Scope = Option<Arc<str>>;

/// The deletes of one key within a span.
#[derive(Default)]
struct Deleted {
    /// Per scope the latest delete. Hardly ever more than one entry.
    scopes: Vec<(Scope, Tso)>,
    /// Rows with this key that stay.
    kept: u32,
}

/// Works out the net effect of one shard's changes.
struct Net<'a> {
    vchannel: &'a VChannel,
    collection: &'a Arc<Collection>,
    in_doubt: bool,
    batch_bytes: usize,
    /// Whether a delete in a partition and one in all come to the same: only one partition can be meant.
    one_partition: bool,
    /// Whether partitions can be named in calls.
    named: bool,
}

/// Rows on their way into a batch.
#[derive(Default)]
struct Rows {
    batches: Vec<RecordBatch>,
    credits: Vec<Arc<Credit>>,
    high: Tso,
    bytes: usize,
}

/// What a call does, before its rows are in it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Verb {
    Insert,
    Upsert,
}

impl<'a> Net<'a> {
    fn new(
        vchannel: &'a VChannel,
        collection: &'a Arc<Collection>,
        in_doubt: bool,
        batch_bytes: usize,
    ) -> Net<'a> {
        let named = !collection.has_partition_key();
        let one_partition = !named || collection.partitions.len() == 1;
        Net { vchannel, collection, in_doubt, batch_bytes, one_partition, named }
    }

    fn run(&self, changes: Vec<(Change, Scope)>, work: &mut Vec<Work>) -> Result<()> {
        let mut deletes = Vec::new();
        let mut inserts = Vec::new();
        for (change, partition) in changes {
            // A collection with a partition key has no names for its partitions.
            let partition = partition.filter(|_| self.named);
            match change.body {
                Body::Delete(keys) => deletes.push((keys, change.ts, partition, change.credit)),
                Body::Insert(rows) => inserts.push((rows, change.ts, partition, change.credit)),
                Body::Message(_) => {}
            }
        }
        let mut deleted: FxHashMap<Key<'_>, Deleted> = FxHashMap::default();
        for (keys, ts, scope, _) in &deletes {
            for_each_key(keys, |_, key| deleted.entry(key).or_default().note(scope, *ts));
        }
        if deleted.is_empty() {
            return self.plain(inserts, work);
        }
        let name = self.key_name()?;
        // First pass: which rows outlive the deletes.
        let mut kept: Vec<Vec<bool>> = Vec::with_capacity(inserts.len());
        for (rows, ts, partition, _) in &inserts {
            let mut mask = vec![true; rows.num_rows()];
            for_each_key(key_column(rows, name)?, |row, key| {
                if let Some(deleted) = deleted.get_mut(&key) {
                    if deleted.removes(partition, *ts) {
                        mask[row] = false;
                    } else {
                        deleted.kept += 1;
                    }
                }
            });
            kept.push(mask);
        }
        // Second pass: rows whose key is deleted in just their partition, and stays once, replace in one call.
        let mut upserts = Vec::new();
        let mut plain = Vec::new();
        let mut replaced: FxHashMap<Key<'_>, ()> = FxHashMap::default();
        for ((rows, ts, partition, credit), mask) in inserts.iter().zip(kept) {
            let mut replacing = vec![false; rows.num_rows()];
            for_each_key(key_column(rows, name)?, |row, key| {
                if mask[row]
                    && let Some(deleted) = deleted.get(&key)
                    && (deleted.kept == 1 || self.in_doubt)
                    && (self.one_partition || deleted.only_in(partition))
                {
                    replacing[row] = true;
                    replaced.insert(key, ());
                }
            });
            let plainly: Vec<bool> =
                mask.iter().zip(&replacing).map(|(kept, replacing)| *kept && !replacing).collect();
            for (mask, list) in [(replacing, &mut upserts), (plainly, &mut plain)] {
                if mask.contains(&true) {
                    list.push((keep_rows(rows, mask)?, *ts, partition.clone(), Arc::clone(credit)));
                }
            }
        }
        self.deletes(&deletes, |key| !replaced.contains_key(&key), work)?;
        self.rows(Verb::Upsert, upserts, work)?;
        self.plain(plain, work)
    }

    fn plain(&self, rows: Vec<(RecordBatch, Tso, Scope, Arc<Credit>)>, work: &mut Vec<Work>) -> Result<()> {
        self.rows(if self.in_doubt { Verb::Upsert } else { Verb::Insert }, rows, work)
    }

    /// Sorts rows by partition and cuts them into calls.
    fn rows(
        &self,
        verb: Verb,
        rows: Vec<(RecordBatch, Tso, Scope, Arc<Credit>)>,
        work: &mut Vec<Work>,
    ) -> Result<()> {
        let mut open: Vec<(Scope, Rows)> = Vec::new();
        for (batch, ts, partition, credit) in rows {
            let place = open.iter().position(|(scope, _)| *scope == partition).unwrap_or_else(|| {
                open.push((partition.clone(), Rows::default()));
                open.len() - 1
            });
            let rows = &mut open[place].1;
            let size = data_size(&batch);
            // In one call all rows have one layout. An upsert must not hold a key twice, so those in doubt are
            // gathered whole before they are cut.
            let whole = verb == Verb::Upsert && self.in_doubt;
            let other = rows.batches.first().is_some_and(|first| first.schema_ref() != batch.schema_ref());
            if other || (!whole && rows.bytes > 0 && rows.bytes + size > self.batch_bytes) {
                let full = std::mem::take(rows);
                self.emit(verb, &partition, full, work)?;
            }
            let rows = &mut open[place].1;
            rows.batches.push(batch);
            rows.credits.push(credit);
            rows.high = rows.high.max(ts);
            rows.bytes += size;
        }
        for (partition, rows) in open {
            self.emit(verb, &partition, rows, work)?;
        }
        Ok(())
    }

    fn emit(&self, verb: Verb, partition: &Scope, rows: Rows, work: &mut Vec<Work>) -> Result<()> {
        if rows.batches.is_empty() {
            return Ok(());
        }
        let batches =
            if self.in_doubt { newest_rows(&rows.batches, self.key_name()?)? } else { rows.batches };
        for group in cut(batches, self.batch_bytes) {
            let operation = match verb {
                Verb::Insert => Operation::Insert(group),
                Verb::Upsert => Operation::Upsert(group),
            };
            self.push(partition, operation, rows.high, rows.credits.clone(), work)?;
        }
        Ok(())
    }

    fn deletes(
        &self,
        deletes: &[(ArrayRef, Tso, Scope, Arc<Credit>)],
        wanted: impl Fn(Key<'_>) -> bool,
        work: &mut Vec<Work>,
    ) -> Result<()> {
        let mut scopes: Vec<Scope> = Vec::new();
        for (_, _, scope, _) in deletes {
            if !scopes.contains(scope) {
                scopes.push(scope.clone());
            }
        }
        for scope in scopes {
            let mut integers: Vec<i64> = Vec::new();
            let mut texts: Vec<&str> = Vec::new();
            let mut seen: FxHashMap<Key<'_>, ()> = FxHashMap::default();
            let mut high = Tso::ZERO;
            let mut credits = Vec::new();
            for (keys, ts, _, credit) in deletes.iter().filter(|(_, _, other, _)| *other == scope) {
                for_each_key(keys, |_, key| {
                    if wanted(key) && seen.insert(key, ()).is_none() {
                        match key {
                            Key::Int(key) => integers.push(key),
                            Key::Text(key) => texts.push(key),
                        }
                    }
                });
                high = high.max(*ts);
                credits.push(Arc::clone(credit));
            }
            let keys: ArrayRef = if texts.is_empty() {
                Arc::new(Int64Array::from(integers))
            } else {
                Arc::new(StringViewArray::from_iter_values(texts))
            };
            let bytes = array_size(&keys).max(1);
            let step = (keys.len() * self.batch_bytes / bytes).clamp(1, keys.len().max(1));
            for start in (0..keys.len()).step_by(step) {
                let keys = keys.slice(start, step.min(keys.len() - start));
                self.push(&scope, Operation::Delete(keys), high, credits.clone(), work)?;
            }
        }
        Ok(())
    }

    fn push(
        &self,
        partition: &Scope,
        operation: Operation,
        high: Tso,
        credits: Vec<Arc<Credit>>,
        work: &mut Vec<Work>,
    ) -> Result<()> {
        let (rows, bytes) = match &operation {
            Operation::Delete(keys) => (keys.len(), array_size(keys)),
            Operation::Messages(..) => (0, 0),
            Operation::Insert(batches) | Operation::Upsert(batches) => {
                (batches.iter().map(RecordBatch::num_rows).sum(), batches.iter().map(data_size).sum())
            }
        };
        let write =
            Write { collection: Arc::clone(self.collection), partition: partition.clone(), operation };
        let keys = Rc::new(KeySet::new(Batch::key_columns(&write)?));
        work.push(Work::Batch(Box::new(Batch {
            vchannel: self.vchannel.clone(),
            write,
            high,
            keys,
            rows,
            bytes: u64::try_from(bytes).unwrap_or(u64::MAX),
            credits,
        })));
        Ok(())
    }

    fn key_name(&self) -> Result<&'a str> {
        let collection: &'a Collection = self.collection;
        key_name(collection)
    }
}

impl Deleted {
    fn note(&mut self, scope: &Scope, ts: Tso) {
        match self.scopes.iter_mut().find(|(other, _)| other == scope) {
            Some((_, latest)) => *latest = ts.max(*latest),
            None => self.scopes.push((scope.clone(), ts)),
        }
    }

    /// Whether a row of `partition` at `ts` goes: a delete takes only what is strictly older.
    fn removes(&self, partition: &Scope, ts: Tso) -> bool {
        self.scopes
            .iter()
            .any(|(scope, at)| (scope.is_none() || partition.is_none() || scope == partition) && *at > ts)
    }

    fn only_in(&self, partition: &Scope) -> bool {
        self.scopes.iter().all(|(scope, _)| scope == partition && scope.is_some())
    }
}

/// Groups of batches of about `bytes` each.
fn cut(batches: Vec<RecordBatch>, bytes: usize) -> Vec<Vec<RecordBatch>> {
    let mut groups: Vec<Vec<RecordBatch>> = Vec::new();
    let mut room = 0;
    for batch in batches {
        let size = data_size(&batch);
        match groups.last_mut() {
            Some(group) if size <= room => {
                group.push(batch);
                room -= size;
            }
            _ => {
                room = bytes.saturating_sub(size);
                groups.push(vec![batch]);
            }
        }
    }
    groups
}
