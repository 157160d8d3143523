//! Strict reading of the file's tables: every getter returns the value of one key of [`super::keys`], or its
//! default, or records what is wrong and returns `None`. Reading goes on after a problem, so that all are found.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::env;
use super::keys::{self, Default, KEYS, Key, Shape, TABLES, Table, below};
use super::problem::{Problem, either};
use super::surroundings::{References, Surroundings};
use super::units;

/// Why a value is refused: the rest of a sentence that begins with its key, and what to do.
pub(super) type Objection = (String, String);

/// Reads one file.
pub(super) struct Reader<'f> {
    text: &'f str,
    surroundings: &'f Surroundings<'f>,
    problems: Vec<Problem>,
}

/// A table of the file, or the lack of it.
#[derive(Clone, Copy)]
pub(super) struct Section<'f> {
    table: &'static Table,
    entries: Option<&'f DeTable<'f>>,
    at: Option<usize>,
}

struct Found {
    text: String,
    at: Option<usize>,
}

impl<'f> Section<'f> {
    /// The top level of `document`.
    pub fn top(document: &'f DeTable<'f>) -> Section<'f> {
        Section { table: &super::keys::TOP, entries: Some(document), at: None }
    }

    /// Whether the file has this table.
    pub fn is_written(&self) -> bool {
        self.entries.is_some()
    }

    /// Whether the file has this key of it.
    pub fn has(&self, key: &Key) -> bool {
        self.entry(key.name).is_some()
    }

    fn entry(&self, name: &str) -> Option<&'f Spanned<DeValue<'f>>> {
        self.entries?.get(name)
    }
}

