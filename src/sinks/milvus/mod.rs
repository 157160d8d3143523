//! A Milvus as the target, written by Insert, Upsert and Delete.
//!
//! [`encode`] turns columns into requests, [`crate::proxy`] sends them and sorts the answers; [`ddl`] brings
//! collections about and [`compare`] tells how they differ.

pub(crate) mod compare;
mod ddl;
mod encode;

use std::time::{Duration, Instant};

use arrow_array::{ArrayRef, RecordBatch};
use async_trait::async_trait;

use super::{Found, Operation, Sink, Write};
use crate::error::{Disposition, Error, Kind, Result};
use crate::failpoint::{self, Point};
use crate::milvus::catalog::{Catalog, Collection, CollectionName, Ddl};
use crate::milvus::proto::milvus as pb;
use crate::ownership::Fence;
use crate::pipeline::{MilvusTarget, TargetMode};
use crate::proxy::expression;
use crate::proxy::status::{self, Effect};
use crate::proxy::{Client, MAX_REQUEST, Role, RowCall, answer, request};

/// A Milvus 2.3, 2.4 or 2.5.
pub struct MilvusSink {
    client: Client,
    mode: TargetMode,
}

impl MilvusSink {
    /// Connects, logs in and checks the version. Nothing is written once `fence` is closed.
    ///
    /// # Errors
    /// `Unavailable`, `Denied`, `Version`, or `PipelineFile` for settings that can't be used; all name the address.
    pub async fn connect(config: &MilvusTarget, fence: Fence) -> Result<MilvusSink> {
        let client = Client::connect(&config.server(), Role::Target, fence).await?;
        Ok(MilvusSink { client, mode: config.mode })
    }

    /// The connection.
    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    /// Sends rows, in more than one request if they are too large for one.
    async fn write_rows(
        &self,
        call: RowCall,
        write: &Write,
        batches: &[RecordBatch],
        end: Instant,
    ) -> Result<()> {
        let mut pending = vec![batches.to_vec()];
        let mut is_first = true;
        while let Some(batches) = pending.pop() {
            if !is_first {
                failpoint::pass(Point::CallPart);
            }
            let row_count: usize = batches.iter().map(RecordBatch::num_rows).sum();
            if row_count == 0 {
                continue;
            }
            let rope = encode::rows(&write.collection, partition(write), &batches)?;
            if rope.len() > MAX_REQUEST && row_count > 1 {
                let (first, second) = halves(batches, row_count);
                pending.push(second);
                pending.push(first);
                continue;
            }
            let what = format!(
                "{call:?} of {row_count} rows into {} at {}",
                write.collection.name,
                self.client.uri()
            );
            let outcome = match remaining(end) {
                Some(deadline) => self.client.send_rows(call, rope, deadline, &what).await,
                None => {
                    Err(Error::new(Kind::Unavailable, format!("{what}: no time left before the deadline")))
                }
            };
            let answer = outcome.map_err(|error| if is_first { error } else { after_a_part(call, error) })?;
            if call == RowCall::Insert && usize::try_from(answer.insert_count) != Ok(row_count) {
                let message = format!("{what}: the server says that it took {}", answer.insert_count);
                return Err(Error::new(Kind::InDoubt, message));
            }
            is_first = false;
        }
        Ok(())
    }

    /// Deletes by key. A partition that is not there has no rows, which is what was asked for.
    async fn delete(&self, write: &Write, keys: &ArrayRef, end: Instant) -> Result<()> {
        let collection = &write.collection;
        let key = collection.schema.primary_key().ok_or_else(|| {
            Error::new(Kind::Corrupt, format!("collection {} has no primary key", collection.name))
        })?;
        let mut start = 0;
        while start < keys.len() {
            let expression = expression::delete(&key.name, keys, start)?;
            if start > 0 {
                failpoint::pass(Point::CallPart);
            }
            start += expression.key_count;
            let what = format!(
                "Delete of {} keys from {} at {}",
                expression.key_count,
                collection.name,
                self.client.uri()
            );
            let Some(deadline) = remaining(end) else {
                return Err(Error::new(
                    Kind::Unavailable,
                    format!("{what}: no time left before the deadline"),
                ));
            };
            let message = pb::DeleteRequest {
                db_name: collection.name.database.clone(),
                collection_name: collection.name.collection.clone(),
                partition_name: partition(write).unwrap_or_default().to_owned(),
                expr: expression.text,
                ..Default::default()
            };
            let mut rpc = self.client.rpc();
            let answer =
                answer(rpc.delete(request(message, deadline)), deadline, Effect::Rows, &what).await?;
            match status::check(answer.status.as_ref(), Effect::Rows, &what) {
                Err(_) if is_missing_partition(answer.status.as_ref()) => return Ok(()),
                outcome => outcome?,
            }
        }
        Ok(())
    }
}

