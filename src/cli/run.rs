//! `migrans run`.

use std::io::IsTerminal;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use super::signals;
use crate::dataflow::host::Host;
use crate::dataflow::run::{self, Until};
use crate::dataflow::tell;
use crate::error::Result;
use crate::pipeline::Pipeline;
use crate::progress::Display;

/// While a pipeline runs, its report is written this often.
const REPORT_EVERY: Duration = Duration::from_secs(2);

/// Runs the pipeline in the file `path`; writes a report to `report` while it runs, and when it ends well.
pub fn run(path: &Path, until: Until, report: Option<&Path>) -> Result<()> {
    let pipeline = Pipeline::load(path)?;
    let stop = Arc::new(AtomicBool::new(false));
    signals::listen(Arc::clone(&stop))?;
    let mut display = Display::new(std::io::stderr().is_terminal());
    let began = Instant::now();
    let mut reported = began;
    let result = run::run(&pipeline, until, &stop, &Host::new()?, |status| {
        display.update(&tell::snapshot(status));
        if let Some(path) = report
            && reported.elapsed() >= REPORT_EVERY
        {
            reported = Instant::now();
            if let Err(error) = tell::report(status, began.elapsed()).write(path) {
                tracing::warn!("{}", error.report());
            }
        }
    });
    display.finish();
    let summary = result.map(|summary| tell::report(&summary.status, summary.elapsed))?;
    println!("{}", summary.table());
    report.map_or(Ok(()), |path| summary.write(path))
}
