//! Collections and rows for the tests of the sink, and reading them back.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arrow_array::RecordBatch;
use migrans::milvus::catalog::{
    Collection, CollectionId, CollectionName, Ddl, Field, Index, Load, Partition, PartitionId, Schema,
};
use migrans::milvus::columns::Decoder;
use migrans::milvus::proto::milvus::milvus_service_client::MilvusServiceClient;
use migrans::milvus::proto::milvus::{QueryRequest, QueryResults};
use migrans::milvus::proto::msg;
use migrans::milvus::proto::schema::field_data::Field as Values;
use migrans::milvus::proto::schema::scalar_field::Data as Scalars;
use migrans::milvus::proto::schema::vector_field::Data as Vectors;
use migrans::milvus::proto::schema::{self, DataType, FieldData, ScalarField, VectorField};
use migrans::milvus::tso::Tso;
use migrans::sinks::Sink;
use prost::Message;
use tonic::transport::Channel;

pub fn field(id: i64, name: &str, data_type: DataType, params: &[(&str, &str)]) -> Field {
    Field {
        id,
        name: name.into(),
        description: format!("about {name}"),
        data_type: data_type as i32,
        type_params: params.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
        primary_key: id == 100,
        ..Field::default()
    }
}

pub fn collection(name: &str, fields: Vec<Field>) -> Collection {
    let dynamic = fields.iter().any(|field| field.dynamic);
    let default = Partition { name: "_default".into(), created: Tso(1) };
    Collection {
        id: CollectionId(1),
        name: CollectionName { database: "default".into(), collection: name.into() },
        created: Tso(1),
        schema: Schema { description: "words".into(), dynamic, fields },
        shards: 2,
        consistency_level: 2,
        properties: BTreeMap::new(),
        vchannels: vec![],
        start_positions: BTreeMap::new(),
        partitions: BTreeMap::from([(PartitionId(1), default)]),
        indexes: BTreeMap::new(),
        load: None,
    }
}

/// A key, a text and a vector of 4 dimensions.
pub fn small_collection(name: &str, key: DataType) -> Collection {
    let key_params: &[(&str, &str)] = if key == DataType::VarChar { &[("max_length", "200")] } else { &[] };
    collection(
        name,
        vec![
            field(100, "k", key, key_params),
            field(101, "t", DataType::VarChar, &[("max_length", "20")]),
            field(102, "v", DataType::FloatVector, &[("dim", "4")]),
        ],
    )
}

fn column(name: &str, data_type: DataType, values: Values) -> FieldData {
    FieldData {
        r#type: data_type as i32,
        field_name: name.into(),
        is_dynamic: name == "$meta",
        field: Some(values),
        ..Default::default()
    }
}

pub fn scalar_column(name: &str, data_type: DataType, data: Scalars) -> FieldData {
    column(name, data_type, Values::Scalars(ScalarField { data: Some(data) }))
}

pub fn vector_column(name: &str, data_type: DataType, dim: i64, data: Vectors) -> FieldData {
    column(name, data_type, Values::Vectors(VectorField { dim, data: Some(data) }))
}

pub fn longs(name: &str, data: Vec<i64>) -> FieldData {
    scalar_column(name, DataType::Int64, Scalars::LongData(schema::LongArray { data }))
}

pub fn texts(name: &str, data: &[&str]) -> FieldData {
    let data = data.iter().map(|text| (*text).to_owned()).collect();
    scalar_column(name, DataType::VarChar, Scalars::StringData(schema::StringArray { data }))
}

pub fn floats(name: &str, dim: i64, data: Vec<f32>) -> FieldData {
    vector_column(name, DataType::FloatVector, dim, Vectors::FloatVector(schema::FloatArray { data }))
}

/// The rows as the log would bring them.
pub fn batch(row_count: usize, fields_data: Vec<FieldData>) -> RecordBatch {
    let message = msg::InsertRequest {
        fields_data,
        timestamps: vec![1; row_count],
        num_rows: row_count as u64,
        version: 1,
        ..Default::default()
    };
    Decoder::new().insert(&message.encode_to_vec().into()).unwrap().batch
}

/// Rows of a [`small_collection`] with integer keys, all with this text.
pub fn small_batch(keys: std::ops::Range<i64>, text: &str) -> RecordBatch {
    let keys: Vec<i64> = keys.collect();
    let count = keys.len();
    let vectors = keys.iter().flat_map(|key| [*key as f32, 0.5, -1.0, 2.0]).collect();
    batch(count, vec![longs("k", keys), texts("t", &vec![text; count]), floats("v", 4, vectors)])
}

pub fn index(field: &str, params: &[(&str, &str)]) -> Index {
    let params = params.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    Index { name: format!("on_{field}"), field: field.into(), params }
}

pub fn create_index(collection: &Collection, index: &Index) -> Ddl {
    Ddl::CreateIndex { id: collection.id, name: collection.name.clone(), index_id: 1, index: index.clone() }
}

