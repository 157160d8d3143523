//! Progress while a pipeline runs: lines that are kept up to date on a terminal, log lines elsewhere.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::Snapshot;
use super::meter::Meter;
use crate::logging;

/// How often a line is logged where there is no terminal.
const LOG_EVERY: Duration = Duration::from_secs(5);

/// Shows progress. [`Display::update`] it a few times a second; dropping it clears it away.
pub struct Display {
    meter: Meter,
    output: Output,
}

enum Output {
    /// One bar whose message is all the lines: it is drawn in one go, or not at all.
    Terminal(ProgressBar),
    Log(Pace),
    Over,
}

/// When a line is due in the log.
struct Pace {
    last: Instant,
    had_rows: bool,
}

impl Display {
    /// A display for standard error, which is a terminal or not. Log lines go above it from now on.
    pub fn new(is_terminal: bool) -> Display {
        let now = Instant::now();
        let output = if is_terminal {
            let style =
                ProgressStyle::with_template("{msg}").unwrap_or_else(|_| ProgressStyle::default_spinner());
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr()).with_style(style);
            logging::share_with(Some(bar.clone()));
            Output::Terminal(bar)
        } else {
            Output::Log(Pace { last: now, had_rows: false })
        };
        Display { meter: Meter::new(now), output }
    }

    /// Shows this state.
    pub fn update(&mut self, snapshot: &Snapshot) {
        let now = Instant::now();
        self.meter.observe(now, snapshot);
        match &mut self.output {
            Output::Terminal(bar) => bar.set_message(self.meter.lines(snapshot).join("\n")),
            Output::Log(pace) => {
                if pace.is_due(now, snapshot.rows()) {
                    log(&self.meter, snapshot);
                }
            }
            Output::Over => {}
        }
    }

    /// Clears the lines away, so that something else can be printed. Nothing is shown any more.
    pub fn finish(&mut self) {
        if let Output::Terminal(bar) = std::mem::replace(&mut self.output, Output::Over) {
            bar.finish_and_clear();
            logging::share_with(None);
        }
    }
}

impl Drop for Display {
    fn drop(&mut self) {
        self.finish();
    }
}

impl Pace {
    /// Whether it is time: every few seconds, and as soon as there is something to tell at all.
    fn is_due(&mut self, now: Instant, rows: u64) -> bool {
        let first_rows = rows > 0 && !self.had_rows;
        let due = first_rows || now.duration_since(self.last) >= LOG_EVERY;
        if due {
            self.last = now;
            self.had_rows |= first_rows;
        }
        due
    }
}

fn log(meter: &Meter, snapshot: &Snapshot) {
    let rounded = |value: f64| (value * 10.0).round() / 10.0;
    let backlog = meter.backlog(snapshot);
    tracing::info!(
        rows = snapshot.rows(),
        "MB" = rounded(snapshot.bytes() as f64 / 1e6),
        "MB/s" = meter.bytes_per_second().map(|rate| rounded(rate / 1e6)),
        "lag_s" = snapshot.lag.map(|lag| rounded(lag.as_secs_f64())),
        "backlog_percent" = backlog.map(|backlog| rounded(backlog.fraction * 100.0)),
        "eta_s" = backlog.and_then(|backlog| backlog.eta).map(|eta| eta.as_secs()),
        calls = snapshot.calls_in_flight,
        waiting = snapshot.waiting.as_deref(),
        "progress"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_logged_with_the_first_rows_and_then_every_five_seconds() {
        let start = Instant::now();
        let mut pace = Pace { last: start, had_rows: false };
        let at = |tenths: u64| start + Duration::from_millis(tenths * 100);
        let due: Vec<u64> = (0..160).filter(|tenths| pace.is_due(at(*tenths), tenths / 12)).collect();
        assert_eq!(due, [12, 62, 112]);
        let mut pace = Pace { last: start, had_rows: false };
        let due: Vec<u64> = (0..120).filter(|tenths| pace.is_due(at(*tenths), 0)).collect();
        assert_eq!(due, [50, 100]);
    }

    #[test]
    fn a_finished_display_stays_silent() {
        let mut display = Display::new(true);
        display.update(&Snapshot::default());
        display.finish();
        display.update(&Snapshot::default());
        display.finish();
        assert!(matches!(display.output, Output::Over));
    }
}
