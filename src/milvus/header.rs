//! The header of a log message, read without decoding the message.
//!
//! Each message of a topic is the protobuf encoding of one request (`msg.InsertRequest`, `msg.TimeTickMsg`, …) whose
//! field 1 is a `common.MsgBase`; Milvus itself learns what a message is by decoding only that much of it
//! (`common.MsgHeader`). Most messages are ticks, so this walks the few bytes of the base by hand and stops after it.

use super::tso::Tso;
use crate::error::{Error, Kind, Result};

/// What a message is: Milvus' `commonpb.MsgType`, as far as it occurs in the topics of rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MessageType {
    /// An `InsertRequest`.
    Insert,
    /// A `DeleteRequest`.
    Delete,
    /// A `TimeTickMsg`: its tick is [`Header::timestamp`].
    TimeTick,
    /// A `CreateCollectionRequest`.
    CreateCollection,
    /// A `DropCollectionRequest`.
    DropCollection,
    /// A `CreatePartitionRequest`.
    CreatePartition,
    /// A `DropPartitionRequest`.
    DropPartition,
    /// A `ReplicateMsg` (2.5).
    Replicate,
    /// Any other number.
    Other(i32),
}

impl MessageType {
    fn from_code(code: i32) -> MessageType {
        match code {
            100 => MessageType::CreateCollection,
            101 => MessageType::DropCollection,
            200 => MessageType::CreatePartition,
            201 => MessageType::DropPartition,
            400 => MessageType::Insert,
            401 => MessageType::Delete,
            1200 => MessageType::TimeTick,
            1212 => MessageType::Replicate,
            other => MessageType::Other(other),
        }
    }
}

/// The part of a message's `MsgBase` that decides what is done with the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// What the message is.
    pub message_type: MessageType,
    /// Milvus' id of the message (`base.msgID`), 0 if it has none.
    pub message_id: i64,
    /// `base.timestamp`: the tick of a `TimeTick`. Not the time of rows: it is 0 in some inserts.
    pub timestamp: Tso,
}

/// How RocksMQ of Milvus 2.6 and later starts a value: these bytes, the word STREAM, then a message of its own.
const STREAMING_MAGIC: [u8; 4] = [0xff, 0xfe, 0xfd, 0xfc];

/// Reads the header of an encoded message.
///
/// Only the first `base` is looked at (protobuf would merge several, Milvus writes one) and nothing after it, so a
/// message that is damaged further on passes. Errors are of kind `Corrupt` if there is no readable `base`, and
/// `Version` for the log format of Milvus 2.6.
pub fn peek(payload: &[u8]) -> Result<Header> {
    match find_base(payload).and_then(read_base) {
        Some(header) => Ok(header),
        None if payload.starts_with(&STREAMING_MAGIC) => {
            Err(Error::new(Kind::Version, "the message is in the log format of Milvus 2.6 or later")
                .hint("this version of migrans reads the log of Milvus 2.3 to 2.5"))
        }
        None => Err(Error::new(
            Kind::Corrupt,
            format!("the message has no readable header: {} bytes, {}", payload.len(), Start(payload)),
        )),
    }
}

/// The encoded `MsgBase`: the first length-delimited field 1.
fn find_base(mut rest: &[u8]) -> Option<&[u8]> {
    loop {
        match read_field(&mut rest)? {
            (1, Value::Bytes(base)) => return Some(base),
            (1, Value::Number(_)) => return None,
            _ => {}
        }
    }
}

/// The wanted fields of a `MsgBase`: `msg_type = 1`, `msgID = 2`, `timestamp = 3`. Absent ones are zero, as in
/// protobuf; a base without a type is none.
fn read_base(mut rest: &[u8]) -> Option<Header> {
    let (mut code, mut message_id, mut timestamp) = (0, 0, 0);
    while !rest.is_empty() {
        match read_field(&mut rest)? {
            (1, Value::Number(number)) => code = i32::try_from(number.cast_signed()).ok()?,
            (2, Value::Number(number)) => message_id = number.cast_signed(),
            (3, Value::Number(number)) => timestamp = number,
            (1..=3, Value::Bytes(_)) => return None,
            _ => {}
        }
    }
    (code != 0).then(|| Header {
        message_type: MessageType::from_code(code),
        message_id,
        timestamp: Tso(timestamp),
    })
}

enum Value<'a> {
    /// A varint; the content of fixed-width fields is not wanted by anyone and left out (0).
    Number(u64),
    Bytes(&'a [u8]),
}

