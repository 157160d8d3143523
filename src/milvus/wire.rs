//! The protobuf wire format: walking a message's fields in place, and writing headers.
//!
//! Rows are by far most of what passes through, and a generated decoder would copy each of their values. So the
//! few messages that carry rows are read and written by hand, with these.

use std::fmt;

/// Why bytes are not a protobuf message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// A value reaches beyond the end.
    Truncated,
    /// A varint is longer than 64 bits.
    Overlong,
    /// A field number or wire type that protobuf 3 does not have.
    Tag,
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Malformed::Truncated => "a value reaches beyond the end of the message",
            Malformed::Overlong => "a number is longer than 64 bits",
            Malformed::Tag => "there is an impossible field tag",
        })
    }
}

impl std::error::Error for Malformed {}

/// The value of one field as it stands on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value<'a> {
    /// Wire type 0: integers and booleans.
    Varint(u64),
    /// Wire type 1.
    Fixed64(u64),
    /// Wire type 2: strings, bytes, messages, packed numbers.
    Bytes(&'a [u8]),
    /// Wire type 5: floats.
    Fixed32(u32),
}

/// The fields of a message in the order of the wire: number and value. Ends after the first error.
#[derive(Clone, Debug)]
pub struct Fields<'a> {
    rest: &'a [u8],
}

/// Walks over the fields of `message`.
pub fn fields(message: &[u8]) -> Fields<'_> {
    Fields { rest: message }
}

impl<'a> Fields<'a> {
    /// How many bytes of the message are left.
    pub fn remaining(&self) -> usize {
        self.rest.len()
    }

    fn next_field(&mut self) -> Result<(u32, Value<'a>), Malformed> {
        let tag = self.varint()?;
        let number = u32::try_from(tag >> 3).map_err(|_| Malformed::Tag)?;
        if number == 0 {
            return Err(Malformed::Tag);
        }
        let value = match tag & 7 {
            0 => Value::Varint(self.varint()?),
            1 => Value::Fixed64(u64::from_le_bytes(self.array()?)),
            2 => {
                let length = usize::try_from(self.varint()?).map_err(|_| Malformed::Truncated)?;
                let (bytes, rest) = self.rest.split_at_checked(length).ok_or(Malformed::Truncated)?;
                self.rest = rest;
                Value::Bytes(bytes)
            }
            5 => Value::Fixed32(u32::from_le_bytes(self.array()?)),
            _ => return Err(Malformed::Tag),
        };
        Ok((number, value))
    }

    fn varint(&mut self) -> Result<u64, Malformed> {
        let (value, rest) = split_varint(self.rest)?;
        self.rest = rest;
        Ok(value)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (bytes, rest) = self.rest.split_first_chunk::<N>().ok_or(Malformed::Truncated)?;
        self.rest = rest;
        Ok(*bytes)
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u32, Value<'a>), Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let field = self.next_field();
        if field.is_err() {
            self.rest = &[];
        }
        Some(field)
    }
}

/// Reads one varint from the front of `bytes`.
#[inline]
pub fn split_varint(bytes: &[u8]) -> Result<(u64, &[u8]), Malformed> {
    if let [byte, rest @ ..] = bytes
        && *byte < 0x80
    {
        return Ok((u64::from(*byte), rest));
    }
    let mut value = 0;
    for (index, byte) in bytes.iter().take(10).enumerate() {
        let bits = u64::from(byte & 0x7f);
        if index == 9 && bits > 1 {
            return Err(Malformed::Overlong);
        }
        value |= bits << (7 * index);
        if byte & 0x80 == 0 {
            return Ok((value, &bytes[index + 1..]));
        }
    }
    Err(if bytes.len() < 10 { Malformed::Truncated } else { Malformed::Overlong })
}

