//! When a pipeline that has failed is started again.

use std::time::Duration;

use crate::error::Kind;
use crate::pipeline::Restart;

/// Counts the failures of a pipeline in a row.
#[derive(Clone, Debug)]
pub struct Failures {
    attempts: usize,
    policy: Restart,
    row: usize,
}

impl Failures {
    /// None so far. `attempts` holds where the policy does not say how many.
    pub fn new(policy: Restart, attempts: usize) -> Failures {
        Failures { attempts: policy.attempts.unwrap_or(attempts), policy, row: 0 }
    }

    /// How many there were in a row.
    pub fn in_a_row(&self) -> usize {
        self.row
    }

    /// A run goes on, and has lasted so long: that may end the row.
    pub fn ran(&mut self, lasted: Duration) {
        if lasted > self.policy.longest_pause {
            self.row = 0;
        }
    }

    /// A run has failed with an error of `kind` after `lasted`: how long to wait before the next start; `None` if there is
    /// to be none.
    pub fn next(&mut self, kind: Kind, lasted: Duration) -> Option<Duration> {
        self.ran(lasted);
        self.row += 1;
        let hopeless = matches!(kind, Kind::Usage | Kind::PipelineFile);
        if hopeless || self.row > self.attempts {
            return None;
        }
        let doublings = u32::try_from(self.row - 1).unwrap_or(u32::MAX).min(30);
        Some(self.policy.pause.saturating_mul(1 << doublings).min(self.policy.longest_pause))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(attempts: Option<usize>) -> Restart {
        Restart { attempts, pause: Duration::from_secs(1), longest_pause: Duration::from_secs(5) }
    }

    fn pauses(failures: &mut Failures, count: usize) -> Vec<Option<u64>> {
        let next = || failures.next(Kind::Conflict, Duration::ZERO).map(|pause| pause.as_secs());
        std::iter::repeat_with(next).take(count).collect()
    }

    #[test]
    fn pauses_double_up_to_the_longest_and_end_with_the_attempts() {
        let mut failures = Failures::new(policy(Some(4)), 0);
        assert_eq!(pauses(&mut failures, 5), [Some(1), Some(2), Some(4), Some(5), None]);
        let mut many = Failures::new(policy(None), 1000);
        assert_eq!(pauses(&mut many, 100).last(), Some(&Some(5)));
    }

    #[test]
    fn whoever_runs_it_decides_where_the_policy_does_not() {
        assert_eq!(pauses(&mut Failures::new(policy(None), 0), 1), [None]);
        assert_eq!(pauses(&mut Failures::new(policy(Some(0)), 9), 1), [None]);
    }

    #[test]
    fn a_long_run_ends_the_row_and_a_wrong_file_ends_it_all() {
        let mut failures = Failures::new(policy(Some(1)), 0);
        assert_eq!(pauses(&mut failures, 2), [Some(1), None]);
        failures.ran(Duration::from_secs(5));
        assert_eq!(failures.in_a_row(), 2);
        failures.ran(Duration::from_secs(6));
        assert_eq!(failures.in_a_row(), 0);
        assert_eq!(pauses(&mut failures, 2), [Some(1), None]);
        assert!(failures.next(Kind::Conflict, Duration::from_secs(6)).is_some());
        assert_eq!(failures.in_a_row(), 1);
        assert_eq!(Failures::new(policy(Some(9)), 0).next(Kind::PipelineFile, Duration::ZERO), None);
    }
}
