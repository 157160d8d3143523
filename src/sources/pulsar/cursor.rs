//! Which of the messages that arrive is the next one, and whether something is missing before it.

use std::time::Duration;

use super::consumer::Begin;
use super::id::{Entry, MessageId};
use crate::error::{Error, Kind};
use crate::milvus::channel::PChannel;
use crate::milvus::tso::Tso;
use crate::sources::CLOCK_SLACK;

/// By how much a place near a time is looked for too early: first allowing for whole seconds and a little difference
/// of this machine's clock to the brokers', then for much more. What is left after that is the beginning of the topic.
const MARGINS: [Duration; 2] = [Duration::from_secs(3), Duration::from_secs(600)];

/// A message that was published within this time is at the end of its topic, if nothing comes after it.
const LIVE_MILLIS: u64 = 2000;

/// The place in a topic.
#[derive(Clone, Debug)]
pub(super) struct Cursor {
    aim: Aim,
    /// When the last entry that was taken was published.
    published: u64,
    /// All that the broker had was taken, and it was new.
    live: bool,
    /// Nothing has come yet since the consumer was opened.
    fresh: bool,
    /// This consumer began with the last entry that was taken: it was still there.
    confirmed: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Aim {
    Earliest,
    /// The first entry that was published at or after this Unix millisecond.
    Near {
        since: u64,
        attempt: usize,
        found: Option<Entry>,
    },
    At(MessageId),
    /// What comes after this entry, all of whose messages were taken.
    After(Entry),
}

/// What to do with an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is the next one. (Of its messages, some may have to be passed over: [`Cursor::skips`].)
    Take,
    /// It was taken before.
    Skip,
    /// Open a new consumer, to see whether this is the next one.
    Reopen,
    /// What should have come is not there any more.
    Gap { wanted: Entry },
}

impl Cursor {
    pub(super) fn earliest() -> Cursor {
        Cursor::new(Aim::Earliest)
    }

    pub(super) fn near(ts: Tso) -> Cursor {
        Cursor::new(Aim::Near { since: ts.before(CLOCK_SLACK).millis(), attempt: 0, found: None })
    }

    pub(super) fn at(id: MessageId) -> Cursor {
        Cursor::new(Aim::At(id))
    }

    fn new(aim: Aim) -> Cursor {
        Cursor { aim, published: 0, live: false, fresh: true, confirmed: false }
    }

    /// Where a consumer has to begin. `now` is the time in Unix milliseconds.
    ///
    /// The last entry that was taken is read once more: if it comes, nothing can be missing before what follows.
    pub(super) fn begin(&mut self, now: u64) -> Begin {
        self.fresh = true;
        self.confirmed = false;
        self.live = false;
        match &self.aim {
            Aim::Earliest => Begin::Earliest,
            Aim::Near { since, attempt, .. } => match MARGINS.get(*attempt) {
                Some(margin) => Begin::Ago(Duration::from_millis(now.saturating_sub(*since)) + *margin),
                None => Begin::Earliest,
            },
            Aim::At(id) => Begin::With(id.place),
            Aim::After(entry) => Begin::With(*entry),
        }
    }

    /// The entry that has to be there.
    pub(super) fn needed(&self) -> Option<Entry> {
        match &self.aim {
            Aim::At(id) => Some(id.place),
            Aim::After(entry) => Some(*entry),
            _ => None,
        }
    }

    /// The last entry that was taken.
    pub(super) fn taken(&self) -> Option<Entry> {
        if let Aim::After(entry) = self.aim { Some(entry) } else { None }
    }

    /// Whether it looks for a time and has come to begin with the first message that is left.
    pub(super) fn is_at_first(&self) -> bool {
        matches!(self.aim, Aim::Near { attempt, .. } if attempt >= MARGINS.len())
    }

