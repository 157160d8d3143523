//! A consumer: a subscription to a topic by way of a connection.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use pulsar::proto::base_command::Type;
use pulsar::proto::command_subscribe::{InitialPosition, SubType};
use pulsar::proto::{
    BaseCommand, CommandAck, CommandFlow, CommandGetLastMessageId, CommandSubscribe, CommandUnsubscribe,
    MessageIdData, command_ack,
};
use tokio::sync::Notify;

use super::brokers::Brokers;
use super::connection::Connection;
use super::id::Entry;
use super::inbox::{Frame, Inbox, Next};
use super::permits::{LIMIT_BYTES, Permits};
use super::trouble::{Sort, Trouble};

/// The mark of a topic's beginning.
const EARLIEST: MessageIdData = MessageIdData {
    ledger_id: u64::MAX,
    entry_id: u64::MAX,
    partition: None,
    batch_index: None,
    ack_set: Vec::new(),
    batch_size: None,
    first_chunk_message_id: None,
};

/// Where a consumer begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Begin {
    /// With the first entry that is there.
    Earliest,
    /// With this entry or the one before it, if they are there.
    With(Entry),
    /// With the first entry that was published within this time, or later, by the producers' and the broker's clock.
    Ago(Duration),
}

/// A subscription, which ends when this is dropped, unless it is durable.
pub(super) struct Consumer {
    connection: Arc<Connection>,
    id: u64,
    inbox: Arc<Inbox>,
    permits: Permits,
}

/// What a broker says of a topic's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct End {
    /// The last entry, `None` if there is none.
    pub(super) last: Option<Entry>,
    /// Nothing is left to read for the consumer that asked.
    pub(super) reached: bool,
}

impl Consumer {
    /// Opens a subscription that the broker forgets with the connection. Nothing comes before [`Consumer::next`] has
    /// been called.
    pub(super) async fn reading(
        brokers: &Brokers,
        topic: &str,
        begin: Begin,
        wake: &Arc<Notify>,
    ) -> Result<Consumer, Trouble> {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        // A broker holds on to a subscription of a lost connection for a while, so no name is used again.
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("migrans-reader-{:016x}-{number}", rand::random::<u64>());
        let (start, rollback) = match begin {
            Begin::Earliest => (EARLIEST, None),
            Begin::With(entry) => (entry.before(), None),
            Begin::Ago(ago) => (EARLIEST, Some(ago.as_secs().max(1))),
        };
        let command = CommandSubscribe {
            durable: Some(false),
            start_message_id: Some(start),
            start_message_rollback_duration_sec: rollback,
            ..subscribe(topic, name)
        };
        Consumer::subscribe(brokers, topic, command, wake).await
    }

    /// Opens the durable subscription `name`, which begins at the first message if it is new.
    pub(super) async fn durable(
        brokers: &Brokers,
        topic: &str,
        name: &str,
        wake: &Arc<Notify>,
    ) -> Result<Consumer, Trouble> {
        let command = CommandSubscribe { durable: Some(true), ..subscribe(topic, name.to_owned()) };
        Consumer::subscribe(brokers, topic, command, wake).await
    }

    /// Whether there is a durable subscription `name`. Does not make one: a subscription that is not durable is refused
    /// a name that a durable one has.
    pub(super) async fn durable_exists(brokers: &Brokers, topic: &str, name: &str) -> Result<bool, Trouble> {
        let command = CommandSubscribe {
            durable: Some(false),
            start_message_id: Some(EARLIEST),
            ..subscribe(topic, name.to_owned())
        };
        match Consumer::subscribe(brokers, topic, command, &Arc::default()).await {
            Ok(_) => Ok(false),
            Err(trouble) if trouble.sort == Sort::DurableExists => Ok(true),
            Err(trouble) => Err(trouble),
        }
    }

