//! What came of a comparison: in memory, as a table, and as JSON.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use serde::Serialize;

use crate::error::{Error, Kind, Result};
use crate::milvus::tso::Tso;
use crate::progress::human;

/// How something compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// Everything is equal.
    Equal,
    /// No difference, but some rows kept changing while they were looked at.
    Moving,
    /// No difference, but not everything could be compared.
    NotCompared,
    /// There is a difference.
    Different,
}

impl Outcome {
    fn word(self) -> &'static str {
        match self {
            Outcome::Equal => "equal",
            Outcome::Moving => "in motion",
            Outcome::NotCompared => "not compared",
            Outcome::Different => "DIFFERENT",
        }
    }
}

/// What has been found out about the rows of one partition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    /// Keys with equal rows.
    pub(super) equal: u64,
    pub(super) changed: u64,
    pub(super) source_only: u64,
    pub(super) target_only: u64,
    /// Keys whose rows did not come to rest.
    pub(super) moving: u64,
    /// Rows beyond one for each key.
    pub(super) source_copies: u64,
    pub(super) target_copies: u64,
    /// Ranges of keys whose copies did not come to rest.
    pub(super) uncounted_ranges: u64,
    pub(super) source_hash: u128,
    pub(super) target_hash: u128,
    /// Columns that a server did not give, and why.
    pub(super) withheld: Vec<String>,
}

impl Tally {
    /// A key is found to be equal: with this row, or on neither side any more.
    pub(super) fn equal(&mut self, row: Option<u128>) {
        if let Some(hash) = row {
            self.equal += 1;
            self.source_hash = self.source_hash.wrapping_add(hash);
            self.target_hash = self.target_hash.wrapping_add(hash);
        }
    }

    /// A key is found to differ.
    pub(super) fn differs(&mut self, source: Option<u128>, target: Option<u128>) {
        match (source, target) {
            (Some(_), Some(_)) => self.changed += 1,
            (Some(_), None) => self.source_only += 1,
            (None, Some(_)) => self.target_only += 1,
            (None, None) => {}
        }
        self.source_hash = self.source_hash.wrapping_add(source.unwrap_or(0));
        self.target_hash = self.target_hash.wrapping_add(target.unwrap_or(0));
    }

    /// For the report, under the partition's name.
    pub(super) fn into_report(self, name: String) -> PartitionReport {
        let differing = self.changed + self.source_only + self.target_only;
        let outcome = if differing > 0 || self.source_copies != self.target_copies {
            Outcome::Different
        } else if !self.withheld.is_empty() {
            Outcome::NotCompared
        } else if self.moving > 0 || self.uncounted_ranges > 0 {
            Outcome::Moving
        } else {
            Outcome::Equal
        };
        PartitionReport {
            name,
            outcome,
            source_rows: Some(self.equal + self.changed + self.source_only + self.source_copies),
            target_rows: Some(self.equal + self.changed + self.target_only + self.target_copies),
            source_hash: Some(format!("{:032x}", self.source_hash)),
            target_hash: Some(format!("{:032x}", self.target_hash)),
            changed: self.changed,
            source_only: self.source_only,
            target_only: self.target_only,
            moving: self.moving,
            source_copies: self.source_copies,
            target_copies: self.target_copies,
        }
    }
}

/// One partition. Its hash is the sum of the hashes of its rows, over the key and all compared columns.
#[derive(Clone, Debug, Serialize)]
pub struct PartitionReport {
    /// Its name; `*` for the whole of a collection with a partition key.
    pub name: String,
    /// How it compares.
    pub outcome: Outcome,
    /// Rows on the source, each copy of a key counted; unknown if it is not loaded there.
    pub source_rows: Option<u64>,
    /// As `source_rows`.
    pub target_rows: Option<u64>,
    /// 128 bits in hexadecimal.
    pub source_hash: Option<String>,
    /// As `source_hash`.
    pub target_hash: Option<String>,
    /// Keys whose rows differ.
    pub changed: u64,
    /// Keys on the source only.
    pub source_only: u64,
    /// Keys on the target only.
    pub target_only: u64,
    /// Keys whose rows kept changing.
    pub moving: u64,
    /// Rows beyond one for each key.
    pub source_copies: u64,
    /// As `source_copies`.
    pub target_copies: u64,
}

