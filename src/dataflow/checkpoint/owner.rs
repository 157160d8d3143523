//! Whose state it is.

use serde::{Deserialize, Serialize};

use super::records::{self, PIPELINE, RecordChange, Records, Seal};
use crate::error::{Error, Kind, Result};
use crate::pipeline::Pipeline;

#[derive(Debug, Default, Serialize, Deserialize)]
struct Owner {
    name: String,
    identity: String,
}

/// The records of a pipeline that has not run yet.
pub fn beginning(pipeline: &Pipeline) -> Result<Vec<RecordChange>> {
    let mut changes = records::nothing_yet()?;
    let owner = Owner { name: pipeline.name.clone(), identity: pipeline.fingerprint() };
    changes.push(records::put(PIPELINE, &owner)?);
    Seal::default().seal(&mut changes)?;
    Ok(changes)
}

/// Whether `records` are those of `pipeline`.
///
/// Errors: `Checkpoint`, with what is different.
pub fn check(records: &Records, pipeline: &Pipeline) -> Result<()> {
    let owner: Owner = records::get(records, PIPELINE)?.unwrap_or_default();
    if owner.name != pipeline.name {
        let message = format!("it belongs to the pipeline {:?}, not to {:?}", owner.name, pipeline.name);
        return Err(Error::new(Kind::Checkpoint, message)
            .hint("set state_dir in the pipeline file to a folder of its own"));
    }
    if owner.identity != pipeline.fingerprint() {
        let differences = pipeline.differences_from(&owner.identity).join("; ");
        let message = format!("it was made for another source, selection or target: {differences}");
        return Err(Error::new(Kind::Checkpoint, message)
            .hint("undo that change in the pipeline file, or start afresh with another name and state_dir"));
    }
    Ok(())
}
