//! `order`: holds changes until their time is complete and releases them in order.
//!
//! Input: changes, and the catalog. Output: spans `(lower, upper]`, each at time `lower`.
//! Capability held: one at `lower`, the end of the last released span.
//! What moves the frontier: both inputs having passed a tick, and downstream having room.
//!
//! Rows are released sorted by (ts, delete before insert, order of reading), with the steps of the catalog in between,
//! each after the rows of its ts: what is created has only later rows. Since the catalog is an input like any other,
//! whatever it does not know when the frontier has passed a row's ts is not selected or is dropped.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use timely::dataflow::Stream;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::generic::operator::Operator;
use timely::progress::frontier::MutableAntichain;

use super::{CatalogEvent, Parcel, Span, Step};
use crate::dataflow::shared::Shared;
use crate::milvus::catalog::{Collection, CollectionId, Ddl, PartitionId};
use crate::milvus::change::{Body, Change, Message};
use crate::milvus::channel::VChannel;
use crate::milvus::tso::Tso;

/// How the operator cuts spans.
#[derive(Clone, Copy, Debug)]
pub struct Policy {
    /// A span of this many bytes is long enough.
    pub span_bytes: u64,
    /// Below this many bytes a release may wait for more while calls are in flight …
    pub batch_bytes: u64,
    /// … for at most this long.
    pub max_lag: Duration,
    /// Nothing later than this is ever released.
    pub ceiling: Tso,
}

/// Builds the operator. `floor` is the frontier that the pipeline resumes from.
pub fn order<'scope>(
    changes: Stream<'scope, Tso, Vec<Change>>,
    catalog: Stream<'scope, Tso, Vec<CatalogEvent>>,
    floor: Tso,
    policy: Policy,
    shared: Rc<Shared>,
) -> Stream<'scope, Tso, Vec<Parcel<Span>>> {
    let worker = changes.scope().worker().clone();
    changes.binary_frontier(catalog, Pipeline, Pipeline, "order", move |capability, info| {
        shared.set_order_activator(worker.activator_for(Rc::clone(&info.address)));
        let activator = worker.activator_for(Rc::clone(&info.address));
        let mut hold = Some(capability.delayed(&floor));
        let mut order = Order::new(floor);
        let mut released_at = shared.world.now();
        move |(changes, changes_frontier), (events, events_frontier), output| {
            changes.for_each(|_cap, batch| batch.drain(..).for_each(|change| order.push(change)));
            events.for_each(|_cap, batch| {
                for event in batch.drain(..) {
                    if let CatalogEvent::Known(known)
                    | CatalogEvent::Step { ddl: Ddl::CreateCollection(known), .. } = &event
                    {
                        shared.progress.named(known.id, &known.name);
                    }
                    order.learn(event);
                }
            });
            let Some(cap) = hold.as_mut() else { return };
            if shared.is_stopping() {
                return;
            }
            let complete = least(changes_frontier).min(least(events_frontier)).min(policy.ceiling);
            while complete > order.lower() {
                if shared.is_saturated() {
                    // `apply` activates this operator when it has room again; meanwhile the span grows.
                    break;
                }
                let waited = shared.world.now().saturating_duration_since(released_at);
                if shared.is_busy() && order.stashed_bytes() < policy.batch_bytes && waited < policy.max_lag {
                    activator.activate_after(policy.max_lag.saturating_sub(waited));
                    break;
                }
                let span = order.release(complete, policy.span_bytes);
                released_at = shared.world.now();
                let upper = span.upper;
                if !span.steps.is_empty() {
                    shared.add_queued_span(&span);
                    output.session(&cap).give(Parcel::new(RefCell::new(span)));
                }
                cap.downgrade(&upper);
            }
            shared.set_ordered(order.lower());
        }
    })
}

/// The least time that may still arrive; [`Tso::MAX`] if nothing can.
fn least(frontier: &MutableAntichain<Tso>) -> Tso {
    frontier.frontier().first().copied().unwrap_or(Tso::MAX)
}

/// Where a step stands among those of the same ts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    Delete,
    Insert,
    Ddl,
}

/// The logic of the operator.
pub struct Order {
    lower: Tso,
    stash: BTreeMap<(Tso, Rank, u64), Held>,
    stashed_bytes: u64,
    known: HashMap<CollectionId, Arc<Collection>>,
    arrivals: u64,
}

