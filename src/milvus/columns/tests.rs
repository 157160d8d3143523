//! Messages made by the generated encoder, read by the hand-written decoder.

use arrow_array::cast::AsArray;
use arrow_array::types::{Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type};
use proptest::collection::vec;
use proptest::prelude::*;
use prost::Message;

use super::*;
use crate::milvus::proto::schema::field_data::Field as Values;
use crate::milvus::proto::schema::i_ds::IdField;
use crate::milvus::proto::schema::scalar_field::Data as Scalars;
use crate::milvus::proto::schema::vector_field::Data as Vectors;
use crate::milvus::proto::schema::{self, FieldData, ScalarField, VectorField};
use crate::milvus::proto::{common, msg};
use crate::milvus::tso::Tso;

const DIM: usize = 16;

pub(crate) fn scalars(data: Scalars) -> Option<Values> {
    Some(Values::Scalars(ScalarField { data: Some(data) }))
}

pub(crate) fn vectors(dim: usize, data: Vectors) -> Option<Values> {
    Some(Values::Vectors(VectorField { dim: i64::try_from(dim).unwrap(), data: Some(data) }))
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        Just(String::new()),
        "[a-z]{0,12}",
        "\\PC{0,40}",
        Just("\u{0}\"\\\n\u{1F600} e\u{301}\u{2028}".to_owned()),
    ]
}

fn bytes(size: std::ops::Range<usize>) -> impl Strategy<Value = Vec<u8>> {
    vec(any::<u8>(), size)
}

fn array_row() -> impl Strategy<Value = ScalarField> {
    prop_oneof![
        vec(any::<i64>(), 0..4).prop_map(|data| Scalars::LongData(schema::LongArray { data })),
        vec(text(), 0..4).prop_map(|data| Scalars::StringData(schema::StringArray { data })),
    ]
    .prop_map(|data| ScalarField { data: Some(data) })
}

fn values(data_type: DataType, count: usize) -> BoxedStrategy<Option<Values>> {
    use Scalars::*;
    match data_type {
        DataType::Bool => {
            vec(any::<bool>(), count).prop_map(|data| scalars(BoolData(schema::BoolArray { data }))).boxed()
        }
        DataType::Int8 => integers(vec(-128..=127, count).boxed()),
        DataType::Int16 => integers(vec(-32768..=32767, count).boxed()),
        DataType::Int32 => integers(vec(any::<i32>(), count).boxed()),
        DataType::Int64 => {
            vec(any::<i64>(), count).prop_map(|data| scalars(LongData(schema::LongArray { data }))).boxed()
        }
        DataType::Float => vec(-1e30f32..1e30, count)
            .prop_map(|data| scalars(FloatData(schema::FloatArray { data })))
            .boxed(),
        DataType::Double => vec(-1e300f64..1e300, count)
            .prop_map(|data| scalars(DoubleData(schema::DoubleArray { data })))
            .boxed(),
        DataType::String | DataType::VarChar => {
            vec(text(), count).prop_map(|data| scalars(StringData(schema::StringArray { data }))).boxed()
        }
        DataType::Array => vec(array_row(), count)
            .prop_map(|data| {
                let element_type = i32::from(!data.is_empty()) * DataType::Int64 as i32;
                scalars(ArrayData(schema::ArrayArray { data, element_type }))
            })
            .boxed(),
        DataType::Json => {
            vec(bytes(0..40), count).prop_map(|data| scalars(JsonData(schema::JsonArray { data }))).boxed()
        }
        DataType::FloatVector => vec(-1e30f32..1e30, count * DIM)
            .prop_map(|data| vectors(DIM, Vectors::FloatVector(schema::FloatArray { data })))
            .boxed(),
        DataType::BinaryVector => vec(any::<u8>(), count * DIM / 8)
            .prop_map(|data| vectors(DIM, Vectors::BinaryVector(data)))
            .boxed(),
        DataType::Float16Vector => vec(any::<u8>(), count * DIM * 2)
            .prop_map(|data| vectors(DIM, Vectors::Float16Vector(data)))
            .boxed(),
        DataType::BFloat16Vector => vec(any::<u8>(), count * DIM * 2)
            .prop_map(|data| vectors(DIM, Vectors::Bfloat16Vector(data)))
            .boxed(),
        DataType::Int8Vector => {
            vec(any::<u8>(), count * DIM).prop_map(|data| vectors(DIM, Vectors::Int8Vector(data))).boxed()
        }
        DataType::SparseFloatVector => vec(sparse_row(), count)
            .prop_map(|contents| {
                let dim = contents.iter().map(|row| sparse_dim(row)).max().unwrap_or(0);
                vectors(0, Vectors::SparseFloatVector(schema::SparseFloatArray { contents, dim }))
            })
            .boxed(),
        DataType::None => unreachable!("not a type of a field"),
    }
}

