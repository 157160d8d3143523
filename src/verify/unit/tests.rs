//! Reading rows, also from a fake server, for what a real 2.3.5 does not do on demand: withhold a column, answer in small
//! parts, find its own answer too large, answer with other keys than it was asked for.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response};

use super::*;
use crate::milvus::proto::common::Status;
use crate::milvus::proto::milvus as pb;
use crate::milvus::proto::milvus::milvus_service_server::{MilvusService, MilvusServiceServer};
use crate::milvus::proto::schema::field_data::Field as Values;
use crate::milvus::proto::schema::scalar_field::Data as Scalars;
use crate::milvus::proto::schema::vector_field::Data as Vectors;
use crate::milvus::proto::schema::{self, DataType, FieldData, ScalarField, VectorField};
use crate::ownership::Fence;
use crate::pipeline::MilvusServer;
use crate::proxy::Role;

/// What the fake does with a query that has the vector in it.
#[derive(Clone, Copy, Default)]
struct Script {
    refuses_vectors: bool,
    leaves_vectors_out: bool,
    /// The most rows in an answer, whatever the limit.
    rows: Option<usize>,
    /// More rows than this are too large for a message.
    fits: Option<usize>,
    /// Answers as if it had not been asked for anything particular.
    ignores_filters: bool,
}

/// Holds rows with the keys 0 to 99, each with a vector of its own.
#[derive(Clone)]
struct FakeMilvus(Arc<Script>);

#[tonic::async_trait]
impl MilvusService for FakeMilvus {
    async fn connect(
        &self,
        _: Request<pb::ConnectRequest>,
    ) -> Result<Response<pb::ConnectResponse>, tonic::Status> {
        Ok(Response::new(Default::default()))
    }

    async fn get_version(
        &self,
        _: Request<pb::GetVersionRequest>,
    ) -> Result<Response<pb::GetVersionResponse>, tonic::Status> {
        Ok(Response::new(pb::GetVersionResponse { version: "2.4.1".into(), ..Default::default() }))
    }

    async fn query(
        &self,
        request: Request<pb::QueryRequest>,
    ) -> Result<Response<pb::QueryResults>, tonic::Status> {
        let (script, asked) = (*self.0, request.into_inner());
        let wants_vector = asked.output_fields.iter().any(|field| field == "v");
        if wants_vector && script.refuses_vectors {
            let status = Status { code: 1100, reason: "no raw data of v".into(), ..Default::default() };
            return Ok(Response::new(pb::QueryResults { status: Some(status), ..Default::default() }));
        }
        let limit = asked.query_params.iter().find(|pair| pair.key == "limit");
        let limit = limit.map_or(usize::MAX, |pair| pair.value.parse().unwrap());
        let filter = if script.ignores_filters { String::new() } else { asked.expr };
        let keys: Vec<i64> =
            (0..100).filter(|key| takes(&filter, *key)).take(limit.min(script.rows.unwrap_or(100))).collect();
        if script.fits.is_some_and(|fits| keys.len() > fits) {
            let said = "grpc: received message larger than max (70000091 vs. 67108864)";
            return Err(tonic::Status::resource_exhausted(said));
        }
        let vectors = schema::FloatArray { data: keys.iter().map(|key| *key as f32).collect() };
        let vectors = VectorField { dim: 1, data: Some(Vectors::FloatVector(vectors)) };
        let keys = ScalarField { data: Some(Scalars::LongData(schema::LongArray { data: keys })) };
        let column = |name: &str, data_type: DataType, field| FieldData {
            field_name: name.into(),
            r#type: data_type as i32,
            field: Some(field),
            ..Default::default()
        };
        let mut fields_data = vec![column("k", DataType::Int64, Values::Scalars(keys))];
        if wants_vector && !script.leaves_vectors_out {
            fields_data.push(column("v", DataType::FloatVector, Values::Vectors(vectors)));
        }
        Ok(Response::new(pb::QueryResults { fields_data, ..Default::default() }))
    }
}

/// Understands the filters of this module.
fn takes(filter: &str, key: i64) -> bool {
    let number = |text: &str| text.trim_matches(['[', ']']).parse::<i64>().unwrap();
    filter.split(" and ").filter(|part| !part.is_empty()).all(|part| {
        let parts: Vec<&str> = part.split(' ').collect();
        match parts[1] {
            ">" => key > number(parts[2]),
            "<=" => key <= number(parts[2]),
            _ => parts[2].split(',').any(|listed| number(listed) == key),
        }
    })
}

