//! What a run did, as a table for people and as JSON for programs.

use std::path::Path;
use std::time::Duration;

use serde::Serialize;

use super::human;
use crate::error::{Error, Kind, Result};
use crate::milvus::tso::Tso;

/// The longest name of a collection in the table.
const NAME_WIDTH: usize = 48;

/// What a run did. Serialises to the file of `--report`.
#[derive(Clone, Debug, PartialEq, Serialize, utoipa::ToSchema)]
pub struct Report {
    /// Rows over all collections.
    pub rows: RowCounts,
    /// Bytes over all collections.
    pub bytes: u64,
    /// How long it took.
    pub seconds: f64,
    /// Megabytes (10⁶ bytes) per second over all of that.
    pub megabytes_per_second: f64,
    /// The durable frontier at the end.
    #[schema(value_type = Option<u64>)]
    pub frontier: Option<Tso>,
    /// Per collection, by name.
    pub collections: Vec<CollectionReport>,
    /// How far the target was behind.
    pub lag_ms: LagPercentiles,
    /// What the run waits for, if it does.
    pub waiting: Option<String>,
    /// The memory budget.
    pub memory: MemoryReport,
    /// Per physical channel, by name.
    pub channels: Vec<ChannelReport>,
    /// Who owns the pipeline, if it has `[ownership]`.
    pub ownership: Option<OwnershipReport>,
}

/// How the run stands to the ownership of its pipeline.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct OwnershipReport {
    /// `owner` or `standing by`.
    pub state: &'static str,
    /// The fencing epoch of this run, if it is the owner.
    pub epoch: Option<i64>,
    /// Since when the owner owns it (RFC 3339, by the owner's clock), if known.
    pub since: Option<String>,
    /// The owner's host and process id, if that is another process and is known.
    pub owner: Option<String>,
}

/// The use of the memory budget, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct MemoryReport {
    /// The budget.
    pub budget: u64,
    /// In use now.
    pub held: u64,
    /// The most that was ever in use.
    pub peak: u64,
}

/// How one physical channel is read.
#[derive(Clone, Debug, Default, PartialEq, Serialize, utoipa::ToSchema)]
pub struct ChannelReport {
    /// Its name.
    pub name: String,
    /// Its last tick, if it has passed one.
    #[schema(value_type = Option<u64>)]
    pub tick: Option<Tso>,
    /// The age of that tick: how far reading is behind.
    pub lag_ms: Option<u64>,
    /// Bytes of its messages that are held.
    pub held_bytes: u64,
    /// What it waits for now.
    pub waiting: Option<String>,
    /// How long it has waited so far.
    pub waited_ms: WaitedReport,
}

/// Milliseconds by what was waited for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct WaitedReport {
    /// For the memory budget.
    pub memory: u64,
    /// For the dataflow to take what was read.
    pub dataflow: u64,
    /// For the queue, which was not well.
    pub queue: u64,
}

/// Numbers of rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct RowCounts {
    /// Rows inserted.
    pub inserted: u64,
    /// Rows upserted.
    pub upserted: u64,
    /// Keys deleted.
    pub deleted: u64,
}

/// What one collection got.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct CollectionReport {
    /// Its name, `database.collection`.
    pub name: String,
    /// Its name on the target, where that is another one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_target: Option<String>,
    /// Its rows.
    #[serde(flatten)]
    pub rows: RowCounts,
    /// Their bytes.
    pub bytes: u64,
}

/// Percentiles of the lag in milliseconds, `null` if there is none to tell of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct LagPercentiles {
    /// The median.
    pub p50: Option<u64>,
    /// Nine in ten were less.
    pub p90: Option<u64>,
    /// 99 in 100 were less.
    pub p99: Option<u64>,
}

