//! From one `schema.FieldData` of a message to one Arrow column.
//!
//! In the log a column has a value for every row: where a nullable field is null, a placeholder stands and
//! `valid_data` says so (Milvus `validate_util.go`).

use std::sync::Arc;

use arrow_array::builder::make_view;
use arrow_array::types::{Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type};
use arrow_array::{
    ArrayRef, ArrowPrimitiveType, BinaryViewArray, BooleanArray, FixedSizeBinaryArray, PrimitiveArray,
    StringViewArray,
};
use arrow_buffer::{BooleanBufferBuilder, Buffer, NullBuffer, ScalarBuffer};
use bytes::Bytes;

use super::{Layout, vector_size};
use crate::error::{Error, Kind, Result};
use crate::milvus::proto::schema::DataType;
use crate::milvus::wire::{Malformed, Value, fields, for_each_varint};

/// The bytes of one message, and as the Arrow buffer that its views point into.
pub(super) struct Payload<'a> {
    bytes: &'a Bytes,
    buffer: Buffer,
}

impl<'a> Payload<'a> {
    /// # Errors
    /// `Corrupt` if it is too large for the 32-bit offsets of views.
    pub(super) fn new(bytes: &'a Bytes) -> Result<Self> {
        if i32::try_from(bytes.len()).is_err() {
            return Err(corrupt(format!("{} bytes in one message", bytes.len())));
        }
        Ok(Payload { bytes, buffer: Buffer::from(bytes.clone()) })
    }

    pub(super) fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// A view (in Arrow's sense) of `part`, which must be a part of this payload.
    fn view(&self, part: &[u8]) -> Result<u128> {
        let offset = part.as_ptr().addr().wrapping_sub(self.bytes.as_ptr().addr());
        let offset = u32::try_from(offset).map_err(|_| corrupt("a value outside of its message"))?;
        Ok(make_view(part, 0, offset))
    }

    /// `parts` one after the other: without a copy if there is only one.
    fn concat(&self, parts: &[&[u8]]) -> Buffer {
        match parts {
            [part] => Buffer::from(self.bytes.slice_ref(part)),
            _ => Buffer::from(parts.concat()),
        }
    }
}

/// What a `FieldData` is, with its values still on the wire.
///
/// Repeated `scalars` or `vectors` merge, as protobuf has it: Milvus' proxy accepts such requests, so they
/// may turn up in the log.
#[derive(Default)]
pub(super) struct Column<'a> {
    pub(super) name: &'a str,
    pub(super) field_id: i64,
    data_type: i32,
    dynamic: bool,
    scalars: Vec<&'a [u8]>,
    vectors: Vec<&'a [u8]>,
    valid: Vec<bool>,
}

