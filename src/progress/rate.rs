//! Rates over a sliding window.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Growth over less than this says little: the first moments would show wild rates.
const LEAST: Duration = Duration::from_millis(200);

/// How fast a total has grown lately.
#[derive(Clone, Debug)]
pub struct Window {
    span: Duration,
    samples: VecDeque<(Instant, f64)>,
}

impl Window {
    /// Over the last `span`.
    pub fn new(span: Duration) -> Window {
        Window { span, samples: VecDeque::new() }
    }

    /// The total was `total` at `now`, which is not before that of earlier calls.
    pub fn record(&mut self, now: Instant, total: f64) {
        // One sample at or before the beginning of the window stays: the growth since then is the window's.
        while self.samples.get(1).is_some_and(|(at, _)| now.duration_since(*at) >= self.span) {
            self.samples.pop_front();
        }
        self.samples.push_back((now, total));
    }

    /// Growth per second; `None` until enough time has passed to tell.
    pub fn per_second(&self) -> Option<f64> {
        let (first, last) = (self.samples.front()?, self.samples.back()?);
        let elapsed = last.0.duration_since(first.0);
        (elapsed >= LEAST).then(|| (last.1 - first.1) / elapsed.as_secs_f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_that_of_the_window_alone() {
        let mut window = Window::new(Duration::from_secs(5));
        let start = Instant::now();
        assert_eq!(window.per_second(), None);
        window.record(start, 0.0);
        assert_eq!(window.per_second(), None);
        window.record(start + Duration::from_millis(1), 1_000.0);
        assert_eq!(window.per_second(), None);
        window = Window::new(Duration::from_secs(5));
        window.record(start, 0.0);
        window.record(start + Duration::from_secs(1), 100.0);
        assert_eq!(window.per_second(), Some(100.0));
        for second in 2..=20 {
            window.record(start + Duration::from_secs(second), 100.0 + 10.0 * (second - 1) as f64);
        }
        assert_eq!(window.per_second(), Some(10.0));
        assert!(window.samples.len() <= 6);
        // Nothing for longer than the window: the rate is that since the last sample.
        window.record(start + Duration::from_secs(60), 290.0);
        assert_eq!(window.per_second(), Some(0.0));
    }
}
