//! The simulated disk of the checkpoint: a log of batches of which a crash leaves what was synced, and any part of what
//! was not.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use migrans::Result;
use migrans::dataflow::checkpoint::records;
use migrans::dataflow::checkpoint::{RecordChange, Records, Storage};

/// A disk. Clones are the same one.
#[derive(Clone, Default)]
pub struct Disk(Arc<Mutex<Platter>>);

#[derive(Default)]
struct Platter {
    log: Vec<u8>,
    /// The log up to here survives whatever happens.
    synced: usize,
    /// What the log says.
    records: Records,
    /// Writes do not return any more: the power fails during the next one.
    failing: bool,
}

impl Disk {
    /// What is on it: what a process finds that opens it now.
    pub fn records(&self) -> Records {
        read(&self.lock().log)
    }

    /// What is durable, as far as the running process knows.
    pub fn durable(&self) -> Records {
        self.lock().records.clone()
    }

    /// From now on writes reach the disk and are not synced any more.
    pub fn fail(&self) {
        self.lock().failing = true;
    }

    /// Takes the power away: of what was not synced, `kept` bytes stay.
    pub fn crash(&self, kept: usize) {
        let mut platter = self.lock();
        let end = (platter.synced + kept).min(platter.log.len());
        platter.log.truncate(end);
        // What opens the log drops what is torn at its end.
        let whole = read(&platter.log);
        platter.log.clear();
        let changes: Vec<RecordChange> =
            whole.iter().map(|(key, value)| RecordChange::Put(key.clone(), value.clone())).collect();
        if !changes.is_empty() {
            append(&mut platter.log, &changes);
        }
        platter.synced = platter.log.len();
        platter.records = whole;
        platter.failing = false;
    }

    /// Bytes that were written and not synced.
    pub fn unsynced(&self) -> usize {
        let platter = self.lock();
        platter.log.len() - platter.synced
    }

    fn lock(&self) -> MutexGuard<'_, Platter> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Storage for Disk {
    fn write(&mut self, changes: &[RecordChange]) -> Result<()> {
        let mut platter = self.lock();
        append(&mut platter.log, changes);
        if !platter.failing {
            platter.synced = platter.log.len();
            records::apply(&mut platter.records, changes);
        }
        Ok(())
    }
}

fn append(log: &mut Vec<u8>, changes: &[RecordChange]) {
    let mut batch = Vec::new();
    for change in changes {
        let (kind, key, value): (u8, &str, &[u8]) = match change {
            RecordChange::Put(key, value) => (0, key, value),
            RecordChange::Delete(key) => (1, key, &[]),
            RecordChange::Clear(prefix) => (2, prefix, &[]),
        };
        batch.push(kind);
        for part in [key.as_bytes(), value] {
            batch.extend(part.len().to_le_bytes());
            batch.extend(part);
        }
    }
    log.extend(batch.len().to_le_bytes());
    log.extend(sum(&batch).to_le_bytes());
    log.extend(batch);
}

fn read(mut log: &[u8]) -> Records {
    let mut found = Records::new();
    while let Some(batch) = next_batch(&mut log) {
        records::apply(&mut found, &batch);
    }
    found
}

/// The next whole batch.
fn next_batch(log: &mut &[u8]) -> Option<Vec<RecordChange>> {
    let size = take_number(log)?;
    let expected = take_number(log)?;
    let mut batch = log.split_off(..size)?;
    if u64::try_from(expected).ok()? != sum(batch) {
        return None;
    }
    let mut changes = Vec::new();
    while let Some(kind) = batch.split_off_first() {
        let size = take_number(&mut batch)?;
        let key = String::from_utf8(batch.split_off(..size)?.to_vec()).ok()?;
        let size = take_number(&mut batch)?;
        let value = batch.split_off(..size)?.to_vec();
        changes.push(match kind {
            0 => RecordChange::Put(key, value),
            1 => RecordChange::Delete(key),
            _ => RecordChange::Clear(key),
        });
    }
    Some(changes)
}

fn take_number(log: &mut &[u8]) -> Option<usize> {
    log.split_off(..8).and_then(|bytes| bytes.try_into().ok()).map(usize::from_le_bytes)
}

/// FNV-1a: enough to tell a torn batch.
fn sum(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |sum, byte| (sum ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3))
}
