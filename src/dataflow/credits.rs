//! The memory budget: bytes that inputs may bring into the pipeline.
//!
//! An input takes credit for a message when it admits it and the credit flows with the bytes; dropping the last
//! [`Credit`] returns it and wakes the inputs. Half of the budget is shared out evenly among the channels, so that none
//! is shut out; the other half is a pool.
//!
//! Bytes come back in the order of time, so what helps is to read the channel that holds the global frontier back (the
//! laggard): the last quarter of the budget is for it alone, whatever the others have read ahead. And when nothing is left
//! downstream that could return bytes, it is admitted without limit up to its next tick, so the budget can't deadlock.
//! If several channels stand at the same tick, that goes for each in turn (invariant 5: bytes in flight ≤ budget + one
//! tick of those that hold the frontier back).

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::milvus::channel::PChannel;

/// The budget of one pipeline. Shared by its inputs.
#[derive(Debug)]
pub struct Credits {
    budget: u64,
    state: Mutex<State>,
    returned: Condvar,
}

#[derive(Debug, Default)]
struct State {
    held: u64,
    peak: u64,
    channels: HashMap<PChannel, u64>,
    /// Closed, but not yet without bytes.
    closed: HashSet<PChannel>,
    laggard: Option<PChannel>,
    /// Nothing but the laggard's next tick can bring bytes back.
    starved: bool,
}

/// A message's share of the budget. Returned on drop.
#[derive(Debug)]
pub struct Credit {
    bytes: u64,
    channel: PChannel,
    credits: Arc<Credits>,
}

impl Credits {
    /// A budget of `budget` bytes.
    pub fn new(budget: u64) -> Arc<Credits> {
        Arc::new(Credits { budget, state: Mutex::default(), returned: Condvar::new() })
    }

    /// Takes `bytes` for a message of `channel`, or `None` if the channel must wait.
    pub fn try_take(self: &Arc<Self>, channel: &PChannel, bytes: u64) -> Option<Credit> {
        let mut state = self.lock();
        let is_laggard = state.laggard.as_ref() == Some(channel);
        let limit = if is_laggard { self.budget } else { self.budget - self.budget / 4 };
        let admitted = state.held + state.reserved_from(channel, self.budget) + bytes <= limit
            || is_laggard && state.starved
            || state.held == 0 && state.laggard.is_none();
        if !admitted {
            return None;
        }
        state.held += bytes;
        state.peak = state.peak.max(state.held);
        *state.channels.entry(channel.clone()).or_default() += bytes;
        Some(Credit { bytes, channel: channel.clone(), credits: Arc::clone(self) })
    }

    /// Makes `channel` known, so that it gets a share.
    pub fn open(&self, channel: &PChannel) {
        let mut state = self.lock();
        state.closed.remove(channel);
        state.channels.entry(channel.clone()).or_default();
    }

    /// Names the channel that holds the global frontier back, if one does, and says whether nothing is left that could
    /// return bytes before it has moved on.
    pub fn set_laggard(&self, channel: Option<&PChannel>, starved: bool) {
        let mut state = self.lock();
        if state.laggard.as_ref() != channel || state.starved != starved {
            state.laggard = channel.cloned();
            state.starved = starved;
            self.returned.notify_all();
        }
    }

    /// A tick of `channel` is on its way to the dataflow: what comes behind it has no more claim than other messages until
    /// the dataflow has seen that tick.
    pub fn ticked(&self, channel: &PChannel) {
        let mut state = self.lock();
        if state.laggard.as_ref() == Some(channel) {
            state.starved = false;
        }
    }

    /// Bytes now held.
    pub fn held(&self) -> u64 {
        self.lock().held
    }

    /// Bytes now held, by channel.
    pub fn held_by_channel(&self) -> HashMap<PChannel, u64> {
        self.lock().channels.clone()
    }

    /// `channel` is no longer read: its share goes to the others. What it still holds stays counted.
    pub fn close(&self, channel: &PChannel) {
        let mut state = self.lock();
        if state.channels.get(channel) == Some(&0) {
            state.channels.remove(channel);
        } else {
            state.closed.insert(channel.clone());
        }
    }

    /// The most bytes ever held.
    pub fn peak(&self) -> u64 {
        self.lock().peak
    }

    /// The budget in bytes.
    pub fn budget(&self) -> u64 {
        self.budget
    }

    /// Blocks the calling input thread until credit is returned or the laggard changes, for `at_most`.
    pub fn wait(&self, at_most: Duration) {
        let state = self.lock();
        drop(self.returned.wait_timeout(state, at_most));
    }

