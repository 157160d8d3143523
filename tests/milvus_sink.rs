//! The Milvus sink against a real server: set MIGRANS_TEST_TARGET to its address, e.g. `http://127.0.0.1:19530`.
//! With MIGRANS_TEST_AUTH_TARGET, a server with `common.security.authorizationEnabled` and the user root:Milvus is
//! asked too.
#![allow(missing_docs, clippy::unwrap_used, reason = "a test may panic")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arrow_array::{ArrayRef, Int64Array, StringViewArray};
use migrans::milvus::catalog::{
    Collection, CollectionName, Database, Ddl, Field, Load, Partition, PartitionId,
};
use migrans::milvus::proto::common::LoadState;
use migrans::milvus::proto::milvus as pb;
use migrans::milvus::proto::milvus::milvus_service_client::MilvusServiceClient;
use migrans::milvus::proto::schema::scalar_field::Data as Scalars;
use migrans::milvus::proto::schema::vector_field::Data as Vectors;
use migrans::milvus::proto::schema::{self, DataType, ScalarField};
use migrans::milvus::tso::Tso;
use migrans::ownership::Fence;
use migrans::pipeline::{MilvusTarget, Secret, TargetMode};
use migrans::sinks::milvus::MilvusSink;
use migrans::sinks::{Found, Operation, Sink, Write};
use migrans::{Error, Kind};
use tonic::transport::Channel;

#[path = "milvus_sink/rows.rs"]
mod rows;

use rows::*;

const DEADLINE: Duration = Duration::from_secs(60);

struct Server {
    sink: MilvusSink,
    client: MilvusServiceClient<Channel>,
    uri: String,
}

fn target(uri: &str) -> MilvusTarget {
    MilvusTarget {
        uri: uri.into(),
        token: None,
        tls: None,
        mode: TargetMode::Write,
        adopt: false,
        connect_timeout: Duration::from_secs(5),
        names: Default::default(),
    }
}

fn address(variable: &str) -> Option<String> {
    let address = std::env::var(variable).ok().filter(|address| !address.is_empty());
    if address.is_none() {
        eprintln!("skipped: {variable} does not name a Milvus to test against");
    }
    address
}

async fn server() -> Option<Server> {
    let uri = address("MIGRANS_TEST_TARGET")?;
    let sink = MilvusSink::connect(&target(&uri), Fence::open()).await.unwrap();
    let channel = Channel::from_shared(uri.clone()).unwrap().connect().await.unwrap();
    let client = MilvusServiceClient::new(channel).max_decoding_message_size(256 << 20);
    Some(Server { sink, client, uri })
}

/// A name that no run before has used.
fn fresh(name: &str) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    format!("{name}_{}", now.as_millis())
}

fn write(collection: &Arc<Collection>, partition: Option<&str>, operation: Operation) -> Write {
    Write { collection: Arc::clone(collection), partition: partition.map(Into::into), operation }
}

impl Server {
    async fn write(
        &self,
        collection: &Arc<Collection>,
        partition: Option<&str>,
        operation: Operation,
    ) -> Result<(), Error> {
        self.sink.write(&write(collection, partition, operation), DEADLINE).await
    }

    async fn count(&mut self, collection: &Collection, partitions: &[&str]) -> i64 {
        count(&mut self.client, &collection.name, partitions).await
    }

    async fn load_state(&mut self, name: &CollectionName, partitions: &[&str]) -> LoadState {
        let request = pb::GetLoadStateRequest {
            db_name: name.database.clone(),
            collection_name: name.collection.clone(),
            partition_names: partitions.iter().map(|name| (*name).to_owned()).collect(),
            ..Default::default()
        };
        self.client.get_load_state(request).await.unwrap().into_inner().state()
    }
}

fn integer_keys(keys: impl IntoIterator<Item = i64>) -> Operation {
    let keys: ArrayRef = Arc::new(Int64Array::from_iter_values(keys));
    Operation::Delete(keys)
}

fn text_keys(keys: &[&str]) -> Operation {
    let keys: ArrayRef = Arc::new(StringViewArray::from_iter_values(keys));
    Operation::Delete(keys)
}

