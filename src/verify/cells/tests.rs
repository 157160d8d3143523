//! What the sums of hashes tell apart and what they don't.

use std::collections::BTreeMap;

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::milvus::columns::query_answer;
use crate::milvus::proto::milvus::QueryResults;
use crate::milvus::proto::schema::field_data::Field as Values;
use crate::milvus::proto::schema::scalar_field::Data as Scalars;
use crate::milvus::proto::schema::vector_field::Data as Vectors;
use crate::milvus::proto::schema::{self, FieldData, ScalarField, VectorField};
use crate::verify::key::Key;

const DIM: usize = 8;

/// One row with a column of every form.
#[derive(Clone, Debug, PartialEq)]
struct Row {
    flag: bool,
    small: i32,
    text: String,
    float: f32,
    double: f64,
    json: Vec<u8>,
    array: Vec<i64>,
    texts: Vec<String>,
    vector: Vec<f32>,
    bits: u8,
    /// Null if `None`.
    maybe: Option<i64>,
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof![Just(String::new()), "[a-c]{0,3}", "\\PC{0,6}"]
}

fn row() -> impl Strategy<Value = Row> {
    let scalars = (any::<bool>(), -128..128_i32, text(), -4_i8..4, -4_i8..4);
    let others = (prop::collection::vec(any::<u8>(), 0..4), prop::collection::vec(-2..2_i64, 0..4));
    let more = (prop::collection::vec(text(), 0..3), prop::collection::vec(-2_i8..2, DIM), any::<u8>());
    (scalars, others, more, prop::option::of(-2..2_i64)).prop_map(
        |((flag, small, text, float, double), (json, array), (texts, vector, bits), maybe)| Row {
            flag,
            small,
            text,
            float: f32::from(float),
            double: f64::from(double),
            json,
            array,
            texts,
            vector: vector.into_iter().map(f32::from).collect(),
            bits,
            maybe,
        },
    )
}

fn rows() -> impl Strategy<Value = BTreeMap<i64, Row>> {
    prop::collection::btree_map(-50..50_i64, row(), 1..12)
}

fn batch(rows: &[(i64, Row)]) -> RecordBatch {
    let all = |data: Scalars| Some(Values::Scalars(ScalarField { data: Some(data) }));
    let vectors = |data| Some(Values::Vectors(VectorField { dim: DIM as i64, data: Some(data) }));
    let field = |name: &str, data_type: DataType, field| FieldData {
        r#type: data_type as i32,
        field_name: name.to_owned(),
        field,
        ..Default::default()
    };
    let each = |get: fn(&Row) -> ScalarField| rows.iter().map(|(_, row)| get(row)).collect::<Vec<_>>();
    let arrays = |data| all(Scalars::ArrayData(schema::ArrayArray { data, element_type: 0 }));
    let mut maybe = field(
        "maybe",
        DataType::Int64,
        all(Scalars::LongData(schema::LongArray {
            data: rows.iter().map(|(_, row)| row.maybe.unwrap_or(0)).collect(),
        })),
    );
    maybe.valid_data = rows.iter().map(|(_, row)| row.maybe.is_some()).collect();
    let map = |get: fn(&Row) -> f32| rows.iter().map(|(_, row)| get(row)).collect::<Vec<f32>>();
    let fields_data = vec![
        field(
            "k",
            DataType::Int64,
            all(Scalars::LongData(schema::LongArray { data: rows.iter().map(|(key, _)| *key).collect() })),
        ),
        field(
            "flag",
            DataType::Bool,
            all(Scalars::BoolData(schema::BoolArray {
                data: rows.iter().map(|(_, row)| row.flag).collect(),
            })),
        ),
        field(
            "small",
            DataType::Int8,
            all(Scalars::IntData(schema::IntArray { data: rows.iter().map(|(_, row)| row.small).collect() })),
        ),
        field(
            "text",
            DataType::VarChar,
            all(Scalars::StringData(schema::StringArray {
                data: rows.iter().map(|(_, row)| row.text.clone()).collect(),
            })),
        ),
        field(
            "float",
            DataType::Float,
            all(Scalars::FloatData(schema::FloatArray { data: map(|row| row.float) })),
        ),
        field(
            "double",
            DataType::Double,
            all(Scalars::DoubleData(schema::DoubleArray {
                data: rows.iter().map(|(_, row)| row.double).collect(),
            })),
        ),
        field(
            "json",
            DataType::Json,
            all(Scalars::JsonData(schema::JsonArray {
                data: rows.iter().map(|(_, row)| row.json.clone()).collect(),
            })),
        ),
        field(
            "array",
            DataType::Array,
            arrays(each(|row| ScalarField {
                data: Some(Scalars::LongData(schema::LongArray { data: row.array.clone() })),
            })),
        ),
        field(
            "texts",
            DataType::Array,
            arrays(each(|row| ScalarField {
                data: Some(Scalars::StringData(schema::StringArray { data: row.texts.clone() })),
            })),
        ),
        field(
            "vector",
            DataType::FloatVector,
            vectors(Vectors::FloatVector(schema::FloatArray {
                data: rows.iter().flat_map(|(_, row)| row.vector.clone()).collect(),
            })),
        ),
        field(
            "bits",
            DataType::BinaryVector,
            vectors(Vectors::BinaryVector(rows.iter().map(|(_, row)| row.bits).collect())),
        ),
        maybe,
    ];
    let answer = QueryResults { fields_data, ..Default::default() };
    query_answer(&Bytes::from(answer.encode_to_vec()), "k").unwrap()
}

