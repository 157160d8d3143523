//! The standby's sink against a fake server, for what a real one does not do on demand: answer late, or not at all, and
//! say how many calls it has at one time.
#![allow(missing_docs, clippy::unwrap_used, reason = "a test may panic")]

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use migrans::Kind;
use migrans::milvus::catalog::{Catalog, Collection, CollectionId, Ddl};
use migrans::milvus::change::Message;
use migrans::milvus::channel::VChannel;
use migrans::milvus::proto::common::{MsgBase, MsgHeader, Status};
use migrans::milvus::proto::milvus as pb;
use migrans::milvus::proto::milvus::milvus_service_server::{MilvusService, MilvusServiceServer};
use migrans::milvus::proto::msg;
use migrans::milvus::proto::schema::DataType;
use migrans::milvus::tso::Tso;
use migrans::ownership::Fence;
use migrans::pipeline::{MilvusTarget, Names, TargetMode};
use migrans::sinks::replicate::ReplicateSink;
use migrans::sinks::{Forwarded, Operation, Sink, Write};
use prost::Message as _;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response};

#[allow(dead_code, reason = "shared with the tests on a real server")]
#[path = "milvus_sink/rows.rs"]
mod rows;

const DEADLINE: Duration = Duration::from_secs(10);
const INSERT: i32 = 400;
const TICK: i32 = 1200;
const DROP_COLLECTION: i32 = 101;

/// What the fake does with a call that puts something into a topic.
#[derive(Clone, Copy, Debug)]
enum Script {
    Take,
    TakeAndBeSilent,
    Refuse(i32),
}

#[derive(Default)]
struct State {
    is_primary: bool,
    /// How long messages take.
    pause: Duration,
    script: VecDeque<Script>,
    /// Calls with messages that are under way now, by topic, and the most that ever were: in one topic, and in all.
    under_way: BTreeMap<String, usize>,
    most: (usize, usize),
    /// What came, in the order in which it was answered: the topic, what it is and its time.
    got: Vec<(String, i32, u64)>,
}

#[derive(Clone, Default)]
struct FakeStandby(Arc<Mutex<State>>);

#[tonic::async_trait]
impl MilvusService for FakeStandby {
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
        Ok(Response::new(pb::GetVersionResponse { version: "v2.3.5".into(), ..Default::default() }))
    }

    /// Collections `a` and `b` have one shard each in one topic, all others in one of their own.
    async fn describe_collection(
        &self,
        request: Request<pb::DescribeCollectionRequest>,
    ) -> Result<Response<pb::DescribeCollectionResponse>, tonic::Status> {
        let name = request.into_inner().collection_name;
        let topic = if name == "a" || name == "b" { "shared" } else { &name };
        Ok(Response::new(pb::DescribeCollectionResponse {
            collection_id: 5,
            virtual_channel_names: vec![format!("{topic}_5v0")],
            ..Default::default()
        }))
    }

    async fn show_partitions(
        &self,
        _: Request<pb::ShowPartitionsRequest>,
    ) -> Result<Response<pb::ShowPartitionsResponse>, tonic::Status> {
        Ok(Response::new(pb::ShowPartitionsResponse {
            partition_names: vec!["_default".into()],
            partition_i_ds: vec![6],
            ..Default::default()
        }))
    }

    async fn replicate_message(
        &self,
        request: Request<pb::ReplicateMessageRequest>,
    ) -> Result<Response<pb::ReplicateMessageResponse>, tonic::Status> {
        let request = request.into_inner();
        let refusal = |code| {
            let reason = "as the script says".into();
            let status = Some(Status { error_code: 1, code, reason, ..Default::default() });
            Ok(Response::new(pb::ReplicateMessageResponse { status, ..Default::default() }))
        };
        let topic = request.channel_name;
        let kind = |message: &Vec<u8>| MsgHeader::decode(&**message).unwrap().base.unwrap().msg_type;
        let (step, pause) = {
            let mut state = self.0.lock().unwrap();
            if state.is_primary {
                return refusal(1900);
            }
            if topic.is_empty() {
                return refusal(1100);
            }
            let is_tick = request.msgs.iter().all(|message| kind(message) == TICK);
            if !is_tick {
                *state.under_way.entry(topic.clone()).or_default() += 1;
                let here = state.under_way[&topic];
                let all = state.under_way.values().sum();
                state.most = (state.most.0.max(here), state.most.1.max(all));
            }
            let step = state.script.pop_front().unwrap_or(Script::Take);
            (step, if is_tick { Duration::ZERO } else { state.pause })
        };
        tokio::time::sleep(pause).await;
        {
            let mut state = self.0.lock().unwrap();
            if let Some(count) = state.under_way.get_mut(&topic) {
                *count = count.saturating_sub(1);
            }
            if let Script::Refuse(code) = step {
                return refusal(code);
            }
            for message in &request.msgs {
                assert_eq!(
                    request.base.as_ref().map(|base| base.replicate_info.unwrap().is_replicate),
                    Some(true)
                );
                state.got.push((topic.clone(), kind(message), request.end_ts));
            }
        }
        if matches!(step, Script::TakeAndBeSilent) {
            std::future::pending::<()>().await;
        }
        Ok(Response::new(Default::default()))
    }
}

