//! The store on disk: a RocksDB that Milvus writes, opened beside it as a *secondary*.
//!
//! A secondary reads the primary's files and writes none of them. `catch_up` replays what the primary added to its
//! MANIFEST (which table files there are) and to its write-ahead logs (what is not in table files yet).

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use rocksdb::{ColumnFamilyDescriptor, DB, DBRawIterator, InfoLogger, LogLevel, Options, ReadOptions};

use super::key::{is_message_key, printable};
use super::watch;
use crate::error::{Error, Kind, Result};

/// How often a catch-up that files were changed under is begun anew before it is left for later.
const CATCH_UP_ATTEMPTS: usize = 10;

/// An open secondary.
pub(super) struct Store {
    db: DB,
    path: PathBuf,
    /// The MANIFEST that was current when the store was opened.
    manifest: String,
}

/// A state of the table files: the name and length of the MANIFEST that lists them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    manifest: String,
    length: u64,
}

/// What came of a catch-up.
pub(super) enum CaughtUp {
    /// Everything that was written before the call is visible.
    Complete(Mark),
    /// Table files kept changing, so something might be missing in what is visible now. Try it again.
    Unsettled,
    /// Milvus was started anew (or its MANIFEST grew too large and was replaced): open the store again.
    Replaced,
}

/// Fails with one clear error unless `path` can be a RocksMQ.
pub(super) fn check_folder(path: &Path) -> Result<()> {
    let described = path.display();
    let hint = "[source.mq] path is Milvus' rocksmq.path; migrans must run on the host of Milvus, or mount the same volume";
    let refuse = |kind, what: String| Err(Error::new(kind, what).hint(hint));
    let metadata = match fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return refuse(Kind::NotFound, format!("{described} is not a RocksMQ: there is no such folder"));
        }
        Err(error) => {
            return refuse(io_kind(&error), format!("RocksMQ in {described} can't be read: {error}"));
        }
    };
    if !metadata.is_dir() {
        return refuse(Kind::NotFound, format!("{described} is not a RocksMQ: it is not a folder"));
    }
    match File::open(path.join("CURRENT")) {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let inner = path.join("rdb_data");
            let error =
                Error::new(Kind::NotFound, format!("{described} is not a RocksMQ: it has no file CURRENT"));
            return Err(if inner.join("CURRENT").is_file() {
                error.hint(format!("did you mean {}?", inner.display()))
            } else {
                error.hint(hint)
            });
        }
        Err(error) => {
            return refuse(io_kind(&error), format!("RocksMQ in {described} can't be read: {error}"));
        }
    }
    if let Err(error) = fs::read_dir(path) {
        return refuse(io_kind(&error), format!("RocksMQ in {described} can't be listed: {error}"));
    }
    Ok(())
}

/// Milvus keeps the page table of a RocksMQ in a second RocksDB beside it.
fn meta_folder(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push("_meta_kv");
    PathBuf::from(name)
}

fn io_kind(error: &io::Error) -> Kind {
    match error.kind() {
        io::ErrorKind::PermissionDenied => Kind::Denied,
        _ => Kind::NotFound,
    }
}

impl Store {
    /// Opens the RocksMQ in `path`; `scratch` is a folder for the secondary's own files.
    ///
    /// What is visible afterwards may miss something (see [`Store::catch_up`]).
    pub(super) fn open(path: &Path, scratch: &Path) -> Result<Store> {
        fs::create_dir_all(scratch).map_err(|error| {
            Error::new(
                Kind::Checkpoint,
                format!("the folder {} can't be created: {error}", scratch.display()),
            )
        })?;
        let failed = |error: rocksdb::Error| {
            let kind = match error.kind() {
                rocksdb::ErrorKind::IOError if error.as_ref().contains("Permission denied") => Kind::Denied,
                rocksdb::ErrorKind::IOError | rocksdb::ErrorKind::TryAgain => Kind::Unavailable,
                _ => Kind::Corrupt,
            };
            Error::new(kind, format!("RocksMQ in {} can't be opened", path.display()))
                .hint("is it the folder of rocksmq.path, and may this user read all files in it?")
                .caused_by(error)
        };
        let unreadable = |error: io::Error| {
            Error::new(io_kind(&error), format!("RocksMQ in {} can't be read: {error}", path.display()))
        };
        let options = options();
        // If the MANIFEST changes between the two, the next catch-up says Replaced.
        let manifest = current_manifest(path).map_err(unreadable)?;
        let families = DB::list_cf(&options, path).map_err(failed)?;
        let families = ["default", "properties"]
            .into_iter()
            .filter(|name| families.iter().any(|family| family == name))
            .map(|name| ColumnFamilyDescriptor::new(name, options.clone()));
        let db = DB::open_cf_descriptors_as_secondary(&options, path, scratch, families).map_err(failed)?;
        Ok(Store { db, path: path.to_owned(), manifest })
    }