impl<'a> Column<'a> {
    /// Reads all but the values.
    pub(super) fn read(message: &'a [u8]) -> Result<Column<'a>> {
        let mut column = Column::default();
        for field in fields(message) {
            match field? {
                (1, Value::Varint(value)) => column.data_type = int32(value),
                (2, Value::Bytes(name)) => {
                    column.name = str::from_utf8(name).map_err(|_| corrupt("a field's name is not UTF-8"))?;
                }
                (3, Value::Bytes(scalars)) => column.scalars.push(scalars),
                (4, Value::Bytes(vectors)) => column.vectors.push(vectors),
                (5, Value::Varint(id)) => column.field_id = int64(id),
                (6, Value::Varint(dynamic)) => column.dynamic = dynamic != 0,
                (7, Value::Varint(valid)) => column.valid.push(valid != 0),
                (7, Value::Bytes(packed)) => for_each_varint(packed, |valid| {
                    column.valid.push(valid != 0);
                    Ok::<_, Error>(())
                })?,
                _ => {}
            }
        }
        Ok(column)
    }

    /// The number of rows, by the values of a column that can be a key.
    pub(super) fn key_count(&self, payload: &Payload<'a>) -> Result<usize> {
        match DataType::try_from(self.data_type) {
            Ok(DataType::Int64) => Ok(long_integers(&self.scalar_parts(3)?, 0)?.len()),
            Ok(DataType::VarChar | DataType::String) => Ok(views(payload, &self.scalar_parts(6)?, 0)?.len()),
            _ => Err(corrupt(format!("field `{}` is no key", self.name))),
        }
    }

    /// Reads the values of `row_count` rows.
    ///
    /// `row_count` must be known to be no more than the payload's bytes: memory is taken for that many.
    pub(super) fn decode(&self, payload: &Payload<'a>, row_count: usize) -> Result<(Layout, ArrayRef)> {
        let data_type = DataType::try_from(self.data_type)
            .map_err(|_| corrupt(format!("data type {} is not known", self.data_type)))?;
        let nulls = match self.valid.len() {
            0 => None,
            count if count == row_count => Some(NullBuffer::from(self.valid.as_slice())),
            count => return Err(corrupt(format!("{count} entries in valid_data for {row_count} rows"))),
        };
        let mut layout =
            Layout { field_id: self.field_id, data_type, element_type: 0, dim: 0, dynamic: self.dynamic };
        let rows = Rows { payload, row_count, nulls };
        let array: ArrayRef = match data_type {
            DataType::Bool => rows.booleans(&self.scalar_parts(1)?)?,
            DataType::Int8 => rows.small_integers::<Int8Type>(&self.scalar_parts(2)?)?,
            DataType::Int16 => rows.small_integers::<Int16Type>(&self.scalar_parts(2)?)?,
            DataType::Int32 => rows.small_integers::<Int32Type>(&self.scalar_parts(2)?)?,
            DataType::Int64 => rows.long_integers(&self.scalar_parts(3)?)?,
            DataType::Float => rows.floats::<Float32Type, 4>(&self.scalar_parts(4)?, f32::from_le_bytes)?,
            DataType::Double => rows.floats::<Float64Type, 8>(&self.scalar_parts(5)?, f64::from_le_bytes)?,
            DataType::String | DataType::VarChar => rows.texts(&self.scalar_parts(6)?)?,
            DataType::Array => {
                let parts = self.scalar_parts(8)?;
                layout.element_type = element_type(&parts)?;
                rows.binaries(&parts)?
            }
            DataType::Json => rows.binaries(&self.scalar_parts(9)?)?,
            DataType::SparseFloatVector => rows.binaries(&self.vector_parts(6)?.parts)?,
            DataType::FloatVector => {
                let vectors = self.vector_parts(2)?;
                let mut packed = Packed::default();
                for part in &vectors.parts {
                    packed.floats(part)?;
                }
                layout.dim = vectors.dim;
                rows.vectors(&layout, packed.into_buffer(payload))?
            }
            DataType::BinaryVector => rows.byte_vectors(&mut layout, &self.vector_parts(3)?)?,
            DataType::Float16Vector => rows.byte_vectors(&mut layout, &self.vector_parts(4)?)?,
            DataType::BFloat16Vector => rows.byte_vectors(&mut layout, &self.vector_parts(5)?)?,
            DataType::Int8Vector => rows.byte_vectors(&mut layout, &self.vector_parts(7)?)?,
            DataType::None => return Err(corrupt("it has no data type")),
        };
        Ok((layout, array))
    }

    /// The parts of `ScalarField.<member>`.
    fn scalar_parts(&self, member: u32) -> Result<Vec<&'a [u8]>> {
        if !self.vectors.is_empty() {
            return Err(corrupt("a scalar field holds vectors"));
        }
        let mut parts = Vec::with_capacity(self.scalars.len());
        for scalars in &self.scalars {
            for field in fields(scalars) {
                match field? {
                    (number, Value::Bytes(part)) if number == member => parts.push(part),
                    (1..=9, _) => return Err(other_values()),
                    _ => {}
                }
            }
        }
        Ok(parts)
    }

    /// The parts of `VectorField.<member>`.
    fn vector_parts(&self, member: u32) -> Result<Vectors<'a>> {
        if !self.scalars.is_empty() {
            return Err(corrupt("a vector field holds scalars"));
        }
        let mut vectors = Vectors { dim: 0, parts: Vec::with_capacity(self.vectors.len()) };
        for message in &self.vectors {
            for field in fields(message) {
                match field? {
                    (1, Value::Varint(dim)) => {
                        vectors.dim = u32::try_from(dim).map_err(|_| corrupt(format!("{dim} dimensions")))?;
                    }
                    (number, Value::Bytes(part)) if number == member => vectors.parts.push(part),
                    (2..=7, _) => return Err(other_values()),
                    _ => {}
                }
            }
        }
        Ok(vectors)
    }
}

struct Vectors<'a> {
    dim: u32,
    parts: Vec<&'a [u8]>,
}

/// What every kind of values needs to become an array.
struct Rows<'p, 'a> {
    payload: &'p Payload<'a>,
    row_count: usize,
    nulls: Option<NullBuffer>,
}

