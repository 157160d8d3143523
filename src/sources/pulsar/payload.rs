//! From an entry to its messages: decompression, and the taking apart of batches.

use bytes::Bytes;
use pulsar::proto::CompressionType;

use super::id::{Entry, MessageId};
use super::inbox::Frame;
use crate::error::{Error, Kind, Result};
use crate::milvus::wire::{self, Value};

/// More than any entry unpacks to: Milvus' messages have some MiB, and a broker takes 5 MiB unless told otherwise.
const UNPACKED_LIMIT: u32 = 256 << 20;

/// Takes `frame`, which stands at `place`, apart into its messages.
///
/// Error: `Corrupt`.
pub(super) fn unpack(place: Entry, frame: Frame) -> Result<Vec<(MessageId, Bytes)>> {
    let partition = frame.id.partition.unwrap_or(-1);
    let Some(count) = frame.batch else {
        let id = MessageId { place, partition, batch: frame.id.batch_index.unwrap_or(-1) };
        return Ok(vec![(id, decompress(frame)?)]);
    };
    let mut rest = decompress(frame)?;
    // The count is not to be believed before the messages are there.
    let mut messages = Vec::new();
    for batch in 0..count {
        let Some(message) = split(&mut rest) else {
            return Err(corrupt(format!("ends within message {batch} of a batch of {count}")));
        };
        messages.push((MessageId { place, partition, batch }, message));
    }
    Ok(messages)
}

/// Takes one message off a batch: the length of its metadata in four bytes, big-endian; the metadata
/// (`SingleMessageMetadata`, whose field 3 is the length of the payload); the payload.
fn split(rest: &mut Bytes) -> Option<Bytes> {
    let take = |rest: &mut Bytes, length: usize| (length <= rest.len()).then(|| rest.split_to(length));
    let length = take(rest, 4)?;
    let length = u32::from_be_bytes(length.as_ref().try_into().ok()?);
    let metadata = take(rest, usize::try_from(length).ok()?)?;
    let mut size = None;
    for field in wire::fields(&metadata) {
        if let (3, Value::Varint(number)) = field.ok()? {
            size = Some(number);
        }
    }
    take(rest, usize::try_from(size?).ok()?)
}

fn decompress(frame: Frame) -> Result<Bytes> {
    match CompressionType::try_from(frame.compression) {
        Ok(CompressionType::None) => Ok(frame.payload.into()),
        // Milvus' own choice for Pulsar (`pulsar.ZSTD` in its client).
        Ok(CompressionType::Zstd) => {
            if frame.uncompressed > UNPACKED_LIMIT {
                return Err(corrupt(format!("claims to unpack to {} bytes", frame.uncompressed)));
            }
            let capacity = usize::try_from(frame.uncompressed).unwrap_or(0);
            zstd::bulk::decompress(&frame.payload, capacity)
                .map(Bytes::from)
                .map_err(|error| corrupt("can't be decompressed with zstd").caused_by(error))
        }
        Ok(other) => {
            Err(corrupt(format!("is compressed with {}, which Milvus does not use", other.as_str_name())))
        }
        Err(_) => Err(corrupt(format!("is compressed in an unknown way ({})", frame.compression))),
    }
}

fn corrupt(message: impl Into<String>) -> Error {
    Error::new(Kind::Corrupt, message)
        .hint("the topic was written to by something other than Milvus, or its bytes were damaged")
}

#[cfg(test)]
mod tests {
    use pulsar::proto::MessageIdData;

    use super::*;

    const PLACE: Entry = Entry { ledger: 3, entry: 4 };

    fn frame(payload: Vec<u8>, batch: Option<i32>) -> Frame {
        let uncompressed = u32::try_from(payload.len()).unwrap();
        Frame { id: MessageIdData::default(), published: 0, compression: 0, uncompressed, batch, payload }
    }

    fn batch(messages: &[&[u8]]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for message in messages {
            let mut metadata = Vec::new();
            wire::put_bytes(&mut metadata, 1, b"a property");
            wire::put_integer(&mut metadata, 3, message.len() as u64);
            bytes.extend(u32::try_from(metadata.len()).unwrap().to_be_bytes());
            bytes.extend(metadata);
            bytes.extend(*message);
        }
        bytes
    }

    #[test]
    fn a_batch_comes_apart_and_each_message_has_its_place() {
        let unpacked = unpack(PLACE, frame(batch(&[b"one", b"", b"three"]), Some(3))).unwrap();
        let texts: Vec<&[u8]> = unpacked.iter().map(|(_, bytes)| bytes.as_ref()).collect();
        assert_eq!(texts, [&b"one"[..], b"", b"three"]);
        let ids: Vec<String> = unpacked.iter().map(|(id, _)| id.to_string()).collect();
        assert_eq!(ids, ["3:4:0", "3:4:1", "3:4:2"]);
    }

    #[test]
    fn a_single_message_is_taken_as_it_is() {
        let unpacked = unpack(PLACE, frame(b"bytes".to_vec(), None)).unwrap();
        assert_eq!(
            (unpacked.len(), unpacked[0].0.to_string(), &*unpacked[0].1),
            (1, "3:4".into(), &b"bytes"[..])
        );
    }

    #[test]
    fn zstd_is_undone_for_batches_too() {
        let mut packed = frame(batch(&[b"one", b"two"]), Some(2));
        packed.payload = zstd::bulk::compress(&packed.payload, 1).unwrap();
        packed.compression = CompressionType::Zstd as i32;
        assert_eq!(&*unpack(PLACE, packed).unwrap()[1].1, b"two");
    }

    #[test]
    fn what_can_not_be_unpacked_is_refused() {
        let refused = |frame: Frame| unpack(PLACE, frame).unwrap_err().message().to_owned();
        assert!(refused(frame(batch(&[b"one"]), Some(2))).contains("message 1 of a batch of 2"));
        assert!(refused(frame(vec![0xff; 9], Some(i32::MAX))).contains("message 0"));
        let packed =
            |compression, uncompressed| Frame { compression, uncompressed, ..frame(vec![1; 9], None) };
        assert!(refused(packed(3, 9)).contains("zstd"));
        assert!(refused(packed(3, u32::MAX)).contains("claims to unpack"));
        assert!(refused(packed(1, 9)).contains("LZ4"));
        assert!(refused(packed(77, 9)).contains("unknown way"));
    }
}
