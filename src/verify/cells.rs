//! Rows as hashes, and the cells in which two rows differ.
//!
//! A row's hash is taken over all compared columns in one order, each cell in a form of its own that does not depend on
//! how a server encoded it: integers by value whatever their width, floats and vectors bit by bit (so that `-0.0` is not
//! `0.0`), texts and JSON byte by byte (Milvus keeps a document as it was written), arrays element by element. A
//! collection's hash is the sum of its rows' hashes, so that it does not depend on their order.

use arrow_array::cast::AsArray;
use arrow_array::types::{Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type};
use arrow_array::{Array, RecordBatch};
use arrow_schema::DataType as ArrowType;
use prost::Message as _;
use twox_hash::XxHash3_128;

use crate::error::{Error, Kind, Result};
use crate::milvus::columns::Layout;
use crate::milvus::proto::schema::scalar_field::Data;
use crate::milvus::proto::schema::{DataType, ScalarField};
use crate::progress::human;

/// The longest value that a report shows.
const SHOWN: usize = 120;

/// The columns of one batch, in the order in which they are hashed.
pub(super) struct Rows<'a> {
    columns: Vec<(&'a dyn Array, DataType)>,
    scratch: Vec<u8>,
}

impl<'a> Rows<'a> {
    /// The columns `fields` of `batch`.
    ///
    /// # Errors
    /// `Corrupt` if one of them is not there.
    pub(super) fn new(batch: &'a RecordBatch, fields: &[String]) -> Result<Rows<'a>> {
        let column = |name: &String| {
            let schema = batch.schema_ref();
            let place = schema.index_of(name).ok();
            let found = place
                .and_then(|at| Some((batch.column(at).as_ref(), Layout::of(schema.field(at))?.data_type)));
            found.ok_or_else(|| Error::new(Kind::Corrupt, format!("the answer has no column `{name}`")))
        };
        Ok(Rows { columns: fields.iter().map(column).collect::<Result<_>>()?, scratch: Vec::new() })
    }

    /// The hash of a row.
    pub(super) fn hash(&mut self, row: usize) -> Result<u128> {
        self.scratch.clear();
        for (array, data_type) in &self.columns {
            put_cell(&mut self.scratch, *array, *data_type, row)?;
        }
        Ok(XxHash3_128::oneshot(&self.scratch))
    }
}

/// The places and texts of the cells in which a row of `a` differs from one of `b`: column, there, here.
pub(super) fn differences(
    fields: &[String],
    (a, row_a): (&RecordBatch, usize),
    (b, row_b): (&RecordBatch, usize),
) -> Result<Vec<(String, String, String)>> {
    let (columns_a, columns_b) = (Rows::new(a, fields)?.columns, Rows::new(b, fields)?.columns);
    let mut out = Vec::new();
    for (name, ((a, type_a), (b, type_b))) in fields.iter().zip(columns_a.into_iter().zip(columns_b)) {
        let (mut cell_a, mut cell_b) = (Vec::new(), Vec::new());
        put_cell(&mut cell_a, a, type_a, row_a)?;
        put_cell(&mut cell_b, b, type_b, row_b)?;
        if cell_a != cell_b {
            let first = cell_a.iter().zip(&cell_b).position(|(a, b)| a != b).unwrap_or(0);
            // Before the elements of a vector are a tag and its length.
            let byte = first.saturating_sub(HEAD);
            out.push((name.clone(), show(a, type_a, row_a, byte)?, show(b, type_b, row_b, byte)?));
        }
    }
    Ok(out)
}

const NULL: u8 = 0;
const INTEGER: u8 = 1;
const FLOAT: u8 = 2;
const DOUBLE: u8 = 3;
const BYTES: u8 = 4;
const LIST: u8 = 5;
/// A tag and a length.
const HEAD: usize = 9;

fn put_cell(out: &mut Vec<u8>, array: &dyn Array, data_type: DataType, row: usize) -> Result<()> {
    if array.is_null(row) {
        out.push(NULL);
        return Ok(());
    }
    match array.data_type() {
        ArrowType::Boolean => put_integer(out, i64::from(array.as_boolean().value(row))),
        ArrowType::Int8 => put_integer(out, array.as_primitive::<Int8Type>().value(row).into()),
        ArrowType::Int16 => put_integer(out, array.as_primitive::<Int16Type>().value(row).into()),
        ArrowType::Int32 => put_integer(out, array.as_primitive::<Int32Type>().value(row).into()),
        ArrowType::Int64 => put_integer(out, array.as_primitive::<Int64Type>().value(row)),
        ArrowType::Float32 => put_float(out, array.as_primitive::<Float32Type>().value(row)),
        ArrowType::Float64 => put_double(out, array.as_primitive::<Float64Type>().value(row)),
        ArrowType::Utf8View => put_bytes(out, array.as_string_view().value(row).as_bytes()),
        ArrowType::FixedSizeBinary(_) => put_bytes(out, array.as_fixed_size_binary().value(row)),
        ArrowType::BinaryView if data_type == DataType::Array => {
            put_list(out, array.as_binary_view().value(row))?;
        }
        ArrowType::BinaryView => put_bytes(out, array.as_binary_view().value(row)),
        other => return Err(Error::new(Kind::Internal, format!("a column of {other} can't be compared"))),
    }
    Ok(())
}

fn put_integer(out: &mut Vec<u8>, value: i64) {
    out.push(INTEGER);
    out.extend_from_slice(&value.to_le_bytes());
}

fn put_float(out: &mut Vec<u8>, value: f32) {
    out.push(FLOAT);
    out.extend_from_slice(&value.to_bits().to_le_bytes());
}

fn put_double(out: &mut Vec<u8>, value: f64) {
    out.push(DOUBLE);
    out.extend_from_slice(&value.to_bits().to_le_bytes());
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_head(out, BYTES, bytes.len());
    out.extend_from_slice(bytes);
}

fn put_head(out: &mut Vec<u8>, tag: u8, length: usize) {
    out.push(tag);
    out.extend_from_slice(&(length as u64).to_le_bytes());
}

/// An encoded `ScalarField`: the same elements may be encoded in more than one way.
fn put_list(out: &mut Vec<u8>, encoded: &[u8]) -> Result<()> {
    match list(encoded)? {
        None => put_head(out, LIST, 0),
        Some(Data::BoolData(values)) => {
            put_all(out, &values.data, |out, value| put_integer(out, (*value).into()))
        }
        Some(Data::IntData(values)) => {
            put_all(out, &values.data, |out, value| put_integer(out, (*value).into()))
        }
        Some(Data::LongData(values)) => put_all(out, &values.data, |out, value| put_integer(out, *value)),
        Some(Data::FloatData(values)) => put_all(out, &values.data, |out, value| put_float(out, *value)),
        Some(Data::DoubleData(values)) => put_all(out, &values.data, |out, value| put_double(out, *value)),
        Some(Data::StringData(values)) => {
            put_all(out, &values.data, |out, value| put_bytes(out, value.as_bytes()))
        }
        Some(Data::BytesData(values)) => put_all(out, &values.data, |out, value| put_bytes(out, value)),
        Some(Data::JsonData(values)) => put_all(out, &values.data, |out, value| put_bytes(out, value)),
        Some(Data::ArrayData(values)) => {
            put_head(out, LIST, values.data.len());
            for value in &values.data {
                put_list(out, &value.encode_to_vec())?;
            }
        }
    }
    Ok(())
}

fn put_all<T>(out: &mut Vec<u8>, values: &[T], put: impl Fn(&mut Vec<u8>, &T)) {
    put_head(out, LIST, values.len());
    values.iter().for_each(|value| put(out, value));
}

fn list(encoded: &[u8]) -> Result<Option<Data>> {
    let list = ScalarField::decode(encoded)
        .map_err(|error| Error::new(Kind::Corrupt, "an array can't be read").caused_by(error))?;
    Ok(list.data)
}

/// A cell for people; of a vector the element with byte `byte`.
fn show(array: &dyn Array, data_type: DataType, row: usize, byte: usize) -> Result<String> {
    if array.is_null(row) {
        return Ok("null".to_owned());
    }
    let text = match array.data_type() {
        ArrowType::Boolean => array.as_boolean().value(row).to_string(),
        ArrowType::Int8 => array.as_primitive::<Int8Type>().value(row).to_string(),
        ArrowType::Int16 => array.as_primitive::<Int16Type>().value(row).to_string(),
        ArrowType::Int32 => array.as_primitive::<Int32Type>().value(row).to_string(),
        ArrowType::Int64 => array.as_primitive::<Int64Type>().value(row).to_string(),
        ArrowType::Float32 => format!("{:?}", array.as_primitive::<Float32Type>().value(row)),
        ArrowType::Float64 => format!("{:?}", array.as_primitive::<Float64Type>().value(row)),
        ArrowType::Utf8View => format!("{:?}", array.as_string_view().value(row)),
        ArrowType::FixedSizeBinary(_) => {
            let bytes = array.as_fixed_size_binary().value(row);
            match (data_type, bytes.as_chunks::<4>().0) {
                (DataType::FloatVector, floats) => {
                    let at = byte / 4;
                    let float = floats.get(at).map_or(0.0, |bytes| f32::from_le_bytes(*bytes));
                    format!("{float:?} at {at} of {}", floats.len())
                }
                _ => format!(
                    "0x{:02x} at byte {byte} of {}",
                    bytes.get(byte).copied().unwrap_or(0),
                    bytes.len()
                ),
            }
        }
        ArrowType::BinaryView => {
            let bytes = array.as_binary_view().value(row);
            match data_type {
                DataType::Json => String::from_utf8_lossy(bytes).into_owned(),
                DataType::Array => show_list(bytes)?,
                _ => format!("{} bytes", bytes.len()),
            }
        }
        other => other.to_string(),
    };
    Ok(human::shortened(&text, SHOWN))
}

fn show_list(encoded: &[u8]) -> Result<String> {
    Ok(match list(encoded)? {
        None => "[]".to_owned(),
        Some(Data::BoolData(values)) => format!("{:?}", values.data),
        Some(Data::IntData(values)) => format!("{:?}", values.data),
        Some(Data::LongData(values)) => format!("{:?}", values.data),
        Some(Data::FloatData(values)) => format!("{:?}", values.data),
        Some(Data::DoubleData(values)) => format!("{:?}", values.data),
        Some(Data::StringData(values)) => format!("{:?}", values.data),
        Some(other) => format!("{other:?}"),
    })
}

#[cfg(test)]
mod tests;
