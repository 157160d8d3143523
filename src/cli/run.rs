//! `migrans run`.

use std::io::IsTerminal;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::signals;
use crate::dataflow::checkpoint;
use crate::dataflow::host::Host;
use crate::dataflow::restart::Failures;
use crate::dataflow::run::{self, Status, Summary, Until};
use crate::dataflow::tell;
use crate::error::{Error, Result};
use crate::metrics::Seen;
use crate::metrics::serve::{self, Shown};
use crate::milvus::tso::Tso;
use crate::ownership::Standing;
use crate::pipeline::Pipeline;
use crate::progress::Display;

/// While a pipeline runs, its report is written this often.
const REPORT_EVERY: Duration = Duration::from_secs(2);
/// How often a stop is looked for between two runs.
const LOOK: Duration = Duration::from_millis(50);

/// Runs the pipeline in the file `path`; writes a report to `report` while it runs, and when it ends well. Answers with metrics
/// on the address `metrics`.
pub fn run(path: &Path, until: Until, report: Option<&Path>, metrics: Option<SocketAddr>) -> Result<()> {
    let pipeline = Pipeline::load(path)?;
    let stop = Arc::new(AtomicBool::new(false));
    signals::listen(Arc::clone(&stop))?;
    let shown = shown(&pipeline);
    if let Some(address) = metrics {
        serve::serve(address, Arc::clone(&shown))?;
    }
    let host = Host::new()?;
    let mut failures = Failures::new(pipeline.restart, 0);
    let summary = loop {
        let began = Instant::now();
        let error = match run_once(&pipeline, until, &stop, &host, report, &shown, &mut failures) {
            Ok(summary) => break summary,
            Err(error) => error,
        };
        let pause = failures.next(error.kind(), began.elapsed());
        let Some(pause) = pause.filter(|_| !stop.load(Ordering::Acquire)) else { return Err(error) };
        tracing::error!("{}", error.report());
        tracing::info!("starting again in {:.1} s", pause.as_secs_f64());
        tell_failure(&shown, &error, failures.in_a_row());
        let over = Instant::now() + pause;
        while Instant::now() < over {
            if stop.load(Ordering::Acquire) {
                return Err(error);
            }
            thread::sleep(LOOK.min(over.saturating_duration_since(Instant::now())));
        }
    };
    let summary = tell::report(&summary.status, &pipeline.target.names(), summary.elapsed);
    println!("{}", summary.table());
    report.map_or(Ok(()), |path| summary.write(path))
}

fn run_once(
    pipeline: &Pipeline,
    until: Until,
    stop: &Arc<AtomicBool>,
    host: &Host,
    report: Option<&Path>,
    shown: &Shown,
    failures: &mut Failures,
) -> Result<Summary> {
    let mut display = Display::new(std::io::stderr().is_terminal());
    let names = pipeline.target.names();
    let began = Instant::now();
    let mut reported = began;
    let result = run::run(pipeline, until, stop, host, |status| {
        display.update(&tell::snapshot(status));
        failures.ran(began.elapsed());
        tell_status(shown, status, failures.in_a_row());
        if let Some(path) = report
            && reported.elapsed() >= REPORT_EVERY
        {
            reported = Instant::now();
            if let Err(error) = tell::report(status, &names, began.elapsed()).write(path) {
                tracing::warn!("{}", error.report());
            }
        }
    });
    display.finish();
    result
}

/// What is shown before anything has happened.
fn shown(pipeline: &Pipeline) -> Shown {
    Arc::new(Mutex::new(Seen {
        pipeline: pipeline.name.clone(),
        state: "initial",
        // Whatever is wrong with the state is for the run to say.
        floor: checkpoint::peek(&pipeline.state_dir, pipeline).ok().flatten(),
        made: Tso::now(),
        ..Seen::default()
    }))
}

fn tell_status(shown: &Shown, status: &Status, failures: usize) {
    let mut shown = shown.lock().unwrap_or_else(PoisonError::into_inner);
    shown.state = match status.standing {
        Some(Standing::By(_)) => "standing_by",
        _ => "running",
    };
    shown.status = Some(status.clone());
    shown.failures = failures;
}

fn tell_failure(shown: &Shown, error: &Error, in_a_row: usize) {
    let mut shown = shown.lock().unwrap_or_else(PoisonError::into_inner);
    shown.state = "retrying";
    shown.restarts += 1;
    shown.failures = in_a_row;
    shown.last_error = Some((error.kind().name(), jiff::Timestamp::now().as_second()));
}
