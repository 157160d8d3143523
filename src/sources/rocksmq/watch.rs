//! Whether Milvus may have written something, told at little cost.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

/// How long after a change of the folder its listing is not trusted to be the last: file systems stamp changes with
/// a clock of some milliseconds, so a second change may hide behind the same stamp.
const STAMP_DOUBT: Duration = Duration::from_millis(100);

/// Looks at two numbers: when the folder changed, and the length of the log that is being written.
///
/// Polling them costs less than inotify would: each of Milvus' writes would wake us up, 80 times a second for ticks
/// alone. And it works on any file system.
pub(super) struct Watch {
    path: PathBuf,
    /// Open, so that looking again needs no path. If it is replaced, the next catch-up finds out.
    folder: Option<File>,
    folder_stamp: Option<SystemTime>,
    doubtful_until: Option<Instant>,
    log: Option<Log>,
}

struct Log {
    number: u64,
    file: File,
    length: u64,
}

impl Watch {
    pub(super) fn new(path: &Path) -> Watch {
        Watch { path: path.to_owned(), folder: None, folder_stamp: None, doubtful_until: None, log: None }
    }

    /// Whether something changed since the last call. An unreadable folder counts as a change: what is wrong with
    /// it is for the catch-up to say.
    pub(super) fn changed(&mut self) -> bool {
        self.look().unwrap_or(true)
    }

    /// The number of the log that was being written when the folder was last listed.
    pub(super) fn log_number(&self) -> Option<u64> {
        self.log.as_ref().map(|log| log.number)
    }

    fn look(&mut self) -> io::Result<bool> {
        let folder = match &mut self.folder {
            Some(folder) => folder,
            none => none.insert(File::open(&self.path)?),
        };
        let stamp = folder.metadata()?.modified()?;
        let mut changed = false;
        if self.folder_stamp != Some(stamp) {
            self.folder_stamp = Some(stamp);
            self.doubtful_until = Some(Instant::now() + STAMP_DOUBT);
            changed = true;
        }
        if let Some(until) = self.doubtful_until {
            if Instant::now() >= until {
                self.doubtful_until = None;
            }
            let newest = newest_log(&self.path)?;
            if newest != self.log_number() {
                self.log = match newest {
                    Some(number) => {
                        Some(Log { number, file: File::open(log_path(&self.path, number))?, length: 0 })
                    }
                    None => None,
                };
                changed = true;
            }
        }
        if let Some(log) = &mut self.log {
            let length = log.file.metadata()?.len();
            changed |= length != log.length;
            log.length = length;
        }
        Ok(changed)
    }
}

/// The number of the write-ahead log that is being written: `<number>.log` with the highest number.
pub(super) fn newest_log(folder: &Path) -> io::Result<Option<u64>> {
    let mut newest = None;
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name();
        let number = name.to_str().and_then(|name| name.strip_suffix(".log")?.parse::<u64>().ok());
        newest = newest.max(number);
    }
    Ok(newest)
}

fn log_path(folder: &Path, number: u64) -> PathBuf {
    folder.join(format!("{number:06}.log"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_growth_a_new_log_and_a_missing_folder() {
        let folder = tempfile::tempdir().unwrap();
        let mut watch = Watch::new(folder.path());
        assert!(watch.changed());
        assert_eq!(watch.log_number(), None);
        fs::write(folder.path().join("000007.log"), "a").unwrap();
        fs::write(folder.path().join("LOG"), "a").unwrap();
        assert!(watch.changed());
        assert_eq!(watch.log_number(), Some(7));
        assert!(!watch.changed());
        fs::write(folder.path().join("000007.log"), "ab").unwrap();
        assert!(watch.changed());
        assert!(!watch.changed());
        fs::write(folder.path().join("1000012.log"), "").unwrap();
        assert!(watch.changed());
        assert_eq!(watch.log_number(), Some(1_000_012));
        std::thread::sleep(STAMP_DOUBT);
        assert!(!watch.changed());
        assert!(Watch::new(&folder.path().join("missing")).changed());
    }
}
