//! Progress while a pipeline runs: lines that are kept up to date on a terminal, log lines elsewhere.

use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::Snapshot;
use super::meter::Meter;
use crate::logging;

/// How often a line is logged where there is no terminal.
const LOG_EVERY: Duration = Duration::from_secs(5);

/// indicatif drops redraws beyond this many a second. Each line is one, so that the limit is on lines, not on updates.
const REDRAWS_PER_SECOND: u8 = 255;

/// Shows progress. [`Display::update`] it a few times a second; dropping it clears it away.
pub struct Display {
    meter: Meter,
    output: Output,
}

enum Output {
    Terminal { screen: MultiProgress, lines: Vec<Line> },
    Log(Pace),
    Over,
}

struct Line {
    bar: ProgressBar,
    text: String,
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
            let target = ProgressDrawTarget::stderr_with_hz(REDRAWS_PER_SECOND);
            let screen = MultiProgress::with_draw_target(target);
            // Overwriting lines flickers less than clearing them first.
            screen.set_move_cursor(true);
            logging::share_with(Some(screen.clone()));
            Output::Terminal { screen, lines: Vec::new() }
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
            Output::Terminal { screen, lines } => show(screen, lines, self.meter.lines(snapshot)),
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
        if let Output::Terminal { screen, lines } = std::mem::replace(&mut self.output, Output::Over) {
            for line in lines {
                line.bar.finish_and_clear();
            }
            // A terminal that is gone needs no clearing.
            drop(screen.clear());
            logging::share_with(None);
        }
    }
}

impl Drop for Display {
    fn drop(&mut self) {
        self.finish();
    }
}

fn show(screen: &MultiProgress, lines: &mut Vec<Line>, texts: Vec<String>) {
    while lines.len() > texts.len() {
        if let Some(line) = lines.pop() {
            line.bar.finish_and_clear();
            screen.remove(&line.bar);
        }
    }
    for (at, text) in texts.into_iter().enumerate() {
        match lines.get_mut(at) {
            Some(line) if line.text == text => {}
            Some(line) => {
                line.bar.set_message(text.clone());
                line.text = text;
            }
            None => {
                // `wide_msg` cuts the text to the terminal's width.
                let style = ProgressStyle::with_template("{wide_msg}")
                    .unwrap_or_else(|_| ProgressStyle::default_spinner());
                let bar = screen.add(ProgressBar::no_length()).with_style(style);
                bar.set_message(text.clone());
                lines.push(Line { bar, text });
            }
        }
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
        "MB/s" = rounded(meter.bytes_per_second() / 1e6),
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