impl Rows<'_, '_> {
    fn booleans(self, parts: &[&[u8]]) -> Result<ArrayRef> {
        let mut values = BooleanBufferBuilder::new(self.row_count);
        for_each_integer(parts, |value| {
            values.append(value != 0);
            Ok(())
        })?;
        self.check_count(values.len())?;
        Ok(Arc::new(BooleanArray::new(values.finish(), self.nulls)))
    }

    fn small_integers<T>(self, parts: &[&[u8]]) -> Result<ArrayRef>
    where
        T: ArrowPrimitiveType,
        T::Native: TryFrom<i32>,
    {
        let mut values = Vec::with_capacity(self.row_count);
        for_each_integer(parts, |value| {
            let value = int32(value);
            values.push(
                T::Native::try_from(value)
                    .map_err(|_| corrupt(format!("{value} does not fit into {}", T::DATA_TYPE)))?,
            );
            Ok(())
        })?;
        self.primitives::<T>(values)
    }

    fn long_integers(self, parts: &[&[u8]]) -> Result<ArrayRef> {
        let values = long_integers(parts, self.row_count)?;
        self.primitives::<Int64Type>(values)
    }

    fn floats<T, const N: usize>(self, parts: &[&[u8]], read: fn([u8; N]) -> T::Native) -> Result<ArrayRef>
    where
        T: ArrowPrimitiveType,
    {
        let mut packed = Packed::default();
        for part in parts {
            if N == 4 {
                packed.floats(part)?;
            } else {
                packed.doubles(part)?;
            }
        }
        let bytes = packed.into_buffer(self.payload);
        let (values, rest) = bytes.as_slice().as_chunks::<N>();
        if !rest.is_empty() {
            return Err(corrupt("the last number is cut off"));
        }
        self.primitives::<T>(values.iter().map(|bytes| read(*bytes)).collect())
    }

    fn primitives<T: ArrowPrimitiveType>(self, values: Vec<T::Native>) -> Result<ArrayRef> {
        self.check_count(values.len())?;
        Ok(Arc::new(PrimitiveArray::<T>::new(ScalarBuffer::from(values), self.nulls)))
    }

    fn texts(self, parts: &[&[u8]]) -> Result<ArrayRef> {
        let views = self.views(parts)?;
        texts(self.payload, views, self.nulls)
    }

    fn binaries(self, parts: &[&[u8]]) -> Result<ArrayRef> {
        let views = self.views(parts)?;
        let array = BinaryViewArray::try_new(views.into(), [self.payload.buffer.clone()], self.nulls);
        Ok(Arc::new(array.map_err(|error| corrupt("its bytes can't be viewed").caused_by(error))?))
    }

    fn views(&self, parts: &[&[u8]]) -> Result<Vec<u128>> {
        let views = views(self.payload, parts, self.row_count)?;
        self.check_count(views.len())?;
        Ok(views)
    }

    fn byte_vectors(self, layout: &mut Layout, vectors: &Vectors<'_>) -> Result<ArrayRef> {
        layout.dim = vectors.dim;
        // A repeated `bytes` in a oneof does not merge: the last one counts.
        let buffer = self.payload.concat(vectors.parts.last().map_or(&[], std::slice::from_ref));
        self.vectors(layout, buffer)
    }

    fn vectors(self, layout: &Layout, values: Buffer) -> Result<ArrayRef> {
        let size = vector_size(layout.data_type, layout.dim)
            .ok_or_else(|| corrupt(format!("vectors of {} dimensions", layout.dim)))?;
        if size.checked_mul(self.row_count) != Some(values.len()) {
            return Err(corrupt(format!(
                "{} bytes of vectors of {} dimensions for {} rows",
                values.len(),
                layout.dim,
                self.row_count
            )));
        }
        let size = i32::try_from(size).map_err(|_| corrupt(format!("vectors of {size} bytes")))?;
        let array = FixedSizeBinaryArray::try_new(size, values, self.nulls);
        Ok(Arc::new(array.map_err(|error| corrupt("its vectors can't be viewed").caused_by(error))?))
    }

    fn check_count(&self, count: usize) -> Result<()> {
        if count == self.row_count {
            return Ok(());
        }
        Err(corrupt(format!("{count} values for {} rows", self.row_count)))
    }
}

