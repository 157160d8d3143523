//! One opened channel: where it is, and what of it has come.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::Notify;

use super::brokers::Brokers;
use super::consumer::{Consumer, End};
use super::cursor::{self, Cursor, Verdict};
use super::id::{Entry, MessageId};
use super::inbox::{Frame, Next};
use super::keeper::Keeper;
use super::opening::{Opened, Opening};
use super::payload;
use super::trouble::{Sort, Trouble};
use crate::dataflow::channels::Waiting;
use crate::error::{Error, Kind, Result};
use crate::milvus::channel::PChannel;
use crate::milvus::tso::Tso;
use crate::sources::Start;
use crate::sources::outlet::{Admitted, Outlet, Payload};

/// The pause before a topic is opened again, first and longest.
const PAUSE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));
/// A topic that is not there is asked for again after this long.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// What all channels share.
pub(super) struct Common {
    pub(super) brokers: Arc<Brokers>,
    pub(super) keeper: Option<Arc<Keeper>>,
    /// Wakes the reader.
    pub(super) wake: Arc<Notify>,
}

/// A channel that is being read.
pub(super) struct Channel {
    pub(super) name: PChannel,
    pub(super) outlet: Outlet,
    common: Arc<Common>,
    cursor: Cursor,
    /// The time that it is to begin at, until it has.
    near: Option<Tso>,
    state: State,
    goal: Option<Goal>,
    pause: Duration,
    /// Taken apart, but there was no room or credit for it.
    held: VecDeque<(MessageId, Bytes)>,
}

enum State {
    /// To be opened at this time.
    Due(Instant),
    Opening(Opening),
    Open(Consumer),
}

/// Up to where it is to be read before it has caught up.
#[derive(Clone, Copy)]
enum Goal {
    Reached,
    Entry(Entry),
}

/// Why [`Channel::read`] stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// A delivery is full; there may be more.
    Full,
    /// The budget has no room for the next message.
    NoCredit,
    /// Nothing more has come.
    Dry,
}

impl Channel {
    /// Error: `Checkpoint`, if the start is no place in a topic of Pulsar.
    pub(super) fn new(start: &Start, outlet: Outlet, common: &Arc<Common>) -> (Channel, Option<Error>) {
        let name = outlet.channel().clone();
        let near = if let Start::Near(ts) = start { Some(*ts) } else { None };
        let (cursor, error) = match start {
            Start::Earliest => (Cursor::earliest(), None),
            Start::Near(ts) => (Cursor::near(*ts), None),
            Start::At(position) => match MessageId::from_position(&name, position) {
                Ok(id) => (Cursor::at(id), None),
                Err(error) => (Cursor::earliest(), Some(error)),
            },
        };
        let channel = Channel {
            name,
            outlet,
            common: Arc::clone(common),
            cursor,
            near,
            state: State::Due(Instant::now()),
            goal: None,
            pause: PAUSE.0,
            held: VecDeque::new(),
        };
        (channel, error)
    }

    /// Sees to it that the topic is open. Never waits.
    pub(super) fn tend(&mut self) {
        match &mut self.state {
            State::Due(at) if *at <= Instant::now() => {
                let begin = self.cursor.begin(Tso::now().millis());
                tracing::debug!(channel = %self.name, ?begin, "opening");
                let Common { brokers, keeper, wake } = &*self.common;
                self.state =
                    State::Opening(Opening::start(brokers, keeper.as_ref(), &self.name, begin, wake));
            }
            State::Opening(opening) => match opening.result() {
                None => {}
                Some(Ok(opened)) => self.opened(opened),
                Some(Err(trouble)) => self.troubled(&trouble),
            },
            State::Due(_) | State::Open(_) => {}
        }
    }

    fn opened(&mut self, opened: Opened) {
        let Opened { consumer, end: End { last, reached } } = opened;
        tracing::debug!(channel = %self.name, last = ?last.map(|last| last.to_string()), "open");
        // A broker that is asked to begin beyond the end begins at the end.
        if let Some(needed) = self.cursor.needed()
            && last.is_none_or(|last| last < needed)
        {
            self.outlet.fail(cursor::beyond(&self.name, needed, last));
            return;
        }
        self.goal.get_or_insert(match last {
            Some(last) if !reached => Goal::Entry(last),
            _ => Goal::Reached,
        });
        self.outlet.waits(None);
        self.state = State::Open(consumer);
    }

