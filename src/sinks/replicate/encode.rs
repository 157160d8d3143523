//! The source's messages as a standby needs them, and the calls that carry them.

use bytes::Bytes;
use prost::Message as _;

use super::place::Place;
use crate::error::{Error, Kind, Result};
use crate::milvus::proto::common::{MsgBase, ReplicateInfo};
use crate::milvus::proto::msg;
use crate::milvus::tso::Tso;
use crate::milvus::wire::{Malformed, fields};
use crate::proxy::rope::Rope;

/// `commonpb.MsgType`
const DROP_COLLECTION: i32 = 101;
const DROP_PARTITION: i32 = 201;
const TIME_TICK: i32 = 1200;

/// Fields 2 to 8 of `msg.InsertRequest` and `msg.DeleteRequest`: names and ids of shard, database, collection and
/// partition. 9 is the segment in the one and keys in the other; the target's proxy puts in a segment of its own.
const NAMES: std::ops::RangeInclusive<u32> = 2..=8;

/// `payload`, a `msg.InsertRequest` or `msg.DeleteRequest` of shard number `shard`, with the names and ids of `place`.
/// Everything else stays as it is, uncopied. `partition` is the name and id; none in a delete from all partitions.
///
/// # Errors
/// `Corrupt` if `payload` is no message, or the target lacks the shard.
pub(super) fn readdressed(
    payload: &Bytes,
    place: &Place,
    shard: usize,
    partition: Option<(&str, i64)>,
) -> Result<Rope> {
    let (partition_name, partition_id) = partition.unwrap_or(("", -1));
    let mut rope = Rope::default();
    let mut copied = 0;
    let mut walk = fields(payload);
    let corrupt = |error: Malformed| Error::new(Kind::Corrupt, "a message can't be read").caused_by(error);
    let mut is_named = false;
    let mut at = 0;
    while let Some(field) = walk.next() {
        let (number, _) = field.map_err(corrupt)?;
        let end = payload.len() - walk.remaining();
        if NAMES.contains(&number) {
            rope.shared(payload.slice(copied..at));
            copied = end;
            if !is_named {
                is_named = true;
                rope.bytes(2, place.vchannel(shard)?.as_bytes());
                rope.bytes(3, place.name.database.as_bytes());
                rope.bytes(4, place.name.collection.as_bytes());
                rope.bytes(5, partition_name.as_bytes());
                rope.integer(7, place.id.cast_unsigned());
                rope.integer(8, partition_id.cast_unsigned());
            }
        }
        at = end;
    }
    if !is_named {
        return Err(Error::new(Kind::Corrupt, "a message names no shard"));
    }
    rope.shared(payload.slice(copied..));
    Ok(rope)
}

/// A `milvus.ReplicateMessageRequest` with messages of the times `begin` to `end` for one pchannel.
pub(super) fn call(pchannel: &str, begin: Tso, end: Tso, messages: Vec<Rope>) -> Rope {
    let info = ReplicateInfo { is_replicate: true, msg_timestamp: end.0 };
    let base = MsgBase { replicate_info: Some(info), ..Default::default() };
    let mut rope = Rope::default();
    rope.bytes(1, &base.encode_to_vec());
    rope.bytes(2, pchannel.as_bytes());
    rope.integer(3, begin.0);
    rope.integer(4, end.0);
    for message in messages {
        rope.nest(5, message);
    }
    rope
}

/// A tick: the target has everything up to `tick`.
pub(super) fn tick(tick: Tso) -> Rope {
    encoded(&msg::TimeTickMsg { base: base(TIME_TICK, tick) })
}

/// That the collection is dropped, for the nodes that follow its channels: without it they go on for ever.
pub(super) fn drop_collection(place: &Place, ts: Tso) -> Rope {
    encoded(&msg::DropCollectionRequest {
        base: base(DROP_COLLECTION, ts),
        collection_name: place.name.collection.clone(),
        collection_id: place.id,
    })
}

