//! The reference of all keys, as it stands in `docs/pipeline.md`.

use std::fmt::Write as _;

use super::keys::{BetweenRuns, Default, KEYS, Key, Shape, TABLES, Table};
use super::problem::either;

/// All tables and keys in Markdown.
pub fn reference() -> String {
    let mut text = String::new();
    for table in TABLES {
        if !text.is_empty() {
            text.push('\n');
        }
        text.push_str(&section(table));
        for key in KEYS.iter().filter(|key| key.table == table.path) {
            text.push('\n');
            text.push_str(&entry(key));
        }
    }
    text
}

fn section(table: &Table) -> String {
    let heading = match table.path {
        "" => "Top level".to_owned(),
        path => format!("`[{path}]`"),
    };
    let presence = match (table.path, table.variants, table.required) {
        ("", _, _) => String::new(),
        (_, _, true) => " Required.".to_owned(),
        (_, [], false) => " Optional.".to_owned(),
        (_, variants, false) => format!(" Optional; goes with {}.", types(variants)),
    };
    let keys = table.free.map_or_else(String::new, |keys| format!("\nIts keys: {keys}.\n"));
    format!("### {heading}\n\n{}{presence}\n{keys}", table.meaning)
}

fn types(variants: &[&str]) -> String {
    let quoted: Vec<String> = variants.iter().map(|variant| format!("`type = \"{variant}\"`")).collect();
    either(&quoted.iter().map(String::as_str).collect::<Vec<_>>())
}

fn entry(key: &Key) -> String {
    let mut text = format!("#### `{}`\n\n{}\n\n- Type: {}\n", key.name, key.meaning, shape(key.shape));
    if !key.variants.is_empty() {
        // Writing to a String can't fail.
        let _ = writeln!(text, "- Goes with: {}", types(key.variants));
    }
    let default = match key.default {
        Default::Required => "none, it is required".to_owned(),
        Default::Value(value) if matches!(key.shape, Shape::Count(..) | Shape::Flag) => format!("`{value}`"),
        Default::Value(value) => format!("`\"{value}\"`"),
        Default::Words(words) => words.to_owned(),
    };
    let between_runs = match key.between_runs {
        BetweenRuns::Free => "may change".to_owned(),
        BetweenRuns::Tied(why) => format!("must stay, since {why}"),
    };
    let _ = write!(
        text,
        "- Default: {default}\n- Between runs: {between_runs}\n- Example: `{} = {}`\n",
        key.name, key.example
    );
    text
}

