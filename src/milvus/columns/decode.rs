//! From an encoded `msg.InsertRequest` or `msg.DeleteRequest` to columns.

use std::collections::HashMap;
use std::fmt::Display;
use std::sync::Arc;

use arrow_array::{ArrayRef, Int64Array, RecordBatch, RecordBatchOptions};
use arrow_schema::SchemaRef;
use bytes::Bytes;

use super::values::{Column, Payload, corrupt, int64, long_integers, texts, views};
use super::{Layout, schema_of};
use crate::error::{Error, Result};
use crate::milvus::catalog::{CollectionId, PartitionId};
use crate::milvus::channel::VChannel;
use crate::milvus::tso::Tso;
use crate::milvus::wire::{Value, count_varints, fields, for_each_varint};

/// An insert message: rows of one partition and one shard.
#[derive(Clone, Debug)]
pub struct Insert {
    /// Milvus' id of the message (`base.msgID`), 0 if it has none.
    pub message_id: i64,
    /// The shard.
    pub vchannel: VChannel,
    /// The collection.
    pub collection: CollectionId,
    /// The partition.
    pub partition: PartitionId,
    /// The partition's name as the writer knew it.
    pub partition_name: Arc<str>,
    /// When the rows were written. `base.timestamp` is not that: it is 0 on some messages.
    pub timestamps: Timestamps,
    /// The rows.
    pub batch: RecordBatch,
}

/// A delete message: keys of one shard.
#[derive(Clone, Debug)]
pub struct Delete {
    /// Milvus' id of the message (`base.msgID`), 0 if it has none.
    pub message_id: i64,
    /// The shard.
    pub vchannel: VChannel,
    /// The collection.
    pub collection: CollectionId,
    /// The partition, or [`PartitionId::ALL`].
    pub partition: PartitionId,
    /// The partition's name as the writer knew it; empty for all.
    pub partition_name: Arc<str>,
    /// When the keys were deleted.
    pub timestamps: Timestamps,
    /// The keys: an `Int64Array` or a `StringViewArray`. May be empty.
    pub keys: ArrayRef,
}

/// What a message says of itself, without its columns.
#[derive(Clone, Debug)]
pub struct Label {
    /// Milvus' id of the message (`base.msgID`), 0 if it has none.
    pub message_id: i64,
    /// The shard.
    pub vchannel: VChannel,
    /// The collection.
    pub collection: CollectionId,
    /// The partition, or [`PartitionId::ALL`].
    pub partition: PartitionId,
    /// When its rows were written or deleted.
    pub timestamps: Timestamps,
    /// Number of rows or keys.
    pub rows: usize,
}

/// The times of a message's rows. Milvus 2.3 to 2.5 gives all rows of a message one time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Timestamps {
    /// One time for all rows (zero for no rows).
    Same(Tso),
    /// A time for each row.
    Each(Vec<Tso>),
}

impl Timestamps {
    /// The latest of them.
    pub fn max(&self) -> Tso {
        match self {
            Timestamps::Same(ts) => *ts,
            Timestamps::Each(all) => all.iter().copied().max().unwrap_or_default(),
        }
    }
}

/// Decodes messages. Remembers names and schemas, so that these are not built anew for every message.
#[derive(Debug, Default)]
pub struct Decoder {
    vchannels: HashMap<Vec<u8>, VChannel>,
    partitions: HashMap<Vec<u8>, Arc<str>>,
    schemas: HashMap<CollectionId, Vec<Known>>,
}

/// A schema with what it was made of.
#[derive(Debug)]
struct Known {
    layouts: Vec<Layout>,
    schema: SchemaRef,
}

/// The most names or collections that are remembered, so that years of dropped collections don't pile up.
const REMEMBERED: usize = 4096;
/// The most schemas that are remembered of one collection.
const REMEMBERED_SCHEMAS: usize = 8;

/// The fields that insert and delete messages have in common.
#[derive(Default)]
struct Header<'a> {
    message_id: i64,
    vchannel: &'a [u8],
    partition_name: &'a [u8],
    collection: i64,
    partition: i64,
}

impl Decoder {
    /// A decoder that remembers nothing yet.
    pub fn new() -> Decoder {
        Decoder::default()
    }

    /// Decodes a `msg.InsertRequest`. Text and vectors of the result are views of `payload`.
    ///
    /// # Errors
    /// `Corrupt`, naming shard and field.
    pub fn insert(&mut self, payload: &Bytes) -> Result<Insert> {
        let mut header = Header::default();
        self.read_insert(payload, &mut header).map_err(|error| error.context(header.place("insert")))
    }

