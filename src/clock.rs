//! A clock that goes on through a restart and is never set.
//!
//! Until when the calls of a run may be alive is recorded as a time of day, and the next run waits for it. A wall clock that
//! was set meanwhile would make that wait end too soon, or last for hours. So the time of day is looked at once for each
//! start of the *machine*; from there on the time since that start counts, which nobody sets and which goes on while the
//! machine is suspended. What was found out is kept in the checkpoint.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// What the kernel calls this start of the machine.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// When the machine was started, as its wall clock had it when it was first asked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Clock {
    boot: String,
    /// Unix milliseconds.
    started: u64,
}

impl Clock {
    /// The clock that was left, if the machine has not been started since; otherwise a new one, set by the wall clock.
    pub fn go_on(left: Option<&Clock>) -> Clock {
        let boot = std::fs::read_to_string(BOOT_ID).unwrap_or_default().trim().to_owned();
        match left {
            Some(left) if left.boot == boot && !boot.is_empty() => left.clone(),
            _ => Clock { boot, started: wall().saturating_sub(millis(up())) },
        }
    }

    /// Unix milliseconds.
    pub fn unix_now(&self) -> u64 {
        self.started.saturating_add(millis(up()))
    }
}

/// The time since the machine was started, with that in which it was suspended.
pub fn up() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    Duration::new(u64::try_from(now.tv_sec).unwrap_or(0), u32::try_from(now.tv_nsec).unwrap_or(0))
}

/// Milliseconds since 1970 by this machine's wall clock.
pub fn wall() -> u64 {
    millis(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: u64 = 3_600_000;

    #[test]
    fn a_wall_clock_that_was_set_since_does_not_matter() {
        // It was an hour ahead when the last run looked, or behind, and is right now.
        for set in [wall() + HOUR, wall() - HOUR] {
            let left = Clock { started: set - millis(up()), ..Clock::go_on(None) };
            let on = Clock::go_on(Some(&left));
            assert!((set..set + 60_000).contains(&on.unix_now()), "{on:?}");
        }
    }

    #[test]
    fn after_another_start_of_the_machine_the_wall_clock_counts() {
        let left = Clock { boot: "another".into(), started: 0 };
        let on = Clock::go_on(Some(&left));
        assert!(on.unix_now().abs_diff(wall()) < 60_000, "{on:?}");
        assert_eq!(Clock::go_on(Some(&on)), on);
    }
}