#[tokio::test]
async fn every_type_comes_back_as_it_was_written() {
    let Some(mut server) = server().await else { return };
    let array = Field {
        element_type: DataType::Int64 as i32,
        ..field(109, "a", DataType::Array, &[("max_capacity", "8")])
    };
    let words = Field {
        element_type: DataType::VarChar as i32,
        ..field(110, "w", DataType::Array, &[("max_capacity", "8"), ("max_length", "50")])
    };
    let meta = Field { dynamic: true, ..field(112, "$meta", DataType::Json, &[]) };
    let collection = Arc::new(collection(
        &fresh("types"),
        vec![
            field(100, "k", DataType::Int64, &[]),
            field(101, "b", DataType::Bool, &[]),
            field(102, "i8", DataType::Int8, &[]),
            field(103, "i16", DataType::Int16, &[]),
            field(104, "i32", DataType::Int32, &[]),
            field(105, "f", DataType::Float, &[]),
            field(106, "d", DataType::Double, &[]),
            field(107, "s", DataType::VarChar, &[("max_length", "500")]),
            field(108, "j", DataType::Json, &[]),
            array,
            words,
            field(111, "v", DataType::FloatVector, &[("dim", "4")]),
            meta,
        ],
    ));
    create_loaded(&server.sink, &collection, "v", "L2").await;

    let ints = |name: &str, data_type, data: Vec<i32>| {
        scalar_column(name, data_type, Scalars::IntData(schema::IntArray { data }))
    };
    let json = |name: &str, data: &[&str]| {
        let data = data.iter().map(|json| json.as_bytes().to_vec()).collect();
        scalar_column(name, DataType::Json, Scalars::JsonData(schema::JsonArray { data }))
    };
    let arrays = |name: &str, element_type: DataType, data: Vec<Scalars>| {
        let data = data.into_iter().map(|data| ScalarField { data: Some(data) }).collect();
        let element_type = element_type as i32;
        scalar_column(name, DataType::Array, Scalars::ArrayData(schema::ArrayArray { data, element_type }))
    };
    let long_array = |data: Vec<i64>| Scalars::LongData(schema::LongArray { data });
    let text_array = |data: &[&str]| {
        Scalars::StringData(schema::StringArray { data: data.iter().map(|text| (*text).into()).collect() })
    };
    let columns = |keys: Vec<i64>, shift: i32| {
        let long = "é\u{1F600}\"\\\n".repeat(20);
        vec![
            longs("k", keys),
            scalar_column(
                "b",
                DataType::Bool,
                Scalars::BoolData(schema::BoolArray { data: vec![true, false, shift > 0] }),
            ),
            ints("i8", DataType::Int8, vec![-128, 127, shift]),
            ints("i16", DataType::Int16, vec![-32768, 32767, shift]),
            ints("i32", DataType::Int32, vec![i32::MIN, i32::MAX, shift]),
            scalar_column(
                "f",
                DataType::Float,
                Scalars::FloatData(schema::FloatArray { data: vec![1.5, -0.0, f32::MAX] }),
            ),
            scalar_column(
                "d",
                DataType::Double,
                Scalars::DoubleData(schema::DoubleArray { data: vec![0.1, -1e300, f64::MIN_POSITIVE] }),
            ),
            texts("s", &["", "short", &long]),
            json("j", &["{\"a\": [1, 2.5, null]}", "{}", "{\"deep\": {\"x\": \"é\"}}"]),
            arrays(
                "a",
                DataType::Int64,
                vec![long_array(vec![i64::MIN, 0, i64::MAX]), long_array(vec![]), long_array(vec![7])],
            ),
            arrays(
                "w",
                DataType::VarChar,
                vec![text_array(&["", "x\ny"]), text_array(&["é"]), text_array(&[])],
            ),
            floats("v", 4, vec![0.0, 1.0, -2.5, 1e-20, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 1e20, shift as f32]),
            json("$meta", &["{\"free\": 1}", "{}", "{\"other\": \"text\"}"]),
        ]
    };
    let (one, other) = (columns(vec![i64::MIN, 0, i64::MAX - 1], 1), columns(vec![-1, 1, 2], 2));
    let batches = vec![batch(3, one.clone()), batch(3, other.clone())];
    server.write(&collection, None, Operation::Insert(batches)).await.unwrap();

    let names = ["b", "i8", "i16", "i32", "f", "d", "s", "j", "a", "w", "v", "$meta"];
    let asked = ["k", "b", "i8", "i16", "i32", "f", "d", "s", "j", "a", "w", "v", "$meta"];
    let mut expected = BTreeMap::new();
    for columns in [&one, &other] {
        let cells: Vec<_> = columns.iter().map(cells).collect();
        for (row, key) in cells[0].iter().enumerate() {
            expected
                .insert(key.clone(), cells[1..].iter().map(|column| column[row].clone()).collect::<Vec<_>>());
        }
    }
    let results = query(&mut server.client, &collection.name, "k != 424242", &asked, &[]).await;
    assert_eq!(rows(&results, "k", &names), expected);
    assert_eq!(server.count(&collection, &[]).await, 6);

    // An upsert leaves each key once.
    let upserted = columns(vec![0, 1, 3], 5);
    server
        .write(&collection, Some("_default"), Operation::Upsert(vec![batch(3, upserted.clone())]))
        .await
        .unwrap();
    let cells: Vec<_> = upserted.iter().map(cells).collect();
    for (row, key) in cells[0].iter().enumerate() {
        expected.insert(key.clone(), cells[1..].iter().map(|column| column[row].clone()).collect());
    }
    let results = query(&mut server.client, &collection.name, "k != 424242", &asked, &[]).await;
    assert_eq!(rows(&results, "k", &names), expected);
    assert_eq!(server.count(&collection, &[]).await, 7);

    // Deletes: the extremes, and keys that are not there.
    server.write(&collection, None, integer_keys([i64::MIN, i64::MAX - 1, 1, 555])).await.unwrap();
    for key in [i64::MIN, i64::MAX - 1, 1] {
        expected.remove(&key.to_string());
    }
    let results = query(&mut server.client, &collection.name, "k != 424242", &asked, &[]).await;
    assert_eq!(rows(&results, "k", &names), expected);

    // A 2.3.5 server never shows the row of the greatest key, however it came, but it does count it.
    let greatest = columns(vec![i64::MAX, 21, 22], 6);
    server.write(&collection, None, Operation::Insert(vec![batch(3, greatest)])).await.unwrap();
    assert_eq!(server.count(&collection, &[]).await, 7);
    server.write(&collection, None, integer_keys([i64::MAX])).await.unwrap();
    assert_eq!(server.count(&collection, &[]).await, 6);
    server.sink.apply(&drop_collection(&collection), Duration::from_secs(30)).await.unwrap();
}