impl Report {
    /// A report of a run that took `elapsed` and ended at `frontier`.
    pub fn new(
        mut collections: Vec<CollectionReport>,
        elapsed: Duration,
        frontier: Option<Tso>,
        lag_ms: LagPercentiles,
    ) -> Report {
        collections.sort_by(|one, other| one.name.cmp(&other.name));
        let sum = |part: fn(&CollectionReport) -> u64| collections.iter().map(part).sum::<u64>();
        let bytes = sum(|collection| collection.bytes);
        let seconds = elapsed.as_secs_f64();
        Report {
            rows: RowCounts {
                inserted: sum(|collection| collection.rows.inserted),
                upserted: sum(|collection| collection.rows.upserted),
                deleted: sum(|collection| collection.rows.deleted),
            },
            bytes,
            seconds,
            megabytes_per_second: megabytes_per_second(bytes, seconds),
            frontier,
            collections,
            lag_ms,
            waiting: None,
            memory: MemoryReport::default(),
            channels: Vec::new(),
            ownership: None,
        }
    }

    /// The same with how the source is read.
    pub fn with_source(
        mut self,
        waiting: Option<String>,
        memory: MemoryReport,
        channels: Vec<ChannelReport>,
    ) -> Report {
        (self.waiting, self.memory, self.channels) = (waiting, memory, channels);
        self
    }

    /// The same with who owns the pipeline.
    pub fn with_ownership(mut self, ownership: Option<OwnershipReport>) -> Report {
        self.ownership = ownership;
        self
    }

    /// Writes it as JSON into the file `path`.
    ///
    /// # Errors
    /// Of kind `Usage`: the file can't be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        let failed = || Error::new(Kind::Usage, format!("can't write the report to {}", path.display()));
        let mut text = serde_json::to_string_pretty(self).map_err(|error| failed().caused_by(error))?;
        text.push('\n');
        // Written beside and then moved, so that who reads it while a run goes on finds all of it.
        let mut beside = path.as_os_str().to_owned();
        beside.push(".new");
        std::fs::write(&beside, text)
            .and_then(|()| std::fs::rename(&beside, path))
            .map_err(|error| failed().caused_by(error))
    }

    /// The table for people, ending in a line break.
    pub fn table(&self) -> String {
        let mut lines =
            vec![["collection", "inserted", "upserted", "deleted", "MB", "MB/s"].map(str::to_owned)];
        let line = |name: String, rows: RowCounts, bytes: u64| {
            [
                name,
                human::count(rows.inserted),
                human::count(rows.upserted),
                human::count(rows.deleted),
                human::megabytes(bytes),
                format!("{:.1}", megabytes_per_second(bytes, self.seconds)),
            ]
        };
        for collection in &self.collections {
            let name = match &collection.on_target {
                Some(on_target) => format!("{} → {on_target}", collection.name),
                None => collection.name.clone(),
            };
            lines.push(line(human::shortened(&name, NAME_WIDTH), collection.rows, collection.bytes));
        }
        lines.push(line("total".to_owned(), self.rows, self.bytes));
        let mut text = aligned(&lines);
        text.push_str(&format!("elapsed {}", human::duration(seconds(self.seconds))));
        if let LagPercentiles { p50: Some(p50), p90: Some(p90), p99: Some(p99) } = self.lag_ms {
            let [p50, p90, p99] = [p50, p90, p99].map(|lag| human::duration(Duration::from_millis(lag)));
            text.push_str(&format!(", lag p50 {p50}, p90 {p90}, p99 {p99}"));
        }
        if let Some(frontier) = self.frontier {
            text.push_str(&format!("\neverything up to {frontier} is on the target"));
        }
        text.push('\n');
        text
    }
}

fn megabytes_per_second(bytes: u64, seconds: f64) -> f64 {
    if seconds > 0.0 { bytes as f64 / 1e6 / seconds } else { 0.0 }
}

fn seconds(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or_default()
}

