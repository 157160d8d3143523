//! Log message → columns → request, against the generated types.

use proptest::prelude::*;
use prost::Message;

use super::*;
use crate::milvus::catalog::{CollectionId, CollectionName, Schema};
use crate::milvus::columns::tests::{columns, insert_message};
use crate::milvus::columns::{Decoder, data_size};
use crate::milvus::proto::milvus::InsertRequest;
use crate::milvus::proto::schema::field_data::Field as Values;
use crate::milvus::proto::schema::scalar_field::Data as Scalars;
use crate::milvus::proto::schema::vector_field::Data as Vectors;
use crate::milvus::proto::schema::{self, FieldData};
use crate::milvus::tso::Tso;

/// A collection with the fields of a log message's columns.
fn collection_of(fields: &[FieldData], nullable: impl Fn(&FieldData) -> bool) -> Collection {
    let fields = fields
        .iter()
        .map(|data| Field {
            id: data.field_id,
            name: data.field_name.clone(),
            data_type: data.r#type,
            element_type: if data.r#type == DataType::Array as i32 { DataType::Int64 as i32 } else { 0 },
            type_params: Default::default(),
            dynamic: data.is_dynamic,
            nullable: nullable(data),
            ..Field::default()
        })
        .collect();
    Collection {
        id: CollectionId(449),
        name: CollectionName { database: "default".into(), collection: "c".into() },
        created: Tso(1),
        schema: Schema { description: String::new(), dynamic: true, fields },
        shards: 1,
        consistency_level: 0,
        properties: Default::default(),
        vchannels: vec![],
        start_positions: Default::default(),
        partitions: Default::default(),
        indexes: Default::default(),
        load: None,
    }
}

fn decode(fields: Vec<FieldData>, row_count: usize) -> RecordBatch {
    let message = insert_message(fields, vec![9; row_count]);
    Decoder::new().insert(&message.encode_to_vec().into()).unwrap().batch
}

/// What a client would send for two messages of the log.
fn expected(one: &FieldData, other: &FieldData, counts: (usize, usize), nullable: bool) -> FieldData {
    let both: Vec<bool> = [(one, counts.0), (other, counts.1)]
        .into_iter()
        .flat_map(
            |(data, count)| {
                if data.valid_data.is_empty() { vec![true; count] } else { data.valid_data.clone() }
            },
        )
        .collect();
    let mut field = one.field.clone().unwrap();
    let keep = |row: usize| both[row];
    macro_rules! join {
        ($one:expr, $other:expr) => {{
            $one.extend($other.iter().cloned());
            let mut row = 0;
            $one.retain(|_| {
                row += 1;
                keep(row - 1)
            });
        }};
    }
    match (&mut field, other.field.as_ref().unwrap()) {
        (Values::Scalars(one), Values::Scalars(other)) => {
            match (one.data.as_mut().unwrap(), other.data.as_ref().unwrap()) {
                (Scalars::BoolData(one), Scalars::BoolData(other)) => join!(one.data, other.data),
                (Scalars::IntData(one), Scalars::IntData(other)) => join!(one.data, other.data),
                (Scalars::LongData(one), Scalars::LongData(other)) => join!(one.data, other.data),
                (Scalars::FloatData(one), Scalars::FloatData(other)) => join!(one.data, other.data),
                (Scalars::DoubleData(one), Scalars::DoubleData(other)) => join!(one.data, other.data),
                (Scalars::StringData(one), Scalars::StringData(other)) => join!(one.data, other.data),
                (Scalars::JsonData(one), Scalars::JsonData(other)) => join!(one.data, other.data),
                (Scalars::ArrayData(one), Scalars::ArrayData(other)) => {
                    join!(one.data, other.data);
                    one.element_type = DataType::Int64 as i32;
                }
                _ => panic!("types differ"),
            }
        }
        (Values::Vectors(one), Values::Vectors(other)) => {
            match (one.data.as_mut().unwrap(), other.data.as_ref().unwrap()) {
                (Vectors::FloatVector(one), Vectors::FloatVector(other)) => one.data.extend(&other.data),
                (Vectors::BinaryVector(one), Vectors::BinaryVector(other))
                | (Vectors::Float16Vector(one), Vectors::Float16Vector(other))
                | (Vectors::Bfloat16Vector(one), Vectors::Bfloat16Vector(other))
                | (Vectors::Int8Vector(one), Vectors::Int8Vector(other)) => one.extend(other),
                (Vectors::SparseFloatVector(one), Vectors::SparseFloatVector(other)) => {
                    one.contents.extend(other.contents.iter().cloned());
                    one.dim = one.dim.max(other.dim);
                }
                _ => panic!("types differ"),
            }
        }
        _ => panic!("types differ"),
    }
    FieldData {
        field: Some(field),
        field_id: 0,
        valid_data: if nullable { both } else { vec![] },
        ..one.clone()
    }
}