fn integers(data: BoxedStrategy<Vec<i32>>) -> BoxedStrategy<Option<Values>> {
    data.prop_map(|data| scalars(Scalars::IntData(schema::IntArray { data }))).boxed()
}

fn sparse_row() -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::btree_map(any::<u16>(), -1e3f32..1e3, 1..5).prop_map(|row| {
        row.into_iter()
            .flat_map(|(index, value)| [u32::from(index).to_le_bytes(), value.to_le_bytes()].concat())
            .collect()
    })
}

fn sparse_dim(row: &[u8]) -> i64 {
    let last: [u8; 4] = row[row.len() - 8..row.len() - 4].try_into().unwrap();
    i64::from(u32::from_le_bytes(last)) + 1
}

pub(crate) const ALL_TYPES: [DataType; 17] = [
    DataType::Bool,
    DataType::Int8,
    DataType::Int16,
    DataType::Int32,
    DataType::Int64,
    DataType::Float,
    DataType::Double,
    DataType::String,
    DataType::VarChar,
    DataType::Array,
    DataType::Json,
    DataType::BinaryVector,
    DataType::FloatVector,
    DataType::Float16Vector,
    DataType::BFloat16Vector,
    DataType::SparseFloatVector,
    DataType::Int8Vector,
];

/// Columns of all types for `count` rows, as the log has them.
pub(crate) fn columns(count: usize) -> impl Strategy<Value = Vec<FieldData>> {
    let columns: Vec<_> = ALL_TYPES
        .into_iter()
        .map(|data_type| {
            let scalar = (data_type as i32) < 100;
            let valid = if scalar { vec(any::<bool>(), count).boxed() } else { Just(vec![]).boxed() };
            (values(data_type, count), any::<bool>(), valid).prop_map(move |(field, nullable, valid)| {
                FieldData {
                    r#type: data_type as i32,
                    field_name: format!("a{}", data_type as i32),
                    field_id: 100 + i64::from(data_type as i32),
                    is_dynamic: data_type == DataType::Json,
                    valid_data: if nullable { valid } else { vec![] },
                    field,
                }
            })
        })
        .collect();
    columns
}

pub(crate) fn insert_message(fields_data: Vec<FieldData>, timestamps: Vec<u64>) -> msg::InsertRequest {
    msg::InsertRequest {
        base: Some(common::MsgBase { msg_type: 400, msg_id: 77, ..Default::default() }),
        shard_name: "by-dev-rootcoord-dml_3_449v1".into(),
        partition_name: "_default".into(),
        collection_id: 449,
        partition_id: 450,
        row_i_ds: (0..).take(timestamps.len()).collect(),
        num_rows: timestamps.len() as u64,
        timestamps,
        fields_data,
        version: 1,
        ..Default::default()
    }
}

fn inserts() -> impl Strategy<Value = msg::InsertRequest> {
    (0usize..6).prop_flat_map(|count| {
        (columns(count), vec(1u64 << 60..(1 << 60) + 2, count))
            .prop_map(|(fields, timestamps)| insert_message(fields, timestamps))
    })
}