#[tokio::test]
async fn binary_vectors_come_back_as_they_were_written() {
    let Some(mut server) = server().await else { return };
    let fields = vec![
        field(100, "k", DataType::Int64, &[]),
        field(101, "v", DataType::BinaryVector, &[("dim", "16")]),
    ];
    let collection = Arc::new(collection(&fresh("binary"), fields));
    create_loaded(&server.sink, &collection, "v", "HAMMING").await;
    let vectors = vector_column("v", DataType::BinaryVector, 16, Vectors::BinaryVector(vec![1, 2, 0xff, 0]));
    server
        .write(&collection, None, Operation::Insert(vec![batch(2, vec![longs("k", vec![1, 2]), vectors])]))
        .await
        .unwrap();
    let results = query(&mut server.client, &collection.name, "k > 0", &["k", "v"], &[]).await;
    let found = rows(&results, "k", &["v"]);
    assert_eq!(found["1"], ["[1, 2]"]);
    assert_eq!(found["2"], ["[255, 0]"]);
    server.sink.apply(&drop_collection(&collection), Duration::from_secs(30)).await.unwrap();
}

#[tokio::test]
async fn text_keys_of_any_content_are_found_and_deleted() {
    let Some(mut server) = server().await else { return };
    let collection = Arc::new(small_collection(&fresh("texts"), DataType::VarChar));
    create_loaded(&server.sink, &collection, "v", "L2").await;
    let keys = [
        "plain",
        "",
        "\"",
        "\\",
        "\\\"",
        "a\nb\rc\td",
        "\u{0}",
        "\u{7}\u{1b}",
        "é e\u{301}",
        "\u{1F600}\u{1F468}\u{200D}\u{1F469}",
        "\u{2028}",
        "'",
        "] or k != \"",
        "{x}",
        "%s\\n",
        "`$meta`",
        "\\u0041",
        "\u{feff}bom",
        " leading",
        "trailing ",
    ];
    let batch = batch(
        keys.len(),
        vec![
            texts("k", &keys),
            texts("t", &vec!["x"; keys.len()]),
            floats("v", 4, vec![0.0; 4 * keys.len()]),
        ],
    );
    server.write(&collection, None, Operation::Insert(vec![batch])).await.unwrap();
    let all = |results: &pb::QueryResults| rows(results, "k", &["t"]).into_keys().collect::<BTreeSet<_>>();
    let results = query(&mut server.client, &collection.name, "k != \"no such\"", &["k", "t"], &[]).await;
    assert_eq!(all(&results).len(), keys.len());
    // One by one, so that a key that hits another's row is noticed.
    for (gone, key) in keys.iter().enumerate() {
        server.write(&collection, None, text_keys(&[key])).await.unwrap();
        let results = query(&mut server.client, &collection.name, "k != \"no such\"", &["k", "t"], &[]).await;
        let left: BTreeSet<_> = keys[gone + 1..].iter().map(|key| format!("{key:?}")).collect();
        if left.is_empty() {
            assert_eq!(server.count(&collection, &[]).await, 0);
        } else {
            assert_eq!(all(&results), left, "after {key:?}");
        }
    }
    server.sink.apply(&drop_collection(&collection), Duration::from_secs(30)).await.unwrap();
}

