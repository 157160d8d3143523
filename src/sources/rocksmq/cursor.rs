//! Reading one topic in the order of its ids.

use std::time::Duration;

use rocksdb::DBRawIterator;

use super::key::{Id, Topic, digit_count, leading_digit, least_id};
use super::store::read_error;
use crate::error::Result;
use crate::milvus::header::{self, MessageType};
use crate::milvus::tso::Tso;

/// Where reading goes on in a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// At the first message, whichever it is.
    First,
    /// At this message.
    At(Id),
    /// After this message.
    After(Id),
    /// Before everything that is later than this.
    Near(Tso),
}

/// Rows are in a topic before the tick that covers them, by as long as ticks lag behind. This is far more than they
/// do: a tick waits for the oldest request that a proxy still works on.
const TICK_LAG: Duration = Duration::from_secs(60);

/// An iterator of RocksDB on a topic.
///
/// Keys sort as text: `9` comes after `10`. In practice all ids of a topic have 18 digits (until the year 2090), and
/// this walks them in the order of RocksDB. Where the number of digits grows, it walks the shorter ids first and then
/// the longer ones, which sort before them. A look at the other end of a topic costs reading a block, of some MB, from
/// many a file; so it is done only where ids are about to grow (they start with 9) or have just grown (with 1): ids
/// grow with time, so they do not jump over that.
pub(super) struct Cursor<'db> {
    iterator: DBRawIterator<'db>,
    /// Ids of this many digits are being walked.
    digits: u32,
    /// The id before the place of the cursor started with 9.
    may_grow: bool,
    ended: bool,
    key: Vec<u8>,
}

impl<'db> Cursor<'db> {
    pub(super) fn new(iterator: DBRawIterator<'db>) -> Cursor<'db> {
        Cursor { iterator, digits: 0, may_grow: false, ended: true, key: Vec::new() }
    }

    /// Goes to where `next` says. `false` if that message is gone; the cursor is then at the first later one.
    pub(super) fn seek(&mut self, topic: &Topic, next: Next) -> Result<bool> {
        let (id, after) = match next {
            Next::First => {
                self.seek_to_first(topic)?;
                return Ok(true);
            }
            Next::Near(ts) => {
                self.seek_near(topic, ts)?;
                return Ok(true);
            }
            Next::At(id) => (id, false),
            Next::After(id) => (id, true),
        };
        self.digits = digit_count(id);
        self.may_grow = leading_digit(id) == 9;
        self.seek_key(topic, id);
        let found = self.id_here(topic)? == Some(id);
        if found && after {
            self.iterator.next();
        }
        self.settle(topic)?;
        Ok(found)
    }

    /// The message under the cursor, `None` after the last one.
    pub(super) fn current(&self, topic: &Topic) -> Result<Option<(Id, &[u8])>> {
        if self.ended {
            return Ok(None);
        }
        match (self.id_here(topic)?, self.iterator.value()) {
            (Some(id), Some(payload)) => Ok(Some((id, payload))),
            _ => Ok(None),
        }
    }

    /// Goes to the next message.
    pub(super) fn advance(&mut self, topic: &Topic) -> Result<()> {
        if !self.ended {
            self.iterator.next();
            self.settle(topic)?;
        }
        Ok(())
    }

    /// The last id of the topic; `None` if there is none, or if longer ones might sort before it. Moves the cursor.
    pub(super) fn last_id(&mut self, topic: &Topic) -> Result<Option<Id>> {
        self.ended = true;
        self.iterator.seek_for_prev(topic.upper_bound());
        Ok(self.id_here(topic)?.filter(|&id| leading_digit(id) != 9))
    }

    fn seek_to_first(&mut self, topic: &Topic) -> Result<()> {
        self.may_grow = false;
        self.iterator.seek(topic.lower_bound());
        let Some(first) = self.id_here(topic)? else {
            self.ended = true;
            return Ok(());
        };
        self.digits = digit_count(first);
        if leading_digit(first) == 1 {
            self.iterator.seek_for_prev(topic.upper_bound());
            let last = self.id_here(topic)?.unwrap_or(first);
            self.go_to_ids_of(topic, digit_count(last).min(self.digits));
        }
        self.settle(topic)
    }

    /// Goes to a tick so old that nothing before it is later than `ts`, or to the first message. Ticks grow with ids, so
    /// the place is found by halving the range of ids.
    fn seek_near(&mut self, topic: &Topic, ts: Tso) -> Result<()> {
        let last = self.last_id(topic)?;
        self.seek_to_first(topic)?;
        let first = self.current(topic)?.map(|(id, _)| id);
        let (Some(first), Some(last)) = (first, last) else { return Ok(()) };
        let old = ts.before(TICK_LAG);
        let (mut low, mut high) = (first, last);
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            match self.tick_from(topic, middle)? {
                Some((id, tick)) if tick <= old => low = id,
                _ => high = middle,
            }
        }
        self.seek(topic, Next::At(low)).map(|_found| ())
    }

    /// The first tick at or after `id`: its own id and its time.
    fn tick_from(&mut self, topic: &Topic, id: Id) -> Result<Option<(Id, Tso)>> {
        self.seek(topic, Next::At(id))?;
        while let Some((id, payload)) = self.current(topic)? {
            let header = header::peek(payload)?;
            if header.message_type == MessageType::TimeTick {
                return Ok(Some((id, header.timestamp)));
            }
            self.advance(topic)?;
        }
        Ok(None)
    }

    fn go_to_ids_of(&mut self, topic: &Topic, digits: u32) {
        self.digits = digits;
        self.seek_key(topic, least_id(digits));
    }

    /// Passes over ids of other lengths; after the last id of a length goes on with the longer ones.
    fn settle(&mut self, topic: &Topic) -> Result<()> {
        loop {
            match self.id_here(topic)? {
                Some(id) if digit_count(id) == self.digits => {
                    self.may_grow = leading_digit(id) == 9;
                    self.ended = false;
                    return Ok(());
                }
                Some(_) => self.iterator.next(),
                None => {
                    self.ended = true;
                    if !self.may_grow {
                        return Ok(());
                    }
                    self.may_grow = false;
                    self.iterator.seek(topic.lower_bound());
                    match self.id_here(topic)?.map(digit_count) {
                        Some(digits) if digits > self.digits => self.go_to_ids_of(topic, digits),
                        _ => return Ok(()),
                    }
                }
            }
        }
    }

    fn seek_key(&mut self, topic: &Topic, id: Id) {
        topic.write_key(id, &mut self.key);
        self.iterator.seek(&self.key);
    }

    /// The id under the iterator, `None` where the topic ends.
    fn id_here(&self, topic: &Topic) -> Result<Option<Id>> {
        match self.iterator.key() {
            Some(key) => topic.id(key).transpose(),
            None => {
                self.iterator.status().map_err(read_error)?;
                Ok(None)
            }
        }
    }
}