/// Fixed-size numbers, packed or not, gathered without a copy where they stand in one piece.
#[derive(Default)]
struct Packed<'a> {
    pieces: Vec<&'a [u8]>,
    /// Numbers that stand alone, if there are any: then `pieces` are copied in here too.
    loose: Vec<u8>,
}

impl<'a> Packed<'a> {
    /// Takes a `FloatArray`.
    fn floats(&mut self, message: &'a [u8]) -> Result<()> {
        for field in fields(message) {
            match field? {
                (1, Value::Bytes(piece)) => self.piece(piece),
                (1, Value::Fixed32(bits)) => self.loose(&bits.to_le_bytes()),
                (1, _) => return Err(other_values()),
                _ => {}
            }
        }
        Ok(())
    }

    /// Takes a `DoubleArray`.
    fn doubles(&mut self, message: &'a [u8]) -> Result<()> {
        for field in fields(message) {
            match field? {
                (1, Value::Bytes(piece)) => self.piece(piece),
                (1, Value::Fixed64(bits)) => self.loose(&bits.to_le_bytes()),
                (1, _) => return Err(other_values()),
                _ => {}
            }
        }
        Ok(())
    }

    fn piece(&mut self, piece: &'a [u8]) {
        if self.loose.is_empty() {
            self.pieces.push(piece);
        } else {
            self.loose.extend_from_slice(piece);
        }
    }

    fn loose(&mut self, bytes: &[u8]) {
        for piece in self.pieces.drain(..) {
            self.loose.extend_from_slice(piece);
        }
        self.loose.extend_from_slice(bytes);
    }

    fn into_buffer(self, payload: &Payload<'a>) -> Buffer {
        if self.loose.is_empty() { payload.concat(&self.pieces) } else { Buffer::from(self.loose) }
    }
}

/// The texts or bytes of `parts` (`StringArray`, `JSONArray`, …: field 1 of each) as views of the payload.
pub(super) fn views(payload: &Payload<'_>, parts: &[&[u8]], capacity: usize) -> Result<Vec<u128>> {
    let mut views = Vec::with_capacity(capacity);
    for part in parts {
        for field in fields(part) {
            match field? {
                (1, Value::Bytes(value)) => views.push(payload.view(value)?),
                (1, _) => return Err(other_values()),
                _ => {}
            }
        }
    }
    Ok(views)
}

/// An array of the texts that `views` points at.
pub(super) fn texts(payload: &Payload<'_>, views: Vec<u128>, nulls: Option<NullBuffer>) -> Result<ArrayRef> {
    let array = StringViewArray::try_new(views.into(), [payload.buffer.clone()], nulls);
    Ok(Arc::new(array.map_err(|error| corrupt("a text is not UTF-8").caused_by(error))?))
}

/// The integers of `parts`, each a `LongArray`.
pub(super) fn long_integers(parts: &[&[u8]], capacity: usize) -> Result<Vec<i64>> {
    let mut values = Vec::with_capacity(capacity);
    for_each_integer(parts, |value| {
        values.push(int64(value));
        Ok(())
    })?;
    Ok(values)
}

fn for_each_integer(parts: &[&[u8]], mut take: impl FnMut(u64) -> Result<()>) -> Result<()> {
    for part in parts {
        for field in fields(part) {
            match field? {
                (1, Value::Bytes(packed)) => for_each_varint(packed, &mut take)?,
                (1, Value::Varint(value)) => take(value)?,
                (1, _) => return Err(other_values()),
                _ => {}
            }
        }
    }
    Ok(())
}

fn element_type(parts: &[&[u8]]) -> Result<i32> {
    let mut element_type = 0;
    for part in parts {
        for field in fields(part) {
            if let (2, Value::Varint(value)) = field? {
                element_type = int32(value);
            }
        }
    }
    Ok(element_type)
}

/// A protobuf `int64` from its varint.
pub(super) fn int64(value: u64) -> i64 {
    i64::from_le_bytes(value.to_le_bytes())
}

/// A protobuf `int32` or enumeration from its varint: the low 32 bits.
fn int32(value: u64) -> i32 {
    let [a, b, c, d, ..] = value.to_le_bytes();
    i32::from_le_bytes([a, b, c, d])
}

fn other_values() -> Error {
    corrupt("its values are not of its type")
}

pub(super) fn corrupt(message: impl Into<String>) -> Error {
    Error::new(Kind::Corrupt, message)
}

impl From<Malformed> for Error {
    fn from(malformed: Malformed) -> Error {
        corrupt(malformed.to_string())
    }
}