impl FakeStandby {
    async fn start(&self) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let uri = format!("http://{}", listener.local_addr().unwrap());
        let service = MilvusServiceServer::new(self.clone());
        tokio::spawn(
            tonic::transport::Server::builder()
                .add_service(service)
                .serve_with_incoming(TcpListenerStream::new(listener)),
        );
        uri
    }

    async fn sink(&self) -> migrans::Result<ReplicateSink> {
        let target = MilvusTarget {
            uri: self.start().await,
            token: None,
            tls: None,
            mode: TargetMode::Replicate,
            adopt: false,
            connect_timeout: Duration::from_secs(2),
            names: Names::default(),
        };
        ReplicateSink::connect(&target, Fence::open()).await
    }

    fn script(&self, steps: &[Script]) {
        self.0.lock().unwrap().script = steps.iter().copied().collect();
    }

    /// What came of this kind.
    fn got(&self, wanted: i32) -> Vec<(String, u64)> {
        let state = self.0.lock().unwrap();
        let of_kind = state.got.iter().filter(|(_, kind, _)| *kind == wanted);
        of_kind.map(|(topic, _, ts)| (topic.clone(), *ts)).collect()
    }

    /// Waits until so many ticks have come.
    async fn ticks(&self, count: usize) -> Vec<(String, u64)> {
        let until = std::time::Instant::now() + DEADLINE;
        while self.got(TICK).len() < count {
            assert!(std::time::Instant::now() < until, "only these ticks came: {:?}", self.got(TICK));
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let mut ticks = self.got(TICK);
        ticks.sort();
        ticks
    }
}

fn collection(name: &str, id: i64) -> Collection {
    Collection { id: CollectionId(id), ..rows::small_collection(name, DataType::Int64) }
}

fn catalog(collections: &[(&str, i64)]) -> Catalog {
    let mut catalog = Catalog::default();
    for (name, id) in collections {
        catalog.collections.insert(CollectionId(*id), collection(name, *id));
    }
    catalog
}

fn insert(name: &str, id: i64, ts: u64) -> Write {
    let payload = msg::InsertRequest {
        base: Some(MsgBase { msg_type: INSERT, msg_id: 9, ..Default::default() }),
        shard_name: format!("source_{id}v0"),
        collection_id: id,
        partition_id: 3,
        timestamps: vec![ts],
        num_rows: 1,
        ..Default::default()
    };
    let message = Message { is_insert: true, rows: 1, payload: Bytes::from(payload.encode_to_vec()) };
    let messages = vec![Forwarded { ts: Tso(ts), partition: Some("_default".into()), message }];
    let shard = VChannel(format!("source_{id}v0").into());
    Write {
        collection: Arc::new(collection(name, id)),
        partition: None,
        operation: Operation::Messages(shard, messages),
    }
}

#[tokio::test]
async fn a_primary_is_refused() {
    let fake = FakeStandby::default();
    fake.0.lock().unwrap().is_primary = true;
    let Err(error) = fake.sink().await else { panic!("it was taken for a standby") };
    assert_eq!(error.kind(), Kind::Refused, "{error:?}");
    assert!(error.message().contains("is not a standby"), "{error}");
}

#[tokio::test]
async fn one_call_is_in_flight_to_a_topic_and_topics_go_side_by_side() {
    let fake = FakeStandby::default();
    fake.0.lock().unwrap().pause = Duration::from_millis(50);
    let sink = Arc::new(fake.sink().await.unwrap());
    let mut calls = tokio::task::JoinSet::new();
    for ts in 1..=4 {
        for (id, name) in (1..).zip(["a", "b", "c"]) {
            let sink = Arc::clone(&sink);
            calls.spawn(async move { sink.write(&insert(name, id, ts), DEADLINE).await });
        }
    }
    while let Some(result) = calls.join_next().await {
        result.unwrap().unwrap();
    }
    assert_eq!(fake.0.lock().unwrap().most, (1, 2), "in one topic, in both");
    assert_eq!(fake.got(INSERT).len(), 12);
}

