//! The whole flow on one page.

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicI64;
use std::time::Duration;

use crossbeam_channel::Receiver;
use timely::scheduling::SyncActivator;
use timely::worker::Worker;
use tokio::sync::watch;

use super::shared::Shared;
use crate::milvus::channel::VChannel;
use crate::milvus::tso::Tso;
use crate::ops::apply::{Apply, apply};
use crate::ops::coalesce::{Coalesce, coalesce};
use crate::ops::commit::{Records, commit};
use crate::ops::decode::decode;
use crate::ops::follow::{Entry, follow};
use crate::ops::order::{Policy, order};
use crate::ops::read::read;
use crate::pipeline::Delivery;
use crate::sources::LogSource;
use crate::sources::catalog::CatalogUpdate;

/// What the graph is connected to.
pub struct Ends {
    /// The catalog source.
    pub catalog: Receiver<CatalogUpdate>,
    /// The message queue; given the waker of the graph, it says how to read.
    pub log: Box<dyn FnOnce(SyncActivator) -> crate::Result<Box<dyn LogSource>>>,
    /// Where the highest tick is announced.
    pub ticks: watch::Sender<Tso>,
    /// The target and the checkpoint.
    pub apply: Apply,
    /// Settings.
    pub delivery: Delivery,
    /// Where channels begin that were never read.
    pub entry: Entry,
    /// Whether the target is a standby, which gets messages as they are and its time from the checkpoint.
    pub standby: bool,
    /// Nothing later than this is applied.
    pub ceiling: Tso,
    /// The revision that the source's etcd is known to have come to.
    pub seen: Arc<AtomicI64>,
}

/// Builds the graph on `worker`. Returns what wakes the catalog's end of it.
pub fn build(worker: &mut Worker, ends: Ends, shared: &Rc<Shared>) -> crate::Result<SyncActivator> {
    let Ends { catalog, log, ticks, apply: target, delivery, entry, standby, ceiling, seen } = ends;
    let checkpoint = target.checkpoint.clone();
    let writer = target.writer.clone();
    let floor = checkpoint.frontier.unwrap_or(Tso::ZERO);
    let batch_bytes = usize::try_from(delivery.batch).unwrap_or(usize::MAX);
    let in_doubt: HashMap<VChannel, Tso> = checkpoint
        .sent_high
        .keys()
        .map(|vchannel| (vchannel.clone(), checkpoint.in_doubt_up_to(vchannel)))
        .collect();
    shared.set_doubt(in_doubt.values().copied().max().unwrap_or(Tso::ZERO));
    let floors: HashMap<VChannel, Tso> =
        entry.positions.iter().map(|(vchannel, position)| (vchannel.clone(), position.time)).collect();
    let policy = Policy {
        span_bytes: delivery.batch.saturating_mul(4),
        batch_bytes: delivery.batch,
        max_lag: delivery.max_lag,
        ceiling,
    };
    worker.dataflow::<Tso, _, _>(|scope| {
        let (channels, catalog, wake) = follow(scope, catalog, &checkpoint, entry, Rc::clone(shared));
        let raws = read(channels, log, ticks, Rc::clone(shared))?;
        let (changes, marks) = decode(raws, floor, floors, standby, Rc::clone(shared));
        let spans = order(changes, catalog, floor, policy, Rc::clone(shared));
        let work = coalesce(spans, Coalesce::new(batch_bytes, in_doubt), Rc::clone(shared));
        let sink = Arc::clone(&target.sink);
        let applied = apply(work, target, Rc::clone(shared));
        // Nothing is seen on a standby before it is in the checkpoint.
        let interval = if standby { Duration::ZERO } else { delivery.checkpoint_interval };
        commit(applied, marks, &checkpoint, Records { writer, seen, interval, sink }, Rc::clone(shared));
        Ok(wake)
    })
}
