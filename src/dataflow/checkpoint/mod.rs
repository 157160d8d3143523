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
//! | `epoch` | with `[ownership]`: the fencing epoch of the run that wrote this |
//! | `source` | which cluster the source is, and the highest revision of its etcd that was seen |
//! | `began` | where the pipeline began, unless with everything: what is not later was never to be copied |
//! | `frontier` | F: every change with ts ≤ F is on the target |
//! | `position/<pchannel>` | where to read from to see everything with ts > F |
//! | `sent_high/<vchannel>` | the highest ts that any call sent so far may carry |
//! | `calls_until` | Unix milliseconds after which no call sent so far can still take effect |
//! | `clock` | by which clock that is (see [`crate::clock`]) |
//! | `clean` | present if nothing was in flight at the last stop |
//! | `database/<id>`, `collection/<id>` | what was made on the target, as far as it was made |
//! | `alias/<database>.<alias>` | an alias that was made on the target |
//! | `access` | roles and what belongs to them, as far as they were brought in line |
//! | `adopted/<id>` | a collection that was there before and was adopted |
//! | `intent/<id>`, `intent/database.<id>`, `intent/alias.<alias>`, `intent/access` | a step of the catalog that has begun: a start after a crash finishes it |
//! | `seal` | how many records there are and the sum of their checksums: none is missing |
//!
//! Every write is one synced batch, so each state on disk is one that the pipeline was in. A value is JSON and a
//! checksum over key and JSON: they are few and small, and a person can read them.

use std::path::Path;

pub use self::owner::{check as of_pipeline, check_name as of_pipeline_named, tell as owner};
pub use self::records::{RecordChange, Records, Seal};
pub use self::show::Shown;
pub use self::source::{Source, moment};
pub use self::state::{Checkpoint, Update};
pub use self::store::{Store, destroy, is_in_use};
pub use self::writer::{Serving, Storage, Writer};
use crate::error::{Error, Kind, Result};
use crate::failpoint::{self, Point};
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

/// Reads what the state folder of `pipeline` says.
///
/// What [`Pipeline::fingerprint`] covers may not change between runs on one folder. The folder stays locked until the
/// returned [`Writer`] and its clones are gone.
pub fn open(mut store: Store, pipeline: &Pipeline) -> Result<(Writer, Checkpoint)> {
    let records = load(&mut store, pipeline)?;
    if records.contains_key(records::EPOCH) {
        let message = format!(
            "{} is a copy of a checkpoint that is kept in an etcd, and [ownership] is not in the pipeline file",
            store.describe()
        );
        return Err(Error::new(Kind::Checkpoint, message)
            .hint("write [ownership] into it as it was; another process may have gone on from there"));
    }
    let checkpoint = Checkpoint::from_records(&records).map_err(|error| error.context(store.describe()))?;
    Ok((Writer::start(&records, vec![Box::new(store)])?, checkpoint))
}

/// Opens the checkpoint of a pipeline whose truth is in an etcd at `place`: `found` is what is there, `replica` what
/// writes there. The state folder becomes a copy of it. If nothing is there yet, it begins with what is in the state
/// folder, which must not be such a copy then.
pub fn open_shared(
    mut store: Store,
    mut replica: Box<dyn Storage>,
    found: Records,
    pipeline: &Pipeline,
    epoch: i64,
    place: &str,
) -> Result<(Writer, Checkpoint)> {
    let local = store.records()?;
    let copy_of: Option<i64> = records::get(&local, records::EPOCH).ok().flatten();
    let mut records = if found.is_empty() {
        if copy_of.is_some() {
            let message =
                format!("{} is a copy of a checkpoint that is no longer there: {place}", store.describe());
            return Err(Error::new(Kind::Checkpoint, message).hint(
                "was the pipeline removed, is this another etcd or prefix? To start afresh, delete the state folder",
            ));
        }
        let records = load(&mut store, pipeline)?;
        replica.write(&as_changes(&records))?;
        records
    } else {
        records::check(&found)
            .and_then(|()| owner::check(&found, pipeline))
            .map_err(|error| error.context(place))?;
        let there: Option<i64> = records::get(&found, records::EPOCH)?;
        if copy_of > there {
            let message = format!("{place} is older than its copy in {}", store.describe());
            return Err(Error::new(Kind::Checkpoint, message).hint(
                "was that etcd restored from a backup? What was applied since then would be applied again: see \
                 docs/ownership.md",
            ));
        }
        if !local.is_empty() {
            owner::check_name(&local, pipeline).map_err(|error| error.context(store.describe()))?;
        }
        if local != found {
            replace(&mut store, &local, &found, &[])?;
        }
        found
    };
    let checkpoint = Checkpoint::from_records(&records).map_err(|error| error.context(place))?;
    // From now on calls may be in flight, be it only those of a step of the catalog.
    let mut changes =
        vec![records::put(records::EPOCH, &epoch)?, RecordChange::Delete(records::CLEAN.to_owned())];
    Seal::of(&records)?.seal(&mut changes)?;
    // The folder last: it must not know of an epoch that the etcd does not.
    replica.write(&changes)?;
    store.write(&changes)?;
    records::apply(&mut records, &changes);
    Ok((Writer::start(&records, vec![Box::new(store), replica])?, checkpoint))
}

fn as_changes(records: &Records) -> Vec<RecordChange> {
    records.iter().map(|(key, value)| RecordChange::Put(key.clone(), value.clone())).collect()
}

/// All records of `store`, which are whole, of this format and of `pipeline`. An empty store is made its own.
pub fn load(store: &mut Store, pipeline: &Pipeline) -> Result<Records> {
    let mut records = store.records()?;
    if records.is_empty() {
        failpoint::pass(Point::StartOpened);
        let changes = owner::beginning(pipeline)?;
        store.write(&changes)?;
        failpoint::pass(Point::StartOwned);
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
pub fn replace(store: &mut dyn Storage, old: &Records, new: &Records, updates: &[Update]) -> Result<()> {
    let mut changes: Vec<RecordChange> = old.keys().cloned().map(RecordChange::Delete).collect();
    changes.extend(as_changes(new));
    let mut after = Vec::new();
    for update in updates {
        after.extend(update.changes()?);
    }
    records::Seal::of(new)?.seal(&mut after)?;
    changes.extend(after);
    store.write(&changes)
}
