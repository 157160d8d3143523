//! From Arrow columns to the bytes of an Insert or Upsert request.
//!
//! What Milvus wants here differs from what its log holds (`validate_util.go`, `nullutil.go` of 2.5): columns are
//! matched by name; the values of a nullable column are those of the valid rows only, and `valid_data` has an
//! entry per row for nullable fields and fields with a default, and none for others. `RowID`, `Timestamp` and
//! fields that the server computes are left out.

use arrow_array::cast::AsArray;
use arrow_array::types::{
    ArrowPrimitiveType, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type,
};
use arrow_array::{Array, ArrayRef, RecordBatch};
use arrow_buffer::{Buffer, NullBuffer};

use crate::error::{Error, Kind, Result};
use crate::milvus::catalog::{Collection, Field};
use crate::milvus::columns::Layout;
use crate::milvus::proto::schema::DataType;
use crate::milvus::wire::{field_len, put_bytes, put_varint};
use crate::proxy::rope::Rope;

#[cfg(target_endian = "big")]
compile_error!("Arrow's buffers are sent as they are, which needs a little-endian machine");

/// Milvus' own fields: `RowID` (0) and `Timestamp` (1). A server that finds them in a request refuses it.
const FIRST_USER_FIELD: i64 = 100;

/// An encoded `milvus.InsertRequest` or `milvus.UpsertRequest` (they have the same fields) with the rows of all
/// `batches`, which must have columns of the same fields.
///
/// # Errors
/// `Corrupt` if rows and schema don't fit together.
pub(super) fn rows(
    collection: &Collection,
    partition: Option<&str>,
    batches: &[RecordBatch],
) -> Result<Rope> {
    let row_count: usize = batches.iter().map(RecordBatch::num_rows).sum();
    let mut request = Rope::default();
    request.bytes(2, collection.name.database.as_bytes());
    request.bytes(3, collection.name.collection.as_bytes());
    if let Some(partition) = partition {
        request.bytes(4, partition.as_bytes());
    }
    check_columns(collection, batches)?;
    for field in &collection.schema.fields {
        let place = |error: Error| error.context(format!("field `{}` of {}", field.name, collection.name));
        if field.function_output {
            continue;
        }
        if let Some(column) = Column::gather(field, batches).map_err(place)? {
            request.nest(5, column.encode(row_count).map_err(place)?);
        }
    }
    request.integer(7, row_count as u64);
    Ok(request)
}

/// Refuses columns that no field of the schema would take along.
fn check_columns(collection: &Collection, batches: &[RecordBatch]) -> Result<()> {
    for batch in batches {
        for column in batch.schema_ref().fields() {
            let known = collection.schema.fields.iter().any(|field| field.name == *column.name());
            let own = Layout::of(column)
                .is_some_and(|layout| (0..FIRST_USER_FIELD).contains(&layout.field_id))
                && ["RowID", "Timestamp"].contains(&column.name().as_str());
            if !known && !own {
                return Err(corrupt(format!(
                    "rows of {} have a column `{}` that its schema does not have",
                    collection.name,
                    column.name()
                )));
            }
        }
    }
    Ok(())
}

/// One field's column in all batches of a request.
struct Column<'a> {
    field: &'a Field,
    data_type: DataType,
    dim: u32,
    parts: Vec<&'a ArrayRef>,
}