async fn client(script: Script) -> Client {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let uri = format!("http://{}", listener.local_addr().unwrap());
    let service = MilvusServiceServer::new(FakeMilvus(Arc::new(script)));
    let server = tonic::transport::Server::builder().add_service(service);
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    let server = MilvusServer { uri, token: None, tls: None, connect_timeout: Duration::from_secs(5) };
    Client::connect(&server, Role::Source, Fence::open()).await.unwrap()
}

fn unit() -> Unit {
    Unit {
        collection: CollectionName { database: "default".into(), collection: "c".into() },
        on_target: CollectionName { database: "default".into(), collection: "c".into() },
        partition: None,
        key: "k".into(),
        fields: vec!["k".into(), "v".into()],
        vectors: vec!["v".into()],
        row_size: 12,
    }
}

#[tokio::test]
async fn vectors_that_a_server_does_not_return_are_named() {
    let withheld = async |script| unit().withheld(&client(script).await, Tso(1)).await.unwrap();
    assert_eq!(withheld(Script::default()).await, []);
    let refused = withheld(Script { refuses_vectors: true, ..Script::default() }).await;
    assert_eq!(refused.len(), 1);
    assert!(refused[0].0 == "v" && refused[0].1.contains("no raw data of v"), "{refused:?}");
    let left_out = withheld(Script { leaves_vectors_out: true, ..Script::default() }).await;
    assert_eq!(left_out, [("v".to_owned(), "the server leaves it out".to_owned())]);
}

#[tokio::test]
async fn keys_are_asked_for_until_all_are_known() {
    let client = client(Script { rows: Some(3), ..Script::default() }).await;
    let keys: Vec<Key> = [2, 3, 5, 7, 11, 13, 200, 300].map(Key::Int).to_vec();
    let rows = unit().rows(&client, &keys, 12, Tso(1)).await.unwrap();
    let found: BTreeMap<_, _> = rows.into_iter().collect();
    assert_eq!(found.keys().cloned().collect::<Vec<_>>(), keys[..6]);
}

#[tokio::test]
async fn all_pages_together_are_all_rows() {
    for script in [
        Script::default(),
        Script { rows: Some(7), ..Script::default() },
        Script { fits: Some(5), ..Script::default() },
    ] {
        let (client, unit) = (client(script).await, unit());
        let (mut size, mut range, mut keys) = (PageSize::new(12), Range::default(), Vec::new());
        loop {
            let page = unit.page(&client, &range, &mut size, Tso(1)).await.unwrap();
            let Some((last, _)) = page.rows.last() else { break };
            range.after = Some(last.clone());
            keys.extend(page.rows.into_iter().map(|(key, _)| key));
        }
        assert_eq!(keys, (0..100).map(Key::Int).collect::<Vec<_>>());
        let rows = unit.rows(&client, &keys, 12, Tso(1)).await.unwrap();
        assert_eq!(rows.len(), 100);
        assert_eq!(unit.keys(&client, &Range::default(), Tso(1)).await.unwrap(), keys);
    }
}

#[tokio::test]
async fn other_keys_than_those_asked_for_are_an_error() {
    let client = client(Script { ignores_filters: true, ..Script::default() }).await;
    let range = Range { after: Some(Key::Int(50)), up_to: None };
    let error = unit().page(&client, &range, &mut PageSize::new(12), Tso(1)).await.err().unwrap();
    assert_eq!(error.kind(), Kind::Corrupt);
}

#[test]
fn pages_grow_and_shrink_with_their_rows() {
    let mut size = PageSize::new(512);
    assert_eq!(size.rows(), 910);
    size.follow(600);
    assert_eq!(size.rows(), 3640);
    size.follow(600);
    size.follow(600);
    assert_eq!(size.rows(), 6990);
    size.follow(10);
    assert_eq!(size.rows(), MAX_ROWS);
    size.follow(usize::MAX);
    assert_eq!(size.rows(), 1);
    assert!(!size.shrink());
    size.follow(1);
    assert!(size.shrink());
    assert_eq!(size.rows(), 1);
}

#[test]
fn filters_are_cut_by_keys_and_by_bytes() {
    let numbers: Vec<Key> = (0..10_000).map(Key::Int).collect();
    assert_eq!(chunk(&numbers, MAX_KEYS), MAX_KEYS);
    assert_eq!(chunk(&numbers[..7], MAX_KEYS), 7);
    let long = vec![Key::Text("x".repeat(MAX_FILTER / 4).into()); 10];
    assert_eq!(chunk(&long, MAX_KEYS), 4);
    assert_eq!(chunk(&long, 1), 1);
}
