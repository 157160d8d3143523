//! How rows and keys of the simulated source become messages: the shards and partitions they go to, and their bytes.

use std::collections::BTreeMap;

use bytes::Bytes;
use migrans::milvus::catalog::{Collection, Field, PartitionId};
use migrans::milvus::channel::VChannel;
use migrans::milvus::proto::schema::field_data::Field as Values;
use migrans::milvus::proto::schema::i_ds::IdField;
use migrans::milvus::proto::schema::scalar_field::Data;
use migrans::milvus::proto::schema::{self, DataType, FieldData, IDs, LongArray, ScalarField, StringArray};
use migrans::milvus::proto::{common, msg};
use migrans::milvus::tso::Tso;
use prost::Message as _;

use super::source::Key;

/// The shard of a key, also that of a vchannel of this collection.
pub fn shard(key: &str, shards: usize) -> usize {
    key.bytes().fold(7usize, |sum, byte| sum.wrapping_mul(31).wrapping_add(usize::from(byte))) % shards.max(1)
}

/// Where a collection with a partition key keeps a key.
pub fn keyed_partition(key: &str) -> String {
    format!("_default_{}", shard(key, 3))
}

pub(super) fn key(collection: &Collection, number: usize) -> Key {
    if is_text(collection) { format!("key \"{number}\"") } else { (number * 7).to_string() }
}

fn is_text(collection: &Collection) -> bool {
    collection.schema.primary_key().is_some_and(|field| field.data_type() == Some(DataType::VarChar))
}

pub(super) fn by_partition(
    collection: &Collection,
    partition: PartitionId,
    keys: &[Key],
) -> BTreeMap<PartitionId, Vec<Key>> {
    let mut parts: BTreeMap<PartitionId, Vec<Key>> = BTreeMap::new();
    for key in keys {
        let mut place = partition;
        if collection.has_partition_key() {
            let name = keyed_partition(key);
            place = collection
                .partitions
                .iter()
                .find(|(_, other)| other.name == name)
                .map_or(place, |(id, _)| *id);
        }
        parts.entry(place).or_default().push(key.clone());
    }
    parts
}

pub(super) fn by_shard<T>(
    collection: &Collection,
    items: Vec<T>,
    key: impl Fn(&T) -> &str,
) -> Vec<(VChannel, Vec<T>)> {
    let shards = collection.vchannels.len();
    let mut parts: BTreeMap<usize, Vec<T>> = BTreeMap::new();
    for item in items {
        parts.entry(shard(key(&item), shards)).or_default().push(item);
    }
    parts.into_iter().map(|(shard, items)| (collection.vchannels[shard].clone(), items)).collect()
}

pub(super) fn field(id: i64, name: &str, data_type: DataType, primary_key: bool) -> Field {
    Field { id, name: name.into(), data_type: data_type.into(), primary_key, ..Field::default() }
}

fn column(name: &str, data_type: DataType, data: Data) -> FieldData {
    let field = Some(Values::Scalars(ScalarField { data: Some(data) }));
    FieldData { r#type: data_type.into(), field_name: name.into(), field, ..FieldData::default() }
}

fn numbers(keys: &[Key]) -> Vec<i64> {
    keys.iter().filter_map(|key| key.parse().ok()).collect()
}

pub(super) fn insert_message(
    id: i64,
    ts: Tso,
    collection: &Collection,
    partition: PartitionId,
    vchannel: &VChannel,
    rows: &[(Key, i64)],
) -> Bytes {
    let keys: Vec<Key> = rows.iter().map(|(key, _)| key.clone()).collect();
    let keys = if is_text(collection) {
        column("id", DataType::VarChar, Data::StringData(StringArray { data: keys }))
    } else {
        column("id", DataType::Int64, Data::LongData(LongArray { data: numbers(&keys) }))
    };
    let values = rows.iter().map(|(_, value)| *value).collect();
    let message = msg::InsertRequest {
        base: Some(common::MsgBase { msg_type: 400, msg_id: id, timestamp: ts.0, ..Default::default() }),
        shard_name: vchannel.to_string(),
        collection_id: collection.id.0,
        partition_id: partition.0,
        timestamps: vec![ts.0; rows.len()],
        row_i_ds: (0..).take(rows.len()).collect(),
        fields_data: vec![keys, column("v", DataType::Int64, Data::LongData(LongArray { data: values }))],
        num_rows: u64::try_from(rows.len()).unwrap_or(0),
        version: 1,
        ..Default::default()
    };
    Bytes::from(message.encode_to_vec())
}

pub(super) fn delete_message(
    id: i64,
    ts: Tso,
    collection: &Collection,
    partition: PartitionId,
    vchannel: &VChannel,
    keys: &[Key],
) -> Bytes {
    let ids = if is_text(collection) {
        IdField::StrId(StringArray { data: keys.to_vec() })
    } else {
        IdField::IntId(schema::LongArray { data: numbers(keys) })
    };
    let message = msg::DeleteRequest {
        base: Some(common::MsgBase { msg_type: 401, msg_id: id, timestamp: ts.0, ..Default::default() }),
        shard_name: vchannel.to_string(),
        collection_id: collection.id.0,
        partition_id: partition.0,
        timestamps: vec![ts.0; keys.len()],
        num_rows: i64::try_from(keys.len()).unwrap_or(0),
        primary_keys: Some(IDs { id_field: Some(ids) }),
        ..Default::default()
    };
    Bytes::from(message.encode_to_vec())
}
