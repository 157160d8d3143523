//! What people and programs read.

use super::*;

fn tally(changed: u64, moving: u64) -> Tally {
    Tally { equal: 1_000, changed, moving, source_hash: 1, target_hash: 1, ..Tally::default() }
}

fn report(tallies: Vec<Tally>, problems: &[&str]) -> Report {
    let partitions: Vec<_> = tallies.into_iter().map(|tally| tally.into_report("_default".into())).collect();
    let collection = CollectionReport {
        name: "shop.orders".into(),
        on_target: None,
        outcome: Outcome::Equal,
        problems: problems.iter().map(|line| (*line).to_owned()).collect(),
        not_compared: vec![],
        notes: vec![],
        partitions,
    };
    let outcome = collection.partitions.iter().map(|found| found.outcome).max().unwrap();
    Report {
        outcome,
        source: "http://a:1".into(),
        target: "http://b:2".into(),
        pipeline: PipelineReport { running: Some(true), frontier: Some(Tso(5)), lag_ms: Some(400) },
        seconds: 2.0,
        collections: vec![collection],
        differences: vec![],
    }
}

#[test]
fn the_worst_decides_and_has_an_exit_code() {
    let exit = |tally| report(vec![tally], &[]).exit_code();
    assert_eq!(exit(tally(0, 0)), 0);
    assert_eq!(exit(tally(1, 0)), 1);
    assert_eq!(exit(tally(1, 1)), 1);
    assert_eq!(exit(tally(0, 1)), 3);
    assert_eq!(exit(Tally { withheld: vec!["v".into()], ..tally(0, 0) }), 3);
    assert_eq!(exit(Tally { withheld: vec!["v".into()], ..tally(2, 0) }), 1);
    assert_eq!(exit(Tally { source_copies: 2, target_copies: 2, ..tally(0, 0) }), 0);
    assert_eq!(exit(Tally { source_copies: 2, target_copies: 1, ..tally(0, 0) }), 1);
    assert_eq!(exit(Tally { uncounted_ranges: 1, ..tally(0, 0) }), 3);
}

#[test]
fn rows_are_counted_as_the_servers_count_them() {
    let mut tally = Tally::default();
    tally.equal(Some(5));
    tally.equal(None);
    tally.differs(Some(1), Some(2));
    tally.differs(Some(4), None);
    tally.differs(None, Some(u128::MAX));
    tally.source_copies = 10;
    let report = tally.into_report("p".into());
    assert_eq!((report.source_rows, report.target_rows), (Some(13), Some(3)));
    assert_eq!((report.changed, report.source_only, report.target_only), (1, 1, 1));
    assert_eq!(report.source_hash.unwrap(), format!("{:032x}", 10));
    // 5 + 2 - 1
    assert_eq!(report.target_hash.unwrap(), format!("{:032x}", 6));
}

#[test]
fn the_table_is_aligned_and_says_how_it_ended() {
    let mut report = report(vec![tally(1, 0)], &["it has no field `d`"]);
    report.differences.push(Difference {
        collection: "shop.orders".into(),
        partition: Some("_default".into()),
        key: "7".into(),
        kind: DifferenceKind::Changed,
        columns: vec![Cell { column: "x".into(), source: "1".into(), target: "2".into() }],
    });
    assert_eq!(
        report.table(),
        "collection   partition  source rows  target rows  differing  result\n\
         ----------------------------------------------------------------------\n\
         shop.orders  _default         1,001        1,001          1  DIFFERENT\n\
         shop.orders: it has no field `d`\n\
         shop.orders, partition _default, key 7: `x` is 1 on the source, 2 on the target\n\
         as of 5, 400 ms behind the source\n\
         source and target DIFFER (took 2.0 s)\n"
    );
}

#[test]
fn it_is_said_when_the_pipeline_stands_or_has_never_run() {
    let mut report = report(vec![tally(0, 0)], &[]);
    report.pipeline.running = Some(false);
    assert!(report.table().contains("does not run, or is stuck: it stands at 5, 400 ms behind"));
    report.pipeline.frontier = None;
    assert!(report.table().contains("has committed nothing yet"));
}

#[test]
fn the_json_has_the_documented_keys() {
    let json: serde_json::Value =
        serde_json::from_str(&report(vec![tally(1, 0)], &[]).json().unwrap()).unwrap();
    let keys = |value: &serde_json::Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(
        keys(&json),
        ["collections", "differences", "outcome", "pipeline", "seconds", "source", "target"]
    );
    assert_eq!(json["outcome"], "different");
    assert_eq!(json["pipeline"], serde_json::json!({"running": true, "frontier": 5, "lag_ms": 400}));
    assert_eq!(
        keys(&json["collections"][0]["partitions"][0]),
        [
            "changed",
            "moving",
            "name",
            "outcome",
            "source_copies",
            "source_hash",
            "source_only",
            "source_rows",
            "target_copies",
            "target_hash",
            "target_only",
            "target_rows"
        ]
    );
}
