//! Pulsar: a consumer per pchannel's topic, without a durable subscription unless one is wanted.
//!
//! ```text
//!  brokers ──► connections ──► an inbox per topic ── reader loop ──► a bounded queue per channel ──► dataflow
//!             (tokio tasks)                        └──────── one thread ────────┘
//! ```
//! Everything runs on one thread with a runtime of its own. A channel is opened by a task (who serves the topic, subscribe,
//! where does the topic end); from then on the broker sends as much as it is permitted, by a count of messages that
//! follows their size (`permits.rs`). While a channel has no credit, nobody takes from its inbox, and nothing more is
//! permitted.
//!
//! What is promised, and what it rests on:
//! - **Nothing is written to the cluster**, unless `subscription` asks for it. A subscription that is not durable is gone
//!   with its connection, and topics are not created by asking for them.
//! - **No unnoticed gap, nothing twice** (`cursor.rs`). The message asked for has to come first. After an outage, and
//!   whenever the next message is in another ledger, the last message taken has to come first, which then is passed over;
//!   as long as it is there, nothing after it can be gone, since brokers delete whole ledgers from the beginning.
//! - **Outages.** A broker that is silent is asked whether it is there, and left after some seconds; everything that
//!   depends on the connection is opened anew, after a pause that grows to two seconds, for ever.
//!
//! The protocol is that of the `pulsar` crate, the client is not: see `connection.rs` and `wire.rs`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender};
use tokio::runtime::Runtime;

use self::brokers::Brokers;
use self::channel::Common;
use self::keeper::Keeper;
use self::reader::{Command, Reader};
use self::trouble::Trouble;
use super::outlet::{Outlet, UnknownTypes};
use super::{Context, Delivery, LogSource, Start};
use crate::error::{Error, Kind, Result};
use crate::milvus::channel::{PChannel, Position};
use crate::pipeline::PulsarConfig;

mod brokers;
mod channel;
mod connection;
mod consumer;
mod cursor;
mod id;
mod inbox;
mod keeper;
mod opening;
mod payload;
mod permits;
mod reader;
mod trouble;
mod wire;

/// How long [`probe`] may take.
const PROBE_TIMEOUT: Duration = Duration::from_secs(10);

/// A Pulsar cluster that is being read. Dropping it ends the reading.
pub struct Pulsar {
    commands: Option<Sender<Command>>,
    thread: Option<JoinHandle<()>>,
    common: Arc<Common>,
    subscription: Option<String>,
    context: Context,
    unknown_types: UnknownTypes,
}

impl Pulsar {
    /// Reads the settings and starts a thread. Does not wait for the brokers: they are waited for as long as it takes,
    /// channel by channel.
    ///
    /// Error: `PipelineFile`, if the TLS files can't be used.
    pub fn connect(config: &PulsarConfig, context: Context) -> Result<Pulsar> {
        let brokers = Arc::new(Brokers::new(config)?);
        let subscription = config.subscription.clone();
        let keeper = subscription.clone().map(|name| Keeper::new(Arc::clone(&brokers), name));
        let common = Arc::new(Common { brokers, keeper, wake: Arc::default() });
        let (commands, receiver) = crossbeam_channel::unbounded();
        let reader = Reader::new(Arc::clone(&common), context.clone(), receiver);
        let runtime = runtime()?;
        let thread = std::thread::Builder::new()
            .name("pulsar".to_owned())
            .spawn(move || {
                runtime.block_on(reader.run());
                // A name that is being looked up is not waited for.
                runtime.shutdown_background();
            })
            .map_err(|error| Error::new(Kind::Internal, "no thread for Pulsar").caused_by(error))?;
        let unknown_types = UnknownTypes::default();
        Ok(Pulsar {
            commands: Some(commands),
            thread: Some(thread),
            common,
            subscription,
            context,
            unknown_types,
        })
    }

    fn send(&self, command: Command) {
        // If the thread has ended, the command and the outlet in it are dropped: the consumer sees its queue end.
        if let Some(commands) = &self.commands {
            let _ = commands.send(command);
        }
        self.common.wake.notify_one();
    }
}

/// A position in words: ledger and entry, and the place in the entry if it has several messages.
pub(super) fn place(channel: &PChannel, position: &Position) -> Option<String> {
    let id = id::MessageId::from_position(channel, position).ok()?;
    Some(if id.batch > 0 { format!("{}:{}", id.place, id.batch) } else { id.place.to_string() })
}

impl LogSource for Pulsar {
    fn open(&self, channel: &PChannel, start: Start) -> Receiver<Delivery> {
        let (outlet, receiver) = Outlet::new(channel.clone(), &self.context, &self.unknown_types);
        self.send(Command::Open { start, outlet: Box::new(outlet) });
        receiver
    }

    fn close(&self, channel: &PChannel) {
        self.send(Command::Close { channel: channel.clone() });
    }

    fn release(&self, positions: &BTreeMap<PChannel, Position>) {
        if self.subscription.is_some() {
            self.send(Command::Release { positions: positions.clone() });
        }
    }

    fn remove(&self) -> Result<Vec<String>> {
        let Some(name) = &self.subscription else { return Ok(Vec::new()) };
        let brokers = &self.common.brokers;
        // Not the connections of the reader's thread: those live with its runtime.
        let removed = block_on(async { keeper::remove_all(&brokers.detached(), name).await })?
            .map_err(|trouble| failed(&brokers.uri, &trouble))?;
        Ok(removed.into_iter().map(|topic| format!("subscription {name} on topic {topic}")).collect())
    }
}

impl Drop for Pulsar {
    fn drop(&mut self) {
        self.commands = None;
        self.common.wake.notify_one();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread of Pulsar had panicked");
        }
    }
}

/// Connects to the cluster and asks for nothing but its topics: what `migrans check` does. Blocks for some seconds at
/// most.
pub fn probe(config: &PulsarConfig) -> Result<()> {
    let brokers = Brokers::new(config)?;
    let topics = block_on(async {
        let late = || Trouble::passing(format!("no answer within {} s", PROBE_TIMEOUT.as_secs()));
        tokio::time::timeout(PROBE_TIMEOUT, brokers.topics()).await.unwrap_or_else(|_| Err(late()))
    })?;
    topics.map(drop).map_err(|trouble| failed(&brokers.uri, &trouble))
}

fn failed(uri: &str, trouble: &Trouble) -> Error {
    trouble.error(format!("Pulsar at {uri} does not do what it is asked: {trouble}"))
}

fn runtime() -> Result<Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Error::new(Kind::Internal, "no runtime for Pulsar").caused_by(error))
}

/// Runs `future` on a thread of its own, since this one may belong to a runtime.
fn block_on<T: Send>(future: impl Future<Output = T> + Send) -> Result<T> {
    let runtime = runtime()?;
    let result = std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let result = runtime.block_on(future);
            runtime.shutdown_background();
            result
        });
        thread.join()
    });
    result.map_err(|_| Error::new(Kind::Internal, "asking Pulsar panicked"))
}