proptest! {
    #[test]
    fn two_messages_of_the_log_become_one_request(
        (one, other, counts) in (1usize..5, 1usize..5).prop_flat_map(|counts| {
            (columns(counts.0), columns(counts.1), Just(counts))
        })
    ) {
        let nullable = |data: &FieldData| {
            let twin = other.iter().find(|twin| twin.field_name == data.field_name).unwrap();
            !data.valid_data.is_empty() || !twin.valid_data.is_empty()
        };
        let collection = collection_of(&one, nullable);
        let batches = [decode(one.clone(), counts.0), decode(other.clone(), counts.1)];
        let rope = rows(&collection, Some("p"), &batches).unwrap();
        let len = rope.len();
        let bytes = rope.into_pieces().concat();
        prop_assert_eq!(len, bytes.len());
        let request = InsertRequest::decode(&*bytes).unwrap();
        let fields: Vec<_> = one.iter().zip(&other)
            .map(|(one, other)| expected(one, other, counts, nullable(one))).collect();
        prop_assert_eq!(&request.fields_data, &fields);
        prop_assert_eq!(usize::try_from(request.num_rows).unwrap(), counts.0 + counts.1);
        prop_assert_eq!((&*request.db_name, &*request.collection_name, &*request.partition_name), ("default", "c", "p"));
    }
}

fn longs(name: &str, data: Vec<i64>) -> FieldData {
    FieldData {
        r#type: DataType::Int64 as i32,
        field_name: name.into(),
        field_id: 100,
        field: Some(Values::Scalars(schema::ScalarField {
            data: Some(Scalars::LongData(schema::LongArray { data })),
        })),
        ..Default::default()
    }
}

#[test]
fn a_field_with_a_default_says_that_all_its_rows_are_valid() {
    let mut collection = collection_of(&[longs("k", vec![])], |_| false);
    collection.schema.fields[0].default_value = Some(vec![]);
    let bytes =
        rows(&collection, None, &[decode(vec![longs("k", vec![1, 2])], 2)]).unwrap().into_pieces().concat();
    let request = InsertRequest::decode(&*bytes).unwrap();
    assert_eq!(request.fields_data[0].valid_data, [true, true]);
    assert_eq!(request.partition_name, "");

    let without =
        collection_of(&[longs("k", vec![]), longs("other", vec![])], |data| data.field_name == "other");
    let bytes =
        rows(&without, None, &[decode(vec![longs("k", vec![1, 2])], 2)]).unwrap().into_pieces().concat();
    assert_eq!(
        InsertRequest::decode(&*bytes).unwrap().fields_data.len(),
        1,
        "a nullable field may be absent"
    );
}

#[test]
fn rows_that_do_not_fit_the_schema_are_refused_with_the_field() {
    let collection = collection_of(&[longs("k", vec![]), longs("n", vec![])], |_| false);
    let error = |fields: Vec<FieldData>| {
        let error = rows(&collection, None, &[decode(fields, 1)]).unwrap_err();
        assert_eq!(error.kind(), Kind::Corrupt);
        error.message().to_owned()
    };
    assert_eq!(error(vec![longs("k", vec![1])]), "field `n` of default.c: rows lack it");
    let three = vec![longs("k", vec![1]), longs("n", vec![1]), longs("z", vec![1])];
    assert_eq!(error(three), "rows of default.c have a column `z` that its schema does not have");
    let null = FieldData { valid_data: vec![false], ..longs("n", vec![0]) };
    assert_eq!(
        error(vec![longs("k", vec![1]), null]),
        "field `n` of default.c: rows are null in it, but it is not nullable"
    );
    let mut other = longs("n", vec![1]);
    other.r#type = DataType::Int32 as i32;
    other.field = Some(Values::Scalars(schema::ScalarField {
        data: Some(Scalars::IntData(schema::IntArray { data: vec![1] })),
    }));
    assert_eq!(
        error(vec![longs("k", vec![1]), other]),
        "field `n` of default.c: rows have Int32, its schema says Int64"
    );
}

#[test]
fn a_slice_of_a_batch_is_sent_alone() {
    let collection = collection_of(&[longs("k", vec![])], |_| false);
    let batch = decode(vec![longs("k", vec![1, 2, 3, 4])], 4).slice(1, 2);
    let bytes = rows(&collection, None, std::slice::from_ref(&batch)).unwrap().into_pieces().concat();
    let request = InsertRequest::decode(&*bytes).unwrap();
    assert_eq!(request.fields_data[0].field, longs("k", vec![2, 3]).field);
    assert_eq!(data_size(&batch), 16);
}
