//! Names of channels and positions in them.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// A physical channel: a topic of the message queue, e.g. `by-dev-rootcoord-dml_3`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PChannel(pub Arc<str>);

/// A virtual channel: one shard of one collection, `<pchannel>_<collectionID>v<shard>`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct VChannel(pub Arc<str>);

impl VChannel {
    /// Whether the name has the shape of one: `<pchannel>_<collection id>v<shard>`.
    pub fn is_well_formed(&self) -> bool {
        self.collection_id().is_some()
    }

    /// The id of its collection; `None` if the name is not well-formed.
    pub fn collection_id(&self) -> Option<i64> {
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let (pchannel, tail) = self.0.rsplit_once('_')?;
        let (id, shard) = tail.split_once('v')?;
        (!pchannel.is_empty() && digits(id) && digits(shard)).then(|| id.parse().ok()).flatten()
    }

    /// The physical channel that carries this one: all up to the last underscore
    /// (Milvus `funcutil.ToPhysicalChannel`).
    pub fn pchannel(&self) -> PChannel {
        let name = self.0.rsplit_once('_').map_or(&*self.0, |(pchannel, _)| pchannel);
        PChannel(name.into())
    }
}

impl fmt::Display for PChannel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for VChannel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A message's place in its topic, in Milvus' own encoding of the queue's message id: RocksMQ and Kafka 8 bytes
/// little-endian, Pulsar a protobuf `MessageIdData`. Only the queue's source looks inside.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Position(pub Vec<u8>);

impl fmt::Debug for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match <[u8; 8]>::try_from(self.0.as_slice()) {
            Ok(bytes) => write!(f, "{}", i64::from_le_bytes(bytes)),
            Err(_) => write!(f, "{:02x?}", self.0),
        }
    }
}
