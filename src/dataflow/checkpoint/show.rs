//! A checkpoint for people and for programs.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use serde::Serialize;

use super::source::moment;
use super::state::Checkpoint;
use crate::milvus::tso::Tso;
use crate::ops::apply::describe;
use crate::pipeline::{MqConfig, Names};
use crate::progress::human;
use crate::sources;

/// What `migrans checkpoint show` says.
#[derive(Debug, Serialize)]
pub struct Shown {
    /// Whose state it is.
    pub pipeline: String,
    /// A short form of what must not change in its file.
    pub definition: String,
    /// In what the file differs from that now, and so would be refused.
    pub differences: Vec<String>,
    /// Which source, `null` before the first run.
    pub source: Option<ShownSource>,
    /// Where the pipeline began, `null`: with everything.
    pub began: Option<Time>,
    /// F, `null` before the first commit.
    pub frontier: Option<Time>,
    /// How far this machine's clock is past it, in seconds.
    pub lag_seconds: Option<f64>,
    /// Whether nothing was in flight when this was written.
    pub clean: bool,
    /// How long calls of the last run may still take effect, in seconds.
    pub calls_over_in_seconds: f64,
    /// Where each channel is read on, in the words of the queue's own tools.
    pub positions: BTreeMap<String, String>,
    /// Per shard up to when rows beyond the frontier may have reached the target.
    pub in_doubt: BTreeMap<String, Time>,
    /// Databases that were made on the target.
    pub databases: Vec<String>,
    /// Collections that were made on the target or adopted.
    pub collections: Vec<ShownCollection>,
    /// Steps of the catalog that had begun.
    pub intents: Vec<String>,
}

/// Which source it is.
#[derive(Debug, Serialize)]
pub struct ShownSource {
    /// When it was set up: its identity.
    pub set_up: Option<String>,
    /// The id of its etcd.
    pub etcd: u64,
    /// The highest revision of that that was seen.
    pub revision: i64,
}

/// A timestamp.
#[derive(Debug, Serialize)]
pub struct Time {
    /// As Milvus has it.
    pub tso: u64,
    /// By the wall clock.
    pub time: String,
}

/// A collection as it was applied.
#[derive(Debug, Serialize)]
pub struct ShownCollection {
    /// Its id at the source.
    pub id: i64,
    /// Its name, with its database.
    pub name: String,
    /// Its name on the target, where that is another one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_target: Option<String>,
    /// When it was created at the source.
    pub created: Time,
    /// Its partitions.
    pub partitions: Vec<String>,
    /// Its indexes.
    pub indexes: Vec<String>,
    /// Whether it is loaded.
    pub loaded: bool,
    /// Whether it was there before and was adopted.
    pub adopted: bool,
}

impl From<Tso> for Time {
    fn from(tso: Tso) -> Time {
        let millis = i64::try_from(tso.millis()).unwrap_or(i64::MAX);
        let time = jiff::Timestamp::from_millisecond(millis);
        Time { tso: tso.0, time: time.map(|time| format!("{time:.3}")).unwrap_or_default() }
    }
}

