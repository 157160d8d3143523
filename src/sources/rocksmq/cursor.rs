//! Reading one topic in the order of its ids.

use rocksdb::DBRawIterator;

use super::key::{Id, Topic, digit_count, least_id};
use super::store::read_error;
use crate::error::Result;

/// Where reading goes on in a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// At the first message, whichever it is.
    First,
    /// At this message.
    At(Id),
    /// After this message.
    After(Id),
}

/// An iterator of RocksDB on a topic.
///
/// Keys sort as text: `9` comes after `10`. In practice all ids of a topic have 18 digits, and this walks them in
/// the order of RocksDB. Where the number of digits grows, it walks the ids of fewer digits first, passing over the
/// longer ones that lie between. It finds longer ids by the first key of the topic, so it takes for granted that
/// they sort before what is left of the shorter ones: ids grow with time, and the first longer ones start with 10…
pub(super) struct Cursor<'db> {
    iterator: DBRawIterator<'db>,
    /// Ids of this many digits are being walked.
    digits: u32,
    ended: bool,
    key: Vec<u8>,
}

impl<'db> Cursor<'db> {
    pub(super) fn new(iterator: DBRawIterator<'db>) -> Cursor<'db> {
        Cursor { iterator, digits: 0, ended: true, key: Vec::new() }
    }

    /// Goes to where `next` says. `false` if that message is gone; the cursor is then at the first later one.
    pub(super) fn seek(&mut self, topic: &Topic, next: Next) -> Result<bool> {
        let (id, after) = match next {
            Next::First => {
                self.seek_to_first(topic)?;
                return Ok(true);
            }
            Next::At(id) => (id, false),
            Next::After(id) => (id, true),
        };
        self.digits = digit_count(id);
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

    /// The last id of the topic, if its ids have equally many digits. Moves the cursor.
    pub(super) fn last_id(&mut self, topic: &Topic) -> Result<Option<Id>> {
        let (first, last) = self.ends(topic)?;
        self.ended = true;
        Ok(last.filter(|&last| first.is_some_and(|first| digit_count(first) == digit_count(last))))
    }

    fn seek_to_first(&mut self, topic: &Topic) -> Result<()> {
        let digits = match self.ends(topic)? {
            (Some(first), Some(last)) => digit_count(first).min(digit_count(last)),
            _ => {
                self.ended = true;
                return Ok(());
            }
        };
        self.start_of(topic, digits);
        self.settle(topic)
    }

    /// The first and the last id of the topic, as text sorts them. Moves the iterator.
    fn ends(&mut self, topic: &Topic) -> Result<(Option<Id>, Option<Id>)> {
        self.iterator.seek_for_prev(topic.upper_bound());
        let last = self.id_here(topic)?;
        self.iterator.seek(topic.lower_bound());
        Ok((self.id_here(topic)?, last))
    }

    fn start_of(&mut self, topic: &Topic, digits: u32) {
        self.digits = digits;
        self.ended = false;
        self.seek_key(topic, least_id(digits).unwrap_or(Id::MAX));
    }

    /// Passes over ids of other lengths; after the last id of a length goes on with the next length.
    fn settle(&mut self, topic: &Topic) -> Result<()> {
        self.ended = false;
        loop {
            match self.id_here(topic)? {
                Some(id) if digit_count(id) == self.digits => return Ok(()),
                Some(_) => self.iterator.next(),
                None => {
                    self.iterator.seek(topic.lower_bound());
                    match self.id_here(topic)?.map(digit_count) {
                        Some(digits) if digits > self.digits => self.start_of(topic, digits),
                        _ => {
                            self.ended = true;
                            return Ok(());
                        }
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
