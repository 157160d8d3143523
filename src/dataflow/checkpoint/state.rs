//! What a checkpoint says, and how it changes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::source::Source;
use crate::clock::Clock;
use crate::milvus::catalog::{Catalog, CollectionId, Ddl};
use crate::milvus::channel::{PChannel, Position, VChannel};
use crate::milvus::tso::Tso;

/// Everything that a run goes on from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checkpoint {
    /// F, `None` before the first commit.
    pub frontier: Option<Tso>,
    /// Where the pipeline began: what is not later was never to be copied. `None`: with everything.
    pub began: Option<Tso>,
    /// What is known of the source, `None` before the first run.
    pub source: Option<Source>,
    /// Where to read each channel from.
    pub positions: BTreeMap<PChannel, Position>,
    /// Per shard the highest ts that may have been sent.
    pub sent_high: BTreeMap<VChannel, Tso>,
    /// When the last call that may have been sent is over, in Unix milliseconds.
    pub calls_until: u64,
    /// By which clock that is.
    pub clock: Option<Clock>,
    /// Whether the last run stopped with nothing in flight.
    pub clean: bool,
    /// The target's catalog as far as this pipeline made it.
    pub applied: Catalog,
    /// Collections that were there before and were adopted.
    pub adopted: BTreeSet<CollectionId>,
    /// Steps of the catalog that had begun, at most one for each collection. Each may be on the target or not.
    pub intents: Vec<Ddl>,
}

impl Checkpoint {
    /// The highest ts of `vchannel` whose rows may have reached the target beyond the frontier: rows up to it are in
    /// doubt. [`Tso::ZERO`] if none are.
    pub fn in_doubt_up_to(&self, vchannel: &VChannel) -> Tso {
        if self.clean { Tso::ZERO } else { self.sent_high.get(vchannel).copied().unwrap_or(Tso::ZERO) }
    }

    /// Whether anything has come of the pipeline yet.
    pub fn has_begun(&self) -> bool {
        self.frontier.is_some() || !self.applied.collections.is_empty() || !self.intents.is_empty()
    }

    /// How long to wait, at this time in Unix milliseconds, until no call of the last run can still take effect.
    pub fn calls_over_in(&self, unix_now: u64) -> Duration {
        let left = self.calls_until.saturating_sub(unix_now);
        if self.clean { Duration::ZERO } else { Duration::from_millis(left) }
    }
}

/// One change of the checkpoint.
#[derive(Clone, Debug)]
pub enum Update {
    /// The frontier, and with it all positions.
    Frontier(Tso, BTreeMap<PChannel, Position>),
    /// What may be sent from now on: per shard, and until when its calls are over (Unix milliseconds). Undoes
    /// `Clean`.
    SentHigh(Vec<(VChannel, Tso)>, u64),
    /// By which clock times of calls are recorded.
    Clock(Clock),
    /// The pipeline began here.
    Began(Tso),
    /// What is known of the source from now on.
    Source(Source),
    /// This step of the catalog is about to begin.
    Intent(Ddl),
    /// This collection was found on the target and adopted.
    Adopted(CollectionId),
    /// This step of the catalog has been brought about, or cannot be undone any more; the catalog after it. Ends the
    /// intent to do it.
    Applied(Ddl, Arc<Catalog>),
    /// Nothing is in flight and nothing will be sent.
    Clean,
}
