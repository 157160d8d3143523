//! What the writer does to its files meanwhile: flushing, compacting, trimming, ending.

use super::*;

#[test]
fn nothing_is_lost_while_the_writer_flushes_compacts_and_trims() {
    const COUNT: i64 = 40_000;
    let lab = Lab::new(64 << 20);
    // Table files of 64 KiB: logs come and go while they are read.
    let writer = lab.writer_with_buffer(64 << 10);
    writer.tick("other", 1, 1);
    let source = lab.connect();
    let topics = ["x", "y", "z"];
    let mut consumers = topics.map(|topic| Consumer::open(&source, topic, Start::Earliest));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for id in 100_000..100_000 + COUNT {
                let topic = topics[usize::try_from(id % 3).unwrap()];
                if id % 7 == 0 {
                    writer.tick(topic, id, 9)
                } else {
                    writer.insert(topic, id, 40 + usize::try_from(id % 100).unwrap())
                }
                if id % 5_000 == 0 {
                    std::thread::sleep(Duration::from_millis(30));
                    // What is far behind goes away.
                    for topic in topics {
                        writer.trim(topic, (id - 30_000).max(100_000));
                    }
                    writer.compact();
                }
                if id % 500 == 0 {
                    std::thread::sleep(Duration::from_millis(1));
                }
            }
            for (topic, id) in topics.into_iter().zip(200_000..) {
                writer.delete(topic, id);
            }
        });
        let deadline = Instant::now() + Duration::from_secs(120);
        let over =
            |consumer: &Consumer| matches!(consumer.seen.last(), Some(Seen::Delete(_) | Seen::Failed(..)));
        while !consumers.iter().all(over) {
            for consumer in &mut consumers {
                consumer.take(Duration::from_millis(1));
            }
            assert!(Instant::now() < deadline);
        }
    });
    for (index, consumer) in consumers.iter().enumerate() {
        assert!(matches!(consumer.seen.last(), Some(Seen::Delete(_))), "{:?}", consumer.seen.last());
        let expected: BTreeSet<i64> = (100_000..100_000 + COUNT)
            .filter(|id| usize::try_from(id % 3).unwrap() == index && id % 7 != 0)
            .collect();
        let inserts: Vec<i64> = consumer
            .seen
            .iter()
            .filter_map(|seen| if let Seen::Insert(id, _) = seen { Some(*id) } else { None })
            .collect();
        assert!(inserts.is_sorted_by(|a, b| a < b), "out of order");
        let missing: Vec<i64> = expected.difference(&inserts.iter().copied().collect()).copied().collect();
        assert!(missing.is_empty(), "{} are missing: {:?}", missing.len(), &missing[..missing.len().min(50)]);
        assert_eq!(inserts.len(), expected.len());
    }
}

#[test]
fn what_waited_in_memory_is_found_when_it_has_moved_to_table_files() {
    let lab = Lab::new(64 << 20);
    let writer = lab.writer();
    writer.insert("t", 1000, 10);
    let source = lab.connect();
    let mut consumer = Consumer::open(&source, "t", Start::Earliest);
    consumer.take_until_caught_up();
    let mut id = 1000;
    for round in 0..10 {
        // More than the queue takes; then the log is changed, moved into a table file, and the next one begun.
        for _ in 0..6 * 64 {
            id += 1;
            writer.insert("t", id, 10);
        }
        std::thread::sleep(Duration::from_millis(30));
        writer.db.flush().unwrap();
        for _ in 0..3 {
            id += 1;
            writer.insert("t", id, 10);
            std::thread::sleep(Duration::from_millis(round * 5));
        }
        if round % 2 == 1 {
            writer.compact();
            std::thread::sleep(Duration::from_millis(30));
        }
        consumer.take_until(|seen| matches!(seen.last(), Some(Seen::Insert(last, _)) if *last == id));
        assert_eq!(consumer.ids(), (1000..=id).collect::<Vec<_>>());
    }
}

#[test]
fn a_reader_at_its_end_does_not_mind_trimming() {
    let lab = Lab::new(1 << 20);
    let writer = lab.writer();
    for id in 100..110 {
        writer.insert("t", id, 10);
    }
    let source = lab.connect();
    let mut consumer = Consumer::open(&source, "t", Start::Earliest);
    consumer.take_until_caught_up();
    writer.trim("t", 105);
    writer.compact();
    writer.insert("t", 120, 10);
    consumer.take_until(|seen| matches!(seen.last(), Some(Seen::Insert(120, _))));
    // Also if the trimming takes the very last one.
    writer.trim("t", 120);
    writer.compact();
    std::thread::sleep(Duration::from_millis(100));
    writer.insert("t", 130, 10);
    consumer.take_until(|seen| matches!(seen.last(), Some(Seen::Insert(130, _))));
    assert_eq!(consumer.ids().len(), 12);
}

