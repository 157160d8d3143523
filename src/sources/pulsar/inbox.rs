//! Where a connection puts what a broker sends to one consumer.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pulsar::proto::MessageIdData;
use tokio::sync::Notify;

use super::trouble::{Sort, Trouble};

/// What an entry costs beside its payload.
const OVERHEAD: usize = 200;

/// An entry as the broker has it.
#[derive(Debug)]
pub(super) struct Frame {
    pub(super) id: MessageIdData,
    /// When its producer sent it, in Unix milliseconds by the producer's clock.
    pub(super) published: u64,
    pub(super) compression: i32,
    pub(super) uncompressed: u32,
    /// How many messages are in it, if it was written as a batch.
    pub(super) batch: Option<i32>,
    pub(super) payload: Vec<u8>,
}

impl Frame {
    pub(super) fn bytes(&self) -> usize {
        self.payload.len() + OVERHEAD
    }
}

/// A queue between a connection and a consumer. It is bounded by what the consumer permits the broker to send; `limit`
/// is for when that was an error of judgement.
pub(super) struct Inbox {
    state: Mutex<State>,
    limit: usize,
    wake: Arc<Notify>,
}

#[derive(Default)]
struct State {
    frames: VecDeque<Frame>,
    bytes: usize,
    end: Option<Trouble>,
}

/// What is next.
pub(super) enum Next {
    Frame(Frame),
    Nothing,
    /// Nothing more will come.
    End(Trouble),
}

impl Inbox {
    pub(super) fn new(limit: usize, wake: Arc<Notify>) -> Inbox {
        Inbox { state: Mutex::default(), limit, wake }
    }

    /// Puts `frame` at the end. `false` if the inbox has ended, or does so because this is too much: then the consumer
    /// gets what came before.
    pub(super) fn push(&self, frame: Frame) -> bool {
        let mut state = self.lock();
        if state.end.is_some() {
            return false;
        }
        let fits = state.frames.is_empty() || state.bytes + frame.bytes() <= self.limit;
        if fits {
            state.bytes += frame.bytes();
            state.frames.push_back(frame);
        } else {
            state.end = Some(Trouble::new(Sort::TooMuch, "more was sent than there is room for"));
        }
        drop(state);
        self.wake.notify_one();
        fits
    }

    /// Nothing more will come.
    pub(super) fn end(&self, trouble: Trouble) {
        self.lock().end.get_or_insert(trouble);
        self.wake.notify_one();
    }

    /// Takes the next frame.
    pub(super) fn pop(&self) -> Next {
        let mut state = self.lock();
        match state.frames.pop_front() {
            Some(frame) => {
                state.bytes -= frame.bytes();
                Next::Frame(frame)
            }
            None => state.end.clone().map_or(Next::Nothing, Next::End),
        }
    }

    /// Whether nothing more will come, be it that something waits.
    pub(super) fn has_ended(&self) -> bool {
        self.lock().end.is_some()
    }

    /// Bytes that wait.
    pub(super) fn bytes(&self) -> usize {
        self.lock().bytes
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(size: usize) -> Frame {
        Frame {
            id: MessageIdData::default(),
            published: 0,
            compression: 0,
            uncompressed: 0,
            batch: None,
            payload: vec![0; size],
        }
    }

    #[test]
    fn too_much_ends_it_behind_what_came_before() {
        let inbox = Inbox::new(5000, Arc::default());
        assert!(inbox.push(frame(9000)), "one always fits, however large");
        assert!(!inbox.push(frame(1)));
        assert!(!inbox.push(frame(1)), "after the end");
        assert!(matches!(inbox.pop(), Next::Frame(_)));
        assert_eq!(inbox.bytes(), 0);
        assert!(matches!(inbox.pop(), Next::End(_)));
        assert!(!inbox.push(frame(1)), "what is missing would be a gap");
    }
}
