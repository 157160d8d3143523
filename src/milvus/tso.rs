//! Milvus' hybrid timestamp.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use timely::order::{PartialOrder, TotalOrder};
use timely::progress::Timestamp;
use timely::progress::timestamp::{PathSummary, Refines};

const LOGICAL_BITS: u32 = 18;

/// A hybrid timestamp: Unix milliseconds shifted left by 18 bits, plus a counter (Milvus `tsoutil/tso.go`).
///
/// It is also the timely timestamp of the dataflow, where it is always a tick, a lower bound of what travels
/// with it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Tso(pub u64);

impl Tso {
    /// Before everything.
    pub const ZERO: Tso = Tso(0);
    /// After everything.
    pub const MAX: Tso = Tso(u64::MAX);

    /// The first timestamp of a Unix millisecond.
    pub fn from_millis(millis: u64) -> Tso {
        Tso(millis.saturating_mul(1 << LOGICAL_BITS))
    }

    /// The first timestamp of the present millisecond of this machine's clock.
    pub fn now() -> Tso {
        let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Tso::from_millis(u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX))
    }

    /// Unix milliseconds.
    pub fn millis(self) -> u64 {
        self.0 >> LOGICAL_BITS
    }

    /// This timestamp moved on by `duration`.
    pub fn after(self, duration: Duration) -> Tso {
        let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        Tso(self.0.saturating_add(Tso::from_millis(millis).0))
    }

    /// This timestamp moved back by `duration`.
    pub fn before(self, duration: Duration) -> Tso {
        let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        Tso(self.0.saturating_sub(Tso::from_millis(millis).0))
    }

    /// The timestamp just before.
    pub fn pred(self) -> Tso {
        Tso(self.0.saturating_sub(1))
    }

    /// The timestamp just after.
    pub fn succ(self) -> Tso {
        Tso(self.0.saturating_add(1))
    }

    /// How far this machine's clock is past this timestamp, zero if it is not.
    pub fn age(self) -> Duration {
        Duration::from_millis(Tso::now().millis().saturating_sub(self.millis()))
    }

    /// Reads a timestamp as users write one: RFC 3339 (`2026-11-22T10:00:00Z`) or the plain number.
    pub fn parse(text: &str) -> Option<Tso> {
        if let Ok(number) = text.parse::<u64>() {
            return Some(Tso(number));
        }
        let moment: jiff::Timestamp = text.parse().ok()?;
        Some(Tso::from_millis(u64::try_from(moment.as_millisecond()).ok()?))
    }
}

impl fmt::Display for Tso {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let moment = i64::try_from(self.millis())
            .ok()
            .and_then(|millis| jiff::Timestamp::from_millisecond(millis).ok());
        match moment {
            Some(moment) if self.millis() > 0 => write!(f, "{} ({moment:.3})", self.0),
            _ => write!(f, "{}", self.0),
        }
    }
}

impl PartialOrder for Tso {
    fn less_equal(&self, other: &Self) -> bool {
        self <= other
    }
}

impl TotalOrder for Tso {}

/// The one thing that a path of this dataflow does to a timestamp: nothing. (There are no loops.)
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unchanged;

impl PartialOrder for Unchanged {
    fn less_equal(&self, _: &Self) -> bool {
        true
    }
}

impl PathSummary<Tso> for Unchanged {
    fn results_in(&self, time: &Tso) -> Option<Tso> {
        Some(*time)
    }

    fn followed_by(&self, _: &Self) -> Option<Self> {
        Some(Unchanged)
    }
}

impl Timestamp for Tso {
    type Summary = Unchanged;

    fn minimum() -> Self {
        Tso::ZERO
    }
}

impl Refines<()> for Tso {
    fn to_inner((): ()) -> Tso {
        Tso::ZERO
    }

    fn to_outer(self) {}

    fn summarize(_: Unchanged) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_what_users_write_and_prints_it_back() {
        let tso = Tso::parse("2026-11-22T10:00:00Z").unwrap();
        assert_eq!(tso.millis(), 1_795_341_600_000);
        assert_eq!(Tso::parse(&tso.0.to_string()), Some(tso));
        assert_eq!(tso.to_string(), format!("{} (2026-11-22T10:00:00.000Z)", tso.0));
        assert_eq!(Tso::parse("yesterday"), None);
        assert_eq!(Tso::parse("1960-01-01T00:00:00Z"), None);
    }

    #[test]
    fn moves_by_milliseconds() {
        assert_eq!(Tso::from_millis(5).after(Duration::from_millis(7)), Tso::from_millis(12));
        assert_eq!(Tso::MAX.after(Duration::from_secs(1)), Tso::MAX);
        assert_eq!(Tso::ZERO.pred(), Tso::ZERO);
    }
}
