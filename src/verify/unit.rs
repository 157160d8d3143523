//! What is compared as one: a partition, or a collection whose rows are spread by a partition key. And how rows of it
//! are read from either side.

use std::collections::HashMap;
use std::time::Duration;

use arrow_array::RecordBatch;
use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;

use super::cells::Rows;
use super::key::{Key, Range, list};
use crate::error::{Error, Kind, Result};
use crate::milvus::catalog::CollectionName;
use crate::milvus::columns::data_size;
use crate::milvus::tso::Tso;
use crate::proxy::query::{MAX_ROWS, Query, is_too_large};
use crate::proxy::{Client, Role};

/// What a page of rows should take. A server sends 64 MiB at most.
const PAGE_BYTES: usize = 4 << 20;
/// The most keys in one filter.
pub(super) const MAX_KEYS: usize = 4096;
/// The most bytes of one filter, give or take one key.
const MAX_FILTER: usize = 1 << 20;
/// How long one call may take.
const DEADLINE: Duration = Duration::from_secs(120);
/// How often a call is tried that fails in passing, and the first wait between.
const TRIES: u32 = 5;
const PAUSE: Duration = Duration::from_millis(300);

/// A partition of one collection that is on both sides, or the whole of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Unit {
    /// The collection's name at the source.
    pub(super) collection: CollectionName,
    /// Its name on the target.
    pub(super) on_target: CollectionName,
    /// The partition; `None` where a partition key decides.
    pub(super) partition: Option<String>,
    /// The field of the primary key.
    pub(super) key: String,
    /// The fields to compare; the key is the first.
    pub(super) fields: Vec<String>,
    /// Those of them that are vectors.
    pub(super) vectors: Vec<String>,
    /// About the bytes of a row, as far as its fields tell.
    pub(super) row_size: usize,
}

/// Some rows in the order of their keys, each key once.
pub(super) struct Page {
    pub(super) rows: Vec<(Key, u128)>,
    /// About the bytes of a row.
    pub(super) row_size: usize,
}

/// How many rows to ask for at a time: it follows their size.
#[derive(Clone, Copy, Debug)]
pub(super) struct PageSize(usize);

impl PageSize {
    /// A careful beginning: texts, documents and arrays may be anything.
    pub(super) fn new(row_size: usize) -> PageSize {
        PageSize((PAGE_BYTES / (row_size + 4096)).clamp(1, MAX_ROWS))
    }

    /// After a page with rows of about this many bytes.
    pub(super) fn follow(&mut self, row_size: usize) {
        let wanted = PAGE_BYTES / row_size.max(1);
        self.0 = wanted.min(self.0.saturating_mul(4)).clamp(1, MAX_ROWS);
    }

    /// After a page that was too large. False: there is no smaller one.
    pub(super) fn shrink(&mut self) -> bool {
        let before = self.0;
        self.0 = (before / 4).max(1);
        before > 1
    }

    pub(super) fn rows(self) -> usize {
        self.0
    }
}

impl Unit {
    /// Its collection's name at this server.
    fn name_at(&self, client: &Client) -> &CollectionName {
        match client.role() {
            Role::Source => &self.collection,
            Role::Target => &self.on_target,
        }
    }

    /// The number of rows in `range`, each copy of a key counted.
    pub(super) async fn count(&self, client: &Client, range: &Range, not_before: Tso) -> Result<u64> {
        self.count_where(client, range.filter(&self.key), not_before).await
    }

    /// The number of rows with these keys, each copy counted.
    pub(super) async fn count_keys(&self, client: &Client, keys: &[Key], not_before: Tso) -> Result<u64> {
        self.count_where(client, list(&self.key, keys), not_before).await
    }

    async fn count_where(&self, client: &Client, filter: String, not_before: Tso) -> Result<u64> {
        const COUNT: &str = "count(*)";
        let query = self.query(client, filter, vec![COUNT.to_owned()], None, not_before);
        let batch = patiently(|| client.query(&query, DEADLINE)).await?;
        let count = batch.column_by_name(COUNT).filter(|column| column.len() == 1);
        let count =
            count.and_then(|column| column.as_primitive_opt::<Int64Type>()).map(|column| column.value(0));
        count.and_then(|count| u64::try_from(count).ok()).ok_or_else(|| {
            let message = format!(
                "counting the rows of {} at {}: no count in the answer",
                self.name_at(client),
                client.uri()
            );
            Error::new(Kind::Corrupt, message)
        })
    }