/// One collection.
#[derive(Clone, Debug, Serialize)]
pub struct CollectionReport {
    /// `database.collection`
    pub name: String,
    /// Its name on the target, where that is another one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_target: Option<String>,
    /// The worst of what is below.
    pub outcome: Outcome,
    /// Differences beside rows: missing things, schemas, copies of keys.
    pub problems: Vec<String>,
    /// What could not be compared.
    pub not_compared: Vec<String>,
    /// What is worth knowing and no difference.
    pub notes: Vec<String>,
    /// Its partitions.
    pub partitions: Vec<PartitionReport>,
}

/// How a row differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum DifferenceKind {
    /// In some columns.
    Changed,
    /// The target has no row with this key.
    SourceOnly,
    /// The source has no row with this key.
    TargetOnly,
}

/// A row that differs.
#[derive(Clone, Debug, Serialize)]
pub struct Difference {
    /// `database.collection`
    pub collection: String,
    /// The partition; null where a partition key decides.
    pub partition: Option<String>,
    /// The primary key, a text in quotes.
    pub key: String,
    /// How it differs.
    pub kind: DifferenceKind,
    /// The columns that differ.
    pub columns: Vec<Cell>,
}

/// A column that differs, with short forms of both values.
#[derive(Clone, Debug, Serialize)]
pub struct Cell {
    /// The field.
    pub column: String,
    /// What the source has.
    pub source: String,
    /// What the target has.
    pub target: String,
}

/// What there is to say about the pipeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct PipelineReport {
    /// Whether it is seen to run: F moved while we looked. Null if that was too short to say.
    pub running: Option<bool>,
    /// F at the end: everything up to it is on the target. Null before the first commit.
    pub frontier: Option<Tso>,
    /// How far F is behind the source's clock, in milliseconds.
    pub lag_ms: Option<u64>,
}

/// A whole comparison.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// How it compares.
    pub outcome: Outcome,
    /// Where the source's rows came from.
    pub source: String,
    /// Where the target's came from.
    pub target: String,
    /// The pipeline.
    pub pipeline: PipelineReport,
    /// How long it took.
    pub seconds: f64,
    /// All collections.
    pub collections: Vec<CollectionReport>,
    /// The first rows that differ.
    pub differences: Vec<Difference>,
}

impl Report {
    /// The table, and below it what there is to say in words.
    pub fn table(&self) -> String {
        let count = |rows: Option<u64>| rows.map_or("?".to_owned(), human::count);
        let mut rows = vec![
            ["collection", "partition", "source rows", "target rows", "differing", "result"]
                .map(str::to_owned),
        ];
        for collection in &self.collections {
            for partition in &collection.partitions {
                let differing = partition.changed + partition.source_only + partition.target_only;
                rows.push([
                    collection.name.clone(),
                    partition.name.clone(),
                    count(partition.source_rows),
                    count(partition.target_rows),
                    human::count(differing),
                    partition.outcome.word().to_owned(),
                ]);
            }
            if collection.partitions.is_empty() {
                let [none, unknown] = ["", "?"].map(str::to_owned);
                rows.push([
                    collection.name.clone(),
                    none.clone(),
                    unknown.clone(),
                    unknown,
                    none,
                    collection.outcome.word().to_owned(),
                ]);
            }
        }
        let mut text = aligned(&rows);
        for collection in &self.collections {
            let lines = collection.problems.iter().map(|line| ("", line));
            let lines = lines.chain(collection.not_compared.iter().map(|line| ("not compared: ", line)));
            for (what, line) in lines.chain(collection.notes.iter().map(|line| ("note: ", line))) {
                writeln!(text, "{}: {what}{line}", collection.name).unwrap_or_default();
            }
            if let Some(on_target) = &collection.on_target {
                writeln!(text, "{}: is {on_target} on the target", collection.name).unwrap_or_default();
            }
        }
        for difference in &self.differences {
            text.push_str(&told(difference));
        }
        let shown = self.differences.len() as u64;
        let all: u64 =
            self.partitions().map(|found| found.changed + found.source_only + found.target_only).sum();
        if all > shown && shown > 0 {
            writeln!(text, "… and {} more rows that differ (--limit shows more)", human::count(all - shown))
                .unwrap_or_default();
        }
        text.push_str(&self.ending());
        text
    }

