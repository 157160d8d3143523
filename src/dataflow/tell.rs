//! What a run tells of itself: its status in the terms of [`crate::progress`].

use std::time::Duration;

use super::channels::{ChannelNow, Waiting};
use super::run::Status;
use crate::milvus::tso::Tso;
use crate::ownership::Standing;
use crate::pipeline::Names;
use crate::progress::{
    ChannelReport, CollectionProgress, CollectionReport, LagPercentiles, MemoryReport, OwnershipReport,
    Report, RowCounts, Snapshot, WaitedReport,
};

/// A queue that is waited for longer than this is shown.
const WORTH_A_WORD: Duration = Duration::from_secs(1);

/// The state of a run for [`crate::progress::Display`].
pub fn snapshot(status: &Status) -> Snapshot {
    let frontier = known(status.now.committed);
    let applied = status.now.collections.iter().filter(|(_, counts)| counts.durable() > 0);
    let collections = applied.map(|(name, counts)| CollectionProgress {
        name: name.to_string(),
        rows_written: counts.durable(),
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

/// A run's report, `elapsed` after its beginning.
pub fn report(status: &Status, names: &Names, elapsed: Duration) -> Report {
    let now = &status.now;
    let applied = now.collections.iter().filter(|(_, counts)| counts.durable() > 0);
    let collections = applied.map(|(name, counts)| CollectionReport {
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
