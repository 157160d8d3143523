//! `[cdc]` in the server's file: what milvus-cdc has in a file of its own.

use std::path::Path;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::validate::Limits;
use crate::error::{Error, Kind, Result};
use crate::pipeline::env::{self, Lookup};
use crate::pipeline::{Pipeline, References, Surroundings};

/// `[cdc]`, as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Table {
    /// The source of all tasks: the keys of `[source]` of a pipeline file.
    source: Map<String, Value>,
    /// The most tasks at a time.
    #[serde(default = "max_task_num")]
    max_task_num: usize,
    /// The most bytes in the name of a database or collection.
    #[serde(default = "max_name_length")]
    max_name_length: usize,
    /// The only name that a request may give as that of milvus-cdc's channel for DDL; without it, any will do.
    replicate_channel: Option<String>,
}

fn max_task_num() -> usize {
    100
}

fn max_name_length() -> usize {
    256
}

/// What holds for all tasks.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `[source]` of their definitions.
    pub(super) source: Map<String, Value>,
    /// What requests may be.
    pub(super) limits: Limits,
}

impl Table {
    /// Reads `source` with the reader of pipeline files, in a file in `folder`.
    ///
    /// # Errors
    /// `PipelineFile`, with everything that is wrong.
    pub fn settings(&self, folder: &Path, lookup: Lookup<'_>) -> Result<Settings> {
        if self.max_task_num == 0 {
            return Err(Error::new(Kind::PipelineFile, "max_task_num in [cdc] is 0: no task could be made")
                .hint("leave it out, or choose a number from 1 on"));
        }
        let mut source = Value::Object(self.source.clone());
        resolve(&mut source, lookup)?;
        let definition = json!({
            "name": "cdc",
            "source": source,
            "select": { "collections": ["*.*"] },
            "target": { "type": "null" },
        });
        let nothing = |_: &str| None;
        let surroundings = Surroundings {
            folder,
            lookup: &nothing,
            references: References::InSecrets,
            states: Some(folder),
        };
        Pipeline::from_values(&definition, &surroundings).map_err(|error| error.context("[cdc.source]"))?;
        let Value::Object(source) = source else { return Err(Error::new(Kind::Internal, "no object")) };
        let limits = Limits {
            max_tasks: self.max_task_num,
            max_name_length: self.max_name_length,
            replicate_channel: self.replicate_channel.clone(),
        };
        Ok(Settings { source, limits })
    }
}

/// References to the environment are for the server's file alone: definitions get what they stand for.
fn resolve(value: &mut Value, lookup: Lookup<'_>) -> Result<()> {
    match value {
        Value::String(text) => {
            let done = env::substitute(text, lookup).map_err(|faults| {
                let messages: Vec<String> = faults.into_iter().map(|fault| fault.message).collect();
                Error::new(Kind::PipelineFile, format!("[cdc.source]: {}", messages.join("; ")))
            })?;
            *text = done.text.replace('$', "$$");
            Ok(())
        }
        Value::Array(items) => items.iter_mut().try_for_each(|item| resolve(item, lookup)),
        Value::Object(entries) => entries.values_mut().try_for_each(|value| resolve(value, lookup)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(text: &str) -> Result<Settings> {
        let table: Table = toml::from_str(text).unwrap();
        let lookup = |name: &str| (name == "PASSWORD").then(|| "a$b".into());
        table.settings(Path::new("/etc/migrans"), &lookup)
    }

    const SOURCE: &str = r#"
        [source]
        etcd = ["http://e:2379"]
        etcd_username = "u"
        etcd_password = "${PASSWORD}"
        mq = { type = "rocksmq", path = "/mq" }
    "#;

    #[test]
    fn the_source_is_read_and_the_limits_have_defaults_that_work() {
        let settings = settings(SOURCE).unwrap();
        assert_eq!(settings.source["etcd_password"], "a$$b");
        assert_eq!((settings.limits.max_tasks, settings.limits.max_name_length), (100, 256));
        assert_eq!(settings.limits.replicate_channel, None);
    }

    #[test]
    fn what_is_wrong_with_it_is_told_as_of_a_pipeline_file() {
        for (text, message) in [
            (SOURCE.replace("PASSWORD", "OTHER"), "environment variable OTHER is not set"),
            (SOURCE.replace("http://e:2379", "e:2379"), "does not begin with http://"),
            (SOURCE.replace("etcd =", "etdc ="), "unknown key \"etdc\" in [source]"),
            (format!("max_task_num = 0\n{SOURCE}"), "no task could be made"),
        ] {
            let error = settings(&text).unwrap_err();
            assert_eq!(error.kind(), Kind::PipelineFile);
            assert!(error.message().contains(message), "{error}");
        }
    }
}
