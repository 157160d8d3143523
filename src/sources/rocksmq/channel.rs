//! One opened channel: how far it has been read, and the queue to its consumer.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use crossbeam_channel::{Sender, TrySendError};

use super::cursor::{Cursor, Next};
use super::key::{Id, Topic, position, position_id};
use crate::dataflow::credits::Credits;
use crate::error::{Error, Kind, Result};
use crate::milvus::channel::PChannel;
use crate::milvus::header::{self, MessageType};
use crate::milvus::tso::Tso;
use crate::sources::{Delivery, Envelope, EnvelopeKind, Start};

/// Deliveries that a channel's queue holds.
pub(super) const QUEUE_DELIVERIES: usize = 4;
/// A delivery is full with this many envelopes …
const CHUNK_ENVELOPES: usize = 64;
/// … or with this many bytes …
const CHUNK_BYTES: usize = 512 << 10;
/// … or after this many messages were looked at, most of which then were ticks that are told by their last one.
const CHUNK_SCANNED: usize = 4096;

/// A channel that is being read.
pub(super) struct Channel {
    /// Tells this opening of the channel from another.
    pub(super) serial: u64,
    pub(super) name: PChannel,
    pub(super) topic: Topic,
    pub(super) next: Next,
    /// The first view that it may be read in: the one after it was opened.
    pub(super) first_view: u64,
    /// The view in which it was last read to its end.
    pub(super) tail: Option<View>,
    /// The last tick that was handed over: how far behind the channel is.
    pub(super) last_tick: Tso,
    /// Read errors since the last message.
    pub(super) read_errors: u32,
    /// The view in which a gap was seen: it counts if it is still there in the next one.
    pub(super) gap_seen: Option<u64>,
    sender: Sender<Delivery>,
    caught_up: CaughtUp,
    failure: Option<Error>,
    /// Nobody listens any more, or the failure was told.
    over: bool,
    skipped: u64,
}

/// What of the store is visible: it advances with every complete catch-up.
#[derive(Clone, Copy, Debug)]
pub(super) struct View {
    pub(super) number: u64,
    /// Whatever came after the view of this number is in memory, that is, in no table file yet.
    pub(super) memory_from: u64,
    pub(super) taken: Instant,
    /// The store was looked at just before.
    pub(super) watched: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum CaughtUp {
    /// The topic has not been looked at.
    Unknown,
    /// Due once this message has been handed over, or the end was reached.
    Goal(Option<Id>),
    Due,
    Sent,
}

/// Why [`Channel::read`] stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// A delivery is full; there may be more.
    Full,
    /// The budget has no room for the next message.
    NoCredit,
    /// The topic ends here, as far as the cursor sees.
    End,
}

/// What [`Channel::read`] did.
pub(super) struct Read {
    pub(super) stop: Stop,
    /// Whether something was put into the queue.
    pub(super) pushed: bool,
    /// Payload bytes among it.
    pub(super) bytes: usize,
}

impl Channel {
    pub(super) fn new(
        serial: u64,
        name: PChannel,
        start: Start,
        sender: Sender<Delivery>,
        first_view: u64,
    ) -> Channel {
        let (next, failure) = match start {
            Start::Earliest => (Next::First, None),
            Start::At(position) => match position_id(&position) {
                Ok(id) => (Next::At(id), None),
                Err(error) => (Next::First, Some(error.context(format!("channel {name}")))),
            },
        };
        Channel {
            serial,
            topic: Topic::new(&name),
            name,
            next,
            first_view,
            tail: None,
            last_tick: Tso::ZERO,
            read_errors: 0,
            gap_seen: None,
            sender,
            caught_up: CaughtUp::Unknown,
            failure,
            over: false,
            skipped: 0,
        }
    }

    /// Whether the queue has room. Nobody else puts anything in, so the room stays.
    pub(super) fn has_room(&self) -> bool {
        !self.sender.is_full()
    }

    /// Whether something other than messages waits for room in the queue.
    pub(super) fn has_notice(&self) -> bool {
        self.failure.is_some() || self.caught_up == CaughtUp::Due
    }

    /// Ends the channel with an error as soon as there is room for it.
    pub(super) fn fail(&mut self, error: Error) {
        self.failure.get_or_insert(error);
    }

    /// Whether the channel is done with: it failed, or nobody listens.
    pub(super) fn is_over(&self) -> bool {
        self.over
    }

    /// Puts a waiting notice into the queue, which has room.
    pub(super) fn send_notice(&mut self) {
        if let Some(error) = self.failure.take() {
            tracing::debug!(channel = %self.name, error = %error, "reading failed");
            self.push(Delivery::Failed(error));
            self.over = true;
        } else if self.caught_up == CaughtUp::Due {
            self.caught_up = CaughtUp::Sent;
            tracing::debug!(channel = %self.name, other_messages = self.skipped, "caught up");
            self.push(Delivery::CaughtUp);
        }
    }

    /// Notes where the topic ends at the time of its opening. The cursor sees everything that is there now.
    pub(super) fn note_goal(&mut self, cursor: &mut Cursor<'_>) -> Result<()> {
        if self.caught_up == CaughtUp::Unknown {
            self.caught_up = CaughtUp::Goal(cursor.last_id(&self.topic)?);
        }
        Ok(())
    }

    /// Notes that everything that is in the topic in `view` has been handed over.
    pub(super) fn note_end(&mut self, view: View) {
        self.tail = Some(view);
        if matches!(self.caught_up, CaughtUp::Goal(_)) {
            self.caught_up = CaughtUp::Due;
        }
    }