fn fields() -> Vec<String> {
    ["k", "flag", "small", "text", "float", "double", "json", "array", "texts", "vector", "bits", "maybe"]
        .map(str::to_owned)
        .to_vec()
}

fn sum(rows: &[(i64, Row)], page: usize) -> u128 {
    rows.chunks(page).fold(0, |sum, rows| {
        let batch = batch(rows);
        let mut hashes = Rows::new(&batch, &fields()).unwrap();
        (0..batch.num_rows()).fold(sum, |sum, row| sum.wrapping_add(hashes.hash(row).unwrap()))
    })
}

/// Another value for the cell of column `column`.
fn changed(row: &Row, column: usize) -> Row {
    let mut row = row.clone();
    match column {
        0 => row.flag = !row.flag,
        // Within Int8.
        1 => row.small ^= 1,
        2 => row.text.push(' '),
        // The other zero is another value too.
        3 => row.float = -row.float,
        4 => row.double = -row.double,
        5 => row.json.push(b' '),
        6 => row.array.push(0),
        7 => row.texts.insert(0, String::new()),
        8 => row.vector[DIM - 1] = f32::from_bits(row.vector[DIM - 1].to_bits() ^ 1),
        9 => row.bits ^= 128,
        // Null is not zero.
        _ => row.maybe = if row.maybe.is_some() { None } else { Some(0) },
    }
    row
}

