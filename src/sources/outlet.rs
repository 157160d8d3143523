//! The sending end of one channel's queue: what every queue source does with a message once it has it.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use crossbeam_channel::{Receiver, Sender, TrySendError};

use super::{Context, Delivery, Envelope, EnvelopeKind};
use crate::dataflow::channels::Waiting;
use crate::error::{Error, Kind, Result};
use crate::milvus::channel::{PChannel, Position};
use crate::milvus::header::{self, MessageType};
use crate::milvus::tso::Tso;

/// Deliveries that a channel's queue holds.
pub(super) const QUEUE_DELIVERIES: usize = 4;
/// A delivery is full with this many envelopes …
const CHUNK_ENVELOPES: usize = 64;
/// … or with this many bytes …
const CHUNK_BYTES: usize = 512 << 10;
/// … or after this many messages were looked at, most of which then were ticks that are told by their last one.
const CHUNK_SCANNED: usize = 4096;

/// What a message costs beside its payload until it is durable: its columns, its key set, its place in queues. It matters
/// where a backlog is made of single rows.
const MESSAGE_OVERHEAD: u64 = 2 << 10;

/// The sending end of one channel. Messages are collected into a delivery, which [`Outlet::flush`] hands over.
///
/// The protocol: `has_room`, then any number of `admit` until it says that the delivery is full or that credit is
/// short, then `flush`.
pub struct Outlet {
    channel: PChannel,
    sender: Sender<Delivery>,
    context: Context,
    unknown_types: UnknownTypes,
    chunk: Chunk,
    last_tick: Tso,
    /// The first tick must not be later than this.
    reaching: Option<Tso>,
    caught_up: Notice,
    failure: Option<Error>,
    over: bool,
    skipped: u64,
    waiting: Option<Waiting>,
}

/// Message types that were warned about. Shared by the channels of a source, so that each type is told once.
pub type UnknownTypes = Arc<Mutex<HashSet<i32>>>;

/// What became of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admitted {
    /// It is in the delivery, or it is of no interest.
    Taken,
    /// The same, and now the delivery is full: flush.
    Full,
    /// The budget has no room for it: offer it again later.
    NoCredit,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Notice {
    NotDue,
    Due,
    Sent,
}

/// A delivery in the making.
#[derive(Default)]
struct Chunk {
    envelopes: Vec<Envelope>,
    bytes: usize,
    scanned: usize,
}

impl Outlet {
    /// For `channel`; the other end of its queue goes to the dataflow.
    pub fn new(
        channel: PChannel,
        context: &Context,
        unknown_types: &UnknownTypes,
    ) -> (Outlet, Receiver<Delivery>) {
        let (sender, receiver) = crossbeam_channel::bounded(QUEUE_DELIVERIES);
        context.credits.open(&channel);
        let outlet = Outlet {
            channel,
            sender,
            context: context.clone(),
            unknown_types: Arc::clone(unknown_types),
            chunk: Chunk::default(),
            last_tick: Tso::ZERO,
            reaching: None,
            caught_up: Notice::NotDue,
            failure: None,
            over: false,
            skipped: 0,
            waiting: None,
        };
        (outlet, receiver)
    }

    /// The channel.
    pub fn channel(&self) -> &PChannel {
        &self.channel
    }

    /// The last tick that was handed over: how far behind the channel is.
    pub fn last_tick(&self) -> Tso {
        self.last_tick
    }

    /// Reading begins with the first message that is left. Of all that is later than `ts` nothing may be missing, so it must
    /// begin with a tick that is not later: otherwise the channel ends with an error of kind `Gap`. Whoever only shows
    /// messages takes what there is.
    pub fn must_reach(&mut self, ts: Tso) {
        self.reaching = (!self.context.every_message).then_some(ts);
    }

    /// Whether the channel is done with: it failed, or nobody listens.
    pub fn is_over(&self) -> bool {
        self.over
    }

    /// Whether the queue has room. Nobody else puts anything in, so the room stays.
    pub fn has_room(&mut self) -> bool {
        let room = !self.sender.is_full();
        if !room {
            self.waits(Some(Waiting::Dataflow));
        } else if self.waiting == Some(Waiting::Dataflow) {
            self.waits(None);
        }
        room
    }

    /// Tells the user what the channel waits for; `None`: it goes on.
    pub fn waits(&mut self, what: Option<Waiting>) {
        if self.waiting != what {
            self.context.channels.waits(&self.channel, what.clone());
            self.waiting = what;
        }
    }