/// Takes one field off the front: its number and value. `None` if there is none, or if it is malformed.
fn read_field<'a>(rest: &mut &'a [u8]) -> Option<(u64, Value<'a>)> {
    let tag = read_varint(rest)?;
    let value = match tag & 7 {
        0 => Value::Number(read_varint(rest)?),
        1 => {
            *rest = rest.get(8..)?;
            Value::Number(0)
        }
        2 => {
            let length = usize::try_from(read_varint(rest)?).ok()?;
            let (bytes, after) = rest.split_at_checked(length)?;
            *rest = after;
            Value::Bytes(bytes)
        }
        5 => {
            *rest = rest.get(4..)?;
            Value::Number(0)
        }
        _ => return None,
    };
    Some((tag >> 3, value))
}

fn read_varint(rest: &mut &[u8]) -> Option<u64> {
    let mut number = 0u64;
    for (index, &byte) in rest.iter().take(10).enumerate() {
        let low = u64::from(byte & 0x7f);
        if index == 9 && low > 1 {
            return None;
        }
        number |= low << (7 * index);
        if byte & 0x80 == 0 {
            *rest = &rest[index + 1..];
            return Some(number);
        }
    }
    None
}

/// The first bytes of a payload, for an error message.
struct Start<'a>(&'a [u8]);

impl std::fmt::Display for Start<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("starting with")?;
        for byte in self.0.iter().take(16) {
            write!(f, " {byte:02x}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use prost::Message;

    use super::*;
    use crate::milvus::proto::common::{MsgBase, MsgHeader};
    use crate::milvus::proto::msg::{InsertRequest, TimeTickMsg};

    fn base(msg_type: i32, msg_id: i64, timestamp: u64) -> MsgBase {
        MsgBase { msg_type, msg_id, timestamp, source_id: 7, ..Default::default() }
    }

    #[test]
    fn reads_a_tick() {
        let payload = TimeTickMsg { base: Some(base(1200, 5, 461_000_000_000_000_001)) }.encode_to_vec();
        let header = peek(&payload).unwrap();
        assert_eq!(header.message_type, MessageType::TimeTick);
        assert_eq!(header.message_id, 5);
        assert_eq!(header.timestamp, Tso(461_000_000_000_000_001));
    }

    #[test]
    fn looks_no_further_than_the_base() {
        let mut payload = MsgHeader { base: Some(base(401, 9, 0)) }.encode_to_vec();
        payload.extend_from_slice(&[0xff; 40]);
        assert_eq!(peek(&payload).unwrap().message_type, MessageType::Delete);
    }

    #[test]
    fn passes_over_other_fields_before_the_base_and_inside_it() {
        let mut inner = vec![0x79, 1, 2, 3, 4, 5, 6, 7, 8, 0x7d, 1, 2, 3, 4];
        inner.extend(base(400, 3, 4).encode_to_vec());
        let mut payload = vec![0x12, 2, b'a', b'b', 0x18, 0x05, 0x0a, u8::try_from(inner.len()).unwrap()];
        payload.extend(inner);
        let header = peek(&payload).unwrap();
        assert_eq!(
            (header.message_type, header.message_id, header.timestamp),
            (MessageType::Insert, 3, Tso(4))
        );
    }

    #[test]
    fn each_damaged_header_is_one_error_and_none_panics() {
        let whole = TimeTickMsg { base: Some(base(1200, -1, u64::MAX)) }.encode_to_vec();
        assert!(peek(&whole).is_ok());
        for length in 0..whole.len() {
            assert_eq!(peek(&whole[..length]).unwrap_err().kind(), Kind::Corrupt, "{length} bytes");
        }
        for payload in
            [&[][..], &[0x08, 1], &[0x0a, 0], &[0x0b], &[0x0a, 2, 0x0a, 0], &[0x80; 20], &[0x0a, 0xff, 0xff]]
        {
            assert_eq!(peek(payload).unwrap_err().kind(), Kind::Corrupt, "{payload:02x?}");
        }
    }

    #[test]
    fn the_log_of_milvus_2_6_is_named_as_such() {
        let error = peek(b"\xff\xfe\xfd\xfcSTREAM\x0a\x05hello").unwrap_err();
        assert_eq!(error.kind(), Kind::Version);
    }

    proptest! {
        #[test]
        fn agrees_with_protobuf(code in 1i32.., id: i64, timestamp: u64, rows in proptest::collection::vec(any::<i64>(), 0..20)) {
            let message = InsertRequest { base: Some(base(code, id, timestamp)), row_i_ds: rows, ..Default::default() };
            let payload = message.encode_to_vec();
            let header = peek(&payload).unwrap();
            prop_assert_eq!(header, Header {
                message_type: MessageType::from_code(code), message_id: id, timestamp: Tso(timestamp),
            });
        }

        #[test]
        fn never_panics(payload in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = peek(&payload);
        }
    }
}
