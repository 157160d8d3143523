//! The source against a RocksDB that the test writes the way Milvus does.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command as Process;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError};
use prost::Message;
use rocksdb::{ColumnFamilyDescriptor, DB, DBCompressionType, Options};

use super::RocksMq;
use super::key::{position, position_id};
use crate::dataflow::credits::Credits;
use crate::error::{Error, Kind};
use crate::milvus::channel::{PChannel, Position};
use crate::milvus::proto::common::MsgBase;
use crate::milvus::proto::msg::{DeleteRequest, InsertRequest, TimeTickMsg};
use crate::milvus::tso::Tso;
use crate::pipeline::RocksmqConfig;
use crate::sources::{Context, Delivery, EnvelopeKind, LogSource, Start};

mod files;

const SOON: Duration = Duration::from_secs(20);

/// Milvus' side of a RocksMQ.
struct Writer {
    db: DB,
}

impl Writer {
    /// Opens or creates the store with the settings of Milvus, but for the size of its write buffer.
    fn open(path: &Path, write_buffer: usize) -> Writer {
        let mut options = Options::default();
        options.create_if_missing(true);
        options.create_missing_column_families(true);
        options.set_write_buffer_size(write_buffer);
        options.set_num_levels(5);
        let (none, zstd) = (DBCompressionType::None, DBCompressionType::Zstd);
        options.set_compression_per_level(&[none, none, zstd, zstd, zstd]);
        let families =
            ["default", "properties"].map(|name| ColumnFamilyDescriptor::new(name, options.clone()));
        Writer { db: DB::open_cf_descriptors(&options, path, families).unwrap() }
    }

    fn put(&self, topic: &str, id: i64, payload: &[u8]) {
        self.db.put(format!("{topic}/{id}"), payload).unwrap();
    }

    fn tick(&self, topic: &str, id: i64, ts: u64) {
        self.put(topic, id, &TimeTickMsg { base: base(1200, id, ts) }.encode_to_vec());
    }

    /// An insert whose payload has about `size` bytes.
    fn insert(&self, topic: &str, id: i64, size: usize) {
        let collection_name = "x".repeat(size);
        self.put(
            topic,
            id,
            &InsertRequest { base: base(400, id, 0), collection_name, ..Default::default() }.encode_to_vec(),
        );
    }

    fn delete(&self, topic: &str, id: i64) {
        self.put(topic, id, &DeleteRequest { base: base(401, id, 0), ..Default::default() }.encode_to_vec());
    }

    /// Removes the messages up to `last`, as Milvus' retention does.
    fn trim(&self, topic: &str, last: i64) {
        let default = self.db.cf_handle("default").unwrap();
        self.db.delete_range_cf(default, format!("{topic}/0"), format!("{topic}/{}", last + 1)).unwrap();
    }

    fn compact(&self) {
        self.db.flush().unwrap();
        self.db.compact_range(None::<&[u8]>, None::<&[u8]>);
    }
}

fn base(msg_type: i32, msg_id: i64, timestamp: u64) -> Option<MsgBase> {
    Some(MsgBase { msg_type, msg_id, timestamp, ..Default::default() })
}

/// A folder with a RocksMQ in it, and what a pipeline gives to its source.
struct Lab {
    folder: tempfile::TempDir,
    context: Context,
    wakes: Arc<AtomicUsize>,
}

impl Lab {
    fn new(budget: u64) -> Lab {
        let folder = tempfile::tempdir().unwrap();
        let wakes = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&wakes);
        let scratch = folder.path().join("scratch");
        let mut context = Context::new(Credits::new(budget), Arc::default(), Arc::default(), scratch);
        context.wake = Arc::new(move || {
            counter.fetch_add(1, Ordering::Relaxed);
        });
        Lab { folder, context, wakes }
    }

    fn writer(&self) -> Writer {
        self.writer_with_buffer(64 << 20)
    }

    fn writer_with_buffer(&self, size: usize) -> Writer {
        Writer::open(&self.path(), size)
    }

    fn path(&self) -> std::path::PathBuf {
        self.folder.path().join("rdb_data")
    }

    fn connect(&self) -> RocksMq {
        self.try_connect(&self.path()).unwrap()
    }

    fn try_connect(&self, path: &Path) -> Result<RocksMq, Error> {
        RocksMq::connect(&RocksmqConfig { path: path.to_owned() }, self.context.clone())
    }
}

