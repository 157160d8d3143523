//! A batch: one call's worth of changes of one shard, with the keys it touches.

use std::cell::OnceCell;
use std::hash::{BuildHasher, Hash};
use std::rc::Rc;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use arrow_array::{Array, ArrayRef, BooleanArray, RecordBatch};
use rustc_hash::{FxBuildHasher, FxHashMap, FxHashSet};

use crate::dataflow::credits::Credit;
use crate::error::{Error, Kind, Result};
use crate::milvus::catalog::Collection;
use crate::milvus::channel::VChannel;
use crate::milvus::columns::key_column;
use crate::milvus::tso::Tso;
use crate::sinks::{Operation, Write};

/// Changes that go to the target in one call.
#[derive(Clone, Debug)]
pub struct Batch {
    /// The shard: calls of one shard that touch a common key go out one after the other.
    pub vchannel: VChannel,
    /// The call.
    pub write: Write,
    /// The latest ts in it.
    pub high: Tso,
    /// The keys it touches.
    pub keys: Rc<KeySet>,
    /// Number of rows or keys.
    pub rows: usize,
    /// Its size, in bytes of the messages it came from.
    pub bytes: u64,
    /// The budget it holds.
    pub credits: Vec<Arc<Credit>>,
}

impl Batch {
    /// The columns of keys of `write`.
    pub fn key_columns(write: &Write) -> Result<Vec<ArrayRef>> {
        match &write.operation {
            Operation::Delete(keys) => Ok(vec![Arc::clone(keys)]),
            Operation::Messages(..) => Ok(Vec::new()),
            Operation::Insert(batches) | Operation::Upsert(batches) => {
                let name = key_name(&write.collection)?;
                batches.iter().map(|batch| key_column(batch, name).map(Arc::clone)).collect()
            }
        }
    }

    /// Whether the two must go out one after the other. Messages of a shard keep their order.
    pub fn conflicts(&self, other: &Batch) -> bool {
        let are_messages = matches!(self.write.operation, Operation::Messages(..));
        self.vchannel == other.vchannel && (are_messages || self.keys.intersects(&other.keys))
    }

    /// Turns a plain insert whose outcome is unknown into what can be sent however often: an upsert of the newest
    /// row of each key. Upserts and deletes are like that already, and so are messages, which have ids.
    pub fn make_repeatable(&mut self) -> Result<()> {
        let Operation::Insert(batches) = &self.write.operation else { return Ok(()) };
        let newest = newest_rows(batches, key_name(&self.write.collection)?)?;
        self.rows = newest.iter().map(RecordBatch::num_rows).sum();
        self.write.operation = Operation::Upsert(newest);
        Ok(())
    }
}

/// The name of the key's field.
pub fn key_name(collection: &Collection) -> Result<&str> {
    let key = collection.schema.primary_key();
    key.map(|field| field.name.as_str()).ok_or_else(|| {
        Error::new(Kind::Corrupt, format!("the collection {} has no primary key", collection.name))
    })
}

/// Of rows with one key, keeps the last.
pub fn newest_rows(batches: &[RecordBatch], key: &str) -> Result<Vec<RecordBatch>> {
    let columns = batches.iter().map(|batch| key_column(batch, key)).collect::<Result<Vec<_>>>()?;
    let mut newest: FxHashMap<Key<'_>, (usize, usize)> = FxHashMap::default();
    for (index, column) in columns.iter().enumerate() {
        for_each_key(column, |row, key| {
            newest.insert(key, (index, row));
        });
    }
    let total: usize = batches.iter().map(RecordBatch::num_rows).sum();
    if newest.len() == total {
        return Ok(batches.to_vec());
    }
    let mut masks: Vec<Vec<bool>> = batches.iter().map(|batch| vec![false; batch.num_rows()]).collect();
    for (index, row) in newest.into_values() {
        masks[index][row] = true;
    }
    let kept = batches.iter().zip(masks).map(|(batch, mask)| keep_rows(batch, mask));
    Ok(kept.collect::<Result<Vec<_>>>()?.into_iter().filter(|batch| batch.num_rows() > 0).collect())
}

