//! `migrans tail`.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use clap::Args;

use super::{parse_pattern, parse_until, signals};
use crate::dataflow::run::Until;
use crate::error::Result;
use crate::milvus::channel::PChannel;
use crate::milvus::tso::Tso;
use crate::pipeline::{Pipeline, Select, StartAt};
use crate::tail::{self, Options};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The pipeline file, for its source and its selection
    pipeline: PathBuf,
    /// Only this physical channel, and everything that is on it; may be given more than once
    #[arg(long, value_name = "PCHANNEL")]
    channel: Vec<String>,
    /// Only these collections instead of those that the file selects: a pattern database.collection; may be given more
    /// than once
    #[arg(long, value_name = "PATTERN", value_parser = parse_pattern)]
    collection: Vec<String>,
    /// Where to begin: latest, earliest, collection (where the collections begin), an RFC 3339 time or a Milvus timestamp
    /// [default: latest; with --count, earliest]
    #[arg(long, value_name = "WHERE", value_parser = parse_from)]
    from: Option<StartAt>,
    /// When to end: caught-up, an RFC 3339 time or a Milvus timestamp, or forever [default: forever; with --count, caught-up]
    #[arg(long, value_name = "WHEN", value_parser = parse_until)]
    until: Option<Until>,
    /// One JSON object a line
    #[arg(long)]
    json: bool,
    /// Show ticks too
    #[arg(long, conflicts_with = "count")]
    ticks: bool,
    /// The most keys to show of a message
    #[arg(long, value_name = "N", default_value_t = 10)]
    keys: usize,
    /// Only count messages, rows and bytes, by collection and kind
    #[arg(long)]
    count: bool,
}

fn parse_from(text: &str) -> std::result::Result<StartAt, String> {
    match text {
        "latest" => Ok(StartAt::Latest),
        "earliest" => Ok(StartAt::Earliest),
        "collection" => Ok(StartAt::Collection),
        _ => Tso::parse(text).map(StartAt::After).ok_or_else(|| {
            "expected latest, earliest, collection, an RFC 3339 time such as 2026-11-22T10:00:00Z, or a Milvus timestamp"
                .to_owned()
        }),
    }
}

/// Tails as the arguments say.
pub(super) fn tail(arguments: Arguments) -> Result<()> {
    let pipeline = Pipeline::load(Path::new(&arguments.pipeline))?;
    let stop = Arc::new(AtomicBool::new(false));
    signals::listen(Arc::clone(&stop))?;
    let count = arguments.count;
    let options = Options {
        channels: arguments.channel.iter().map(|name| PChannel(name.as_str().into())).collect(),
        collections: (!arguments.collection.is_empty())
            .then(|| Select { collections: arguments.collection.clone(), exclude: Vec::new() }),
        from: arguments.from.unwrap_or(if count { StartAt::Earliest } else { StartAt::Latest }),
        until: arguments.until.unwrap_or(if count { Until::CaughtUp } else { Until::Forever }),
        json: arguments.json,
        ticks: arguments.ticks,
        keys: arguments.keys,
        count,
    };
    tail::tail(&pipeline, &options, &stop)
}
