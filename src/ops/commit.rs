//! `commit`: makes the durable frontier durable here too.
//!
//! Inputs: `apply`'s output, of which only the frontier matters, and the marks of `decode`. Output: none.
//! Capability held: none. What moves the frontier: nothing is downstream.
//!
//! INVARIANT 2: F never goes back. It is written together with the positions to resume from, as one record set.

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use timely::dataflow::Stream;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::generic::builder_rc::OperatorBuilder;

use super::Mark;
use crate::dataflow::checkpoint::{Checkpoint, Source, Update, Writer};
use crate::dataflow::shared::Shared;
use crate::failpoint::{self, Point};
use crate::milvus::channel::{PChannel, Position};
use crate::milvus::tso::Tso;
use crate::sinks::Sink;

/// Marks kept per channel before every second one is forgotten: an older mark only means reading more again.
const MARKS: usize = 4096;

/// Where the operator records, and what.
pub struct Records {
    /// The checkpoint.
    pub writer: Writer,
    /// The revision that the source's etcd was seen at.
    pub seen: Arc<AtomicI64>,
    /// How often it records, at most.
    pub interval: Duration,
    /// Who is told what is durable.
    pub sink: Arc<dyn Sink>,
}

/// Builds the operator. `checkpoint` is what the last run left.
pub fn commit<'scope>(
    applied: Stream<'scope, Tso, Vec<()>>,
    marks: Stream<'scope, Tso, Vec<Mark>>,
    checkpoint: &Checkpoint,
    records: Records,
    shared: Rc<Shared>,
) {
    let Records { writer, seen, interval, sink } = records;
    let (floor, positions) = (checkpoint.frontier.unwrap_or(Tso::ZERO), checkpoint.positions.clone());
    let mut source = newer(checkpoint.source, seen);
    let scope = applied.scope();
    let worker = scope.worker().clone();
    let mut builder = OperatorBuilder::new("commit".to_owned(), scope);
    let info = builder.operator_info();
    let mut applied = builder.new_input(applied, Pipeline);
    let mut marks = builder.new_input(marks, Pipeline);
    builder.build(move |_capabilities| {
        let activator = worker.activator_for(Rc::clone(&info.address));
        shared.set_commit_activator(worker.activator_for(Rc::clone(&info.address)));
        let mut book = Book::new(floor, positions);
        let mut written = floor;
        let mut written_at: Option<Instant> = None;
        move |frontiers| {
            applied.for_each(|_cap, _nothing| {});
            marks.for_each(|_cap, batch| batch.drain(..).for_each(|mark| book.note(mark)));
            // An empty frontier means that the graph is being taken down; it says nothing of the target.
            let Some(frontier) = frontiers[0].frontier().first().copied() else { return };
            if frontier <= written {
                return;
            }
            shared.progress.acknowledged(frontier);
            let now = shared.world.now();
            let since = written_at.map_or(interval, |at| now.saturating_duration_since(at));
            if since < interval && !shared.is_stopping() {
                activator.activate_after(interval.saturating_sub(since));
                return;
            }
            written = frontier;
            written_at = Some(now);
            let positions = book.positions_at(frontier);
            let progress = Arc::clone(&shared.progress);
            let failure = shared.failure();
            let sink = Arc::clone(&sink);
            shared.set_committing(frontier);
            failpoint::pass(Point::CommitBefore);
            let released = shared.released();
            // What the source had come to first: the frontier must not be later than that.
            let updates =
                source().into_iter().chain([Update::Frontier(frontier, positions.clone())]).collect();
            writer.submit(updates, move |result| match result {
                Ok(()) => {
                    failpoint::pass(Point::CommitDurable);
                    *released.lock().unwrap_or_else(PoisonError::into_inner) = Some(positions);
                    sink.committed(frontier);
                    progress.committed(frontier);
                }
                Err(error) => failure.set(error),
            });
        }
    });
}

