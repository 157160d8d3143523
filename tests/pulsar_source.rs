//! The Pulsar source against a real broker: set MIGRANS_TEST_PULSAR to its `host:port` and MIGRANS_TEST_PULSAR_ADMIN to
//! its admin URL, e.g. `http://127.0.0.1:8080/admin/v2`. The broker must keep what is acknowledged, look every second for
//! what it need not keep, begin a new ledger after 200 entries, and make topics of any name that is asked for.
#![allow(missing_docs, clippy::unwrap_used, reason = "a test may panic")]

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use migrans::Kind;
use migrans::milvus::tso::Tso;
use migrans::sources::{LogSource, Start};

#[path = "pulsar_source/lab.rs"]
mod lab;

use lab::*;

#[test]
fn a_position_is_where_reading_begins() {
    let Some(lab) = lab("inclusive") else { return };
    lab.writer(None, true).inserts(0..10, 100);
    let source = lab.source();
    let first = open(&source, &lab.topic, Start::Earliest).read_until(|r| r.caught_up).positions.clone();
    assert_eq!(first.len(), 10);
    for id in 0..10 {
        let mut again = open(&source, &lab.topic, Start::At(first[&id].clone()));
        again.read_until(|r| r.caught_up).read_for(Duration::from_millis(50));
        assert_eq!(again.ids, (id..10).collect::<Vec<_>>(), "from {id}: {:?}", again.failed);
        assert_eq!(again.positions[&id], first[&id]);
    }
}

#[test]
fn reading_goes_on_within_a_batch() {
    let Some(lab) = lab("batches") else { return };
    lab.writer(Some(5), true).inserts(0..10, 100);
    lab.writer(Some(5), false).inserts(10..15, 100);
    let source = lab.source();
    let first = open(&source, &lab.topic, Start::Earliest).read_until(|r| r.caught_up).positions.clone();
    let stats = lab.about_topic("internalStats");
    assert_eq!(stats["numberOfEntries"], 3, "these are batches");
    assert_eq!(first.len(), 15);
    for id in 0..15 {
        let mut again = open(&source, &lab.topic, Start::At(first[&id].clone()));
        again.read_until(|r| r.caught_up).read_for(Duration::from_millis(50));
        assert_eq!(again.ids, (id..15).collect::<Vec<_>>(), "from {id}: {:?}", again.failed);
    }
}

#[test]
fn new_messages_come_soon() {
    let Some(lab) = lab("latency") else { return };
    let mut writer = lab.writer(None, true);
    writer.inserts([0], 100);
    let source = lab.source();
    let mut reading = open(&source, &lab.topic, Start::Earliest);
    reading.read_until(|r| r.caught_up);
    let mut times: Vec<Duration> = (1..30)
        .map(|id| {
            writer.inserts([id], 100);
            let sent = Instant::now();
            reading.read_until(|r| r.ids.contains(&id));
            sent.elapsed()
        })
        .collect();
    times.sort();
    assert!(times[15] < Duration::from_millis(15), "{times:?}");
}

#[test]
fn what_was_deleted_is_a_gap_that_names_both_messages() {
    let Some(lab) = lab("gap") else { return };
    let mut writer = lab.writer(None, true);
    writer.inserts(0..5, 100);
    let source = lab.source();
    let old = open(&source, &lab.topic, Start::Earliest).read_until(|r| r.caught_up).positions.clone();
    let old_ledger = *lab.ledgers().last().unwrap();
    lab.trim();
    let mut empty = open(&source, &lab.topic, Start::At(old[&4].clone()));
    let error = empty.read_until(|r| r.failed.is_some()).failed.take().unwrap();
    assert_eq!(error.kind(), Kind::Gap, "{error}");
    writer.inserts(5..8, 100);
    let new_ledger = *lab.ledgers().last().unwrap();
    let mut later = open(&source, &lab.topic, Start::At(old[&2].clone()));
    let error = later.read_until(|r| r.failed.is_some()).failed.take().unwrap();
    assert_eq!(error.kind(), Kind::Gap, "{error}");
    for id in [format!("{old_ledger}:2"), format!("{new_ledger}:0")] {
        assert!(error.message().contains(&id), "{id}: {error}");
    }
    assert_eq!(later.ids, [0_i64; 0]);
    let mut earliest = open(&source, &lab.topic, Start::Earliest);
    assert_eq!(earliest.read_until(|r| r.caught_up).ids, [5, 6, 7]);
}

