//! Bytes in pieces: a request is some headers between slices of Arrow buffers that are not copied.

use arrow_buffer::Buffer;
use bytes::Bytes;

use crate::milvus::wire::{put_bytes, put_header, put_integer};

/// An encoded message, or a part of one, in pieces.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rope {
    pieces: Vec<Bytes>,
    /// Small writes since the last piece.
    open: Vec<u8>,
    len: usize,
}

/// Slices shorter than this are copied: a piece of its own costs more.
const COPIED: usize = 512;

impl Rope {
    /// The number of bytes.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The pieces in order.
    pub(crate) fn into_pieces(mut self) -> Vec<Bytes> {
        self.close();
        self.pieces
    }

    /// Field `number` with an integer or boolean.
    pub(crate) fn integer(&mut self, number: u32, value: u64) {
        self.write(|open| put_integer(open, number, value));
    }

    /// Field `number` with a string or bytes, copied.
    pub(crate) fn bytes(&mut self, number: u32, value: &[u8]) {
        self.write(|open| put_bytes(open, number, value));
    }

    /// Field `number` with the message or packed numbers that `inner` is.
    pub(crate) fn nest(&mut self, number: u32, mut inner: Rope) {
        self.write(|open| put_header(open, number, inner.len));
        if inner.pieces.is_empty() {
            self.raw(inner.open);
            return;
        }
        self.close();
        inner.close();
        self.len += inner.len;
        self.pieces.append(&mut inner.pieces);
    }

    /// The bytes of `buffer`, without a copy unless they are few.
    pub(crate) fn buffer(&mut self, buffer: &Buffer) {
        if buffer.len() < COPIED {
            self.write(|open| open.extend_from_slice(buffer));
        } else {
            self.close();
            self.len += buffer.len();
            self.pieces.push(Bytes::from(buffer.clone()));
        }
    }

    /// `bytes`, without a copy unless they are few.
    pub(crate) fn shared(&mut self, bytes: Bytes) {
        if bytes.len() < COPIED {
            self.write(|open| open.extend_from_slice(&bytes));
        } else {
            self.close();
            self.len += bytes.len();
            self.pieces.push(bytes);
        }
    }

    /// `bytes` as they are.
    pub(crate) fn raw(&mut self, bytes: Vec<u8>) {
        if bytes.len() < COPIED {
            self.write(|open| open.extend_from_slice(&bytes));
        } else {
            self.close();
            self.len += bytes.len();
            self.pieces.push(Bytes::from(bytes));
        }
    }

    /// A rope of exactly the bytes that `fill` writes, with room for `capacity` bytes from the start.
    pub(crate) fn filled(capacity: usize, fill: impl FnOnce(&mut Vec<u8>)) -> Rope {
        let mut open = Vec::with_capacity(capacity);
        fill(&mut open);
        Rope { len: open.len(), open, pieces: Vec::new() }
    }

    fn write(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        let before = self.open.len();
        write(&mut self.open);
        self.len += self.open.len() - before;
    }

    fn close(&mut self) {
        if !self.open.is_empty() {
            self.pieces.push(Bytes::from(std::mem::take(&mut self.open)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::milvus::wire::put_varint;

    #[test]
    fn pieces_join_to_the_bytes_of_a_message() {
        let large = vec![7u8; 2 * COPIED];
        let mut inner = Rope::default();
        inner.integer(1, 300);
        inner.buffer(&Buffer::from(large.as_slice()));
        let mut outer = Rope::default();
        outer.bytes(2, b"ab");
        outer.nest(3, inner);
        outer.nest(4, Rope::filled(0, |open| open.extend([1, 2])));

        let mut expected = vec![0x12, 2, b'a', b'b', 0x1a];
        put_varint(&mut expected, 3 + large.len() as u64);
        expected.extend([0x08, 0xac, 0x02]);
        expected.extend(&large);
        expected.extend([0x22, 2, 1, 2]);
        assert_eq!(outer.len(), expected.len());
        assert_eq!(outer.into_pieces().concat(), expected);
    }

    #[test]
    fn large_buffers_are_not_copied() {
        let buffer = Buffer::from(vec![1u8; COPIED]);
        let mut rope = Rope::default();
        rope.integer(1, 1);
        rope.buffer(&buffer);
        let pieces = rope.into_pieces();
        assert_eq!(pieces[1].as_ptr(), buffer.as_ptr());
    }
}