/// What is to be recorded of the source, whenever its etcd was seen at a higher revision than before.
fn newer(mut source: Option<Source>, seen: Arc<AtomicI64>) -> impl FnMut() -> Option<Update> {
    move || {
        let source = source.as_mut()?;
        let revision = seen.load(Ordering::Relaxed);
        (revision > source.revision).then(|| {
            source.revision = revision;
            Update::Source(*source)
        })
    }
}

/// Which position belongs to which frontier.
struct Book {
    channels: BTreeMap<PChannel, VecDeque<(Tso, Option<Position>)>>,
}

impl Book {
    fn new(floor: Tso, positions: BTreeMap<PChannel, Position>) -> Book {
        let channels = positions
            .into_iter()
            .map(|(channel, position)| (channel, VecDeque::from([(floor, Some(position))])));
        Book { channels: channels.collect() }
    }

    fn note(&mut self, mark: Mark) {
        let marks = self.channels.entry(mark.channel).or_default();
        marks.push_back((mark.tick, mark.position));
        if marks.len() > MARKS {
            let mut keep = false;
            marks.retain(|_| {
                keep = !keep;
                keep
            });
        }
    }

    /// Where to read each channel from to see everything later than `frontier`.
    fn positions_at(&mut self, frontier: Tso) -> BTreeMap<PChannel, Position> {
        let mut positions = BTreeMap::new();
        self.channels.retain(|channel, marks| {
            while marks.len() > 1 && marks[1].0 <= frontier {
                marks.pop_front();
            }
            match marks.front() {
                // A retired channel is forgotten once everything of it is behind.
                Some((tick, None)) => *tick > frontier,
                // Its first tick is later than F: behind that tick's position nothing of the time between is found, so it
                // has none yet, and a start begins it where it was begun this time.
                Some((tick, Some(_))) if *tick > frontier => true,
                Some((_, Some(position))) => {
                    positions.insert(channel.clone(), position.clone());
                    true
                }
                None => false,
            }
        });
        positions
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(channel: &str, tick: u64, position: Option<u8>) -> Mark {
        let position = position.map(|byte| Position(vec![byte]));
        Mark { channel: PChannel(channel.into()), tick: Tso(tick), position }
    }

    fn at(book: &mut Book, frontier: u64) -> Vec<(String, u8)> {
        let positions = book.positions_at(Tso(frontier));
        positions.into_iter().map(|(channel, position)| (channel.to_string(), position.0[0])).collect()
    }

    #[test]
    fn a_channel_resumes_from_its_last_mark_at_or_before_the_frontier() {
        let old = BTreeMap::from([(PChannel("a".into()), Position(vec![1]))]);
        let mut book = Book::new(Tso(10), old);
        book.note(mark("a", 20, Some(2)));
        book.note(mark("a", 30, Some(3)));
        book.note(mark("b", 25, Some(7)));
        assert_eq!(
            at(&mut book, 15),
            [("a".into(), 1)],
            "what b has between 15 and 25 is before its first tick"
        );
        assert_eq!(at(&mut book, 29), [("a".into(), 2), ("b".into(), 7)]);
        assert_eq!(at(&mut book, 30), [("a".into(), 3), ("b".into(), 7)]);
    }

    #[test]
    fn a_retired_channel_is_forgotten_once_it_is_behind() {
        let mut book = Book::new(Tso(0), BTreeMap::new());
        book.note(mark("a", 5, Some(1)));
        book.note(mark("a", 20, Some(2)));
        book.note(mark("a", 20, None));
        assert_eq!(at(&mut book, 10), [("a".into(), 1)]);
        assert_eq!(at(&mut book, 20), []);
    }

    #[test]
    fn thinning_keeps_the_oldest_mark() {
        let mut book = Book::new(Tso(0), BTreeMap::new());
        for tick in 1..=10_000 {
            book.note(mark("a", tick, Some(u8::from(tick > 1))));
        }
        assert!(book.channels.values().all(|marks| marks.len() <= MARKS + 1));
        assert_eq!(at(&mut book, 1), [("a".into(), 0)]);
    }
}
