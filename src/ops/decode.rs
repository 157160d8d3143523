//! `decode`: turns messages into columns and remembers positions.
//!
//! Input: raw messages. Output: changes to `order`, and marks to `commit`.
//! Capability held: none. What moves the frontier: the input's.
//!
//! Dropped here: what a resumed channel shows again although it is applied (ts ≤ F), and messages of collections that
//! are known not to be selected. Rows of collections that are not known at all go on: the catalog may not have caught
//! up with them yet.

use std::collections::{HashMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;

use arrow_array::Array;
use timely::dataflow::Stream;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::generic::OutputBuilder;
use timely::dataflow::operators::generic::builder_rc::OperatorBuilder;

use super::{Mark, Parcel, Raw};
use crate::dataflow::progress::Amount;
use crate::dataflow::shared::Shared;
use crate::error::Result;
use crate::milvus::catalog::CollectionId;
use crate::milvus::change::{Body, Change, Message};
use crate::milvus::channel::{PChannel, Position, VChannel};
use crate::milvus::columns::{Decoder, Timestamps};
use crate::milvus::tso::Tso;
use crate::sources::{Envelope, EnvelopeKind};

/// The streams that leave the operator.
pub type Outputs<'scope> = (Stream<'scope, Tso, Vec<Change>>, Stream<'scope, Tso, Vec<Mark>>);

/// Builds the operator. `floor` is the frontier that the pipeline resumes from; of the vchannels in `floors`, changes up
/// to the time given there are not wanted. With `whole`, messages stay as they are.
pub fn decode<'scope>(
    raws: Stream<'scope, Tso, Vec<Parcel<Vec<Raw>>>>,
    floor: Tso,
    floors: HashMap<VChannel, Tso>,
    whole: bool,
    shared: Rc<Shared>,
) -> Outputs<'scope> {
    let mut builder = OperatorBuilder::new("decode".to_owned(), raws.scope());
    let mut input = builder.new_input(raws, Pipeline);
    let (changes_out, changes) = builder.new_output::<Vec<Change>>();
    let (marks_out, marks) = builder.new_output::<Vec<Mark>>();
    let mut changes_out =
        OutputBuilder::<_, timely::container::CapacityContainerBuilder<Vec<Change>>>::from(changes_out);
    let mut marks_out =
        OutputBuilder::<_, timely::container::CapacityContainerBuilder<Vec<Mark>>>::from(marks_out);
    builder.build(move |capabilities| {
        drop(capabilities);
        let mut decode = Decode::new(floor, floors, whole);
        move |_frontiers| {
            let mut changes_out = changes_out.activate();
            let mut marks_out = marks_out.activate();
            input.for_each(|cap, batches| {
                let mut decoded = Decoded::default();
                for raws in batches.drain(..) {
                    for raw in raws.borrow_mut().drain(..) {
                        let wanted = |collection| !shared.directory.is_ignored(collection);
                        if let Err(error) = decode.take(raw, wanted, &mut decoded) {
                            shared.fail(error);
                            return;
                        }
                    }
                }
                let Decoded { mut changes, mut marks, heads, received } = decoded;
                for (channel, amounts) in &received {
                    shared.progress.received(channel, amounts);
                }
                for (channel, tick) in heads {
                    shared.progress.head_passed(&channel, tick);
                }
                if !changes.is_empty() {
                    changes_out.session(&cap).give_container(&mut changes);
                }
                if !marks.is_empty() {
                    marks_out.session(&cap).give_container(&mut marks);
                }
            });
        }
    });
    (changes, marks)
}

/// The logic of the operator.
pub struct Decode {
    floor: Tso,
    floors: HashMap<VChannel, Tso>,
    whole: bool,
    decoder: Decoder,
    channels: HashMap<PChannel, Channel>,
    sequence: u64,
}

#[derive(Default)]
struct Channel {
    tick: Tso,
    /// Whether a tick ≥ floor has been seen, after which every message is new.
    past_floor: bool,
    /// Messages since the last tick, and older ones that are later than it: where they are and when.
    early: VecDeque<(Position, Tso)>,
    /// All that was in the topic at the start has been read; it is complete with the first tick from here on.
    head: Option<Tso>,
}