impl<'f> Reader<'f> {
    /// A reader of `text`.
    pub fn new(text: &'f str, surroundings: &'f Surroundings<'f>) -> Reader<'f> {
        Reader { text, surroundings, problems: Vec::new() }
    }

    /// What was wrong.
    pub fn into_problems(self) -> Vec<Problem> {
        self.problems
    }

    /// What the file is read in.
    pub fn surroundings(&self) -> &'f Surroundings<'f> {
        self.surroundings
    }

    /// Records a problem with a key, at its place.
    pub fn object(&mut self, section: &Section<'_>, key: &Key, (message, hint): Objection) {
        let at = section.entry(key.name).map(|value| value.span().start).or(section.at);
        self.problem(at, key.path(), format!("{} {message}", label(key)), Some(hint));
    }

    /// Records a problem with a table, at its place.
    pub fn object_to_table(&mut self, section: &Section<'_>, (message, hint): Objection) {
        let path = section.table.path;
        self.problem(section.at, path.to_owned(), format!("[{path}] {message}"), Some(hint));
    }

    /// Records a problem with an entry of a table whose keys are the user's own, at its place.
    pub fn object_to_entry(&mut self, section: &Section<'_>, entry: &str, (message, hint): Objection) {
        let at = section.entry(entry).map(|value| value.span().start).or(section.at);
        let path = section.table.path;
        self.problem(at, format!("{path}.{entry}"), format!("\"{entry}\" in [{path}] {message}"), Some(hint));
    }

    fn problem(&mut self, at: Option<usize>, key: String, message: String, hint: Option<String>) {
        self.problems.push(Problem { at, key: Some(key), message, hint });
    }

    /// Opens a table within `parent`.
    pub fn section<'s>(&mut self, parent: &Section<'s>, table: &'static Table) -> Section<'s> {
        let missing = Section { table, entries: None, at: parent.at };
        let Some(value) = parent.entry(table.name()) else {
            // If the table around it is missing too, that has been said.
            if table.required && parent.is_written() {
                let needs: Vec<&str> = KEYS
                    .iter()
                    .filter(|key| {
                        key.table == table.path && key.default == Default::Required && key.variants.is_empty()
                    })
                    .map(|key| key.name)
                    .collect();
                self.problem(
                    None,
                    table.path.to_owned(),
                    format!("missing table [{}]", table.path),
                    Some(format!("add it, with at least: {}", needs.join(", "))),
                );
            }
            return missing;
        };
        match value.get_ref() {
            DeValue::Table(entries) => {
                Section { table, entries: Some(entries), at: Some(value.span().start) }
            }
            other => {
                self.problem(
                    Some(value.span().start),
                    table.path.to_owned(),
                    format!("[{}] must be a table, not {}", table.path, a(other.type_str())),
                    Some(format!("write [{}] on a line of its own, its keys below", table.path)),
                );
                missing
            }
        }
    }

    /// Records every key that `section` can't have. `variant` is its `type`, if it has one and it is known.
    pub fn check_names(&mut self, section: &Section<'_>, variant: Option<&str>) {
        let Some(entries) = section.entries else { return };
        let path = section.table.path;
        let fits = |of: &[&str]| of.is_empty() || variant.is_none_or(|variant| of.contains(&variant));
        let keys = KEYS.iter().filter(|key| key.table == path && fits(key.variants)).map(|key| key.name);
        let tables = TABLES
            .iter()
            .filter(|table| table.parent() == Some(path) && fits(table.variants))
            .map(|table| table.name());
        let known: Vec<&str> = keys.chain(tables).collect();
        for (name, value) in entries.iter() {
            let written = name.get_ref().as_ref();
            if known.contains(&written) {
                continue;
            }
            let what = match (value.get_ref(), path) {
                (DeValue::Table(_), "") => format!("unknown table [{written}]"),
                (DeValue::Table(_), _) => format!("unknown table [{path}.{written}]"),
                (_, "") => format!("unknown key \"{written}\" at the top level"),
                _ => format!("unknown key \"{written}\" in [{path}]"),
            };
            let key = below(path, written);
            self.problem(Some(name.span().start), key, what, Some(suggestion(written, path, &known)));
        }
    }

    /// A key's text with its references resolved, or its default.
    fn find(&mut self, section: &Section<'_>, key: &Key) -> Option<Found> {
        let Some(value) = section.entry(key.name) else {
            return match key.default {
                Default::Value(text) => Some(Found { text: text.to_owned(), at: None }),
                Default::Words(_) => None,
                Default::Required => {
                    if section.is_written() {
                        self.missing(section, key);
                    }
                    None
                }
            };
        };
        let at = value.span().start;
        let is_text = !matches!(key.shape, Shape::Count(..) | Shape::Flag);
        match value.get_ref() {
            DeValue::String(text) => {
                match self.substitute(&key.path(), key.shape == Shape::Secret, text, value) {
                    // TOML has no other way to take a number or a flag from the environment.
                    Some(done) if is_text || done.referred => Some(Found { text: done.text, at: Some(at) }),
                    Some(_) => {
                        self.wrong_type(key, "a string", at);
                        None
                    }
                    None => None,
                }
            }
            DeValue::Integer(number) if matches!(key.shape, Shape::Count(..)) => {
                let text = match i64::from_str_radix(number.as_str(), number.radix()) {
                    Ok(decimal) => decimal.to_string(),
                    Err(_) => number.to_string(),
                };
                Some(Found { text, at: Some(at) })
            }
            DeValue::Boolean(flag) if key.shape == Shape::Flag => {
                Some(Found { text: flag.to_string(), at: Some(at) })
            }
            other => {
                self.wrong_type(key, &a(other.type_str()), at);
                None
            }
        }
    }

    fn missing(&mut self, section: &Section<'_>, key: &Key) {
        let message = match key.table {
            "" => format!("missing key \"{}\" at the top level", key.name),
            table => format!("missing key \"{}\" in [{table}]", key.name),
        };
        self.problem(section.at, key.path(), message, Some(example(key)));
    }

    fn wrong_type(&mut self, key: &Key, found: &str, at: usize) {
        let message = format!("{} must be {}, not {found}", label(key), expected(key.shape));
        self.problem(Some(at), key.path(), message, Some(example(key)));
    }

    fn substitute(
        &mut self,
        key: &str,
        is_secret: bool,
        text: &str,
        value: &Spanned<DeValue<'_>>,
    ) -> Option<env::Substituted> {
        if !is_secret && self.surroundings.references == References::InSecrets && env::refers(text) {
            let message = format!("{key}: ${{NAME}} is for passwords and tokens here");
            let hint = "write the value itself; $$ is a plain $".to_owned();
            self.problem(Some(value.span().start), key.to_owned(), message, Some(hint));
            return None;
        }
        match env::substitute(text, self.surroundings.lookup) {
            Ok(done) => Some(done),
            Err(faults) => {
                let span = value.span();
                let written = self.text.get(span.clone()).unwrap_or_default();
                let dollars: Vec<usize> = written.match_indices('$').map(|(at, _)| at).collect();
                // Unless a dollar is written as an escape, those of the file are those of the string.
                let aligned = dollars.len() == text.matches('$').count();
                for fault in faults {
                    let offset = dollars.get(fault.dollar).copied().filter(|_| aligned).unwrap_or(0);
                    self.problem(Some(span.start + offset), key.to_owned(), fault.message, Some(fault.hint));
                }
                None
            }
        }
    }

    fn parsed<T>(
        &mut self,
        section: &Section<'_>,
        key: &Key,
        parse: impl FnOnce(&str) -> Result<T, Objection>,
    ) -> Option<T> {
        let found = self.find(section, key)?;
        match parse(&found.text) {
            Ok(value) => Some(value),
            Err((message, hint)) => {
                self.problem(found.at, key.path(), format!("{} {message}", label(key)), Some(hint));
                None
            }
        }
    }

    /// A text that `accept` has nothing against.
    pub fn text(
        &mut self,
        section: &Section<'_>,
        key: &Key,
        accept: impl FnOnce(&str) -> Result<(), Objection>,
    ) -> Option<String> {
        self.parsed(section, key, |text| {
            not_empty(text)?;
            accept(text)?;
            Ok(text.to_owned())
        })
    }

    /// A path, made to start at the file's folder.
    pub fn path(&mut self, section: &Section<'_>, key: &Key) -> Option<PathBuf> {
        let folder = self.surroundings.folder;
        self.parsed(section, key, |text| {
            not_empty(text)?;
            if text == "~" || text.starts_with("~/") {
                let hint = format!("write \"${{HOME}}{}\"", &text[1..]);
                return Err(("begins with ~, which only a shell understands".to_owned(), hint));
            }
            Ok(folder.join(text))
        })
    }

    /// A list of texts that `accept` has nothing against. An empty one is refused if the key is required.
    pub fn list(
        &mut self,
        section: &Section<'_>,
        key: &Key,
        accept: impl Fn(&str) -> Result<(), Objection>,
    ) -> Option<Vec<String>> {
        let Some(value) = section.entry(key.name) else {
            if key.default == Default::Required && section.is_written() {
                self.missing(section, key);
            }
            return None;
        };
        let DeValue::Array(items) = value.get_ref() else {
            self.wrong_type(key, &a(value.get_ref().type_str()), value.span().start);
            return None;
        };
        if items.is_empty() && key.default == Default::Required {
            let message = format!("{} is empty", label(key));
            self.problem(Some(value.span().start), key.path(), message, Some(example(key)));
            return None;
        }
        let mut texts = Vec::with_capacity(items.len());
        for item in items.iter() {
            let at = item.span().start;
            let DeValue::String(text) = item.get_ref() else {
                self.wrong_type(key, &format!("a list with {}", a(item.get_ref().type_str())), at);
                continue;
            };
            let Some(done) = self.substitute(&key.path(), false, text, item) else { continue };
            match accept(&done.text) {
                Ok(()) => texts.push(done.text),
                Err((message, hint)) => {
                    self.problem(Some(at), key.path(), format!("{}: {message}", label(key)), Some(hint));
                }
            }
        }
        (texts.len() == items.len()).then_some(texts)
    }

    /// All entries of a table whose keys are the user's own, each a text that `accept` has nothing against.
    pub fn entries<T>(
        &mut self,
        section: &Section<'_>,
        accept: impl Fn(&str, &str) -> Result<T, Objection>,
    ) -> Option<BTreeMap<String, T>> {
        let Some(entries) = section.entries else { return Some(BTreeMap::new()) };
        let path = section.table.path;
        let mut accepted = BTreeMap::new();
        for (name, value) in entries.iter() {
            let (name, at) = (name.get_ref().as_ref(), value.span().start);
            let DeValue::String(text) = value.get_ref() else {
                let message =
                    format!("\"{name}\" in [{path}] must be a text, not {}", a(value.get_ref().type_str()));
                let hint = format!("write \"{name}\" = \"…\" (a name with dots needs its quotes)");
                self.problem(Some(at), below(path, name), message, Some(hint));
                continue;
            };
            let is_secret = keys::is_secret_entry(section.table, name);
            let Some(done) = self.substitute(&below(path, name), is_secret, text, value) else { continue };
            match accept(name, &done.text) {
                Ok(value) => drop(accepted.insert(name.to_owned(), value)),
                Err((message, hint)) => {
                    let message = format!("\"{name}\" in [{path}] {message}");
                    self.problem(Some(at), below(path, name), message, Some(hint));
                }
            }
        }
        (accepted.len() == entries.len()).then_some(accepted)
    }

    /// A text that `parse` makes something of.
    pub fn value<T>(
        &mut self,
        section: &Section<'_>,
        key: &Key,
        parse: impl FnOnce(&str) -> Result<T, Objection>,
    ) -> Option<T> {
        self.parsed(section, key, parse)
    }

    /// A size in bytes, within the key's limits.
    pub fn size(&mut self, section: &Section<'_>, key: &Key) -> Option<u64> {
        let Shape::Size(least, most) = key.shape else { return None };
        self.parsed(section, key, |text| within(text, least, most, units::parse_size))
    }

    /// A duration, within the key's limits.
    pub fn duration(&mut self, section: &Section<'_>, key: &Key) -> Option<Duration> {
        let Shape::Duration(least, most) = key.shape else { return None };
        self.parsed(section, key, |text| within(text, least, most, units::parse_duration))
    }

    /// A number, within the key's limits.
    pub fn count(&mut self, section: &Section<'_>, key: &Key) -> Option<usize> {
        let Shape::Count(least, most) = key.shape else { return None };
        let parse = |text: &str| text.parse::<usize>().map_err(|_| "write a whole number".to_owned());
        self.parsed(section, key, |text| within(text, &least.to_string(), &most.to_string(), parse))
    }

    /// A flag.
    pub fn flag(&mut self, section: &Section<'_>, key: &Key) -> Option<bool> {
        self.parsed(section, key, |text| {
            text.parse().map_err(|_| (format!("is \"{text}\""), "write true or false".to_owned()))
        })
    }

    /// One of the key's words.
    pub fn choice(&mut self, section: &Section<'_>, key: &Key) -> Option<&'static str> {
        let Shape::OneOf(words) = key.shape else { return None };
        self.parsed(section, key, |text| {
            words.iter().copied().find(|word| *word == text).ok_or_else(|| {
                let quoted: Vec<String> = words.iter().map(|word| format!("\"{word}\"")).collect();
                let quoted: Vec<&str> = quoted.iter().map(String::as_str).collect();
                (format!("can't be \"{text}\""), format!("it is {}", either(&quoted)))
            })
        })
    }
}

/// Refuses the empty text.
pub(super) fn not_empty(text: &str) -> Result<(), Objection> {
    match text {
        "" => Err((
            "is empty".to_owned(),
            "give it a value, or leave the key out if it is not required".to_owned(),
        )),
        _ => Ok(()),
    }
}

fn within<T: PartialOrd>(
    text: &str,
    least: &str,
    most: &str,
    parse: impl Fn(&str) -> Result<T, String>,
) -> Result<T, Objection> {
    let value = parse(text).map_err(|hint| (format!("can't be \"{text}\""), hint))?;
    match (parse(least), parse(most)) {
        (Ok(low), Ok(high)) if low <= value && value <= high => Ok(value),
        _ => Err((format!("can't be {text}"), format!("choose from {least} to {most}"))),
    }
}

/// How messages name a key.
fn label(key: &Key) -> String {
    match key.table {
        "" => format!("\"{}\"", key.name),
        table => format!("\"{}\" in [{table}]", key.name),
    }
}

fn example(key: &Key) -> String {
    format!("for example: {} = {}", key.name, key.example)
}

fn expected(shape: Shape) -> &'static str {
    match shape {
        Shape::Name | Shape::Text | Shape::Secret | Shape::OneOf(_) => "a text",
        Shape::Path => "a path (a text)",
        Shape::Address => "an address (a text)",
        Shape::Addresses => "a list of addresses",
        Shape::Hosts => "a list of host:port",
        Shape::PulsarAddress => "an address (a text)",
        Shape::Start => "a place to start (a text)",
        Shape::Patterns => "a list of patterns",
        Shape::Size(..) => "a size (a text with a unit)",
        Shape::Duration(..) => "a duration (a text with a unit)",
        Shape::Count(..) => "a whole number",
        Shape::Flag => "true or false",
    }
}

fn a(noun: &str) -> String {
    let article = if noun.starts_with(['a', 'e', 'i', 'o', 'u']) { "an" } else { "a" };
    format!("{article} {noun}")
}

/// What an unknown name may have been meant to be.
fn suggestion(written: &str, path: &str, known: &[&str]) -> String {
    let key = KEYS.iter().find(|key| key.table == path && key.name == written).map(|key| key.variants);
    let table = TABLES.iter().find(|table| table.parent() == Some(path) && table.name() == written);
    if let Some(variants) = key.or(table.map(|table| table.variants)).filter(|variants| !variants.is_empty())
    {
        let variants: Vec<String> = variants.iter().map(|variant| format!("\"{variant}\"")).collect();
        let variants: Vec<&str> = variants.iter().map(String::as_str).collect();
        return format!("it goes with type = {}", either(&variants));
    }
    if let Some(near) = nearest(written, known) {
        return format!("did you mean \"{near}\"?");
    }
    let elsewhere: Vec<&str> = KEYS.iter().filter(|key| key.name == written).map(|key| key.table).collect();
    match elsewhere.as_slice() {
        [""] => "it belongs at the top level, above all tables".to_owned(),
        [table] => format!("it belongs in [{table}]"),
        _ => format!("known here: {}", known.join(", ")),
    }
}

/// The known name that is like `written`, if one is.
fn nearest<'k>(written: &str, known: &[&'k str]) -> Option<&'k str> {
    let folded = written.to_lowercase().replace('-', "_");
    let distance = |name: &str| match strsim::damerau_levenshtein(name, &folded) {
        // A name with a part left out is near however long the part is.
        _ if folded.len() > 2 && name.contains(&folded) => 1,
        distance => distance,
    };
    let (near, distance) =
        known.iter().map(|name| (*name, distance(name))).min_by_key(|(_, distance)| *distance)?;
    (distance * 3 <= near.len().max(folded.len())).then_some(near)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_near_by_typos_and_by_parts_left_out() {
        let known = ["memory", "max_lag", "etcd_username", "key"];
        assert_eq!(nearest("memmory", &known), Some("memory"));
        assert_eq!(nearest("mmeory", &known), Some("memory"));
        assert_eq!(nearest("max-lag", &known), Some("max_lag"));
        assert_eq!(nearest("MaxLag", &known), Some("max_lag"));
        assert_eq!(nearest("username", &known), Some("etcd_username"));
        assert_eq!(nearest("batch", &known), None);
        assert_eq!(nearest("kea", &known), Some("key"));
        assert_eq!(nearest("xyz", &known), None);
        assert_eq!(nearest("x", &[]), None);
    }
}