    async fn subscribe(
        brokers: &Brokers,
        topic: &str,
        command: CommandSubscribe,
        wake: &Arc<Notify>,
    ) -> Result<Consumer, Trouble> {
        let connection = brokers.serving(topic).await?;
        let (id, request_id) = (connection.new_id(), connection.new_id());
        let inbox = Arc::new(Inbox::new(LIMIT_BYTES, Arc::clone(wake)));
        connection.register(id, &inbox);
        let consumer = Consumer { connection, id, inbox, permits: Permits::new() };
        let command = BaseCommand {
            r#type: Type::Subscribe.into(),
            subscribe: Some(CommandSubscribe { consumer_id: id, request_id, ..command }),
            ..BaseCommand::default()
        };
        consumer.connection.ask(request_id, command).await?;
        Ok(consumer)
    }

    /// Asks where the topic ends.
    pub(super) async fn end(&self) -> Result<End, Trouble> {
        let request_id = self.connection.new_id();
        let command = BaseCommand {
            r#type: Type::GetLastMessageId.into(),
            get_last_message_id: Some(CommandGetLastMessageId { consumer_id: self.id, request_id }),
            ..BaseCommand::default()
        };
        let answer = self.connection.ask(request_id, command).await?;
        let Some(answer) = answer.get_last_message_id_response else {
            return Err(Trouble::passing("the broker did not say where the topic ends"));
        };
        let last = Entry::of(&answer.last_message_id);
        let passed = answer.consumer_mark_delete_position.as_ref().and_then(Entry::of);
        Ok(End { last, reached: last.is_none_or(|last| passed.is_some_and(|passed| passed >= last)) })
    }

    /// Takes what is next, and permits the broker to send more.
    pub(super) fn next(&mut self) -> Next {
        let next = self.inbox.pop();
        if let Next::Frame(Frame { batch, payload, .. }) = &next {
            self.permits.taken(batch.unwrap_or(1), payload.len());
        }
        if !matches!(next, Next::End(_)) {
            let more = self.permits.grant(self.inbox.bytes());
            if more > 0 {
                self.connection.send(BaseCommand {
                    r#type: Type::Flow.into(),
                    flow: Some(CommandFlow { consumer_id: self.id, message_permits: more }),
                    ..BaseCommand::default()
                });
            }
        }
        next
    }

    /// Whether the broker still has it.
    pub(super) fn is_open(&self) -> bool {
        self.connection.is_open() && !self.inbox.has_ended()
    }

    /// Everything up to `entry` need not be kept for this subscription any more.
    pub(super) fn acknowledge(&self, entry: Entry) {
        self.connection.send(BaseCommand {
            r#type: Type::Ack.into(),
            ack: Some(CommandAck {
                consumer_id: self.id,
                ack_type: command_ack::AckType::Cumulative.into(),
                message_id: vec![MessageIdData {
                    ledger_id: entry.ledger,
                    entry_id: entry.entry,
                    ..MessageIdData::default()
                }],
                ..CommandAck::default()
            }),
            ..BaseCommand::default()
        });
    }

    /// Takes the subscription away.
    pub(super) async fn unsubscribe(self) -> Result<(), Trouble> {
        let request_id = self.connection.new_id();
        let command = BaseCommand {
            r#type: Type::Unsubscribe.into(),
            unsubscribe: Some(CommandUnsubscribe { consumer_id: self.id, request_id }),
            ..BaseCommand::default()
        };
        self.connection.ask(request_id, command).await.map(drop)
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        self.connection.close_consumer(self.id);
    }
}

/// What every subscription of ours has in common.
fn subscribe(topic: &str, subscription: String) -> CommandSubscribe {
    CommandSubscribe {
        topic: topic.to_owned(),
        subscription,
        sub_type: SubType::Exclusive.into(),
        consumer_name: Some("migrans".to_owned()),
        initial_position: Some(InitialPosition::Earliest.into()),
        // Otherwise a broker with `allowAutoTopicCreation` makes a topic of any name that is asked for.
        force_topic_creation: Some(false),
        ..CommandSubscribe::default()
    }
}
