//! The thread that makes updates durable.

use std::sync::Arc;
use std::thread::{self, JoinHandle};

use crossbeam_channel::{Receiver, Sender};

use super::records::{RecordChange, Records, Seal};
use super::state::Update;
use crate::error::{Error, Kind, Result};

/// A place for records.
pub trait Storage: Send {
    /// Carries `changes` out, in order, all or none. When it returns they are durable.
    fn write(&mut self, changes: &[RecordChange]) -> Result<()>;
}

/// The writing half: hands updates to a thread of its own, so that no operator waits for the disk. With the last clone
/// the places that it writes to are let go.
#[derive(Clone, Debug)]
pub struct Writer(Arc<Handle>);

#[derive(Debug)]
struct Handle {
    /// `None` once the thread is to end.
    queue: Option<Sender<Request>>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.queue = None;
        if let Some(thread) = self.thread.take().filter(|other| other.thread().id() != thread::current().id())
        {
            // It ends once everything submitted is written; a panic in it has been reported by then.
            drop(thread.join());
        }
    }
}

struct Request {
    updates: Vec<Update>,
    done: Box<dyn FnOnce(Result<()>) + Send>,
}

impl Writer {
    /// Writes to all `places`, each of which holds `records` now: to the second one once the first one has it, and so on.
    pub fn start(records: &Records, places: Vec<Box<dyn Storage>>) -> Result<Writer> {
        let (queue, mut serving) = Serving::of(records, places)?;
        let thread = thread::Builder::new()
            .name("checkpoint".into())
            .spawn(move || while serving.next(true) {})
            .map_err(|cause| {
                Error::new(Kind::Internal, "can't start the checkpoint's writer").caused_by(cause)
            })?;
        Ok(Writer(Arc::new(Handle { queue: Some(queue), thread: Some(thread) })))
    }

    /// The same without a thread: whoever has the [`Serving`] decides when updates become durable.
    pub fn served_by_hand(records: &Records, places: Vec<Box<dyn Storage>>) -> Result<(Writer, Serving)> {
        let (queue, serving) = Serving::of(records, places)?;
        Ok((Writer(Arc::new(Handle { queue: Some(queue), thread: None })), serving))
    }

    /// Makes `updates` durable, together with whatever else is waiting, and then calls `done` on the writer's thread.
    /// Requests become durable in the order in which they are submitted.
    pub fn submit(&self, updates: Vec<Update>, done: impl FnOnce(Result<()>) + Send + 'static) {
        let request = Request { updates, done: Box::new(done) };
        let unsent = match &self.0.queue {
            Some(queue) => queue.send(request).err().map(|error| error.into_inner()),
            None => Some(request),
        };
        if let Some(request) = unsent {
            (request.done)(Err(Error::new(Kind::Internal, "the checkpoint's writer has ended")));
        }
    }

    /// Makes `updates` durable before it returns.
    pub fn write(&self, updates: Vec<Update>) -> Result<()> {
        let (done, wait) = crossbeam_channel::bounded(1);
        self.submit(updates, move |result| {
            // The receiver is right below and waits.
            drop(done.send(result));
        });
        wait.recv().map_err(|_| Error::new(Kind::Internal, "the checkpoint's writer has ended"))?
    }
}

/// Carries out what is submitted.
pub struct Serving {
    requests: Receiver<Request>,
    seal: Seal,
    places: Vec<Box<dyn Storage>>,
    failed: bool,
}

impl Serving {
    fn of(records: &Records, places: Vec<Box<dyn Storage>>) -> Result<(Sender<Request>, Serving)> {
        let (queue, requests) = crossbeam_channel::unbounded();
        Ok((queue, Serving { requests, seal: Seal::of(records)?, places, failed: false }))
    }

    /// Makes durable what has been submitted; with `wait`, waits until something is. Returns whether anything was, or
    /// with `wait` may still be.
    pub fn next(&mut self, wait: bool) -> bool {
        let first = if wait { self.requests.recv().ok() } else { self.requests.try_recv().ok() };
        let Some(first) = first else { return false };
        // Group commit: whatever came while the last sync ran shares the next one.
        let group: Vec<Request> = std::iter::once(first).chain(self.requests.try_iter()).collect();
        let result = if self.failed {
            // After a failed write the log's end is unknown: nothing may be promised on top of it.
            Err(Error::new(Kind::Checkpoint, "an earlier write of the checkpoint failed"))
        } else {
            self.write(group.iter().flat_map(|request| &request.updates))
        };
        self.failed |= result.is_err();
        for request in group {
            let result = result.as_ref().copied().map_err(|error| {
                let copy = Error::new(error.kind(), error.message());
                match error.hint_text() {
                    Some(hint) => copy.hint(hint),
                    None => copy,
                }
            });
            (request.done)(result);
        }
        true
    }

    fn write<'a>(&mut self, updates: impl Iterator<Item = &'a Update>) -> Result<()> {
        let mut changes = Vec::new();
        for update in updates {
            changes.extend(update.changes()?);
        }
        self.seal.seal(&mut changes)?;
        self.places.iter_mut().try_for_each(|place| place.write(&changes))
    }
}
