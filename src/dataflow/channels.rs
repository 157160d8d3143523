//! What is known of each channel that is being read, for the user: how far it is, and what it waits for.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::credits::Credits;
use crate::milvus::channel::PChannel;
use crate::milvus::tso::Tso;

/// A source that is waited for longer than this is worth a line in the log.
const WORTH_A_LINE: Duration = Duration::from_secs(1);
/// The distance of such lines while the waiting goes on.
const LINE_EVERY: Duration = Duration::from_secs(15);

/// What a channel waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Waiting {
    /// For bytes of the memory budget.
    Credit,
    /// For the dataflow to take what has been read.
    Dataflow,
    /// For the queue; the text says what is wrong with it.
    Queue(Arc<str>),
}

impl fmt::Display for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Waiting::Credit => f.write_str("the memory budget"),
            Waiting::Dataflow => f.write_str("the dataflow"),
            Waiting::Queue(what) => f.write_str(what),
        }
    }
}

/// The channels of one pipeline. Shared by its source and its operators.
#[derive(Debug, Default)]
pub struct Channels(Mutex<BTreeMap<PChannel, Channel>>);

#[derive(Debug, Default)]
struct Channel {
    tick: Tso,
    waiting: Option<(Waiting, Instant)>,
    waited: Waited,
    told: Option<Instant>,
}

/// How long a channel has waited altogether, by what for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Waited {
    /// For the memory budget.
    pub credit: Duration,
    /// For the dataflow.
    pub dataflow: Duration,
    /// For the queue, which was not well.
    pub queue: Duration,
}

impl Waited {
    fn add(&mut self, what: &Waiting, since: Instant) {
        let total = match what {
            Waiting::Credit => &mut self.credit,
            Waiting::Dataflow => &mut self.dataflow,
            Waiting::Queue(_) => &mut self.queue,
        };
        *total += since.elapsed();
    }
}

/// One channel at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChannelNow {
    /// The channel.
    pub channel: PChannel,
    /// Its last tick.
    pub tick: Tso,
    /// Bytes of the budget that its messages hold.
    pub held_bytes: u64,
    /// What it waits for, and since when.
    pub waiting: Option<(Waiting, Duration)>,
    /// How long it has waited so far, that included.
    pub waited: Waited,
}

impl Channel {
    fn waited_until_now(&self) -> Waited {
        let mut waited = self.waited;
        if let Some((what, since)) = &self.waiting {
            waited.add(what, *since);
        }
        waited
    }
}

impl Channels {
    /// A channel is read from now on.
    pub fn open(&self, channel: &PChannel) {
        self.lock().insert(channel.clone(), Channel::default());
    }

    /// A channel is no longer read.
    pub fn close(&self, channel: &PChannel) {
        self.lock().remove(channel);
    }

    /// A channel has passed a tick.
    pub fn passed(&self, channel: &PChannel, tick: Tso) {
        if let Some(channel) = self.lock().get_mut(channel) {
            channel.tick = tick.max(channel.tick);
        }
    }

    /// What a channel waits for; `None`: it goes on.
    pub fn waits(&self, name: &PChannel, what: Option<Waiting>) {
        let mut channels = self.lock();
        let Some(channel) = channels.get_mut(name) else { return };
        if channel.told.take_if(|_| !matches!(what, Some(Waiting::Queue(_)))).is_some() {
            tracing::info!(channel = %name, "reading goes on");
        }
        let since = match (&channel.waiting, &what) {
            // The words may change while the trouble is the same.
            (Some((Waiting::Queue(_), since)), Some(Waiting::Queue(_))) => *since,
            (waiting, _) => {
                if let Some((what, since)) = waiting {
                    channel.waited.add(what, *since);
                }
                Instant::now()
            }
        };
        channel.waiting = what.map(|what| (what, since));
    }

    /// Writes to the log what has been waited for long. To be called now and then.
    pub fn tell(&self) {
        for (name, channel) in self.lock().iter_mut() {
            if let Some((Waiting::Queue(what), since)) = &channel.waiting
                && since.elapsed() > WORTH_A_LINE
                && channel.told.is_none_or(|told| told.elapsed() > LINE_EVERY)
            {
                channel.told = Some(Instant::now());
                tracing::warn!(channel = %name, seconds = since.elapsed().as_secs(), "waiting for {what}");
            }
        }
    }

    /// All of them, by name.
    pub fn now(&self, credits: &Credits) -> Vec<ChannelNow> {
        let held = credits.held_by_channel();
        let channels = self.lock();
        let now = channels.iter().map(|(name, channel)| ChannelNow {
            channel: name.clone(),
            tick: channel.tick,
            held_bytes: held.get(name).copied().unwrap_or(0),
            waiting: channel.waiting.as_ref().map(|(what, since)| (what.clone(), since.elapsed())),
            waited: channel.waited_until_now(),
        });
        now.collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<PChannel, Channel>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_channel_says_what_it_waits_for_and_since_when() {
        let (channels, credits) = (Channels::default(), Credits::new(100));
        let name = PChannel("a".into());
        channels.waits(&name, Some(Waiting::Credit));
        assert_eq!(channels.now(&credits), [], "only open channels are told of");
        channels.open(&name);
        credits.open(&name);
        let held = credits.try_take(&name, 7);
        channels.passed(&name, Tso(5));
        channels.passed(&name, Tso(4));
        channels.waits(&name, Some(Waiting::Queue("a: no route".into())));
        std::thread::sleep(Duration::from_millis(5));
        channels.waits(&name, Some(Waiting::Queue("a: refused".into())));
        let now = channels.now(&credits);
        assert_eq!((now[0].tick, now[0].held_bytes), (Tso(5), 7));
        let (what, since) = now[0].waiting.clone().unwrap();
        assert_eq!(what.to_string(), "a: refused");
        assert!(since >= Duration::from_millis(5), "the trouble is the same under another name: {since:?}");
        channels.waits(&name, None);
        let now = channels.now(&credits);
        assert_eq!(now[0].waiting, None);
        let waited = now[0].waited;
        assert!(waited.queue >= since && waited.credit == Duration::ZERO, "{waited:?}");
        drop(held);
        channels.close(&name);
        assert_eq!(channels.now(&credits), []);
    }
}
