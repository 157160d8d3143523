//! The pipeline's frontier, watched from outside while it runs.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::Mutex;

use super::motion::Beyond;
use crate::dataflow::checkpoint;
use crate::error::{Error, Kind, Result};
use crate::milvus::tso::Tso;
use crate::pipeline::Pipeline;

/// The state folder is looked at this often.
const LOOK: Duration = Duration::from_millis(250);

/// F as the state folder says it.
pub(super) struct Frontier {
    clock: Arc<AtomicU64>,
    folder: PathBuf,
    pipeline: Pipeline,
    seen: Mutex<Seen>,
}

/// What was seen of F.
struct Seen {
    frontier: Option<Tso>,
    looked: Instant,
    stillness: Stillness,
}

/// How the pipeline is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// It has never run: there is no state.
    Absent,
    /// F has moved.
    Running,
    /// F has not moved for longer than it may.
    Standing,
    /// F has not moved yet, but that was not for long.
    Unknown,
}

impl Frontier {
    /// Looks for the first time.
    ///
    /// # Errors
    /// `Checkpoint`: the state folder is another pipeline's, or can't be read.
    pub(super) async fn new(pipeline: &Pipeline, patience: Duration) -> Result<Frontier> {
        let now = Instant::now();
        let stillness = Stillness { patience, last: None, since: now, moved: false };
        let seen = Seen { frontier: None, looked: now, stillness };
        let clock = Arc::default();
        let frontier = Frontier {
            clock,
            folder: pipeline.state_dir.clone(),
            pipeline: pipeline.clone(),
            seen: Mutex::new(seen),
        };
        let first = frontier.look().await?;
        let mut seen = frontier.seen.lock().await;
        seen.frontier = first;
        seen.stillness.last = first;
        drop(seen);
        Ok(frontier)
    }

    /// F, and how the pipeline is.
    pub(super) async fn now(&self) -> Result<(Option<Tso>, State)> {
        // Held during the look, so that several tasks don't look at the same time.
        let mut seen = self.seen.lock().await;
        if seen.looked.elapsed() >= LOOK / 2 {
            seen.frontier = self.look().await?;
            seen.looked = Instant::now();
        }
        let frontier = seen.frontier;
        let state = match seen.stillness.observe(Instant::now(), frontier) {
            _ if !self.folder.join("CURRENT").exists() => State::Absent,
            state => state,
        };
        Ok((frontier, state))
    }

    /// Waits until F has passed `time`, or does not move any more. `tell` hears now and then how far it is behind.
    pub(super) async fn wait(&self, time: Tso, tell: impl Fn(Duration)) -> Result<Beyond> {
        loop {
            let (frontier, state) = self.now().await?;
            if frontier.is_some_and(|frontier| frontier >= time) {
                return Ok(Beyond::Passed);
            }
            if matches!(state, State::Standing | State::Absent) {
                return Ok(Beyond::Standing);
            }
            let behind = frontier.map(|frontier| time.millis().saturating_sub(frontier.millis()));
            tell(Duration::from_millis(behind.unwrap_or(0)));
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn look(&self) -> Result<Option<Tso>> {
        let (folder, pipeline) = (self.folder.clone(), self.pipeline.clone());
        let looking = tokio::task::spawn_blocking(move || checkpoint::peek(&folder, &pipeline));
        let found = looking.await.map_err(|cause| {
            Error::new(Kind::Internal, "looking at the state folder failed").caused_by(cause)
        })??;
        self.clock.store(found.unwrap_or(Tso::ZERO).0, Ordering::Release);
        Ok(found)
    }

    /// F as it was last seen: the time of a standby, which gets to know F and nothing later.
    pub(super) fn clock(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.clock)
    }
}

/// Tells a pipeline that runs from one that doesn't by whether F moves. It moves with the ticks of an idle source too.
struct Stillness {
    patience: Duration,
    last: Option<Tso>,
    since: Instant,
    moved: bool,
}

impl Stillness {
    fn observe(&mut self, now: Instant, frontier: Option<Tso>) -> State {
        if frontier != self.last {
            self.last = frontier;
            self.since = now;
            self.moved = true;
        }
        if now.duration_since(self.since) >= self.patience {
            return State::Standing;
        }
        if self.moved { State::Running } else { State::Unknown }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frontier_stands_once_it_has_not_moved_for_long() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut stillness =
            Stillness { patience: Duration::from_secs(10), last: Some(Tso(1)), since: start, moved: false };
        assert_eq!(stillness.observe(at(9), Some(Tso(1))), State::Unknown);
        assert_eq!(stillness.observe(at(10), Some(Tso(1))), State::Standing);
        // It was started again.
        assert_eq!(stillness.observe(at(20), Some(Tso(2))), State::Running);
        assert_eq!(stillness.observe(at(29), Some(Tso(2))), State::Running);
        assert_eq!(stillness.observe(at(30), Some(Tso(2))), State::Standing);
    }

    #[test]
    fn a_first_frontier_is_a_move() {
        let start = Instant::now();
        let mut stillness =
            Stillness { patience: Duration::from_secs(10), last: None, since: start, moved: false };
        assert_eq!(stillness.observe(start, None), State::Unknown);
        assert_eq!(stillness.observe(start, Some(Tso(5))), State::Running);
    }
}