    /// Fails if what is stored is something else than messages.
    pub(super) fn check_content(&self) -> Result<()> {
        let described = self.path.display();
        let mut iterator = self.db.raw_iterator_opt(scan_options());
        for last in [false, true] {
            if last {
                iterator.seek_to_last()
            } else {
                iterator.seek_to_first()
            }
            match iterator.key() {
                Some(key) if is_message_key(key) => {}
                Some(key) => {
                    return Err(Error::new(
                        Kind::NotFound,
                        format!("{described} is a RocksDB but not a RocksMQ: it has the key {}", printable(key)),
                    )
                    .hint("[source.mq] path is Milvus' rocksmq.path, not the folder <path>_meta_kv beside it, nor that of another program"));
                }
                None => {
                    iterator.status().map_err(read_error)?;
                    if !meta_folder(&self.path).join("CURRENT").is_file() {
                        return Err(Error::new(
                            Kind::NotFound,
                            format!("{described} is an empty RocksDB and not a RocksMQ"),
                        )
                        .hint("beside a RocksMQ there is a folder <path>_meta_kv; [source.mq] path is Milvus' rocksmq.path"));
                    }
                }
            }
        }
        Ok(())
    }

    /// Makes what Milvus has written since visible to iterators that are created afterwards.
    ///
    /// RocksDB reads the MANIFEST first and the logs afterwards. If Milvus moves a log's rest into a table file and
    /// deletes the log in between, then messages are in neither place that was looked at, while later ones (in the
    /// next log) are visible: a hole. Before a log is deleted the MANIFEST grows, so if it has the same length
    /// before and after, there is no hole. (Milvus' RocksDB, 6.29, starts a new log only while nothing is written;
    /// so the logs themselves, read one after another, have none.)
    pub(super) fn catch_up(&self) -> Result<CaughtUp> {
        let failed = |cause: Box<dyn std::error::Error + Send + Sync>| {
            Error::new(
                Kind::Unavailable,
                format!("reading on in the RocksMQ in {} failed", self.path.display()),
            )
            .caused_by(cause)
        };
        let mut before = self.mark().map_err(|error| failed(error.into()))?;
        for _ in 0..CATCH_UP_ATTEMPTS {
            if before.manifest != self.manifest {
                return Ok(CaughtUp::Replaced);
            }
            self.db.try_catch_up_with_primary().map_err(|error| failed(error.into()))?;
            let after = self.mark().map_err(|error| failed(error.into()))?;
            if before == after {
                return Ok(CaughtUp::Complete(after));
            }
            before = after;
        }
        Ok(CaughtUp::Unsettled)
    }

    /// The number of the log that is being written.
    pub(super) fn log_number(&self) -> Option<u64> {
        watch::newest_log(&self.path).ok().flatten()
    }

    fn mark(&self) -> io::Result<Mark> {
        let manifest = current_manifest(&self.path)?;
        let length = fs::metadata(self.path.join(&manifest))?.len();
        Ok(Mark { manifest, length })
    }

    /// An iterator over the keys from `lower` to before `upper`, for long scans.
    pub(super) fn scan(&self, lower: &[u8], upper: Vec<u8>) -> DBRawIterator<'_> {
        let mut options = scan_options();
        options.set_iterate_lower_bound(lower);
        options.set_iterate_upper_bound(upper);
        self.db.raw_iterator_opt(options)
    }

    /// An iterator over what is not in table files yet. It touches no disk, however large the store is.
    ///
    /// It shows also what Milvus has trimmed: a secondary forgets nothing that is in memory before it is in a table
    /// file. So a channel that follows there can't be overtaken by trimming.
    #[expect(deprecated, reason = "deprecated as a means to go faster; here the trimmed messages are wanted")]
    pub(super) fn scan_memory(&self) -> DBRawIterator<'_> {
        let mut options = scan_options();
        options.set_read_tier(rocksdb::ReadTier::Memtable);
        options.set_ignore_range_deletions(true);
        self.db.raw_iterator_opt(options)
    }
}

/// The error of an iterator.
pub(super) fn read_error(error: rocksdb::Error) -> Error {
    match error.kind() {
        rocksdb::ErrorKind::NotSupported => {
            Error::new(Kind::Version, "RocksMQ has data that can't be read here")
                .hint("rocksmq.compressionTypes of the source may be 0 (none) and 7 (zstd)")
                .caused_by(error)
        }
        rocksdb::ErrorKind::Corruption => Error::new(Kind::Corrupt, "RocksMQ is damaged").caused_by(error),
        _ => Error::new(Kind::Unavailable, "reading RocksMQ failed").caused_by(error),
    }
}

fn options() -> Options {
    let mut options = Options::default();
    // Keep every table file open: Milvus deletes files while they are read here.
    options.set_max_open_files(-1);
    // Each catch-up would start these threads, also for no new file.
    options.set_max_file_opening_threads(1);
    // Scans are sequential: let the kernel read ahead.
    options.set_advise_random_on_open(false);
    options.set_info_logger(InfoLogger::new_callback_logger(LogLevel::Warn, |level, line| {
        // The options come at any level asked for, as Info.
        if matches!(level, LogLevel::Warn | LogLevel::Error | LogLevel::Fatal) {
            tracing::debug!(target: "migrans::rocksdb", "{}", line.trim_end());
        }
    }));
    options
}

fn scan_options() -> ReadOptions {
    let mut options = ReadOptions::default();
    options.fill_cache(false);
    options
}

/// The name of the MANIFEST that CURRENT points to.
fn current_manifest(path: &Path) -> io::Result<String> {
    let mut name = String::new();
    File::open(path.join("CURRENT"))?.take(256).read_to_string(&mut name)?;
    Ok(name.trim_end().to_owned())
}