#[async_trait]
impl Sink for MilvusSink {
    async fn write(&self, write: &Write, deadline: Duration) -> Result<()> {
        let end = Instant::now() + deadline;
        match &write.operation {
            Operation::Insert(batches) => self.write_rows(RowCall::Insert, write, batches, end).await,
            Operation::Upsert(batches) => self.write_rows(RowCall::Upsert, write, batches, end).await,
            Operation::Delete(keys) => self.delete(write, keys, end).await,
            Operation::Messages(..) => {
                Err(Error::new(Kind::Internal, "messages go to a standby, and this target is none"))
            }
        }
    }

    async fn apply(&self, ddl: &Ddl, deadline: Duration) -> Result<()> {
        ddl::apply(&self.client, ddl, deadline, self.mode).await
    }

    async fn find(&self, name: &CollectionName) -> Result<Found> {
        let described = ddl::describe(&self.client, name).await?;
        Ok(if described.is_some() { Found::Collection } else { Found::Absent })
    }

    async fn differences(&self, wanted: &Collection) -> Result<Vec<String>> {
        match ddl::describe(&self.client, &wanted.name).await? {
            Some(described) => Ok(compare::differences(wanted, &described, self.mode)),
            None => Ok(vec![format!("collection {} does not exist", wanted.name)]),
        }
    }

    fn objections(&self, wanted: &Catalog) -> Vec<String> {
        compare::objections(wanted, self.client.version())
    }

    fn describe(&self) -> String {
        format!("Milvus {} at {}", self.client.version(), self.client.uri())
    }
}

/// The bytes of an Insert or Upsert request in pieces, most of them slices of the batches' buffers. For benchmarks.
///
/// # Errors
/// `Corrupt` if rows and schema don't fit together.
pub fn encoded_pieces(
    collection: &Collection,
    partition: Option<&str>,
    batches: &[RecordBatch],
) -> Result<Vec<bytes::Bytes>> {
    Ok(encode::rows(collection, partition, batches)?.into_pieces())
}

/// The partition to name in a call. Where a partition key decides, Milvus refuses a name.
fn partition(write: &Write) -> Option<&str> {
    write.partition.as_deref().filter(|_| !write.collection.has_partition_key())
}

fn remaining(end: Instant) -> Option<Duration> {
    end.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())
}

/// `batches` as two lists of about as many rows each; `row_count` is their number of rows, 2 or more.
fn halves(batches: Vec<RecordBatch>, row_count: usize) -> (Vec<RecordBatch>, Vec<RecordBatch>) {
    let mut wanted = row_count / 2;
    let (mut first, mut second) = (Vec::new(), Vec::new());
    for batch in batches {
        let taken = wanted.min(batch.num_rows());
        wanted -= taken;
        if taken > 0 {
            first.push(batch.slice(0, taken));
        }
        if taken < batch.num_rows() {
            second.push(batch.slice(taken, batch.num_rows() - taken));
        }
    }
    (first, second)
}

/// The error of a later part of rows of which an earlier part was written. An insert must not be sent again then.
fn after_a_part(call: RowCall, error: Error) -> Error {
    match (call, error.kind().disposition()) {
        (RowCall::Insert, Disposition::Retry | Disposition::Wait) => {
            Error::new(Kind::InDoubt, "a part of the rows was inserted, another was not").caused_by(error)
        }
        _ => error,
    }
}

fn is_missing_partition(status: Option<&crate::milvus::proto::common::Status>) -> bool {
    status.is_some_and(|status| status.code == 200 || status.code == 0 && status.error_code == 15)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow_array::Int64Array;

    use super::*;

    fn batch(values: std::ops::Range<i64>) -> RecordBatch {
        let column: ArrayRef = Arc::new(Int64Array::from_iter_values(values));
        RecordBatch::try_from_iter([("k", column)]).unwrap()
    }

    #[test]
    fn halves_keep_every_row_in_order() {
        let (first, second) = halves(vec![batch(0..3), batch(3..4), batch(4..10)], 10);
        assert_eq!(first, [batch(0..3), batch(3..4), batch(4..5)]);
        assert_eq!(second, [batch(5..10)]);
        let (first, second) = halves(vec![batch(0..2)], 2);
        assert_eq!((first, second), (vec![batch(0..1)], vec![batch(1..2)]));
    }

    #[test]
    fn a_half_done_insert_is_in_doubt_and_a_half_done_upsert_may_be_repeated() {
        let limited = || Error::new(Kind::RateLimited, "slower");
        assert_eq!(after_a_part(RowCall::Insert, limited()).kind(), Kind::InDoubt);
        assert_eq!(after_a_part(RowCall::Upsert, limited()).kind(), Kind::RateLimited);
        assert_eq!(after_a_part(RowCall::Insert, Error::new(Kind::Refused, "no")).kind(), Kind::Refused);
    }
}
