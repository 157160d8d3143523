//! One opened channel: where it is, and its prefetch queue.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rdkafka::Message;
use rdkafka::consumer::base_consumer::PartitionQueue;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::client::{Health, Listener};
use crate::dataflow::channels::Waiting;
use crate::error::{Error, Kind, Result};
use crate::milvus::channel::{PChannel, Position};
use crate::milvus::tso::Tso;
use crate::sources::outlet::{Admitted, Outlet, Payload};
use crate::sources::{CLOCK_SLACK, Start};

/// The one partition of a topic that Milvus writes.
const PARTITION: i32 = 0;
/// How long one question to the brokers may hold up the other channels.
const ASK_TIMEOUT: Duration = Duration::from_millis(500);
/// A source with ticks is never silent for that long: then it is worth a look whether the broker is there.
const SILENCE: Duration = Duration::from_secs(2);

/// A channel that is being read.
pub(super) struct Channel {
    pub(super) name: PChannel,
    pub(super) outlet: Outlet,
    state: State,
    /// Taken from the queue, but there was no credit for it.
    held: VecDeque<(i64, Bytes)>,
    heard: Instant,
    asked: Option<Instant>,
}

enum State {
    /// The brokers have not yet told whether and where it can be read.
    Sought(Start),
    /// They have.
    Found { next: i64, goal: i64 },
    Assigned {
        queue: PartitionQueue<Listener>,
        /// Where the topic ended when it was opened.
        goal: i64,
        next: i64,
    },
}

/// Why [`Channel::read`] stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// A delivery is full; there may be more.
    Full,
    /// The budget has no room for the next message.
    NoCredit,
    /// Nothing more has been fetched.
    Dry,
}

impl Channel {
    pub(super) fn new(start: Start, outlet: Outlet) -> Channel {
        Channel {
            name: outlet.channel().clone(),
            outlet,
            state: State::Sought(start),
            held: VecDeque::new(),
            heard: Instant::now(),
            asked: None,
        }
    }

    /// Whether the brokers are to be asked (again) where it can be read.
    pub(super) fn is_sought(&self, pause: Duration) -> bool {
        matches!(self.state, State::Sought(_)) && self.asked.is_none_or(|asked| asked.elapsed() > pause)
    }

    /// Asks the brokers where the topic begins and ends. Waits for the answer, a little.
    pub(super) fn seek(&mut self, consumer: &BaseConsumer<Listener>, health: &Health) {
        let State::Sought(start) = &self.state else { return };
        self.asked = Some(Instant::now());
        match find(consumer, &self.name, start) {
            Ok(Some((next, goal, trimmed))) => {
                health.answered();
                // An empty topic gets its next tick at once, unless Milvus is down.
                if let Start::Near(ts) = start
                    && next == trimmed
                    && (next < goal || ts.age() > CLOCK_SLACK * 6)
                {
                    self.outlet.must_reach(*ts);
                }
                self.state = State::Found { next, goal };
            }
            Ok(None) => {
                health.answered();
                let what = format!("Kafka to have a topic {}", self.name);
                self.outlet.waits(Some(Waiting::Queue(what.into())));
            }
            Err(Trouble::Passing(error)) => {
                if let Some(refusal) = health.refusal() {
                    self.outlet.fail(refusal);
                }
                let what = health.trouble_since(self.heard).unwrap_or_else(|| error.to_string());
                self.outlet.waits(Some(Waiting::Queue(format!("Kafka ({what})").into())));
            }
            Err(Trouble::Final(error)) => self.outlet.fail(error),
        }
    }

    /// Starts fetching, if it has just been found where. `wake` is called when something has been fetched.
    pub(super) fn assign(
        &mut self,
        consumer: &Arc<BaseConsumer<Listener>>,
        wake: impl Fn() + Send + Sync + 'static,
    ) {
        let State::Found { next, goal } = self.state else { return };
        // Before the assignment: what is fetched before the split goes to the queue of the consumer, where nobody expects it.
        let Some(mut queue) = consumer.split_partition_queue(&self.name.0, PARTITION) else {
            self.outlet.fail(unassignable(&self.name, &"no queue for it"));
            return;
        };
        queue.set_nonempty_callback(wake);
        let mut list = TopicPartitionList::new();
        let assigned = list
            .add_partition_offset(&self.name.0, PARTITION, Offset::Offset(next))
            .and_then(|()| consumer.incremental_assign(&list));
        if let Err(error) = assigned {
            self.outlet.fail(unassignable(&self.name, &error));
            return;
        }
        tracing::debug!(channel = %self.name, next, goal, "assigned");
        if next >= goal {
            self.outlet.caught_up();
        }
        self.state = State::Assigned { queue, goal, next };
        self.heard = Instant::now();
        self.outlet.waits(None);
    }

