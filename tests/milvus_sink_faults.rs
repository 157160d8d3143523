//! The Milvus sink against a fake server, for what a real one does not do on demand: lose an answer, limit the
//! rate in the middle of a write, stay silent, vanish.
#![allow(missing_docs, clippy::unwrap_used, reason = "a test may panic")]

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use migrans::Kind;
use migrans::milvus::proto::common::Status;
use migrans::milvus::proto::milvus as pb;
use migrans::milvus::proto::milvus::milvus_service_server::{MilvusService, MilvusServiceServer};
use migrans::milvus::proto::schema::DataType;
use migrans::ownership::Fence;
use migrans::pipeline::{MilvusTarget, Secret, TargetMode};
use migrans::sinks::milvus::MilvusSink;
use migrans::sinks::{Operation, Sink, Write};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response};

#[allow(dead_code, reason = "shared with the tests on a real server")]
#[path = "milvus_sink/rows.rs"]
mod rows;

use rows::*;

/// What the fake does with a call that writes.
#[derive(Clone, Copy, Debug)]
enum Script {
    /// Takes the rows.
    Take,
    /// Refuses with this code.
    Answer(i32, i32),
    /// Takes the rows and never answers.
    TakeAndBeSilent,
    /// Takes the rows; then the connection breaks.
    TakeAndCut,
}

#[derive(Default)]
struct State {
    script: VecDeque<Script>,
    /// Number of rows of each insert or upsert that was taken.
    taken: Vec<u32>,
    headers: BTreeMap<String, String>,
}

#[derive(Clone)]
struct FakeMilvus {
    version: &'static str,
    state: Arc<Mutex<State>>,
    cut: watch::Sender<u32>,
}

impl FakeMilvus {
    async fn rows(
        &self,
        row_count: u32,
        headers: &tonic::metadata::MetadataMap,
    ) -> Response<pb::MutationResult> {
        let step = {
            let mut state = self.state.lock().unwrap();
            for name in ["authorization", "grpc-timeout"] {
                if let Some(value) = headers.get(name) {
                    state.headers.insert(name.into(), value.to_str().unwrap().into());
                }
            }
            let step = state.script.pop_front().unwrap_or(Script::Take);
            if !matches!(step, Script::Answer(..)) {
                state.taken.push(row_count);
            }
            step
        };
        let mut result = pb::MutationResult { insert_cnt: i64::from(row_count), ..Default::default() };
        match step {
            Script::Take => {}
            Script::Answer(error_code, code) => {
                let reason = "as the script says".into();
                result.status = Some(Status { error_code, code, reason, ..Default::default() });
            }
            Script::TakeAndBeSilent => std::future::pending().await,
            Script::TakeAndCut => {
                self.cut.send_modify(|count| *count += 1);
                std::future::pending().await
            }
        }
        Response::new(result)
    }
}

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
        Ok(Response::new(pb::GetVersionResponse { version: self.version.into(), ..Default::default() }))
    }

    async fn insert(
        &self,
        request: Request<pb::InsertRequest>,
    ) -> Result<Response<pb::MutationResult>, tonic::Status> {
        Ok(self.rows(request.get_ref().num_rows, request.metadata()).await)
    }

    async fn upsert(
        &self,
        request: Request<pb::UpsertRequest>,
    ) -> Result<Response<pb::MutationResult>, tonic::Status> {
        Ok(self.rows(request.get_ref().num_rows, request.metadata()).await)
    }

    async fn delete(
        &self,
        request: Request<pb::DeleteRequest>,
    ) -> Result<Response<pb::MutationResult>, tonic::Status> {
        Ok(self.rows(0, request.metadata()).await)
    }

    async fn load_collection(
        &self,
        _: Request<pb::LoadCollectionRequest>,
    ) -> Result<Response<Status>, tonic::Status> {
        let step = self.state.lock().unwrap().script.pop_front();
        let Some(Script::Answer(error_code, code)) = step else {
            return Ok(Response::new(Default::default()));
        };
        let reason = "as the script says".into();
        Ok(Response::new(Status { error_code, code, reason, ..Default::default() }))
    }

    async fn get_load_state(
        &self,
        _: Request<pb::GetLoadStateRequest>,
    ) -> Result<Response<pb::GetLoadStateResponse>, tonic::Status> {
        Ok(Response::new(pb::GetLoadStateResponse { state: 3, ..Default::default() }))
    }
}

/// A fake Milvus behind a proxy that can cut connections.
struct Fake {
    uri: String,
    milvus: FakeMilvus,
    proxy: tokio::task::JoinHandle<()>,
}

