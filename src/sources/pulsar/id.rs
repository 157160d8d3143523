//! Message ids of Pulsar, and Milvus' encoding of them.

use std::fmt;

use pulsar::proto::MessageIdData;

use crate::error::{Error, Kind, Result};
use crate::milvus::channel::{PChannel, Position};
use crate::milvus::wire::{self, Value};

/// A ledger and the number of an entry in it. Ledger numbers grow in a cluster, entries count from 0 without holes, and
/// whole ledgers are what a broker deletes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Entry {
    pub(super) ledger: u64,
    pub(super) entry: u64,
}

/// A message: an entry, or one of several in an entry that a producer wrote as a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct MessageId {
    pub(super) place: Entry,
    /// The partition of the topic; -1 if it has none.
    pub(super) partition: i32,
    /// The place in the batch; -1, with some clients 0, outside of a batch.
    pub(super) batch: i32,
}

impl Entry {
    /// What an id of the wire stands for; `None` for the marks of a topic's beginning and end, and for what a broker
    /// says of a topic without messages: numbers below 0.
    pub(super) fn of(id: &MessageIdData) -> Option<Entry> {
        let is_number = |number: u64| i64::try_from(number).is_ok();
        (is_number(id.ledger_id) && is_number(id.entry_id))
            .then_some(Entry { ledger: id.ledger_id, entry: id.entry_id })
    }

    /// The place before this one. Before the first entry of a ledger that is "entry -1", which brokers take.
    ///
    /// Reading that begins here brings this entry for certain, at most after the one before it: a broker begins with the id
    /// that is asked for (2.11.0 does), or with what follows it, as a subscription's mark-delete position has it.
    pub(super) fn before(self) -> MessageIdData {
        MessageIdData {
            ledger_id: self.ledger,
            entry_id: self.entry.wrapping_sub(1),
            ..MessageIdData::default()
        }
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.ledger, self.entry)
    }
}

impl MessageId {
    /// Whether the message at `batch` of the same entry comes before this one.
    pub(super) fn is_after(&self, batch: i32) -> bool {
        batch.max(0) < self.batch.max(0)
    }

    /// Milvus' form of it: Pulsar's `MessageIdData`, with all of its four numbers, as the Go client writes them.
    pub(super) fn position(&self) -> Position {
        let mut bytes = Vec::with_capacity(40);
        wire::put_integer(&mut bytes, 1, self.place.ledger);
        wire::put_integer(&mut bytes, 2, self.place.entry);
        wire::put_integer(&mut bytes, 3, i64::from(self.partition).cast_unsigned());
        wire::put_integer(&mut bytes, 4, i64::from(self.batch).cast_unsigned());
        Position(bytes)
    }

    /// Reads a position. Fields beyond the four are passed over (the Go client has a fifth, the size of the batch).
    ///
    /// Error: `Checkpoint`, if it is none of Pulsar.
    pub(super) fn from_position(channel: &PChannel, position: &Position) -> Result<MessageId> {
        read(&position.0).ok_or_else(|| {
            Error::new(Kind::Checkpoint, format!("channel {channel}: {position:?} is no message of Pulsar"))
                .hint(
                    "the position is of another kind of queue: check type in [source.mq] and [source.positions]",
                )
        })
    }
}

fn read(bytes: &[u8]) -> Option<MessageId> {
    let (mut ledger, mut entry, mut partition, mut batch) = (None, None, -1, -1);
    for field in wire::fields(bytes) {
        match field.ok()? {
            (1, Value::Varint(number)) => ledger = i64::try_from(number).ok().map(|_| number),
            (2, Value::Varint(number)) => entry = i64::try_from(number).ok().map(|_| number),
            (3, Value::Varint(number)) => partition = i32::try_from(number.cast_signed()).ok()?,
            (4, Value::Varint(number)) => batch = i32::try_from(number.cast_signed()).ok()?,
            (1..=4, _) => return None,
            _ => {}
        }
    }
    Some(MessageId { place: Entry { ledger: ledger?, entry: entry? }, partition, batch })
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.batch {
            ..0 => write!(f, "{}", self.place),
            batch => write!(f, "{}:{batch}", self.place),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(ledger: u64, entry: u64, partition: i32, batch: i32) -> MessageId {
        MessageId { place: Entry { ledger, entry }, partition, batch }
    }

    fn from(bytes: &[u8]) -> Result<MessageId> {
        MessageId::from_position(&PChannel("a".into()), &Position(bytes.to_vec()))
    }

    #[test]
    fn positions_have_the_go_clients_form() {
        assert_eq!(id(300, 7, 0, 2).position().0, [0x08, 0xac, 0x02, 0x10, 7, 0x18, 0, 0x20, 2]);
        let mut none = vec![0x08, 1, 0x10, 0];
        for tag in [0x18, 0x20] {
            none.push(tag);
            none.extend([0xff; 9]);
            none.push(1);
        }
        assert_eq!(id(1, 0, -1, -1).position().0, none);
    }

    #[test]
    fn positions_come_back_as_written() {
        for written in [id(1, 0, -1, -1), id(i64::MAX.cast_unsigned(), 9, 0, 0), id(5, 1 << 40, 3, 99)] {
            assert_eq!(from(&written.position().0).unwrap(), written);
        }
    }

    #[test]
    fn fields_may_be_missing_or_more() {
        assert_eq!(from(&[0x08, 5, 0x10, 6]).unwrap(), id(5, 6, -1, -1));
        assert_eq!(from(&[0x08, 5, 0x10, 6, 0x18, 0, 0x20, 0, 0x30, 4]).unwrap(), id(5, 6, 0, 0));
    }

    #[test]
    fn what_is_no_message_is_refused() {
        let earliest = {
            let mut bytes = Vec::new();
            wire::put_integer(&mut bytes, 1, u64::MAX);
            wire::put_integer(&mut bytes, 2, u64::MAX);
            bytes
        };
        for wrong in [&[][..], &[0x08, 5], &[0x10, 5], &[1, 2, 0, 0, 0, 0, 0, 0], &[0x0a, 1, 1], &earliest] {
            let error = from(wrong).unwrap_err();
            assert!(error.message().contains("is no message of Pulsar"), "{error}");
            assert_eq!(error.kind(), Kind::Checkpoint);
        }
    }

    #[test]
    fn an_entry_outside_of_a_batch_is_its_first_message() {
        assert!(!id(1, 1, -1, 0).is_after(-1) && !id(1, 1, -1, -1).is_after(0));
        assert!(id(1, 1, -1, 2).is_after(1) && id(1, 1, -1, 1).is_after(-1));
        assert!(!id(1, 1, -1, 2).is_after(2));
    }

    #[test]
    fn what_a_broker_says_of_an_empty_topic_is_no_entry() {
        let none = MessageIdData { ledger_id: 7, entry_id: u64::MAX, ..MessageIdData::default() };
        assert_eq!(Entry::of(&none), None);
        assert_eq!(Entry::of(&Entry { ledger: 7, entry: 0 }.before()), None);
        let before = Entry { ledger: 7, entry: 3 }.before();
        assert_eq!(Entry::of(&before), Some(Entry { ledger: 7, entry: 2 }));
    }
}
