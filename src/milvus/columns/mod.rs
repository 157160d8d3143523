//! The one representation of rows: an Arrow [`RecordBatch`] with a column per Milvus field.
//!
//! | Milvus | Arrow | a value is |
//! |---|---|---|
//! | Bool | Boolean | |
//! | Int8, Int16, Int32, Int64 | Int8, Int16, Int32, Int64 | |
//! | Float, Double | Float32, Float64 | |
//! | VarChar, String | Utf8View | |
//! | JSON (also `$meta`) | BinaryView | the text as the client sent it |
//! | Array | BinaryView | the encoded `schema.ScalarField` of the row |
//! | FloatVector, Float16Vector, BFloat16Vector, BinaryVector, Int8Vector | FixedSizeBinary | little-endian elements |
//! | SparseFloatVector | BinaryView | pairs of a u32 index and an f32, little-endian |
//!
//! Everything but numbers and booleans is a view of the message that brought it: a column keeps that message's
//! bytes alive. A column's name is the field's name; its metadata says what Arrow can't, under the `*_KEY`
//! constants. Every column is nullable to Arrow, whatever the field is to Milvus, so that whether a message happens
//! to bring nulls does not change the schema.

mod answer;
mod decode;
mod values;

#[cfg(test)]
pub(crate) mod tests;

use std::collections::HashMap;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef, RecordBatch};
use arrow_schema::{DataType as ArrowType, Field};

pub use answer::query_answer;
pub use decode::{Decoder, Delete, Insert, Label, Timestamps};

use super::proto::schema::DataType;
use crate::error::{Error, Kind, Result};

/// Metadata of a column: the id of its field.
pub const FIELD_ID_KEY: &str = "milvus.field_id";
/// Metadata of a column: Milvus' number of its type.
pub const DATA_TYPE_KEY: &str = "milvus.data_type";
/// Metadata of an `Array` column: Milvus' number of the type of the elements, if the message says it.
pub const ELEMENT_TYPE_KEY: &str = "milvus.element_type";
/// Metadata of a column of dense vectors: the number of dimensions.
pub const DIM_KEY: &str = "milvus.dim";
/// Metadata of the hidden field of dynamic values, `$meta`: `true`.
pub const DYNAMIC_KEY: &str = "milvus.dynamic";

/// What a column's Arrow field says about its Milvus field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// The field's id, 0 if the message did not say it.
    pub field_id: i64,
    /// Its type.
    pub data_type: DataType,
    /// The type of the elements of an `Array` by Milvus' number, 0 if unknown or no array.
    pub element_type: i32,
    /// The number of dimensions of dense vectors, otherwise 0.
    pub dim: u32,
    /// Whether it is `$meta`.
    pub dynamic: bool,
}

impl Layout {
    /// The Arrow field of a column `name` with this layout.
    pub fn to_field(&self, name: &str) -> Field {
        let mut metadata = HashMap::from([
            (FIELD_ID_KEY.to_owned(), self.field_id.to_string()),
            (DATA_TYPE_KEY.to_owned(), (self.data_type as i32).to_string()),
        ]);
        if self.element_type != 0 {
            metadata.insert(ELEMENT_TYPE_KEY.to_owned(), self.element_type.to_string());
        }
        if self.dim != 0 {
            metadata.insert(DIM_KEY.to_owned(), self.dim.to_string());
        }
        if self.dynamic {
            metadata.insert(DYNAMIC_KEY.to_owned(), true.to_string());
        }
        Field::new(name, self.arrow_type(), true).with_metadata(metadata)
    }

    /// Reads a layout back from a column's Arrow field; `None` if it is not one that this module made.
    pub fn of(field: &Field) -> Option<Layout> {
        fn number<T: std::str::FromStr>(field: &Field, key: &str) -> Option<T> {
            field.metadata().get(key)?.parse().ok()
        }
        Some(Layout {
            field_id: number(field, FIELD_ID_KEY)?,
            data_type: DataType::try_from(number::<i32>(field, DATA_TYPE_KEY)?).ok()?,
            element_type: number(field, ELEMENT_TYPE_KEY).unwrap_or(0),
            dim: number(field, DIM_KEY).unwrap_or(0),
            dynamic: field.metadata().contains_key(DYNAMIC_KEY),
        })
    }