pub fn set_load(collection: &Collection, from: Option<Load>, to: Option<Load>) -> Ddl {
    Ddl::SetLoad { id: collection.id, name: collection.name.clone(), from, to }
}

pub fn drop_collection(collection: &Collection) -> Ddl {
    Ddl::DropCollection { id: collection.id, name: collection.name.clone() }
}

/// Creates the collection with an index on `vector` and loads it.
pub async fn create_loaded(sink: &dyn Sink, collection: &Arc<Collection>, vector: &str, metric: &str) {
    sink.apply(&Ddl::CreateCollection(Arc::clone(collection)), Duration::from_secs(30)).await.unwrap();
    let kind = if metric == "HAMMING" { "BIN_FLAT" } else { "FLAT" };
    let index = index(vector, &[("index_type", kind), ("metric_type", metric)]);
    sink.apply(&create_index(collection, &index), Duration::from_secs(30)).await.unwrap();
    sink.apply(
        &set_load(collection, None, Some(Load { replicas: 1, partitions: None })),
        Duration::from_secs(30),
    )
    .await
    .unwrap();
}

/// Asks until the collection is loaded.
pub async fn query(
    client: &mut MilvusServiceClient<Channel>,
    name: &CollectionName,
    expr: &str,
    fields: &[&str],
    partitions: &[&str],
) -> QueryResults {
    for _ in 0..120 {
        let request = QueryRequest {
            db_name: name.database.clone(),
            collection_name: name.collection.clone(),
            expr: expr.into(),
            output_fields: fields.iter().map(|field| (*field).to_owned()).collect(),
            partition_names: partitions.iter().map(|name| (*name).to_owned()).collect(),
            ..Default::default()
        };
        let results = client.query(request).await.unwrap().into_inner();
        let status = results.status.clone().unwrap_or_default();
        if status.code == 0 && status.error_code == 0 {
            return results;
        }
        assert!(
            status.reason.contains("loaded") || status.reason.contains("channel"),
            "{} {}: {}",
            status.code,
            status.error_code,
            status.reason
        );
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    panic!("{name} is not loaded after a minute");
}

/// The number of rows, duplicates included.
pub async fn count(
    client: &mut MilvusServiceClient<Channel>,
    name: &CollectionName,
    partitions: &[&str],
) -> i64 {
    let results = query(client, name, "", &["count(*)"], partitions).await;
    match &results.fields_data[0].field {
        Some(Values::Scalars(ScalarField { data: Some(Scalars::LongData(longs)) })) => longs.data[0],
        other => panic!("{other:?}"),
    }
}

/// Each row as its column's values in words, by key.
pub fn rows(results: &QueryResults, key: &str, fields: &[&str]) -> BTreeMap<String, Vec<String>> {
    let column = |name: &str| {
        let found = results
            .fields_data
            .iter()
            .find(|data| data.field_name == name || data.is_dynamic && name == "$meta");
        cells(found.unwrap_or_else(|| panic!("no field {name} in {:?}", results.output_fields)))
    };
    let columns: Vec<_> = fields.iter().map(|name| column(name)).collect();
    let keys = column(key);
    let rows = keys.into_iter().enumerate();
    rows.map(|(row, key)| (key, columns.iter().map(|column| column[row].clone()).collect())).collect()
}

/// A column's values in words, one per row.
pub fn cells(data: &FieldData) -> Vec<String> {
    fn words<T: std::fmt::Debug>(values: &[T]) -> Vec<String> {
        values.iter().map(|value| format!("{value:?}")).collect()
    }
    match data.field.as_ref().unwrap() {
        Values::Scalars(scalars) => match scalars.data.as_ref().unwrap() {
            Scalars::BoolData(values) => words(&values.data),
            Scalars::IntData(values) => words(&values.data),
            Scalars::LongData(values) => words(&values.data),
            Scalars::FloatData(values) => words(&values.data),
            Scalars::DoubleData(values) => words(&values.data),
            Scalars::StringData(values) => words(&values.data),
            Scalars::JsonData(values) => {
                values.data.iter().map(|json| String::from_utf8_lossy(json).into_owned()).collect()
            }
            // A server gives an empty array back without saying of what it is empty.
            Scalars::ArrayData(values) => values.data.iter().map(elements).collect(),
            Scalars::BytesData(values) => words(&values.data),
        },
        Values::Vectors(vectors) => {
            let dim = usize::try_from(vectors.dim).unwrap();
            match vectors.data.as_ref().unwrap() {
                Vectors::FloatVector(values) => words(&values.data.chunks(dim).collect::<Vec<_>>()),
                Vectors::BinaryVector(values) => words(&values.chunks(dim / 8).collect::<Vec<_>>()),
                other => panic!("{other:?}"),
            }
        }
    }
}

fn elements(array: &ScalarField) -> String {
    match &array.data {
        None => "[]".into(),
        Some(Scalars::LongData(values)) => format!("{:?}", values.data),
        Some(Scalars::StringData(values)) => format!("{:?}", values.data),
        other => panic!("{other:?}"),
    }
}