    fn troubled(&mut self, trouble: &Trouble) {
        tracing::debug!(channel = %self.name, %trouble, "not open");
        let uri = &self.common.brokers.uri;
        match trouble.sort {
            // A denial after an outage may be a part of it.
            Sort::Denied | Sort::Unsafe if self.goal.is_none() => {
                let message = format!("channel {}: Pulsar at {uri} can't be read: {trouble}", self.name);
                self.outlet.fail(trouble.error(message));
            }
            Sort::Unfit => {
                let message = format!("channel {}: {trouble}", self.name);
                self.outlet.fail(Error::new(Kind::Refused, message).hint(
                    "Milvus writes each channel to one topic without partitions, or with one: see tenant and namespace in \
                     [source.mq]",
                ));
            }
            Sort::TooMuch => self.state = State::Due(Instant::now()),
            Sort::NoTopic => {
                let what = format!("Pulsar to have a topic {}", self.common.brokers.topic(&self.name));
                self.outlet.waits(Some(Waiting::Queue(what.into())));
                self.state = State::Due(Instant::now() + ASK_AGAIN);
            }
            _ => {
                self.outlet.waits(Some(Waiting::Queue(format!("Pulsar at {uri} ({trouble})").into())));
                self.state = State::Due(Instant::now() + self.pause);
                self.pause = (self.pause * 2).min(PAUSE.1);
            }
        }
    }

    /// Reads one delivery and puts it into the queue, which has room. Returns the payload bytes in it, if any.
    pub(super) fn read(&mut self) -> (Stop, Option<usize>) {
        let stop = self.fill();
        let is_reached = match self.goal {
            None => false,
            Some(Goal::Reached) => true,
            Some(Goal::Entry(goal)) => self.cursor.taken().is_some_and(|taken| taken >= goal),
        };
        if is_reached && self.held.is_empty() {
            self.outlet.caught_up();
        }
        (stop, self.outlet.flush())
    }

    fn fill(&mut self) -> Stop {
        loop {
            while let Some((id, bytes)) = self.held.pop_front() {
                match self.outlet.admit(Payload::Owned(bytes.clone()), || id.position()) {
                    Ok(Admitted::Taken) => {}
                    Ok(Admitted::Full) => return Stop::Full,
                    Ok(Admitted::NoCredit) => {
                        self.held.push_front((id, bytes));
                        return Stop::NoCredit;
                    }
                    Err(error) => {
                        self.outlet.fail(error.context(format!("channel {}, message {id}", self.name)));
                        return Stop::Full;
                    }
                }
            }
            let State::Open(consumer) = &mut self.state else { return Stop::Dry };
            match consumer.next() {
                Next::Nothing => {
                    self.cursor.wait(Tso::now().millis());
                    return Stop::Dry;
                }
                Next::End(trouble) => {
                    self.troubled(&trouble);
                    return Stop::Dry;
                }
                Next::Frame(frame) => {
                    if let Err(error) = self.take(frame) {
                        self.outlet.fail(error);
                        return Stop::Full;
                    }
                }
            }
        }
    }

    fn take(&mut self, frame: Frame) -> Result<()> {
        let Some(place) = Entry::of(&frame.id) else {
            let message = format!("channel {}: a message came with an impossible id", self.name);
            return Err(Error::new(Kind::Corrupt, message));
        };
        let published = frame.published;
        match self.cursor.judge(place, published) {
            Verdict::Skip => {}
            Verdict::Reopen => self.state = State::Due(Instant::now()),
            Verdict::Gap { wanted } => return Err(cursor::gap(&self.name, wanted, place)),
            Verdict::Take => {
                if let Some(ts) = self.near.take()
                    && self.cursor.is_at_first()
                {
                    self.outlet.must_reach(ts);
                }
                let messages = payload::unpack(place, frame).map_err(|error| {
                    let message = format!("channel {}, message {place}: it {}", self.name, error.message());
                    let hint = error.hint_text().unwrap_or_default().to_owned();
                    Error::new(error.kind(), message).hint(hint)
                })?;
                self.held.extend(messages.into_iter().filter(|(id, _)| !self.cursor.skips(id.batch)));
                self.cursor.pass(place, published);
                self.pause = PAUSE.0;
            }
        }
        Ok(())
    }
}