impl Fake {
    async fn start(version: &'static str, script: &[Script]) -> Fake {
        let state = State { script: script.iter().copied().collect(), ..Default::default() };
        let (cut, cuts) = watch::channel(0);
        let milvus = FakeMilvus { version, state: Arc::new(Mutex::new(state)), cut };
        let backend = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let backend_address = backend.local_addr().unwrap();
        let service = MilvusServiceServer::new(milvus.clone()).max_decoding_message_size(64 << 20);
        tokio::spawn(
            tonic::transport::Server::builder()
                .add_service(service)
                .serve_with_incoming(TcpListenerStream::new(backend)),
        );
        let front = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let uri = format!("http://{}", front.local_addr().unwrap());
        let proxy = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((mut client, _)) = front.accept().await {
                let mut cuts = cuts.clone();
                cuts.mark_unchanged();
                connections.spawn(async move {
                    let mut server = TcpStream::connect(backend_address).await.unwrap();
                    tokio::select! {
                        _ = tokio::io::copy_bidirectional(&mut client, &mut server) => {}
                        _ = cuts.changed() => {}
                    }
                });
            }
        });
        Fake { uri, milvus, proxy }
    }

    async fn sink(&self) -> Result<MilvusSink, migrans::Error> {
        MilvusSink::connect(
            &MilvusTarget { token: Some(Secret("root:Milvus".into())), ..target(&self.uri) },
            Fence::open(),
        )
        .await
    }

    fn taken(&self) -> Vec<u32> {
        self.milvus.state.lock().unwrap().taken.clone()
    }
}

fn target(uri: &str) -> MilvusTarget {
    MilvusTarget {
        uri: uri.into(),
        token: None,
        tls: None,
        mode: TargetMode::Write,
        adopt: false,
        connect_timeout: Duration::from_secs(2),
        names: Default::default(),
    }
}

fn write(operation: Operation) -> Write {
    let collection = Arc::new(small_collection("c", DataType::Int64));
    Write { collection, partition: Some("_default".into()), operation }
}

fn insert() -> Write {
    write(Operation::Insert(vec![small_batch(0..3, "x")]))
}

fn upsert() -> Write {
    write(Operation::Upsert(vec![small_batch(0..3, "x")]))
}

const DEADLINE: Duration = Duration::from_secs(10);

#[tokio::test]
async fn a_lost_answer_is_in_doubt_and_the_connection_comes_back() {
    let fake = Fake::start("v2.3.5", &[Script::TakeAndCut]).await;
    let sink = fake.sink().await.unwrap();
    let error = sink.write(&insert(), DEADLINE).await.unwrap_err();
    assert_eq!(error.kind(), Kind::InDoubt, "{error:?}");
    assert_eq!(fake.taken(), [3], "the write happened");
    sink.write(&upsert(), DEADLINE).await.unwrap();
    assert_eq!(fake.taken(), [3, 3]);
}

#[tokio::test]
async fn silence_is_in_doubt_at_the_deadline_which_the_server_knows_too() {
    let fake = Fake::start("v2.3.5", &[Script::TakeAndBeSilent]).await;
    let sink = fake.sink().await.unwrap();
    let start = Instant::now();
    let error = sink.write(&insert(), Duration::from_millis(400)).await.unwrap_err();
    assert_eq!(error.kind(), Kind::InDoubt, "{error:?}");
    assert!(start.elapsed() < Duration::from_secs(2));
    let headers = fake.milvus.state.lock().unwrap().headers.clone();
    let timeout = &headers["grpc-timeout"];
    let amount: u64 = timeout[..timeout.len() - 1].parse().unwrap();
    let amount = match timeout.as_bytes().last() {
        Some(b'n') => Duration::from_nanos(amount),
        Some(b'u') => Duration::from_micros(amount),
        Some(b'm') => Duration::from_millis(amount),
        other => panic!("{other:?}"),
    };
    assert!(amount <= Duration::from_millis(400) && amount > Duration::from_millis(300), "{amount:?}");
    assert_eq!(headers["authorization"], "cm9vdDpNaWx2dXM=");
}

#[tokio::test]
async fn a_limited_rate_is_told_and_nothing_was_taken() {
    let fake =
        Fake::start("v2.3.5", &[Script::Answer(49, 8), Script::Answer(48, 9), Script::Answer(1, 65535)])
            .await;
    let sink = fake.sink().await.unwrap();
    for kind in [Kind::RateLimited, Kind::Exhausted, Kind::InDoubt] {
        let error = sink.write(&insert(), DEADLINE).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{error:?}");
    }
    sink.write(&insert(), DEADLINE).await.unwrap();
    assert_eq!(fake.taken(), [3]);
}

