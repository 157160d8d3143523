//! migrans-sim: the dataflow between a simulated source, target and disk. A seed decides everything that happens, so that
//! whatever goes wrong can be looked at again.

use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clap::Parser;

mod disk;
mod messages;
mod queue;
mod run;
mod source;
mod target;
mod world;

use run::{Summary, simulate};

/// Runs the dataflow of migrans between a simulated source, target and disk, with faults and crashes.
#[derive(Debug, Parser)]
#[command(name = "migrans-sim", version)]
struct Arguments {
    /// Simulate this one seed and print what happens
    #[arg(long, conflicts_with_all = ["seeds", "first"])]
    seed: Option<u64>,
    /// How many seeds to simulate
    #[arg(long, default_value_t = 2000)]
    seeds: u64,
    /// The first of them
    #[arg(long, default_value_t = 0)]
    first: u64,
    /// Begin no further seed once one has failed
    #[arg(long)]
    fail_fast: bool,
    /// Begin no further seed after so many seconds
    #[arg(long, value_name = "SECONDS")]
    within: Option<u64>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if let Some(seed) = arguments.seed {
        return one(seed);
    }
    let began = Instant::now();
    let over = arguments.within.map(|seconds| began + Duration::from_secs(seconds));
    let next = AtomicU64::new(arguments.first);
    let end = arguments.first.saturating_add(arguments.seeds);
    let failed: Mutex<Vec<(u64, String)>> = Mutex::default();
    let total: Mutex<(u64, Summary)> = Mutex::default();
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while over.is_none_or(|over| Instant::now() < over) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    let has_failed =
                        || !failed.lock().unwrap_or_else(std::sync::PoisonError::into_inner).is_empty();
                    if seed >= end || arguments.fail_fast && has_failed() {
                        break;
                    }
                    match simulate(seed, false) {
                        Ok(summary) => add(&total, summary),
                        Err(error) => failed
                            .lock()
                            .unwrap_or_else(std::sync::PoisonError::into_inner)
                            .push((seed, error)),
                    }
                }
            });
        }
    });
    let mut failed = failed.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    let (passed, sum) = total.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    failed.sort();
    for (seed, error) in failed.iter().take(10) {
        println!("seed {seed}: {error}\n    see it with: migrans-sim --seed {seed}");
    }
    let Summary { steps, crashes, stops, calls, .. } = sum;
    println!(
        "{passed} seeds passed, {} failed: {steps} steps, {calls} calls, {crashes} crashes and {stops} stops in {:.0} s",
        failed.len(),
        began.elapsed().as_secs_f64()
    );
    if failed.is_empty() && passed > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn one(seed: u64) -> ExitCode {
    match simulate(seed, true) {
        Ok(summary) => {
            println!("seed {seed} passed: {summary:?}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            println!("seed {seed}: {error}");
            ExitCode::FAILURE
        }
    }
}

fn add(total: &Mutex<(u64, Summary)>, summary: Summary) {
    let mut total = total.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    total.0 += 1;
    total.1.steps += summary.steps;
    total.1.crashes += summary.crashes;
    total.1.stops += summary.stops;
    total.1.calls += summary.calls;
}