/// Columns of equal width, the first to the left, the others to the right; a rule below the first line and above the
/// last one.
fn aligned<const COLUMNS: usize>(lines: &[[String; COLUMNS]]) -> String {
    let mut widths = [0; COLUMNS];
    for line in lines {
        for (width, cell) in widths.iter_mut().zip(line) {
            *width = cell.chars().count().max(*width);
        }
    }
    let rule = format!("{}\n", "-".repeat(widths.iter().sum::<usize>() + 2 * (COLUMNS - 1)));
    let mut text = String::new();
    for (at, line) in lines.iter().enumerate() {
        if at == 1 || at + 1 == lines.len() && lines.len() > 2 {
            text.push_str(&rule);
        }
        for (column, (cell, width)) in line.iter().zip(widths).enumerate() {
            match column {
                0 => text.push_str(&format!("{cell:<width$}")),
                _ => text.push_str(&format!("  {cell:>width$}")),
            }
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let collection = |name: &str, inserted, deleted, bytes| CollectionReport {
            name: name.to_owned(),
            on_target: None,
            rows: RowCounts { inserted, upserted: 0, deleted },
            bytes,
        };
        Report::new(
            vec![collection("shop.b", 1_234_567, 5, 154_000_000), collection("default.a", 1, 0, 512)],
            Duration::from_secs(4),
            Some(Tso::from_millis(1_795_341_600_000)),
            LagPercentiles { p50: Some(210), p90: Some(450), p99: Some(1_200) },
        )
        .with_source(
            Some("the target's memory".to_owned()),
            MemoryReport { budget: 100, held: 5, peak: 90 },
            vec![ChannelReport {
                name: "by-dev-rootcoord-dml_0".to_owned(),
                tick: Some(Tso(7)),
                lag_ms: Some(12),
                held_bytes: 5,
                waiting: Some("the memory budget".to_owned()),
                waited_ms: WaitedReport { memory: 3, dataflow: 2, queue: 1 },
            }],
        )
        .with_ownership(Some(OwnershipReport {
            state: "owner",
            epoch: Some(12),
            since: Some("2026-11-22T10:00:00Z".to_owned()),
            owner: None,
        }))
    }

    #[test]
    fn the_json_has_the_documented_keys() {
        let json: serde_json::Value = serde_json::to_value(report()).unwrap();
        let wanted = serde_json::json!({
            "rows": {"inserted": 1_234_568, "upserted": 0, "deleted": 5},
            "bytes": 154_000_512,
            "seconds": 4.0,
            "megabytes_per_second": 38.500128,
            "frontier": 1_795_341_600_000_u64 << 18,
            "collections": [
                {"name": "default.a", "inserted": 1, "upserted": 0, "deleted": 0, "bytes": 512},
                {"name": "shop.b", "inserted": 1_234_567, "upserted": 0, "deleted": 5, "bytes": 154_000_000},
            ],
            "lag_ms": {"p50": 210, "p90": 450, "p99": 1_200},
            "waiting": "the target's memory",
            "memory": {"budget": 100, "held": 5, "peak": 90},
            "channels": [{
                "name": "by-dev-rootcoord-dml_0", "tick": 7, "lag_ms": 12, "held_bytes": 5,
                "waiting": "the memory budget", "waited_ms": {"memory": 3, "dataflow": 2, "queue": 1},
            }],
            "ownership": {"state": "owner", "epoch": 12, "since": "2026-11-22T10:00:00Z", "owner": null},
        });
        assert_eq!(json, wanted);
    }

    #[test]
    fn the_table_is_aligned_and_has_a_total() {
        let frontier = Tso::from_millis(1_795_341_600_000);
        assert_eq!(
            report().table(),
            format!(
                "collection   inserted  upserted  deleted     MB  MB/s\n\
                 -----------------------------------------------------\n\
                 default.a           1         0        0    0.0   0.0\n\
                 shop.b      1,234,567         0        5  154.0  38.5\n\
                 -----------------------------------------------------\n\
                 total       1,234,568         0        5  154.0  38.5\n\
                 elapsed 4.0 s, lag p50 210 ms, p90 450 ms, p99 1.2 s\n\
                 everything up to {frontier} is on the target\n"
            )
        );
    }

    #[test]
    fn a_run_that_did_nothing_has_a_report_too() {
        let report = Report::new(Vec::new(), Duration::ZERO, None, LagPercentiles::default());
        assert_eq!(report.megabytes_per_second, 0.0);
        assert!(report.table().ends_with("\nelapsed 0 ms\n"), "{}", report.table());
        assert_eq!(serde_json::to_value(&report).unwrap()["lag_ms"]["p50"], serde_json::Value::Null);
    }

    #[test]
    fn a_report_that_cant_be_written_names_its_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("report.json");
        report().write(&path).unwrap();
        assert!(std::fs::read_to_string(&path).unwrap().ends_with("}\n"));
        let error = report().write(&path.join("below")).unwrap_err();
        assert_eq!(error.kind(), Kind::Usage);
        assert!(error.message().contains("report.json"), "{error}");
    }
}
