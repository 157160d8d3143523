//! A decoded message of the log: rows as Arrow columns, or the keys of a delete.

use std::sync::Arc;

use arrow_array::{Array, ArrayRef, RecordBatch};
use bytes::Bytes;

use super::catalog::{CollectionId, PartitionId};
use super::channel::VChannel;
use super::tso::Tso;
use crate::dataflow::credits::Credit;

/// One insert or delete message of one vchannel. All its rows have one timestamp.
#[derive(Clone, Debug)]
pub struct Change {
    /// The time of its rows.
    pub ts: Tso,
    /// Its number in the order in which its pchannel was read.
    pub sequence: u64,
    /// Milvus' id of the message, 0 if it has none; a second message of this id is a duplicate.
    pub message_id: i64,
    /// The first of its rows within the message, for a message that was split because its rows differ in time.
    pub part: usize,
    /// The shard.
    pub vchannel: VChannel,
    /// The collection.
    pub collection: CollectionId,
    /// The partition; a delete may name [`PartitionId::ALL`].
    pub partition: PartitionId,
    /// What changes.
    pub body: Body,
    /// The bytes of the budget that it holds until it is applied or dropped.
    pub credit: Arc<Credit>,
}

impl Change {
    /// How many rows it brings or keys it takes.
    pub fn row_count(&self) -> usize {
        match &self.body {
            Body::Insert(rows) => rows.num_rows(),
            Body::Delete(keys) => keys.len(),
            Body::Message(message) => message.rows,
        }
    }
}

/// What a [`Change`] does.
#[derive(Clone, Debug)]
pub enum Body {
    /// Rows come in: a column per field, see [`super::columns`] for the layout. The key is among them, also a
    /// generated one.
    Insert(RecordBatch),
    /// Rows with these keys go: an `Int64Array` or a `StringViewArray`.
    Delete(ArrayRef),
    /// The message as it stands in the log, for a standby. Its `ts` is the latest of its rows'.
    Message(Message),
}

/// An encoded `msg.InsertRequest` or `msg.DeleteRequest`.
#[derive(Clone, Debug)]
pub struct Message {
    /// Which of the two.
    pub is_insert: bool,
    /// Number of rows or keys.
    pub rows: usize,
    /// Its bytes.
    pub payload: Bytes,
}
