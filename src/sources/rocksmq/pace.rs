//! How often a reader looks at its store.

use std::sync::Arc;
use std::time::{Duration, Instant};

/// How often the store is looked at while there is anything but ticks. A message is handed over this long after it was
/// written, at most, and a bit.
pub(super) const POLL: Duration = Duration::from_millis(10);
/// The longest time between two looks.
const SLOWEST: Duration = Duration::from_secs(2);
/// What each further reader of the process adds to the time of a quiet one.
const SHARE: Duration = Duration::from_millis(20);
/// After this time without anything but ticks a reader is quiet.
const QUIET: Duration = Duration::from_secs(5);

/// The readers of this process.
static READERS: std::sync::LazyLock<Arc<()>> = std::sync::LazyLock::new(Arc::default);

/// The pace of one reader.
///
/// Each look at a store that a Milvus writes to costs, since ticks are written all the time. So the quiet readers of a process
/// share what one would do: the more of them there are, the less often each looks. A single one is always fast.
pub(super) struct Pace {
    _reader: Arc<()>,
    busy: Instant,
}

impl Pace {
    pub(super) fn new() -> Pace {
        Pace { _reader: Arc::clone(&READERS), busy: Instant::now() }
    }

    /// There was something to do.
    pub(super) fn busy(&mut self, now: Instant) {
        self.busy = now;
    }

    /// The time between two looks.
    pub(super) fn interval(&self, now: Instant) -> Duration {
        // One more count is that of the static itself.
        interval(now.saturating_duration_since(self.busy), Arc::strong_count(&READERS) - 1)
    }
}

fn interval(idle: Duration, readers: usize) -> Duration {
    if idle < QUIET {
        return POLL;
    }
    let others = u32::try_from(readers.saturating_sub(1)).unwrap_or(u32::MAX);
    SHARE.saturating_mul(others).clamp(POLL, SLOWEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_alone_or_with_work_is_fast_and_quiet_ones_share_the_looks() {
        assert_eq!(interval(Duration::ZERO, 100), POLL);
        assert_eq!(interval(QUIET, 1), POLL);
        assert_eq!(interval(QUIET, 7), 6 * SHARE);
        assert_eq!(interval(QUIET, 1000), SLOWEST);
    }

    #[test]
    fn work_makes_a_quiet_reader_fast_again() {
        let mut pace = Pace::new();
        let later = Instant::now() + 2 * QUIET;
        pace.busy(later);
        assert_eq!(pace.interval(later), POLL);
    }
}
