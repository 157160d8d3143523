//! The operators of the dataflow, one a file, and what flows between them.
//!
//! ```text
//! follow ─► read ─► decode ─► order ─► coalesce ─► apply ─► commit
//!    └───────────────────────►──┘          marks from decode ─►┘
//! ```
//!
//! Each operator is a thin shell around a plain struct that knows nothing of timely, so that the logic can be tested
//! and simulated alone.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use crate::milvus::catalog::{Collection, Ddl};
use crate::milvus::change::Change;
use crate::milvus::channel::{PChannel, Position};
use crate::milvus::tso::Tso;
use crate::sources::{Envelope, Start};

pub mod apply;
pub mod batch;
pub mod coalesce;
pub mod commit;
pub mod decode;
pub mod follow;
pub mod order;
pub mod read;

/// What one operator hands to the next in one piece. Timely wants records that it could copy to several operators; there
/// is only ever one, which takes the contents out.
pub type Parcel<T> = Rc<RefCell<T>>;

/// `follow` → `read`: which channels to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChannelEvent {
    /// Read this channel from here on.
    Open {
        /// The channel.
        channel: PChannel,
        /// Where to begin.
        start: Start,
        /// Whether it is one of those that the pipeline starts with, which decide when it has caught up.
        initial: bool,
    },
    /// The last selected collection on this channel went at this time: stop reading it once it has got there.
    Retire {
        /// The channel.
        channel: PChannel,
        /// When.
        at: Tso,
    },
}

/// `follow` → `order`: what the catalog holds.
#[derive(Clone, Debug)]
pub enum CatalogEvent {
    /// This collection was brought about in an earlier run.
    Known(Arc<Collection>),
    /// This step takes its place among the rows at `ts`.
    Step {
        /// Its time.
        ts: Tso,
        /// The step.
        ddl: Ddl,
    },
}

/// `read` → `decode`: what came from a channel, in the order of its topic.
#[derive(Debug)]
pub enum Raw {
    /// A message.
    Message(PChannel, Envelope),
    /// Everything that was in the topic when it was opened, at the start of the pipeline, has been read.
    Head(PChannel),
    /// Nothing more comes: the channel has been retired.
    End(PChannel),
}

/// `decode` → `commit`: what to remember of a channel's positions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    /// The channel.
    pub channel: PChannel,
    /// The tick that has been passed.
    pub tick: Tso,
    /// To see everything with ts > `tick` again, read from here; `None`: the channel is no longer read.
    pub position: Option<Position>,
}

/// `order` → `coalesce`: everything with a ts in `(lower, upper]`, in order.
#[derive(Clone, Debug, Default)]
pub struct Span {
    /// The end of the span, inclusive.
    pub upper: Tso,
    /// Its contents.
    pub steps: Vec<Step>,
}

/// One thing in a [`Span`].
#[derive(Clone, Debug)]
pub enum Step {
    /// Rows or keys.
    Change {
        /// The message.
        change: Change,
        /// Its collection.
        collection: Arc<Collection>,
        /// Its partition by name; `None` in a delete from all partitions.
        partition: Option<Arc<str>>,
    },
    /// A step of the catalog.
    Ddl(Ddl),
}

impl Span {
    /// Bytes of the messages in it.
    pub fn bytes(&self) -> u64 {
        let bytes = self.steps.iter().map(|step| match step {
            Step::Change { change, .. } => change.credit.bytes(),
            Step::Ddl(_) => 0,
        });
        bytes.sum()
    }
}