#[tokio::test]
async fn rows_go_to_and_from_the_partition_that_is_named() {
    let Some(mut server) = server().await else { return };
    let mut collection = small_collection(&fresh("partitions"), DataType::Int64);
    collection.partitions.insert(PartitionId(2), Partition { name: "p".into(), created: Tso(1) });
    let collection = Arc::new(collection);
    create_loaded(&server.sink, &collection, "v", "L2").await;
    server.write(&collection, Some("p"), Operation::Insert(vec![small_batch(0..10, "p")])).await.unwrap();
    server
        .write(&collection, Some("_default"), Operation::Insert(vec![small_batch(5..15, "d")]))
        .await
        .unwrap();
    assert_eq!(server.count(&collection, &["p"]).await, 10);
    assert_eq!(server.count(&collection, &["_default"]).await, 10);

    server.write(&collection, Some("p"), integer_keys(0..6)).await.unwrap();
    assert_eq!(server.count(&collection, &["p"]).await, 4);
    assert_eq!(server.count(&collection, &["_default"]).await, 10);
    server.write(&collection, None, integer_keys(9..20)).await.unwrap();
    assert_eq!(server.count(&collection, &["p"]).await, 3);
    assert_eq!(server.count(&collection, &["_default"]).await, 4);

    // In a partition that is not there, nothing is left to delete, but nothing can be written either.
    server.write(&collection, Some("gone"), integer_keys(0..6)).await.unwrap();
    let error = server
        .write(&collection, Some("gone"), Operation::Insert(vec![small_batch(0..1, "x")]))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), Kind::NotFound, "{error:?}");
    let error = server
        .write(&collection, Some("gone"), Operation::Upsert(vec![small_batch(0..1, "x")]))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), Kind::NotFound, "{error:?}");
    server.sink.apply(&drop_collection(&collection), Duration::from_secs(30)).await.unwrap();
    let error = server.write(&collection, None, integer_keys(0..6)).await.unwrap_err();
    assert_eq!(error.kind(), Kind::NotFound, "{error:?}");
}

