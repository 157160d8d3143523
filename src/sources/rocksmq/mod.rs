//! RocksMQ, Milvus' embedded message queue, read from the files of a running Milvus.
//!
//! ```text
//!  Milvus ──► RocksDB ◄── secondary ── reader thread ──► a bounded queue per channel ──► dataflow
//!             (files)     (store)      (reader)          (channel)
//! ```
//! One thread owns the secondary. Every 10 ms (less often where there are many that are quiet: `pace`) it looks whether files
//! changed, makes the news visible (a new *view*),
//! and lets each channel read on, the one furthest behind first, while its queue has room and the budget has credit.
//! A channel with a backlog has an iterator of its own; channels at their end share one over what Milvus has not
//! written to table files yet, so following costs the same whether the store has ten messages or 8 GB.
//!
//! What is promised, and what it rests on:
//! - **Order, no holes.** A view shows all that was written before its catch-up began (see `Store::catch_up`).
//! - **No unnoticed gap.** Milvus trims a topic from its start and does not ask other readers. A channel that follows in
//!   memory sees also what was trimmed. Any other must find the message that it read last (or is to start from): as long
//!   as that is there, so are all after it. If it is gone, later ones may be gone too. The ids of 2.3 have gaps of their
//!   own, so that can't be told from them: it is an error of kind `Gap`, unless the next id follows directly, or the
//!   channel was at its end in the look at the store before, a moment ago. So a `Gap` is reported although nothing is
//!   lost if just the last message read was trimmed while nobody watched; that takes a topic that went quiet with the
//!   very message that ended a page of 64 MiB.
//! - **Restarts of Milvus.** A new MANIFEST, or an error, makes the thread open the secondary again and go on from the
//!   positions. A power failure may take back messages that were read but that Milvus' disk had not got yet (Milvus
//!   does not sync); a channel whose last message is gone then ends with a `Gap`.

use std::path::PathBuf;
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender};

use self::reader::{Command, Reader};
use self::store::Store;
use super::outlet::{Outlet, UnknownTypes};
use super::{Context, Delivery, LogSource, Start};
use crate::error::{Error, Kind, Result};
use crate::milvus::channel::PChannel;
use crate::pipeline::RocksmqConfig;

mod channel;
mod cursor;
mod key;
mod pace;
mod reader;
mod scans;
mod store;
#[cfg(test)]
mod tests;
mod watch;

/// A Milvus that is being restarted can be caught with half of its files in place: so often connecting tries …
const CONNECT_ATTEMPTS: u32 = 5;
/// … at this distance.
const CONNECT_PAUSE: Duration = Duration::from_millis(200);

/// A RocksMQ that is being read. Dropping it ends the reading.
pub struct RocksMq {
    commands: Option<Sender<Command>>,
    thread: Option<JoinHandle<()>>,
    context: Context,
    unknown_types: UnknownTypes,
}

impl RocksMq {
    /// Opens the RocksMQ of a Milvus, which need not be running.
    ///
    /// Errors: `NotFound` if `config.path` is not a RocksMQ, `Denied` if it may not be read, `Unavailable` or `Corrupt`
    /// if it can't be opened, `Checkpoint` if the scratch folder can't be used.
    pub fn connect(config: &RocksmqConfig, context: Context) -> Result<RocksMq> {
        let path = config.path.clone();
        // RocksDB wants a folder for a secondary; nothing is kept in it.
        let scratch: PathBuf = context.scratch.join("rocksmq-secondary");
        store::check_folder(&path)?;
        let mut attempt = 1;
        let store = loop {
            match Store::open(&path, &scratch) {
                Ok(store) => break store,
                Err(error) if attempt == CONNECT_ATTEMPTS || error.kind() == Kind::Denied => {
                    return Err(error);
                }
                Err(_) => std::thread::sleep(CONNECT_PAUSE),
            }
            attempt += 1;
        };
        store.check_content()?;
        let (commands, receiver) = crossbeam_channel::unbounded();
        let reader = Reader::new(path, scratch, context.clone(), receiver);
        let thread = std::thread::Builder::new()
            .name("rocksmq".to_owned())
            .spawn(move || reader.run(store))
            .map_err(|error| Error::new(Kind::Internal, "no thread for RocksMQ").caused_by(error))?;
        let unknown_types = UnknownTypes::default();
        Ok(RocksMq { commands: Some(commands), thread: Some(thread), context, unknown_types })
    }

    fn wake_thread(&self) {
        if let Some(thread) = &self.thread {
            thread.thread().unpark();
        }
    }

    fn send(&self, command: Command) {
        // If the thread has ended, the command and the sender in it are dropped: the consumer sees its queue end.
        if let Some(commands) = &self.commands {
            let _ = commands.send(command);
        }
        self.wake_thread();
    }
}

impl std::fmt::Debug for RocksMq {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RocksMq").finish_non_exhaustive()
    }
}

impl LogSource for RocksMq {
    fn open(&self, channel: &PChannel, start: Start) -> Receiver<Delivery> {
        let (outlet, receiver) = Outlet::new(channel.clone(), &self.context, &self.unknown_types);
        self.send(Command::Open { start, outlet: Box::new(outlet) });
        receiver
    }

    fn close(&self, channel: &PChannel) {
        self.send(Command::Close { channel: channel.clone() });
    }
}

impl Drop for RocksMq {
    /// Waits for the thread, so that the folders can be used again afterwards.
    fn drop(&mut self) {
        self.commands = None;
        self.wake_thread();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread of RocksMQ had panicked");
        }
    }
}
