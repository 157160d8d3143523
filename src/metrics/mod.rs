//! Metrics for Prometheus: what runs tell of themselves, written out when somebody asks. Nothing is counted here.

use std::fmt;
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

use self::names::{Metric, Sort};
use crate::dataflow::latency::{Latency, STEPS};
use crate::dataflow::progress::Counts;
use crate::dataflow::run::Status;
use crate::milvus::tso::Tso;

pub mod names;
pub mod process;
pub mod serve;

/// The type of an answer with metrics.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What is known of a pipeline at one moment.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Its name.
    pub pipeline: String,
    /// The state it is in, by name.
    pub state: &'static str,
    /// What its run tells of itself, or the last one did.
    pub status: Option<Status>,
    /// F when this process began, if there was one.
    pub floor: Option<Tso>,
    /// When the pipeline was made, as far as is known.
    pub made: Tso,
    /// Starts after failures.
    pub restarts: u64,
    /// Failures in a row.
    pub failures: usize,
    /// The kind of the last error, and when it was in Unix seconds.
    pub last_error: Option<(&'static str, i64)>,
}

/// All metrics of these pipelines, which may be in `states`, as the text that Prometheus reads.
pub fn text(seen: Vec<Seen>, states: &'static [&'static str]) -> String {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(All { seen, states, now: Tso::now() }));
    let mut text = String::new();
    // Writing to a String does not fail.
    let _ = prometheus_client::encoding::text::encode(&mut text, &registry);
    text
}

#[derive(Debug)]
struct All {
    seen: Vec<Seen>,
    states: &'static [&'static str],
    now: Tso,
}

/// The stages of a pipeline: up to where each has come.
fn stages(seen: &Seen) -> [(&'static str, Option<Tso>); 3] {
    let now = seen.status.as_ref().map(|status| &status.now);
    let known = |tso: Tso| (tso > Tso::ZERO).then_some(tso);
    let of = |part: fn(&crate::dataflow::progress::Now) -> Tso| {
        now.and_then(|now| known(part(now))).or(seen.floor)
    };
    [
        ("received", of(|now| now.read)),
        ("dispatched", of(|now| now.ordered)),
        ("durable", of(|now| now.committed)),
    ]
}

/// How far `frontier` is behind `watermark`, in seconds.
fn behind(watermark: Tso, frontier: Tso) -> f64 {
    Duration::from_millis(watermark.millis().saturating_sub(frontier.millis())).as_secs_f64()
}

fn seconds(tso: Tso) -> f64 {
    Duration::from_millis(tso.millis()).as_secs_f64()
}

impl Collector for All {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let out = &mut encoder;
        one(out, &names::BUILD, &[([env!("CARGO_PKG_VERSION")], 1.0)])?;
        let used = process::used();
        one(out, &names::RESIDENT, &[([], used.resident_bytes as f64)])?;
        one(out, &names::CPU, &[([], used.cpu.as_secs_f64())])?;
        let in_state = |state: &str| self.seen.iter().filter(|seen| seen.state == state).count();
        let states: Vec<_> = self.states.iter().map(|state| ([*state], in_state(state) as f64)).collect();
        one(out, &names::PIPELINES, &states)?;
        self.each(out, &names::STATE, |seen| {
            self.states.iter().map(|state| ([*state], f64::from(u8::from(*state == seen.state)))).collect()
        })?;
        self.each(out, &names::LAG, |seen| {
            let highest = seen.status.as_ref().map_or(Tso::ZERO, |status| status.now.highest);
            let watermark = self.now.max(highest);
            let lag = |frontier: Option<Tso>| behind(watermark, frontier.unwrap_or(seen.made));
            stages(seen).map(|(stage, frontier)| ([stage], lag(frontier))).into()
        })?;
        self.each(out, &names::FRONTIER, |seen| {
            let known =
                stages(seen).into_iter().filter_map(|(stage, frontier)| Some(([stage], seconds(frontier?))));
            known.collect()
        })?;
        self.traffic(out)?;
        self.channels(out)?;
        self.calls(out)?;
        self.each(out, &names::RESTARTS, |seen| vec![([""; 0], seen.restarts as f64)])?;
        self.each(out, &names::FAILURES, |seen| vec![([""; 0], seen.failures as f64)])?;
        self.each(out, &names::LAST_ERROR, |seen| {
            seen.last_error.iter().map(|(kind, _)| ([*kind], 1.0)).collect()
        })?;
        self.each(out, &names::LAST_ERROR_TIME, |seen| {
            seen.last_error.iter().map(|(_, at)| ([""; 0], *at as f64)).collect()
        })
    }
}