fn shape(shape: Shape) -> String {
    match shape {
        Shape::Name => "text of letters, digits, `-` and `_`".to_owned(),
        Shape::Text => "text".to_owned(),
        Shape::Secret => "text, never printed".to_owned(),
        Shape::Path => "path".to_owned(),
        Shape::Address => "address, `http://host:port` or `https://host:port`".to_owned(),
        Shape::Hosts => "list of `host:port`, at least one".to_owned(),
        Shape::PulsarAddress => "address, `pulsar://host:port` or `pulsar+ssl://host:port`".to_owned(),
        Shape::Start => {
            "`\"collection\"`, `\"earliest\"`, `\"latest\"`, RFC 3339 time or Milvus timestamp".to_owned()
        }
        Shape::Addresses => "list of addresses, at least one".to_owned(),
        Shape::Patterns => "list of patterns".to_owned(),
        Shape::Size(least, most) => format!("size, from `{least}` to `{most}`"),
        Shape::Duration(least, most) => format!("duration, from `{least}` to `{most}`"),
        Shape::Count(least, most) => format!("whole number, from {least} to {most}"),
        Shape::Flag => "`true` or `false`".to_owned(),
        Shape::OneOf(words) => {
            let quoted: Vec<String> = words.iter().map(|word| format!("`\"{word}\"`")).collect();
            either(&quoted.iter().map(String::as_str).collect::<Vec<_>>())
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::{Path, PathBuf};
    use std::{env, fs};

    use super::*;
    use crate::pipeline::Pipeline;

    const BEGIN: &str = "<!-- keys: ";
    const END: &str = "<!-- keys end -->";

    /// Cargo runs tests in the package's folder; its path at compile time may be that of another checkout, whose build this is.
    fn root() -> PathBuf {
        PathBuf::new()
    }

    /// The document up to its reference (with the marker's line), the reference, and what follows.
    fn document() -> (String, String, String) {
        let text = fs::read_to_string(root().join("docs/pipeline.md")).unwrap();
        let begin = text.find(BEGIN).unwrap();
        let begin = begin + text[begin..].find('\n').unwrap() + 1;
        let end = text.find(END).unwrap();
        (text[..begin].to_owned(), text[begin..end].to_owned(), text[end..].to_owned())
    }

    #[test]
    fn the_documented_reference_is_that_of_the_code() {
        let (before, documented, after) = document();
        let wanted = format!("\n{}\n", reference());
        if env::var_os("MIGRANS_WRITE_DOCS").is_some() {
            fs::write(root().join("docs/pipeline.md"), format!("{before}{wanted}{after}")).unwrap();
            return;
        }
        assert!(
            documented == wanted,
            "docs/pipeline.md is not up to date: run MIGRANS_WRITE_DOCS=1 cargo test --release reference"
        );
    }

    /// Keys as (table, name) and defaults as the document's own words have them.
    fn documented() -> BTreeSet<(String, String, String)> {
        let mut found = BTreeSet::new();
        let (mut table, mut name) = (String::new(), String::new());
        for line in document().1.lines() {
            if let Some(heading) = line.strip_prefix("### ") {
                table = heading.trim_matches(['`', '[', ']']).replace("Top level", "");
            } else if let Some(heading) = line.strip_prefix("#### ") {
                name = heading.trim_matches('`').to_owned();
            } else if let Some(default) = line.strip_prefix("- Default: ") {
                found.insert((table.clone(), name.clone(), default.to_owned()));
            }
        }
        found
    }

    #[test]
    fn every_key_is_documented_once_and_no_other_is() {
        let documented: Vec<_> = documented().into_iter().map(|(table, name, _)| (table, name)).collect();
        let mut keys: Vec<_> = KEYS.iter().map(|key| (key.table.to_owned(), key.name.to_owned())).collect();
        keys.sort();
        assert_eq!(documented, keys);
    }

    #[test]
    fn documented_defaults_are_what_a_file_without_the_key_gets() {
        let minimal = |mq: &str| {
            format!(
                "name = \"p\"\nsource = {{ etcd = [\"http://e:1\"], mq = {{ {mq} }} }}\n\
                 select = {{ collections = [\"a.b\"] }}\ntarget = {{ type = \"milvus\", uri = \"http://t:1\" }}\n\
                 ownership.etcd=[\"http://o:1\"]\n"
            )
        };
        let lookup = |name: &str| (name == "HOME").then(|| "/home/me".into());
        for mq in [
            "type = \"rocksmq\", path = \"q\"",
            "type = \"kafka\", brokers = [\"b:1\"]",
            "type = \"pulsar\", uri = \"pulsar://b:1\"",
        ] {
            let queue = mq.split('"').nth(1).unwrap();
            let minimal = minimal(mq);
            let silent = Pipeline::parse(&minimal, Path::new("/etc/p.toml"), &lookup).unwrap();
            // The same file with every documented default written out is the same pipeline.
            let mut explicit = minimal.clone();
            for (table, name, default) in documented() {
                let Some(value) = default.strip_prefix('`').and_then(|rest| rest.strip_suffix('`')) else {
                    continue;
                };
                if value.starts_with('$') {
                    continue;
                }
                match table.as_str() {
                    "source" => explicit = explicit.replace("etcd =", &format!("{name} = {value}, etcd =")),
                    "source.mq" => {
                        let key = KEYS.iter().find(|key| key.table == table && key.name == name).unwrap();
                        if key.variants.contains(&queue) {
                            explicit = explicit.replace(mq, &format!("{mq}, {name} = {value}"));
                        }
                    }
                    "target" => {
                        explicit =
                            explicit.replace("uri = \"http", &format!("{name} = {value}, uri = \"http"))
                    }
                    "catalog" | "delivery" | "ownership" | "restart" => {
                        explicit.push_str(&format!("{table}.{name} = {value}\n"));
                    }
                    other => panic!("write out the defaults of [{other}] here too"),
                }
            }
            assert_eq!(explicit.matches("delivery.").count(), 6);
            let written = Pipeline::parse(&explicit, Path::new("/etc/p.toml"), &lookup).unwrap();
            assert_eq!(format!("{written:?}"), format!("{silent:?}"));
        }
    }

    #[test]
    fn a_key_must_stay_exactly_if_the_fingerprint_says_so() {
        let lookup = |name: &str| (name == "HOME" || name == "TARGET_TOKEN").then(|| "/home/me".into());
        let mq = |kind: &str| match kind {
            "kafka" => "type = \"kafka\"\nbrokers = [\"b:1\"]",
            "pulsar" => "type = \"pulsar\"\nuri = \"pulsar://b:1\"",
            _ => "type = \"rocksmq\"\npath = \"q\"",
        };
        let file = |queue: &str| {
            let text = format!(
                "name = \"p\"\n[source]\netcd = [\"http://e:1\"]\n[source.mq]\n{}\n[select]\ncollections = \
                 [\"a.b\"]\n[target]\ntype = \"milvus\"\nuri = \"http://t:1\"\n[ownership]\netcd = [\"http://o:1\"]\n",
                mq(queue)
            );
            text.parse::<toml::Table>().unwrap()
        };
        let read = |file: &toml::Table| {
            let pipeline =
                Pipeline::parse(&toml::to_string(file).unwrap(), Path::new("/etc/p.toml"), &lookup);
            pipeline.map(|pipeline| (pipeline.name.clone(), pipeline.fingerprint()))
        };
        let mut free = Vec::new();
        for key in KEYS {
            let queue = key.variants.first().copied().unwrap_or("rocksmq");
            let mut changed = file(queue);
            let before = read(&changed).unwrap();
            let is_tied = key.between_runs != BetweenRuns::Free;
            let value = match (key.table, key.name) {
                // Of another type, all the rest of the table is another too.
                ("source.mq", "type") => {
                    assert_ne!(before, read(&file("kafka")).unwrap());
                    assert!(is_tied);
                    continue;
                }
                ("target", "type") => {
                    changed.insert("target".into(), "type = \"null\"".parse::<toml::Table>().unwrap().into());
                    assert_ne!(before, read(&changed).unwrap());
                    assert!(is_tied);
                    continue;
                }
                _ => {
                    let is_default = matches!(key.default, Default::Value(value)
                        if key.example.trim_matches('"') == value);
                    let value = if is_default { "\"another\"" } else { key.example };
                    format!("x = {value}").parse::<toml::Table>().unwrap().remove("x").unwrap()
                }
            };
            let mut table = &mut changed;
            for part in key.table.split('.').filter(|part| !part.is_empty()) {
                let inner = table.entry(part).or_insert_with(|| toml::Table::new().into());
                table = inner.as_table_mut().unwrap();
            }
            table.insert(key.name.to_owned(), value);
            // What is refused for want of another key (user name without password) changes nothing by itself.
            match read(&changed) {
                Ok(after) => assert_eq!(after != before, is_tied, "{} in [{}]", key.name, key.table),
                Err(_) => {
                    assert!(
                        !is_tied,
                        "{} in [{}]: give it a value that can be read alone",
                        key.name, key.table
                    );
                    free.push(key.name);
                }
            }
        }
        // Credentials and certificates, which go in pairs or with another form of address.
        free.retain(|name| {
            !["username", "password", "token", "security", "server_name", "ca", "cert", "key"]
                .contains(&name.trim_start_matches("etcd_"))
        });
        assert_eq!(free, Vec::<&str>::new());
    }

    #[test]
    fn files_in_the_documents_are_valid() {
        let (before, ..) = document();
        let example = before.split("```toml\n").nth(1).unwrap().split("```").next().unwrap();
        let pipeline = Pipeline::parse(example, Path::new("/p.toml"), &|_| Some("/x".into())).unwrap();
        assert_eq!(pipeline.name, "orders-standby");
    }

    #[test]
    fn every_ready_file_is_valid_and_named_as_its_file() {
        let lookup = |name: &str| match name {
            "HOME" => Some("/home/me".into()),
            "TARGET_TOKEN" => Some("user:password".into()),
            _ => None,
        };
        let mut found = 0;
        for entry in fs::read_dir(root().join("pipelines")).unwrap() {
            let path = entry.unwrap().path();
            let text = fs::read_to_string(&path).unwrap();
            let pipeline = Pipeline::parse(&text, &path, &lookup).unwrap_or_else(|error| panic!("{error:?}"));
            assert_eq!(Some(pipeline.name.as_str()), path.file_stem().and_then(|stem| stem.to_str()));
            found += 1;
        }
        assert!(found >= 4, "{found} files");
    }
}