    /// The first rows in `range`. Empty exactly if there are none.
    pub(super) async fn page(
        &self,
        client: &Client,
        range: &Range,
        size: &mut PageSize,
        not_before: Tso,
    ) -> Result<Page> {
        loop {
            let query = self.query(
                client,
                range.filter(&self.key),
                self.fields.clone(),
                Some(size.rows()),
                not_before,
            );
            match patiently(|| client.query(&query, DEADLINE)).await {
                Err(error) if is_too_large(&error) && size.shrink() => {}
                result => return self.hashed(&result?, range, client),
            }
        }
    }

    /// The hashes of those rows of `keys` that are there.
    pub(super) async fn rows(
        &self,
        client: &Client,
        keys: &[Key],
        row_size: usize,
        not_before: Tso,
    ) -> Result<HashMap<Key, u128>> {
        let mut found = HashMap::with_capacity(keys.len());
        for batch in self.full_rows(client, keys, row_size, not_before).await? {
            found.extend(self.hashed(&batch, &Range::default(), client)?.rows);
        }
        Ok(found)
    }

    /// How many rows of this size go into one answer.
    pub(super) fn page_rows(&self, row_size: usize) -> usize {
        (PAGE_BYTES / row_size.max(1)).clamp(1, MAX_KEYS)
    }

    /// The rows of `keys` that are there, with all fields. The keys are in order, each once.
    pub(super) async fn full_rows(
        &self,
        client: &Client,
        keys: &[Key],
        row_size: usize,
        not_before: Tso,
    ) -> Result<Vec<RecordBatch>> {
        let mut batches = Vec::new();
        let mut at_most = self.page_rows(row_size);
        let mut rest = keys;
        while !rest.is_empty() {
            let some = &rest[..chunk(rest, at_most)];
            // Without a limit, a key that is there several times is shown once, or not at all. With one it is shown once,
            // but not all keys may be: 2.3.5 ends its answer where the first of its segments has no more, so it is a
            // beginning of what there is.
            let query =
                self.query(client, list(&self.key, some), self.fields.clone(), Some(some.len()), not_before);
            let batch = match patiently(|| client.query(&query, DEADLINE)).await {
                Err(error) if is_too_large(&error) && some.len() > 1 => {
                    at_most = (some.len() / 4).max(1);
                    continue;
                }
                result => result?,
            };
            let known = match Key::all(&batch, &self.key)?.iter().max() {
                Some(last) => some.partition_point(|key| key <= last),
                None => some.len(),
            };
            if known == 0 {
                return Err(self.strays(client));
            }
            rest = &rest[known..];
            batches.push(batch);
        }
        Ok(batches)
    }

    /// The keys in `range` in their order, each once.
    pub(super) async fn keys(&self, client: &Client, range: &Range, not_before: Tso) -> Result<Vec<Key>> {
        let mut range = range.clone();
        let mut all = Vec::new();
        let mut limit = MAX_ROWS;
        loop {
            let filter = range.filter(&self.key);
            let query = self.query(client, filter, vec![self.key.clone()], Some(limit), not_before);
            let batch = match patiently(|| client.query(&query, DEADLINE)).await {
                Err(error) if is_too_large(&error) && limit > 1 => {
                    limit = (limit / 4).max(1);
                    continue;
                }
                result => result?,
            };
            let keys =
                self.ordered(Key::all(&batch, &self.key)?.into_iter().map(|key| (key, 0)), &range, client)?;
            let Some((last, _)) = keys.last() else { return Ok(all) };
            range.after = Some(last.clone());
            all.extend(keys.into_iter().map(|(key, _)| key));
        }
    }

