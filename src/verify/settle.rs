//! Suspects are read again, until they are equal, or settled differences, or it is given up because they keep moving.

use std::collections::HashMap;
use std::time::Duration;

use arrow_array::RecordBatch;

use super::Context;
use super::cells;
use super::key::{Key, Range};
use super::motion::{Beyond, Motion, Readings, Verdict};
use super::report::{Cell, Difference, DifferenceKind, Tally};
use super::unit::{MAX_KEYS, Unit};
use crate::error::Result;
use crate::milvus::tso::Tso;
use crate::proxy::Client;

/// How often a suspect is looked at. A round takes about as long as the pipeline lags.
const ROUNDS: u32 = 12;
/// How many ranges are looked at to find copies of keys in one, and how often a range that can't be halved.
const LOOKS: u32 = 2_000;
const TRIES: u32 = 5;
const PAUSE: Duration = Duration::from_millis(50);

/// Settles rows.
pub(super) async fn rows(
    context: &Context,
    unit: &Unit,
    keys: Vec<Key>,
    row_size: usize,
    tally: &mut Tally,
) -> Result<()> {
    let read = async |client: &Client, keys: &[Key]| -> Result<HashMap<Key, u128>> {
        unit.rows(client, keys, row_size, client.time().await?).await
    };
    let mut cases: Vec<(Key, Motion<u128>)> = keys.into_iter().map(|key| (key, Motion::new())).collect();
    let mut differing = Vec::new();
    for round in 0..ROUNDS {
        let keys = keys_of(&cases);
        let before = read(&context.source, &keys).await?;
        // Whatever was on its way when the pages were read has mostly arrived by now: the first look does not wait.
        let beyond =
            if round == 0 { None } else { Some(context.passed(context.source.time().await?).await?) };
        let target = read(&context.target, &keys).await?;
        let unequal: Vec<Key> =
            keys.iter().filter(|key| before.get(key) != target.get(key)).cloned().collect();
        let after = read(&context.source, &unequal).await?;
        let (mut moving, mut gone) = (Vec::new(), Vec::new());
        for (key, mut motion) in cases {
            let target = target.get(&key).copied();
            let before = before.get(&key).copied();
            let after = if before == target { before } else { after.get(&key).copied() };
            let readings = Readings { before, target, after };
            let verdict = match beyond {
                Some(beyond) => motion.observe(readings, beyond),
                None if target == before || target == after => Verdict::Equal,
                None => Verdict::Moving,
            };
            match verdict {
                Verdict::Equal if target.is_none() => gone.push(key),
                Verdict::Equal => tally.equal(target),
                Verdict::Differs => {
                    tally.differs(after, target);
                    differing.push(key);
                }
                Verdict::Moving => moving.push((key, motion)),
            }
        }
        // The one verdict that rests on nothing having been shown: so it is asked for in another way too.
        for some in gone.chunks(MAX_KEYS) {
            let source = unit.count_keys(&context.source, some, context.source.time().await?).await?;
            let target = unit.count_keys(&context.target, some, context.target.time().await?).await?;
            if source > 0 || target > 0 {
                moving.extend(some.iter().map(|key| (key.clone(), Motion::new())));
            }
        }
        moving.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
        cases = moving;
        if cases.is_empty() {
            break;
        }
    }
    tally.moving += cases.len() as u64;
    describe(context, unit, &differing, row_size).await
}

fn keys_of(cases: &[(Key, Motion<u128>)]) -> Vec<Key> {
    cases.iter().map(|(key, _)| key.clone()).collect()
}

/// Keeps what there is to say of differing rows, as long as there is room in the report.
async fn describe(context: &Context, unit: &Unit, keys: &[Key], row_size: usize) -> Result<()> {
    let mut keys = keys[..keys.len().min(context.room())].to_vec();
    keys.sort_unstable();
    for some in keys.chunks(unit.page_rows(row_size)) {
        let source = Rows::read(&context.source, unit, some, row_size).await?;
        let target = Rows::read(&context.target, unit, some, row_size).await?;
        for key in some {
            let (kind, cells) = match (source.find(key), target.find(key)) {
                (Some(_), None) => (DifferenceKind::SourceOnly, Vec::new()),
                (None, Some(_)) => (DifferenceKind::TargetOnly, Vec::new()),
                (Some(a), Some(b)) => (DifferenceKind::Changed, cells::differences(&unit.fields, a, b)?),
                // Both have just been deleted.
                (None, None) => continue,
            };
            context.keep(Difference {
                collection: unit.collection.to_string(),
                partition: unit.partition.clone(),
                key: key.to_string(),
                kind,
                columns: cells
                    .into_iter()
                    .map(|(column, source, target)| Cell { column, source, target })
                    .collect(),
            });
        }
    }
    Ok(())
}

/// Whole rows, to be found by their keys.
struct Rows {
    batches: Vec<RecordBatch>,
    places: HashMap<Key, (usize, usize)>,
}