fn channel(name: &str) -> PChannel {
    PChannel(name.into())
}

/// One thing that came out of a queue.
#[derive(Debug, PartialEq, Eq)]
enum Seen {
    Tick(i64, u64),
    Insert(i64, usize),
    Delete(i64),
    CaughtUp,
    Failed(Kind, String),
}

/// The consumer of one channel.
struct Consumer {
    queue: Receiver<Delivery>,
    seen: Vec<Seen>,
    ended: bool,
}

impl Consumer {
    fn open(source: &RocksMq, name: &str, start: Start) -> Consumer {
        Consumer { queue: source.open(&channel(name), start), seen: Vec::new(), ended: false }
    }

    /// Takes what is there, waiting for the first of it. Credits are returned at once.
    fn take(&mut self, wait: Duration) {
        let mut wait = wait;
        while self.take_one(wait) {
            wait = Duration::ZERO;
        }
    }

    /// Takes one delivery; `false` if there is none.
    fn take_one(&mut self, wait: Duration) -> bool {
        match self.queue.recv_timeout(wait) {
            Ok(Delivery::Messages(envelopes)) => {
                assert!(!envelopes.is_empty());
                for envelope in envelopes {
                    let id = position_id(&envelope.position).unwrap();
                    self.seen.push(match envelope.kind {
                        EnvelopeKind::Tick(Tso(ts)) => Seen::Tick(id, ts),
                        EnvelopeKind::Insert(payload, credit) => {
                            assert!(u64::try_from(payload.len()).unwrap() < credit.bytes());
                            assert_eq!(
                                InsertRequest::decode(payload.clone()).unwrap().base.unwrap().msg_id,
                                id
                            );
                            Seen::Insert(id, payload.len())
                        }
                        EnvelopeKind::Delete(..) => Seen::Delete(id),
                        EnvelopeKind::Other(..) => continue,
                    });
                }
            }
            Ok(Delivery::CaughtUp) => self.seen.push(Seen::CaughtUp),
            Ok(Delivery::Failed(error)) => self.seen.push(Seen::Failed(error.kind(), error.report())),
            Err(RecvTimeoutError::Timeout) => return false,
            Err(RecvTimeoutError::Disconnected) => {
                self.ended = true;
                return false;
            }
        }
        true
    }

    fn take_until(&mut self, done: impl Fn(&[Seen]) -> bool) -> &[Seen] {
        let deadline = Instant::now() + SOON;
        while !done(&self.seen) {
            assert!(!self.ended && Instant::now() < deadline, "still waiting, with {:?}", self.seen);
            self.take(Duration::from_millis(20));
        }
        &self.seen
    }

    fn take_until_caught_up(&mut self) -> &[Seen] {
        self.take_until(|seen| seen.contains(&Seen::CaughtUp))
    }

    fn take_until_failed(&mut self) -> (Kind, String) {
        let seen = self.take_until(|seen| matches!(seen.last(), Some(Seen::Failed(..))));
        match seen.last() {
            Some(Seen::Failed(kind, report)) => (*kind, report.clone()),
            _ => unreachable!(),
        }
    }

    fn ids(&self) -> Vec<i64> {
        let id = |seen: &Seen| match seen {
            Seen::Tick(id, _) | Seen::Insert(id, _) | Seen::Delete(id) => Some(*id),
            Seen::CaughtUp | Seen::Failed(..) => None,
        };
        self.seen.iter().filter_map(id).collect()
    }
}

#[test]
fn a_backlog_comes_first_then_caught_up_then_what_is_written() {
    let lab = Lab::new(1 << 20);
    let writer = lab.writer();
    writer.insert("t", 101, 10);
    writer.tick("t", 105, 7);
    writer.delete("t", 109);
    let source = lab.connect();
    let mut consumer = Consumer::open(&source, "t", Start::Earliest);
    let seen = consumer.take_until_caught_up();
    assert!(
        matches!(seen[..], [Seen::Insert(101, _), Seen::Tick(105, 7), Seen::Delete(109), Seen::CaughtUp]),
        "{seen:?}"
    );
    let mut worst = Duration::ZERO;
    for id in 110..160 {
        std::thread::sleep(Duration::from_millis(3));
        let written = Instant::now();
        writer.tick("t", id, 8);
        consumer.take_until(|seen| matches!(seen.last(), Some(Seen::Tick(last, _)) if *last == id));
        worst = worst.max(written.elapsed());
    }
    assert!(worst < Duration::from_millis(500), "{worst:?}");
    assert_eq!(consumer.seen.iter().filter(|seen| **seen == Seen::CaughtUp).count(), 1);
    assert!(lab.wakes.load(Ordering::Relaxed) > 0);
    assert_eq!(lab.context.credits.held(), 0);
}