proptest! {
    #[test]
    fn the_sum_does_not_depend_on_order_or_pages(
        (rows, mixed) in rows().prop_flat_map(|rows| {
            let rows: Vec<_> = rows.into_iter().collect();
            (Just(rows.clone()), Just(rows).prop_shuffle())
        }),
        (a, b) in (1_usize..5, 1_usize..13),
    ) {
        prop_assert_eq!(sum(&rows, a), sum(&mixed, b));
    }

    #[test]
    fn any_changed_cell_changes_the_sum_and_is_named(rows in rows(), at in any::<prop::sample::Index>(), column in 0_usize..11) {
        let rows: Vec<_> = rows.into_iter().collect();
        let mut others = rows.clone();
        let at = at.index(rows.len());
        others[at].1 = changed(&rows[at].1, column);
        prop_assert_ne!(sum(&rows, 100), sum(&others, 100));
        let (a, b) = (batch(&rows), batch(&others));
        let told = differences(&fields(), (&a, at), (&b, at)).unwrap();
        prop_assert_eq!(told.len(), 1);
        prop_assert_eq!(&told[0].0, &fields()[column + 1]);
        prop_assert!(told[0].1 != told[0].2 || column == 5, "{:?}", told);
    }

    #[test]
    fn values_that_change_places_change_the_sum(rows in rows()) {
        let rows: Vec<_> = rows.into_iter().collect();
        prop_assume!(rows.len() > 1 && rows[0].1 != rows[1].1);
        let mut others = rows.clone();
        others[0].1 = rows[1].1.clone();
        others[1].1 = rows[0].1.clone();
        prop_assert_ne!(sum(&rows, 100), sum(&others, 100));
    }

    #[test]
    fn a_lost_or_doubled_row_changes_the_sum(rows in rows()) {
        let rows: Vec<_> = rows.into_iter().collect();
        let doubled = [rows.clone(), vec![rows[0].clone()]].concat();
        prop_assert_ne!(sum(&rows, 100), sum(&rows[1..], 100));
        prop_assert_ne!(sum(&rows, 100), sum(&doubled, 100));
    }
}

/// Texts next to each other can't flow into one another.
#[test]
fn cells_keep_their_borders() {
    let mut out = [Vec::new(), Vec::new()];
    for (cell, list) in out.iter_mut().zip([["ab", "c"], ["a", "bc"]]) {
        list.iter().for_each(|text| put_bytes(cell, text.as_bytes()));
    }
    assert_ne!(out[0], out[1]);
}

#[test]
fn an_array_has_one_form_however_it_is_encoded() {
    let canonical = |encoded: &[u8]| {
        let mut out = Vec::new();
        put_list(&mut out, encoded).unwrap();
        out
    };
    // ScalarField.long_data (3), LongArray.data (1): packed, and one by one.
    assert_eq!(canonical(&[0x1A, 4, 0x0A, 2, 7, 9]), canonical(&[0x1A, 4, 0x08, 7, 0x08, 9]));
    // Nothing at all, an empty list of integers, an empty list of texts.
    assert_eq!(canonical(&[]), canonical(&[0x1A, 0]));
    assert_eq!(canonical(&[]), canonical(&[0x32, 0]));
    assert_ne!(canonical(&[0x1A, 2, 0x0A, 0]), canonical(&[0x1A, 3, 0x0A, 1, 0]));
}

#[test]
fn an_answer_without_rows_has_no_columns() {
    let field = FieldData { r#type: DataType::Int64 as i32, field_name: "k".into(), ..Default::default() };
    let vector =
        FieldData { r#type: DataType::FloatVector as i32, field_name: "v".into(), ..Default::default() };
    for fields_data in [vec![], vec![field, vector]] {
        let answer = QueryResults { fields_data, ..Default::default() };
        let batch = query_answer(&Bytes::from(answer.encode_to_vec()), "k").unwrap();
        assert_eq!(batch.num_rows(), 0);
        assert_eq!(Key::all(&batch, "k").unwrap(), []);
    }
}

#[test]
fn values_are_shown_briefly() {
    let long = Row { text: "x".repeat(1000), ..changed(&row_of_zeros(), 8) };
    let (a, b) = (batch(&[(1, row_of_zeros())]), batch(&[(1, long)]));
    let told = differences(&fields(), (&a, 0), (&b, 0)).unwrap();
    assert_eq!(told[0].0, "text");
    assert!(told[0].2.chars().count() <= SHOWN && told[0].2.contains('…'), "{}", told[0].2);
    assert_eq!(told[1], ("vector".into(), "0.0 at 7 of 8".into(), "1e-45 at 7 of 8".into()));
}

fn row_of_zeros() -> Row {
    Row {
        flag: false,
        small: 0,
        text: String::new(),
        float: 0.0,
        double: 0.0,
        json: vec![],
        array: vec![],
        texts: vec![],
        vector: vec![0.0; DIM],
        bits: 0,
        maybe: None,
    }
}