#[tokio::test]
async fn what_has_no_turn_in_time_was_not_sent_and_is_not_in_doubt() {
    let fake = FakeStandby::default();
    fake.0.lock().unwrap().pause = Duration::from_millis(500);
    let sink = fake.sink().await.unwrap();
    let (first, second) = (insert("a", 1, 1), insert("b", 2, 2));
    let (first, second) =
        tokio::join!(sink.write(&first, DEADLINE), sink.write(&second, Duration::from_millis(200)));
    first.unwrap();
    assert_eq!(second.unwrap_err().kind(), Kind::Unavailable);
    assert_eq!(fake.got(INSERT), [("shared".to_owned(), 1)]);
}

#[tokio::test]
async fn a_lost_answer_is_in_doubt_and_the_topic_is_free_again() {
    let fake = FakeStandby::default();
    let sink = fake.sink().await.unwrap();
    fake.script(&[Script::TakeAndBeSilent]);
    let error = sink.write(&insert("a", 1, 1), Duration::from_millis(300)).await.unwrap_err();
    assert_eq!(error.kind(), Kind::InDoubt, "{error:?}");
    sink.write(&insert("a", 1, 1), DEADLINE).await.unwrap();
    assert_eq!(fake.got(INSERT).len(), 2, "the standby knows the second again by its id");
}

/// INVARIANT 9
#[tokio::test]
async fn a_tick_goes_to_each_topic_only_when_all_up_to_it_is_recorded() {
    let fake = FakeStandby::default();
    let sink = fake.sink().await.unwrap();
    sink.resume(&catalog(&[("a", 1), ("c", 3)]), None).await.unwrap();
    sink.write(&insert("a", 1, 5), DEADLINE).await.unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(fake.got(TICK), [], "it is acknowledged, but not recorded");
    sink.committed(Tso(7));
    assert_eq!(fake.ticks(2).await, [("c".to_owned(), 7), ("shared".to_owned(), 7)]);
    sink.committed(Tso(6));
    sink.write(&insert("d", 4, 8), DEADLINE).await.unwrap();
    sink.committed(Tso(9));
    let all = [("c", 7), ("c", 9), ("d", 9), ("shared", 7), ("shared", 9)];
    assert_eq!(fake.ticks(5).await, all.map(|(topic, ts)| (topic.to_owned(), ts)));
    sink.settle(DEADLINE).await.unwrap();
}

#[tokio::test]
async fn a_start_gives_the_last_tick_again() {
    let fake = FakeStandby::default();
    let sink = fake.sink().await.unwrap();
    sink.resume(&catalog(&[("a", 1)]), Some(Tso(7))).await.unwrap();
    assert_eq!(fake.ticks(1).await, [("shared".to_owned(), 7)]);
}

#[tokio::test]
async fn a_tick_that_fails_is_given_until_it_is_taken() {
    let fake = FakeStandby::default();
    let sink = fake.sink().await.unwrap();
    sink.resume(&catalog(&[("a", 1)]), None).await.unwrap();
    fake.script(&[Script::Refuse(8), Script::Refuse(2)]);
    sink.committed(Tso(7));
    sink.settle(DEADLINE).await.unwrap();
    assert_eq!(fake.got(TICK), [("shared".to_owned(), 7)]);
    assert!(sink.failed().is_none());
    fake.script(&[Script::Refuse(1100)]);
    sink.committed(Tso(8));
    let error = sink.settle(Duration::from_millis(300)).await.unwrap_err();
    assert!(error.message().contains("queries don't show it yet"), "{error}");
    assert_eq!(sink.failed().unwrap().kind(), Kind::Refused, "a standby no more: the pipeline stops");
}

#[tokio::test]
async fn nodes_hear_of_a_drop_behind_all_rows_and_by_the_next_tick() {
    let fake = FakeStandby::default();
    let sink = fake.sink().await.unwrap();
    sink.write(&insert("a", 1, 5), DEADLINE).await.unwrap();
    sink.committed(Tso(3));
    fake.ticks(1).await;
    let drop = Ddl::DropCollection { id: CollectionId(1), name: collection("a", 1).name };
    // The fake has no call that drops it, so that it goes no further.
    sink.apply(&drop, Duration::from_millis(300)).await.unwrap_err();
    assert_eq!(fake.got(DROP_COLLECTION), [("shared".to_owned(), 5)]);
    sink.committed(Tso(6));
    assert_eq!(fake.ticks(2).await.last(), Some(&("shared".to_owned(), 6)));
}