#[test]
fn a_topic_whose_name_starts_like_another_is_apart() {
    let lab = Lab::new(1 << 20);
    let writer = lab.writer();
    for (topic, id) in
        [("a_1", 100), ("a_10", 101), ("a_1", 102), ("a_10", 103), ("a_100", 104), ("a_2", 105)]
    {
        writer.insert(topic, id, 10);
    }
    let source = lab.connect();
    let mut short = Consumer::open(&source, "a_1", Start::Earliest);
    let mut long = Consumer::open(&source, "a_10", Start::Earliest);
    short.take_until_caught_up();
    long.take_until_caught_up();
    writer.insert("a_10", 106, 10);
    writer.insert("a_1", 107, 10);
    long.take_until(|seen| matches!(seen.last(), Some(Seen::Insert(106, _))));
    short.take_until(|seen| matches!(seen.last(), Some(Seen::Insert(107, _))));
    assert_eq!(short.ids(), [100, 102, 107]);
    assert_eq!(long.ids(), [101, 103, 106]);
}

#[test]
fn ticks_without_messages_between_them_are_told_by_the_last() {
    let lab = Lab::new(1 << 20);
    let writer = lab.writer();
    for id in 1000..9000 {
        writer.tick("t", id, u64::try_from(id).unwrap());
    }
    // Ticks may run backwards: the promise of 8999 stays.
    writer.tick("t", 9000, 5);
    let source = lab.connect();
    let mut consumer = Consumer::open(&source, "t", Start::Earliest);
    consumer.take_until_caught_up();
    let (last, ticks) = consumer.seen.split_last().unwrap();
    assert_eq!(*last, Seen::CaughtUp);
    assert!(ticks.len() < 10, "{} ticks", ticks.len());
    assert!(matches!(ticks.last(), Some(Seen::Tick(9000, 8999 | 5))), "{ticks:?}");
}

#[test]
fn a_start_position_is_inclusive_and_must_be_there() {
    let lab = Lab::new(1 << 20);
    let writer = lab.writer();
    for id in [100, 200, 300] {
        writer.insert("t", id, 10);
    }
    let source = lab.connect();
    for (start, expected) in [(100, vec![100, 200, 300]), (200, vec![200, 300]), (300, vec![300])] {
        let mut consumer = Consumer::open(&source, "t", Start::At(position(start)));
        consumer.take_until_caught_up();
        assert_eq!(consumer.ids(), expected);
    }
    for (start, words) in [(150, "200"), (99, "100"), (301, "none after it")] {
        let mut consumer = Consumer::open(&source, "t", Start::At(position(start)));
        let (kind, report) = consumer.take_until_failed();
        assert_eq!(kind, Kind::Gap);
        assert!(report.contains("channel t") && report.contains(&start.to_string()), "{report}");
        assert!(report.contains(words) && report.contains("hint:"), "{report}");
        assert!(consumer.ids().is_empty());
        consumer.take(SOON);
        assert!(consumer.ended, "nothing follows a failure");
    }
    let mut unknown = Consumer::open(&source, "no_such", Start::At(position(1)));
    assert_eq!(unknown.take_until_failed().0, Kind::Gap);
    let mut nonsense = Consumer::open(&source, "t", Start::At(Position(vec![1, 2, 3])));
    assert_eq!(nonsense.take_until_failed().0, Kind::Corrupt);
}

