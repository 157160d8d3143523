//! Strict reading of `request_data` by the rules that milvus-cdc's clients know, those of Go's `mapstructure` 1.5: types
//! are not converted (`"port": "19530"` is an error), but a number with a fraction is cut off where a whole one is wanted;
//! `null` and a missing key leave the default; unknown keys are passed over; keys match without regard to case.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

/// What `mapstructure` says of bodies that do not fit, with all of it at once.
#[derive(Debug, Default)]
pub(super) struct Decoder {
    errors: Vec<String>,
}

impl Decoder {
    /// `value`, or all errors as one text in the words of `mapstructure`.
    pub fn finish<T>(mut self, value: T) -> Result<T, String> {
        if self.errors.is_empty() {
            return Ok(value);
        }
        self.errors.sort_unstable();
        let points: Vec<String> = self.errors.iter().map(|error| format!("* {error}")).collect();
        Err(format!("{} error(s) decoding:\n\n{}", points.len(), points.join("\n")))
    }

    /// A text.
    pub fn text(&mut self, object: &Object<'_>, name: &str) -> String {
        let (path, value) = object.field(name);
        self.text_value(&path, value)
    }

    /// A text that is told to nobody, also if it is none. (milvus-cdc repeats what it can't take, and logs it.)
    pub fn secret(&mut self, object: &Object<'_>, name: &str) -> String {
        match object.field(name) {
            (_, Value::Null) => String::new(),
            (_, Value::String(text)) => text.clone(),
            (path, other) => self.unconvertible_as(&path, "string", other, "(secret)"),
        }
    }

    fn text_value(&mut self, path: &str, value: &Value) -> String {
        match value {
            Value::Null => String::new(),
            Value::String(text) => text.clone(),
            other => self.unconvertible(path, "string", other),
        }
    }

    /// A whole number.
    pub fn number(&mut self, object: &Object<'_>, name: &str) -> i64 {
        match object.field(name) {
            (_, Value::Null) => 0,
            (_, Value::Number(number)) => number.as_i64().unwrap_or_else(|| cut_off(number.as_f64())),
            (path, other) => self.unconvertible(&path, "int", other),
        }
    }

    /// A flag.
    pub fn flag(&mut self, object: &Object<'_>, name: &str) -> bool {
        match object.field(name) {
            (_, Value::Null) => false,
            (_, Value::Bool(flag)) => *flag,
            (path, other) => self.unconvertible(&path, "bool", other),
        }
    }

    /// An object within `object`; where there is none, an empty one.
    pub fn object<'v>(&mut self, object: &Object<'v>, name: &str) -> Object<'v> {
        let (path, value) = object.field(name);
        self.object_value(path, value)
    }

    fn object_value<'v>(&mut self, path: String, value: &'v Value) -> Object<'v> {
        let fields = match value {
            Value::Object(fields) => Some(fields),
            Value::Null => None,
            other => {
                self.errors.push(format!("'{path}' expected a map, got '{}'", kind(other)));
                None
            }
        };
        Object { path, fields }
    }

    /// A list of objects.
    pub fn objects<'v>(&mut self, object: &Object<'v>, name: &str) -> Vec<Object<'v>> {
        let (path, value) = object.field(name);
        self.objects_value(&path, value)
    }

    fn objects_value<'v>(&mut self, path: &str, value: &'v Value) -> Vec<Object<'v>> {
        match value {
            Value::Null => Vec::new(),
            Value::Array(items) => items
                .iter()
                .enumerate()
                .map(|(index, item)| self.object_value(format!("{path}[{index}]"), item))
                .collect(),
            other => {
                let kind = kind(other);
                self.errors.push(format!("'{path}': source data must be an array or slice, got {kind}"));
                Vec::new()
            }
        }
    }

    /// An object whose keys are the caller's own, each with a list of objects.
    pub fn map_of_objects<'v>(
        &mut self,
        object: &Object<'v>,
        name: &str,
    ) -> Option<BTreeMap<String, Vec<Object<'v>>>> {
        let entries = self.object(object, name);
        let fields = entries.fields?;
        let read = |(key, value): (&String, &'v Value)| {
            (key.clone(), self.objects_value(&format!("{}[{key}]", entries.path), value))
        };
        Some(fields.iter().map(read).collect())
    }

    /// An object whose keys are the caller's own, each with a text.
    pub fn map_of_texts(&mut self, object: &Object<'_>, name: &str) -> Option<BTreeMap<String, String>> {
        let entries = self.object(object, name);
        let fields = entries.fields?;
        let read = |(key, value): (&String, &Value)| {
            (key.clone(), self.text_value(&format!("{}[{key}]", entries.path), value))
        };
        Some(fields.iter().map(read).collect())
    }

    /// An object whose keys and values are the caller's own.
    pub fn anything(&mut self, object: &Object<'_>, name: &str) -> Map<String, Value> {
        self.object(object, name).fields.cloned().unwrap_or_default()
    }

    fn unconvertible<T: Default>(&mut self, path: &str, wanted: &str, found: &Value) -> T {
        self.unconvertible_as(path, wanted, found, &plain(found))
    }

    fn unconvertible_as<T: Default>(&mut self, path: &str, wanted: &str, found: &Value, told_as: &str) -> T {
        let of = match found {
            Value::Object(_) => "map[string]interface {}",
            Value::Array(_) => "[]interface {}",
            scalar => kind(scalar),
        };
        self.errors.push(format!(
            "'{path}' expected type '{wanted}', got unconvertible type '{of}', value: '{told_as}'"
        ));
        T::default()
    }
}