    /// A message of this channel came where none is read from: without it the channel can't go on.
    pub(super) fn astray(&mut self, offset: i64) {
        let what = format!(
            "channel {}: librdkafka delivered offset {offset} to another queue than the channel's",
            self.name
        );
        self.outlet.fail(Error::new(Kind::Internal, what));
    }

    /// Says so if nothing has come for long and librdkafka has complained since.
    pub(super) fn listen(&mut self, health: &Health) {
        if matches!(self.state, State::Assigned { .. })
            && self.held.is_empty()
            && self.heard.elapsed() > SILENCE
            && let Some(trouble) = health.trouble_since(self.heard)
        {
            self.outlet.waits(Some(Waiting::Queue(format!("Kafka ({trouble})").into())));
        }
    }

    /// Reads one delivery and puts it into the queue, which has room. Returns the payload bytes in it, if any.
    pub(super) fn read(&mut self, consumer: &BaseConsumer<Listener>) -> (Stop, Option<usize>) {
        let stop = self.fill(consumer);
        if let State::Assigned { goal, next, .. } = &self.state
            && *next >= *goal
            && self.held.is_empty()
        {
            self.outlet.caught_up();
        }
        (stop, self.outlet.flush())
    }

    fn fill(&mut self, consumer: &BaseConsumer<Listener>) -> Stop {
        let Channel { name, outlet, state, held, heard, .. } = self;
        let State::Assigned { queue, goal, next } = state else { return Stop::Dry };
        while let Some((offset, payload)) = held.pop_front() {
            match admit(outlet, name, offset, Payload::Owned(payload.clone())) {
                Some(Admitted::NoCredit) => {
                    held.push_front((offset, payload));
                    return Stop::NoCredit;
                }
                Some(Admitted::Full) | None => return Stop::Full,
                Some(Admitted::Taken) => {}
            }
        }
        loop {
            let message = match queue.poll(Duration::ZERO) {
                None => return Stop::Dry,
                Some(Ok(message)) => message,
                Some(Err(KafkaError::PartitionEOF(_))) => {
                    // Holes at the end of a topic would keep its last offset from ever being seen.
                    *goal = (*goal).min(*next);
                    *heard = Instant::now();
                    outlet.waits(None);
                    continue;
                }
                Some(Err(error)) => match error.rdkafka_error_code() {
                    Some(RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange) => {
                        match consumer.fetch_watermarks(&name.0, PARTITION, ASK_TIMEOUT) {
                            Ok((low, high)) => outlet.fail(gap(name, *next, low, high)),
                            Err(_) => outlet.fail(gap(name, *next, -1, -1)),
                        }
                        return Stop::Full;
                    }
                    Some(code) if is_denied(code) => {
                        outlet.fail(denied(name, &error));
                        return Stop::Full;
                    }
                    // Topics and leaders that are gone come back, or a person has to look: it is told, and waited for.
                    _ => {
                        outlet.waits(Some(Waiting::Queue(format!("Kafka ({error})").into())));
                        continue;
                    }
                },
            };
            let offset = message.offset();
            *next = offset + 1;
            *heard = Instant::now();
            let Some(payload) = message.payload() else { continue };
            match admit(outlet, name, offset, Payload::Borrowed(payload)) {
                Some(Admitted::Taken) => {}
                Some(Admitted::Full) | None => return Stop::Full,
                Some(Admitted::NoCredit) => {
                    held.push_back((offset, Bytes::copy_from_slice(payload)));
                    return Stop::NoCredit;
                }
            }
        }
    }

    /// Ends the fetching.
    pub(super) fn unassign(&self, consumer: &BaseConsumer<Listener>) {
        let mut list = TopicPartitionList::new();
        list.add_partition(&self.name.0, PARTITION);
        if let Err(error) = consumer.incremental_unassign(&list) {
            tracing::debug!(channel = %self.name, %error, "not unassigned");
        }
    }
}

/// Offers a message; `None` if it can't be read, which ends the channel.
fn admit(outlet: &mut Outlet, name: &PChannel, offset: i64, payload: Payload<'_>) -> Option<Admitted> {
    match outlet.admit(payload, || position(offset)) {
        Ok(admitted) => Some(admitted),
        Err(error) => {
            outlet.fail(error.context(format!("channel {name}, offset {offset}")));
            None
        }
    }
}

enum Trouble {
    Passing(KafkaError),
    Final(Error),
}