#[test]
fn a_message_beyond_the_end_is_a_gap() {
    let Some(lab) = lab("beyond") else { return };
    let mut writer = lab.writer(None, true);
    writer.inserts(0..5, 100);
    let source = lab.source();
    let mut position =
        open(&source, &lab.topic, Start::Earliest).read_until(|r| r.caught_up).positions[&4].clone();
    // The entry is the second field, of one byte here.
    let at = position.0.iter().position(|byte| *byte == 0x10).unwrap() + 1;
    position.0[at] += 3;
    let mut reading = open(&source, &lab.topic, Start::At(position));
    let error = reading.read_until(|r| r.failed.is_some()).failed.take().unwrap();
    assert_eq!(error.kind(), Kind::Gap, "{error}");
    assert!(error.message().contains(":7") && error.message().contains(":4"), "{error}");
}

#[test]
fn being_sent_away_loses_nothing_and_doubles_nothing() {
    let Some(lab) = lab("unload") else { return };
    let mut writer = lab.writer(None, true);
    writer.inserts(0..50, 100);
    let source = lab.source();
    let mut reading = open(&source, &lab.topic, Start::Earliest);
    for round in 1..5 {
        reading.read_until(|r| r.ids.contains(&(round * 50 - 1)));
        lab.unload();
        writer.inserts(round * 50..(round + 1) * 50, 100);
    }
    reading.read_until(|r| r.ids.contains(&249)).read_for(Duration::from_millis(200));
    assert_eq!(reading.ids, (0..250).collect::<Vec<_>>());
    assert!(lab.ledgers().len() >= 5, "each time a new ledger: {:?}", lab.ledgers());
}

#[test]
fn a_ledger_that_is_deleted_while_it_is_read_is_noticed() {
    let Some(lab) = lab("deleted") else { return };
    // Far more than what the budget and the inbox have room for, in three ledgers, the first of which is half read.
    lab.writer(None, false).inserts(0..450, 256 << 10);
    let ledgers = lab.ledgers();
    assert!(ledgers.len() >= 3, "{ledgers:?}");
    let source = lab.source();
    let mut reading = open(&source, &lab.topic, Start::Earliest);
    reading.keep = Some(Vec::new());
    reading.read_until_waiting_for_memory(&lab);
    assert!((100..300).contains(&reading.ids.len()), "{}", reading.ids.len());
    lab.retention(0);
    until("the ledgers to be deleted", || lab.ledgers().len() == 1);
    lab.retention(-1);
    reading.keep = None;
    let error = reading.read_until(|r| r.failed.is_some()).failed.take().unwrap();
    assert_eq!(error.kind(), Kind::Gap, "{error}");
    assert_eq!(reading.ids, (0..i64::try_from(reading.ids.len()).unwrap()).collect::<Vec<_>>());
}

#[test]
fn without_credit_reading_stops_and_goes_on() {
    let Some(lab) = lab("credit") else { return };
    let mut writer = lab.writer(None, false);
    writer.ticks(0..3000);
    writer.inserts(0..40, 4 << 20);
    writer.ticks(3000..3100);
    writer.inserts(40..41, 100);
    let source = lab.source();
    let mut reading = open(&source, &lab.topic, Start::Earliest);
    reading.keep = Some(Vec::new());
    reading.read_until_waiting_for_memory(&lab);
    assert!(lab.credits.held() <= lab.credits.budget(), "{}", lab.credits.held());
    assert!((10..=16).contains(&reading.ids.len()), "{:?}", reading.ids);
    reading.keep = None;
    reading.read_until(|r| r.caught_up);
    assert_eq!(reading.ids, (0..41).collect::<Vec<_>>());
}

#[test]
fn a_topic_that_is_not_there_is_waited_for_and_not_made() {
    let Some(lab) = lab("absent") else { return };
    let source = lab.source();
    let mut reading = open(&source, &lab.topic, Start::Earliest);
    until("word of what is missing", || lab.channels.now(&lab.credits)[0].waiting.is_some());
    reading.read_for(Duration::from_millis(1500));
    let waiting = lab.channels.now(&lab.credits)[0].waiting.clone().unwrap().0;
    assert_eq!(waiting.to_string(), format!("Pulsar to have a topic {}", lab.full_name()));
    assert!(!lab.topics().contains(&*lab.topic.0), "made by asking for it");
    lab.writer(None, true).inserts(0..3, 100);
    reading.read_until(|r| r.ids.len() == 3);
    assert_eq!(lab.channels.now(&lab.credits)[0].waiting, None);
}

#[test]
fn an_empty_topic_is_caught_up_with_at_once() {
    let Some(lab) = lab("empty") else { return };
    let mut writer = lab.writer(None, true);
    let source = lab.source();
    for start in [Start::Earliest, Start::Near(Tso::now())] {
        let mut reading = open(&source, &lab.topic, start.clone());
        assert_eq!(reading.read_until(|r| r.caught_up).ids, [0_i64; 0], "{start:?}");
    }
    writer.inserts([0], 100);
    lab.unload();
    let mut unloaded = open(&source, &lab.topic, Start::Earliest);
    assert_eq!(unloaded.read_until(|r| r.caught_up).ids, [0], "the newest ledger is empty, the topic is not");
}

