//! What the tests of the Pulsar source have in common: a writer of topics, a reader of deliveries, and the broker's
//! admin interface.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError};
use migrans::Error;
use migrans::dataflow::channels::Channels;
use migrans::dataflow::credits::{Credit, Credits};
use migrans::milvus::channel::{PChannel, Position};
use migrans::milvus::proto::common::MsgBase;
use migrans::milvus::proto::msg::{InsertRequest, TimeTickMsg};
use migrans::pipeline::PulsarConfig;
use migrans::sources::pulsar::Pulsar;
use migrans::sources::{Context, Delivery, EnvelopeKind, LogSource, Start};
use prost::Message;
use pulsar::compression::{Compression, CompressionZstd};
use pulsar::{Producer, ProducerOptions, TokioExecutor, producer};
use serde_json::Value;
use tokio::runtime::Runtime;

pub const SOON: Duration = Duration::from_secs(20);

/// A broker to test against, a topic of its own for the test, and a source.
pub struct Lab {
    pub config: PulsarConfig,
    pub topic: PChannel,
    pub channels: Arc<Channels>,
    pub credits: Arc<Credits>,
    pub context: Context,
    admin: String,
    runtime: Runtime,
    client: pulsar::Pulsar<TokioExecutor>,
    _alone: MutexGuard<'static, ()>,
}

/// Some tests change what the namespace keeps.
static ALONE: Mutex<()> = Mutex::new(());

/// `None`, with a word about it, unless the environment names a broker.
pub fn lab(test: &str) -> Option<Lab> {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let (Some(address), Some(admin)) =
        (variable("MIGRANS_TEST_PULSAR"), variable("MIGRANS_TEST_PULSAR_ADMIN"))
    else {
        eprintln!(
            "skipped: MIGRANS_TEST_PULSAR and MIGRANS_TEST_PULSAR_ADMIN name no Pulsar to test against"
        );
        return None;
    };
    let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let uri = format!("pulsar://{address}");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let client = runtime.block_on(pulsar::Pulsar::builder(uri.clone(), TokioExecutor).build()).unwrap();
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let topic = PChannel(format!("{test}-{}-{number}", std::process::id()).into());
    let (channels, credits): (Arc<Channels>, _) = (Arc::default(), Credits::new(64 << 20));
    channels.open(&topic);
    let context = Context::new(
        Arc::clone(&credits),
        Arc::clone(&channels),
        Arc::new(AtomicBool::new(false)),
        std::env::temp_dir(),
    );
    let config = PulsarConfig {
        uri,
        tenant: "public".to_owned(),
        namespace: "default".to_owned(),
        token: None,
        subscription: None,
        tls: None,
    };
    Some(Lab { config, topic, channels, credits, context, admin, runtime, client, _alone: alone })
}

impl Lab {
    pub fn source(&self) -> Pulsar {
        Pulsar::connect(&self.config, self.context.clone()).unwrap()
    }

    pub fn full_name(&self) -> String {
        format!("persistent://public/default/{}", self.topic)
    }

    /// A producer, in whose hands the topic comes into being. With `batch`, that many messages make an entry.
    pub fn writer(&self, batch: Option<u32>, zstd: bool) -> Writer<'_> {
        let options = ProducerOptions {
            batch_size: batch,
            block_queue_if_full: true,
            compression: zstd.then(|| Compression::Zstd(CompressionZstd::default())),
            ..ProducerOptions::default()
        };
        let producer = self.client.producer().with_topic(self.full_name()).with_options(options);
        let producer = self.runtime.block_on(producer.build()).unwrap();
        Writer { lab: self, producer: Some(producer) }
    }

    /// Asks the broker's admin interface.
    pub fn admin(&self, method: &str, path: &str, body: &str) -> Value {
        let address = self.admin.trim_start_matches("http://").split('/').next().unwrap();
        let mut socket = TcpStream::connect(address).unwrap();
        let length = body.len();
        write!(
            socket,
            "{method} /admin/v2/{path} HTTP/1.0\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
        )
        .unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap();
        assert!(status.starts_with('2'), "{method} {path}: {answer}");
        serde_json::from_str(body).unwrap_or(Value::Null)
    }

    pub fn about_topic(&self, what: &str) -> Value {
        self.admin("GET", &format!("persistent/public/default/{}/{what}", self.topic), "")
    }

    pub fn topics(&self) -> String {
        self.admin("GET", "persistent/public/default", "").to_string()
    }

    /// Sends the topic's clients away; it goes on in a new ledger.
    pub fn unload(&self) {
        self.admin("PUT", &format!("persistent/public/default/{}/unload", self.topic), "");
    }

    pub fn ledgers(&self) -> Vec<u64> {
        let stats = self.about_topic("internalStats");
        stats["ledgers"]
            .as_array()
            .unwrap()
            .iter()
            .map(|ledger| ledger["ledgerId"].as_u64().unwrap())
            .collect()
    }

    /// Deletes all ledgers but the one that is written to.
    pub fn trim(&self) {
        let old = self.ledgers();
        self.unload();
        self.retention(0);
        until("the ledgers to be deleted", || self.ledgers().iter().all(|ledger| !old.contains(ledger)));
        self.retention(-1);
    }

    /// What the namespace keeps of what all subscriptions have acknowledged: 0 nothing, -1 everything.
    pub fn retention(&self, value: i32) {
        let body = format!("{{\"retentionTimeInMinutes\":{value},\"retentionSizeInMB\":{value}}}");
        self.admin("POST", "namespaces/public/default/retention", &body);
    }
}