    /// Reads one delivery from the cursor, which is at the next message, and puts it into the queue, which has room.
    /// `Err` is about the store; what is wrong with a message becomes the channel's failure.
    pub(super) fn read(
        &mut self,
        cursor: &mut Cursor<'_>,
        credits: &Arc<Credits>,
        unknown_types: &mut HashSet<i32>,
    ) -> Result<Read> {
        let mut chunk = Chunk::default();
        let mut scanned = 0;
        let stop = loop {
            if chunk.is_full() || scanned == CHUNK_SCANNED {
                break Ok(Stop::Full);
            }
            let (id, payload) = match cursor.current(&self.topic) {
                Ok(Some(message)) => message,
                Ok(None) => break Ok(Stop::End),
                Err(error) => break Err(error),
            };
            match self.admit(id, payload, &mut chunk, credits, unknown_types) {
                Ok(true) => {}
                Ok(false) => break Ok(Stop::NoCredit),
                Err(error) => {
                    self.fail(error.context(format!("channel {}, message {id}", self.name)));
                    break Ok(Stop::Full);
                }
            }
            self.next = Next::After(id);
            self.read_errors = 0;
            scanned += 1;
            if let Err(error) = cursor.advance(&self.topic) {
                break Err(error);
            }
        };
        if let (CaughtUp::Goal(Some(goal)), Next::After(id)) = (self.caught_up, self.next)
            && id >= goal
        {
            self.caught_up = CaughtUp::Due;
        }
        let (bytes, pushed) = (chunk.bytes, !chunk.envelopes.is_empty());
        if pushed {
            self.last_tick = self.last_tick.max(chunk.last_tick);
            self.push(Delivery::Messages(chunk.envelopes));
        }
        stop.map(|stop| Read { stop, pushed, bytes })
    }

    /// Puts one message into the chunk; `false` if there is no credit for it.
    fn admit(
        &mut self,
        id: Id,
        payload: &[u8],
        chunk: &mut Chunk,
        credits: &Arc<Credits>,
        unknown_types: &mut HashSet<i32>,
    ) -> Result<bool> {
        let header = header::peek(payload)?;
        let wrap = match header.message_type {
            MessageType::TimeTick => {
                chunk.push_tick(id, header.timestamp);
                return Ok(true);
            }
            MessageType::Insert => EnvelopeKind::Insert,
            MessageType::Delete => EnvelopeKind::Delete,
            // What they say is read from the catalog, and a replicated message stands for one of another cluster.
            MessageType::CreateCollection
            | MessageType::DropCollection
            | MessageType::CreatePartition
            | MessageType::DropPartition
            | MessageType::Replicate => {
                self.skipped += 1;
                return Ok(true);
            }
            MessageType::Other(code) => {
                if unknown_types.insert(code) {
                    tracing::warn!(
                        channel = %self.name, message = id, code,
                        "messages of an unknown type are passed over (told once per type)"
                    );
                }
                self.skipped += 1;
                return Ok(true);
            }
        };
        let size = u64::try_from(payload.len()).unwrap_or(u64::MAX);
        let Some(credit) = credits.try_take(&self.name, size) else { return Ok(false) };
        chunk.push(id, wrap(Bytes::copy_from_slice(payload), credit), payload.len());
        Ok(true)
    }

    fn push(&mut self, delivery: Delivery) {
        match self.sender.try_send(delivery) {
            Ok(()) => {}
            Err(TrySendError::Disconnected(_)) => self.over = true,
            // Only this thread sends, and only after has_room. If it did happen, the consumer would see the channel end.
            Err(TrySendError::Full(_)) => {
                tracing::error!(channel = %self.name, "a queue was full that had room before");
                self.over = true;
            }
        }
    }

    /// The error of a message that must still be there and is not.
    pub(super) fn gap(&self, first: Option<Id>) -> Error {
        let (asked, what) = match self.next {
            Next::At(id) => (id, "to start from"),
            Next::After(id) => (id, "read last"),
            Next::First => (0, "at the start"),
        };
        let there = match first {
            Some(first) => format!("the first one after it is {first}"),
            None => "there is none after it".to_owned(),
        };
        Error::new(
            Kind::Gap,
            format!("channel {}: the message {what} ({asked}) is gone from RocksMQ, {there}", self.name),
        )
        .hint(
            "Milvus removed messages that were still needed (rocksmq.retentionTimeInMinutes, retentionSizeInMB), or this \
             is another Milvus' RocksMQ: set the pipeline up anew on an empty target, with a longer retention",
        )
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        tracing::debug!(channel = %self.name, next = ?self.next, other_messages = self.skipped, "closed");
    }
}

/// A delivery in the making.
#[derive(Default)]
struct Chunk {
    envelopes: Vec<Envelope>,
    bytes: usize,
    last_tick: Tso,
}

impl Chunk {
    fn is_full(&self) -> bool {
        self.envelopes.len() >= CHUNK_ENVELOPES || self.bytes >= CHUNK_BYTES
    }

    fn push(&mut self, id: Id, kind: EnvelopeKind, bytes: usize) {
        self.envelopes.push(Envelope { position: position(id), kind });
        self.bytes += bytes;
    }

    /// Of consecutive ticks only the last matters. (The highest, should they run backwards: it is a promise that
    /// was made.)
    fn push_tick(&mut self, id: Id, tick: Tso) {
        self.last_tick = self.last_tick.max(tick);
        if let Some(Envelope { position: place, kind: EnvelopeKind::Tick(last) }) = self.envelopes.last_mut()
        {
            *place = position(id);
            *last = tick.max(*last);
        } else {
            self.push(id, EnvelopeKind::Tick(tick), 0);
        }
    }
}
