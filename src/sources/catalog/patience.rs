//! Waiting for an etcd that is away, without flooding the log.

use std::time::Duration;

use tokio::time::Instant;

use crate::error::Error;

/// The first pause is half to all of this, each further one twice as long.
const FIRST: Duration = Duration::from_millis(100);
/// The longest pause.
const LONGEST: Duration = Duration::from_secs(5);
/// How often the log says what is being waited for.
const REMINDER: Duration = Duration::from_secs(30);

/// How often it has failed, and when that was last said.
#[derive(Debug, Default)]
pub struct Patience {
    failures: u32,
    since: Option<Instant>,
    said: Option<Instant>,
}

impl Patience {
    /// Pauses after a failure.
    pub async fn wait(&mut self, error: &Error) {
        let now = Instant::now();
        let since = *self.since.get_or_insert(now);
        if self.said.is_none_or(|said| now - said >= REMINDER) {
            self.said = Some(now);
            let waited = (now - since).as_secs();
            tracing::warn!(
                waited_s = waited,
                "waiting for the catalog: {}",
                error.report().replace("\n  ", "; ")
            );
        }
        tokio::time::sleep(self.next_pause()).await;
    }

    fn next_pause(&mut self) -> Duration {
        let pause = FIRST.saturating_mul(1 << self.failures.min(10)).min(LONGEST);
        self.failures = self.failures.saturating_add(1);
        pause.mul_f64(rand::random_range(0.5..1.0))
    }

    /// It works again. Pauses stay long until [`Patience::restore`], in case this does not last.
    pub fn reached(&mut self, address: &str) {
        if let Some(since) = self.since.take() {
            let waited = since.elapsed().as_millis();
            tracing::info!(
                waited_ms = waited,
                "the catalog is there again, from the source's etcd at {address}"
            );
        }
    }

    /// It worked for long enough to begin with short pauses again, and to tell of the next failure at once.
    pub fn restore(&mut self) {
        *self = Patience::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_up_to_a_limit_and_vary() {
        let mut patience = Patience::default();
        let pauses: Vec<Duration> = (0..40).map(|_| patience.next_pause()).collect();
        assert!(pauses[0] <= FIRST && pauses[0] >= FIRST / 2);
        assert!(pauses.iter().all(|pause| *pause <= LONGEST));
        assert!(pauses[10..].iter().all(|pause| *pause >= LONGEST / 2));
        assert!(pauses[10..].windows(2).any(|pair| pair[0] != pair[1]));
        patience.restore();
        assert!(patience.next_pause() <= FIRST);
    }
}