/// Writes messages as Milvus does.
pub struct Writer<'a> {
    lab: &'a Lab,
    producer: Option<Producer<TokioExecutor>>,
}

impl Drop for Writer<'_> {
    fn drop(&mut self) {
        // It says good-bye by a task.
        let _entered = self.lab.runtime.enter();
        self.producer = None;
    }
}

impl Writer<'_> {
    fn send(&mut self, payloads: Vec<Vec<u8>>) {
        let messages =
            payloads.into_iter().map(|payload| producer::Message { payload, ..producer::Message::default() });
        let producer = self.producer.as_mut().unwrap();
        self.lab.runtime.block_on(async {
            let mut sent = Vec::new();
            for message in messages {
                sent.push(Box::pin(producer.send_non_blocking(message)).await.unwrap());
            }
            if producer.options().batch_size.is_some() {
                producer.send_batch().await.unwrap();
            }
            for receipt in sent {
                receipt.await.unwrap();
            }
        });
    }

    /// Inserts with these numbers as ids, of about `size` bytes each.
    pub fn inserts(&mut self, ids: impl IntoIterator<Item = i64>, size: usize) {
        let collection_name: String =
            (0..size).map(|at| char::from(b'a' + u8::try_from(at * 7 % 23).unwrap())).collect();
        let insert = |id| {
            let base = Some(MsgBase { msg_type: 400, msg_id: id, ..MsgBase::default() });
            InsertRequest { base, collection_name: collection_name.clone(), ..InsertRequest::default() }
        };
        self.send(ids.into_iter().map(|id| insert(id).encode_to_vec()).collect());
    }

    pub fn ticks(&mut self, ticks: impl IntoIterator<Item = u64>) {
        let tick = |timestamp| {
            let base = Some(MsgBase { msg_type: 1200, timestamp, ..MsgBase::default() });
            TimeTickMsg { base }.encode_to_vec()
        };
        self.send(ticks.into_iter().map(tick).collect());
    }
}

/// What a channel has handed over.
pub struct Reading {
    queue: Receiver<Delivery>,
    pub ids: Vec<i64>,
    pub positions: HashMap<i64, Position>,
    pub ticks: usize,
    pub caught_up: bool,
    pub failed: Option<Error>,
    /// Credit that is not given back.
    pub keep: Option<Vec<Credit>>,
}

pub fn open(source: &Pulsar, topic: &PChannel, start: Start) -> Reading {
    Reading {
        queue: source.open(topic, start),
        ids: Vec::new(),
        positions: HashMap::new(),
        ticks: 0,
        caught_up: false,
        failed: None,
        keep: None,
    }
}

impl Reading {
    /// Takes deliveries until `done`, or for so long.
    pub fn read_until(&mut self, done: impl Fn(&Reading) -> bool) -> &mut Self {
        let deadline = Instant::now() + SOON;
        while !done(self) {
            assert!(
                self.take(deadline),
                "not in time: {:?}, ticks {}, {:?}",
                self.ids,
                self.ticks,
                self.failed
            );
        }
        self
    }

    /// Takes what comes until the budget is full.
    pub fn read_until_waiting_for_memory(&mut self, lab: &Lab) {
        let waiting = || lab.channels.now(&lab.credits)[0].waiting.as_ref().map(|(what, _)| what.to_string());
        let began = Instant::now();
        while waiting().as_deref() != Some("the memory budget") {
            assert!(began.elapsed() < SOON, "{:?}, read {:?}", waiting(), self.ids);
            self.read_for(Duration::from_millis(200));
        }
        self.read_for(Duration::from_millis(500));
    }

    /// Takes what comes in this time.
    pub fn read_for(&mut self, time: Duration) -> &mut Self {
        let deadline = Instant::now() + time;
        while self.take(deadline) {}
        self
    }

    fn take(&mut self, deadline: Instant) -> bool {
        match self.queue.recv_deadline(deadline) {
            Ok(Delivery::Messages(envelopes)) => {
                for envelope in envelopes {
                    match envelope.kind {
                        EnvelopeKind::Insert(bytes, credit) => {
                            let insert = InsertRequest::decode(bytes).unwrap();
                            let id = insert.base.unwrap().msg_id;
                            self.positions.insert(id, envelope.position);
                            self.ids.push(id);
                            if let Some(keep) = &mut self.keep {
                                keep.push(credit);
                            }
                        }
                        EnvelopeKind::Tick(_) => self.ticks += 1,
                        other => panic!("{other:?}"),
                    }
                }
                true
            }
            Ok(Delivery::CaughtUp) => {
                assert!(!self.caught_up, "said twice");
                self.caught_up = true;
                true
            }
            Ok(Delivery::Failed(error)) => {
                self.failed = Some(error);
                true
            }
            Err(RecvTimeoutError::Timeout) => false,
            Err(RecvTimeoutError::Disconnected) => false,
        }
    }
}

pub fn until(what: &str, done: impl Fn() -> bool) {
    let deadline = Instant::now() + SOON;
    while !done() {
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}
