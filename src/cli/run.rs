//! `migrans run`.

use std::io::IsTerminal;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::signals;
use crate::dataflow::run::{self, Status, Summary, Until};
use crate::error::Result;
use crate::milvus::tso::Tso;
use crate::pipeline::Pipeline;
use crate::progress::{
    CollectionProgress, CollectionReport, Display, LagPercentiles, Report, RowCounts, Snapshot,
};

/// Runs the pipeline in the file `path`; writes a report to `report` when it ends well.
pub fn run(path: &Path, until: Until, report: Option<&Path>) -> Result<()> {
    let pipeline = Pipeline::load(path)?;
    let stop = Arc::new(AtomicBool::new(false));
    signals::listen(Arc::clone(&stop))?;
    let mut display = Display::new(std::io::stderr().is_terminal());
    let result = run::run(&pipeline, until, &stop, |status| display.update(&snapshot(status)));
    display.finish();
    let summary = self::report(&result?);
    println!("{}", summary.table());
    report.map_or(Ok(()), |path| summary.write(path))
}

fn snapshot(status: &Status) -> Snapshot {
    let frontier = known(status.now.committed);
    let collections = status.now.collections.iter().map(|(name, counts)| CollectionProgress {
        name: name.to_string(),
        rows_written: counts.inserted + counts.upserted + counts.deleted,
        bytes_written: counts.bytes,
    });
    Snapshot {
        collections: collections.collect(),
        frontier,
        lag: frontier.map(Tso::age),
        head: status.now.head,
        held_bytes: status.held_bytes,
        budget: status.budget,
        calls_in_flight: status.now.calls,
        waiting: status.now.waiting.clone(),
    }
}

fn report(summary: &Summary) -> Report {
    let now = &summary.status.now;
    let collections = now.collections.iter().map(|(name, counts)| CollectionReport {
        name: name.to_string(),
        rows: RowCounts { inserted: counts.inserted, upserted: counts.upserted, deleted: counts.deleted },
        bytes: counts.bytes,
    });
    let lag = now.lag.map_or_else(LagPercentiles::default, |[p50, p90, p99]| LagPercentiles {
        p50: Some(p50),
        p90: Some(p90),
        p99: Some(p99),
    });
    Report::new(collections.collect(), summary.elapsed, known(now.committed), lag)
}

/// Before the first commit there is no frontier.
fn known(frontier: Tso) -> Option<Tso> {
    (frontier > Tso::ZERO).then_some(frontier)
}
