//! `decode`: turns messages into columns and remembers positions.
//!
//! Input: raw messages. Output: changes to `order`, and marks to `commit`.
//! Capability held: none. What moves the frontier: the input's.
//!
//! Dropped here: what a resumed channel shows again although it is applied (ts ≤ F), and messages of collections that
//! are known not to be selected. Rows of collections that are not known at all go on: the catalog may not have caught
//! up with them yet.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;

use arrow_array::Array;
use timely::dataflow::Stream;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::generic::OutputBuilder;
use timely::dataflow::operators::generic::builder_rc::OperatorBuilder;

use super::{Mark, Raw};
use crate::dataflow::shared::Shared;
use crate::error::Result;
use crate::milvus::change::{Body, Change};
use crate::milvus::channel::{PChannel, Position};
use crate::milvus::columns::{Decoder, Timestamps};
use crate::milvus::tso::Tso;
use crate::sources::{Envelope, EnvelopeKind};

/// The streams that leave the operator.
pub type Outputs<'scope> = (Stream<'scope, Tso, Vec<Change>>, Stream<'scope, Tso, Vec<Mark>>);

/// Builds the operator. `floor` is the frontier that the pipeline resumes from.
pub fn decode<'scope>(
    raws: Stream<'scope, Tso, Vec<Rc<RefCell<Vec<Raw>>>>>,
    floor: Tso,
    shared: Rc<Shared>,
) -> Outputs<'scope> {
    let mut builder = OperatorBuilder::new("decode".to_owned(), raws.scope());
    let mut input = builder.new_input(raws, Pipeline);
    let (changes_out, changes) = builder.new_output::<Vec<Change>>();
    let (marks_out, marks) = builder.new_output::<Vec<Mark>>();
    let mut changes_out = OutputBuilder::<_, timely::container::CapacityContainerBuilder<Vec<Change>>>::from(changes_out);
    let mut marks_out = OutputBuilder::<_, timely::container::CapacityContainerBuilder<Vec<Mark>>>::from(marks_out);
    builder.build(move |capabilities| {
        drop(capabilities);
        let mut decode = Decode::new(floor);
        move |_frontiers| {
            let mut changes_out = changes_out.activate();
            let mut marks_out = marks_out.activate();
            input.for_each(|cap, batches| {
                let mut changes = Vec::new();
                let mut marks = Vec::new();
                for raws in batches.drain(..) {
                    for raw in raws.borrow_mut().drain(..) {
                        let wanted = |collection| !shared.directory.is_ignored(collection);
                        if let Err(error) = decode.message(raw, wanted, &mut changes, &mut marks) {
                            shared.fail(error);
                            return;
                        }
                    }
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
}

impl Decode {
    /// For a pipeline that resumes from `floor`.
    pub fn new(floor: Tso) -> Decode {
        Decode { floor, decoder: Decoder::new(), channels: HashMap::new(), sequence: 0 }
    }

    /// Takes one message; appends what comes of it.
    pub fn message(
        &mut self,
        raw: Raw,
        wanted: impl Fn(crate::milvus::catalog::CollectionId) -> bool,
        changes: &mut Vec<Change>,
        marks: &mut Vec<Mark>,
    ) -> Result<()> {
        let (name, Envelope { position, kind }) = match raw {
            Raw::Message(name, envelope) => (name, envelope),
            Raw::End(name) => {
                let tick = self.channels.remove(&name).map_or(self.floor, |channel| channel.tick);
                marks.push(Mark { channel: name, tick, position: None });
                return Ok(());
            }
        };
        let floor = self.floor;
        let channel = self.channels.entry(name.clone()).or_default();
        let place = |error: crate::Error| error.context(format!("channel {name}, position {position:?}"));
        let before = changes.len();
        match kind {
            EnvelopeKind::Tick(tick) => {
                if tick > channel.tick {
                    channel.tick = tick;
                    channel.past_floor |= tick >= floor;
                    let position = channel.resume_after(tick, position);
                    marks.push(Mark { channel: name, tick, position: Some(position) });
                }
                return Ok(());
            }
            EnvelopeKind::Insert(payload, credit) => {
                let insert = self.decoder.insert(&payload).map_err(place)?;
                if !wanted(insert.collection) || insert.batch.num_rows() == 0 {
                    return Ok(());
                }
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
        if !channel.past_floor {
            // Between the resume position and the first tick ≥ F, what is not later than F has been applied.
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
        }
        Ok(())
    }
}

impl Channel {
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
