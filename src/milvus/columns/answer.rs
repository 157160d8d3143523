//! From the encoded `milvus.QueryResults` that a server answers with to columns.

use arrow_array::{RecordBatch, RecordBatchOptions};
use bytes::Bytes;

use super::schema_of;
use super::values::{Column, Payload, corrupt};
use crate::error::Result;
use crate::milvus::wire::{Value, fields};

/// Decodes the rows of an answer; `key` names a column of it that has a value in every row. Text and vectors of the
/// result are views of `payload`. Without rows there are no columns.
///
/// # Errors
/// `Corrupt`, naming the field.
pub fn query_answer(payload: &Bytes, key: &str) -> Result<RecordBatch> {
    let payload = Payload::new(payload)?;
    let mut columns = Vec::new();
    for field in fields(payload.bytes()) {
        if let (2, Value::Bytes(message)) = field? {
            columns.push(Column::read(message)?);
        }
    }
    let count = match columns.iter().find(|column| column.name == key) {
        Some(column) => column.key_count(&payload)?,
        None if columns.is_empty() => 0,
        None => return Err(corrupt(format!("the answer has no column `{key}`"))),
    };
    let mut layouts = Vec::with_capacity(columns.len());
    let mut arrays = Vec::with_capacity(columns.len());
    // Without rows, vectors need not say their dimension.
    for column in columns.iter().filter(|_| count > 0) {
        let (layout, array) = column
            .decode(&payload, count)
            .map_err(|error| error.context(format!("field `{}`", column.name)))?;
        layouts.push((column.name, layout));
        arrays.push(array);
    }
    let options = RecordBatchOptions::new().with_row_count(Some(count));
    RecordBatch::try_new_with_options(schema_of(layouts.into_iter()), arrays, &options)
        .map_err(|error| corrupt("the columns of the answer don't fit together").caused_by(error))
}