    fn read_insert<'a>(&mut self, bytes: &'a Bytes, header: &mut Header<'a>) -> Result<Insert> {
        let payload = Payload::new(bytes)?;
        let mut timestamps = Numbers::default();
        let mut columns = Vec::new();
        let mut row_count = None;
        for field in fields(payload.bytes()) {
            match field? {
                (10, value) => timestamps.push(value)?,
                (12, _) => return Err(corrupt("its rows are not in columns (Milvus before 2.0)")),
                (13, Value::Bytes(message)) => columns.push(message),
                (14, Value::Varint(count)) => row_count = Some(count),
                (number, value) => header.read(number, value)?,
            }
        }
        let count = timestamps.count();
        if row_count.unwrap_or(0) != count as u64 {
            return Err(corrupt(format!("{count} timestamps for {} rows", row_count.unwrap_or(0))));
        }
        // No row is shorter than its timestamp, so `count` can't ask for more memory than a few times the payload.
        let mut names = Vec::with_capacity(columns.len());
        let mut layouts = Vec::with_capacity(columns.len());
        let mut arrays = Vec::with_capacity(columns.len());
        for message in columns {
            let column = Column::read(message)?;
            let (layout, array) = column
                .decode(&payload, count)
                .map_err(|error| error.context(format!("field `{}` ({})", column.name, column.field_id)))?;
            names.push(column.name);
            layouts.push(layout);
            arrays.push(array);
        }
        let collection = CollectionId(header.collection);
        let schema = self.schema(collection, &names, layouts);
        let options = RecordBatchOptions::new().with_row_count(Some(count));
        let batch = RecordBatch::try_new_with_options(schema, arrays, &options)
            .map_err(|error| corrupt("its columns don't fit together").caused_by(error))?;
        Ok(Insert {
            message_id: header.message_id,
            vchannel: self.vchannel(header.vchannel)?,
            collection,
            partition: PartitionId(header.partition),
            partition_name: self.partition_name(header.partition_name)?,
            timestamps: timestamps.into_timestamps()?,
            batch,
        })
    }

    /// Decodes a `msg.DeleteRequest`. Text keys of the result are views of `payload`.
    ///
    /// # Errors
    /// `Corrupt`, naming the shard; also for a delete by predicate (Milvus 3), which only the source can resolve.
    pub fn delete(&mut self, payload: &Bytes) -> Result<Delete> {
        let mut header = Header::default();
        self.read_delete(payload, &mut header).map_err(|error| error.context(header.place("delete")))
    }

    fn read_delete<'a>(&mut self, bytes: &'a Bytes, header: &mut Header<'a>) -> Result<Delete> {
        let payload = Payload::new(bytes)?;
        let mut timestamps = Numbers::default();
        let mut old_keys = Numbers::default();
        let mut integers = Vec::new();
        let mut strings = Vec::new();
        for field in fields(payload.bytes()) {
            match field? {
                (9, value) => old_keys.push(value)?,
                (10, value) => timestamps.push(value)?,
                (12, Value::Bytes(ids)) => {
                    for field in fields(ids) {
                        match field? {
                            (1, Value::Bytes(part)) => integers.push(part),
                            (2, Value::Bytes(part)) => strings.push(part),
                            _ => {}
                        }
                    }
                }
                (14, _) => {
                    return Err(corrupt(
                        "it names its rows by a predicate, which can't be resolved from the log",
                    ));
                }
                (number, value) => header.read(number, value)?,
            }
        }
        let count = timestamps.count();
        let keys: ArrayRef = match (integers.is_empty(), strings.is_empty()) {
            (false, false) => return Err(corrupt("it has both integer and text keys")),
            (true, false) => texts(&payload, views(&payload, &strings, count)?, None)?,
            (false, true) => Arc::new(Int64Array::from(long_integers(&integers, count)?)),
            (true, true) => {
                let mut keys = Vec::with_capacity(old_keys.count());
                old_keys.for_each(|key| keys.push(int64(key)))?;
                Arc::new(Int64Array::from(keys))
            }
        };
        if keys.len() != count {
            return Err(corrupt(format!("{count} timestamps for {} keys", keys.len())));
        }
        Ok(Delete {
            message_id: header.message_id,
            vchannel: self.vchannel(header.vchannel)?,
            collection: CollectionId(header.collection),
            partition: PartitionId(header.partition),
            partition_name: self.partition_name(header.partition_name)?,
            timestamps: timestamps.into_timestamps()?,
            keys,
        })
    }

    /// Reads what a `msg.InsertRequest` or `msg.DeleteRequest` says of itself, and nothing of its columns.
    ///
    /// # Errors
    /// `Corrupt`, naming the shard.
    pub fn label(&mut self, payload: &Bytes) -> Result<Label> {
        let mut header = Header::default();
        self.read_label(payload, &mut header).map_err(|error| error.context(header.place("a")))
    }

    fn read_label<'a>(&mut self, payload: &'a Bytes, header: &mut Header<'a>) -> Result<Label> {
        let mut timestamps = Numbers::default();
        for field in fields(payload) {
            match field? {
                (10, value) => timestamps.push(value)?,
                (number, value) => header.read(number, value)?,
            }
        }
        let rows = timestamps.count();
        Ok(Label {
            message_id: header.message_id,
            vchannel: self.vchannel(header.vchannel)?,
            collection: CollectionId(header.collection),
            partition: PartitionId(header.partition),
            timestamps: timestamps.into_timestamps()?,
            rows,
        })
    }

    fn vchannel(&mut self, name: &[u8]) -> Result<VChannel> {
        if let Some(known) = self.vchannels.get(name) {
            return Ok(known.clone());
        }
        let vchannel = VChannel(utf8(name, "shard name")?.into());
        limit(&mut self.vchannels);
        self.vchannels.insert(name.to_owned(), vchannel.clone());
        Ok(vchannel)
    }

    fn partition_name(&mut self, name: &[u8]) -> Result<Arc<str>> {
        if let Some(known) = self.partitions.get(name) {
            return Ok(Arc::clone(known));
        }
        let partition: Arc<str> = utf8(name, "partition name")?.into();
        limit(&mut self.partitions);
        self.partitions.insert(name.to_owned(), Arc::clone(&partition));
        Ok(partition)
    }

    fn schema(&mut self, collection: CollectionId, names: &[&str], layouts: Vec<Layout>) -> SchemaRef {
        if !self.schemas.contains_key(&collection) {
            limit(&mut self.schemas);
        }
        let known = self.schemas.entry(collection).or_default();
        let found = known.iter().find(|known| {
            known.layouts == layouts
                && known.schema.fields().iter().map(|field| field.name()).eq(names.iter().copied())
        });
        if let Some(found) = found {
            return Arc::clone(&found.schema);
        }
        let schema = schema_of(names.iter().copied().zip(layouts.iter().copied()));
        known.truncate(REMEMBERED_SCHEMAS - 1);
        known.insert(0, Known { layouts, schema: Arc::clone(&schema) });
        schema
    }
}