    fn partitions(&self) -> impl Iterator<Item = &PartitionReport> {
        self.collections.iter().flat_map(|collection| &collection.partitions)
    }

    fn ending(&self) -> String {
        let mut text = String::new();
        let lag =
            self.pipeline.lag_ms.map(|lag| human::duration(Duration::from_millis(lag))).unwrap_or_default();
        let said = match (self.pipeline.frontier, self.pipeline.running) {
            (None, _) => "the pipeline has committed nothing yet".to_owned(),
            (Some(frontier), Some(false)) => {
                format!(
                    "the pipeline does not run, or is stuck: it stands at {frontier}, {lag} behind the source"
                )
            }
            (Some(frontier), _) => format!("as of {frontier}, {lag} behind the source"),
        };
        writeln!(text, "{said}").unwrap_or_default();
        let took = human::duration(Duration::try_from_secs_f64(self.seconds).unwrap_or_default());
        let words = match self.outcome {
            Outcome::Equal => "source and target are equal",
            Outcome::Moving => "no differences, but some rows kept changing while they were compared",
            Outcome::NotCompared => "no differences, but not everything could be compared",
            Outcome::Different => "source and target DIFFER",
        };
        writeln!(text, "{words} (took {took})").unwrap_or_default();
        text
    }

    /// The exit code that it stands for.
    pub fn exit_code(&self) -> u8 {
        match self.outcome {
            Outcome::Equal => 0,
            Outcome::Different => 1,
            Outcome::Moving | Outcome::NotCompared => 3,
        }
    }

    /// As JSON, a line feed at its end.
    pub fn json(&self) -> Result<String> {
        let text = serde_json::to_string_pretty(self);
        text.map(|text| text + "\n").map_err(|cause| {
            Error::new(Kind::Internal, "the result can't be written as JSON").caused_by(cause)
        })
    }

    /// Writes it as JSON to `path`.
    ///
    /// # Errors
    /// `Usage` if the file can't be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        std::fs::write(path, self.json()?).map_err(|cause| {
            Error::new(Kind::Usage, format!("can't write the result to {}", path.display())).caused_by(cause)
        })
    }
}

fn told(difference: &Difference) -> String {
    let partition =
        difference.partition.as_ref().map(|name| format!(", partition {name}")).unwrap_or_default();
    let key = human::shortened(&difference.key, 100);
    let mut text = format!("{}{partition}, key {key}: ", difference.collection);
    match difference.kind {
        DifferenceKind::SourceOnly => text.push_str("on the source only\n"),
        DifferenceKind::TargetOnly => text.push_str("on the target only\n"),
        DifferenceKind::Changed => {
            let cells = difference.columns.iter().map(|cell| {
                format!("`{}` is {} on the source, {} on the target", cell.column, cell.source, cell.target)
            });
            text.push_str(&cells.collect::<Vec<_>>().join("; "));
            text.push('\n');
        }
    }
    text
}

/// Texts to the left, numbers to the right.
fn aligned(rows: &[[String; 6]]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let mut text = String::new();
    for (at, row) in rows.iter().enumerate() {
        let cells: Vec<String> = row
            .iter()
            .enumerate()
            .map(|(column, cell)| match column {
                2..=4 => format!("{cell:>width$}", width = width(column)),
                _ => format!("{cell:<width$}", width = width(column)),
            })
            .collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
        if at == 0 {
            text.push_str(&"-".repeat((0..row.len()).map(width).sum::<usize>() + 2 * (row.len() - 1)));
            text.push('\n');
        }
    }
    text
}

#[cfg(test)]
mod tests;
