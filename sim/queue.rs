//! The simulated message queue: topics that only grow, read as fast as the simulation says.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use crossbeam_channel::{Receiver, Sender};
use migrans::dataflow::credits::Credits;
use migrans::milvus::channel::{PChannel, Position};
use migrans::milvus::tso::Tso;
use migrans::sources::{Delivery, Envelope, EnvelopeKind, LogSource, Start};

/// One message of a topic.
#[derive(Clone, Debug)]
pub enum Message {
    /// A tick.
    Tick(Tso),
    /// An encoded insert.
    Insert(Bytes),
    /// An encoded delete.
    Delete(Bytes),
}

impl Message {
    /// Bytes that it takes of the budget.
    pub fn bytes(&self) -> u64 {
        match self {
            Message::Tick(_) => 0,
            Message::Insert(payload) | Message::Delete(payload) => {
                u64::try_from(payload.len()).unwrap_or(u64::MAX)
            }
        }
    }
}

/// All topics. Clones are the same ones.
#[derive(Clone, Default)]
pub struct Topics(Arc<Mutex<Contents>>);

/// Messages by topic, each with its time.
type Contents = BTreeMap<PChannel, Vec<(Tso, Message)>>;

impl Topics {
    /// Appends a message of this time.
    pub fn append(&self, channel: &PChannel, ts: Tso, message: Message) {
        self.lock().entry(channel.clone()).or_default().push((ts, message));
    }

    /// The position of the next message of a topic.
    pub fn end(&self, channel: &PChannel) -> Position {
        position(self.lock().get(channel).map_or(0, Vec::len))
    }

    /// The most bytes that a topic has before one tick and later than the tick before, of all topics together: what
    /// stands between the two, and what came too early for the first one.
    pub fn largest_ticks(&self) -> u64 {
        let topics = self.lock();
        let largest = topics.values().map(|topic| {
            let mut last = Tso::ZERO;
            let mut open: Vec<(Tso, u64)> = Vec::new();
            let mut most = 0;
            for (ts, message) in topic {
                match message {
                    Message::Tick(tick) if *tick > last => {
                        last = *tick;
                        open.retain(|(ts, _)| *ts > last);
                    }
                    message => open.push((*ts, message.bytes())),
                }
                most = open.iter().map(|(_, bytes)| bytes).sum::<u64>().max(most);
            }
            most
        });
        largest.sum::<u64>()
    }

    fn lock(&self) -> MutexGuard<'_, Contents> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The queue as one run of the pipeline reads it. Clones are the same one.
#[derive(Clone)]
pub struct SimQueue {
    topics: Topics,
    credits: Arc<Credits>,
    open: Arc<Mutex<BTreeMap<PChannel, Opened>>>,
    opens: Arc<Mutex<BTreeMap<PChannel, u64>>>,
}

struct Opened {
    queue: Sender<Delivery>,
    next: usize,
    tick: Tso,
    /// The end of the topic when it was opened.
    head: usize,
    told_head: bool,
    /// It was behind F, and is not beyond it yet.
    is_late: bool,
}

impl SimQueue {
    /// A reader of `topics`.
    pub fn new(topics: Topics, credits: Arc<Credits>) -> SimQueue {
        SimQueue { topics, credits, open: Arc::default(), opens: Arc::default() }
    }

    /// How often the channel was opened that was opened most often: so often the same messages may be held.
    pub fn opens(&self) -> u64 {
        let opens = self.opens.lock().unwrap_or_else(PoisonError::into_inner);
        opens.values().copied().max().unwrap_or(1)
    }

    /// Whether a channel that was opened late has not gone beyond `frontier` yet: nothing of what it has up to there is
    /// released before that.
    pub fn is_behind(&self, frontier: Tso) -> bool {
        let mut open = self.lock();
        for opened in open.values_mut() {
            opened.is_late = opened.tick < frontier || opened.is_late && opened.tick == frontier;
        }
        open.values().any(|opened| opened.is_late)
    }

    /// Channels of which there is more to hand over.
    pub fn readable(&self) -> Vec<PChannel> {
        let topics = self.topics.lock();
        let open = self.lock();
        let unread = |(channel, opened): &(&PChannel, &Opened)| {
            !opened.told_head || topics.get(*channel).is_some_and(|topic| opened.next < topic.len())
        };
        open.iter().filter(unread).map(|(channel, _)| channel.clone()).collect()
    }

    /// Hands over up to `most` messages of `channel`, as far as there is credit.
    pub fn feed(&self, channel: &PChannel, most: usize) {
        let topics = self.topics.lock();
        let mut open = self.lock();
        let Some(opened) = open.get_mut(channel) else { return };
        let topic = topics.get(channel).map_or(&[][..], |topic| topic);
        let mut envelopes = Vec::new();
        while envelopes.len() < most
            && let Some((_, message)) = topic.get(opened.next)
            && (opened.told_head || opened.next < opened.head)
        {
            let kind = match message {
                Message::Tick(tick) => {
                    if *tick > opened.tick {
                        opened.tick = *tick;
                        self.credits.ticked(channel);
                    }
                    EnvelopeKind::Tick(*tick)
                }
                Message::Insert(payload) => match self.credits.try_take(channel, message.bytes()) {
                    Some(credit) => EnvelopeKind::Insert(payload.clone(), credit),
                    None => break,
                },
                Message::Delete(payload) => match self.credits.try_take(channel, message.bytes()) {
                    Some(credit) => EnvelopeKind::Delete(payload.clone(), credit),
                    None => break,
                },
            };
            envelopes.push(Envelope { position: position(opened.next), kind });
            opened.next += 1;
        }
        if !envelopes.is_empty() {
            drop(opened.queue.send(Delivery::Messages(envelopes)));
        }
        if !opened.told_head && opened.next >= opened.head {
            opened.told_head = true;
            drop(opened.queue.send(Delivery::CaughtUp));
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<PChannel, Opened>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl LogSource for SimQueue {
    fn open(&self, channel: &PChannel, start: Start) -> Receiver<Delivery> {
        let (queue, receiver) = crossbeam_channel::unbounded();
        let next = match start {
            Start::At(position) => index(&position),
            Start::Earliest | Start::Near(_) => 0,
        };
        self.credits.open(channel);
        *self.opens.lock().unwrap_or_else(PoisonError::into_inner).entry(channel.clone()).or_default() += 1;
        let head = self.topics.lock().get(channel).map_or(0, Vec::len);
        self.lock().insert(
            channel.clone(),
            Opened { queue, next, tick: Tso::ZERO, head, told_head: false, is_late: false },
        );
        receiver
    }

    fn close(&self, channel: &PChannel) {
        self.lock().remove(channel);
    }
}

fn position(index: usize) -> Position {
    Position(index.to_le_bytes().to_vec())
}

fn index(position: &Position) -> usize {
    position.0.as_slice().try_into().map_or(0, usize::from_le_bytes)
}