    fn arrow_type(&self) -> ArrowType {
        match self.data_type {
            DataType::Bool => ArrowType::Boolean,
            DataType::Int8 => ArrowType::Int8,
            DataType::Int16 => ArrowType::Int16,
            DataType::Int32 => ArrowType::Int32,
            DataType::Int64 => ArrowType::Int64,
            DataType::Float => ArrowType::Float32,
            DataType::Double => ArrowType::Float64,
            DataType::String | DataType::VarChar => ArrowType::Utf8View,
            DataType::BinaryVector
            | DataType::FloatVector
            | DataType::Float16Vector
            | DataType::BFloat16Vector
            | DataType::Int8Vector => {
                let size = vector_size(self.data_type, self.dim).and_then(|size| i32::try_from(size).ok());
                ArrowType::FixedSizeBinary(size.unwrap_or(0))
            }
            DataType::None | DataType::Array | DataType::Json | DataType::SparseFloatVector => {
                ArrowType::BinaryView
            }
        }
    }
}

/// The bytes of one dense vector of `dim` dimensions; `None` for other types and impossible dimensions.
pub fn vector_size(data_type: DataType, dim: u32) -> Option<usize> {
    let dim = usize::try_from(dim).ok()?;
    let size = match data_type {
        DataType::FloatVector => dim.checked_mul(4)?,
        DataType::Float16Vector | DataType::BFloat16Vector => dim.checked_mul(2)?,
        DataType::Int8Vector => dim,
        DataType::BinaryVector if dim.is_multiple_of(8) => dim / 8,
        _ => return None,
    };
    // Arrow counts the bytes of a value in an i32.
    (size > 0 && i32::try_from(size).is_ok()).then_some(size)
}

/// The column of the primary key, `key` being its field's name: an `Int64Array` or a `StringViewArray` without nulls.
///
/// # Errors
/// `Corrupt` if the batch has no such column or it can't be a key.
pub fn key_column<'a>(batch: &'a RecordBatch, key: &str) -> Result<&'a ArrayRef> {
    let column = batch
        .column_by_name(key)
        .ok_or_else(|| Error::new(Kind::Corrupt, format!("rows without their primary key `{key}`")))?;
    match column.data_type() {
        ArrowType::Int64 | ArrowType::Utf8View if column.null_count() == 0 => Ok(column),
        other => Err(Error::new(
            Kind::Corrupt,
            format!("the primary key `{key}` is a column of {other} with {} nulls", column.null_count()),
        )),
    }
}

/// About how many bytes the rows of `batch` take in a request, at no cost per row but for text.
pub fn data_size(batch: &RecordBatch) -> usize {
    batch.columns().iter().map(array_size).sum()
}

/// As [`data_size`], for one column.
pub fn array_size(array: &ArrayRef) -> usize {
    const FRAME: usize = 3; // tag and length of one text
    match array.data_type() {
        ArrowType::Utf8View => {
            let lengths = array.as_string_view().lengths();
            lengths.map(|length| length as usize + FRAME).sum()
        }
        ArrowType::BinaryView => {
            let lengths = array.as_binary_view().lengths();
            lengths.map(|length| length as usize + FRAME).sum()
        }
        ArrowType::FixedSizeBinary(_) => array.len() * array.as_fixed_size_binary().value_size(),
        ArrowType::Boolean => array.len(),
        other => array.len() * other.primitive_width().unwrap_or(8),
    }
}

/// The Arrow fields of `fields` in the layout of this module, as an Arrow schema.
fn schema_of<'a>(fields: impl Iterator<Item = (&'a str, Layout)>) -> arrow_schema::SchemaRef {
    let fields: Vec<Field> = fields.map(|(name, layout)| layout.to_field(name)).collect();
    Arc::new(arrow_schema::Schema::new(fields))
}