enum Held {
    Change(Change),
    Ddl(Ddl),
}

impl Order {
    /// With everything up to `floor` released.
    pub fn new(floor: Tso) -> Order {
        Order { lower: floor, stash: BTreeMap::new(), stashed_bytes: 0, known: HashMap::new(), arrivals: 0 }
    }

    /// The end of the last released span.
    pub fn lower(&self) -> Tso {
        self.lower
    }

    /// Bytes of the changes that are held.
    pub fn stashed_bytes(&self) -> u64 {
        self.stashed_bytes
    }

    /// Takes a change.
    pub fn push(&mut self, change: Change) {
        let rank = match change.body {
            Body::Delete(_) => Rank::Delete,
            Body::Message(Message { is_insert: false, .. }) => Rank::Delete,
            Body::Insert(_) | Body::Message(_) => Rank::Insert,
        };
        self.stashed_bytes += change.credit.bytes();
        self.arrivals += 1;
        self.stash.insert((change.ts, rank, self.arrivals), Held::Change(change));
    }

    /// Takes what the catalog says.
    pub fn learn(&mut self, event: CatalogEvent) {
        match event {
            CatalogEvent::Known(collection) => {
                self.known.insert(collection.id, collection);
            }
            CatalogEvent::Step { ts, ddl } => {
                self.arrivals += 1;
                self.stash.insert((ts, Rank::Ddl, self.arrivals), Held::Ddl(ddl));
            }
        }
    }

    /// Releases a span that ends at `complete`, or earlier once it holds `span_bytes`: then it ends at a ts all of
    /// whose changes it holds.
    pub fn release(&mut self, complete: Tso, span_bytes: u64) -> Span {
        let mut span = Span { upper: complete, steps: Vec::new() };
        let mut bytes = 0;
        let mut last = self.lower;
        // Milvus drops repeated DML by message id within what it releases together; a repeated message has the ts of
        // the first, so both are in one span.
        let mut seen: HashSet<(VChannel, i64, usize)> = HashSet::new();
        while let Some(entry) = self.stash.first_entry() {
            let ts = entry.key().0;
            if ts > complete {
                break;
            }
            if bytes >= span_bytes && ts > last {
                span.upper = last;
                break;
            }
            last = ts.max(last);
            match entry.remove() {
                Held::Ddl(ddl) => {
                    self.note(&ddl);
                    span.steps.push(Step::Ddl(ddl));
                }
                Held::Change(change) => {
                    self.stashed_bytes -= change.credit.bytes();
                    let id = (change.vchannel.clone(), change.message_id, change.part);
                    if change.message_id != 0 && !seen.insert(id) {
                        tracing::debug!(vchannel = %change.vchannel, id = change.message_id, "a repeated message");
                        continue;
                    }
                    bytes += change.credit.bytes();
                    span.steps.extend(self.resolve(change));
                }
            }
        }
        self.lower = span.upper;
        span
    }

    /// Puts names in place of ids; `None` if the change is of no concern, being of an object that is not selected or
    /// is dropped.
    fn resolve(&self, change: Change) -> Option<Step> {
        let collection = Arc::clone(self.known.get(&change.collection)?);
        let partition = if change.partition == PartitionId::ALL {
            None
        } else {
            Some(collection.partitions.get(&change.partition)?.name.as_str().into())
        };
        Some(Step::Change { change, collection, partition })
    }

    /// Follows the catalog, so that later changes are resolved by it.
    fn note(&mut self, ddl: &Ddl) {
        match ddl {
            Ddl::CreateCollection(collection) => {
                self.known.insert(collection.id, Arc::clone(collection));
            }
            Ddl::DropCollection { id, .. } => {
                self.known.remove(id);
            }
            Ddl::RenameCollection { id, to, .. } => {
                if let Some(collection) = self.known.get_mut(id) {
                    Arc::make_mut(collection).name = to.clone();
                }
            }
            Ddl::CreatePartition { id, partition_id, partition, .. } => {
                if let Some(collection) = self.known.get_mut(id) {
                    Arc::make_mut(collection).partitions.insert(*partition_id, partition.clone());
                }
            }
            Ddl::DropPartition { id, partition_id, .. } => {
                if let Some(collection) = self.known.get_mut(id) {
                    Arc::make_mut(collection).partitions.remove(partition_id);
                }
            }
            _ => {}
        }
    }
}
