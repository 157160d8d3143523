//! `migrans verify`.

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::Args;

use super::{parse_duration, parse_pattern};
use crate::error::{Error, Kind, Result};
use crate::pipeline::{Pipeline, Select};
use crate::progress::{Work, WorkDisplay};
use crate::verify::{self, Options, Report};

#[derive(Debug, Args)]
#[command(after_help = "\
Exit codes: 0 everything is equal; 1 there is a difference, or it failed; 2 wrong usage or a bad pipeline file; 3 no
difference was found, but not everything could be compared: collections or partitions that are not loaded (only loaded rows can
be queried), vectors that a server does not return, rows that kept changing.

It may run beside the pipeline: what differs is read again once the pipeline has passed that time, until it is equal or known to
differ. Both sides are only read, a page at a time, so memory does not depend on how much there is.

The source's rows are read through its proxy; write its address as uri into [source.milvus] of the pipeline file.")]
pub(super) struct Arguments {
    /// The pipeline file
    pipeline: PathBuf,
    /// Only these collections of those that the file selects: a pattern database.collection; may be given more than once
    #[arg(long, value_name = "PATTERN", value_parser = parse_pattern)]
    collection: Vec<String>,
    /// The most differing rows to show, with their keys and columns
    #[arg(long, value_name = "N", default_value_t = 20)]
    limit: usize,
    /// Write the result as JSON to this file; `-`: to standard output, in place of the table
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// How long the pipeline's frontier may stand still until the pipeline counts as not running. Differences are
    /// settled at once then
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = parse_duration)]
    patience: Duration,
}

/// Verifies as the arguments say; returns the exit code.
pub(super) fn verify(arguments: Arguments) -> Result<u8> {
    let pipeline = Pipeline::load(&arguments.pipeline)?;
    let options = Options {
        collections: (!arguments.collection.is_empty())
            .then(|| Select { collections: arguments.collection.clone(), exclude: Vec::new() }),
        limit: arguments.limit,
        patience: arguments.patience,
    };
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().map_err(
            |cause| Error::new(Kind::Internal, "can't start the runtime for calls").caused_by(cause),
        )?;
    let work = Arc::new(Work::default());
    let mut display = WorkDisplay::new(std::io::stderr().is_terminal());
    let verified = runtime
        .block_on(verify::shown(Box::pin(verify::verify(&pipeline, &options, Arc::clone(&work))), || {
            display.update(&work)
        }));
    drop(display);
    runtime.shutdown_background();
    let report = verified?;
    print(&report, arguments.json.as_deref())?;
    Ok(report.exit_code())
}

fn print(report: &Report, json: Option<&Path>) -> Result<()> {
    let text = match json {
        Some(path) if path == Path::new("-") => report.json()?,
        Some(path) => {
            report.write(path)?;
            report.table()
        }
        None => report.table(),
    };
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(|cause| {
        Error::new(Kind::Usage, "can't write the result to standard output").caused_by(cause)
    })
}
