//! `migrans run`.

use std::io::IsTerminal;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use super::signals;
use crate::dataflow::channels::{ChannelNow, Waiting};
use crate::dataflow::run::{self, Status, Until};
use crate::error::Result;
use crate::milvus::tso::Tso;
use crate::ownership::Standing;
use crate::pipeline::{Names, Pipeline};
use crate::progress::{
    ChannelReport, CollectionProgress, CollectionReport, Display, LagPercentiles, MemoryReport,
    OwnershipReport, Report, RowCounts, Snapshot, WaitedReport,
};

/// A queue that is waited for longer than this is shown.
const WORTH_A_WORD: Duration = Duration::from_secs(1);
/// While a pipeline runs, its report is written this often.
const REPORT_EVERY: Duration = Duration::from_secs(2);

/// Runs the pipeline in the file `path`; writes a report to `report` while it runs, and when it ends well.
pub fn run(path: &Path, until: Until, report: Option<&Path>) -> Result<()> {
    let pipeline = Pipeline::load(path)?;
    let stop = Arc::new(AtomicBool::new(false));
    signals::listen(Arc::clone(&stop))?;
    let mut display = Display::new(std::io::stderr().is_terminal());
    let names = pipeline.target.names();
    let began = Instant::now();
    let mut reported = began;
    let result = run::run(&pipeline, until, &stop, |status| {
        display.update(&snapshot(status));
        if let Some(path) = report
            && reported.elapsed() >= REPORT_EVERY
        {
            reported = Instant::now();
            if let Err(error) = self::report(status, &names, began.elapsed()).write(path) {
                tracing::warn!("{}", error.report());
            }
        }
    });
    display.finish();
    let summary = result.map(|summary| self::report(&summary.status, &names, summary.elapsed))?;
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
        waiting: waiting(status),
    }
}

/// What the run waits for: the ownership, the target, or the queue.
fn waiting(status: &Status) -> Option<String> {
    let standing = status.standing.as_ref().and_then(|standing| match standing {
        Standing::By(Some(owner)) => Some(format!("standing by: {owner}, owns the pipeline")),
        Standing::By(None) => Some("standing by: the ownership's etcd does not answer".to_owned()),
        Standing::Owner { trouble, .. } => trouble.clone(),
    });
    standing.or_else(|| status.now.waiting.clone()).or_else(|| {
        let mut channels = status.channels.iter().filter_map(|channel| match &channel.waiting {
            Some((Waiting::Queue(what), since)) if *since > WORTH_A_WORD => Some((&channel.channel, what)),
            _ => None,
        });
        let (channel, what) = channels.next()?;
        match channels.count() {
            0 => Some(format!("channel {channel} waits for {what}")),
            more => Some(format!("channel {channel} and {more} more wait for {what}")),
        }
    })
}

fn report(status: &Status, names: &Names, elapsed: Duration) -> Report {
    let now = &status.now;
    let collections = now.collections.iter().map(|(name, counts)| CollectionReport {
        name: name.to_string(),
        on_target: names.other(name).map(|name| name.to_string()),
        rows: RowCounts { inserted: counts.inserted, upserted: counts.upserted, deleted: counts.deleted },
        bytes: counts.bytes,
    });
    let lag = now.lag.map_or_else(LagPercentiles::default, |[p50, p90, p99]| LagPercentiles {
        p50: Some(p50),
        p90: Some(p90),
        p99: Some(p99),
    });
    let memory = MemoryReport { budget: status.budget, held: status.held_bytes, peak: status.peak_bytes };
    let channels = status.channels.iter().map(channel_report).collect();
    Report::new(collections.collect(), elapsed, known(now.committed), lag)
        .with_source(waiting(status), memory, channels)
        .with_ownership(status.standing.as_ref().map(ownership_report))
}

fn ownership_report(standing: &Standing) -> OwnershipReport {
    match standing {
        Standing::By(owner) => OwnershipReport {
            state: "standing by",
            since: owner.as_ref().map(|owner| owner.since.clone()),
            owner: owner.as_ref().map(|owner| format!("{}:{}", owner.host, owner.pid)),
            ..OwnershipReport::default()
        },
        Standing::Owner { epoch, since, .. } => {
            OwnershipReport { state: "owner", epoch: Some(*epoch), since: Some(since.clone()), owner: None }
        }
    }
}

fn channel_report(channel: &ChannelNow) -> ChannelReport {
    let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let tick = known(channel.tick);
    ChannelReport {
        name: channel.channel.to_string(),
        tick,
        lag_ms: tick.map(|tick| millis(tick.age())),
        held_bytes: channel.held_bytes,
        waiting: channel.waiting.as_ref().map(|(what, _)| what.to_string()),
        waited_ms: WaitedReport {
            memory: millis(channel.waited.credit),
            dataflow: millis(channel.waited.dataflow),
            queue: millis(channel.waited.queue),
        },
    }
}

/// Before the first commit there is no frontier.
fn known(frontier: Tso) -> Option<Tso> {
    (frontier > Tso::ZERO).then_some(frontier)
}