/// The same of a partition.
pub(super) fn drop_partition(place: &Place, partition: &str, id: i64, ts: Tso) -> Rope {
    // This message and that of its creation have the same fields.
    encoded(&msg::CreatePartitionRequest {
        base: base(DROP_PARTITION, ts),
        collection_name: place.name.collection.clone(),
        partition_name: partition.to_owned(),
        collection_id: place.id,
        partition_id: id,
    })
}

fn base(msg_type: i32, ts: Tso) -> Option<MsgBase> {
    Some(MsgBase { msg_type, timestamp: ts.0, ..Default::default() })
}

fn encoded(message: &impl prost::Message) -> Rope {
    let mut rope = Rope::default();
    rope.raw(message.encode_to_vec());
    rope
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::milvus::catalog::CollectionName;
    use crate::milvus::proto::schema;

    fn place() -> Place {
        Place {
            name: CollectionName { database: "db".into(), collection: "c".into() },
            id: 77,
            vchannels: vec!["t-dml_10_77v0".into(), "t-dml_2_77v1".into()],
            partitions: BTreeMap::from([("_default".into(), 5)]),
        }
    }

    fn bytes(rope: Rope) -> Vec<u8> {
        rope.into_pieces().concat()
    }

    fn base() -> Option<MsgBase> {
        Some(MsgBase { msg_type: 400, msg_id: 9, timestamp: 3, source_id: 1, ..Default::default() })
    }

    #[test]
    fn an_insert_gets_the_names_of_the_target_and_keeps_all_else() {
        let field = schema::FieldData { field_name: "x".repeat(600), field_id: 100, ..Default::default() };
        let source = msg::InsertRequest {
            base: base(),
            shard_name: "s-dml_0_5v1".into(),
            db_name: "db".into(),
            collection_name: "c".into(),
            partition_name: "_default".into(),
            db_id: 1,
            collection_id: 5,
            partition_id: 6,
            segment_id: 8,
            timestamps: vec![1, 2],
            row_i_ds: vec![3, 4],
            fields_data: vec![field.clone(), field],
            num_rows: 2,
            version: 1,
        };
        let payload = Bytes::from(source.encode_to_vec());
        let rope = readdressed(&payload, &place(), 1, Some(("_default", 5))).unwrap();
        let length = rope.len();
        let out = bytes(rope);
        assert_eq!(out.len(), length);
        assert_eq!(
            msg::InsertRequest::decode(&*out).unwrap(),
            msg::InsertRequest {
                shard_name: "t-dml_2_77v1".into(),
                db_id: 0,
                collection_id: 77,
                partition_id: 5,
                ..source
            }
        );
    }

    #[test]
    fn a_delete_from_all_partitions_stays_one_and_keeps_its_keys() {
        let source = msg::DeleteRequest {
            base: base(),
            shard_name: "s-dml_0_5v0".into(),
            collection_id: 5,
            partition_id: -1,
            int64_primary_keys: vec![1, 2],
            timestamps: vec![1, 2],
            num_rows: 2,
            ..Default::default()
        };
        let payload = Bytes::from(source.encode_to_vec());
        let out = bytes(readdressed(&payload, &place(), 0, None).unwrap());
        assert_eq!(
            msg::DeleteRequest::decode(&*out).unwrap(),
            msg::DeleteRequest {
                shard_name: "t-dml_10_77v0".into(),
                db_name: "db".into(),
                collection_name: "c".into(),
                collection_id: 77,
                ..source
            }
        );
    }

    #[test]
    fn what_is_no_message_of_a_known_shard_is_an_error() {
        for payload in [&b""[..], &[0x0a, 0xff], &[0x12]] {
            let error = readdressed(&Bytes::from_static(payload), &place(), 0, None).unwrap_err();
            assert_eq!(error.kind(), Kind::Corrupt);
        }
        let payload =
            Bytes::from(msg::DeleteRequest { shard_name: "x".into(), ..Default::default() }.encode_to_vec());
        assert_eq!(readdressed(&payload, &place(), 2, None).unwrap_err().kind(), Kind::Corrupt);
    }
}
