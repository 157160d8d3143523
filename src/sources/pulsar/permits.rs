//! How many messages a broker may send ahead.
//!
//! Pulsar counts messages, and one may be a tick of a hundred bytes or an insert of 5 MiB. So the size is estimated from
//! what has come, and the estimate forgets large messages slowly.

/// Bytes that may be under way or wait, for one channel, as far as sizes can be foreseen.
const PREFETCH_BYTES: usize = 4 << 20;
/// The bytes at which it was an error of judgement, and the consumer is opened anew.
pub(super) const LIMIT_BYTES: usize = 12 << 20;
/// The most messages that may be under way: many enough for a broker's round of reading (100 entries) to be full.
const MOST: usize = 1000;
/// What is assumed of messages of which nothing is known.
const FIRST_GUESS: usize = 1 << 20;
/// Of an estimate that turns out too high, this part is forgotten per message.
const FORGET: usize = 64;

/// The account of one consumer.
#[derive(Debug)]
pub(super) struct Permits {
    /// Permitted and not yet taken. Below zero if a broker has sent a batch larger than what was left.
    out: i64,
    size: usize,
}

impl Permits {
    pub(super) fn new() -> Permits {
        Permits { out: 0, size: FIRST_GUESS }
    }

    /// An entry with `messages` messages in `bytes` was taken.
    pub(super) fn taken(&mut self, messages: i32, bytes: usize) {
        let messages = messages.max(1);
        self.out -= i64::from(messages);
        let each = bytes / usize::try_from(messages).unwrap_or(1);
        self.size = each.max(self.size - self.size / FORGET).max(1);
    }

    /// How many more the broker may send now, while `waiting` bytes have come and were not taken; 0: leave it.
    pub(super) fn grant(&mut self, waiting: usize) -> u32 {
        let window = i64::try_from((PREFETCH_BYTES / self.size).clamp(1, MOST)).unwrap_or(1);
        if waiting >= PREFETCH_BYTES / 2 || self.out > window / 2 {
            return 0;
        }
        let more = window - self.out;
        self.out += more;
        u32::try_from(more).unwrap_or(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_messages_come_in_large_numbers_and_large_ones_singly() {
        let mut permits = Permits::new();
        assert_eq!(permits.grant(0), 4, "nothing is known yet");
        for _ in 0..2000 {
            permits.taken(1, 300);
            permits.grant(0);
        }
        assert!((500..=1000).contains(&permits.out), "{permits:?}");
        while permits.out > 0 {
            permits.taken(1, 5 << 20);
            assert_eq!(permits.grant(4 << 20), 0, "enough is waiting");
            assert!(permits.grant(0) <= 1);
            if permits.out == 1 {
                break;
            }
        }
        assert_eq!(permits.out, 1, "{permits:?}");
    }

    #[test]
    fn a_batch_counts_its_messages_and_may_overdraw() {
        let mut permits = Permits::new();
        permits.grant(0);
        permits.taken(1000, 100_000);
        assert_eq!(permits.out, 4 - 1000);
        let granted = i64::from(permits.grant(0));
        assert!(granted >= 1000 && granted + 4 - 1000 <= 1000, "{granted}");
    }

    #[test]
    fn the_broker_is_asked_in_portions() {
        let mut permits = Permits::new();
        for _ in 0..5000 {
            permits.taken(1, 100);
            permits.grant(0);
        }
        let grants = (0..1000).filter(|_| {
            permits.taken(1, 100);
            permits.grant(0) > 0
        });
        assert!(grants.count() <= 3);
    }
}
