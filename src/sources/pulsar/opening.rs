//! Opening a topic for reading: which one, and from where to where.

use std::sync::Arc;

use tokio::sync::{Notify, oneshot};
use tokio::task::AbortHandle;

use super::brokers::Brokers;
use super::consumer::{Begin, Consumer, End};
use super::keeper::Keeper;
use super::trouble::{Sort, Trouble};
use crate::milvus::channel::PChannel;

/// A task that opens a topic. Ends when dropped.
pub(super) struct Opening {
    result: oneshot::Receiver<Result<Opened, Trouble>>,
    task: AbortHandle,
}

/// A topic that is being read.
pub(super) struct Opened {
    pub(super) consumer: Consumer,
    pub(super) end: End,
}

impl Opening {
    /// Begins; `wake` is woken when there is a result.
    pub(super) fn start(
        brokers: &Arc<Brokers>,
        keeper: Option<&Arc<Keeper>>,
        channel: &PChannel,
        begin: Begin,
        wake: &Arc<Notify>,
    ) -> Opening {
        let (sender, result) = oneshot::channel();
        let (brokers, keeper, channel, wake) =
            (Arc::clone(brokers), keeper.cloned(), channel.clone(), Arc::clone(wake));
        let task = tokio::spawn(async move {
            let opened = open(&brokers, keeper.as_deref(), &channel, begin, &wake).await;
            // Nobody waits for it any more if that fails.
            drop(sender.send(opened));
            wake.notify_one();
        });
        Opening { result, task: task.abort_handle() }
    }

    /// What came of it, once it is done.
    pub(super) fn result(&mut self) -> Option<Result<Opened, Trouble>> {
        match self.result.try_recv() {
            Ok(result) => Some(result),
            Err(oneshot::error::TryRecvError::Empty) => None,
            Err(oneshot::error::TryRecvError::Closed) => Some(Err(Trouble::passing("opening was given up"))),
        }
    }
}

impl Drop for Opening {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn open(
    brokers: &Brokers,
    keeper: Option<&Keeper>,
    channel: &PChannel,
    begin: Begin,
    wake: &Arc<Notify>,
) -> Result<Opened, Trouble> {
    let topic = brokers.topic(channel);
    match open_topic(brokers, keeper, channel, &topic, begin, wake).await {
        Err(trouble) if trouble.sort == Sort::NoTopic => {
            let topic = partition(brokers, &topic, trouble).await?;
            open_topic(brokers, keeper, channel, &topic, begin, wake).await
        }
        result => result,
    }
}

async fn open_topic(
    brokers: &Brokers,
    keeper: Option<&Keeper>,
    channel: &PChannel,
    topic: &str,
    begin: Begin,
    wake: &Arc<Notify>,
) -> Result<Opened, Trouble> {
    if let Some(keeper) = keeper {
        keeper.keep(channel, topic).await?;
    }
    let consumer = Consumer::reading(brokers, topic, begin, wake).await?;
    let end = consumer.end().await?;
    Ok(Opened { consumer, end })
}

/// The one partition of a topic that was made as a partitioned one.
async fn partition(brokers: &Brokers, topic: &str, missing: Trouble) -> Result<String, Trouble> {
    // Who may read a topic need not be allowed to list them all.
    let Ok(topics) = brokers.topics().await else { return Err(missing) };
    let first = format!("{topic}-partition-0");
    if topics.contains(&format!("{topic}-partition-1")) {
        return Err(Trouble::new(Sort::Unfit, format!("topic {topic} has several partitions")));
    }
    if topics.contains(&first) { Ok(first) } else { Err(missing) }
}
