//! What is written out for pipelines that run, have failed, or have never run.

use std::collections::BTreeMap;

use super::*;
use crate::dataflow::progress::{Amount, Now};
use crate::error::Kind;
use crate::milvus::catalog::CollectionName;
use crate::milvus::channel::PChannel;

const STATES: &[&str] = &["running", "failed"];

fn at(seconds_ago: u64) -> Tso {
    Tso::now().before(Duration::from_secs(seconds_ago))
}

fn running() -> Seen {
    let counts = Counts {
        received: Amount { rows: 9, bytes: 90 },
        dispatched: Amount { rows: 8, bytes: 80 },
        inserted: 5,
        upserted: 1,
        deleted: 1,
        bytes: 70,
    };
    let name = CollectionName { database: "default".into(), collection: "we\"ird".into() };
    let mut latency = Latency::default();
    latency.record(Duration::from_millis(20));
    latency.record(Duration::from_secs(60));
    let now = Now {
        collections: BTreeMap::from([(name, counts)]),
        by_channel: BTreeMap::from([(PChannel("dml_0".into()), counts)]),
        read: at(10),
        highest: at(0),
        ordered: at(20),
        committed: at(30),
        latencies: BTreeMap::from([("insert", latency)]),
        retries: BTreeMap::from([(Kind::RateLimited, 3)]),
        doubtful_rows: 4,
        ..Now::default()
    };
    Seen {
        pipeline: "a".into(),
        state: "running",
        status: Some(Status { now, budget: 100, held_bytes: 7, ..Status::default() }),
        made: at(1000),
        ..Seen::default()
    }
}

fn value(text: &str, line: &str) -> f64 {
    let found = text.lines().find_map(|found| found.strip_prefix(line)?.strip_prefix(' '));
    found.unwrap_or_else(|| panic!("no {line} in\n{text}")).parse().unwrap()
}

#[test]
fn what_a_run_counts_is_written_out() {
    let text = text(vec![running()], STATES);
    for (line, wanted) in [
        ("migrans_received_rows_total{pipeline=\"a\",collection=\"default.we\\\"ird\"}", 9.0),
        ("migrans_dispatched_bytes_total{pipeline=\"a\",collection=\"default.we\\\"ird\"}", 80.0),
        (
            "migrans_durable_rows_total{pipeline=\"a\",collection=\"default.we\\\"ird\",operation=\"insert\"}",
            5.0,
        ),
        ("migrans_channel_durable_rows_total{pipeline=\"a\",channel=\"dml_0\"}", 7.0),
        ("migrans_channel_received_bytes_total{pipeline=\"a\",channel=\"dml_0\"}", 90.0),
        ("migrans_call_seconds_count{pipeline=\"a\",call=\"insert\"}", 2.0),
        ("migrans_call_seconds_bucket{le=\"0.025\",pipeline=\"a\",call=\"insert\"}", 1.0),
        ("migrans_call_seconds_bucket{le=\"30.0\",pipeline=\"a\",call=\"insert\"}", 1.0),
        ("migrans_call_seconds_bucket{le=\"+Inf\",pipeline=\"a\",call=\"insert\"}", 2.0),
        ("migrans_retries_total{pipeline=\"a\",cause=\"RateLimited\"}", 3.0),
        ("migrans_in_doubt_rows_total{pipeline=\"a\"}", 4.0),
        ("migrans_held_bytes{pipeline=\"a\"}", 7.0),
        ("migrans_pipeline_state{pipeline=\"a\",state=\"running\"}", 1.0),
        ("migrans_pipeline_state{pipeline=\"a\",state=\"failed\"}", 0.0),
        ("migrans_pipelines{state=\"running\"}", 1.0),
    ] {
        assert_eq!(value(&text, line), wanted, "{line}");
    }
    for (stage, wanted) in [("received", 10.0), ("dispatched", 20.0), ("durable", 30.0)] {
        let lag = value(&text, &format!("migrans_lag_seconds{{pipeline=\"a\",stage=\"{stage}\"}}"));
        assert!((wanted..wanted + 5.0).contains(&lag), "{stage}: {lag}");
    }
    assert!(!text.contains("migrans_last_error_info{"), "{text}");
}

#[test]
fn every_metric_is_written_and_no_other() {
    let mut seen = running();
    seen.last_error = Some(("Gap", 5));
    let text = text(vec![seen], STATES);
    let written: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("# HELP ")).collect();
    assert_eq!(written.len(), names::METRICS.len());
    for metric in names::METRICS {
        let described = metric.name.strip_suffix("_total").unwrap_or(metric.name);
        assert!(written.iter().any(|line| line.split(' ').next() == Some(described)), "{}", metric.name);
    }
    assert!(text.ends_with("# EOF\n"));
    assert_eq!(value(&text, "migrans_last_error_info{pipeline=\"a\",kind=\"Gap\"}"), 1.0);
}

#[test]
fn the_lag_of_a_pipeline_that_does_not_run_goes_on_from_what_is_known() {
    let lag = |seen: Seen| {
        value(&text(vec![seen], STATES), "migrans_lag_seconds{pipeline=\"a\",stage=\"durable\"}")
    };
    let stopped = Seen { pipeline: "a".into(), made: at(1000), ..Seen::default() };
    assert!((1000.0..1005.0).contains(&lag(stopped.clone())), "nothing was ever committed");
    let known = Seen { floor: Some(at(50)), ..stopped };
    assert!((50.0..55.0).contains(&lag(known.clone())));
    let standing_by = Seen { status: Some(Status::default()), ..known };
    assert!((50.0..55.0).contains(&lag(standing_by)));
}