impl Shown {
    /// Of a `checkpoint` whose positions are in a queue of this kind, at a time in Unix milliseconds.
    pub fn new(checkpoint: &Checkpoint, mq: &MqConfig, names: &Names, unix_now: u64) -> Shown {
        let in_doubt = checkpoint
            .sent_high
            .iter()
            .filter(|(shard, _)| checkpoint.in_doubt_up_to(shard) > checkpoint.frontier.unwrap_or(Tso::ZERO));
        let collections = checkpoint.applied.collections.values().map(|collection| ShownCollection {
            id: collection.id.0,
            name: collection.name.to_string(),
            on_target: names.other(&collection.name).map(|name| name.to_string()),
            created: collection.created.into(),
            partitions: collection.partitions.values().map(|partition| partition.name.clone()).collect(),
            indexes: collection.indexes.values().map(|index| index.name.clone()).collect(),
            loaded: collection.load.is_some(),
            adopted: checkpoint.adopted.contains(&collection.id),
        });
        let lag = |frontier: Tso| Duration::from_millis(unix_now.saturating_sub(frontier.millis()));
        Shown {
            pipeline: String::new(),
            definition: String::new(),
            differences: Vec::new(),
            source: checkpoint.source.map(|source| ShownSource {
                set_up: source.born.map(moment),
                etcd: source.etcd,
                revision: source.revision,
            }),
            began: checkpoint.began.map(Time::from),
            frontier: checkpoint.frontier.map(Time::from),
            lag_seconds: checkpoint.frontier.map(|frontier| lag(frontier).as_secs_f64()),
            clean: checkpoint.clean,
            calls_over_in_seconds: checkpoint.calls_over_in(unix_now).as_secs_f64(),
            positions: checkpoint
                .positions
                .iter()
                .map(|(channel, position)| (channel.to_string(), sources::place(mq, channel, position)))
                .collect(),
            in_doubt: in_doubt.map(|(shard, high)| (shard.to_string(), Time::from(*high))).collect(),
            databases: checkpoint.applied.databases.values().map(|database| database.name.clone()).collect(),
            collections: collections.collect(),
            intents: checkpoint.intents.iter().map(describe).collect(),
        }
    }

    /// In lines.
    pub fn text(&self) -> String {
        let mut text = String::new();
        let mut line = |name: &str, value: String| {
            // Writing to a String can't fail.
            let _ = writeln!(text, "{name:<10} {value}");
        };
        line("pipeline", format!("{}, definition {}", self.pipeline, self.definition));
        for difference in &self.differences {
            line("", format!("the file is another one now and would be refused: {difference}"));
        }
        line(
            "source",
            match &self.source {
                None => "not seen yet".to_owned(),
                Some(source) => {
                    let set_up = source.set_up.as_deref().unwrap_or("at a time that it does not tell");
                    format!("set up {set_up}, its etcd {:x} at revision {}", source.etcd, source.revision)
                }
            },
        );
        if let Some(began) = &self.began {
            line("began", format!("after {} ({})", began.time, began.tso));
        }
        line(
            "frontier",
            match (&self.frontier, self.lag_seconds) {
                (Some(frontier), Some(lag)) => {
                    let lag = human::duration(Duration::from_secs_f64(lag));
                    format!("{} ({}), {lag} ago", frontier.time, frontier.tso)
                }
                _ => "nothing was applied yet".to_owned(),
            },
        );
        line(
            "stopped",
            if self.clean {
                "cleanly: nothing is in flight".to_owned()
            } else {
                let left = human::duration(Duration::from_secs_f64(self.calls_over_in_seconds));
                format!("not cleanly, or running: calls may take effect for {left} more")
            },
        );
        for (channel, place) in &self.positions {
            line("position", format!("{channel} at {place}"));
        }
        for (shard, high) in &self.in_doubt {
            line("in doubt", format!("{shard} up to {} ({})", high.time, high.tso));
        }
        for database in &self.databases {
            line("database", database.clone());
        }
        for collection in &self.collections {
            let ShownCollection { id, name, on_target, partitions, indexes, loaded, adopted, .. } =
                collection;
            let state = match (loaded, adopted) {
                (true, true) => ", loaded, adopted",
                (true, false) => ", loaded",
                (false, true) => ", adopted",
                (false, false) => "",
            };
            let counts = format!("{} partition(s), {} index(es)", partitions.len(), indexes.len());
            let on_target =
                on_target.as_ref().map(|name| format!(", {name} on the target")).unwrap_or_default();
            line("collection", format!("{name} (id {id}{on_target}): {counts}{state}"));
        }
        for step in &self.intents {
            line("begun", step.clone());
        }
        text
    }
}
