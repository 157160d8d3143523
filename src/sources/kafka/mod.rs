//! Kafka: partition 0 of each pchannel's topic, assigned at an explicit offset.
//!
//! ```text
//!  broker ──► librdkafka ──► a prefetch queue per topic ── reader thread ──► a bounded queue per channel ──► dataflow
//! ```
//! One client and one thread serve all channels. A channel is looked up first (does its topic exist, from where to where
//! does it reach), then assigned; from then on librdkafka fetches ahead into a queue of its own, up to a bound, and wakes
//! the thread when something is in it. While a channel has no credit, nobody takes from that queue, and fetching stops.
//!
//! What is promised, and what it rests on:
//! - **Nothing is written to the cluster.** The client has a group id, without which librdkafka assigns nothing, but it
//!   never joins the group and never commits; topics are not created by asking for them.
//! - **No unnoticed gap.** Offsets grow by one from message to message (transactions and compaction leave holes, and
//!   Milvus uses neither). An offset below the start of the topic or beyond its end is refused when the channel is
//!   opened, and `auto.offset.reset=error` makes librdkafka say so should it come about later.
//! - **Outages.** librdkafka connects again by itself, for ever, and goes on at the next offset.

use std::sync::Arc;
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender};
use rdkafka::consumer::BaseConsumer;

use self::client::Health;
use self::reader::{Command, Reader};
use super::outlet::{Outlet, UnknownTypes};
use super::{Context, Delivery, LogSource, Start};
use crate::error::{Error, Kind, Result};
use crate::milvus::channel::PChannel;
use crate::pipeline::KafkaConfig;

mod channel;
mod client;
mod reader;

/// A Kafka cluster that is being read. Dropping it ends the reading.
pub struct Kafka {
    commands: Option<Sender<Command>>,
    thread: Option<JoinHandle<()>>,
    context: Context,
    unknown_types: UnknownTypes,
}

impl Kafka {
    /// Makes a client. Does not wait for the brokers: they are waited for as long as it takes, channel by channel.
    ///
    /// Errors: `PipelineFile` if a property is none of librdkafka's, or a certificate can't be read.
    pub fn connect(config: &KafkaConfig, context: Context) -> Result<Kafka> {
        let health = Arc::new(Health::default());
        let consumer: BaseConsumer<_> = client::create(config, Arc::clone(&health))?;
        let (commands, receiver) = crossbeam_channel::unbounded();
        let reader = Reader::new(Arc::new(consumer), health, context.clone(), receiver);
        let thread = std::thread::Builder::new()
            .name("kafka".to_owned())
            .spawn(move || reader.run())
            .map_err(|error| Error::new(Kind::Internal, "no thread for Kafka").caused_by(error))?;
        let unknown_types = UnknownTypes::default();
        Ok(Kafka { commands: Some(commands), thread: Some(thread), context, unknown_types })
    }

    fn send(&self, command: Command) {
        // If the thread has ended, the command and the outlet in it are dropped: the consumer sees its queue end.
        if let Some(commands) = &self.commands {
            let _ = commands.send(command);
        }
        self.wake_thread();
    }

    fn wake_thread(&self) {
        if let Some(thread) = &self.thread {
            thread.thread().unpark();
        }
    }
}

impl LogSource for Kafka {
    fn open(&self, channel: &PChannel, start: Start) -> Receiver<Delivery> {
        let (outlet, receiver) = Outlet::new(channel.clone(), &self.context, &self.unknown_types);
        self.send(Command::Open { start, outlet: Box::new(outlet) });
        receiver
    }

    fn close(&self, channel: &PChannel) {
        self.send(Command::Close { channel: channel.clone() });
    }
}

impl Drop for Kafka {
    fn drop(&mut self) {
        self.commands = None;
        self.wake_thread();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread of Kafka had panicked");
        }
    }
}

/// Connects to the cluster and asks for nothing but who is there: what `migrans check` does. Blocks for some seconds at
/// most.
pub fn probe(config: &KafkaConfig) -> Result<()> {
    client::probe(config)
}