impl All {
    /// What came and went, by collection and by channel.
    fn traffic(&self, out: &mut DescriptorEncoder<'_>) -> fmt::Result {
        type Part = fn(&Counts) -> u64;
        let parts: [(&Metric, &Metric, Part); 5] = [
            (&names::RECEIVED_ROWS, &names::CHANNEL_RECEIVED_ROWS, |counts| counts.received.rows),
            (&names::RECEIVED_BYTES, &names::CHANNEL_RECEIVED_BYTES, |counts| counts.received.bytes),
            (&names::DISPATCHED_ROWS, &names::CHANNEL_DISPATCHED_ROWS, |counts| counts.dispatched.rows),
            (&names::DISPATCHED_BYTES, &names::CHANNEL_DISPATCHED_BYTES, |counts| counts.dispatched.bytes),
            (&names::DURABLE_BYTES, &names::CHANNEL_DURABLE_BYTES, |counts| counts.bytes),
        ];
        for (by_collection, by_channel, part) in parts {
            self.status(out, by_collection, |status| {
                let all = status.now.collections.iter();
                all.map(|(name, counts)| ([name.to_string()], part(counts) as f64)).collect()
            })?;
            self.status(out, by_channel, |status| {
                let all = status.now.by_channel.iter();
                all.map(|(name, counts)| ([name.to_string()], part(counts) as f64)).collect()
            })?;
        }
        self.status(out, &names::CHANNEL_DURABLE_ROWS, |status| {
            let all = status.now.by_channel.iter();
            all.map(|(name, counts)| ([name.to_string()], counts.durable() as f64)).collect()
        })?;
        self.status(out, &names::DURABLE_ROWS, |status| {
            let all = status.now.collections.iter();
            all.flat_map(|(name, counts)| {
                [("insert", counts.inserted), ("upsert", counts.upserted), ("delete", counts.deleted)]
                    .map(|(operation, rows)| ([name.to_string(), operation.to_owned()], rows as f64))
            })
            .collect()
        })
    }

    /// How channels are read.
    fn channels(&self, out: &mut DescriptorEncoder<'_>) -> fmt::Result {
        self.status(out, &names::CHANNEL_LAG, |status| {
            let ticked = status.channels.iter().filter(|channel| channel.tick > Tso::ZERO);
            ticked.map(|channel| ([channel.channel.to_string()], behind(self.now, channel.tick))).collect()
        })?;
        self.status(out, &names::CHANNEL_HELD, |status| {
            let all = status.channels.iter();
            all.map(|channel| ([channel.channel.to_string()], channel.held_bytes as f64)).collect()
        })?;
        self.status(out, &names::CHANNEL_WAITED, |status| {
            let all = status.channels.iter();
            all.flat_map(|channel| {
                let waited = channel.waited;
                [("memory", waited.credit), ("dataflow", waited.dataflow), ("queue", waited.queue)].map(
                    |(reason, time)| ([channel.channel.to_string(), reason.to_owned()], time.as_secs_f64()),
                )
            })
            .collect()
        })
    }

