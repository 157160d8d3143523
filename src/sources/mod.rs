//! Where changes come from: a message queue (one [`LogSource`]) and the catalog in etcd.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use bytes::Bytes;
use crossbeam_channel::Receiver;

use crate::dataflow::channels::Channels;
use crate::dataflow::credits::{Credit, Credits};
use crate::error::{Error, Result};
use crate::milvus::channel::{PChannel, Position};
use crate::milvus::header::MessageType;
use crate::milvus::tso::Tso;
use crate::pipeline::MqConfig;

pub mod catalog;
pub mod kafka;
pub mod outlet;
pub mod pulsar;
pub mod rocksmq;

/// A message queue that is being read.
///
/// `open` and `close` never block; the reading happens on the source's own threads or tasks, each channel with a
/// small bounded queue of its own. A source takes credit for each message (not for ticks) before it puts it into
/// the queue, reads the channels that are furthest behind first, and calls `Context::wake` whenever it has put
/// something into a queue that may have been empty.
pub trait LogSource: Send {
    /// Starts reading `channel` from `start`.
    fn open(&self, channel: &PChannel, start: Start) -> Receiver<Delivery>;

    /// Stops reading `channel`. What the queue keeps for us of it need not be kept any more.
    fn close(&self, channel: &PChannel);

    /// Nothing before these positions will ever be read again. A queue that keeps messages for its readers may let
    /// them go.
    fn release(&self, _positions: &BTreeMap<PChannel, Position>) {}

    /// Undoes what the source has left behind in the queue for this pipeline, which is not going to run any more.
    /// May block. Returns what was undone, in words.
    fn remove(&self) -> Result<Vec<String>> {
        Ok(Vec::new())
    }
}

/// Where a channel is read from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Start {
    /// From this message on, inclusive. It must still be there: otherwise there may be a gap, which is an error of
    /// kind `Gap` that names the channel and both positions.
    At(Position),
    /// From the first message that is still there.
    Earliest,
    /// From some message such that everything with a ts later than this stands at it or after it; the nearer the
    /// better. What is earlier is dropped downstream.
    Near(Tso),
}

/// A message stands in its topic at most this long before its time or after: what [`Start::Near`] has to allow for if
/// it goes by a broker's clock.
pub const CLOCK_SLACK: Duration = Duration::from_secs(10);

/// What a source hands over.
#[derive(Debug)]
pub enum Delivery {
    /// Messages in the order of the topic.
    Messages(Vec<Envelope>),
    /// Everything that was in the topic when it was opened has been handed over. Sent once per opened channel, also
    /// if the topic was empty.
    CaughtUp,
    /// Reading failed for good; nothing follows.
    Failed(Error),
}

/// One message of a topic.
#[derive(Debug)]
pub struct Envelope {
    /// Its place in the topic.
    pub position: Position,
    /// What it is, read from its header.
    pub kind: EnvelopeKind,
}

/// What a message is, as far as its header says.
#[derive(Debug)]
pub enum EnvelopeKind {
    /// Every message of this channel with a timestamp up to this one has been seen.
    Tick(Tso),
    /// An insert: the encoded `msg.InsertRequest`.
    Insert(Bytes, Credit),
    /// A delete: the encoded `msg.DeleteRequest`.
    Delete(Bytes, Credit),
    /// A message of no interest to a pipeline, its type, time and bytes: only if [`Context::every_message`] is set.
    Other(MessageType, Tso, Bytes),
}

/// What a source gets from the pipeline that it serves.
#[derive(Clone)]
pub struct Context {
    /// The budget for the messages that it admits.
    pub credits: Arc<Credits>,
    /// Where it says what a channel waits for.
    pub channels: Arc<Channels>,
    /// Wakes the dataflow.
    pub wake: Arc<dyn Fn() + Send + Sync>,
    /// Set when the pipeline stops: threads end soon after.
    pub stop: Arc<AtomicBool>,
    /// A folder that the source may keep working files in.
    pub scratch: PathBuf,
    /// Hand over each tick, also of a run of them. A pipeline needs the last one only.
    pub every_tick: bool,
    /// Hand over also messages that are of no interest to a pipeline.
    pub every_message: bool,
}

impl Context {
    /// For a pipeline; what wakes it is to be set.
    pub fn new(
        credits: Arc<Credits>,
        channels: Arc<Channels>,
        stop: Arc<AtomicBool>,
        scratch: PathBuf,
    ) -> Context {
        let wake = Arc::new(|| {});
        Context { credits, channels, wake, stop, scratch, every_tick: false, every_message: false }
    }
}

/// Opens the queue that a pipeline file names. The one place where queues are registered.
pub fn connect(config: &MqConfig, context: Context) -> Result<Box<dyn LogSource>> {
    match config {
        MqConfig::Rocksmq(config) => Ok(Box::new(rocksmq::RocksMq::connect(config, context)?)),
        MqConfig::Kafka(config) => Ok(Box::new(kafka::Kafka::connect(config, context)?)),
        MqConfig::Pulsar(config) => Ok(Box::new(pulsar::Pulsar::connect(config, context)?)),
    }
}

/// A message's id as the queue's own tools write it; its bytes if it is of another queue.
pub fn id(config: &MqConfig, channel: &PChannel, position: &Position) -> String {
    match config {
        MqConfig::Pulsar(_) => {
            pulsar::place(channel, position).unwrap_or_else(|| format!("{:02x?}", position.0))
        }
        MqConfig::Rocksmq(_) | MqConfig::Kafka(_) => format!("{position:?}"),
    }
}

/// A position in words.
pub fn place(config: &MqConfig, channel: &PChannel, position: &Position) -> String {
    let id = id(config, channel, position);
    match config {
        MqConfig::Pulsar(_) => id,
        MqConfig::Rocksmq(_) => format!("id {id}"),
        MqConfig::Kafka(_) => format!("offset {id}"),
    }
}

/// Asks whether the queue is there and lets us in, without reading it; says what it is. Blocks for some seconds at most.
///
/// Errors: `Unavailable`, `Denied`, and those of [`connect`].
pub fn probe(config: &MqConfig) -> Result<String> {
    match config {
        // To open it was to see whether it is there.
        MqConfig::Rocksmq(config) => Ok(format!("RocksMQ in {}", config.path.display())),
        MqConfig::Kafka(config) => {
            kafka::probe(config).map(|()| format!("Kafka at {}", config.brokers.join(", ")))
        }
        MqConfig::Pulsar(config) => pulsar::probe(config)
            .map(|()| format!("Pulsar at {}, namespace {}/{}", config.uri, config.tenant, config.namespace)),
    }
}