/// An object of the request, or the lack of one, and its place.
#[derive(Debug)]
pub(super) struct Object<'v> {
    path: String,
    fields: Option<&'v Map<String, Value>>,
}

impl<'v> Object<'v> {
    /// `request_data` itself.
    pub fn top(fields: &'v Map<String, Value>) -> Object<'v> {
        Object { path: String::new(), fields: Some(fields) }
    }

    fn field(&self, name: &str) -> (String, &'v Value) {
        let path = if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) };
        (path, self.fields.and_then(|fields| find(fields, name)).unwrap_or(&Value::Null))
    }
}

/// The entry of that name; of several that differ by case, the one with just this name, or else the first.
pub(super) fn find<'v>(fields: &'v Map<String, Value>, name: &str) -> Option<&'v Value> {
    let folded = name.to_lowercase();
    fields
        .get(name)
        .or_else(|| fields.iter().find(|(key, _)| key.to_lowercase() == folded).map(|(_, value)| value))
}

/// As Go converts on amd64: towards zero, and what does not fit is the least number there is.
#[expect(clippy::cast_possible_truncation, reason = "that is what is asked for")]
fn cut_off(number: Option<f64>) -> i64 {
    match number {
        Some(number) if number.abs() < 9_223_372_036_854_775_808.0 => number as i64,
        _ => i64::MIN,
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "invalid",
        Value::Bool(_) => "bool",
        Value::Number(_) => "float64",
        Value::String(_) => "string",
        Value::Array(_) => "slice",
        Value::Object(_) => "map",
    }
}

/// A value as Go prints it with `%v`.
pub(super) fn plain(value: &Value) -> String {
    match value {
        Value::Null => "<nil>".to_owned(),
        Value::Bool(flag) => flag.to_string(),
        Value::Number(number) => plain_number(number.as_f64().unwrap_or_default()),
        Value::String(text) => text.clone(),
        Value::Array(items) => {
            format!("[{}]", items.iter().map(plain).collect::<Vec<_>>().join(" "))
        }
        Value::Object(fields) => {
            let entries: Vec<String> =
                fields.iter().map(|(key, value)| format!("{key}:{}", plain(value))).collect();
            format!("map[{}]", entries.join(" "))
        }
    }
}

/// The shortest digits, with an exponent below 1e-4 and from 1e6 on.
fn plain_number(number: f64) -> String {
    let exponential = format!("{number:e}");
    let Some((digits, exponent)) = exponential.split_once('e') else { return exponential };
    let exponent: i32 = exponent.parse().unwrap_or_default();
    if (-4..6).contains(&exponent) {
        return number.to_string();
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{digits}e{sign}{:02}", exponent.abs())
}
