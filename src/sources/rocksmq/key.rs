//! Keys of the store: `<topic>/<decimal id>`, and positions: an id in 8 bytes, little-endian.

use crate::error::{Error, Kind, Result};
use crate::milvus::channel::{PChannel, Position};

/// A message's id. Ids of one topic grow in the order of its messages; they need not be contiguous (2.3 numbers
/// all topics from one counter).
pub(super) type Id = i64;

/// The digits of the largest id.
const MOST_DIGITS: usize = 19;

/// A topic, as the common start of its keys.
///
/// The slash ends the name, so the keys of `a_1` and `a_10` are apart. The keys of a topic sort as text, which is
/// the order of their ids only among ids of equally many digits.
#[derive(Clone, Debug)]
pub(super) struct Topic {
    prefix: Vec<u8>,
}

impl Topic {
    pub(super) fn new(channel: &PChannel) -> Topic {
        Topic { prefix: format!("{channel}/").into_bytes() }
    }

    /// What all keys of the topic start with, and the least text that could be one.
    pub(super) fn lower_bound(&self) -> &[u8] {
        &self.prefix
    }

    /// The least text that sorts after all keys of the topic.
    pub(super) fn upper_bound(&self) -> Vec<u8> {
        let mut bound = self.prefix.clone();
        if let Some(slash) = bound.last_mut() {
            *slash += 1;
        }
        bound
    }

    /// Writes the key of message `id` into `key`.
    pub(super) fn write_key(&self, id: Id, key: &mut Vec<u8>) {
        use std::io::Write;
        key.clear();
        key.extend_from_slice(&self.prefix);
        // Writing to a vector can't fail.
        let _ = write!(key, "{id}");
    }

    /// The id in a key, or `None` if the key belongs to another topic.
    pub(super) fn id(&self, key: &[u8]) -> Option<Result<Id>> {
        let digits = key.strip_prefix(self.prefix.as_slice())?;
        Some(parse_id(digits).ok_or_else(|| {
            Error::new(
                Kind::Corrupt,
                format!("RocksMQ has a key that is not <topic>/<number>: {}", printable(key)),
            )
            .hint("is this really the folder of rocksmq.path of a Milvus from 2.3 to 2.5?")
        }))
    }
}

/// The id that `digits` spells the way Milvus writes it: decimal, without sign or leading zero.
fn parse_id(digits: &[u8]) -> Option<Id> {
    let plain = matches!(digits, [b'1'..=b'9', ..] | [b'0']) && digits.len() <= MOST_DIGITS;
    let text = std::str::from_utf8(digits).ok().filter(|_| plain)?;
    text.parse().ok()
}

/// The number of decimal digits of an id.
pub(super) fn digit_count(id: Id) -> u32 {
    id.checked_ilog10().map_or(1, |log| log + 1)
}

/// The least id of `digits` digits, or the largest id if there is none.
pub(super) fn least_id(digits: u32) -> Id {
    if digits <= 1 { 0 } else { 10i64.checked_pow(digits - 1).unwrap_or(Id::MAX) }
}

/// The first digit of an id.
pub(super) fn leading_digit(id: Id) -> i64 {
    id / least_id(digit_count(id)).max(1)
}

/// Whether a key looks like a message's. Topic names have no slash (Milvus refuses to create such topics).
pub(super) fn is_message_key(key: &[u8]) -> bool {
    let mut parts = key.split(|&byte| byte == b'/');
    match (parts.next(), parts.next(), parts.next()) {
        (Some(topic), Some(digits), None) => !topic.is_empty() && parse_id(digits).is_some(),
        _ => false,
    }
}

/// The position of message `id`: Milvus' own encoding (`SerializeRmqID`).
pub(super) fn position(id: Id) -> Position {
    Position(id.to_le_bytes().to_vec())
}

/// The id in a position.
pub(super) fn position_id(position: &Position) -> Result<Id> {
    let id = <[u8; 8]>::try_from(position.0.as_slice()).ok().map(i64::from_le_bytes).filter(|&id| id >= 0);
    id.ok_or_else(|| {
        Error::new(Kind::Corrupt, format!("{:02x?} is not a position of RocksMQ", position.0))
            .hint("a position of RocksMQ is 8 bytes; is the message queue of the source really RocksMQ?")
    })
}

/// A key for people: text, with everything else escaped.
pub(super) fn printable(key: &[u8]) -> String {
    key.iter().take(120).flat_map(|&byte| std::ascii::escape_default(byte)).map(char::from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topic(name: &str) -> Topic {
        Topic::new(&PChannel(name.into()))
    }

    #[test]
    fn a_topic_and_one_whose_name_goes_on_are_apart() {
        let (short, long) = (topic("a_1"), topic("a_10"));
        let mut key = Vec::new();
        long.write_key(446, &mut key);
        assert_eq!(key, b"a_10/446");
        assert!(short.id(&key).is_none());
        assert_eq!(long.id(&key).unwrap().unwrap(), 446);
        assert!(short.upper_bound().as_slice() <= key.as_slice() || key.as_slice() < short.lower_bound());
        short.write_key(i64::MAX, &mut key);
        assert!(short.lower_bound() <= key.as_slice() && key < short.upper_bound());
    }

    #[test]
    fn only_decimal_numbers_are_ids() {
        for bad in ["", "-1", "+1", "01", " 1", "1a", "99999999999999999999", "9223372036854775808", "1/2"] {
            let error = topic("t").id(format!("t/{bad}").as_bytes()).unwrap().unwrap_err();
            assert_eq!(error.kind(), Kind::Corrupt, "{bad}");
        }
        assert_eq!(parse_id(b"9223372036854775807"), Some(i64::MAX));
        assert_eq!(parse_id(b"0"), Some(0));
    }

    #[test]
    fn tells_keys_of_messages_from_those_of_the_folder_beside() {
        assert!(is_message_key(b"by-dev-rootcoord-dml_0/446000000000000001"));
        for other in [
            "topic_id/by-dev-rootcoord-dml_0",
            "page_ts/by-dev-rootcoord-dml_0/446",
            "/446",
            "rmq_id",
            "",
            "a/b",
        ] {
            assert!(!is_message_key(other.as_bytes()), "{other}");
        }
    }

    #[test]
    fn counts_digits() {
        for (id, digits) in [(0, 1), (9, 1), (10, 2), (99, 2), (100, 3), (i64::MAX, 19)] {
            assert_eq!(digit_count(id), digits);
            assert!(least_id(digits) <= id);
        }
        assert_eq!(least_id(19), 1_000_000_000_000_000_000);
        assert_eq!([0, 7, 10, 446_000, 999, i64::MAX].map(leading_digit), [0, 7, 1, 4, 9, 9]);
    }

    #[test]
    fn positions_are_milvus_bytes() {
        assert_eq!(position(0x0102_0304_0506_0708).0, [8, 7, 6, 5, 4, 3, 2, 1]);
        assert_eq!(position_id(&position(i64::MAX)).unwrap(), i64::MAX);
        for bad in [vec![], vec![1; 7], vec![1; 9], vec![0xff; 8]] {
            assert_eq!(position_id(&Position(bad)).unwrap_err().kind(), Kind::Corrupt);
        }
    }
}
