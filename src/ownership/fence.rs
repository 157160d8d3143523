//! What keeps a process from writing once another one may own its pipeline.
//!
//! A fence is asked right before something goes out. It goes by the clock alone, so it needs no news to be closed: a
//! process that was stopped for an hour finds it closed at its first step, before it hears of anything.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::clock::up;

/// Nothing is owned yet, so nothing is guarded.
const NOT_YET: u64 = u64::MAX;
/// Closed for ever.
const LOST: u64 = 0;

/// Lets writes through until a moment that is moved on as long as the ownership is known to last. Clones are one.
#[derive(Clone, Debug, Default)]
pub struct Fence(Option<Arc<Guarded>>);

#[derive(Debug)]
struct Guarded {
    /// Nanoseconds of [`up`] up to which the ownership is known to last.
    until: AtomicU64,
    /// How much longer than that a call may be alive.
    tail: Duration,
}

/// The fence is closed: nothing was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Closed;

impl fmt::Display for Closed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the ownership of the pipeline may have ended, so nothing is sent")
    }
}

impl std::error::Error for Closed {}

impl Fence {
    /// For a pipeline whose ownership can't end: always open.
    pub fn open() -> Fence {
        Fence(None)
    }

    /// Open until [`Fence::keep`] is called first. A call may be alive for `tail` longer than the ownership is known to
    /// last.
    pub fn new(tail: Duration) -> Fence {
        Fence(Some(Arc::new(Guarded { until: AtomicU64::new(NOT_YET), tail })))
    }

    /// The ownership lasts until `until` of [`up`] at least. Never brings the end nearer, nor back what was lost.
    pub fn keep(&self, until: Duration) {
        let Some(guarded) = &self.0 else { return };
        let until = nanos(until);
        let later = |held| match held {
            LOST => None,
            NOT_YET => Some(until),
            held => Some(held.max(until)),
        };
        // An error says that it is lost, and that is that.
        let _ = guarded.until.fetch_update(Ordering::AcqRel, Ordering::Acquire, later);
    }

    /// The ownership has ended.
    pub fn close(&self) {
        if let Some(guarded) = &self.0 {
            guarded.until.store(LOST, Ordering::Release);
        }
    }

    /// Whether something may be sent at this moment.
    pub fn check(&self) -> Result<(), Closed> {
        self.left(up()).map(|_| ())
    }

    /// How long a call may take that is sent at this moment and is wanted to take `wanted` at most.
    pub fn longest_call(&self, wanted: Duration) -> Result<Duration, Closed> {
        let left = self.left(up())?;
        let tail = self.tail().unwrap_or_default();
        Ok(left.map_or(wanted, |left| wanted.min(left + tail)))
    }

    /// How much longer than the ownership is known to last a call may be alive; `None` without a limit. As long again
    /// the network may hold up what was sent.
    pub fn tail(&self) -> Option<Duration> {
        self.0.as_ref().map(|guarded| guarded.tail)
    }

    /// How long it stays open as far as is known; `None` without a limit.
    fn left(&self, now: Duration) -> Result<Option<Duration>, Closed> {
        let Some(guarded) = &self.0 else { return Ok(None) };
        match guarded.until.load(Ordering::Acquire) {
            NOT_YET => Ok(None),
            until => {
                let left = Duration::from_nanos(until).checked_sub(now).filter(|left| !left.is_zero());
                left.map(Some).ok_or(Closed)
            }
        }
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(NOT_YET - 1).clamp(LOST + 1, NOT_YET - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn it_closes_by_the_clock_alone() {
        let fence = Fence::new(2 * SECOND);
        assert_eq!(fence.left(up()), Ok(None), "before anything is owned there is nothing to guard");
        let start = up();
        fence.keep(start + 3 * SECOND);
        assert_eq!(fence.left(start + SECOND), Ok(Some(2 * SECOND)));
        assert_eq!(fence.left(start + 3 * SECOND), Err(Closed));
        fence.keep(start + SECOND);
        assert_eq!(
            fence.left(start + 2 * SECOND),
            Ok(Some(SECOND)),
            "an old answer brings the end no nearer"
        );
        fence.keep(start + 9 * SECOND);
        assert_eq!(fence.left(start + 8 * SECOND), Ok(Some(SECOND)), "after an outage it opens again");
    }

    #[test]
    fn what_was_lost_stays_lost() {
        let fence = Fence::new(SECOND);
        let clone = fence.clone();
        fence.keep(up() + 100 * SECOND);
        assert!(clone.check().is_ok());
        clone.close();
        fence.keep(up() + 200 * SECOND);
        assert_eq!(fence.check(), Err(Closed));
        assert_eq!(fence.longest_call(SECOND), Err(Closed));
    }

    #[test]
    fn no_call_outlives_the_ownership_by_more_than_the_tail() {
        let fence = Fence::new(2 * SECOND);
        assert_eq!(fence.longest_call(60 * SECOND), Ok(60 * SECOND));
        fence.keep(up() + 3 * SECOND);
        let longest = fence.longest_call(60 * SECOND).unwrap();
        assert!(longest <= 5 * SECOND && longest > 4 * SECOND, "{longest:?}");
        assert_eq!(fence.longest_call(SECOND), Ok(SECOND));
        assert_eq!(Fence::open().longest_call(60 * SECOND), Ok(60 * SECOND));
    }
}
