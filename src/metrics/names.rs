//! Every metric: its name, what it says, and by what it is told apart. `docs/metrics.md` is made from this.

/// What sort of number a metric is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sort {
    /// It only grows, and begins anew with a run.
    Counter,
    /// It goes up and down.
    Gauge,
    /// How often a time was within each of some steps.
    Histogram,
}

/// A metric.
#[derive(Debug)]
pub struct Metric {
    /// Its name as it is queried. (A histogram has `_bucket`, `_sum` and `_count` behind it.)
    pub name: &'static str,
    /// What sort of number it is.
    pub sort: Sort,
    /// The names of its labels.
    pub labels: &'static [&'static str],
    /// What it says.
    pub help: &'static str,
}

macro_rules! metrics {
    ($($constant:ident $sort:ident $name:literal [$($label:literal)*] $help:literal)*) => {
        $(
            #[doc = $help]
            pub static $constant: Metric =
                Metric { name: $name, sort: Sort::$sort, labels: &[$($label),*], help: $help };
        )*
        /// All of them.
        pub static METRICS: &[&Metric] = &[$(&$constant),*];
    };
}

metrics! {
    BUILD Gauge "migrans_build_info" ["version"] "The version of migrans; always 1"
    RESIDENT Gauge "migrans_resident_memory_bytes" [] "Memory of the process that is resident"
    CPU Counter "migrans_cpu_seconds_total" [] "Time of the processors that the process has used"
    PIPELINES Gauge "migrans_pipelines" ["state"] "How many pipelines there are in each state"
    STATE Gauge "migrans_pipeline_state" ["pipeline" "state"] "1 for the state that the pipeline is in, 0 for all others"
    LAG Gauge "migrans_lag_seconds" ["pipeline" "stage"] "How far the pipeline is behind its source: what is older was received, dispatched, is durable. It grows while the pipeline is stuck, stopped or paused. Before anything was committed it counts from when the pipeline was made"
    FRONTIER Gauge "migrans_frontier_timestamp_seconds" ["pipeline" "stage"] "The time at the source up to which everything was received, dispatched, is durable; absent as long as that is nothing"
    RECEIVED_ROWS Counter "migrans_received_rows_total" ["pipeline" "collection"] "Rows and keys that were read from the queue"
    RECEIVED_BYTES Counter "migrans_received_bytes_total" ["pipeline" "collection"] "Bytes of the messages with these"
    DISPATCHED_ROWS Counter "migrans_dispatched_rows_total" ["pipeline" "collection"] "Rows and keys that were put in order and handed over to be sent; what cancelled out before is not among them"
    DISPATCHED_BYTES Counter "migrans_dispatched_bytes_total" ["pipeline" "collection"] "Bytes of these"
    DURABLE_ROWS Counter "migrans_durable_rows_total" ["pipeline" "collection" "operation"] "Rows and keys that the target has acknowledged"
    DURABLE_BYTES Counter "migrans_durable_bytes_total" ["pipeline" "collection"] "Bytes of these"
    CHANNEL_RECEIVED_ROWS Counter "migrans_channel_received_rows_total" ["pipeline" "channel"] "As migrans_received_rows_total, by physical channel"
    CHANNEL_RECEIVED_BYTES Counter "migrans_channel_received_bytes_total" ["pipeline" "channel"] "As migrans_received_bytes_total, by physical channel"
    CHANNEL_DISPATCHED_ROWS Counter "migrans_channel_dispatched_rows_total" ["pipeline" "channel"] "As migrans_dispatched_rows_total, by physical channel"
    CHANNEL_DISPATCHED_BYTES Counter "migrans_channel_dispatched_bytes_total" ["pipeline" "channel"] "As migrans_dispatched_bytes_total, by physical channel"
    CHANNEL_DURABLE_ROWS Counter "migrans_channel_durable_rows_total" ["pipeline" "channel"] "As migrans_durable_rows_total, by physical channel"
    CHANNEL_DURABLE_BYTES Counter "migrans_channel_durable_bytes_total" ["pipeline" "channel"] "As migrans_durable_bytes_total, by physical channel"
    CHANNEL_LAG Gauge "migrans_channel_lag_seconds" ["pipeline" "channel"] "The age of the last tick that was read from the channel"
    CHANNEL_HELD Gauge "migrans_channel_held_bytes" ["pipeline" "channel"] "Bytes of the budget that messages of the channel hold"
    CHANNEL_WAITED Counter "migrans_channel_waited_seconds_total" ["pipeline" "channel" "reason"] "How long reading has waited for the memory budget, the dataflow, the queue"
    HELD Gauge "migrans_held_bytes" ["pipeline"] "Bytes of the memory budget in use"
    BUDGET Gauge "migrans_budget_bytes" ["pipeline"] "The memory budget"
    IN_FLIGHT Gauge "migrans_calls_in_flight" ["pipeline"] "Calls to the target that have no answer yet"
    CALL Histogram "migrans_call_seconds" ["pipeline" "call"] "How long calls to the target took, with those that failed: insert, upsert, delete, replicate, ddl"
    RETRIES Counter "migrans_retries_total" ["pipeline" "cause"] "Calls that have to be made again, by the kind of their error"
    IN_DOUBT Counter "migrans_in_doubt_rows_total" ["pipeline"] "Rows that were sent again, as upserts and deletes, since it was not known whether they had arrived: an answer was lost, or the last run was"
    RESTARTS Counter "migrans_restarts_total" ["pipeline"] "Starts after failures, since the process began"
    FAILURES Gauge "migrans_failures_in_a_row" ["pipeline"] "Failures since the pipeline last ran for long"
    LAST_ERROR Gauge "migrans_last_error_info" ["pipeline" "kind"] "The kind of the last error that stopped the pipeline; always 1, absent if there was none since the process began"
    LAST_ERROR_TIME Gauge "migrans_last_error_timestamp_seconds" ["pipeline"] "When that was"
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fmt::Write;
    use std::path::Path;

    use super::*;

    fn table() -> String {
        let mut text = String::from("| metric | sort | labels | what it says |\n|---|---|---|---|\n");
        for metric in METRICS {
            let labels: Vec<String> = metric.labels.iter().map(|label| format!("`{label}`")).collect();
            let sort = format!("{:?}", metric.sort).to_lowercase();
            writeln!(text, "| `{}` | {sort} | {} | {} |", metric.name, labels.join(", "), metric.help)
                .unwrap();
        }
        text
    }

    #[test]
    fn the_documented_metrics_are_those_of_the_code() {
        let path = Path::new("docs/metrics.md");
        let text = std::fs::read_to_string(path).unwrap();
        let (before, rest) = text.split_once("<!-- metrics -->\n").unwrap();
        let (documented, after) = rest.split_once("<!-- metrics end -->").unwrap();
        if std::env::var_os("MIGRANS_WRITE_DOCS").is_some() {
            let text = format!("{before}<!-- metrics -->\n{}<!-- metrics end -->{after}", table());
            std::fs::write(path, text).unwrap();
            return;
        }
        assert!(documented == table(), "run MIGRANS_WRITE_DOCS=1 cargo test --release names");
    }

    #[test]
    fn names_are_those_that_prometheus_wants() {
        let names: BTreeSet<&str> = METRICS.iter().map(|metric| metric.name).collect();
        assert_eq!(names.len(), METRICS.len());
        for metric in METRICS {
            assert_eq!(metric.sort == Sort::Counter, metric.name.ends_with("_total"), "{}", metric.name);
            assert!(metric.name.starts_with("migrans_"));
        }
    }

    /// Every word in `text` that has the form of one of our metrics.
    fn used(text: &str) -> BTreeSet<String> {
        let is_part = |character: char| character.is_ascii_alphanumeric() || character == '_';
        let words = text.split(|character| !is_part(character));
        words.filter(|word| word.starts_with("migrans_")).map(str::to_owned).collect()
    }

    #[test]
    fn dashboard_and_alerts_use_metrics_that_exist() {
        let root = Path::new(""); // cargo runs tests in the package's folder
        for file in ["deploy/grafana-dashboard.json", "deploy/prometheus-alerts.yml"] {
            let text = std::fs::read_to_string(root.join(file)).unwrap();
            let used = used(&text);
            assert!(used.len() >= 5, "{file}: {used:?}");
            for name in used {
                let exists = METRICS.iter().any(|metric| match metric.sort {
                    Sort::Histogram => ["_bucket", "_sum", "_count"]
                        .iter()
                        .any(|end| name == format!("{}{end}", metric.name)),
                    _ => name == metric.name,
                });
                assert!(exists, "{file}: there is no metric {name}");
            }
        }
    }
}
