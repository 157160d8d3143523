//! The checkpoint: what a pipeline needs to go on exactly where it was.
//!
//! ```text
//!  operators ──Update──► writer's thread ──RecordChange──► RocksDB in the state folder ──► a second place, if any
//!                              Checkpoint ◄──Records──────────┘ (or an exported file, or that second place)
//! ```
//!
//! | record | value |
//! |---|---|
//! | `format` | version of this layout |
//! | `pipeline` | whose state this is: the pipeline's name and what it must not change |
//! | `source` | which cluster the source is, and the highest revision of its etcd that was seen |
//! | `began` | where the pipeline began, unless with everything: what is not later was never to be copied |
//! | `frontier` | F: every change with ts ≤ F is on the target |
//! | `position/<pchannel>` | where to read from to see everything with ts > F |
//! | `sent_high/<vchannel>` | the highest ts that any call sent so far may carry |
//! | `calls_until` | Unix milliseconds after which no call sent so far can still take effect |
//! | `clean` | present if nothing was in flight at the last stop |
//! | `database/<id>`, `collection/<id>` | what was made on the target, as far as it was made |
//! | `adopted/<id>` | a collection that was there before and was adopted |
//! | `intent/<id>` | a collection that is about to be created: it is ours if it is found there later |
//! | `seal` | how many records there are and the sum of their checksums: none is missing |
//!
//! Every write is one synced batch, so each state on disk is one that the pipeline was in. A value is JSON and a
//! checksum over key and JSON: they are few and small, and a person can read them.

use std::path::Path;

pub use self::owner::{check as of_pipeline, check_name as of_pipeline_named, tell as owner};
pub use self::records::{RecordChange, Records};
pub use self::show::Shown;
pub use self::source::{Source, moment};
pub use self::state::{Checkpoint, Update};
pub use self::store::{Store, destroy, is_in_use};
pub use self::writer::{Serving, Storage, Writer};
use crate::error::{Error, Kind, Result};
use crate::milvus::tso::Tso;
use crate::pipeline::Pipeline;

pub mod export;
mod owner;
pub mod records;
mod rewind;
mod show;
mod source;
mod state;
mod store;
#[cfg(test)]
mod tests;
mod writer;

/// Opens the state folder of `pipeline`, creating it if it is new, and reads what it says.
///
/// What [`Pipeline::fingerprint`] covers may not change between runs on one folder. The folder stays locked until the
/// returned [`Writer`] and its clones are gone.
pub fn open(folder: &Path, pipeline: &Pipeline) -> Result<(Writer, Checkpoint)> {
    let mut store = Store::open(folder)?;
    let records = load(&mut store, pipeline)?;
    let checkpoint = Checkpoint::from_records(&records).map_err(|error| error.context(store.describe()))?;
    Ok((Writer::start(&records, vec![Box::new(store)])?, checkpoint))
}

/// All records of `store`, which are whole, of this format and of `pipeline`. An empty store is made its own.
pub fn load(store: &mut Store, pipeline: &Pipeline) -> Result<Records> {
    let mut records = store.records()?;
    if records.is_empty() {
        let changes = owner::beginning(pipeline)?;
        store.write(&changes)?;
        records::apply(&mut records, &changes);
    }
    records::check(&records)
        .and_then(|()| owner::check(&records, pipeline))
        .map_err(|error| error.context(store.describe()))?;
    Ok(records)
}

/// All records in `folder`, which are whole and of this format, whosever they are. The folder may be in use.
///
/// Errors: `Checkpoint` if there is no state, or it is damaged.
pub fn look(folder: &Path) -> Result<Records> {
    exists(folder)?;
    let records = Store::look(folder)?;
    records::check(&records)
        .map_err(|error| error.context(format!("the state folder {}", folder.display())))?;
    Ok(records)
}

/// F of `pipeline`, whose folder may be in use. `None`: nothing was committed yet, or there is no state.
///
/// Errors: `Checkpoint`: the folder is another pipeline's, or damaged.
pub fn peek(folder: &Path, pipeline: &Pipeline) -> Result<Option<Tso>> {
    if exists(folder).is_err() {
        return Ok(None);
    }
    let records = Store::look(folder)?;
    if records.is_empty() {
        return Ok(None);
    }
    records::check(&records)
        .and_then(|()| owner::check(&records, pipeline))
        .and_then(|()| Ok(Checkpoint::from_records(&records)?.frontier))
        .map_err(|error| error.context(format!("the state folder {}", folder.display())))
}

/// Errors: `Checkpoint` if there is no state in `folder`.
pub fn exists(folder: &Path) -> Result<()> {
    if folder.join("CURRENT").exists() {
        return Ok(());
    }
    Err(Error::new(Kind::Checkpoint, format!("there is no state in {}", folder.display()))
        .hint("has the pipeline run yet? Check state_dir in the pipeline file"))
}

/// Puts `new` in the place of `old` in `store`, with `updates` on top, all at once.
pub fn replace(store: &mut Store, old: &Records, new: &Records, updates: &[Update]) -> Result<()> {
    let mut changes: Vec<RecordChange> = old.keys().cloned().map(RecordChange::Delete).collect();
    changes.extend(new.iter().map(|(key, value)| RecordChange::Put(key.clone(), value.clone())));
    let mut after = Vec::new();
    for update in updates {
        after.extend(update.changes()?);
    }
    records::Seal::of(new)?.seal(&mut after)?;
    changes.extend(after);
    store.write(&changes)
}