/// Calls `take` with each varint of packed `bytes`.
#[inline]
pub fn for_each_varint<E: From<Malformed>>(
    mut bytes: &[u8],
    mut take: impl FnMut(u64) -> Result<(), E>,
) -> Result<(), E> {
    while !bytes.is_empty() {
        let (value, rest) = split_varint(bytes)?;
        take(value)?;
        bytes = rest;
    }
    Ok(())
}

/// How many varints packed `bytes` holds, if it is well-formed.
pub fn count_varints(bytes: &[u8]) -> usize {
    bytes.iter().filter(|byte| **byte & 0x80 == 0).count()
}

/// The number of bytes of `value` as a varint.
#[inline]
pub fn varint_len(value: u64) -> usize {
    // 7 bits a byte; zero takes a byte too.
    (70 - (value | 1).leading_zeros() as usize) / 7
}

/// Appends `value` as a varint.
#[inline]
pub fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    out.push(value.to_le_bytes()[0]);
}

/// Appends field `number` with an integer or boolean.
pub fn put_integer(out: &mut Vec<u8>, number: u32, value: u64) {
    put_varint(out, u64::from(number) << 3);
    put_varint(out, value);
}

/// Appends the header of field `number`, whose value are the `length` bytes that follow.
pub fn put_header(out: &mut Vec<u8>, number: u32, length: usize) {
    put_varint(out, u64::from(number) << 3 | 2);
    put_varint(out, length as u64);
}

/// Appends field `number` with a string, bytes or a message.
pub fn put_bytes(out: &mut Vec<u8>, number: u32, value: &[u8]) {
    put_header(out, number, value.len());
    out.extend_from_slice(value);
}

/// The number of bytes of field `number` with a value of `length` bytes.
pub fn field_len(number: u32, length: usize) -> usize {
    varint_len(u64::from(number) << 3) + varint_len(length as u64) + length
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn varints_come_back_as_written(value: u64) {
            let mut bytes = Vec::new();
            put_varint(&mut bytes, value);
            prop_assert_eq!(bytes.len(), varint_len(value));
            prop_assert_eq!(prost::length_delimiter_len(usize::try_from(value).unwrap()), bytes.len());
            prop_assert_eq!(split_varint(&bytes), Ok((value, &[][..])));
            bytes.pop();
            prop_assert_eq!(split_varint(&bytes), Err(Malformed::Truncated));
        }

        #[test]
        fn arbitrary_bytes_are_walked_or_refused(bytes: Vec<u8>) {
            let walked: Vec<_> = fields(&bytes).collect();
            prop_assert!(walked.iter().rev().skip(1).all(Result::is_ok), "only the last can be an error");
        }
    }

    #[test]
    fn fields_of_every_wire_type_are_read() {
        let mut bytes = Vec::new();
        put_integer(&mut bytes, 1, 300);
        put_bytes(&mut bytes, 2, b"abc");
        bytes.extend([0x1d, 1, 0, 0, 0, 0x21, 2, 0, 0, 0, 0, 0, 0, 0]);
        let walked: Result<Vec<_>, _> = fields(&bytes).collect();
        assert_eq!(
            walked,
            Ok(vec![
                (1, Value::Varint(300)),
                (2, Value::Bytes(b"abc")),
                (3, Value::Fixed32(1)),
                (4, Value::Fixed64(2)),
            ])
        );
        assert_eq!(field_len(2, 3), 5);
    }

    #[test]
    fn what_protobuf_does_not_have_is_refused() {
        assert_eq!(fields(&[0x00, 0x00]).next(), Some(Err(Malformed::Tag)), "field 0");
        assert_eq!(fields(&[0x0b]).next(), Some(Err(Malformed::Tag)), "a group");
        assert_eq!(fields(&[0x0a, 2, 0]).next(), Some(Err(Malformed::Truncated)));
        assert_eq!(split_varint(&[0xff; 11]), Err(Malformed::Overlong));
        assert_eq!(
            split_varint(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2]),
            Err(Malformed::Overlong)
        );
    }
}