#[tokio::test]
async fn a_partition_key_decides_where_rows_go() {
    let Some(mut server) = server().await else { return };
    let mut collection = small_collection(&fresh("keyed"), DataType::Int64);
    collection.schema.fields[1].partition_key = true;
    collection.partitions = (0..5)
        .map(|id| (PartitionId(id), Partition { name: format!("_default_{id}"), created: Tso(1) }))
        .collect();
    let collection = Arc::new(collection);
    create_loaded(&server.sink, &collection, "v", "L2").await;
    server
        .sink
        .apply(&Ddl::CreateCollection(Arc::clone(&collection)), Duration::from_secs(30))
        .await
        .unwrap();
    let names = server
        .client
        .show_partitions(pb::ShowPartitionsRequest {
            collection_name: collection.name.collection.clone(),
            ..Default::default()
        })
        .await
        .unwrap()
        .into_inner()
        .partition_names;
    assert_eq!(names.len(), 5);
    server
        .write(&collection, Some("_default_3"), Operation::Insert(vec![small_batch(0..10, "x")]))
        .await
        .unwrap();
    server
        .write(&collection, Some("_default_1"), Operation::Upsert(vec![small_batch(5..12, "y")]))
        .await
        .unwrap();
    server.write(&collection, Some("_default_1"), integer_keys(0..2)).await.unwrap();
    // An upsert moves rows to the partition of their new value, and its delete reaches the old one.
    let results = query(&mut server.client, &collection.name, "k >= 0", &["k", "t"], &[]).await;
    let found = rows(&results, "k", &["t"]);
    assert_eq!(found.values().filter(|row| row[0] == "\"x\"").count(), 3);
    assert_eq!(found.values().filter(|row| row[0] == "\"y\"").count(), 7);
    server.sink.apply(&drop_collection(&collection), Duration::from_secs(30)).await.unwrap();
}

#[tokio::test]
async fn rows_beyond_the_size_of_a_request_are_sent_in_parts() {
    let Some(mut server) = server().await else { return };
    let dim: i64 = 32768;
    let fields = vec![
        field(100, "k", DataType::Int64, &[]),
        field(101, "v", DataType::FloatVector, &[("dim", &dim.to_string())]),
    ];
    let collection = Arc::new(collection(&fresh("large"), fields));
    create_loaded(&server.sink, &collection, "v", "L2").await;
    let rows = |keys: std::ops::Range<i64>| {
        let keys: Vec<_> = keys.collect();
        let count = keys.len();
        batch(count, vec![longs("k", keys), floats("v", dim, vec![0.25; count * 32768])])
    };
    let batches = vec![rows(0..300), rows(300..301), rows(301..600)];
    server.write(&collection, None, Operation::Insert(batches)).await.unwrap();
    assert_eq!(server.count(&collection, &[]).await, 600);
    server.write(&collection, None, integer_keys(0..120_000)).await.unwrap();
    assert_eq!(server.count(&collection, &[]).await, 0);
    server.sink.apply(&drop_collection(&collection), Duration::from_secs(30)).await.unwrap();
}

#[tokio::test]
async fn rows_that_can_not_be_taken_are_refused_for_good() {
    let Some(server) = server().await else { return };
    let collection = Arc::new(small_collection(&fresh("refused"), DataType::Int64));
    server
        .sink
        .apply(&Ddl::CreateCollection(Arc::clone(&collection)), Duration::from_secs(30))
        .await
        .unwrap();
    let kind_of = async |fields: Vec<schema::FieldData>| {
        let mut kinds = BTreeSet::new();
        for operation in [Operation::Insert, Operation::Upsert] {
            let error =
                server.write(&collection, None, operation(vec![batch(1, fields.clone())])).await.unwrap_err();
            kinds.insert(format!("{:?}", error.kind()));
        }
        kinds.into_iter().collect::<Vec<_>>()
    };
    let (k, t, v) = (longs("k", vec![1]), texts("t", &["x"]), floats("v", 4, vec![0.0; 4]));
    let long = texts("t", &["0123456789012345678901234567890"]);
    assert_eq!(kind_of(vec![k.clone(), long, v]).await, ["Refused"]);
    assert_eq!(kind_of(vec![k.clone(), t.clone(), floats("v", 5, vec![0.0; 5])]).await, ["Refused"]);
    assert_eq!(kind_of(vec![k, t, floats("v", 4, vec![f32::NAN; 4])]).await, ["Refused"]);
    let error = server.write(&collection, None, text_keys(&["a"])).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Refused, "{error:?}");
    server.sink.apply(&drop_collection(&collection), Duration::from_secs(30)).await.unwrap();
}

