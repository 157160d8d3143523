//! One opened channel: how far it has been read, and the queue to its consumer.

use std::time::Instant;

use super::cursor::{Cursor, Next};
use super::key::{Id, Topic, position, position_id};
use crate::error::{Error, Kind, Result};
use crate::milvus::channel::PChannel;
use crate::sources::Start;
use crate::sources::outlet::{Admitted, Outlet, Payload};

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
    /// Where it sends.
    pub(super) outlet: Outlet,
    /// Read errors since the last message.
    pub(super) read_errors: u32,
    /// The view in which a gap was seen: it counts if it is still there in the next one.
    pub(super) gap_seen: Option<u64>,
    goal: Goal,
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

/// When everything that was in the topic at its opening has been handed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Goal {
    /// When the end of the topic is reached, as the first scan sees it …
    End,
    /// … or, if that scan had to be given up, when the message has been handed over that was its last.
    After(Id),
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
        mut outlet: Outlet,
        first_view: u64,
    ) -> Channel {
        let next = match start {
            Start::Earliest => Next::First,
            Start::Near(ts) => {
                // Unless it begins with the first message that is left, it begins with an earlier tick.
                outlet.must_reach(ts);
                Next::Near(ts)
            }
            Start::At(position) => match position_id(&position) {
                Ok(id) => Next::At(id),
                Err(error) => {
                    outlet.fail(error.context(format!("channel {name}")));
                    Next::First
                }
            },
        };
        Channel {
            serial,
            topic: Topic::new(&name),
            name,
            next,
            first_view,
            tail: None,
            outlet,
            read_errors: 0,
            gap_seen: None,
            goal: Goal::End,
        }
    }

    /// Notes where the topic ended when it was opened, before the scan that saw that is given up.
    pub(super) fn note_goal(&mut self, cursor: &mut Cursor<'_>) -> Result<()> {
        if self.goal == Goal::End
            && let Some(last) = cursor.last_id(&self.topic)?
        {
            self.goal = Goal::After(last);
        }
        Ok(())
    }

    /// Notes that everything that is in the topic in `view` has been handed over.
    pub(super) fn note_end(&mut self, view: View) {
        self.tail = Some(view);
        self.outlet.caught_up();
    }

    /// Reads one delivery from the cursor, which is at the next message, and puts it into the queue, which has room.
    /// `Err` is about the store; what is wrong with a message becomes the channel's failure.
    pub(super) fn read(&mut self, cursor: &mut Cursor<'_>) -> Result<Read> {
        let stop = loop {
            let (id, payload) = match cursor.current(&self.topic) {
                Ok(Some(message)) => message,
                Ok(None) => break Ok(Stop::End),
                Err(error) => break Err(error),
            };
            let admitted = match self.outlet.admit(Payload::Borrowed(payload), || position(id)) {
                Ok(Admitted::NoCredit) => break Ok(Stop::NoCredit),
                Ok(admitted) => admitted,
                Err(error) => {
                    self.outlet.fail(error.context(format!("channel {}, message {id}", self.name)));
                    break Ok(Stop::Full);
                }
            };
            self.next = Next::After(id);
            self.read_errors = 0;
            if let Err(error) = cursor.advance(&self.topic) {
                break Err(error);
            }
            if admitted == Admitted::Full {
                break Ok(Stop::Full);
            }
        };
        if let (Goal::After(goal), Next::After(id)) = (self.goal, self.next)
            && id >= goal
        {
            self.outlet.caught_up();
        }
        let pushed = self.outlet.flush();
        stop.map(|stop| Read { stop, pushed: pushed.is_some(), bytes: pushed.unwrap_or(0) })
    }

    /// The error of a message that must still be there and is not.
    pub(super) fn gap(&self, first: Option<Id>) -> Error {
        let (asked, what) = match self.next {
            Next::At(id) => (id, "to start from"),
            Next::After(id) => (id, "read last"),
            Next::First | Next::Near(_) => (0, "at the start"),
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
        tracing::debug!(channel = %self.name, next = ?self.next, "closed");
    }
}