    /// Takes one message into the delivery. `position` is asked for only if the message is of interest.
    ///
    /// An error is about the message: the channel can't go on past it.
    pub fn admit(&mut self, payload: Payload<'_>, position: impl FnOnce() -> Position) -> Result<Admitted> {
        let header = header::peek(payload.as_slice())?;
        self.chunk.scanned += 1;
        let wrap: fn(Bytes, _) -> EnvelopeKind = match header.message_type {
            MessageType::TimeTick => {
                if let Some(wanted) = self.reaching.take().filter(|wanted| header.timestamp > *wanted) {
                    return Err(gap(wanted, header.timestamp));
                }
                if header.timestamp > self.last_tick {
                    self.last_tick = header.timestamp;
                    self.context.credits.ticked(&self.channel);
                }
                self.chunk.push_tick(position(), header.timestamp, self.context.every_tick);
                return Ok(self.taken());
            }
            MessageType::Insert => EnvelopeKind::Insert,
            MessageType::Delete => EnvelopeKind::Delete,
            // What they say is read from the catalog, and a replicated message stands for one of another cluster.
            MessageType::CreateCollection
            | MessageType::DropCollection
            | MessageType::CreatePartition
            | MessageType::DropPartition
            | MessageType::Replicate
            | MessageType::Other(_) => {
                self.skipped += 1;
                self.warn_if_unknown(header.message_type);
                if self.context.every_message {
                    let kind =
                        EnvelopeKind::Other(header.message_type, header.timestamp, payload.into_bytes());
                    self.chunk.push(position(), kind, 0);
                }
                return Ok(self.taken());
            }
        };
        let length = payload.as_slice().len();
        let size = u64::try_from(length).unwrap_or(u64::MAX).saturating_add(MESSAGE_OVERHEAD);
        let Some(credit) = self.context.credits.try_take(&self.channel, size) else {
            self.chunk.scanned -= 1;
            self.waits(Some(Waiting::Credit));
            return Ok(Admitted::NoCredit);
        };
        if self.waiting == Some(Waiting::Credit) {
            self.waits(None);
        }
        self.chunk.push(position(), wrap(payload.into_bytes(), credit), length);
        Ok(self.taken())
    }

    fn taken(&self) -> Admitted {
        if self.chunk.is_full() { Admitted::Full } else { Admitted::Taken }
    }

    fn warn_if_unknown(&self, message_type: MessageType) {
        let MessageType::Other(code) = message_type else { return };
        if self.unknown_types.lock().unwrap_or_else(PoisonError::into_inner).insert(code) {
            tracing::warn!(
                channel = %self.channel, code,
                "messages of an unknown type are passed over (told once per type)"
            );
        }
    }

    /// Hands over what was collected, into a queue that has room. Returns the payload bytes among it, `None` if there
    /// was nothing.
    pub fn flush(&mut self) -> Option<usize> {
        let Chunk { envelopes, bytes, .. } = std::mem::take(&mut self.chunk);
        if envelopes.is_empty() {
            return None;
        }
        self.push(Delivery::Messages(envelopes));
        Some(bytes)
    }

    /// Everything that was in the topic when it was opened has been handed over. Said once, whoever says it again.
    pub fn caught_up(&mut self) {
        if self.caught_up == Notice::NotDue {
            self.caught_up = Notice::Due;
        }
    }

    /// Ends the channel with an error as soon as there is room for it.
    pub fn fail(&mut self, error: Error) {
        self.failure.get_or_insert(error);
    }

    /// Whether something other than messages waits for room in the queue.
    pub fn has_notice(&self) -> bool {
        self.failure.is_some() || self.caught_up == Notice::Due
    }

    /// Puts a waiting notice into the queue, which has room. Returns whether there was one.
    pub fn send_notice(&mut self) -> bool {
        if let Some(error) = self.failure.take() {
            tracing::debug!(channel = %self.channel, error = %error, "reading failed");
            self.push(Delivery::Failed(error));
            self.over = true;
        } else if self.caught_up == Notice::Due {
            self.caught_up = Notice::Sent;
            tracing::debug!(channel = %self.channel, other_messages = self.skipped, "caught up");
            self.push(Delivery::CaughtUp);
        } else {
            return false;
        }
        true
    }

    fn push(&mut self, delivery: Delivery) {
        match self.sender.try_send(delivery) {
            Ok(()) => {}
            Err(TrySendError::Disconnected(_)) => self.over = true,
            // Only this end sends, and only after has_room. If it did happen, the consumer would see the channel end.
            Err(TrySendError::Full(_)) => {
                tracing::error!(channel = %self.channel, "a queue was full that had room before");
                self.over = true;
            }
        }
    }
}

fn gap(wanted: Tso, first: Tso) -> Error {
    Error::new(
        Kind::Gap,
        format!("everything after {wanted} is needed, but what is left in the queue begins at {first}"),
    )
    .hint(
        "the queue did not keep it for so long: rewind to a later time, begin later, or set the pipeline up anew on an empty \
         target, with a longer retention",
    )
}

/// The bytes of a message, owned or not: copied only if they are wanted.
pub enum Payload<'a> {
    /// Somebody else's.
    Borrowed(&'a [u8]),
    /// Ours.
    Owned(Bytes),
}

impl Payload<'_> {
    /// The bytes.
    pub fn as_slice(&self) -> &[u8] {
        match self {
            Payload::Borrowed(bytes) => bytes,
            Payload::Owned(bytes) => bytes,
        }
    }

    fn into_bytes(self) -> Bytes {
        match self {
            Payload::Borrowed(bytes) => Bytes::copy_from_slice(bytes),
            Payload::Owned(bytes) => bytes,
        }
    }
}

impl Chunk {
    fn is_full(&self) -> bool {
        self.envelopes.len() >= CHUNK_ENVELOPES || self.bytes >= CHUNK_BYTES || self.scanned >= CHUNK_SCANNED
    }

    fn push(&mut self, position: Position, kind: EnvelopeKind, bytes: usize) {
        self.envelopes.push(Envelope { position, kind });
        self.bytes += bytes;
    }

    /// Of consecutive ticks only the last matters. (The highest, should they run backwards: it is a promise that
    /// was made.)
    fn push_tick(&mut self, position: Position, tick: Tso, every: bool) {
        match self.envelopes.last_mut() {
            Some(Envelope { position: place, kind: EnvelopeKind::Tick(last) }) if !every => {
                *place = position;
                *last = tick.max(*last);
            }
            _ => self.push(position, EnvelopeKind::Tick(tick), 0),
        }
    }
}