impl Rows {
    async fn read(client: &Client, unit: &Unit, keys: &[Key], row_size: usize) -> Result<Rows> {
        let batches = unit.full_rows(client, keys, row_size, client.time().await?).await?;
        let mut places = HashMap::new();
        for (at, batch) in batches.iter().enumerate() {
            let keys = Key::all(batch, &unit.key)?.into_iter().enumerate();
            places.extend(keys.map(|(row, key)| (key, (at, row))));
        }
        Ok(Rows { batches, places })
    }

    fn find(&self, key: &Key) -> Option<(&RecordBatch, usize)> {
        let (at, row) = self.places.get(key)?;
        Some((self.batches.get(*at)?, *row))
    }
}

/// Settles ranges in which a count was not the number of keys.
pub(super) async fn copies(
    context: &Context,
    unit: &Unit,
    ranges: Vec<Range>,
    tally: &mut Tally,
) -> Result<()> {
    for range in united(ranges) {
        let mut motion = Motion::new();
        let mut verdict = Verdict::Moving;
        for round in 0..ROUNDS {
            let before = copies_at(&context.source, unit, &range).await?;
            let beyond =
                if round == 0 { None } else { Some(context.passed(context.source.time().await?).await?) };
            let target = copies_at(&context.target, unit, &range).await?;
            let after =
                if before == target { before } else { copies_at(&context.source, unit, &range).await? };
            if before.is_none() || target.is_none() || after.is_none() {
                continue;
            }
            verdict = match beyond {
                Some(beyond) => motion.observe(Readings { before, target, after }, beyond),
                None if before == target => Verdict::Equal,
                None => Verdict::Moving,
            };
            if verdict != Verdict::Moving {
                tally.source_copies += after.unwrap_or(0);
                tally.target_copies += target.unwrap_or(0);
                break;
            }
        }
        if verdict == Verdict::Moving {
            tally.uncounted_ranges += 1;
        }
    }
    Ok(())
}

/// How many rows of the range there are beyond one for each key; `None` if it does not come to rest.
///
/// Where rows come and go, a count and a list never agree over thousands of keys. So what disagrees is halved, until it
/// is at rest.
async fn copies_at(client: &Client, unit: &Unit, range: &Range) -> Result<Option<u64>> {
    // One time for all: asking for a later one each time would be a wait for the next tick each time.
    let time = client.time().await?;
    let mut ranges = vec![(range.clone(), 0)];
    let mut copies = 0;
    for _ in 0..LOOKS {
        let Some((range, tries)) = ranges.pop() else { return Ok(Some(copies)) };
        let look =
            async || tokio::try_join!(unit.count(client, &range, time), unit.keys(client, &range, time));
        let (count, keys) = look().await?;
        let listed = keys.len() as u64;
        if count == listed {
            continue;
        }
        if count > listed && look().await? == (count, keys.clone()) {
            copies += count - listed;
            continue;
        }
        let middle = keys.len().checked_div(2).and_then(|half| keys.get(half.checked_sub(1)?));
        match middle {
            Some(middle) => {
                let Range { after, up_to } = range;
                ranges.push((Range { after, up_to: Some(middle.clone()) }, 0));
                ranges.push((Range { after: Some(middle.clone()), up_to }, 0));
            }
            None if tries < TRIES => {
                tokio::time::sleep(PAUSE).await;
                ranges.push((range, tries + 1));
            }
            None => return Ok(None),
        }
    }
    Ok(None)
}

/// Ranges that overlap, as one each.
fn united(mut ranges: Vec<Range>) -> Vec<Range> {
    // No lower end comes before every key, which is where `None` is in the order.
    ranges.sort_by(|a, b| a.after.cmp(&b.after));
    let mut out: Vec<Range> = Vec::new();
    for range in ranges {
        match out.last_mut() {
            Some(last) if last.up_to.is_none() || range.after < last.up_to => {
                if last.up_to.is_some() && (range.up_to.is_none() || range.up_to > last.up_to) {
                    last.up_to = range.up_to;
                }
            }
            _ => out.push(range),
        }
    }
    out
}

impl Context {
    /// Waits until F has passed `time`, and tells people meanwhile.
    pub(super) async fn passed(&self, time: Tso) -> Result<Beyond> {
        let beyond = self.frontier.wait(time, |behind| self.meter.waits(Some(behind))).await;
        self.meter.waits(None);
        beyond
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(after: Option<i64>, up_to: Option<i64>) -> Range {
        Range { after: after.map(Key::Int), up_to: up_to.map(Key::Int) }
    }

    #[test]
    fn overlapping_ranges_become_one() {
        let some = |a, b| range(Some(a), Some(b));
        assert_eq!(united(vec![some(5, 9), some(1, 6), some(9, 12)]), [some(1, 9), some(9, 12)]);
        assert_eq!(united(vec![some(1, 9), some(2, 3), some(4, 5)]), [some(1, 9)]);
        assert_eq!(united(vec![range(Some(3), None), range(None, Some(4))]), [range(None, None)]);
        assert_eq!(united(vec![range(None, None), some(1, 2)]), [range(None, None)]);
        assert_eq!(united(vec![some(1, 2), some(1, 2)]), [some(1, 2)]);
    }
}