    // A panic elsewhere can't leave the counters half-changed, so a poisoned lock is as good as another.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Half of the budget is shared out evenly; the other half is the pool. What the others have not yet used of their
    /// shares is not for `channel`.
    fn reserved_from(&self, channel: &PChannel, budget: u64) -> u64 {
        let count = u64::try_from(self.channels.len().max(1)).unwrap_or(u64::MAX);
        let share = budget / 2 / count;
        let others =
            self.channels.iter().filter(|(other, _)| *other != channel && !self.closed.contains(*other));
        others.map(|(_, held)| share.saturating_sub(*held)).sum()
    }
}

impl Credit {
    /// The bytes it stands for.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl Drop for Credit {
    fn drop(&mut self) {
        let mut state = self.credits.lock();
        state.held -= self.bytes;
        if let Some(own) = state.channels.get_mut(&self.channel) {
            *own -= self.bytes;
            if *own == 0 && state.closed.remove(&self.channel) {
                state.channels.remove(&self.channel);
            }
        }
        drop(state);
        self.credits.returned.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn channel(name: &str) -> PChannel {
        PChannel(name.into())
    }

    fn with_channels(budget: u64, names: &[&str]) -> Arc<Credits> {
        let credits = Credits::new(budget);
        names.iter().for_each(|name| credits.open(&channel(name)));
        credits
    }

    #[test]
    fn bytes_in_flight_stay_within_the_budget_and_come_back() {
        // INVARIANT 5
        let credits = with_channels(100, &["a", "b"]);
        let mut held: Vec<Credit> = Vec::new();
        while let Some(credit) =
            credits.try_take(&channel("a"), 10).or_else(|| credits.try_take(&channel("b"), 10))
        {
            held.push(credit);
        }
        assert!((50..=100).contains(&credits.held()), "{}", credits.held());
        held.truncate(1);
        assert_eq!(credits.held(), 10);
        held.clear();
        assert_eq!((credits.held(), credits.peak() <= 100), (0, true));
    }

    #[test]
    fn a_greedy_channel_leaves_the_others_their_share_and_the_laggard_a_quarter() {
        let credits = with_channels(100, &["a", "b"]);
        let greedy: Vec<Credit> = std::iter::from_fn(|| credits.try_take(&channel("a"), 5)).collect();
        assert_eq!(greedy.len(), 10, "neither the other's share nor the laggard's quarter");
        let modest: Vec<Credit> = std::iter::from_fn(|| credits.try_take(&channel("b"), 5)).collect();
        assert_eq!(modest.len(), 5, "its share");
        credits.set_laggard(Some(&channel("b")), false);
        let behind: Vec<Credit> = std::iter::from_fn(|| credits.try_take(&channel("b"), 5)).collect();
        assert_eq!(behind.len(), 5, "the last quarter");
        assert!(credits.try_take(&channel("a"), 5).is_none());
    }

    #[test]
    fn a_closed_channel_leaves_its_share_to_the_others_once_its_bytes_are_back() {
        let credits = with_channels(100, &["a", "b"]);
        let held = credits.try_take(&channel("b"), 10);
        credits.close(&channel("b"));
        assert_eq!(credits.held_by_channel().len(), 2, "its bytes are still there");
        drop(held);
        assert_eq!(credits.held_by_channel(), HashMap::from([(channel("a"), 0)]));
        credits.set_laggard(Some(&channel("a")), false);
        let all: Vec<Credit> = std::iter::from_fn(|| credits.try_take(&channel("a"), 5)).collect();
        assert_eq!(all.len(), 20, "all of the budget");
        credits.set_laggard(None, false);
        credits.close(&channel("a"));
        credits.open(&channel("a"));
        drop(all);
        assert_eq!(credits.held_by_channel().len(), 1, "opened again before it was empty");
    }

    #[test]
    fn the_laggard_may_go_on_without_limit_when_nothing_else_can() {
        let credits = with_channels(100, &["a", "b"]);
        let _all: Vec<Credit> = std::iter::from_fn(|| credits.try_take(&channel("a"), 10)).collect();
        assert!(credits.try_take(&channel("b"), 1000).is_none());
        credits.set_laggard(Some(&channel("b")), false);
        assert!(credits.try_take(&channel("b"), 1000).is_none(), "bytes will come back without that");
        credits.set_laggard(Some(&channel("b")), true);
        assert!(credits.try_take(&channel("b"), 1000).is_some());
        assert!(credits.try_take(&channel("a"), 10).is_none());
        credits.set_laggard(None, false);
        assert!(credits.try_take(&channel("b"), 1000).is_none());
    }

    #[test]
    fn a_message_larger_than_the_budget_passes_alone() {
        let credits = with_channels(100, &["a"]);
        let large = credits.try_take(&channel("a"), 500);
        assert!(large.is_some());
        assert!(credits.try_take(&channel("a"), 1).is_none());
        drop(large);
        assert!(credits.try_take(&channel("a"), 1).is_some());
    }
}