    /// Which of the fields the server gives, and why it does not give the others.
    pub(super) async fn withheld(&self, client: &Client, not_before: Tso) -> Result<Vec<(String, String)>> {
        let first = Some(1);
        let all = self.query(client, String::new(), self.fields.clone(), first, not_before);
        let whole = patiently(|| client.query(&all, DEADLINE)).await;
        let mut withheld = Vec::new();
        let reason = match whole {
            Ok(batch) if batch.num_rows() == 0 => return Ok(withheld),
            Ok(batch) => {
                let missing = self.fields.iter().filter(|field| batch.column_by_name(field).is_none());
                withheld.extend(missing.map(|field| (field.clone(), "the server leaves it out".to_owned())));
                return Ok(withheld);
            }
            Err(reason) => reason,
        };
        for vector in &self.vectors {
            let fields = vec![self.key.clone(), vector.clone()];
            let query = self.query(client, String::new(), fields, first, not_before);
            if let Err(error) = patiently(|| client.query(&query, DEADLINE)).await {
                withheld.push((vector.clone(), error.to_string()));
            }
        }
        // If it was none of the vectors, it was no matter of fields.
        if withheld.is_empty() || withheld.len() == self.vectors.len() && !self.has_key(client).await {
            return Err(reason);
        }
        Ok(withheld)
    }

    async fn has_key(&self, client: &Client) -> bool {
        let query = self.query(client, String::new(), vec![self.key.clone()], Some(1), Tso(1));
        client.query(&query, DEADLINE).await.is_ok()
    }

    fn query(
        &self,
        client: &Client,
        filter: String,
        fields: Vec<String>,
        limit: Option<usize>,
        not_before: Tso,
    ) -> Query<'_> {
        Query {
            collection: self.name_at(client),
            partition: self.partition.as_deref(),
            filter,
            fields,
            limit,
            not_before,
        }
    }

    fn hashed(&self, batch: &RecordBatch, range: &Range, client: &Client) -> Result<Page> {
        if batch.num_rows() == 0 {
            return Ok(Page { rows: Vec::new(), row_size: self.row_size });
        }
        let mut rows = Rows::new(batch, &self.fields)?;
        let keys = Key::all(batch, &self.key)?;
        let mut hashed = Vec::with_capacity(keys.len());
        for (row, key) in keys.into_iter().enumerate() {
            hashed.push((key, rows.hash(row)?));
        }
        let row_size = data_size(batch) / batch.num_rows();
        Ok(Page { rows: self.ordered(hashed.into_iter(), range, client)?, row_size })
    }

    /// In order, each key once. Everything rests on pages being made of the next keys.
    fn ordered(
        &self,
        rows: impl Iterator<Item = (Key, u128)>,
        range: &Range,
        client: &Client,
    ) -> Result<Vec<(Key, u128)>> {
        let mut rows: Vec<_> = rows.collect();
        rows.sort_by(|(a, _), (b, _)| a.cmp(b));
        rows.dedup_by(|(a, _), (b, _)| a == b);
        let strays = rows.first().zip(range.after.as_ref()).is_some_and(|((first, _), after)| first <= after)
            || rows.last().zip(range.up_to.as_ref()).is_some_and(|((last, _), up_to)| last > up_to);
        if strays { Err(self.strays(client)) } else { Ok(rows) }
    }

    fn strays(&self, client: &Client) -> Error {
        let message =
            format!("{} at {} answers with keys that were not asked for", self.name_at(client), client.uri());
        Error::new(Kind::Corrupt, message).hint("is this a Milvus of 2.3 to 2.5?")
    }
}

/// How many of `keys` go into one filter.
fn chunk(keys: &[Key], at_most: usize) -> usize {
    let mut bytes = 0;
    let fitting = keys.iter().take(at_most).take_while(|key| {
        let fits = bytes < MAX_FILTER;
        bytes += key.size();
        fits
    });
    fitting.count().max(1)
}

/// Tries again what fails in passing.
async fn patiently<T, F>(call: impl Fn() -> F) -> Result<T>
where
    F: Future<Output = Result<T>>,
{
    let mut attempt = 1;
    loop {
        match call().await {
            Err(error)
                if attempt < TRIES
                    && matches!(error.kind(), Kind::Unavailable | Kind::RateLimited | Kind::InDoubt)
                    && !is_too_large(&error)
                    && !is_gone(&error) =>
            {
                tracing::debug!(attempt, error = %error, "a query failed, trying again");
                tokio::time::sleep(PAUSE * 2u32.pow(attempt - 1)).await;
            }
            result => return result,
        }
        attempt += 1;
    }
}

/// Whether a query failed because what it was about is not there, or not loaded, any more.
pub(super) fn is_gone(error: &Error) -> bool {
    let said = error.message();
    error.kind() == Kind::NotFound
        || said.contains("not loaded")
        || said.contains("not found")
        || said.contains("not fully loaded")
}

#[cfg(test)]
mod tests;
