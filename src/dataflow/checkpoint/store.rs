//! Records in RocksDB.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rocksdb::{DB, DBRecoveryMode, IteratorMode, Options, WriteBatch, WriteOptions};

use super::super::unprotected;
use super::records::{CALLS_UNTIL, FRONTIER, RecordChange, Records};
use super::writer::Storage;
use crate::error::{Error, Kind, Result};
use crate::failpoint::{self, Point};

const MAKE_ROOM: &str = "make room, then start again: nothing is lost";

/// How often a folder in use is looked at before that is an error.
const LOOKS: u32 = 10;
const IN_USE: &str = "is in use by another process";

/// A state folder. It is locked as long as this lives.
pub struct Store {
    db: DB,
    folder: PathBuf,
}

impl Store {
    /// Opens the state folder, creating it if it is new.
    ///
    /// Errors: `Checkpoint`, if it is in use, its disk is full, or it is no such folder.
    pub fn open(folder: &Path) -> Result<Store> {
        std::fs::create_dir_all(folder).map_err(|cause| {
            Error::new(Kind::Checkpoint, format!("can't create the state folder {}", folder.display()))
                .hint("set state_dir in the pipeline file to a folder that can be written to")
                .caused_by(cause)
        })?;
        let mut options = options();
        options.create_if_missing(true);
        options.set_keep_log_file_num(2);
        options.set_max_total_wal_size(16 << 20);
        options.set_write_buffer_size(4 << 20);
        let db = DB::open(&options, folder).map_err(|cause| open_error(folder, cause))?;
        Ok(Store { db, folder: folder.to_owned() })
    }

    /// All records in `folder`, which somebody may have open and write to.
    ///
    /// Errors: `Checkpoint`.
    pub fn look(folder: &Path) -> Result<Records> {
        let mut tries = 1;
        loop {
            // Files that were there a moment ago may be gone when they are opened: whoever writes has replaced them.
            match DB::open_for_read_only(&options(), folder, false) {
                Ok(db) => return Store { db, folder: folder.to_owned() }.records(),
                Err(_) if tries < LOOKS => tries += 1,
                Err(cause) => return Err(open_error(folder, cause)),
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// What it is, for messages.
    pub fn describe(&self) -> String {
        format!("the state folder {}", self.folder.display())
    }

    /// All records.
    pub fn records(&self) -> Result<Records> {
        let mut records = Records::new();
        for entry in self.db.iterator(IteratorMode::Start) {
            let (key, value) = entry.map_err(|cause| open_error(&self.folder, cause))?;
            records.insert(String::from_utf8_lossy(&key).into_owned(), value.into_vec());
        }
        Ok(records)
    }
}

impl Storage for Store {
    fn write(&mut self, changes: &[RecordChange]) -> Result<()> {
        let mut batch = WriteBatch::default();
        for change in changes {
            match change {
                RecordChange::Put(key, value) => batch.put(key, value),
                RecordChange::Delete(key) => batch.delete(key),
                // No key has a byte FF.
                RecordChange::Clear(prefix) => {
                    batch.delete_range(prefix.as_bytes(), &[prefix.as_bytes(), b"\xff"].concat());
                }
            }
        }
        let mut options = WriteOptions::default();
        let killed_unsynced = unsynced_point(changes).filter(|point| failpoint::is_armed(*point));
        options.set_sync(killed_unsynced.is_none() && !unprotected::is_on());
        self.db.write_opt(batch, &options).map_err(|cause| {
            let place = self.describe();
            if is_full(&cause) {
                Error::new(Kind::Checkpoint, format!("no space left on the disk of {place}")).hint(MAKE_ROOM)
            } else {
                Error::new(Kind::Checkpoint, format!("can't write to {place}: {cause}"))
                    .hint("mend the disk, then start again: nothing is lost")
            }
        })?;
        let Some(point) = killed_unsynced else { return Ok(()) };
        failpoint::pass(point);
        self.db.flush_wal(true).map_err(|cause| open_error(&self.folder, cause))
    }
}

/// The fail point between such a write and its sync.
fn unsynced_point(changes: &[RecordChange]) -> Option<Point> {
    changes.iter().find_map(|change| match change {
        RecordChange::Put(key, _) if key == CALLS_UNTIL => Some(Point::SentHighUnsynced),
        RecordChange::Put(key, _) if key == FRONTIER => Some(Point::CommitUnsynced),
        _ => None,
    })
}

/// Deletes the state in `folder`, and the folder if nothing else is in it. No [`Store`] may have it open.
pub fn destroy(folder: &Path) -> Result<()> {
    let failed = |cause: Box<dyn std::error::Error + Send + Sync>| {
        Error::new(Kind::Checkpoint, format!("can't delete the state folder {}", folder.display()))
            .hint("delete it by hand")
            .caused_by(cause)
    };
    DB::destroy(&Options::default(), folder).map_err(|cause| failed(cause.into()))?;
    match std::fs::remove_dir_all(folder.join("scratch")) {
        Err(cause) if cause.kind() != ErrorKind::NotFound => return Err(failed(cause.into())),
        _ => {}
    }
    match std::fs::remove_dir(folder) {
        Err(cause) if !matches!(cause.kind(), ErrorKind::NotFound | ErrorKind::DirectoryNotEmpty) => {
            Err(failed(cause.into()))
        }
        _ => Ok(()),
    }
}

/// What is damaged or missing in the log must not look like an earlier state: of that, more may have been sent to the target
/// than it says. Only its last write may be cut off, which nobody relies on yet.
fn options() -> Options {
    let mut options = Options::default();
    options.set_wal_recovery_mode(DBRecoveryMode::TolerateCorruptedTailRecords);
    options.set_track_and_verify_wals_in_manifest(true);
    options
}

/// Whether `error` says that another process has the folder open.
pub fn is_in_use(error: &Error) -> bool {
    error.message().ends_with(IN_USE)
}

fn is_full(cause: &rocksdb::Error) -> bool {
    cause.to_string().contains("No space left")
}

fn open_error(folder: &Path, cause: rocksdb::Error) -> Error {
    let place = folder.display();
    let text = cause.to_string();
    let error = if text.contains("While lock file") || text.contains("lock hold by") {
        Error::new(Kind::Checkpoint, format!("the state folder {place} {IN_USE}")).hint(
            "one pipeline runs once: stop the other migrans, or give this pipeline a state_dir of its own",
        )
    } else if is_full(&cause) {
        Error::new(Kind::Checkpoint, format!("no space left on the disk of the state folder {place}"))
            .hint(MAKE_ROOM)
    } else if cause.kind() == rocksdb::ErrorKind::Corruption {
        Error::new(Kind::Checkpoint, format!("the state folder {place} is damaged")).hint(
            "take the state from an export (migrans checkpoint reset, then import), or start afresh (migrans \
             checkpoint reset)",
        )
    } else {
        Error::new(Kind::Checkpoint, format!("can't open the state folder {place}"))
            .hint("it must be a folder that migrans made, or an empty one")
    };
    error.caused_by(cause)
}