    /// Judges an entry that has arrived, which was published at a Unix millisecond.
    pub(super) fn judge(&mut self, place: Entry, published: u64) -> Verdict {
        match &mut self.aim {
            Aim::Earliest => Verdict::Take,
            Aim::Near { since, attempt, found } => {
                // Something older came first, or a wider search has found nothing more, or all was searched.
                if published <= *since || *found == Some(place) || *attempt >= MARGINS.len() {
                    return Verdict::Take;
                }
                *found = Some(place);
                *attempt += 1;
                Verdict::Reopen
            }
            Aim::At(id) if place < id.place => Verdict::Skip,
            Aim::At(id) if place > id.place => Verdict::Gap { wanted: id.place },
            Aim::At(_) => Verdict::Take,
            Aim::After(last) if place < *last => Verdict::Skip,
            Aim::After(last) if place == *last => {
                self.confirmed |= self.fresh;
                self.fresh = false;
                Verdict::Skip
            }
            Aim::After(last) if self.fresh => Verdict::Gap { wanted: *last },
            // A broker that finds a ledger deleted goes on with the next one, without a word. If the old one is still
            // there now, it was there when the broker left it. Who waits at the end is sent everything as it is
            // written, and need not ask: without retention, the old ledger may be gone already.
            Aim::After(last) if place.ledger != last.ledger && !self.confirmed && !self.live => {
                Verdict::Reopen
            }
            Aim::After(_) => Verdict::Take,
        }
    }

    /// Whether the message at `batch` of an entry that is to be taken comes before what was asked for.
    pub(super) fn skips(&self, batch: i32) -> bool {
        matches!(&self.aim, Aim::At(id) if id.is_after(batch))
    }

    /// All messages of the entry were taken.
    pub(super) fn pass(&mut self, place: Entry, published: u64) {
        self.aim = Aim::After(place);
        self.published = published;
        self.live = false;
        self.fresh = false;
        self.confirmed = false;
    }

    /// Nothing more has come, though it may. `now` is the time in Unix milliseconds.
    pub(super) fn wait(&mut self, now: u64) {
        self.live |= self.published + LIVE_MILLIS > now && !self.fresh;
    }
}

/// The error for a message that is gone; `first` is what is there instead.
pub(super) fn gap(channel: &PChannel, wanted: Entry, first: Entry) -> Error {
    lost(channel, wanted, format!("the first that is still there is {first}: what was between is gone"))
}

/// The error for a message beyond the end of the topic.
pub(super) fn beyond(channel: &PChannel, wanted: Entry, last: Option<Entry>) -> Error {
    let end = last.map_or("the topic has none".to_owned(), |last| format!("the topic ends with {last}"));
    lost(channel, wanted, format!("{end}: it is another topic now, or what was there is gone"))
}

