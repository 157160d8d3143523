//! A checkpoint as one file: JSON, with a checksum over the whole.
//!
//! ```json
//! { "what": "migrans checkpoint", "format": 2, "made": 1795416637000,
//!   "records": { "frontier": "461373440000000000 #1c2f9a04", … }, "checksum": "5be2c0d1" }
//! ```
//!
//! The records are as they are stored, each with its own checksum; the one of the file covers all that stands before it.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::Path;

use crc::{CRC_32_ISCSI, Crc};
use serde::{Deserialize, Serialize};

use super::records::{self, FORMAT, Records};
use crate::error::{Error, Kind, Result};

const WHAT: &str = "migrans checkpoint";

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Export {
    what: String,
    format: u32,
    /// Unix milliseconds.
    made: u64,
    records: std::collections::BTreeMap<String, String>,
    checksum: String,
}

impl Export {
    fn sum(&self) -> String {
        const CRC32C: Crc<u32> = Crc::<u32>::new(&CRC_32_ISCSI);
        let mut digest = CRC32C.digest();
        for part in [&self.what, &self.format.to_string(), &self.made.to_string()] {
            digest.update(part.as_bytes());
            digest.update(&[0]);
        }
        for (key, value) in &self.records {
            digest.update(key.as_bytes());
            digest.update(&[0]);
            digest.update(value.as_bytes());
            digest.update(&[0]);
        }
        format!("{:08x}", digest.finalize())
    }
}

/// Writes `records`, which are whole, to a new `file`, and says nothing until it is on disk. `made` is in Unix milliseconds.
///
/// Errors: `Checkpoint` if there is such a file already, or it can't be written.
pub fn write(records: &Records, made: u64, file: &Path) -> Result<()> {
    records::check(records)?;
    let text = |bytes: &Vec<u8>| String::from_utf8_lossy(bytes).into_owned();
    let records = records.iter().map(|(key, value)| (key.clone(), text(value))).collect();
    let mut export = Export { what: WHAT.into(), format: FORMAT, made, records, checksum: String::new() };
    export.checksum = export.sum();
    let mut bytes = serde_json::to_vec_pretty(&export)
        .map_err(|cause| Error::new(Kind::Internal, "can't encode the export").caused_by(cause))?;
    bytes.push(b'\n');
    let failed = |cause: std::io::Error| {
        let error = Error::new(Kind::Checkpoint, format!("can't write {}", file.display()));
        let hint = match cause.kind() {
            ErrorKind::AlreadyExists => "there is such a file: give another name, or take it away",
            ErrorKind::StorageFull => "make room on its disk",
            _ => "give a file in a folder that can be written to",
        };
        error.hint(hint).caused_by(cause)
    };
    let mut out = File::create_new(file).map_err(failed)?;
    out.write_all(&bytes).and_then(|()| out.sync_all()).map_err(|cause| {
        // Half a file is no use to anybody.
        drop(fs::remove_file(file));
        failed(cause)
    })
}

/// The records in `file`, and when it was made, in Unix milliseconds.
///
/// Errors: `Checkpoint` if it can't be read, is no such file, is of another format, or is damaged.
pub fn read(file: &Path) -> Result<(Records, u64)> {
    let place = file.display();
    let refused = |what: &str, hint: &str| Error::new(Kind::Checkpoint, format!("{place} {what}")).hint(hint);
    const ANOTHER: &str = "take another export";
    let bytes = fs::read(file).map_err(|cause| {
        Error::new(Kind::Checkpoint, format!("can't read {place}")).hint("check the path").caused_by(cause)
    })?;
    let head: serde_json::Value = serde_json::from_slice(&bytes)
        .map_err(|cause| refused("is damaged, or no export of a checkpoint", ANOTHER).caused_by(cause))?;
    if head["what"] != WHAT {
        return Err(refused("is no export of a checkpoint", "migrans checkpoint export makes one"));
    }
    if head["format"] != FORMAT {
        let what = format!("has format {}, this migrans knows {FORMAT}", head["format"]);
        return Err(refused(&what, "run the version of migrans that wrote it"));
    }
    let export: Export = serde_json::from_value(head)
        .map_err(|cause| refused("is damaged: it has another form", ANOTHER).caused_by(cause))?;
    if export.checksum != export.sum() {
        return Err(refused("is damaged: its checksum is wrong", ANOTHER));
    }
    let made = export.made;
    let records: Records = export.records.into_iter().map(|(key, value)| (key, value.into_bytes())).collect();
    records::check(&records).map_err(|error| error.context(place).hint(ANOTHER))?;
    Ok((records, made))
}

#[cfg(test)]
mod tests {
    use super::super::records::{RecordChange, Seal, apply, nothing_yet, put};
    use super::super::state::Update;
    use super::*;
    use crate::milvus::tso::Tso;

    fn records() -> Records {
        let mut changes = nothing_yet().unwrap();
        changes.push(put("pipeline", &serde_json::json!({"name": "p", "identity": "i"})).unwrap());
        changes.extend(Update::Frontier(Tso(40), Default::default()).changes().unwrap());
        Seal::default().seal(&mut changes).unwrap();
        let mut records = Records::new();
        apply(&mut records, &changes);
        records
    }

    #[test]
    fn what_was_exported_is_read_again_and_no_byte_may_differ() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("export.json");
        write(&records(), 1234, &file).unwrap();
        assert_eq!(read(&file).unwrap(), (records(), 1234));
        let again = write(&records(), 1234, &file).unwrap_err();
        assert!(again.hint_text().unwrap().contains("there is such a file"), "{again:?}");
        let whole = fs::read(&file).unwrap();
        for place in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[place] ^= 1;
            fs::write(&file, &damaged).unwrap();
            // White space may become other white space: then nothing is another.
            match read(&file) {
                Ok(read) => assert_eq!(read, (records(), 1234), "byte {place}"),
                Err(error) => assert_eq!(error.kind(), Kind::Checkpoint),
            }
        }
        fs::write(&file, &whole[..whole.len() / 2]).unwrap();
        assert!(read(&file).unwrap_err().message().contains("is damaged"));
    }

    #[test]
    fn another_format_another_file_and_damaged_records_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("export.json");
        fs::write(&file, "{}").unwrap();
        assert!(read(&file).unwrap_err().message().contains("is no export"));
        fs::write(&file, "{\"what\": \"migrans checkpoint\", \"format\": 3}").unwrap();
        assert!(read(&file).unwrap_err().message().contains("has format 3, this migrans knows 2"));
        let mut damaged = records();
        apply(&mut damaged, &[RecordChange::Delete("frontier".into())]);
        assert!(write(&damaged, 1, &folder.path().join("x")).is_err());
        assert!(read(&folder.path().join("none")).unwrap_err().message().contains("can't read"));
    }
}
