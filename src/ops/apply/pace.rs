//! How many calls may be in flight.
//!
//! A target that is asked for more than it can do answers later, not more often: a real Milvus on two cores takes
//! 72 MB/s with one call in flight, 110 with two and 87 with four. So the limit follows latency, as TCP Vegas does:
//! the time a call would need alone, over the time it took, tells how many of the calls in flight are only waiting.

use std::time::{Duration, Instant};

/// Calls waiting at the target: fewer, and one more may go out; more, and one fewer.
const WAITING_LOW: f64 = 0.6;
const WAITING_HIGH: f64 = 1.5;

/// Latency alone never takes the limit below this: while one call is answered, the next is already there.
const LEAST: f64 = 2.0;

/// Calls smaller than this say more about latency than about what the target can take.
const TELLING_BYTES: u64 = 256 << 10;

/// After so many calls one goes out alone again, to see what a call takes now. Without that, a target which has become
/// slower would be held to its best day, or a best time that fades would let the limit creep up.
const PROBE_EVERY: u32 = 256;

/// The limit and what it rests on.
#[derive(Debug)]
pub struct Pace {
    limit: f64,
    max: f64,
    /// Seconds per byte of a call that was alone.
    best: Option<f64>,
    calls_since_probe: u32,
    cut_at: Option<Instant>,
}

impl Pace {
    /// Between one and `max` calls.
    pub fn new(max: usize) -> Pace {
        let max = u32::try_from(max.max(1)).map_or(f64::MAX, f64::from);
        Pace { limit: LEAST.min(max), max, best: None, calls_since_probe: 0, cut_at: None }
    }

    /// Calls that may be in flight now.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // between 1 and a usize
    pub fn limit(&self) -> usize {
        if self.is_probing() { 1 } else { self.limit as usize }
    }

    /// A call of `bytes` took `elapsed` while `in_flight` calls, itself among them, were out.
    #[allow(clippy::cast_precision_loss)] // a size in f64 is as good as exact here
    pub fn succeeded(&mut self, bytes: u64, elapsed: Duration, in_flight: usize) {
        if bytes < TELLING_BYTES {
            // Nothing to be learnt now: what keeps calls alone must not last while only such calls come.
            self.calls_since_probe = self.calls_since_probe.min(PROBE_EVERY / 2);
            return;
        }
        let took = elapsed.as_secs_f64() / bytes as f64;
        self.calls_since_probe += 1;
        if self.is_probing() {
            if in_flight == 1 {
                self.best = Some(took);
                self.calls_since_probe = 0;
            }
            return;
        }
        let best = self.best.map_or(took, |best| best.min(took));
        self.best = Some(best);
        let waiting = in_flight as f64 * (1.0 - best / took);
        if waiting < WAITING_LOW && in_flight >= self.limit() {
            self.limit = (self.limit + 1.0 / self.limit).min(self.max);
        } else if waiting > WAITING_HIGH {
            self.limit = (self.limit - 1.0 / self.limit).max(LEAST.min(self.limit));
        }
    }

    fn is_probing(&self) -> bool {
        self.calls_since_probe >= PROBE_EVERY
    }

    /// The target asked for a slower pace. Answers of calls that were sent before the last cut say nothing new.
    pub fn refused(&mut self, sent: Instant, now: Instant) {
        if self.cut_at.is_none_or(|cut| sent > cut) {
            self.limit = (self.limit / 2.0).max(1.0);
            self.cut_at = Some(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A target that works on one call at a time, and on two nearly twice as fast.
    fn settle(pace: &mut Pace, time: impl Fn(usize) -> f64) -> usize {
        for _ in 0..1000 {
            let calls = pace.limit();
            pace.succeeded(8 << 20, Duration::from_secs_f64(time(calls)), calls);
        }
        pace.limit()
    }

    #[test]
    fn goes_up_while_more_calls_do_not_slow_each_other_down() {
        assert_eq!(settle(&mut Pace::new(16), |_| 0.1), 16);
    }

    #[test]
    fn stays_low_at_a_target_that_does_one_call_at_a_time() {
        let limit = settle(&mut Pace::new(16), |calls| 0.1 * f64::from(u32::try_from(calls).unwrap()));
        assert!((1..=3).contains(&limit), "{limit}");
    }

    #[test]
    fn follows_a_target_that_has_become_slower_for_good() {
        let mut pace = Pace::new(16);
        settle(&mut pace, |_| 0.1);
        assert_eq!(settle(&mut pace, |_| 0.4), 16);
    }

    #[test]
    fn small_calls_are_not_sent_one_by_one() {
        let mut pace = Pace::new(4);
        for _ in 0..10_000 {
            pace.succeeded(100, Duration::from_millis(1), pace.limit());
            assert!(pace.limit() > 1);
        }
    }

    #[test]
    fn halves_once_for_calls_refused_together() {
        let mut pace = Pace::new(16);
        settle(&mut pace, |_| 0.1);
        let sent = Instant::now();
        let now = sent + Duration::from_millis(1);
        pace.refused(sent, now);
        pace.refused(sent, now);
        assert_eq!(pace.limit(), 8);
    }
}