fn lost(channel: &PChannel, wanted: Entry, but: String) -> Error {
    let message = format!("channel {channel}: reading would go on at message {wanted}, but {but}");
    Error::new(Kind::Gap, message).hint(
        "set the pipeline up anew on an empty target; subscription = true in [source.mq] makes the brokers keep what is \
         not yet there, and so does a longer retention of the namespace",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn e(ledger: u64, entry: u64) -> Entry {
        Entry { ledger, entry }
    }

    fn id(ledger: u64, entry: u64, batch: i32) -> MessageId {
        MessageId { place: e(ledger, entry), partition: -1, batch }
    }

    fn opened(mut cursor: Cursor) -> Cursor {
        cursor.begin(0);
        cursor
    }

    fn take(cursor: &mut Cursor, place: Entry) {
        assert_eq!(cursor.judge(place, 0), Verdict::Take, "{place}");
        cursor.pass(place, 0);
    }

    #[test]
    fn the_message_asked_for_has_to_come_first() {
        let mut cursor = Cursor::at(id(5, 3, 2));
        assert_eq!(cursor.begin(0), Begin::With(e(5, 3)));
        assert_eq!(cursor.judge(e(5, 4), 0), Verdict::Gap { wanted: e(5, 3) });
        assert_eq!(cursor.judge(e(9, 0), 0), Verdict::Gap { wanted: e(5, 3) });
        assert_eq!(cursor.judge(e(5, 2), 0), Verdict::Skip);
        assert_eq!(cursor.judge(e(5, 3), 0), Verdict::Take);
        assert!(cursor.skips(1) && !cursor.skips(2) && !cursor.skips(3));
        cursor.pass(e(5, 3), 0);
        assert!(!cursor.skips(0));
    }

    #[test]
    fn a_new_consumer_goes_on_behind_what_was_taken() {
        let mut cursor = opened(Cursor::earliest());
        take(&mut cursor, e(5, 0));
        take(&mut cursor, e(5, 1));
        assert_eq!(cursor.judge(e(5, 1), 0), Verdict::Skip, "sent again");
        assert_eq!(cursor.begin(0), Begin::With(e(5, 1)));
        assert_eq!(cursor.judge(e(5, 1), 0), Verdict::Skip);
        take(&mut cursor, e(5, 2));
        assert_eq!(cursor.begin(0), Begin::With(e(5, 2)));
        assert_eq!(cursor.judge(e(5, 3), 0), Verdict::Gap { wanted: e(5, 2) });
    }

    #[test]
    fn another_ledger_is_believed_only_while_the_last_one_is_still_there() {
        let mut cursor = opened(Cursor::earliest());
        take(&mut cursor, e(5, 0));
        assert_eq!(cursor.judge(e(7, 0), 0), Verdict::Reopen);
        cursor.begin(0);
        assert_eq!(cursor.judge(e(5, 0), 0), Verdict::Skip);
        take(&mut cursor, e(7, 0));
        take(&mut cursor, e(7, 1));
        assert_eq!(cursor.judge(e(9, 0), 0), Verdict::Reopen, "each time");
        cursor.begin(0);
        assert_eq!(cursor.judge(e(9, 0), 0), Verdict::Gap { wanted: e(7, 1) }, "deleted meanwhile");
    }

    #[test]
    fn who_waits_at_the_end_sees_every_ledger_begin() {
        let mut cursor = opened(Cursor::earliest());
        cursor.pass(e(5, 0), 10_000);
        cursor.wait(13_000);
        assert_eq!(cursor.judge(e(7, 0), 0), Verdict::Reopen, "the broker may just be slow");
        cursor.wait(11_000);
        assert_eq!(cursor.judge(e(7, 0), 0), Verdict::Take);
        cursor.begin(0);
        assert_eq!(cursor.judge(e(7, 0), 0), Verdict::Gap { wanted: e(5, 0) }, "but not across connections");
        cursor.pass(e(7, 0), 11_000);
        assert_eq!(cursor.judge(e(9, 0), 0), Verdict::Reopen, "it did not wait since");
    }

    #[test]
    fn a_place_near_a_time_is_looked_for_until_something_older_comes_first() {
        let ts = Tso::from_millis(1_000_000);
        let mut cursor = Cursor::near(ts);
        assert_eq!(cursor.begin(1_050_000), Begin::Ago(Duration::from_secs(63)));
        assert_eq!(cursor.clone().judge(e(5, 8), 990_000), Verdict::Take);
        assert_eq!(cursor.judge(e(5, 9), 990_001), Verdict::Reopen, "it may be the first, and may be not");
        assert_eq!(cursor.begin(1_050_000), Begin::Ago(Duration::from_secs(660)));
        assert_eq!(cursor.clone().judge(e(5, 9), 990_001), Verdict::Take, "the same again");
        assert_eq!(cursor.judge(e(5, 2), 990_001), Verdict::Reopen);
        assert_eq!(cursor.begin(1_050_000), Begin::Earliest);
        assert_eq!(cursor.judge(e(4, 0), 990_001), Verdict::Take);
    }

    #[test]
    fn a_gap_names_both_messages() {
        let name = PChannel("a".into());
        let error = gap(&name, e(5, 3), e(9, 0));
        assert_eq!(error.kind(), Kind::Gap);
        assert!(error.message().contains("5:3") && error.message().contains("9:0"), "{error}");
        let error = beyond(&name, e(5, 3), Some(e(5, 1)));
        assert!(error.message().contains("5:3") && error.message().contains("5:1"), "{error}");
        assert!(beyond(&name, e(5, 3), None).message().contains("has none"));
    }
}
