//! Telling a person how far a pipeline has come: while it runs ([`Display`]) and at its end ([`Report`]).
//!
//! Fed with plain numbers; nothing here knows where they come from.

use std::time::Duration;

use crate::milvus::tso::Tso;

mod display;
pub mod human;
mod meter;
mod rate;
mod report;
mod work;

pub use display::Display;
pub use rate::Window;
pub use report::{
    ChannelReport, CollectionReport, LagPercentiles, MemoryReport, OwnershipReport, Report, RowCounts,
    WaitedReport,
};
pub use work::{Work, WorkDisplay};

/// The state of a pipeline at one moment. Counts are of this run, and only grow.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// What each collection got, in any order.
    pub collections: Vec<CollectionProgress>,
    /// The durable frontier, if it is known yet.
    pub frontier: Option<Tso>,
    /// The age of the durable frontier.
    pub lag: Option<Duration>,
    /// The end of what was in the log when the pipeline started, if it is known yet: while the frontier is before
    /// it, there is a backlog.
    pub head: Option<Tso>,
    /// Bytes of the budget in use.
    pub held_bytes: u64,
    /// The budget in bytes.
    pub budget: u64,
    /// Calls to the target in flight.
    pub calls_in_flight: usize,
    /// What is being waited for, in words for the user.
    pub waiting: Option<String>,
}

/// What one collection got.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CollectionProgress {
    /// Its name, `database.collection`.
    pub name: String,
    /// Rows inserted or upserted, and keys deleted.
    pub rows_written: u64,
    /// Their bytes.
    pub bytes_written: u64,
}

impl Snapshot {
    /// Rows over all collections.
    pub fn rows(&self) -> u64 {
        self.collections.iter().map(|collection| collection.rows_written).sum()
    }

    /// Bytes over all collections.
    pub fn bytes(&self) -> u64 {
        self.collections.iter().map(|collection| collection.bytes_written).sum()
    }
}