#[test]
fn a_topic_of_one_partition_is_read_and_one_of_two_is_refused() {
    let Some(lab) = lab("partitioned") else { return };
    let path = format!("persistent/public/default/{}/partitions", lab.topic);
    lab.admin("PUT", &path, "1");
    lab.writer(None, true).inserts(0..3, 100);
    let source = lab.source();
    let mut reading = open(&source, &lab.topic, Start::Earliest);
    assert_eq!(reading.read_until(|r| r.caught_up).ids, [0, 1, 2]);
    lab.admin("POST", &path, "2");
    until("the second partition", || lab.topics().contains("partition-1"));
    let mut reading = open(&source, &lab.topic, Start::Earliest);
    let error = reading.read_until(|r| r.failed.is_some()).failed.take().unwrap();
    assert_eq!(
        (error.kind(), error.message().contains("several partitions")),
        (Kind::Refused, true),
        "{error}"
    );
}

#[test]
fn near_a_time_is_soon_before_it() {
    let Some(lab) = lab("near") else { return };
    let mut writer = lab.writer(None, true);
    writer.inserts(0..99, 100);
    std::thread::sleep(Duration::from_secs(4));
    writer.inserts([99], 100);
    std::thread::sleep(Duration::from_secs(11));
    let time = Tso::now();
    writer.inserts(100..110, 100);
    let source = lab.source();
    let mut reading = open(&source, &lab.topic, Start::Near(time));
    let ids = reading.read_until(|r| r.caught_up).ids.clone();
    assert_eq!(ids, (99..110).collect::<Vec<_>>(), "with the first that is a little too early");
    let mut reading = open(&source, &lab.topic, Start::Near(time.before(Duration::from_secs(3600))));
    assert_eq!(reading.read_until(|r| r.caught_up).ids.len(), 110, "from the beginning");
    std::thread::sleep(Duration::from_secs(4));
    let mut reading = open(&source, &lab.topic, Start::Near(time.after(Duration::from_secs(60))));
    assert_eq!(reading.read_until(|r| r.caught_up).ids, [0_i64; 0], "the end");
    writer.inserts([110], 100);
    reading.read_until(|r| r.ids.contains(&110));
}

#[test]
fn a_durable_subscription_follows_and_goes() {
    let Some(mut lab) = lab("durable") else { return };
    let name = format!("migrans-{}", lab.topic);
    lab.config.subscription = Some(name.clone());
    let mut writer = lab.writer(None, true);
    writer.inserts(0..10, 100);
    let source = lab.source();
    let mut reading = open(&source, &lab.topic, Start::Earliest);
    reading.read_until(|r| r.caught_up);
    let mark = || lab.about_topic("internalStats")["cursors"][&name]["markDeletePosition"].to_string();
    assert!(mark().contains(":-1"), "from the first message on: {}", mark());
    source.release(&BTreeMap::from([(lab.topic.clone(), reading.positions[&6].clone())]));
    until("the subscription to move", || mark().contains(":5"));
    // The seventh message is needed, and the ledger with it, whatever the retention.
    let ledger = *lab.ledgers().last().unwrap();
    lab.unload();
    lab.retention(0);
    writer.inserts(10..20, 100);
    reading.read_until(|r| r.ids.len() == 20);
    std::thread::sleep(Duration::from_secs(3));
    assert!(lab.ledgers().contains(&ledger));
    // It has come back after the unloading, and moves on.
    source.release(&BTreeMap::from([(lab.topic.clone(), reading.positions[&15].clone())]));
    until("the old ledger to go", || {
        source.release(&BTreeMap::from([(lab.topic.clone(), reading.positions[&15].clone())]));
        !lab.ledgers().contains(&ledger)
    });
    lab.retention(-1);
    let has_it = || lab.about_topic("subscriptions").to_string().contains(&name);
    assert!(has_it());
    source.close(&lab.topic);
    until("the subscription to go", || !has_it());
    open(&source, &lab.topic, Start::At(reading.positions[&15].clone())).read_until(|r| r.caught_up);
    assert!(has_it());
    drop(source);
    assert!(has_it(), "a stop leaves it");
    let removed = lab.source().remove().unwrap();
    assert_eq!(removed, [format!("subscription {name} on topic {}", lab.full_name())]);
    assert!(!has_it());
    assert_eq!(lab.source().remove().unwrap(), [""; 0]);
    assert!(!has_it(), "not made by looking for it");
}
