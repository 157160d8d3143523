//! Primary keys: their order, which is that of the server's pages, and how they stand in a filter.

use std::fmt;

use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use arrow_array::{Array, RecordBatch};
use arrow_schema::DataType as ArrowType;

use crate::error::Result;
use crate::milvus::columns::key_column;
use crate::proxy::expression::put_text;

/// A row's primary key. Texts are in the order of their bytes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Key {
    Int(i64),
    Text(Box<str>),
}

impl Key {
    /// The bytes that it takes.
    pub(super) fn size(&self) -> usize {
        let text = match self {
            Key::Int(_) => 0,
            Key::Text(text) => text.len(),
        };
        size_of::<Key>() + text
    }

    /// The keys of `batch`, `field` being that of the key. None for a batch without rows.
    ///
    /// # Errors
    /// `Corrupt` if the column can't be a key.
    pub(super) fn all(batch: &RecordBatch, field: &str) -> Result<Vec<Key>> {
        if batch.num_rows() == 0 {
            return Ok(Vec::new());
        }
        let column = key_column(batch, field)?;
        Ok(match column.data_type() {
            ArrowType::Int64 => {
                column.as_primitive::<Int64Type>().values().iter().map(|key| Key::Int(*key)).collect()
            }
            _ => {
                let texts = column.as_string_view();
                (0..column.len()).map(|row| Key::Text(texts.value(row).into())).collect()
            }
        })
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Key::Int(key) => write!(f, "{key}"),
            Key::Text(key) => write!(f, "{key:?}"),
        }
    }
}

/// Keys after `after` up to and with `up_to`; `None`: without an end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Range {
    pub(super) after: Option<Key>,
    pub(super) up_to: Option<Key>,
}

impl Range {
    /// The filter for it; empty for all keys.
    pub(super) fn filter(&self, field: &str) -> String {
        let after = self.after.as_ref().map(|key| match key {
            // The parser reads a number and a minus sign apart, and this one's number has no positive twin.
            Key::Int(i64::MIN) => format!("{field} >= {}", i64::MIN + 1),
            key => format!("{field} > {}", literal(key)),
        });
        let up_to = self.up_to.as_ref().map(|key| match key {
            Key::Int(i64::MIN) => format!("{field} < {}", i64::MIN + 1),
            key => format!("{field} <= {}", literal(key)),
        });
        after.into_iter().chain(up_to).collect::<Vec<_>>().join(" and ")
    }
}

/// The filter for `keys`, at least one.
pub(super) fn list(field: &str, keys: &[Key]) -> String {
    let literals: Vec<String> = keys.iter().map(literal).collect();
    format!("{field} in [{}]", literals.join(","))
}

fn literal(key: &Key) -> String {
    match key {
        Key::Int(i64::MIN) => "-9223372036854775807 - 1".to_owned(),
        Key::Int(key) => key.to_string(),
        Key::Text(key) => {
            let mut text = String::with_capacity(key.len() + 2);
            put_text(&mut text, key);
            text
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Key {
        Key::Text(text.into())
    }

    #[test]
    fn texts_are_in_the_order_of_their_bytes() {
        let mut keys = [text("é"), text("z"), text(""), text("Z"), text("\u{1F600}"), text("\u{FFFD}")];
        keys.sort();
        assert_eq!(keys, [text(""), text("Z"), text("z"), text("é"), text("\u{FFFD}"), text("\u{1F600}")]);
    }

    #[test]
    fn filters_say_what_the_parser_understands() {
        let range = |after, up_to| Range { after, up_to }.filter("k");
        assert_eq!(range(None, None), "");
        assert_eq!(range(Some(Key::Int(-5)), Some(Key::Int(7))), "k > -5 and k <= 7");
        assert_eq!(range(Some(Key::Int(i64::MIN)), None), "k >= -9223372036854775807");
        assert_eq!(range(None, Some(Key::Int(i64::MIN))), "k < -9223372036854775807");
        assert_eq!(range(Some(text("a\"b")), None), "k > \"a\\\"b\"");
        assert_eq!(list("k", &[Key::Int(1), Key::Int(i64::MIN)]), "k in [1,-9223372036854775807 - 1]");
        assert_eq!(list("k", &[text("\n"), text("")]), "k in [\"\\n\",\"\"]");
    }
}