/// A column as the log would have it, made row by row.
pub(crate) fn field_data(batch: &RecordBatch, index: usize) -> FieldData {
    use Scalars::*;
    let schema = batch.schema();
    let layout = Layout::of(schema.field(index)).unwrap();
    let column = batch.column(index);
    let dim = usize::try_from(layout.dim).unwrap();
    let binaries = || column.as_binary_view().iter().map(|_| ()).count();
    let views = || -> Vec<Vec<u8>> {
        (0..binaries()).map(|row| column.as_binary_view().value(row).to_vec()).collect()
    };
    let fixed = || -> Vec<u8> {
        let array = column.as_fixed_size_binary();
        (0..array.len()).flat_map(|row| array.value(row).to_vec()).collect()
    };
    let ints = |data: Vec<i32>| scalars(IntData(schema::IntArray { data }));
    let field = match layout.data_type {
        DataType::Bool => {
            let array = column.as_boolean();
            scalars(BoolData(schema::BoolArray {
                data: (0..array.len()).map(|row| array.value(row)).collect(),
            }))
        }
        DataType::Int8 => {
            ints(column.as_primitive::<Int8Type>().values().iter().map(|v| i32::from(*v)).collect())
        }
        DataType::Int16 => {
            ints(column.as_primitive::<Int16Type>().values().iter().map(|v| i32::from(*v)).collect())
        }
        DataType::Int32 => ints(column.as_primitive::<Int32Type>().values().to_vec()),
        DataType::Int64 => scalars(LongData(schema::LongArray {
            data: column.as_primitive::<Int64Type>().values().to_vec(),
        })),
        DataType::Float => scalars(FloatData(schema::FloatArray {
            data: column.as_primitive::<Float32Type>().values().to_vec(),
        })),
        DataType::Double => scalars(DoubleData(schema::DoubleArray {
            data: column.as_primitive::<Float64Type>().values().to_vec(),
        })),
        DataType::String | DataType::VarChar => {
            let array = column.as_string_view();
            let data = (0..array.len()).map(|row| array.value(row).to_owned()).collect();
            scalars(StringData(schema::StringArray { data }))
        }
        DataType::Array => {
            let data = views().iter().map(|row| ScalarField::decode(&**row).unwrap()).collect();
            scalars(ArrayData(schema::ArrayArray { data, element_type: layout.element_type }))
        }
        DataType::Json => scalars(JsonData(schema::JsonArray { data: views() })),
        DataType::FloatVector => {
            let data = fixed().as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
            vectors(dim, Vectors::FloatVector(schema::FloatArray { data }))
        }
        DataType::BinaryVector => vectors(dim, Vectors::BinaryVector(fixed())),
        DataType::Float16Vector => vectors(dim, Vectors::Float16Vector(fixed())),
        DataType::BFloat16Vector => vectors(dim, Vectors::Bfloat16Vector(fixed())),
        DataType::Int8Vector => vectors(dim, Vectors::Int8Vector(fixed())),
        DataType::SparseFloatVector => {
            let contents = views();
            let dim = contents.iter().map(|row| sparse_dim(row)).max().unwrap_or(0);
            vectors(0, Vectors::SparseFloatVector(schema::SparseFloatArray { contents, dim }))
        }
        DataType::None => unreachable!("not a type of a field"),
    };
    FieldData {
        r#type: layout.data_type as i32,
        field_name: schema.field(index).name().clone(),
        field_id: layout.field_id,
        is_dynamic: layout.dynamic,
        valid_data: column.nulls().map(|nulls| nulls.iter().collect()).unwrap_or_default(),
        field,
    }
}

fn decode(message: &impl Message) -> Result<Insert> {
    Decoder::new().insert(&message.encode_to_vec().into())
}

