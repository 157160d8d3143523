//! What goes over a connection: frames of commands, and of commands with a message.
//!
//! ```text
//!  total size  command size  command   [ magic 0e01  checksum  metadata size  metadata  payload ]
//!  4 bytes     4 bytes                 [ 2 bytes     4 bytes   4 bytes                          ]
//! ```
//! Commands are left to the `pulsar` crate. Messages are not: its check of the CRC, byte by byte, would be half of all the
//! work of reading.

use bytes::BytesMut;
use crc::{CRC_32_ISCSI, Crc, Table};
use pulsar::error::ConnectionError;
use pulsar::message::{Codec, Message};
use pulsar::proto::{BaseCommand, MessageIdData};
use tokio_util::codec::{Decoder, Encoder};

use super::inbox::Frame;
use crate::milvus::wire::{self, Value};

/// Sixteen bytes at a time.
static CRC: Crc<u32, Table<16>> = Crc::<u32, Table<16>>::new(&CRC_32_ISCSI);
const MAGIC_CHECKSUM: [u8; 2] = [0x0e, 0x01];
/// No broker takes messages of that size: what claims to be larger is something else, perhaps HTTP.
const LARGEST: usize = 512 << 20;

/// What a broker says.
pub(super) enum Received {
    Command(Box<BaseCommand>),
    /// An entry for a consumer.
    Entry(u64, Frame),
}

/// Reads and writes frames.
pub(super) struct Frames;

impl Encoder<BaseCommand> for Frames {
    type Error = ConnectionError;

    fn encode(&mut self, command: BaseCommand, out: &mut BytesMut) -> Result<(), ConnectionError> {
        Encoder::encode(&mut Codec, Message { command, payload: None }, out)
    }
}

impl Decoder for Frames {
    type Item = Received;
    type Error = ConnectionError;

    fn decode(&mut self, bytes: &mut BytesMut) -> Result<Option<Received>, ConnectionError> {
        let Some(size) = bytes.first_chunk::<4>() else { return Ok(None) };
        let size = number(*size);
        if size > LARGEST {
            return Err(malformed("what answers does not speak Pulsar's protocol"));
        }
        if bytes.len() < size + 4 {
            bytes.reserve(size + 4 - bytes.len());
            return Ok(None);
        }
        let frame = bytes.split_to(size + 4);
        let rest = frame.get(4..).unwrap_or_default();
        let Some((command, rest)) = split_sized(rest) else {
            return Err(malformed("a command reaches beyond its frame"));
        };
        let mut command = read_command(command)?;
        match command.message.take() {
            None => Ok(Some(Received::Command(Box::new(command)))),
            Some(message) => {
                let frame = read_message(message.message_id, rest)?;
                Ok(Some(Received::Entry(message.consumer_id, frame)))
            }
        }
    }
}

/// Decodes a command, by way of a frame that has nothing else in it.
fn read_command(command: &[u8]) -> Result<BaseCommand, ConnectionError> {
    let size = u32::try_from(command.len()).map_err(|_| malformed("a command is too large"))?;
    let mut frame = BytesMut::with_capacity(command.len() + 8);
    frame.extend_from_slice(&(size + 4).to_be_bytes());
    frame.extend_from_slice(&size.to_be_bytes());
    frame.extend_from_slice(command);
    match Decoder::decode(&mut Codec, &mut frame)? {
        Some(message) => Ok(message.command),
        None => Err(malformed("a command is incomplete")),
    }
}

fn read_message(id: MessageIdData, mut rest: &[u8]) -> Result<Frame, ConnectionError> {
    // A checksum is what producers may leave out.
    if let Some(summed) = rest.strip_prefix(&MAGIC_CHECKSUM) {
        let Some((sum, summed)) = summed.split_first_chunk::<4>() else {
            return Err(malformed("a message ends within its checksum"));
        };
        if CRC.checksum(summed) != u32::from_be_bytes(*sum) {
            return Err(malformed("the checksum of a message does not fit: it was damaged on its way"));
        }
        rest = summed;
    }
    let Some((metadata, payload)) = split_sized(rest) else {
        return Err(malformed("the metadata of a message reaches beyond its frame"));
    };
    let mut frame =
        Frame { id, published: 0, compression: 0, uncompressed: 0, batch: None, payload: payload.to_vec() };
    for field in wire::fields(metadata) {
        let field = field.map_err(|error| malformed(&format!("the metadata of a message: {error}")))?;
        let (number, Value::Varint(value)) = field else { continue };
        let fits = || malformed("a number in the metadata of a message is too large");
        // The numbers of `MessageMetadata` in `PulsarApi.proto`.
        match number {
            3 => frame.published = value,
            8 => frame.compression = i32::try_from(value).map_err(|_| fits())?,
            9 => frame.uncompressed = u32::try_from(value).map_err(|_| fits())?,
            11 => frame.batch = Some(i32::try_from(value).map_err(|_| fits())?),
            _ => {}
        }
    }
    Ok(frame)
}

