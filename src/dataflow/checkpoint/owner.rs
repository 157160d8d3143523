//! Whose state it is.

use crc::{CRC_32_ISCSI, Crc};
use serde::{Deserialize, Serialize};

use super::records::{self, PIPELINE, RecordChange, Records, Seal};
use super::show::Shown;
use crate::error::{Error, Kind, Result};
use crate::pipeline::Pipeline;

#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Owner {
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

/// Whether `records` are those of `pipeline`, and it is still the one that they were made for.
///
/// Errors: `Checkpoint`, with what is different.
pub fn check(records: &Records, pipeline: &Pipeline) -> Result<()> {
    check_name(records, pipeline)?;
    let differences = differences(&read(records)?, pipeline);
    if !differences.is_empty() {
        let message =
            format!("it was made for another source, selection or target: {}", differences.join("; "));
        return Err(Error::new(Kind::Checkpoint, message).hint(
            "undo that change in the pipeline file; or give the changed pipeline another name and state_dir, and an \
             empty target or adopt = true; or start afresh (migrans checkpoint reset)",
        ));
    }
    Ok(())
}

/// Whether `records` are those of a pipeline of this name.
///
/// Errors: `Checkpoint`.
pub fn check_name(records: &Records, pipeline: &Pipeline) -> Result<()> {
    let owner = read(records)?;
    if owner.name == pipeline.name {
        return Ok(());
    }
    let message = format!("it belongs to the pipeline {:?}, not to {:?}", owner.name, pipeline.name);
    Err(Error::new(Kind::Checkpoint, message)
        .hint("set state_dir in the pipeline file to a folder of its own"))
}

/// Adds to `shown` whose state it is, and what the pipeline file says otherwise now.
pub fn tell(records: &Records, pipeline: &Pipeline, shown: &mut Shown) -> Result<()> {
    let owner = read(records)?;
    shown.differences = differences(&owner, pipeline);
    if owner.name != pipeline.name {
        shown.differences.insert(0, format!("name was {}, is {}", owner.name, pipeline.name));
    }
    const CRC32C: Crc<u32> = Crc::<u32>::new(&CRC_32_ISCSI);
    shown.definition = format!("{:08x}", CRC32C.checksum(owner.identity.as_bytes()));
    shown.pipeline = owner.name;
    Ok(())
}

fn read(records: &Records) -> Result<Owner> {
    Ok(records::get(records, PIPELINE)?.unwrap_or_default())
}

fn differences(owner: &Owner, pipeline: &Pipeline) -> Vec<String> {
    if owner.identity == pipeline.fingerprint() {
        return Vec::new();
    }
    pipeline.differences_from(&owner.identity).into_iter().map(|difference| difference.text).collect()
}