proptest! {
    #[test]
    fn an_insert_is_read_as_it_was_written(message in inserts()) {
        let mut decoder = Decoder::new();
        let bytes = message.encode_to_vec().into();
        let insert = decoder.insert(&bytes).unwrap();
        prop_assert_eq!(&*insert.vchannel.0, &message.shard_name);
        prop_assert_eq!(insert.message_id, 77);
        prop_assert_eq!((insert.collection.0, insert.partition.0), (449, 450));
        prop_assert_eq!(&*insert.partition_name, "_default");
        let timestamps = match &insert.timestamps {
            Timestamps::Same(ts) => vec![ts.0; message.timestamps.len()],
            Timestamps::Each(all) => all.iter().map(|ts| ts.0).collect(),
        };
        prop_assert_eq!(&timestamps, &message.timestamps);
        let fields: Vec<_> = (0..insert.batch.num_columns()).map(|index| field_data(&insert.batch, index)).collect();
        prop_assert_eq!(fields, message.fields_data);

        let again = decoder.insert(&bytes).unwrap();
        prop_assert!(Arc::ptr_eq(&insert.batch.schema(), &again.batch.schema()), "the schema is shared");
    }

    #[test]
    fn a_cut_or_changed_insert_never_panics(
        message in inserts(),
        cut: prop::sample::Index,
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let mut bytes = message.encode_to_vec();
        for (place, value) in changes {
            *place.get_mut(&mut bytes) = value;
        }
        if let Err(error) = Decoder::new().insert(&bytes.clone().into()) {
            prop_assert_eq!(error.kind(), Kind::Corrupt);
        }
        bytes.truncate(cut.index(bytes.len() + 1));
        if let Err(error) = Decoder::new().insert(&bytes.clone().into()) {
            prop_assert_eq!(error.kind(), Kind::Corrupt);
        }
        if let Err(error) = Decoder::new().delete(&bytes.into()) {
            prop_assert_eq!(error.kind(), Kind::Corrupt);
        }
    }

    #[test]
    fn a_message_that_is_cut_off_within_its_columns_is_refused(message in inserts(), cut: prop::sample::Index) {
        prop_assume!(message.num_rows > 0);
        let bytes = message.encode_to_vec();
        let bytes = bytes[..cut.index(bytes.len() - 8)].to_vec();
        // Without its last fields, the number of rows among them, no message is whole.
        if let Ok(insert) = Decoder::new().insert(&bytes.into()) {
            prop_assert_eq!(insert.batch.num_rows(), 0);
        }
    }

    #[test]
    fn a_delete_is_read_as_it_was_written(integers in vec(any::<i64>(), 0..5), strings in vec(text(), 1..5)) {
        let message = |id_field: Option<IdField>, old: Vec<i64>, count: usize| msg::DeleteRequest {
            base: Some(common::MsgBase { msg_type: 401, msg_id: 78, ..Default::default() }),
            shard_name: "p_1v0".into(),
            collection_id: 1,
            partition_id: -1,
            int64_primary_keys: old,
            timestamps: vec![5; count],
            num_rows: i64::try_from(count).unwrap(),
            primary_keys: id_field.map(|id_field| schema::IDs { id_field: Some(id_field) }),
            ..Default::default()
        };
        let long = schema::LongArray { data: integers.clone() };
        let text = schema::StringArray { data: strings.clone() };
        for (message, count) in [
            (message(Some(IdField::IntId(long)), vec![], integers.len()), integers.len()),
            (message(None, integers.clone(), integers.len()), integers.len()),
        ] {
            let delete = Decoder::new().delete(&message.encode_to_vec().into()).unwrap();
            prop_assert_eq!(delete.keys.as_primitive::<Int64Type>().values(), &integers[..]);
            prop_assert_eq!(delete.partition, crate::milvus::catalog::PartitionId::ALL);
            prop_assert_eq!(delete.timestamps, Timestamps::Same(Tso(if count == 0 { 0 } else { 5 })));
        }
        let bytes = message(Some(IdField::StrId(text)), vec![], strings.len()).encode_to_vec().into();
        let delete = Decoder::new().delete(&bytes).unwrap();
        let keys: Vec<_> = delete.keys.as_string_view().iter().flatten().collect();
        prop_assert_eq!(keys, strings);
    }
}

fn int64_field(name: &str, data: Vec<i64>) -> FieldData {
    FieldData {
        r#type: DataType::Int64 as i32,
        field_name: name.into(),
        field_id: 100,
        field: scalars(Scalars::LongData(schema::LongArray { data })),
        ..Default::default()
    }
}

#[test]
fn vectors_and_long_texts_are_views_of_the_message() {
    let long = "a text of more than twelve bytes".to_owned();
    let message = insert_message(
        vec![
            FieldData {
                r#type: DataType::FloatVector as i32,
                field_name: "v".into(),
                field: vectors(2, Vectors::FloatVector(schema::FloatArray { data: vec![1.0, 2.0] })),
                ..Default::default()
            },
            FieldData {
                r#type: DataType::VarChar as i32,
                field_name: "s".into(),
                field: scalars(Scalars::StringData(schema::StringArray { data: vec![long] })),
                ..Default::default()
            },
        ],
        vec![9],
    );
    let payload = bytes::Bytes::from(message.encode_to_vec());
    let insert = Decoder::new().insert(&payload).unwrap();
    let range = payload.as_ptr_range();
    let vectors = insert.batch.column(0).as_fixed_size_binary();
    assert!(range.contains(&vectors.value(0).as_ptr()));
    let texts = insert.batch.column(1).as_string_view();
    assert!(range.contains(&texts.value(0).as_ptr()));
}

#[test]
fn repeated_columns_of_one_field_merge_as_the_proxy_merges_them() {
    // The wire form of two FieldData of one field, written one after the other into the same message.
    let both = |one: &FieldData, other: &FieldData| [one.encode_to_vec(), other.encode_to_vec()].concat();
    let vector = |data: Vec<f32>| FieldData {
        r#type: DataType::FloatVector as i32,
        field_name: "v".into(),
        field: vectors(2, Vectors::FloatVector(schema::FloatArray { data })),
        ..Default::default()
    };
    let mut bytes = insert_message(vec![], vec![9, 9, 9]).encode_to_vec();
    for field in [
        both(&int64_field("k", vec![1, 2]), &int64_field("k", vec![3])),
        both(&vector(vec![1.0, 2.0]), &vector(vec![3.0, 4.0, 5.0, 6.0])),
    ] {
        crate::milvus::wire::put_bytes(&mut bytes, 13, &field);
    }
    let insert = Decoder::new().insert(&bytes.into()).unwrap();
    assert_eq!(insert.batch.column(0).as_primitive::<Int64Type>().values(), &[1, 2, 3]);
    assert_eq!(field_data(&insert.batch, 1).field, vector(vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0]).field);
}