impl<'a> Column<'a> {
    /// `None` if the rows don't have the field and need not have it.
    fn gather(field: &'a Field, batches: &'a [RecordBatch]) -> Result<Option<Column<'a>>> {
        let data_type = field
            .data_type()
            .ok_or_else(|| corrupt(format!("data type {} is not known", field.data_type)))?;
        let mut column = Column { field, data_type, dim: 0, parts: Vec::with_capacity(batches.len()) };
        for (position, batch) in batches.iter().enumerate() {
            let found = batch.schema_ref().column_with_name(&field.name);
            let Some((index, arrow_field)) = found else {
                if column.parts.is_empty() && (field.nullable || field.default_value.is_some()) {
                    continue;
                }
                return Err(corrupt("rows lack it"));
            };
            if column.parts.len() != position {
                return Err(corrupt("some rows lack it, others don't"));
            }
            let layout = Layout::of(arrow_field).ok_or_else(|| corrupt("its column has no layout"))?;
            if layout.data_type != data_type {
                return Err(corrupt(format!(
                    "rows have {:?}, its schema says {data_type:?}",
                    layout.data_type
                )));
            }
            if position > 0 && layout.dim != column.dim {
                return Err(corrupt(format!("vectors of {} and of {} dimensions", column.dim, layout.dim)));
            }
            column.dim = layout.dim;
            column.parts.push(batch.column(index));
        }
        Ok((!column.parts.is_empty()).then_some(column))
    }

    /// The encoded `schema.FieldData`.
    fn encode(&self, row_count: usize) -> Result<Rope> {
        let mut data = Rope::default();
        data.integer(1, self.data_type as u64);
        data.bytes(2, self.field.name.as_bytes());
        match scalar_member(self.data_type) {
            Some(member) => {
                let mut scalars = Rope::default();
                scalars.nest(member, self.scalars()?);
                data.nest(3, scalars);
            }
            None => data.nest(4, self.vectors()?),
        }
        if self.field.dynamic {
            data.integer(6, 1);
        }
        let nulls = self.parts.iter().any(|part| part.null_count() > 0);
        if self.field.nullable || self.field.default_value.is_some() {
            data.nest(7, self.valid_data(row_count));
        } else if nulls {
            return Err(corrupt("rows are null in it, but it is not nullable"));
        }
        Ok(data)
    }

    fn valid_data(&self, row_count: usize) -> Rope {
        Rope::filled(row_count, |out| {
            for part in &self.parts {
                match part.nulls() {
                    Some(nulls) => out.extend(nulls.iter().map(u8::from)),
                    None => out.resize(out.len() + part.len(), 1),
                }
            }
        })
    }

    /// The array message in `schema.ScalarField`, e.g. a `LongArray`.
    fn scalars(&self) -> Result<Rope> {
        let mut values = Rope::default();
        match self.data_type {
            DataType::Bool => values.nest(1, self.booleans()?),
            DataType::Int8 => values.nest(1, self.integers::<Int8Type>()?),
            DataType::Int16 => values.nest(1, self.integers::<Int16Type>()?),
            DataType::Int32 => values.nest(1, self.integers::<Int32Type>()?),
            DataType::Int64 => values.nest(1, self.integers::<Int64Type>()?),
            DataType::Float => values.nest(1, self.floats::<Float32Type>()?),
            DataType::Double => values.nest(1, self.floats::<Float64Type>()?),
            DataType::String | DataType::VarChar => values = self.texts()?,
            DataType::Array => {
                values = self.binaries()?;
                values.integer(2, u64::try_from(self.field.element_type).unwrap_or(0));
            }
            _ => values = self.binaries()?,
        }
        Ok(values)
    }

    fn booleans(&self) -> Result<Rope> {
        let mut out = Vec::with_capacity(self.parts.iter().map(|part| part.len()).sum());
        for part in &self.parts {
            let array = part.as_boolean_opt().ok_or_else(|| self.mistyped(part))?;
            for_valid(array.nulls(), array.len(), |row| out.push(u8::from(array.value(row))));
        }
        Ok(Rope::filled(0, |open| *open = out))
    }

    fn integers<T>(&self) -> Result<Rope>
    where
        T: ArrowPrimitiveType,
        T::Native: Into<i64>,
    {
        let mut out = Vec::with_capacity(self.parts.iter().map(|part| part.len() * 5).sum());
        // Negative numbers of any width take ten bytes, as protobuf has it: the sign is extended to 64 bits.
        let mut put = |value: T::Native| put_varint(&mut out, u64::from_le_bytes(value.into().to_le_bytes()));
        for part in &self.parts {
            let array = part.as_primitive_opt::<T>().ok_or_else(|| self.mistyped(part))?;
            match valid_nulls(array.nulls()) {
                None => array.values().iter().copied().for_each(&mut put),
                Some(nulls) => nulls.valid_indices().for_each(|row| put(array.value(row))),
            }
        }
        Ok(Rope::filled(0, |open| *open = out))
    }

    fn floats<T: ArrowPrimitiveType>(&self) -> Result<Rope> {
        let mut out = Rope::default();
        for part in &self.parts {
            let array = part.as_primitive_opt::<T>().ok_or_else(|| self.mistyped(part))?;
            let values = array.values().inner();
            self.fixed(&mut out, values, size_of::<T::Native>(), array.nulls());
        }
        Ok(out)
    }

    fn texts(&self) -> Result<Rope> {
        let mut capacity = 0;
        for part in &self.parts {
            let array = part.as_string_view_opt().ok_or_else(|| self.mistyped(part))?;
            capacity += array.lengths().map(|length| field_len(1, length as usize)).sum::<usize>();
        }
        Ok(Rope::filled(capacity, |out| {
            for array in self.parts.iter().filter_map(|part| part.as_string_view_opt()) {
                for_valid(array.nulls(), array.len(), |row| put_bytes(out, 1, array.value(row).as_bytes()));
            }
        }))
    }

    fn binaries(&self) -> Result<Rope> {
        let mut capacity = 0;
        for part in &self.parts {
            let array = part.as_binary_view_opt().ok_or_else(|| self.mistyped(part))?;
            capacity += array.lengths().map(|length| field_len(1, length as usize)).sum::<usize>();
        }
        Ok(Rope::filled(capacity, |out| {
            for array in self.parts.iter().filter_map(|part| part.as_binary_view_opt()) {
                for_valid(array.nulls(), array.len(), |row| put_bytes(out, 1, array.value(row)));
            }
        }))
    }

    /// The encoded `schema.VectorField`.
    fn vectors(&self) -> Result<Rope> {
        let mut vectors = Rope::default();
        if self.data_type == DataType::SparseFloatVector {
            let mut contents = self.binaries()?;
            contents.integer(2, self.sparse_dim());
            vectors.nest(6, contents);
            return Ok(vectors);
        }
        let mut values = Rope::default();
        for part in &self.parts {
            let array = part.as_fixed_size_binary_opt().ok_or_else(|| self.mistyped(part))?;
            self.fixed(&mut values, array.values(), array.value_size(), array.nulls());
        }
        vectors.integer(1, u64::from(self.dim));
        match self.data_type {
            DataType::FloatVector => {
                let mut floats = Rope::default();
                floats.nest(1, values);
                vectors.nest(2, floats);
            }
            DataType::BinaryVector => vectors.nest(3, values),
            DataType::Float16Vector => vectors.nest(4, values),
            DataType::BFloat16Vector => vectors.nest(5, values),
            DataType::Int8Vector => vectors.nest(7, values),
            other => return Err(corrupt(format!("{other:?} can't be sent"))),
        }
        Ok(vectors)
    }

    /// The dimensions that the rows need: one more than the greatest index. A row's indices ascend.
    fn sparse_dim(&self) -> u64 {
        let rows =
            self.parts.iter().filter_map(|part| part.as_binary_view_opt()).flat_map(|part| part.iter());
        let last = rows.flatten().filter_map(|row| row.rchunks_exact(8).next()?.first_chunk::<4>());
        last.map(|index| u64::from(u32::from_le_bytes(*index)) + 1).max().unwrap_or(0)
    }

    /// The valid ones of values of `size` bytes: the whole buffer as it is if all are.
    fn fixed(&self, out: &mut Rope, values: &Buffer, size: usize, nulls: Option<&NullBuffer>) {
        match valid_nulls(nulls) {
            None => out.buffer(values),
            Some(nulls) => {
                let rows = nulls.valid_indices();
                out.raw(rows.flat_map(|row| values[row * size..(row + 1) * size].iter().copied()).collect());
            }
        }
    }

    fn mistyped(&self, part: &ArrayRef) -> Error {
        corrupt(format!("{:?} in a column of {}", self.data_type, part.data_type()))
    }
}

/// The member of `schema.ScalarField` that holds values of this type; `None` for vectors.
fn scalar_member(data_type: DataType) -> Option<u32> {
    Some(match data_type {
        DataType::Bool => 1,
        DataType::Int8 | DataType::Int16 | DataType::Int32 => 2,
        DataType::Int64 => 3,
        DataType::Float => 4,
        DataType::Double => 5,
        DataType::String | DataType::VarChar => 6,
        DataType::Array => 8,
        DataType::Json => 9,
        _ => return None,
    })
}

fn valid_nulls(nulls: Option<&NullBuffer>) -> Option<&NullBuffer> {
    nulls.filter(|nulls| nulls.null_count() > 0)
}

fn for_valid(nulls: Option<&NullBuffer>, row_count: usize, mut take: impl FnMut(usize)) {
    match valid_nulls(nulls) {
        None => (0..row_count).for_each(take),
        Some(nulls) => nulls.valid_indices().for_each(&mut take),
    }
}

fn corrupt(message: impl Into<String>) -> Error {
    Error::new(Kind::Corrupt, message)
}

#[cfg(test)]
#[path = "encode_tests.rs"]
mod tests;
