//! The standby's time: a tick to each of its channels for each frontier that is durable.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::watch;

use super::encode;
use crate::error::{Disposition, Error, Kind, Result};
use crate::failpoint::{self, Point};
use crate::milvus::tso::Tso;
use crate::proxy::{Client, RowCall};

/// How long one call may take.
const DEADLINE: Duration = Duration::from_secs(5);
/// The pause before a tick is given again.
const PAUSE: Duration = Duration::from_millis(100);

/// Gives ticks. A tick says that nothing up to it is missing, and a message is known again only as long as no tick has
/// passed it: so it is given only when the checkpoint says durably that everything up to it has been sent.
pub(super) struct Ticks {
    wanted: watch::Sender<Tso>,
    given: watch::Receiver<Tso>,
    channels: Arc<Mutex<BTreeSet<String>>>,
    failure: Arc<Mutex<Option<Error>>>,
}

impl Ticks {
    /// Starts the task that gives them; it ends with what is returned.
    pub(super) fn start(client: Client) -> Ticks {
        let (wanted, changes) = watch::channel(Tso::ZERO);
        let (given_in, given) = watch::channel(Tso::ZERO);
        let channels: Arc<Mutex<BTreeSet<String>>> = Arc::default();
        let failure: Arc<Mutex<Option<Error>>> = Arc::default();
        let giver = Giver {
            client,
            channels: Arc::clone(&channels),
            failure: Arc::clone(&failure),
            last: BTreeMap::new(),
        };
        tokio::spawn(giver.run(changes, given_in));
        Ticks { wanted, given, channels, failure }
    }

    /// These topics get ticks from now on, also after their last collection is dropped: nodes still have to hear of that.
    pub(super) fn add(&self, pchannels: impl Iterator<Item = String>) {
        self.channels.lock().unwrap_or_else(PoisonError::into_inner).extend(pchannels);
    }

    /// Everything up to `frontier` is on the target, durably.
    pub(super) fn reach(&self, frontier: Tso) {
        self.wanted.send_if_modified(|wanted| frontier > std::mem::replace(wanted, frontier.max(*wanted)));
    }

    /// The last one that was asked for.
    pub(super) fn wanted(&self) -> Tso {
        *self.wanted.borrow()
    }

    /// Why no more can be given.
    pub(super) fn failed(&self) -> Option<Error> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Waits until the last one is given.
    pub(super) async fn settle(&self, within: Duration) -> Result<()> {
        let wanted = self.wanted();
        let mut given = self.given.clone();
        match tokio::time::timeout(within, given.wait_for(|given| *given >= wanted)).await {
            Ok(Ok(_)) => Ok(()),
            _ => Err(Error::new(
                Kind::Unavailable,
                format!("the standby has everything up to {wanted}, but could not be told so: queries don't show it yet"),
            )
            .hint("start the pipeline again: it tells it first")),
        }
    }
}

struct Giver {
    client: Client,
    channels: Arc<Mutex<BTreeSet<String>>>,
    failure: Arc<Mutex<Option<Error>>>,
    /// What each topic has got.
    last: BTreeMap<String, Tso>,
}

impl Giver {
    async fn run(mut self, mut wanted: watch::Receiver<Tso>, given: watch::Sender<Tso>) {
        let mut is_told = false;
        while wanted.changed().await.is_ok() {
            loop {
                let tick = *wanted.borrow_and_update();
                match self.give(tick).await {
                    Ok(()) => {
                        is_told = false;
                        given.send_replace(tick);
                        break;
                    }
                    Err(error) if error.kind().disposition() == Disposition::Stop => {
                        *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                        return;
                    }
                    Err(error) => {
                        if !std::mem::replace(&mut is_told, true) {
                            tracing::warn!("the standby's time stands still: {error}");
                        }
                        tokio::time::sleep(PAUSE).await;
                    }
                }
            }
        }
    }

    /// Gives `tick` to all topics that lack it, side by side. To give it twice does no harm: ticks that don't go
    /// forward are ignored.
    async fn give(&mut self, tick: Tso) -> Result<()> {
        let channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let lacking = channels.into_iter().filter(|name| self.last.get(name).is_none_or(|last| *last < tick));
        let calls = lacking.map(|channel| {
            let client = &self.client;
            async move {
                failpoint::pass(Point::TickBefore);
                let what = format!("ReplicateMessage of a tick to {channel} at {}", client.uri());
                let call = encode::call(&channel, tick, tick, vec![encode::tick(tick)]);
                let result = client.send_rows(RowCall::ReplicateMessage, call, DEADLINE, &what).await;
                failpoint::pass(Point::TickGiven);
                result.map(|_| channel)
            }
        });
        let mut outcome = Ok(());
        for result in join_all(calls).await {
            match result {
                Ok(channel) => drop(self.last.insert(channel, tick)),
                Err(error) => outcome = Err(error),
            }
        }
        outcome
    }
}
