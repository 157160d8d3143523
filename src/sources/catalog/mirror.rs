//! A copy in memory of the metadata keys that matter, as etcd has them.
//!
//! Two streams feed it: the watch, which brings every change of a range in the order of its revisions, and reads, which
//! bring what has been put since some revision. One rule keeps them from harming each other. Of each range it is
//! known up to which revision every put is in the copy (`complete`), and
//! - a put counts only if it is later than that: an earlier one is there already, or was overwritten or deleted since;
//! - a deletion counts only if it is later than what the copy has of the key.
//!
//! So nothing older ever overwrites anything newer, and nothing deleted comes back.

use std::collections::BTreeMap;

use super::keys::{Key, RANGES, Range};
use crate::milvus::catalog::CollectionId;

/// What Milvus writes in place of a value that is deleted (`suffix_snapshot.go`); 2.6.15 and later delete instead.
pub const TOMBSTONE: [u8; 3] = [0xe2, 0x9b, 0xbc];

/// The copy.
#[derive(Clone, Debug)]
pub struct Mirror {
    entries: BTreeMap<Key, Entry>,
    complete: [i64; RANGES],
}

/// A value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// When it was written: etcd's mod_revision.
    pub revision: i64,
    /// What was written.
    pub value: Vec<u8>,
}

/// One change of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyChange {
    /// The key.
    pub key: Key,
    /// When: etcd's mod_revision.
    pub revision: i64,
    /// The value; `None`: the key is deleted.
    pub value: Option<Vec<u8>>,
}

impl Mirror {
    /// The copy of everything as it was at `revision`.
    pub fn new(revision: i64, listed: impl IntoIterator<Item = KeyChange>) -> Mirror {
        let mut mirror = Mirror { entries: BTreeMap::new(), complete: [0; RANGES] };
        for change in listed {
            mirror.apply(change);
        }
        mirror.complete = [revision; RANGES];
        mirror
    }

    /// Up to which revision all puts of `range` are here.
    pub fn complete(&self, range: Range) -> i64 {
        self.complete[range.index()]
    }

    /// The same of all ranges.
    pub fn all_complete(&self) -> [i64; RANGES] {
        self.complete
    }

    /// Takes in `changes` of `range`, in the order of their revisions, which are all there are between
    /// [`Mirror::complete`] and `revision`. Says whether the copy is another one now.
    pub fn absorb(
        &mut self,
        range: Range,
        revision: i64,
        changes: impl IntoIterator<Item = KeyChange>,
    ) -> bool {
        let floor = self.complete(range);
        let mut changed = false;
        for change in changes {
            if change.value.is_none() || change.revision > floor {
                changed |= self.apply(change);
            }
        }
        self.complete[range.index()] = floor.max(revision);
        changed
    }

    fn apply(&mut self, change: KeyChange) -> bool {
        let known = self.entries.get(&change.key);
        if known.is_some_and(|known| known.revision >= change.revision) {
            return false;
        }
        match change.value {
            Some(value) if value != TOMBSTONE => {
                let same = known.is_some_and(|known| known.value == value);
                self.entries.insert(change.key, Entry { revision: change.revision, value });
                !same
            }
            _ => self.entries.remove(&change.key).is_some(),
        }
    }

    /// The value of `key`.
    pub fn get(&self, key: &Key) -> Option<&Entry> {
        self.entries.get(key)
    }

    /// All databases.
    pub fn databases(&self) -> impl Iterator<Item = (&Key, &Entry)> {
        self.between(Key::Database(i64::MIN), Key::Database(i64::MAX))
    }

    /// All collections. One that has moved from the old key to the new one may be there twice, the old one first.
    pub fn collections(&self) -> impl Iterator<Item = (&Key, &Entry)> {
        self.between(
            Key::Collection(CollectionId(i64::MIN), None),
            Key::Collection(CollectionId(i64::MAX), Some(i64::MAX)),
        )
    }

    /// All keys from `first` to `last`, both inclusive.
    pub fn between(&self, first: Key, last: Key) -> impl Iterator<Item = (&Key, &Entry)> {
        self.entries.range(first..=last)
    }