#[tokio::test]
async fn an_insert_that_is_limited_after_its_first_part_is_in_doubt() {
    let dim: i64 = 1 << 20;
    let fields = vec![
        field(100, "k", DataType::Int64, &[]),
        field(101, "v", DataType::FloatVector, &[("dim", &dim.to_string())]),
    ];
    let collection = Arc::new(collection("c", fields));
    let vectors = vec![0.0; 24 << 20];
    let rows = batch(24, vec![longs("k", (0..24).collect()), floats("v", dim, vectors)]);
    for (operation, kind) in [
        (Operation::Insert(vec![rows.clone()]), Kind::InDoubt),
        (Operation::Upsert(vec![rows.clone()]), Kind::RateLimited),
    ] {
        let fake = Fake::start("v2.3.5", &[Script::Take, Script::Answer(49, 8)]).await;
        let sink = fake.sink().await.unwrap();
        let write = Write { collection: Arc::clone(&collection), partition: None, operation };
        let error = sink.write(&write, Duration::from_secs(60)).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{error:?}");
        assert_eq!(fake.taken(), [12]);
    }
}

#[tokio::test]
async fn a_server_that_is_gone_is_unavailable_and_nothing_was_sent() {
    let fake = Fake::start("v2.3.5", &[]).await;
    let sink = fake.sink().await.unwrap();
    sink.write(&insert(), DEADLINE).await.unwrap();
    fake.milvus.cut.send_modify(|count| *count += 1);
    fake.proxy.abort();
    tokio::time::sleep(Duration::from_millis(200)).await;
    let error = sink.write(&insert(), DEADLINE).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Unavailable, "{error:?}");
    assert_eq!(fake.taken(), [3]);
}

#[tokio::test]
async fn a_step_that_keeps_failing_without_a_reason_is_refused_in_the_end() {
    let unknown = Script::Answer(1, 65535);
    let collection = small_collection("c", DataType::Int64);
    let load =
        set_load(&collection, None, Some(migrans::milvus::catalog::Load { replicas: 1, partitions: None }));
    let fake = Fake::start("v2.3.5", &[unknown; 3]).await;
    fake.sink().await.unwrap().apply(&load, Duration::from_secs(30)).await.unwrap();
    let fake = Fake::start("v2.3.5", &[unknown; 9]).await;
    let error = fake.sink().await.unwrap().apply(&load, Duration::from_secs(30)).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Refused, "{error:?}");
    assert!(error.message().contains("as the script says"), "{error:?}");
}

#[tokio::test]
async fn versions_that_are_not_supported_are_refused() {
    for version in ["v2.2.9", "v2.6.3"] {
        let error = Fake::start(version, &[]).await.sink().await.err().unwrap();
        assert_eq!(error.kind(), Kind::Version, "{error:?}");
        assert!(error.message().contains(version), "{error:?}");
    }
    for version in ["v2.3.0", "2.4.23", "v2.5.24"] {
        let sink = Fake::start(version, &[]).await.sink().await.unwrap();
        assert!(sink.describe().contains(version), "{}", sink.describe());
    }
}

#[tokio::test]
async fn what_is_not_a_milvus_is_told() {
    // Nobody listens.
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let error = MilvusSink::connect(&target(&format!("http://{free}")), Fence::open()).await.err().unwrap();
    assert_eq!(error.kind(), Kind::Unavailable, "{error:?}");
    assert!(error.message().contains(&free.to_string()), "{error:?}");

    // Somebody listens and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let uri = format!("http://{}", silent.local_addr().unwrap());
    let start = Instant::now();
    let error = MilvusSink::connect(&target(&uri), Fence::open()).await.err().unwrap();
    assert_eq!(error.kind(), Kind::Unavailable, "{error:?}");
    assert!(start.elapsed() < Duration::from_secs(8));

    // A web server.
    let web = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let uri = format!("http://{}", web.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut client, _)) = web.accept().await {
            let mut request = [0; 1024];
            let _ = client.read(&mut request).await;
            let _ = client.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n").await;
        }
    });
    let error = MilvusSink::connect(&target(&uri), Fence::open()).await.err().unwrap();
    eprintln!("{error:?}");
    assert!(matches!(error.kind(), Kind::Unavailable | Kind::Version), "{error:?}");
    assert!(error.message().contains(&uri), "{error:?}");

    // Another gRPC server.
    let other = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let uri = format!("http://{}", other.local_addr().unwrap());
    let routes = tonic::service::Routes::default();
    tokio::spawn(
        tonic::transport::Server::builder()
            .add_routes(routes)
            .serve_with_incoming(TcpListenerStream::new(other)),
    );
    let error = MilvusSink::connect(&target(&uri), Fence::open()).await.err().unwrap();
    assert_eq!(error.kind(), Kind::Version, "{error:?}");

    for uri in ["ftp://host:1", "not an address", "host:19530"] {
        let error = MilvusSink::connect(&target(uri), Fence::open()).await.err().unwrap();
        assert_eq!(error.kind(), Kind::PipelineFile, "{uri}: {error:?}");
    }
}