/// What comes of messages.
#[derive(Debug, Default)]
pub struct Decoded {
    /// Rows and keys.
    pub changes: Vec<Change>,
    /// Positions.
    pub marks: Vec<Mark>,
    /// Channels of which everything is complete that was in their topics at the start, each with the tick that said so.
    pub heads: Vec<(PChannel, Tso)>,
    /// How much of it came, by channel.
    pub received: HashMap<PChannel, Vec<(CollectionId, Amount)>>,
}

impl Decode {
    /// For a pipeline that resumes from `floor`, and takes of single vchannels only what is later than `floors` says.
    /// With `whole`, messages are not taken apart.
    pub fn new(floor: Tso, floors: HashMap<VChannel, Tso>, whole: bool) -> Decode {
        Decode { floor, floors, whole, decoder: Decoder::new(), channels: HashMap::new(), sequence: 0 }
    }

    /// Takes what came from a channel; appends what comes of it.
    pub fn take(
        &mut self,
        raw: Raw,
        wanted: impl Fn(CollectionId) -> bool,
        decoded: &mut Decoded,
    ) -> Result<()> {
        let Decoded { changes, marks, heads, received } = decoded;
        let (name, Envelope { position, kind }) = match raw {
            Raw::Message(name, envelope) => (name, envelope),
            Raw::Head(name) => {
                let channel = self.channels.entry(name.clone()).or_default();
                let latest = channel.early.iter().map(|(_, ts)| *ts).max().unwrap_or(Tso::ZERO);
                channel.head = Some(latest);
                heads.extend(channel.passed_head().map(|tick| (name, tick)));
                return Ok(());
            }
            Raw::End(name) => {
                let tick = self.channels.remove(&name).map_or(self.floor, |channel| channel.tick);
                heads.push((name.clone(), tick));
                marks.push(Mark { channel: name, tick, position: None });
                return Ok(());
            }
        };
        let floor = self.floor;
        let channel = self.channels.entry(name.clone()).or_default();
        let place = |error: crate::Error| error.context(format!("channel {name}, position {position:?}"));
        let before = changes.len();
        let (message_bytes, message_rows);
        match kind {
            EnvelopeKind::Tick(tick) => {
                if tick > channel.tick {
                    channel.tick = tick;
                    channel.past_floor |= tick >= floor;
                    let position = channel.resume_after(tick, position);
                    heads.extend(channel.passed_head().map(|tick| (name.clone(), tick)));
                    marks.push(Mark { channel: name, tick, position: Some(position) });
                }
                return Ok(());
            }
            // Only a source that was asked for them hands these over.
            EnvelopeKind::Other(..) => return Ok(()),
            kind @ (EnvelopeKind::Insert(..) | EnvelopeKind::Delete(..)) if self.whole => {
                let is_insert = matches!(kind, EnvelopeKind::Insert(..));
                let (EnvelopeKind::Insert(payload, credit) | EnvelopeKind::Delete(payload, credit)) = kind
                else {
                    return Ok(());
                };
                let label = self.decoder.label(&payload).map_err(place)?;
                if !wanted(label.collection) || label.rows == 0 {
                    return Ok(());
                }
                (message_bytes, message_rows) = (payload.len(), label.rows);
                self.sequence += 1;
                changes.push(Change {
                    ts: label.timestamps.max(),
                    sequence: self.sequence,
                    message_id: label.message_id,
                    part: 0,
                    vchannel: label.vchannel,
                    collection: label.collection,
                    partition: label.partition,
                    body: Body::Message(Message { is_insert, rows: label.rows, payload }),
                    credit: Arc::new(credit),
                });
            }
            EnvelopeKind::Insert(payload, credit) => {
                let insert = self.decoder.insert(&payload).map_err(place)?;
                if !wanted(insert.collection) || insert.batch.num_rows() == 0 {
                    return Ok(());
                }
                (message_bytes, message_rows) = (payload.len(), insert.batch.num_rows());
                let credit = Arc::new(credit);
                for (ts, start, length) in runs(&insert.timestamps, insert.batch.num_rows()) {
                    let batch = insert.batch.slice(start, length);
                    self.sequence += 1;
                    changes.push(Change {
                        ts,
                        sequence: self.sequence,
                        message_id: insert.message_id,
                        part: start,
                        vchannel: insert.vchannel.clone(),
                        collection: insert.collection,
                        partition: insert.partition,
                        body: Body::Insert(batch),
                        credit: Arc::clone(&credit),
                    });
                }
            }
            EnvelopeKind::Delete(payload, credit) => {
                let delete = self.decoder.delete(&payload).map_err(place)?;
                if !wanted(delete.collection) || delete.keys.is_empty() {
                    return Ok(());
                }
                (message_bytes, message_rows) = (payload.len(), delete.keys.len());
                let credit = Arc::new(credit);
                for (ts, start, length) in runs(&delete.timestamps, delete.keys.len()) {
                    self.sequence += 1;
                    changes.push(Change {
                        ts,
                        sequence: self.sequence,
                        message_id: delete.message_id,
                        part: start,
                        vchannel: delete.vchannel.clone(),
                        collection: delete.collection,
                        partition: delete.partition,
                        body: Body::Delete(delete.keys.slice(start, length)),
                        credit: Arc::clone(&credit),
                    });
                }
            }
        }
        // Between the resume position and the first tick ≥ F, what is not later than F has been applied.
        let applied = if channel.past_floor { Tso::ZERO } else { floor };
        // A message is of one vchannel.
        let unwanted = match changes.get(before) {
            Some(change) if !self.floors.is_empty() => self.floors.get(&change.vchannel).copied(),
            _ => None,
        };
        let floor = applied.max(unwanted.unwrap_or(Tso::ZERO));
        if floor > Tso::ZERO {
            let mut kept = before;
            for index in before..changes.len() {
                if changes[index].ts > floor {
                    changes.swap(kept, index);
                    kept += 1;
                }
            }
            changes.truncate(kept);
        }
        if let Some(latest) = changes[before..].iter().map(|change| change.ts).max() {
            if latest <= channel.tick {
                tracing::warn!(
                    channel = %name, ?position, ts = %latest, tick = %channel.tick,
                    "a message came after a tick that promised it would not; it is applied all the same"
                );
            }
            channel.early.push_back((position, latest));
            let rows: usize = changes[before..].iter().map(Change::row_count).sum();
            let amounts = received.entry(name.clone()).or_default();
            amounts.extend(changes.get(before).map(|change| {
                let bytes = message_bytes * rows / message_rows.max(1);
                (change.collection, Amount { rows: rows as u64, bytes: bytes as u64 })
            }));
        }
        Ok(())
    }
}

