//! How long calls took, in fixed steps: what a histogram of Prometheus is.

use std::time::Duration;

/// The upper ends of the steps, in seconds.
pub const STEPS: [f64; 14] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

/// The times of one sort of call.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Latency {
    /// How many ended within each step, and beyond the last.
    pub counts: [u64; STEPS.len() + 1],
    /// Their seconds altogether.
    pub seconds: f64,
}

impl Latency {
    /// A call took so long.
    pub fn record(&mut self, took: Duration) {
        let seconds = took.as_secs_f64();
        self.counts[STEPS.partition_point(|step| *step < seconds)] += 1;
        self.seconds += seconds;
    }

    /// How many calls there were.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_counts_in_the_step_that_it_ended_in() {
        let mut latency = Latency::default();
        for millis in [0, 1, 2, 30_000, 31_000] {
            latency.record(Duration::from_millis(millis));
        }
        assert_eq!((latency.counts[0], latency.counts[1]), (2, 1));
        assert_eq!((latency.counts[13], latency.counts[14], latency.count()), (1, 1, 5));
        assert!((latency.seconds - 61.003).abs() < 1e-9);
    }
}
