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
//! | `frontier` | F: every change with ts ≤ F is on the target |
//! | `position/<pchannel>` | where to read from to see everything with ts > F |
//! | `sent_high/<vchannel>` | the highest ts that any call sent so far may carry |
//! | `calls_until` | Unix milliseconds after which no call sent so far can still take effect |
//! | `clean` | present if nothing was in flight at the last stop |
//! | `database/<id>`, `collection/<id>` | what was made on the target, as far as it was made |
//! | `adopted/<id>` | a collection that was there before and was adopted |
//! | `intent/<id>`, `intent/database.<id>` | a step of the catalog that has begun: a start after a crash finishes it |
//! | `seal` | how many records there are and the sum of their checksums: none is missing |
//!
//! Every write is one synced batch, so each state on disk is one that the pipeline was in. A value is JSON and a
//! checksum over key and JSON: they are few and small, and a person can read them.

use std::path::Path;

pub use self::records::{RecordChange, Records};
pub use self::state::{Checkpoint, Update};
pub use self::store::{Store, destroy};
pub use self::writer::{Serving, Storage, Writer};
use crate::error::Result;
use crate::failpoint::{self, Point};
use crate::pipeline::Pipeline;

mod owner;
pub mod records;
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
