//! Both sides of one unit side by side, page by page in the order of keys. What is unequal is a suspect.

use std::cmp::Ordering;
use std::collections::VecDeque;

use super::key::{Key, Range};
use super::unit::{PageSize, Unit};
use crate::error::Result;
use crate::milvus::tso::Tso;
use crate::proxy::Client;

/// One side of a scan.
pub(super) struct Scan<'a> {
    unit: &'a Unit,
    client: &'a Client,
    not_before: Tso,
    after: Option<Key>,
    over: bool,
    rows: VecDeque<(Key, u128)>,
    /// The last page's range and its number of keys, still to be compared with a count.
    uncounted: Option<(Range, u64)>,
    /// Ranges in which `count(*)` is not the number of keys listed: keys that are there several times, or motion.
    odd: Vec<Range>,
}

impl<'a> Scan<'a> {
    pub(super) fn new(unit: &'a Unit, client: &'a Client, not_before: Tso) -> Scan<'a> {
        Scan {
            unit,
            client,
            not_before,
            after: None,
            over: false,
            rows: VecDeque::new(),
            uncounted: None,
            odd: Vec::new(),
        }
    }

    /// Reads the next page if nothing is left of the last one. Returns about the bytes of its rows.
    pub(super) async fn fill(&mut self, mut size: PageSize) -> Result<Option<usize>> {
        if !self.rows.is_empty() || self.over {
            return Ok(None);
        }
        let range = Range { after: self.after.clone(), up_to: None };
        let last = self.uncounted.take();
        let page = self.unit.page(self.client, &range, &mut size, self.not_before);
        let (page, count) = tokio::join!(page, self.count(last));
        self.odd.extend(count?);
        let page = page?;
        match page.rows.last() {
            Some((last, _)) => {
                let page_range = Range { after: self.after.take(), up_to: Some(last.clone()) };
                self.uncounted = Some((page_range, page.rows.len() as u64));
                self.after = Some(last.clone());
                self.rows = page.rows.into();
                Ok(Some(page.row_size))
            }
            None => {
                self.over = true;
                self.odd.extend(self.count(Some((range, 0))).await?);
                Ok(None)
            }
        }
    }

    /// The range, if its count is not the given one.
    async fn count(&self, range: Option<(Range, u64)>) -> Result<Option<Range>> {
        let Some((range, listed)) = range else { return Ok(None) };
        let count = self.unit.count(self.client, &range, self.not_before).await?;
        Ok((count != listed).then_some(range))
    }

    /// The odd ranges found so far.
    pub(super) fn take_odd(&mut self) -> Vec<Range> {
        std::mem::take(&mut self.odd)
    }

    /// Whether everything has been read and taken.
    pub(super) fn is_done(&self) -> bool {
        self.over && self.rows.is_empty()
    }

    /// The number of rows that are read and not taken.
    pub(super) fn left(&self) -> usize {
        self.rows.len()
    }

    fn pages(&mut self) -> Rows<'_> {
        Rows { rows: &mut self.rows, over: self.over }
    }
}

/// What one side has ready.
struct Rows<'r> {
    rows: &'r mut VecDeque<(Key, u128)>,
    /// Nothing comes after these.
    over: bool,
}

/// Takes rows from both sides as long as it is known what they are to each other. `equal` hears of each pair of equal
/// rows, `suspect` of each key that is unequal or on one side only.
pub(super) fn merge(
    source: &mut Scan<'_>,
    target: &mut Scan<'_>,
    equal: impl FnMut(u128),
    suspect: impl FnMut(Key),
) {
    merge_rows(&mut source.pages(), &mut target.pages(), equal, suspect);
}

fn merge_rows(
    source: &mut Rows<'_>,
    target: &mut Rows<'_>,
    mut equal: impl FnMut(u128),
    mut suspect: impl FnMut(Key),
) {
    loop {
        let order = match (source.rows.front(), target.rows.front()) {
            (Some((a, _)), Some((b, _))) => a.cmp(b),
            (Some(_), None) if target.over => Ordering::Less,
            (None, Some(_)) if source.over => Ordering::Greater,
            _ => return,
        };
        let a = if order.is_le() { source.rows.pop_front() } else { None };
        let b = if order.is_ge() { target.rows.pop_front() } else { None };
        match (a, b) {
            (Some((_, a)), Some((_, b))) if a == b => equal(a),
            (Some((key, _)), _) | (None, Some((key, _))) => suspect(key),
            (None, None) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Whatever is on the two sides, and however it is cut into pages: all that is equal is told as such, and all
        /// that is not is a suspect.
        #[test]
        fn merging_finds_exactly_what_is_unequal(
            a in prop::collection::btree_map(-20_i64..20, 0_u128..3, 0..30),
            b in prop::collection::btree_map(-20_i64..20, 0_u128..3, 0..30),
            (size_a, size_b) in (1_usize..7, 1_usize..7),
        ) {
            let pages = |all: &BTreeMap<i64, u128>, size: usize| -> VecDeque<Vec<(Key, u128)>> {
                let rows: Vec<_> = all.iter().map(|(key, hash)| (Key::Int(*key), *hash)).collect();
                rows.chunks(size).map(<[_]>::to_vec).collect()
            };
            let (mut pages_a, mut pages_b) = (pages(&a, size_a), pages(&b, size_b));
            let (mut rows_a, mut rows_b) = (VecDeque::new(), VecDeque::new());
            let (mut equal, mut suspects) = (0, Vec::new());
            loop {
                if rows_a.is_empty() { rows_a.extend(pages_a.pop_front().unwrap_or_default()); }
                if rows_b.is_empty() { rows_b.extend(pages_b.pop_front().unwrap_or_default()); }
                merge_rows(
                    &mut Rows { over: pages_a.is_empty(), rows: &mut rows_a },
                    &mut Rows { over: pages_b.is_empty(), rows: &mut rows_b },
                    |_| equal += 1,
                    |key| suspects.push(key),
                );
                if rows_a.is_empty() && rows_b.is_empty() && pages_a.is_empty() && pages_b.is_empty() { break; }
            }
            let wanted: Vec<Key> = (-20..20).filter(|key| a.get(key) != b.get(key)).map(Key::Int).collect();
            prop_assert_eq!(suspects, wanted);
            prop_assert_eq!(equal, a.iter().filter(|(key, hash)| b.get(key) == Some(hash)).count());
        }
    }
}