#[test]
fn numbers_that_are_not_packed_are_read_too() {
    let mut longs = Vec::new();
    for value in [7, 8] {
        crate::milvus::wire::put_integer(&mut longs, 1, value);
    }
    let mut scalars = Vec::new();
    crate::milvus::wire::put_bytes(&mut scalars, 3, &longs);
    let mut field = FieldData { r#type: 5, field_name: "k".into(), ..Default::default() }.encode_to_vec();
    crate::milvus::wire::put_bytes(&mut field, 3, &scalars);

    let mut floats = Vec::new();
    floats.extend([0x0d].into_iter().chain(1.5f32.to_le_bytes()));
    floats.extend([0x0d].into_iter().chain(2.5f32.to_le_bytes()));
    let mut vector = vec![0x08, 1];
    crate::milvus::wire::put_bytes(&mut vector, 2, &floats);
    let mut vectors = FieldData { r#type: 101, field_name: "v".into(), ..Default::default() }.encode_to_vec();
    crate::milvus::wire::put_bytes(&mut vectors, 4, &vector);

    let mut bytes = insert_message(vec![], vec![]).encode_to_vec();
    for _ in 0..2 {
        crate::milvus::wire::put_integer(&mut bytes, 10, 9);
    }
    crate::milvus::wire::put_integer(&mut bytes, 14, 2);
    crate::milvus::wire::put_bytes(&mut bytes, 13, &field);
    crate::milvus::wire::put_bytes(&mut bytes, 13, &vectors);
    let insert = Decoder::new().insert(&bytes.into()).unwrap();
    assert_eq!(insert.timestamps, Timestamps::Same(Tso(9)));
    assert_eq!(insert.batch.column(0).as_primitive::<Int64Type>().values(), &[7, 8]);
    assert_eq!(insert.batch.column(1).as_fixed_size_binary().value(1), 2.5f32.to_le_bytes());
}

#[test]
fn what_is_wrong_is_named_with_its_field() {
    let error =
        |field: FieldData| decode(&insert_message(vec![field], vec![9, 9])).unwrap_err().message().to_owned();
    let place = "insert message 77 of by-dev-rootcoord-dml_3_449v1: field `k` (100): ";
    assert_eq!(error(int64_field("k", vec![1])), format!("{place}1 values for 2 rows"));
    let unknown = FieldData { r#type: 99, ..int64_field("k", vec![1, 2]) };
    assert_eq!(error(unknown), format!("{place}data type 99 is not known"));
    let mistyped = FieldData { r#type: DataType::VarChar as i32, ..int64_field("k", vec![1, 2]) };
    assert_eq!(error(mistyped), format!("{place}its values are not of its type"));
    let valid = FieldData { valid_data: vec![true], ..int64_field("k", vec![1, 2]) };
    assert_eq!(error(valid), format!("{place}1 entries in valid_data for 2 rows"));
    let vector = FieldData {
        r#type: DataType::FloatVector as i32,
        field: vectors(3, Vectors::FloatVector(schema::FloatArray { data: vec![0.0; 5] })),
        ..int64_field("k", vec![])
    };
    assert_eq!(error(vector), format!("{place}20 bytes of vectors of 3 dimensions for 2 rows"));
    let wide = FieldData {
        r#type: DataType::Int8 as i32,
        field: scalars(Scalars::IntData(schema::IntArray { data: vec![1, 200] })),
        ..int64_field("k", vec![])
    };
    assert_eq!(error(wide), format!("{place}200 does not fit into Int8"));

    let rows = msg::InsertRequest { num_rows: 3, ..insert_message(vec![], vec![9, 9]) };
    assert!(decode(&rows).unwrap_err().message().ends_with("2 timestamps for 3 rows"));
}

#[test]
fn a_key_column_is_found_by_name_and_checked() {
    let insert = decode(&insert_message(vec![int64_field("k", vec![4, 5])], vec![9, 9])).unwrap();
    assert_eq!(key_column(&insert.batch, "k").unwrap().len(), 2);
    assert!(key_column(&insert.batch, "other").unwrap_err().message().contains("`other`"));
    assert_eq!(data_size(&insert.batch), 16);
}