/// The rows of `batch` where `mask` is true; the batch itself, uncopied, if that is all of them.
pub fn keep_rows(batch: &RecordBatch, mask: Vec<bool>) -> Result<RecordBatch> {
    if mask.iter().all(|keep| *keep) {
        return Ok(batch.clone());
    }
    arrow_select::filter::filter_record_batch(batch, &BooleanArray::from(mask))
        .map_err(|cause| Error::new(Kind::Internal, "can't filter a batch").caused_by(cause))
}

/// A primary key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Key<'a> {
    /// `Int64`
    Int(i64),
    /// `VarChar`
    Text(&'a str),
}

/// Calls `visit` with each row and key of a column of keys.
pub fn for_each_key<'a>(column: &'a ArrayRef, mut visit: impl FnMut(usize, Key<'a>)) {
    if let Some(integers) = column.as_primitive_opt::<Int64Type>() {
        integers.values().iter().enumerate().for_each(|(row, key)| visit(row, Key::Int(*key)));
    } else if let Some(texts) = column.as_string_view_opt() {
        (0..texts.len()).for_each(|row| visit(row, Key::Text(texts.value(row))));
    }
}

/// The keys that a batch touches. Most batches of one shard have disjoint ranges of integer keys, so hashes are
/// computed only once ranges overlap.
#[derive(Debug)]
pub struct KeySet {
    columns: Vec<ArrayRef>,
    range: Option<(i64, i64)>,
    hashes: OnceCell<FxHashSet<u64>>,
}

impl KeySet {
    /// The keys in these columns.
    pub fn new(columns: Vec<ArrayRef>) -> KeySet {
        let mut range: Option<(i64, i64)> = None;
        for column in &columns {
            let Some(integers) = column.as_primitive_opt::<Int64Type>() else {
                range = None;
                break;
            };
            for key in integers.values() {
                let (low, high) = range.unwrap_or((*key, *key));
                range = Some((low.min(*key), high.max(*key)));
            }
        }
        KeySet { columns, range, hashes: OnceCell::new() }
    }

    /// Whether a key may be in both: never a false no, hardly ever a false yes.
    pub fn intersects(&self, other: &KeySet) -> bool {
        if let (Some((low, high)), Some((other_low, other_high))) = (self.range, other.range)
            && (high < other_low || other_high < low)
        {
            return false;
        }
        let (small, large) =
            if self.hashes().len() <= other.hashes().len() { (self, other) } else { (other, self) };
        small.hashes().iter().any(|hash| large.hashes().contains(hash))
    }

    fn hashes(&self) -> &FxHashSet<u64> {
        self.hashes.get_or_init(|| {
            let mut hashes = FxHashSet::default();
            for column in &self.columns {
                for_each_key(column, |_, key| {
                    hashes.insert(FxBuildHasher.hash_one(key));
                });
            }
            hashes
        })
    }
}

#[cfg(test)]
mod tests {
    use arrow_array::Int64Array;
    use arrow_schema::{DataType, Field, Schema};

    use super::*;

    fn rows(rows: &[(i64, i64)]) -> RecordBatch {
        let fields = vec![Field::new("id", DataType::Int64, false), Field::new("v", DataType::Int64, false)];
        let column = |values: Vec<i64>| Arc::new(Int64Array::from(values)) as ArrayRef;
        let columns = vec![
            column(rows.iter().map(|(key, _)| *key).collect()),
            column(rows.iter().map(|(_, value)| *value).collect()),
        ];
        RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap()
    }

    #[test]
    fn of_rows_with_one_key_the_last_is_kept() {
        let batches = [rows(&[(1, 10), (2, 20), (1, 11)]), rows(&[(2, 21), (3, 30)])];
        assert_eq!(newest_rows(&batches, "id").unwrap(), [rows(&[(1, 11)]), rows(&[(2, 21), (3, 30)])]);
    }

    #[test]
    fn sets_of_keys_meet_where_a_key_is_in_both() {
        let set = |keys: &[i64]| KeySet::new(vec![Arc::new(Int64Array::from(keys.to_vec())) as ArrayRef]);
        assert!(!set(&[1, 2]).intersects(&set(&[3, 4])), "apart by range");
        assert!(!set(&[1, 9]).intersects(&set(&[2, 8])), "apart within one range");
        assert!(set(&[1, 9]).intersects(&set(&[9, 20])));
        assert!(!set(&[]).intersects(&set(&[1])));
    }
}