    /// All keys from `first` on.
    pub fn from(&self, first: Key) -> impl Iterator<Item = (&Key, &Entry)> {
        self.entries.range(first..)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const RANGE: Range = Range::Collections;

    fn put(id: i64, revision: i64, value: &str) -> KeyChange {
        KeyChange { key: Key::Database(id), revision, value: Some(value.into()) }
    }

    fn delete(id: i64, revision: i64) -> KeyChange {
        KeyChange { key: Key::Database(id), revision, value: None }
    }

    fn value(mirror: &Mirror, id: i64) -> Option<&str> {
        mirror.get(&Key::Database(id)).map(|entry| std::str::from_utf8(&entry.value).unwrap())
    }

    #[test]
    fn a_tombstone_deletes() {
        let mut mirror = Mirror::new(5, [put(1, 3, "a"), put(2, 4, "\u{26fc}")]);
        assert_eq!((value(&mirror, 1), value(&mirror, 2)), (Some("a"), None));
        assert!(mirror.absorb(RANGE, 6, [put(1, 6, "\u{26fc}")]));
        assert_eq!(value(&mirror, 1), None);
    }

    #[test]
    fn a_late_watch_event_does_not_undo_a_read() {
        let mut mirror = Mirror::new(5, []);
        mirror.absorb(RANGE, 20, [put(1, 15, "new")]);
        assert!(!mirror.absorb(RANGE, 12, [put(1, 12, "old")]));
        assert!(!mirror.absorb(RANGE, 13, [delete(1, 13)]));
        assert_eq!(value(&mirror, 1), Some("new"));
        assert_eq!(mirror.complete(RANGE), 20);
    }

    #[test]
    fn a_read_that_comes_late_does_not_bring_back_what_was_deleted() {
        let mut mirror = Mirror::new(5, []);
        mirror.absorb(RANGE, 11, [put(1, 10, "a"), delete(1, 11)]);
        assert!(!mirror.absorb(RANGE, 10, [put(1, 10, "a")]));
        assert_eq!(value(&mirror, 1), None);
    }

    #[test]
    fn a_key_deleted_before_the_read_does_not_come_back_by_the_watch() {
        // Written at 10, deleted at 11; the read at 20 does not show it, then the watch catches up.
        let mut mirror = Mirror::new(5, []);
        mirror.absorb(RANGE, 20, []);
        assert!(!mirror.absorb(RANGE, 10, [put(1, 10, "a")]));
        assert_eq!(value(&mirror, 1), None);
    }

    #[test]
    fn a_deletion_that_a_read_could_not_show_is_taken_from_the_watch() {
        let mut mirror = Mirror::new(5, [put(1, 3, "a")]);
        mirror.absorb(RANGE, 20, []);
        assert!(mirror.absorb(RANGE, 15, [delete(1, 15)]));
        assert_eq!(value(&mirror, 1), None);
    }

    #[test]
    fn writing_the_same_again_is_no_change() {
        let mut mirror = Mirror::new(5, [put(1, 3, "a")]);
        assert!(!mirror.absorb(RANGE, 6, [put(1, 6, "a")]));
        assert!(!mirror.absorb(RANGE, 7, [delete(2, 7)]));
        assert!(mirror.absorb(RANGE, 8, [put(1, 8, "b")]));
    }

    proptest! {
        /// A store with a history; the watch delivers it in order while reads at random moments run ahead of it. When
        /// the watch has delivered all, the copy is the store, and before that it never lacks a live put of a read.
        #[test]
        fn reads_and_a_watch_in_any_order_end_in_what_the_store_holds(
            history in prop::collection::vec((0..4i64, prop::option::weighted(0.7, 0..9u8)), 1..40),
            actions in prop::collection::vec(prop::option::of(0..40usize), 0..80),
        ) {
            let changes: Vec<KeyChange> = history.iter().zip(1..).map(|((id, value), revision)| KeyChange {
                key: Key::Database(*id),
                revision,
                value: value.map(|value| vec![value]),
            }).collect();
            let at = |revision: usize| {
                let mut live = BTreeMap::new();
                for change in &changes[..revision] {
                    live.remove(&change.key);
                    if change.value.is_some() {
                        live.insert(change.key.clone(), change.clone());
                    }
                }
                live
            };
            let mut mirror = Mirror::new(0, []);
            let mut watched = 0;
            let mut in_flight: Option<(i64, usize)> = None;
            for action in actions.into_iter().chain(std::iter::repeat_n(None, changes.len())) {
                match action {
                    None => {
                        if let Some(change) = changes.get(watched) {
                            mirror.absorb(RANGE, change.revision, [change.clone()]);
                            watched += 1;
                        }
                    }
                    Some(moment) => match in_flight.take() {
                        // A read is asked for, its answer comes at a later action.
                        None => in_flight = Some((mirror.complete(RANGE), moment.clamp(watched, changes.len()))),
                        Some((floor, revision)) => {
                            let answer: Vec<_> =
                                at(revision).into_values().filter(|put| put.revision > floor).collect();
                            let revision_number = i64::try_from(revision).unwrap();
                            mirror.absorb(RANGE, revision_number, answer.clone());
                            for put in answer {
                                let known = mirror.get(&put.key);
                                let deleted_since = !at(watched).contains_key(&put.key) && watched > revision;
                                prop_assert!(deleted_since || known.is_some_and(|known| known.revision >= put.revision));
                            }
                        }
                    },
                }
            }
            let end = at(changes.len());
            prop_assert_eq!(watched, changes.len());
            for id in 0..4 {
                let key = Key::Database(id);
                prop_assert_eq!(
                    mirror.get(&key).map(|entry| &entry.value),
                    end.get(&key).and_then(|put| put.value.as_ref())
                );
            }
        }
    }
}