/// The first offset to read, the end of the topic, and its beginning if something was before that (otherwise -1); `None` if
/// there is no such topic.
fn find(
    consumer: &BaseConsumer<Listener>,
    name: &PChannel,
    start: &Start,
) -> Result<Option<(i64, i64, i64)>, Trouble> {
    let (low, high) = match consumer.fetch_watermarks(&name.0, PARTITION, ASK_TIMEOUT) {
        Ok(range) => range,
        Err(error) => match error.rdkafka_error_code() {
            Some(
                RDKafkaErrorCode::UnknownTopic
                | RDKafkaErrorCode::UnknownTopicOrPartition
                | RDKafkaErrorCode::UnknownPartition,
            ) => return Ok(None),
            Some(code) if is_denied(code) => return Err(Trouble::Final(denied(name, &error))),
            _ => return Err(Trouble::Passing(error)),
        },
    };
    let next = match start {
        Start::Earliest => low,
        Start::Near(ts) => {
            offset_near(consumer, name, *ts).map_err(Trouble::Passing)?.unwrap_or(high).max(low)
        }
        Start::At(position) => {
            let offset = offset_of(name, position).map_err(Trouble::Final)?;
            if !(low..high).contains(&offset) {
                return Err(Trouble::Final(gap(name, offset, low, high)));
            }
            offset
        }
    };
    // What begins with offset 0 has lost nothing.
    Ok(Some((next, high, if low > 0 { low } else { -1 })))
}

fn unassignable(name: &PChannel, why: &dyn std::fmt::Display) -> Error {
    Error::new(Kind::Internal, format!("channel {name}: librdkafka does not assign it: {why}"))
}

/// The first offset whose message was stored shortly before `ts` or later; `None` if there is none.
fn offset_near(
    consumer: &BaseConsumer<Listener>,
    name: &PChannel,
    ts: Tso,
) -> Result<Option<i64>, KafkaError> {
    let millis = i64::try_from(ts.before(CLOCK_SLACK).millis()).unwrap_or(i64::MAX);
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(&name.0, PARTITION, Offset::Offset(millis))?;
    let found = consumer.offsets_for_times(list, ASK_TIMEOUT)?;
    let offset = found.elements().first().map(|element| (element.error(), element.offset()));
    match offset {
        Some((Err(error), _)) => Err(error),
        Some((Ok(()), Offset::Offset(offset))) => Ok(Some(offset)),
        _ => Ok(None),
    }
}

fn is_denied(code: RDKafkaErrorCode) -> bool {
    matches!(code, RDKafkaErrorCode::TopicAuthorizationFailed | RDKafkaErrorCode::ClusterAuthorizationFailed)
}

fn denied(name: &PChannel, error: &KafkaError) -> Error {
    Error::new(Kind::Denied, format!("channel {name}: Kafka refuses to let the topic be read: {error}"))
        .hint("give the user the right to describe and read the topics of Milvus")
}

fn gap(name: &PChannel, asked: i64, low: i64, high: i64) -> Error {
    let reach = match (low, high) {
        (-1, -1) => "which is outside of what is kept now".to_owned(),
        _ if asked < low => format!("the topic begins at offset {low}: what was between is gone"),
        _ => format!("the topic ends at offset {high}: it is another topic now, or its end was lost"),
    };
    Error::new(Kind::Gap, format!("channel {name}: reading would go on at offset {asked}, but {reach}")).hint(
        "set the pipeline up anew on an empty target, with a longer retention of the topics (retention.ms, retention.bytes)",
    )
}

/// Milvus' form of an offset: 8 bytes, little-endian.
fn position(offset: i64) -> Position {
    Position(offset.to_le_bytes().to_vec())
}

fn offset_of(name: &PChannel, position: &Position) -> Result<i64> {
    let bytes: Option<[u8; 8]> = position.0.as_slice().try_into().ok();
    bytes.map(i64::from_le_bytes).filter(|offset| *offset >= 0).ok_or_else(|| {
        Error::new(Kind::Checkpoint, format!("channel {name}: {position:?} is no offset of Kafka")).hint(
            "the position is of another kind of queue: check type in [source.mq] and [source.positions]",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_have_milvus_own_form() {
        let name = PChannel("a".into());
        assert_eq!(position(258).0, [2, 1, 0, 0, 0, 0, 0, 0]);
        assert_eq!(offset_of(&name, &position(258)).unwrap(), 258);
        for wrong in [vec![], vec![1; 7], vec![255; 8]] {
            let error = offset_of(&name, &Position(wrong)).unwrap_err();
            assert!(error.message().contains("is no offset of Kafka"), "{error}");
        }
    }

    #[test]
    fn a_gap_names_both_numbers() {
        let name = PChannel("a".into());
        let trimmed = gap(&name, 5, 9, 20);
        assert!(
            trimmed.message().contains("offset 5") && trimmed.message().contains("offset 9"),
            "{trimmed}"
        );
        let beyond = gap(&name, 25, 9, 20);
        assert!(beyond.message().contains("offset 25") && beyond.message().contains("offset 20"), "{beyond}");
    }
}
