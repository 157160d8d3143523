//! Progress of work whose amount is known: a bar on a terminal, log lines elsewhere.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::rate::Window;
use super::{human, meter};
use crate::logging;

/// How often a line is logged where there is no terminal.
const LOG_EVERY: Duration = Duration::from_secs(5);
/// What the rate is taken over.
const RATE_SPAN: Duration = Duration::from_secs(5);
/// Nothing is waited for.
const NOT_WAITING: u64 = u64::MAX;

/// How far the work is; shared between those who do it and the display.
#[derive(Debug)]
pub struct Work {
    expected: AtomicU64,
    done: AtomicU64,
    /// Milliseconds.
    behind: AtomicU64,
}

impl Default for Work {
    fn default() -> Self {
        Work { expected: AtomicU64::new(0), done: AtomicU64::new(0), behind: AtomicU64::new(NOT_WAITING) }
    }
}

impl Work {
    /// There are so many rows more to do.
    pub fn expect(&self, rows: u64) {
        self.expected.fetch_add(rows, Ordering::Relaxed);
    }

    /// So many rows more are done.
    pub fn done(&self, rows: u64) {
        self.done.fetch_add(rows, Ordering::Relaxed);
    }

    /// The pipeline is waited for, which is so far behind; or not any more.
    pub fn waits(&self, behind: Option<Duration>) {
        let millis =
            behind.map_or(NOT_WAITING, |behind| u64::try_from(behind.as_millis()).unwrap_or(NOT_WAITING - 1));
        self.behind.store(millis, Ordering::Relaxed);
    }
}

/// Shows it. Dropping it clears it away.
pub struct WorkDisplay {
    bar: Option<ProgressBar>,
    rate: Window,
    logged: Instant,
}

impl WorkDisplay {
    /// A display for standard error, which is a terminal or not. Log lines go above it from now on.
    pub fn new(is_terminal: bool) -> WorkDisplay {
        let bar = is_terminal.then(|| {
            let style =
                ProgressStyle::with_template("{msg}").unwrap_or_else(|_| ProgressStyle::default_spinner());
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr()).with_style(style);
            logging::share_with(Some(bar.clone()));
            bar
        });
        let now = Instant::now();
        let mut rate = Window::new(RATE_SPAN);
        rate.record(now, 0.0);
        WorkDisplay { bar, rate, logged: now }
    }

    /// Shows this state.
    pub fn update(&mut self, work: &Work) {
        let now = Instant::now();
        let done = work.done.load(Ordering::Relaxed);
        // Rows may come to be while they are counted.
        let expected = work.expected.load(Ordering::Relaxed).max(done);
        let behind = work.behind.load(Ordering::Relaxed);
        self.rate.record(now, done as f64);
        let rate = self.rate.per_second().filter(|rate| *rate > 0.0);
        let waiting = (behind != NOT_WAITING).then(|| Duration::from_millis(behind));
        if let Some(bar) = &self.bar {
            bar.set_message(line(done, expected, rate, waiting));
        } else if now.duration_since(self.logged) >= LOG_EVERY {
            self.logged = now;
            tracing::info!(
                rows = done,
                of = expected,
                per_second = rate.map(f64::round),
                waiting_for_pipeline_s = waiting.map(|behind| behind.as_secs_f64()),
                "progress"
            );
        }
    }
}

impl Drop for WorkDisplay {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
            logging::share_with(None);
        }
    }
}

fn line(done: u64, expected: u64, rate: Option<f64>, waiting: Option<Duration>) -> String {
    let fraction = if expected > 0 { done as f64 / expected as f64 } else { 0.0 };
    let mut text = format!(
        "{} {:>3.0} %  {} of {} rows",
        meter::bar(fraction),
        (fraction * 100.0).floor(),
        human::count(done),
        human::count(expected)
    );
    let left = rate.and_then(|rate| Duration::try_from_secs_f64((expected - done) as f64 / rate).ok());
    if let Some(left) = left.filter(|left| !left.is_zero()) {
        text.push_str(&format!("  ETA {}", human::duration(left)));
    }
    if let Some(behind) = waiting {
        text.push_str(&format!("\nwaiting for the pipeline, which is {} behind", human::duration(behind)));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_says_how_far_it_is_and_what_it_waits_for() {
        let text = line(250, 1000, Some(50.0), None);
        assert!(text.starts_with("██████░░░░░░░░░░░░░░░░░░  25 %  250 of 1,000 rows  ETA 15.0 s"), "{text}");
        let text = line(0, 0, None, Some(Duration::from_millis(1500)));
        assert!(text.ends_with("0 of 0 rows\nwaiting for the pipeline, which is 1.5 s behind"), "{text}");
    }

    #[test]
    fn there_is_never_more_done_than_expected() {
        let work = Work::default();
        work.expect(5);
        work.done(9);
        work.waits(Some(Duration::MAX));
        let mut display = WorkDisplay::new(true);
        display.update(&work);
        work.waits(None);
        display.update(&work);
    }
}