    /// The memory budget, and the calls to the target.
    fn calls(&self, out: &mut DescriptorEncoder<'_>) -> fmt::Result {
        self.status(out, &names::HELD, |status| vec![([], status.held_bytes as f64)])?;
        self.status(out, &names::BUDGET, |status| vec![([], status.budget as f64)])?;
        self.status(out, &names::IN_FLIGHT, |status| vec![([], status.now.calls as f64)])?;
        self.status(out, &names::RETRIES, |status| {
            let all = status.now.retries.iter();
            all.map(|(kind, times)| ([kind.name().to_owned()], *times as f64)).collect()
        })?;
        self.status(out, &names::IN_DOUBT, |status| vec![([], status.now.doubtful_rows as f64)])?;
        let mut metric = describe(out, &names::CALL)?;
        for seen in &self.seen {
            for (call, latency) in seen.status.iter().flat_map(|status| &status.now.latencies) {
                let labels = [("pipeline", seen.pipeline.as_str()), ("call", *call)];
                histogram(&mut metric.encode_family(&labels.as_slice())?, latency)?;
            }
        }
        Ok(())
    }

    /// A metric of each pipeline, with further labels.
    fn each<L: AsRef<str>, const LABELS: usize>(
        &self,
        out: &mut DescriptorEncoder<'_>,
        metric: &Metric,
        values: impl Fn(&Seen) -> Vec<([L; LABELS], f64)>,
    ) -> fmt::Result {
        let mut encoder = describe(out, metric)?;
        for seen in &self.seen {
            for (labels, value) in values(seen) {
                let mut all = vec![(metric.labels[0], seen.pipeline.as_str())];
                all.extend(metric.labels[1..].iter().copied().zip(labels.iter().map(AsRef::as_ref)));
                number(&mut encoder, metric, &all, value)?;
            }
        }
        Ok(())
    }

    /// The same of what a run tells of itself.
    fn status<const LABELS: usize>(
        &self,
        out: &mut DescriptorEncoder<'_>,
        metric: &Metric,
        values: impl Fn(&Status) -> Vec<([String; LABELS], f64)>,
    ) -> fmt::Result {
        self.each(out, metric, |seen| seen.status.as_ref().map(&values).unwrap_or_default())
    }
}

/// A metric of the process.
fn one<const LABELS: usize>(
    out: &mut DescriptorEncoder<'_>,
    metric: &Metric,
    values: &[([&str; LABELS], f64)],
) -> fmt::Result {
    let mut encoder = describe(out, metric)?;
    for (labels, value) in values {
        let all: Vec<(&str, &str)> = metric.labels.iter().copied().zip(labels.iter().copied()).collect();
        number(&mut encoder, metric, &all, *value)?;
    }
    Ok(())
}

fn describe<'e>(
    out: &'e mut DescriptorEncoder<'_>,
    metric: &Metric,
) -> Result<MetricEncoder<'e>, fmt::Error> {
    let sort = match metric.sort {
        Sort::Counter => MetricType::Counter,
        Sort::Gauge => MetricType::Gauge,
        Sort::Histogram => MetricType::Histogram,
    };
    // The format adds the end of a counter's name itself, and the point behind the help.
    let name = metric.name.strip_suffix("_total").unwrap_or(metric.name);
    out.encode_descriptor(name, metric.help, None, sort)
}

fn number(
    encoder: &mut MetricEncoder<'_>,
    metric: &Metric,
    labels: &[(&str, &str)],
    value: f64,
) -> fmt::Result {
    let family = encoder.encode_family(&labels)?;
    match metric.sort {
        Sort::Counter => ConstCounter::new(value).encode(family),
        _ => ConstGauge::new(value).encode(family),
    }
}

fn histogram(encoder: &mut MetricEncoder<'_>, latency: &Latency) -> fmt::Result {
    let ends = STEPS.iter().copied().chain([f64::INFINITY]);
    let buckets: Vec<(f64, u64)> = ends.zip(latency.counts).collect();
    encoder.encode_histogram::<NoLabelSet>(latency.seconds, latency.count(), &buckets, None)
}

#[cfg(test)]
mod tests;