#[tokio::test]
async fn every_step_of_a_catalog_may_be_repeated() {
    let Some(mut server) = server().await else { return };
    let mut collection = small_collection(&fresh("steps"), DataType::Int64);
    collection.schema.fields[0].auto_id = true;
    collection.name.database = fresh("db");
    collection.properties = BTreeMap::from([("collection.ttl.seconds".into(), "3600".into())]);
    collection.partitions.insert(PartitionId(2), Partition { name: "p".into(), created: Tso(1) });
    let (id, name) = (collection.id, collection.name.clone());
    let database =
        Database { id: 7, name: name.database.clone(), created: Tso(1), properties: BTreeMap::new() };
    let collection = Arc::new(collection);
    assert_eq!(server.sink.find(&name).await.unwrap(), Found::Absent);

    let vector =
        index("v", &[("index_type", "IVF_FLAT"), ("metric_type", "IP"), ("params", "{\"nlist\": 16}")]);
    let text = index("t", &[("index_type", "Trie")]);
    let whole = Load { replicas: 1, partitions: None };
    let part = |names: &[&str]| Load {
        replicas: 1,
        partitions: Some(names.iter().map(|name| (*name).to_owned()).collect()),
    };
    let q = Partition { name: "q".into(), created: Tso(1) };
    let create_q =
        Ddl::CreatePartition { id, name: name.clone(), partition_id: PartitionId(3), partition: q };
    let drop_partition = |partition: &str| Ddl::DropPartition {
        id,
        name: name.clone(),
        partition_id: PartitionId(3),
        partition: partition.into(),
    };
    let drop_index = |index: &migrans::milvus::catalog::Index| Ddl::DropIndex {
        id,
        name: name.clone(),
        index_id: 1,
        index: index.clone(),
    };
    let twice = async |ddl: Ddl| {
        for _ in 0..2 {
            server
                .sink
                .apply(&ddl, Duration::from_secs(30))
                .await
                .unwrap_or_else(|error| panic!("{ddl:?}: {error:?}"));
        }
    };

    twice(Ddl::CreateDatabase(database.clone())).await;
    twice(Ddl::CreateCollection(Arc::clone(&collection))).await;
    assert_eq!(server.sink.find(&name).await.unwrap(), Found::Collection);
    assert_eq!(server.sink.differences(&collection).await.unwrap(), Vec::<String>::new());
    let mut client = server.client.clone();
    let describe = pb::DescribeCollectionRequest {
        db_name: name.database.clone(),
        collection_name: name.collection.clone(),
        ..Default::default()
    };
    let described = client.describe_collection(describe.clone()).await.unwrap().into_inner();
    let schema = described.schema.unwrap();
    assert_eq!(schema.description, "words");
    assert_eq!(schema.fields[1].description, "about t");
    assert_eq!((described.shards_num, described.consistency_level), (2, 2));
    assert_eq!(described.properties[0].value, "3600");
    assert!(!schema.auto_id && !schema.fields[0].auto_id);

    twice(create_index(&collection, &vector)).await;
    twice(create_index(&collection, &text)).await;
    let other = index("v", &[("index_type", "FLAT"), ("metric_type", "IP")]);
    let error =
        server.sink.apply(&create_index(&collection, &other), Duration::from_secs(30)).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Refused, "{error:?}");

    twice(set_load(&collection, None, Some(whole.clone()))).await;
    twice(create_q).await;
    twice(set_load(&collection, Some(whole.clone()), Some(part(&["p"])))).await;
    let mut states = server.client.clone();
    let mut state = async |partition: &str| {
        let request = pb::GetLoadStateRequest {
            db_name: name.database.clone(),
            collection_name: name.collection.clone(),
            partition_names: vec![partition.to_owned()],
            ..Default::default()
        };
        states.get_load_state(request).await.unwrap().into_inner().state()
    };
    assert_eq!(state("q").await, LoadState::NotLoad);
    assert_ne!(state("p").await, LoadState::NotLoad);
    twice(set_load(&collection, Some(part(&["p"])), Some(part(&["p", "q"])))).await;
    assert_ne!(state("q").await, LoadState::NotLoad);
    twice(set_load(&collection, Some(part(&["p", "q"])), Some(part(&["q"])))).await;
    assert_eq!(state("p").await, LoadState::NotLoad);
    twice(set_load(&collection, Some(part(&["q"])), Some(whole.clone()))).await;
    assert_ne!(state("p").await, LoadState::NotLoad);
    twice(drop_partition("q")).await;
    assert_ne!(state("p").await, LoadState::NotLoad);

    let properties =
        BTreeMap::from([("collection.ttl.seconds".into(), "60".into()), ("a".into(), "b".into())]);
    let removed = Default::default();
    twice(Ddl::SetProperties { id, name: name.clone(), removed, properties }).await;
    let described = client.describe_collection(describe.clone()).await.unwrap().into_inner();
    assert!(
        described.properties.iter().any(|pair| pair.key == "collection.ttl.seconds" && pair.value == "60")
    );

    twice(drop_index(&text)).await;
    twice(set_load(&collection, Some(whole.clone()), None)).await;
    twice(drop_index(&vector)).await;
    let error = server
        .sink
        .apply(&set_load(&collection, None, Some(whole)), Duration::from_secs(30))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), Kind::NotFound, "without an index: {error:?}");

    let mut other = Collection::clone(&collection);
    other.schema.fields[2].type_params.insert("dim".into(), "8".into());
    assert_eq!(
        server.sink.differences(&other).await.unwrap(),
        ["its field `v` has dim 4, the source's has 8"]
    );
    let error = server
        .sink
        .apply(&Ddl::CreateCollection(Arc::new(other)), Duration::from_secs(30))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), Kind::Conflict, "{error:?}");

    let drop_database = Ddl::DropDatabase { id: 7, name: name.database.clone() };
    let error = server.sink.apply(&drop_database, Duration::from_secs(30)).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Conflict, "{error:?}");
    twice(drop_collection(&collection)).await;
    twice(drop_partition("p")).await;
    twice(drop_index(&vector)).await;
    twice(drop_database.clone()).await;
    assert_eq!(server.sink.find(&name).await.unwrap(), Found::Absent);
    assert_eq!(server.load_state(&name, &[]).await, LoadState::NotExist);
}