/// Takes a part off whose size stands before it.
fn split_sized(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (size, rest) = bytes.split_first_chunk::<4>()?;
    rest.split_at_checked(number(*size))
}

fn number(bytes: [u8; 4]) -> usize {
    usize::try_from(u32::from_be_bytes(bytes)).unwrap_or(usize::MAX)
}

fn malformed(message: &str) -> ConnectionError {
    ConnectionError::Decoding(message.to_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use pulsar::Payload;
    use pulsar::message::Metadata;
    use pulsar::proto::CommandMessage;
    use pulsar::proto::base_command::Type;

    use super::*;

    /// As a broker sends it.
    fn entry(payload: &[u8]) -> BytesMut {
        let id = MessageIdData { ledger_id: 3, entry_id: 4, ..MessageIdData::default() };
        let message = CommandMessage { consumer_id: 7, message_id: id, ..CommandMessage::default() };
        let command =
            BaseCommand { r#type: Type::Message.into(), message: Some(message), ..BaseCommand::default() };
        let metadata = Metadata {
            producer_name: "p".to_owned(),
            sequence_id: 1,
            publish_time: 1234,
            compression: Some(3),
            uncompressed_size: Some(99),
            num_messages_in_batch: Some(2),
            ..Metadata::default()
        };
        let payload = Some(Payload { metadata, data: payload.to_vec() });
        let mut bytes = BytesMut::new();
        Encoder::encode(&mut Codec, Message { command, payload }, &mut bytes).unwrap();
        bytes
    }

    fn decode(bytes: &[u8]) -> Result<Option<Received>, String> {
        Frames.decode(&mut BytesMut::from(bytes)).map_err(|error| error.to_string())
    }

    #[test]
    fn an_entry_is_read_as_the_crate_writes_it() {
        let bytes = entry(b"some bytes");
        let Ok(Some(Received::Entry(7, frame))) = decode(&bytes) else { panic!() };
        assert_eq!((frame.id.ledger_id, frame.id.entry_id, frame.published), (3, 4, 1234));
        assert_eq!((frame.compression, frame.uncompressed, frame.batch), (3, 99, Some(2)));
        assert_eq!(frame.payload, b"some bytes");
        for end in 0..bytes.len() {
            assert!(matches!(decode(&bytes[..end]), Ok(None)), "incomplete at {end}");
        }
    }

    #[test]
    fn several_frames_follow_each_other() {
        let mut bytes = entry(b"one");
        bytes.extend_from_slice(&entry(b""));
        let mut read = || match Frames.decode(&mut bytes) {
            Ok(Some(Received::Entry(_, frame))) => Some(frame.payload),
            _ => None,
        };
        assert_eq!((read(), read(), read()), (Some(b"one".to_vec()), Some(Vec::new()), None));
    }

    #[test]
    fn damage_is_noticed_and_other_protocols_are_refused() {
        let good = entry(b"some bytes");
        let mut bytes = good.clone();
        *bytes.last_mut().unwrap() ^= 1;
        assert!(decode(&bytes).err().unwrap().contains("checksum"));
        assert!(decode(b"HTTP/1.1 400 Bad Request\r\n").err().unwrap().contains("does not speak"));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_are_read_or_refused(mut bytes: Vec<u8>, flip in 0_usize..60, with: u8) {
            drop(decode(&bytes));
            bytes.splice(0..bytes.len().min(4), [0, 0, 0, 20]);
            drop(decode(&bytes));
            let mut entry = entry(b"some bytes");
            let at = flip % entry.len();
            entry[at] = with;
            drop(decode(&entry));
        }
    }
}