impl<'a> Header<'a> {
    fn read(&mut self, number: u32, value: Value<'a>) -> Result<()> {
        match (number, value) {
            (1, Value::Bytes(base)) => {
                for field in fields(base) {
                    if let (2, Value::Varint(id)) = field? {
                        self.message_id = int64(id);
                    }
                }
            }
            (2, Value::Bytes(name)) => self.vchannel = name,
            (5, Value::Bytes(name)) => self.partition_name = name,
            (7, Value::Varint(id)) => self.collection = int64(id),
            (8, Value::Varint(id)) => self.partition = int64(id),
            _ => {}
        }
        Ok(())
    }

    fn place(&self, what: &str) -> impl Display {
        format!(
            "{what} message {} of {}",
            self.message_id,
            if self.vchannel.is_empty() {
                "an unknown shard".into()
            } else {
                String::from_utf8_lossy(self.vchannel)
            }
        )
    }
}

/// A repeated integer of the message itself, still on the wire: packed or not.
#[derive(Default)]
struct Numbers<'a> {
    pieces: Vec<&'a [u8]>,
    loose: Vec<u64>,
}

impl<'a> Numbers<'a> {
    fn push(&mut self, value: Value<'a>) -> Result<()> {
        match value {
            Value::Bytes(piece) => self.pieces.push(piece),
            Value::Varint(value) => self.loose.push(value),
            _ => return Err(corrupt("a repeated integer is not made of integers")),
        }
        Ok(())
    }

    fn count(&self) -> usize {
        self.pieces.iter().map(|piece| count_varints(piece)).sum::<usize>() + self.loose.len()
    }

    // Nobody mixes packed and loose numbers in one message, so their order among each other does not matter.
    fn for_each(&self, mut take: impl FnMut(u64)) -> Result<()> {
        for piece in &self.pieces {
            for_each_varint(piece, |value| {
                take(value);
                Ok::<_, Error>(())
            })?;
        }
        self.loose.iter().copied().for_each(take);
        Ok(())
    }

    fn into_timestamps(self) -> Result<Timestamps> {
        let mut all = Vec::new();
        if let ([piece], []) = (&*self.pieces, &*self.loose)
            && let Some(same) = same_number(piece)?
        {
            return Ok(Timestamps::Same(Tso(same)));
        }
        self.for_each(|ts| all.push(Tso(ts)))?;
        let first = all.first().copied().unwrap_or_default();
        if all.iter().all(|ts| *ts == first) {
            return Ok(Timestamps::Same(first));
        }
        Ok(Timestamps::Each(all))
    }
}

/// The one number that packed varints repeat, told by comparing bytes; `None` if it is not so.
fn same_number(packed: &[u8]) -> Result<Option<u64>> {
    let Some(end) = packed.iter().position(|byte| byte & 0x80 == 0) else { return Ok(None) };
    let (first, rest) = packed.split_at(end + 1);
    // Equal to itself moved by one number: then all numbers are the same.
    if rest != &packed[..rest.len()] || rest.len() % first.len() != 0 {
        return Ok(None);
    }
    let mut number = 0;
    for_each_varint(first, |value| {
        number = value;
        Ok::<_, Error>(())
    })?;
    Ok(Some(number))
}

fn limit<K, V>(remembered: &mut HashMap<K, V>) {
    if remembered.len() >= REMEMBERED {
        remembered.clear();
    }
}

fn utf8<'a>(bytes: &'a [u8], what: &str) -> Result<&'a str> {
    str::from_utf8(bytes).map_err(|_| corrupt(format!("its {what} is not UTF-8")))
}