impl Channel {
    /// The tick by which everything is complete that was in the topic at the start, the first time it is known.
    fn passed_head(&mut self) -> Option<Tso> {
        let passed = self.head.is_some_and(|latest| self.tick > Tso::ZERO && self.tick >= latest);
        passed.then(|| self.head = None).map(|()| self.tick)
    }

    /// Where to read from to see everything later than `tick`, which stands at `position`.
    fn resume_after(&mut self, tick: Tso, position: Position) -> Position {
        self.early.retain(|(_, ts)| *ts > tick);
        self.early.front().map_or(position, |(earliest, _)| earliest.clone())
    }
}

/// Runs of rows with one timestamp: time, first row, number of rows.
fn runs(timestamps: &Timestamps, rows: usize) -> Vec<(Tso, usize, usize)> {
    match timestamps {
        Timestamps::Same(ts) => vec![(*ts, 0, rows)],
        Timestamps::Each(all) => {
            let mut runs: Vec<(Tso, usize, usize)> = Vec::new();
            for (row, ts) in all.iter().enumerate() {
                match runs.last_mut() {
                    Some((last, _, length)) if last == ts => *length += 1,
                    _ => runs.push((*ts, row, 1)),
                }
            }
            runs
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use prost::Message;

    use super::*;
    use crate::dataflow::credits::Credits;
    use crate::milvus::catalog::PartitionId;
    use crate::milvus::proto::{common, msg, schema};

    const CHANNEL: &str = "by-dev-rootcoord-dml_0";

    struct Feed {
        decode: Decode,
        credits: Arc<Credits>,
        position: u8,
        decoded: Decoded,
    }

    impl Feed {
        fn resuming_from(floor: u64) -> Feed {
            Feed {
                decode: Decode::new(
                    Tso(floor),
                    HashMap::from([(VChannel(format!("{CHANNEL}_55v0").into()), Tso(40))]),
                    false,
                ),
                credits: Credits::new(1 << 20),
                position: 0,
                decoded: Decoded::default(),
            }
        }

        fn send(&mut self, kind: EnvelopeKind) -> Result<Vec<(u64, i64)>> {
            self.position += 1;
            let envelope = Envelope { position: Position(vec![self.position]), kind };
            self.take(Raw::Message(PChannel(CHANNEL.into()), envelope))?;
            let changes = std::mem::take(&mut self.decoded.changes);
            Ok(changes.iter().map(|change| (change.ts.0, change.message_id)).collect())
        }

        fn take(&mut self, raw: Raw) -> Result<()> {
            self.decode.take(raw, |id| id != CollectionId(666), &mut self.decoded)
        }

        fn tick(&mut self, tick: u64) -> Option<u8> {
            let before = self.decoded.marks.len();
            assert_eq!(self.send(EnvelopeKind::Tick(Tso(tick))).unwrap(), []);
            self.decoded.marks.get(before).map(|mark| mark.position.as_ref().unwrap().0[0])
        }

        fn delete(&mut self, collection: i64, timestamps: &[u64]) -> Vec<(u64, i64)> {
            let message = delete_message(collection, timestamps);
            let credit = self.credits.try_take(&PChannel(CHANNEL.into()), 100).unwrap();
            self.send(EnvelopeKind::Delete(Bytes::from(message), credit)).unwrap()
        }
    }

    fn delete_message(collection: i64, timestamps: &[u64]) -> Vec<u8> {
        let keys = schema::LongArray { data: (0..).take(timestamps.len()).collect() };
        let message = msg::DeleteRequest {
            base: Some(common::MsgBase { msg_type: 401, msg_id: 9, ..Default::default() }),
            shard_name: format!("{CHANNEL}_{collection}v0"),
            collection_id: collection,
            partition_id: -1,
            timestamps: timestamps.to_vec(),
            num_rows: i64::try_from(timestamps.len()).unwrap(),
            primary_keys: Some(schema::IDs { id_field: Some(schema::i_ds::IdField::IntId(keys)) }),
            ..Default::default()
        };
        message.encode_to_vec()
    }

    #[test]
    fn for_a_standby_a_message_stays_whole_at_the_latest_of_its_times() {
        let mut feed = Feed::resuming_from(0);
        feed.decode.whole = true;
        let payload = Bytes::from(delete_message(7, &[5, 8, 6]));
        let credit = feed.credits.try_take(&PChannel(CHANNEL.into()), 100).unwrap();
        let kind = EnvelopeKind::Delete(payload.clone(), credit);
        feed.take(Raw::Message(PChannel(CHANNEL.into()), Envelope { position: Position(vec![1]), kind }))
            .unwrap();
        let changes = std::mem::take(&mut feed.decoded.changes);
        let [change] = &*changes else { panic!("{changes:?}") };
        assert_eq!((change.ts, change.message_id, change.partition), (Tso(8), 9, PartitionId::ALL));
        let Body::Message(message) = &change.body else { panic!("{change:?}") };
        assert_eq!((message.is_insert, message.rows, &message.payload), (false, 3, &payload));
        assert_eq!(feed.delete(666, &[9]), [], "what nobody wants is dropped all the same");
        feed.take(Raw::Message(
            PChannel(CHANNEL.into()),
            Envelope { position: Position(vec![3]), kind: EnvelopeKind::Tick(Tso(7)) },
        ))
        .unwrap();
        assert_eq!(feed.decoded.marks[0].position, Some(Position(vec![1])), "it is not covered by that tick");
    }

    #[test]
    fn a_tick_is_resumed_from_the_earliest_message_that_is_later_than_it() {
        let mut feed = Feed::resuming_from(0);
        feed.delete(7, &[15]); // at 1
        feed.delete(7, &[35]); // at 2: ahead of the next two ticks
        assert_eq!(feed.tick(20), Some(2));
        feed.delete(7, &[25]); // at 4
        assert_eq!(feed.tick(30), Some(2));
        assert_eq!(feed.tick(40), Some(6), "nothing is left over: the tick itself");
    }

    #[test]
    fn a_head_is_passed_once_a_tick_covers_every_row_before_it() {
        let mut feed = Feed::resuming_from(0);
        feed.delete(7, &[25]);
        feed.tick(20);
        feed.take(Raw::Head(PChannel(CHANNEL.into()))).unwrap();
        assert_eq!(feed.decoded.heads, [], "a row before the head is later than the last tick");
        feed.tick(24);
        assert_eq!(feed.decoded.heads, []);
        feed.tick(30);
        feed.tick(31);
        assert_eq!(feed.decoded.heads, [(PChannel(CHANNEL.into()), Tso(30))]);
    }

    #[test]
    fn repeated_and_backward_ticks_say_nothing() {
        let mut feed = Feed::resuming_from(0);
        assert_eq!(feed.tick(20), Some(1));
        assert_eq!(feed.tick(20), None);
        assert_eq!(feed.tick(10), None);
        assert_eq!(feed.tick(21), Some(4));
    }

    #[test]
    fn what_was_applied_before_is_dropped_until_the_first_tick_that_is_new() {
        let mut feed = Feed::resuming_from(30);
        assert_eq!(feed.delete(7, &[25]), []);
        assert_eq!(feed.delete(7, &[35]), [(35, 9)]);
        assert_eq!(feed.delete(7, &[30, 31]), [(31, 9)]);
        feed.tick(30);
        assert_eq!(feed.delete(7, &[29]), [(29, 9)], "a late message is never lost");
        assert_eq!(feed.credits.held(), 0, "nobody keeps these changes, so their credit is back");
    }

    #[test]
    fn a_vchannel_with_a_position_of_its_own_begins_after_its_time() {
        let mut feed = Feed::resuming_from(0);
        feed.tick(10);
        assert_eq!(feed.delete(55, &[39, 40, 41]), [(41, 9)]);
        feed.tick(45);
        assert_eq!(feed.delete(55, &[40]), [], "also after a tick: it is a matter of what is wanted");
        assert_eq!(feed.delete(7, &[40]), [(40, 9)], "other vchannels have none");
    }

    #[test]
    fn collections_that_nobody_wants_are_dropped_and_unknown_ones_kept() {
        let mut feed = Feed::resuming_from(0);
        assert_eq!(feed.delete(666, &[5]), []);
        assert_eq!(feed.delete(8, &[5]), [(5, 9)]);
    }

    #[test]
    fn rows_of_different_times_become_changes_of_their_own() {
        let mut feed = Feed::resuming_from(0);
        assert_eq!(feed.delete(7, &[5, 5, 6, 5]), [(5, 9), (6, 9), (5, 9)]);
    }

    #[test]
    fn bytes_that_make_no_sense_are_an_error_that_says_where() {
        let mut feed = Feed::resuming_from(0);
        let credit = feed.credits.try_take(&PChannel(CHANNEL.into()), 1).unwrap();
        let error = feed.send(EnvelopeKind::Insert(Bytes::from_static(&[0x0a, 0xff]), credit)).unwrap_err();
        assert_eq!(error.kind(), crate::Kind::Corrupt);
        assert!(error.message().starts_with("channel by-dev-rootcoord-dml_0, position [01]: "), "{error}");
    }
}
