//! What the operators of one worker know of each other beside the streams: how busy `apply` is, and whether to stop.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use timely::scheduling::Activator;

use super::channels::Channels;
use super::credits::Credits;
use super::directory::Directory;
use super::failure::Failure;
use super::progress::Progress;
use super::world::World;
use crate::error::Error;
use crate::milvus::channel::{PChannel, Position};
use crate::milvus::tso::Tso;
use crate::ops::Span;
use crate::ops::apply::lanes::Lanes;

/// Positions that are durable, on their way from the checkpoint's writer to `read`.
pub type Released = Arc<Mutex<Option<BTreeMap<PChannel, Position>>>>;

/// Shared by the operators of one worker.
pub struct Shared {
    /// The memory budget.
    pub credits: Arc<Credits>,
    /// The channels that are read, for the user.
    pub channels: Arc<Channels>,
    /// What is counted for the user.
    pub progress: Arc<Progress>,
    /// Which collections nobody wants.
    pub directory: Arc<Directory>,
    /// Time, chance, and where calls run.
    pub world: Arc<dyn World>,
    failure: Failure,
    stopping: Arc<AtomicBool>,
    /// From this many bytes that wait at `apply` on, `order` lets spans grow instead of releasing more.
    saturated_bytes: u64,
    /// Bytes of spans between `order` and `apply`.
    travelling: Cell<u64>,
    queued: Cell<u64>,
    calls: Cell<usize>,
    idle: Cell<bool>,
    drained: Cell<bool>,
    consistent: Cell<bool>,
    committing: Cell<Tso>,
    ordered: Cell<Tso>,
    doubt: Cell<Tso>,
    released: Released,
    read: RefCell<Option<Activator>>,
    order: RefCell<Option<Activator>>,
    apply: RefCell<Option<Activator>>,
    commit: RefCell<Option<Activator>>,
}

impl Shared {
    /// For one worker.
    #[expect(clippy::too_many_arguments, reason = "each is another part of the run")]
    pub fn new(
        credits: Arc<Credits>,
        channels: Arc<Channels>,
        progress: Arc<Progress>,
        directory: Arc<Directory>,
        world: Arc<dyn World>,
        failure: Failure,
        stopping: Arc<AtomicBool>,
        saturated_bytes: u64,
    ) -> Shared {
        Shared {
            credits,
            channels,
            progress,
            directory,
            world,
            failure,
            stopping,
            saturated_bytes,
            travelling: Cell::new(0),
            queued: Cell::new(0),
            calls: Cell::new(0),
            idle: Cell::new(true),
            drained: Cell::new(false),
            consistent: Cell::new(true),
            committing: Cell::new(Tso::ZERO),
            ordered: Cell::new(Tso::ZERO),
            doubt: Cell::new(Tso::ZERO),
            released: Released::default(),
            read: RefCell::default(),
            order: RefCell::default(),
            apply: RefCell::default(),
            commit: RefCell::default(),
        }
    }

    /// Reports an error that ends the pipeline.
    pub fn fail(&self, error: Error) {
        self.failure.set(error);
        self.activate_all();
    }

    /// Where errors go.
    pub fn failure(&self) -> Failure {
        self.failure.clone()
    }

    /// Whether the pipeline ends with an error.
    pub fn has_failed(&self) -> bool {
        self.failure.is_set()
    }

    /// Whether nothing new is to be begun.
    pub fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire) || self.failure.is_set()
    }

    /// `order` has released a span.
    pub fn add_queued_span(&self, span: &Span) {
        self.travelling.set(self.travelling.get() + span.bytes());
        self.idle.set(false);
    }

    /// `apply` has taken in a span of this many bytes.
    pub fn taken_span(&self, bytes: u64) {
        self.travelling.set(self.travelling.get().saturating_sub(bytes));
    }

    /// `apply` tells how busy it is.
    pub fn set_load(&self, lanes: &Lanes) {
        let was_saturated = self.is_saturated();
        let was_busy = self.is_busy();
        let was_idle = self.idle.get();
        self.queued.set(lanes.queued_bytes());
        self.calls.set(lanes.in_flight());
        self.progress.calls(lanes.in_flight());
        self.idle.set(lanes.is_idle() && self.travelling.get() == 0);
        self.drained.set(lanes.is_drained());
        self.consistent.set(lanes.is_consistent());
        if was_saturated && !self.is_saturated() || was_busy && !self.is_busy() {
            activate(&self.order);
        }
        if self.idle.get() && !was_idle {
            activate(&self.read);
        }
    }

    /// Whether `apply` has enough to do for now.
    pub fn is_saturated(&self) -> bool {
        self.travelling.get() + self.queued.get() >= self.saturated_bytes
    }

    /// Whether calls are in flight.
    pub fn is_busy(&self) -> bool {
        self.calls.get() > 0
    }

    /// Whether there is nothing at all downstream of `order`.
    pub fn is_idle(&self) -> bool {
        self.idle.get()
    }

    /// During a stop: whether everything that had to be finished is.
    pub fn is_drained(&self) -> bool {
        self.drained.get() && self.travelling.get() == 0
    }

    /// Whether the target holds whole spans only.
    pub fn is_consistent(&self) -> bool {
        self.consistent.get()
    }

    /// `order` has released everything up to this.
    pub fn set_ordered(&self, upto: Tso) {
        if self.ordered.replace(upto) != upto {
            self.progress.ordered(upto);
            activate(&self.read);
        }
    }

    /// Up to where `order` has released everything.
    pub fn ordered(&self) -> Tso {
        self.ordered.get()
    }

    /// Up to this, an earlier run may have sent what this one has not come to yet.
    pub fn set_doubt(&self, upto: Tso) {
        self.doubt.set(upto);
    }

    /// Whether nothing of that is left with F at `frontier`. Until then no stop is a clean one: the target may hold
    /// rows that are later than F, which must not be inserted again.
    pub fn is_settled(&self, frontier: Tso) -> bool {
        frontier >= self.doubt.get()
    }

    /// `commit` has begun to record this frontier.
    pub fn set_committing(&self, frontier: Tso) {
        self.committing.set(frontier);
    }

    /// The last frontier whose recording has begun.
    pub fn committing(&self) -> Tso {
        self.committing.get()
    }

    /// Where `commit` leaves the positions that it has recorded.
    pub fn released(&self) -> Released {
        Arc::clone(&self.released)
    }

    /// The positions recorded last, if they are new: nothing before them will be read again.
    pub fn take_released(&self) -> Option<BTreeMap<PChannel, Position>> {
        self.released.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Has every operator look at the world again.
    pub fn activate_all(&self) {
        for activator in [&self.read, &self.order, &self.apply, &self.commit] {
            activate(activator);
        }
    }

    /// Sets how `read` is woken.
    pub fn set_read_activator(&self, activator: Activator) {
        *self.read.borrow_mut() = Some(activator);
    }

    /// Sets how `order` is woken.
    pub fn set_order_activator(&self, activator: Activator) {
        *self.order.borrow_mut() = Some(activator);
    }

    /// Sets how `apply` is woken.
    pub fn set_apply_activator(&self, activator: Activator) {
        *self.apply.borrow_mut() = Some(activator);
    }

    /// Sets how `commit` is woken.
    pub fn set_commit_activator(&self, activator: Activator) {
        *self.commit.borrow_mut() = Some(activator);
    }
}

fn activate(activator: &RefCell<Option<Activator>>) {
    if let Some(activator) = &*activator.borrow() {
        activator.activate();
    }
}
