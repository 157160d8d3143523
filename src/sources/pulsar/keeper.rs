//! The durable subscriptions that make brokers keep what is not yet on the target.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::task::AbortHandle;

use super::brokers::Brokers;
use super::consumer::Consumer;
use super::id::{Entry, MessageId};
use super::trouble::{Sort, Trouble};
use crate::milvus::channel::{PChannel, Position};

/// An unsubscribing that failed is tried again after this long.
const TRY_AGAIN: Duration = Duration::from_secs(2);

/// Keeps one subscription on each topic that is read, all of one name.
pub(super) struct Keeper {
    brokers: Arc<Brokers>,
    name: String,
    kept: Mutex<HashMap<PChannel, Kept>>,
    /// Subscriptions that are being taken away.
    leaving: Mutex<HashMap<PChannel, AbortHandle>>,
}

/// One subscription.
struct Kept {
    topic: String,
    /// Without one, the subscription is there, but can't be moved at the moment.
    consumer: Option<Consumer>,
    acknowledged: Option<Entry>,
    trying: bool,
}

impl Keeper {
    pub(super) fn new(brokers: Arc<Brokers>, name: String) -> Arc<Keeper> {
        Arc::new(Keeper { brokers, name, kept: Mutex::default(), leaving: Mutex::default() })
    }

    /// Sees to it that there is a subscription on the topic of `channel`: what is there now will be kept.
    pub(super) async fn keep(&self, channel: &PChannel, topic: &str) -> Result<(), Trouble> {
        if let Some(leaving) = lock(&self.leaving).remove(channel) {
            leaving.abort();
        }
        let is_open = |kept: &Kept| kept.consumer.as_ref().is_some_and(Consumer::is_open);
        if lock(&self.kept).get(channel).is_some_and(is_open) {
            return Ok(());
        }
        let consumer = match Consumer::durable(&self.brokers, topic, &self.name, &Arc::default()).await {
            Ok(consumer) => Some(consumer),
            // It exists, and the broker has not noticed yet that the one connected to it (we, before) is gone.
            Err(trouble) if trouble.sort == Sort::Busy => None,
            Err(trouble) => return Err(trouble),
        };
        let kept = Kept { topic: topic.to_owned(), consumer, acknowledged: None, trying: false };
        lock(&self.kept).insert(channel.clone(), kept);
        Ok(())
    }

    /// Lets go of what comes before `positions`.
    pub(super) fn release(self: &Arc<Self>, positions: &BTreeMap<PChannel, Position>) {
        for (channel, position) in positions {
            let mut all = lock(&self.kept);
            let Some(kept) = all.get_mut(channel) else { continue };
            let Ok(id) = MessageId::from_position(channel, position) else { continue };
            // The message itself is needed. What stands before the first of a ledger is let go with the next position.
            let Some(before) = Entry::of(&id.place.before()) else { continue };
            if kept.acknowledged == Some(before) {
                continue;
            }
            match kept.consumer.as_ref().filter(|consumer| consumer.is_open()) {
                Some(consumer) => {
                    consumer.acknowledge(before);
                    kept.acknowledged = Some(before);
                }
                None if kept.trying => {}
                None => {
                    kept.trying = true;
                    let (keeper, channel, topic) = (Arc::clone(self), channel.clone(), kept.topic.clone());
                    tokio::spawn(async move {
                        let result = keeper.keep(&channel, &topic).await;
                        if let Err(trouble) = result
                            && let Some(kept) = lock(&keeper.kept).get_mut(&channel)
                        {
                            tracing::debug!(%channel, %trouble, "the subscription can't be moved");
                            kept.trying = false;
                        }
                    });
                }
            }
        }
    }

    /// Takes the subscription of `channel` away, as soon as that can be done.
    pub(super) fn forget(self: &Arc<Self>, channel: &PChannel) {
        let Some(kept) = lock(&self.kept).remove(channel) else { return };
        let keeper = Arc::clone(self);
        let Kept { topic, mut consumer, .. } = kept;
        let task = tokio::spawn(async move {
            loop {
                let open = match consumer.take().filter(Consumer::is_open) {
                    Some(open) => Ok(open),
                    None => Consumer::durable(&keeper.brokers, &topic, &keeper.name, &Arc::default()).await,
                };
                let result = match open {
                    Ok(open) => open.unsubscribe().await,
                    Err(trouble) => Err(trouble),
                };
                match result {
                    Ok(()) => return,
                    Err(trouble) if trouble.sort == Sort::NoTopic => return,
                    Err(trouble) => tracing::debug!(topic, %trouble, "not yet unsubscribed"),
                }
                tokio::time::sleep(TRY_AGAIN).await;
            }
        });
        lock(&self.leaving).insert(channel.clone(), task.abort_handle());
    }
}

/// Takes away all subscriptions `name` in the namespace; returns their topics.
pub(super) async fn remove_all(brokers: &Brokers, name: &str) -> Result<Vec<String>, Trouble> {
    let mut removed = Vec::new();
    for topic in brokers.topics().await? {
        let result = async {
            if !Consumer::durable_exists(brokers, &topic, name).await? {
                return Ok(false);
            }
            let consumer = Consumer::durable(brokers, &topic, name, &Arc::default()).await?;
            consumer.unsubscribe().await.map(|()| true)
        };
        match result.await {
            Ok(true) => removed.push(topic),
            Ok(false) => {}
            Err(trouble) if trouble.sort == Sort::NoTopic => {}
            Err(trouble) => return Err(Trouble::new(trouble.sort, format!("topic {topic}: {trouble}"))),
        }
    }
    Ok(removed)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