#[tokio::test]
async fn a_collection_the_server_refuses_is_an_error_that_says_why() {
    let Some(server) = server().await else { return };
    let mut collection = small_collection(&fresh("shards"), DataType::Int64);
    collection.shards = 1000;
    let error = server
        .sink
        .apply(&Ddl::CreateCollection(Arc::new(collection)), Duration::from_secs(30))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), Kind::Refused, "{error:?}");
    let mut bad = small_collection(&fresh("bad"), DataType::Int64);
    bad.name.collection = "no-such-name!".into();
    let error =
        server.sink.apply(&Ddl::CreateCollection(Arc::new(bad)), Duration::from_secs(30)).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Refused, "{error:?}");
    assert!(error.message().contains(&server.uri), "{error:?}");
}

#[tokio::test]
async fn a_missing_or_wrong_token_is_denied() {
    let Some(uri) = address("MIGRANS_TEST_AUTH_TARGET") else { return };
    for token in [None, Some("root:wrong"), Some("key")] {
        let token = token.map(|token| Secret(token.into()));
        let error =
            MilvusSink::connect(&MilvusTarget { token, ..target(&uri) }, Fence::open()).await.err().unwrap();
        assert_eq!(error.kind(), Kind::Denied, "{error:?}");
        assert!(error.message().contains(&uri), "{error:?}");
    }
    let token = Some(Secret("root:Milvus".into()));
    let sink = MilvusSink::connect(&MilvusTarget { token, ..target(&uri) }, Fence::open()).await.unwrap();
    assert!(sink.describe().contains("v2.3"), "{}", sink.describe());
}