#[test]
fn caught_up_is_about_what_was_there_when_the_channel_was_opened() {
    let lab = Lab::new(1 << 20);
    let writer = lab.writer();
    for id in 1000..2000 {
        writer.insert("t", id, 1000);
    }
    let source = lab.connect();
    let mut consumer = Consumer::open(&source, "t", Start::Earliest);
    assert!(consumer.take_one(SOON));
    // While the queue is full, more comes, and the first scan gets too old.
    std::thread::sleep(super::scans::SCAN_AGE);
    for id in 2000..3000 {
        writer.insert("t", id, 1000);
    }
    std::thread::sleep(Duration::from_millis(100));
    consumer.take_until(|seen| matches!(seen.last(), Some(Seen::Insert(2999, _))));
    let place = consumer.seen.iter().position(|seen| *seen == Seen::CaughtUp).unwrap();
    assert!((1000..1100).contains(&place), "{place}");
    assert_eq!(consumer.ids(), (1000..3000).collect::<Vec<_>>());
}

#[test]
fn a_topic_that_does_not_exist_yet_is_waited_for() {
    let lab = Lab::new(1 << 20);
    let writer = lab.writer();
    writer.tick("another", 1, 1);
    let source = lab.connect();
    let mut consumer = Consumer::open(&source, "t", Start::Earliest);
    consumer.take_until_caught_up();
    writer.insert("t", 500, 10);
    consumer.take_until(|seen| seen.len() == 2);
    assert_eq!(consumer.ids(), [500]);
}

#[test]
fn ids_are_read_in_numeric_order_when_their_length_grows() {
    let lab = Lab::new(1 << 20);
    let writer = lab.writer();
    for id in [97, 98, 99, 100, 101] {
        writer.insert("t", id, 10);
    }
    let source = lab.connect();
    let mut all = Consumer::open(&source, "t", Start::Earliest);
    all.take_until_caught_up();
    assert_eq!(all.ids(), [97, 98, 99, 100, 101]);
    let mut rest = Consumer::open(&source, "t", Start::At(position(99)));
    rest.take_until_caught_up();
    assert_eq!(rest.ids(), [99, 100, 101]);
    writer.insert("growing", 99, 10);
    let mut growing = Consumer::open(&source, "growing", Start::Earliest);
    growing.take_until_caught_up();
    for id in [100, 101, 150] {
        writer.insert("growing", id, 10);
        growing.take_until(|seen| matches!(seen.last(), Some(Seen::Insert(last, _)) if *last == id));
    }
    assert_eq!(growing.ids(), [99, 100, 101, 150]);
}

#[test]
fn the_budget_holds_one_channel_back_and_not_the_others() {
    let lab = Lab::new(100_000);
    let writer = lab.writer();
    for id in 100..200 {
        writer.insert("big", id, 10_000);
        writer.insert("small", id, 100);
    }
    let source = lab.connect();
    let credits = &lab.context.credits;
    let big = source.open(&channel("big"), Start::Earliest);
    // Hold on to everything that comes from the big channel, until the budget is used up.
    let mut kept = Vec::new();
    while let Ok(delivery) = big.recv_timeout(Duration::from_millis(300)) {
        kept.push(delivery);
    }
    assert!(credits.held() > 40_000 && credits.peak() <= 100_000, "{} {}", credits.held(), credits.peak());
    let mut small = Consumer::open(&source, "small", Start::Earliest);
    small.take_until_caught_up();
    assert_eq!(small.ids().len(), 100);
    kept.clear();
    let mut count = 0;
    while count < 50 {
        match big.recv_timeout(SOON).unwrap() {
            Delivery::Messages(envelopes) => count += envelopes.len(),
            other => panic!("{other:?}"),
        }
        assert!(credits.peak() <= 100_000);
    }
}

#[test]
fn the_channel_that_is_furthest_behind_is_read_first() {
    let lab = Lab::new(1 << 30);
    let writer = lab.writer();
    for id in 1000..1400 {
        let ts = u64::try_from(id).unwrap();
        for topic in ["a", "b"] {
            writer.insert(topic, id * 10, 20_000);
            writer.tick(topic, id * 10 + 1, ts);
        }
    }
    let source = lab.connect();
    let mut consumers = ["a", "b"].map(|name| Consumer::open(&source, name, Start::Earliest));
    let last_tick = |consumer: &Consumer| {
        consumer
            .seen
            .iter()
            .rev()
            .find_map(|seen| if let Seen::Tick(_, ts) = seen { Some(*ts) } else { None })
            .unwrap_or(1000)
    };
    let deadline = Instant::now() + SOON;
    while !consumers.iter().all(|consumer| consumer.seen.contains(&Seen::CaughtUp)) {
        assert!(Instant::now() < deadline);
        for consumer in &mut consumers {
            consumer.take_one(Duration::from_millis(100));
        }
        let (a, b) = (last_tick(&consumers[0]), last_tick(&consumers[1]));
        // A queue and two deliveries of about 26 inserts.
        assert!(a.abs_diff(b) < 6 * 28 + 64, "{a} {b}");
    }
}

