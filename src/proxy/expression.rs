//! Filter expressions: that of a delete, `key in [1, 2]` or `key in ["a", "b"]`, and what texts look like in one.

use std::fmt::Write as _;

use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use arrow_array::{Array, ArrayRef};
use arrow_schema::DataType as ArrowType;

use crate::error::{Error, Kind, Result};

/// The most keys in one expression: 50,000 integers take a 2.3.5 server 0.27 s to parse.
const MAX_KEYS: usize = 50_000;
/// The most bytes of an expression, give or take one key.
const MAX_BYTES: usize = 4 << 20;

/// An expression, and how many of the keys it covers.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Expression {
    /// The text.
    pub(crate) text: String,
    /// The number of keys.
    pub(crate) key_count: usize,
}

/// The expression for the keys from number `start` on, as many of them as fit into one.
///
/// # Errors
/// `Corrupt` if `keys` are not integers or texts without nulls.
pub(crate) fn delete(field: &str, keys: &ArrayRef, start: usize) -> Result<Expression> {
    if keys.null_count() > 0 {
        return Err(Error::new(Kind::Corrupt, format!("a key of `{field}` to delete is null")));
    }
    let mut list = List { text: format!("{field} in ["), key_count: 0 };
    match keys.data_type() {
        ArrowType::Int64 => {
            let keys = keys.as_primitive::<Int64Type>();
            list.fill(keys.values().iter().skip(start), |text, key| match *key {
                // The parser reads a number and a minus sign apart, and this one's number has no positive twin.
                i64::MIN => text.push_str("-9223372036854775807 - 1"),
                // Writing into a string can't fail.
                key => drop(write!(text, "{key}")),
            });
        }
        ArrowType::Utf8View => {
            let keys = keys.as_string_view();
            list.fill((start..keys.len()).map(|row| keys.value(row)), put_text);
        }
        other => return Err(Error::new(Kind::Corrupt, format!("keys of `{field}` to delete are {other}"))),
    }
    list.text.push(']');
    Ok(Expression { text: list.text, key_count: list.key_count })
}

struct List {
    text: String,
    key_count: usize,
}

impl List {
    fn fill<K>(&mut self, keys: impl Iterator<Item = K>, put: impl Fn(&mut String, K)) {
        for key in keys.take(MAX_KEYS) {
            if self.text.len() >= MAX_BYTES {
                break;
            }
            if self.key_count > 0 {
                self.text.push(',');
            }
            put(&mut self.text, key);
            self.key_count += 1;
        }
    }
}

/// A text as the expression parser of 2.3 reads it back: in double quotes, five characters escaped, all else as it
/// is. (Other escapes exist, but not for every character: `\ud83d\ude00` is refused.)
pub(crate) fn put_text(out: &mut String, text: &str) {
    out.push('"');
    let mut rest = text;
    while let Some(place) = rest.find(['\\', '"', '\n', '\r', '\t']) {
        let (plain, special) = rest.split_at(place);
        out.push_str(plain);
        out.push('\\');
        let (special, after) = special.split_at(1);
        out.push_str(match special {
            "\n" => "n",
            "\r" => "r",
            "\t" => "t",
            other => other,
        });
        rest = after;
    }
    out.push_str(rest);
    out.push('"');
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow_array::{Int64Array, StringViewArray};

    use super::*;

    #[test]
    fn integers_are_listed() {
        let keys: ArrayRef = Arc::new(Int64Array::from(vec![7, -1, i64::MAX, i64::MIN]));
        let text = "id in [7,-1,9223372036854775807,-9223372036854775807 - 1]";
        assert_eq!(delete("id", &keys, 0).unwrap(), Expression { text: text.into(), key_count: 4 });
        assert_eq!(delete("id", &keys, 3).unwrap().key_count, 1);
    }

    #[test]
    fn texts_are_quoted_and_the_five_special_characters_escaped() {
        let keys: ArrayRef =
            Arc::new(StringViewArray::from(vec!["a", "", "\"\\", "1\n2\r3\t4", "\u{0}é\u{1F600}'"]));
        let text = "id in [\"a\",\"\",\"\\\"\\\\\",\"1\\n2\\r3\\t4\",\"\u{0}é\u{1F600}'\"]";
        assert_eq!(delete("id", &keys, 0).unwrap().text, text);
    }

    #[test]
    fn a_long_list_is_cut_by_keys_and_by_bytes() {
        let keys: ArrayRef = Arc::new(Int64Array::from_iter_values(0..120_000));
        let counts: Vec<_> =
            [0, 50_000, 100_000].iter().map(|start| delete("k", &keys, *start).unwrap().key_count).collect();
        assert_eq!(counts, [50_000, 50_000, 20_000]);

        let long = "x".repeat(MAX_BYTES / 4);
        let keys: ArrayRef = Arc::new(StringViewArray::from(vec![&*long; 10]));
        assert_eq!(delete("k", &keys, 0).unwrap().key_count, 4);
        assert_eq!(delete("k", &keys, 8).unwrap().key_count, 2);
    }

    #[test]
    fn other_arrays_are_refused() {
        let keys: ArrayRef = Arc::new(arrow_array::Int32Array::from(vec![1]));
        assert_eq!(delete("k", &keys, 0).unwrap_err().kind(), Kind::Corrupt);
        let keys: ArrayRef = Arc::new(Int64Array::from(vec![None, Some(1)]));
        assert_eq!(delete("k", &keys, 0).unwrap_err().kind(), Kind::Corrupt);
    }
}
