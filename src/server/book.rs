//! The store of a server: which pipelines there are, and what each is to be.
//!
//! It is one more state folder, with a record for each pipeline. Definitions may hold secrets: nobody but the user that the
//! server runs as may read it.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::dataflow::checkpoint::{RecordChange, Storage, Store, records};
use crate::error::Result;

/// Which layout the records have.
const FORMAT: u32 = 1;
const FORMAT_KEY: &str = "server";
const PREFIX: &str = "pipeline/";

/// What is kept of a pipeline.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// What its file would say, with the secrets in it.
    pub definition: Value,
    /// What its state is bound to.
    pub fingerprint: String,
    /// What it is to be.
    pub wanted: Wanted,
    /// What somebody keeps with it. It may hold secrets.
    pub extra: Value,
    /// When it was made, and when its definition was changed last (RFC 3339).
    pub created: String,
    /// See `created`.
    pub changed: String,
}

/// What a pipeline is to be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Wanted {
    /// Running.
    Running,
    /// Paused; maybe why.
    Paused(Option<String>),
    /// Gone.
    Gone(StateOf),
}

/// What becomes of the state of a pipeline that is removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum StateOf {
    /// It stays: a pipeline of the same name and definition goes on from it.
    #[default]
    Keep,
    /// It is deleted, and so is what the pipeline keeps in the queue.
    Remove,
}

/// The store.
pub struct Book(Mutex<Store>);

impl Book {
    /// Opens the store in `folder`, and reads what is in it.
    ///
    /// # Errors
    /// `Checkpoint`.
    pub fn open(folder: &Path) -> Result<(Book, BTreeMap<String, Record>)> {
        let mut store = Store::open(folder)?;
        let found = store.records()?;
        let format: Option<u32> =
            records::get(&found, FORMAT_KEY).map_err(|error| error.context(store.describe()))?;
        match format {
            Some(FORMAT) => {}
            None if found.is_empty() => store.write(&[records::put(FORMAT_KEY, &FORMAT)?])?,
            _ => {
                let message = format!("{} is not that of a server, or of another version", store.describe());
                return Err(crate::Error::new(crate::Kind::Checkpoint, message)
                    .hint("set data_dir to the folder of this server"));
            }
        }
        let mut pipelines = BTreeMap::new();
        for (key, stored) in &found {
            if let Some(name) = key.strip_prefix(PREFIX) {
                let record = records::decode(key, stored).map_err(|error| error.context(store.describe()))?;
                pipelines.insert(name.to_owned(), record);
            }
        }
        Ok((Book(Mutex::new(store)), pipelines))
    }

    /// Makes this the record of the pipeline `name`. Durable when it returns.
    pub fn put(&self, name: &str, record: &Record) -> Result<()> {
        self.write(records::put(format!("{PREFIX}{name}"), record)?)
    }

    /// Forgets the pipeline `name`.
    pub fn delete(&self, name: &str) -> Result<()> {
        self.write(RecordChange::Delete(format!("{PREFIX}{name}")))
    }

    fn write(&self, change: RecordChange) -> Result<()> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).write(&[change])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(secret: &str) -> Record {
        Record {
            definition: serde_json::json!({"target": {"token": secret}}),
            fingerprint: "f".into(),
            wanted: Wanted::Paused(Some("lunch".into())),
            extra: serde_json::json!({"request": [1]}),
            created: "2026-11-22T10:00:00Z".into(),
            changed: "2026-11-22T10:00:00Z".into(),
        }
    }

    #[test]
    fn what_was_put_is_there_after_opening_again() {
        let folder = tempfile::tempdir().unwrap();
        let (book, empty) = Book::open(folder.path()).unwrap();
        assert!(empty.is_empty());
        book.put("a", &record("s")).unwrap();
        book.put("b", &record("t")).unwrap();
        book.delete("a").unwrap();
        drop(book);
        let (_book, found) = Book::open(folder.path()).unwrap();
        assert_eq!(found, BTreeMap::from([("b".to_owned(), record("t"))]));
    }

    #[test]
    fn the_folder_of_something_else_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = Store::open(folder.path()).unwrap();
        store.write(&records::nothing_yet().unwrap()).unwrap();
        drop(store);
        let error = Book::open(folder.path()).err().unwrap();
        assert!(error.message().contains("is not that of a server"), "{error}");
    }
}