#[test]
fn what_is_trimmed_as_soon_as_it_is_written_is_still_handed_over() {
    let lab = Lab::new(64 << 20);
    let writer = lab.writer();
    writer.insert("t", 1000, 10);
    let source = lab.connect();
    let mut consumer = Consumer::open(&source, "t", Start::Earliest);
    consumer.take_until_caught_up();
    for id in 1001..1500 {
        writer.insert("t", id, 10);
        writer.trim("t", id);
    }
    consumer.take_until(|seen| matches!(seen.last(), Some(Seen::Insert(1499, _))));
    assert_eq!(consumer.ids(), (1000..1500).collect::<Vec<_>>());
}

#[test]
fn a_reader_that_is_overtaken_by_trimming_says_so() {
    let lab = Lab::new(1 << 20);
    let writer = lab.writer();
    for id in 1000..3000 {
        writer.insert("t", id * 2, 1000);
    }
    let source = lab.connect();
    let mut consumer = Consumer::open(&source, "t", Start::Earliest);
    assert!(consumer.take_one(SOON));
    writer.trim("t", 5000);
    writer.compact();
    // Let the queue stand full until the iterator that still shows the old state is given up.
    std::thread::sleep(crate::sources::rocksmq::scans::SCAN_AGE + Duration::from_secs(1));
    writer.tick("t", 6001, 1);
    std::thread::sleep(Duration::from_millis(200));
    let (kind, report) = consumer.take_until_failed();
    assert_eq!(kind, Kind::Gap);
    assert!(report.contains("the first one after it is 5002"), "{report}");
    let ids = consumer.ids();
    assert_eq!(
        ids,
        (1000..).map(|id| id * 2).take(ids.len()).collect::<Vec<_>>(),
        "what came before is whole"
    );
    assert!(*ids.last().unwrap() < 5000);
}

#[test]
fn a_writer_that_is_opened_again_is_followed() {
    let lab = Lab::new(1 << 20);
    let mut writer = lab.writer();
    writer.insert("t", 100, 10);
    let source = lab.connect();
    let mut consumer = Consumer::open(&source, "t", Start::Earliest);
    consumer.take_until_caught_up();
    let mut expected = vec![100];
    for round in 2..6 {
        drop(writer);
        std::thread::sleep(Duration::from_millis(if round % 2 == 0 { 0 } else { 50 }));
        writer = lab.writer();
        for id in round * 100..round * 100 + 10 {
            writer.insert("t", id, 10);
            expected.push(id);
        }
        let last = expected.last().copied();
        consumer.take_until(|seen| matches!(seen.last(), Some(Seen::Insert(id, _)) if Some(*id) == last));
        assert_eq!(consumer.ids(), expected);
    }
    assert!(!consumer.ended);
}

/// Not a test: the process that the next one kills. It writes one message after another until then.
#[test]
#[ignore = "the process that the next test starts and kills: that test runs it"]
fn writer_process() {
    let Ok(path) = std::env::var("MIGRANS_TEST_ROCKSMQ") else { return };
    let writer = Writer::open(Path::new(&path), 256 << 10);
    let first = writer.db.iterator(rocksdb::IteratorMode::End).next().map_or(100_000, |entry| {
        let key = String::from_utf8(entry.unwrap().0.to_vec()).unwrap();
        key.strip_prefix("t/").unwrap().parse::<i64>().unwrap() + 1
    });
    for id in first..first + 1_000_000 {
        writer.insert("t", id, 200);
    }
}

#[test]
fn a_writer_that_is_killed_in_the_middle_is_followed_when_it_is_back() {
    let lab = Lab::new(64 << 20);
    drop(lab.writer());
    lab.writer().insert("t", 99_999, 10);
    let source = lab.connect();
    let mut consumer = Consumer::open(&source, "t", Start::Earliest);
    for _ in 0..4 {
        let before = consumer.seen.len();
        let mut process = Process::new(std::env::current_exe().unwrap())
            .args(["--exact", "sources::rocksmq::tests::files::writer_process", "--ignored"])
            .env("MIGRANS_TEST_ROCKSMQ", lab.path())
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        consumer.take_until(|seen| seen.len() > before + 2000);
        process.kill().unwrap();
        process.wait().unwrap();
    }
    let writer = lab.writer();
    let stored: BTreeMap<i64, ()> = writer
        .db
        .iterator(rocksdb::IteratorMode::Start)
        .map(|entry| {
            let key = String::from_utf8(entry.unwrap().0.to_vec()).unwrap();
            (key.strip_prefix("t/").unwrap().parse::<i64>().unwrap(), ())
        })
        .collect();
    consumer.take_until(|_| true);
    let last = *stored.last_key_value().unwrap().0;
    consumer.take_until(|seen| matches!(seen.last(), Some(Seen::Insert(id, _)) if *id == last));
    assert_eq!(consumer.ids(), stored.into_keys().collect::<Vec<_>>());
}
