//! How many messages, rows and bytes there are, by collection and kind.

use std::collections::BTreeMap;
use std::io::{self, Write};

use serde::Serialize;

use super::line::Line;

/// The counts so far.
#[derive(Debug, Default)]
pub(super) struct Counts(BTreeMap<(String, &'static str), Count>);

#[derive(Clone, Copy, Debug, Default, Serialize)]
struct Count {
    messages: usize,
    rows: usize,
    bytes: usize,
}

#[derive(Serialize)]
struct Json<'c> {
    collection: &'c str,
    kind: &'c str,
    #[serde(flatten)]
    count: Count,
}

impl Counts {
    pub(super) fn add(&mut self, line: &Line) {
        let collection = line.collection_text().unwrap_or_default();
        let count = self.0.entry((collection, line.kind())).or_default();
        count.messages += 1;
        count.rows += line.rows();
        count.bytes += line.bytes();
    }

    pub(super) fn print(&self, out: &mut impl Write, json: bool) -> io::Result<()> {
        if json {
            for ((collection, kind), count) in &self.0 {
                serde_json::to_writer(&mut *out, &Json { collection, kind, count: *count })?;
                out.write_all(b"\n")?;
            }
            return Ok(());
        }
        let width =
            self.0.keys().map(|(collection, _)| collection.chars().count()).max().unwrap_or(0).max(10);
        writeln!(
            out,
            "{:<width$}  {:<17} {:>10} {:>12} {:>15}",
            "collection", "kind", "messages", "rows", "bytes"
        )?;
        for ((collection, kind), count) in &self.0 {
            let Count { messages, rows, bytes } = count;
            writeln!(out, "{collection:<width$}  {kind:<17} {messages:>10} {rows:>12} {bytes:>15}")?;
        }
        Ok(())
    }
}
