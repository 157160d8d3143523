//! Where changes go: one [`Sink`] per pipeline.

use std::sync::Arc;
use std::time::Duration;

use arrow_array::{ArrayRef, RecordBatch};
use async_trait::async_trait;

use crate::error::{Error, Result};
use crate::milvus::catalog::{Catalog, Collection, CollectionName, Ddl};
use crate::milvus::change::Message;
use crate::milvus::channel::VChannel;
use crate::milvus::tso::Tso;
use crate::ownership::Fence;
use crate::pipeline::{Names, TargetConfig};

pub mod milvus;
mod named;
pub mod null;
pub mod replicate;

/// A target.
///
/// Calls may run in parallel; the caller keeps calls that touch the same keys, and DDL of one collection, in order.
/// `Ok` means durable: the target will not lose it. Every error's kind tells whether the call may have taken effect
/// (see [`crate::error::Kind`]); a sink that isn't sure says `InDoubt`. No call outlives its deadline: once that has
/// passed, the call either took effect or never will.
#[async_trait]
pub trait Sink: Send + Sync + 'static {
    /// Applies a batch within `deadline`.
    async fn write(&self, write: &Write, deadline: Duration) -> Result<()>;

    /// Brings one step of the catalog about, and checks that it is so. Safe to repeat: what is already as asked is
    /// success, and so is dropping what is not there. It may take several calls; none of them outlives `deadline`.
    async fn apply(&self, ddl: &Ddl, deadline: Duration) -> Result<()>;

    /// What stands on the target under this collection's name, if anything.
    async fn find(&self, name: &CollectionName) -> Result<Found>;

    /// Compares what stands under `wanted.name` with `wanted` as this sink would create it. Each string is one
    /// difference, in words for the user; none means that rows of `wanted` can be written to it.
    async fn differences(&self, wanted: &Collection) -> Result<Vec<String>>;

    /// Reasons why this sink could not create these objects (limits, types, versions), in words for the user.
    fn objections(&self, wanted: &Catalog) -> Vec<String>;

    /// The names under which it keeps things, where they are not those that it is told. They are for queues in which names
    /// of the target wait for each other, and for the user; nobody else has to put them in.
    fn names(&self) -> Names {
        Names::default()
    }

    /// What it is, for logs and `check`: e.g. `Milvus v2.3.5 at http://127.0.0.1:19530`.
    fn describe(&self) -> String;

    /// An earlier run brought these collections about, and everything up to `frontier`. Called once, before anything is
    /// written.
    async fn resume(&self, _applied: &Catalog, _frontier: Option<Tso>) -> Result<()> {
        Ok(())
    }

    /// Everything up to `frontier` is on the target, and the checkpoint says so durably. Never blocks.
    fn committed(&self, _frontier: Tso) {}

    /// Why the target can't be written any more, if [`Sink::committed`] has found that out.
    fn failed(&self) -> Option<Error> {
        None
    }

    /// Waits until what [`Sink::committed`] has set off is done, for `within` at most.
    async fn settle(&self, _within: Duration) -> Result<()> {
        Ok(())
    }
}

/// What a name stands for on the target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// Nothing.
    Absent,
    /// A collection.
    Collection,
}

/// One call's worth of changes to one partition of one collection.
#[derive(Clone, Debug)]
pub struct Write {
    /// The collection as the source has it.
    pub collection: Arc<Collection>,
    /// The partition by name; `None` where the partition key decides, and in a delete from all partitions.
    pub partition: Option<Arc<str>>,
    /// What to do.
    pub operation: Operation,
}

/// What a [`Write`] does.
#[derive(Clone, Debug)]
pub enum Operation {
    /// Add rows whose keys are not there yet. All batches have columns of the same fields.
    Insert(Vec<RecordBatch>),
    /// Put rows in place of those with the same keys in the same partition. No key occurs twice.
    Upsert(Vec<RecordBatch>),
    /// Remove the rows with these keys: `Int64Array` or `StringViewArray`.
    Delete(ArrayRef),
    /// Put these messages of a shard of the source into the log of the target's shard. Only for a [standby](replicate).
    Messages(VChannel, Vec<Forwarded>),
}

/// A message of the source's log for a standby.
#[derive(Clone, Debug)]
pub struct Forwarded {
    /// The latest time of its rows.
    pub ts: Tso,
    /// Its partition by name; `None` in a delete from all partitions.
    pub partition: Option<Arc<str>>,
    /// The message.
    pub message: Message,
}

/// Connects to the target that a pipeline file names. The one place where sinks are registered.
/// Whatever is written asks `fence` before.
pub async fn connect(config: &TargetConfig, fence: Fence) -> Result<Arc<dyn Sink>> {
    let sink: Arc<dyn Sink> = match config {
        TargetConfig::Milvus(standby) if config.is_standby() => {
            Arc::new(replicate::ReplicateSink::connect(standby, fence).await?)
        }
        TargetConfig::Milvus(config) => Arc::new(milvus::MilvusSink::connect(config, fence).await?),
        TargetConfig::Null => Arc::new(null::NullSink),
    };
    let names = config.names();
    Ok(if names.is_empty() { sink } else { Arc::new(named::Named::new(sink, names)) })
}
