//! A place in the log as Milvus hands it out: where, and up to when everything lies before it.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use prost::Message;

use super::channel::{Position, VChannel};
use super::proto::msg;
use super::tso::Tso;

/// Milvus' `msgpb.MsgPosition` of one vchannel: everything of it with a ts > `time` is at `position` or after it.
/// (It points at the first message that was not yet released to Milvus' own consumers, or at their last tick.)
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MsgPosition {
    /// The message, inclusive.
    pub position: Position,
    /// Rows up to this are not wanted any more.
    pub time: Tso,
}

impl MsgPosition {
    /// Reads the base64 form for `vchannel` (protobuf inside), which milvus-cdc takes and prints and milvus-backup
    /// keeps. The error is the rest of a sentence that begins with the channel.
    pub fn from_base64(vchannel: &VChannel, text: &str) -> Result<MsgPosition, String> {
        if !vchannel.is_well_formed() {
            return Err("is no vchannel: their names end with _<collection id>v<shard>".to_owned());
        }
        let bytes = STANDARD.decode(text.trim()).map_err(|error| format!("is not base64: {error}"))?;
        let read = msg::MsgPosition::decode(bytes.as_slice())
            .map_err(|error| format!("is base64, but no position inside: {error}"))?;
        let named = read.channel_name.as_str();
        if !named.is_empty() && named != &*vchannel.0 && named != &*vchannel.pchannel().0 {
            return Err(format!("has the position of another channel, {named}"));
        }
        if read.msg_id.is_empty() {
            return Err("has a position without a message id".to_owned());
        }
        Ok(MsgPosition { position: Position(read.msg_id), time: Tso(read.timestamp) })
    }

    /// The same form of this position of `vchannel`.
    pub fn to_base64(&self, vchannel: &VChannel) -> String {
        let message = msg::MsgPosition {
            channel_name: vchannel.pchannel().to_string(),
            msg_id: self.position.0.clone(),
            msg_group: String::new(),
            timestamp: self.time.0,
        };
        STANDARD.encode(message.encode_to_vec())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn channel() -> VChannel {
        VChannel("by-dev-rootcoord-dml_3_4455v1".into())
    }

    fn encoded(channel: &str, id: &[u8]) -> String {
        let message = msg::MsgPosition {
            channel_name: channel.to_owned(),
            msg_id: id.to_vec(),
            msg_group: "group".to_owned(),
            timestamp: 77,
        };
        STANDARD.encode(message.encode_to_vec())
    }

    #[test]
    fn a_position_is_read_under_the_names_that_tools_give_it() {
        let wanted = Ok(MsgPosition { position: Position(vec![5, 0, 0, 0, 0, 0, 0, 0]), time: Tso(77) });
        for name in ["by-dev-rootcoord-dml_3_4455v1", "by-dev-rootcoord-dml_3", ""] {
            let text = encoded(name, &5_u64.to_le_bytes());
            assert_eq!(MsgPosition::from_base64(&channel(), &text), wanted, "{name}");
        }
    }

    #[test]
    fn a_position_is_read_as_it_was_written() {
        let position = MsgPosition { position: Position(vec![7; 8]), time: Tso(470_658_020_989_730_819) };
        assert_eq!(MsgPosition::from_base64(&channel(), &position.to_base64(&channel())), Ok(position));
    }

    #[test]
    fn what_is_no_position_of_the_channel_is_refused() {
        let refused = |text: &str| MsgPosition::from_base64(&channel(), text).unwrap_err();
        assert!(refused("%%").starts_with("is not base64"));
        assert!(refused("CP8=").starts_with("is base64, but no position inside"), "{}", refused("CP8="));
        let other = encoded("by-dev-rootcoord-dml_4", &[1]);
        assert_eq!(refused(&other), "has the position of another channel, by-dev-rootcoord-dml_4");
        assert_eq!(refused(&encoded("", &[])), "has a position without a message id");
        let no_vchannel = MsgPosition::from_base64(&VChannel("by-dev-rootcoord-dml_3".into()), "");
        assert!(no_vchannel.unwrap_err().starts_with("is no vchannel"));
    }
}