#[test]
fn other_messages_are_passed_over_and_damaged_ones_are_fatal() {
    let lab = Lab::new(1 << 20);
    let writer = lab.writer();
    for (id, code) in [(100, 100), (101, 101), (102, 200), (103, 201), (104, 1212), (105, 999), (106, 999)] {
        writer.put("t", id, &TimeTickMsg { base: base(code, id, 5) }.encode_to_vec());
    }
    writer.insert("t", 107, 10);
    let source = lab.connect();
    let mut consumer = Consumer::open(&source, "t", Start::Earliest);
    consumer.take_until_caught_up();
    assert_eq!(consumer.ids(), [107]);
    writer.insert("t", 108, 10);
    writer.put("t", 109, b"\xff\xff nonsense");
    writer.insert("t", 110, 10);
    let (kind, report) = consumer.take_until_failed();
    assert_eq!(kind, Kind::Corrupt);
    assert!(report.contains("channel t, message 109"), "{report}");
    assert_eq!(consumer.ids(), [107, 108]);
}

#[test]
fn a_folder_that_is_not_a_rocksmq_is_one_clear_error() {
    let lab = Lab::new(1 << 20);
    let folder = lab.folder.path();
    let refused = |path: &Path, kind: Kind, words: &str| {
        let error = lab.try_connect(path).unwrap_err();
        assert_eq!(error.kind(), kind, "{}", error.report());
        assert!(error.report().contains(&path.display().to_string()), "{}", error.report());
        assert!(error.report().contains(words), "{}", error.report());
        assert!(error.hint_text().is_some());
    };
    refused(&folder.join("missing"), Kind::NotFound, "no such folder");
    let file = folder.join("file");
    std::fs::write(&file, "").unwrap();
    refused(&file, Kind::NotFound, "not a folder");
    let empty = folder.join("empty");
    std::fs::create_dir(&empty).unwrap();
    refused(&empty, Kind::NotFound, "no file CURRENT");
    drop(lab.writer());
    refused(folder, Kind::NotFound, "did you mean");
    refused(&lab.path(), Kind::NotFound, "empty RocksDB");
    // A fresh one, which has nothing in it yet.
    drop(DB::open_default(folder.join("rdb_data_meta_kv")).unwrap());
    drop(lab.connect());
    let other = folder.join("other");
    let db = DB::open_default(&other).unwrap();
    db.put("some key", "").unwrap();
    db.put("topic/1", "").unwrap();
    drop(db);
    refused(&other, Kind::NotFound, "the key some key");
    let damaged = folder.join("damaged");
    std::fs::create_dir(&damaged).unwrap();
    std::fs::write(damaged.join("CURRENT"), "MANIFEST-000001").unwrap();
    assert!(matches!(lab.try_connect(&damaged).unwrap_err().kind(), Kind::Corrupt | Kind::Unavailable));
}

#[test]
fn closing_a_channel_and_stopping_end_its_queue_soon() {
    let lab = Lab::new(1 << 20);
    let writer = lab.writer();
    for id in 100..1000 {
        writer.insert("t", id, 5000);
    }
    let source = lab.connect();
    // Nobody takes anything: the queue is full.
    let first = source.open(&channel("t"), Start::Earliest);
    std::thread::sleep(Duration::from_millis(100));
    source.close(&channel("t"));
    let mut taken = 0;
    while first.recv_timeout(SOON).is_ok() {
        taken += 1;
    }
    assert!((1..=crate::sources::outlet::QUEUE_DELIVERIES).contains(&taken));
    let mut second = Consumer::open(&source, "t", Start::Earliest);
    second.take_until_caught_up();
    assert_eq!(second.ids().len(), 900);
    let stopped = Instant::now();
    lab.context.stop.store(true, Ordering::Relaxed);
    while !second.ended {
        second.take(SOON);
    }
    assert!(stopped.elapsed() < Duration::from_secs(1), "{:?}", stopped.elapsed());
    drop(source);
    assert_eq!(lab.context.credits.held(), 0);
}
