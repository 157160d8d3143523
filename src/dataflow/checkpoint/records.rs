//! The records that a checkpoint consists of: keys, values, checksums. No I/O.
//!
//! A value is JSON, ` #`, and the CRC-32C of key, a zero byte and JSON as 8 hexadecimal digits:
//! `461373440000000000 #1c2f9a04`.

use std::collections::BTreeMap;

use crc::{CRC_32_ISCSI, Crc};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::state::{Checkpoint, Update};
use crate::error::{Error, Kind, Result};
use crate::milvus::access::Access;
use crate::milvus::catalog::{Alias, Catalog, Collection, CollectionId, CollectionName, Database, Ddl};
use crate::milvus::channel::{PChannel, VChannel};

/// All records by key, values as they are stored.
pub type Records = BTreeMap<String, Vec<u8>>;

/// The layout that this program reads and writes.
pub const FORMAT: u32 = 2;

/// The keys without an id.
pub const FORMAT_KEY: &str = "format";
/// Whose records they are.
pub const PIPELINE: &str = "pipeline";
/// The fencing epoch of the run that wrote the records, where the truth is in an etcd and this is a copy of it.
pub const EPOCH: &str = "epoch";
pub(super) const FRONTIER: &str = "frontier";
const BEGAN: &str = "began";
const SOURCE: &str = "source";
pub(super) const CALLS_UNTIL: &str = "calls_until";
const CLOCK: &str = "clock";
pub(super) const CLEAN: &str = "clean";
const SEAL: &str = "seal";
/// What stands before an id.
const POSITION: &str = "position/";
const SENT_HIGH: &str = "sent_high/";
const INTENT: &str = "intent/";
const ADOPTED: &str = "adopted/";
const DATABASE: &str = "database/";
const COLLECTION: &str = "collection/";
const ALIAS: &str = "alias/";
const ACCESS: &str = "access";

/// What is before the checksum's digits.
const MARK: &[u8; 2] = b" #";
const DIGITS: usize = 8;

const DAMAGED: &str = "take the state from an export (migrans checkpoint import --force), or start afresh (migrans \
                       checkpoint reset)";

/// One change of the stored records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RecordChange {
    /// This key has this value from now on.
    Put(String, Vec<u8>),
    /// This key is gone.
    Delete(String),
    /// All keys that begin with this are gone.
    Clear(String),
}

/// Carries `changes` out on a map, in order.
pub fn apply(records: &mut Records, changes: &[RecordChange]) {
    for change in changes {
        match change {
            RecordChange::Put(key, value) => drop(records.insert(key.clone(), value.clone())),
            RecordChange::Delete(key) => drop(records.remove(key)),
            RecordChange::Clear(prefix) => records.retain(|key, _| !key.starts_with(prefix)),
        }
    }
}

/// A record with this value.
pub fn put<T: Serialize>(key: impl Into<String>, value: &T) -> Result<RecordChange> {
    let key = key.into();
    let mut bytes = serde_json::to_vec(value).map_err(|cause| {
        Error::new(Kind::Internal, format!("can't encode the checkpoint record {key:?}")).caused_by(cause)
    })?;
    let sum = checksum(&key, &bytes);
    bytes.extend_from_slice(MARK);
    bytes.extend_from_slice(format!("{sum:08x}").as_bytes());
    Ok(RecordChange::Put(key, bytes))
}

/// The value of the record `key`, if it is there.
pub fn get<T: DeserializeOwned>(records: &Records, key: &str) -> Result<Option<T>> {
    records.get(key).map(|value| decode(key, value)).transpose()
}

/// The value of the record `key`, which is `stored`.
///
/// Errors: `Checkpoint` if the checksum is wrong or the value is of another form.
pub fn decode<T: DeserializeOwned>(key: &str, stored: &[u8]) -> Result<T> {
    let (json, _) = open(key, stored)?;
    serde_json::from_slice(json)
        .map_err(|cause| damaged(key, "its value is of no known form").caused_by(cause))
}

/// The JSON of a stored value, and its checksum.
fn open<'a>(key: &str, stored: &'a [u8]) -> Result<(&'a [u8], u32)> {
    let parted = stored
        .split_last_chunk::<DIGITS>()
        .and_then(|(rest, digits)| Some((rest.strip_suffix(MARK)?, digits)));
    let (json, digits) = parted.ok_or_else(|| damaged(key, "it has no checksum"))?;
    let sum = checksum(key, json);
    if format!("{sum:08x}").as_bytes() != digits {
        return Err(damaged(key, "its checksum is wrong"));
    }
    Ok((json, sum))
}

fn checksum(key: &str, json: &[u8]) -> u32 {
    const CRC32C: Crc<u32> = Crc::<u32>::new(&CRC_32_ISCSI);
    let mut digest = CRC32C.digest();
    digest.update(key.as_bytes());
    digest.update(&[0]);
    digest.update(json);
    digest.finalize()
}

fn damaged(key: &str, how: &str) -> Error {
    Error::new(Kind::Checkpoint, format!("damaged at record {key:?}: {how}")).hint(DAMAGED)
}

/// Whether these are all records of a checkpoint of this format, each as it was written.
///
/// Errors: `Checkpoint` for records of another program or format, and for one that is damaged, missing or unknown; it
/// names the record.
pub fn check(records: &Records) -> Result<()> {
    let Some(format) = records.get(FORMAT_KEY) else {
        return Err(Error::new(Kind::Checkpoint, "this is not the state of a pipeline of migrans")
            .hint("set state_dir in the pipeline file to an empty or new folder"));
    };
    check_format(format)?;
    let mut seal = Seal::default();
    for (key, value) in records.iter().filter(|(key, _)| *key != SEAL) {
        let (_, sum) = open(key, value)?;
        if !is_known(key) {
            return Err(damaged(key, "nothing is kept under such a key"));
        }
        seal.put(key, sum);
    }
    for key in [PIPELINE, SEAL] {
        if !records.contains_key(key) {
            return Err(damaged(key, "it is missing"));
        }
    }
    let sealed: Sealed = get(records, SEAL)?.ok_or_else(|| damaged(SEAL, "it is missing"))?;
    let found = seal.sealed();
    if found.records != sealed.records {
        let how = format!("there are to be {} records, there are {}", sealed.records, found.records);
        return Err(damaged(SEAL, &how));
    }
    if found != sealed {
        return Err(damaged(SEAL, "a record is not the one that was written last"));
    }
    Ok(())
}

fn check_format(stored: &[u8]) -> Result<()> {
    // Format 1 had no checksums; what comes later keeps this record as it is.
    let number = match decode::<u32>(FORMAT_KEY, stored) {
        Ok(number) => number,
        Err(error) => serde_json::from_slice(stored).ok().filter(|format| *format == 1).ok_or(error)?,
    };
    match number {
        FORMAT => Ok(()),
        newer if newer > FORMAT => Err(Error::new(
            Kind::Checkpoint,
            format!("it has format {newer}, which is newer: this migrans knows {FORMAT}"),
        )
        .hint("run the version of migrans that wrote it, or a later one")),
        older => Err(Error::new(
            Kind::Checkpoint,
            format!("it has format {older} of an early migrans, this one knows {FORMAT}"),
        )
        .hint("run the version of migrans that wrote it, or start afresh (migrans checkpoint reset)")),
    }
}

fn is_known(key: &str) -> bool {
    [FORMAT_KEY, PIPELINE, EPOCH, SOURCE, BEGAN, FRONTIER, CALLS_UNTIL, CLOCK, CLEAN, ACCESS].contains(&key)
        || [POSITION, SENT_HIGH, INTENT, ADOPTED, DATABASE, COLLECTION, ALIAS]
            .iter()
            .any(|prefix| key.strip_prefix(prefix).is_some_and(|id| !id.is_empty()))
}

/// The checksums of all records, from which the record `seal` follows.
#[derive(Debug, Default)]
pub struct Seal {
    sums: BTreeMap<String, u32>,
    total: u64,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Sealed {
    records: usize,
    sum: u64,
}

impl Seal {
    /// Of records that [`check`] is content with, or of none.
    pub fn of(records: &Records) -> Result<Seal> {
        let mut seal = Seal::default();
        for (key, value) in records.iter().filter(|(key, _)| *key != SEAL) {
            seal.put(key, open(key, value)?.1);
        }
        Ok(seal)
    }

    /// Adds to `changes` what keeps the seal true.
    pub fn seal(&mut self, changes: &mut Vec<RecordChange>) -> Result<()> {
        for change in &*changes {
            match change {
                RecordChange::Put(key, value) => self.put(key, open(key, value)?.1),
                RecordChange::Delete(key) => self.remove(key),
                RecordChange::Clear(prefix) => {
                    let of = self.sums.range(prefix.clone()..).take_while(|(key, _)| key.starts_with(prefix));
                    let gone: Vec<String> = of.map(|(key, _)| key.clone()).collect();
                    gone.iter().for_each(|key| self.remove(key));
                }
            }
        }
        changes.push(put(SEAL, &self.sealed())?);
        Ok(())
    }

    fn sealed(&self) -> Sealed {
        Sealed { records: self.sums.len(), sum: self.total }
    }

    fn put(&mut self, key: &str, sum: u32) {
        self.remove(key);
        self.sums.insert(key.to_owned(), sum);
        self.total = self.total.wrapping_add(u64::from(sum));
    }

    fn remove(&mut self, key: &str) {
        if let Some(sum) = self.sums.remove(key) {
            self.total = self.total.wrapping_sub(u64::from(sum));
        }
    }
}

impl Update {
    /// What the update changes of the records, without the seal.
    pub fn changes(&self) -> Result<Vec<RecordChange>> {
        let mut changes = Vec::new();
        match self {
            Update::Frontier(frontier, positions) => {
                changes.push(put(FRONTIER, frontier)?);
                changes.push(RecordChange::Clear(POSITION.to_owned()));
                for (channel, position) in positions {
                    changes.push(put(format!("{POSITION}{channel}"), position)?);
                }
            }
            Update::SentHigh(highs, calls_until) => {
                for (vchannel, high) in highs {
                    changes.push(put(format!("{SENT_HIGH}{vchannel}"), high)?);
                }
                changes.push(put(CALLS_UNTIL, calls_until)?);
                changes.push(RecordChange::Delete(CLEAN.to_owned()));
            }
            Update::Clock(clock) => changes.push(put(CLOCK, clock)?),
            Update::Began(began) => changes.push(put(BEGAN, began)?),
            Update::Source(source) => changes.push(put(SOURCE, source)?),
            Update::Intent(intent) => changes.push(put(intent_key(intent), intent)?),
            Update::Adopted(id) => changes.push(put(format!("{ADOPTED}{id}"), id)?),
            Update::Applied(ddl, catalog) => applied(&mut changes, ddl, catalog)?,
            Update::Clean => {
                changes.push(RecordChange::Clear(SENT_HIGH.to_owned()));
                changes.push(put(CLEAN, &true)?);
            }
        }
        Ok(changes)
    }
}

fn intent_key(ddl: &Ddl) -> String {
    match ddl {
        Ddl::CreateDatabase(Database { id, .. })
        | Ddl::DropDatabase { id, .. }
        | Ddl::SetDatabaseProperties { id, .. } => format!("{INTENT}database.{id}"),
        Ddl::SetAlias { alias, .. } | Ddl::DropAlias { alias, .. } => format!("{INTENT}alias.{alias}"),
        Ddl::Access(_) => format!("{INTENT}{ACCESS}"),
        _ => format!("{INTENT}{}", ddl.collection().unwrap_or(CollectionId(-1))),
    }
}

fn applied(changes: &mut Vec<RecordChange>, ddl: &Ddl, catalog: &Catalog) -> Result<()> {
    changes.push(RecordChange::Delete(intent_key(ddl)));
    match ddl {
        Ddl::CreateDatabase(Database { id, .. })
        | Ddl::DropDatabase { id, .. }
        | Ddl::SetDatabaseProperties { id, .. } => {
            let key = format!("{DATABASE}{id}");
            changes.push(match catalog.databases.get(id) {
                Some(database) => put(key, database)?,
                None => RecordChange::Delete(key),
            });
        }
        Ddl::SetAlias { alias, .. } | Ddl::DropAlias { alias, .. } => {
            let key = format!("{ALIAS}{alias}");
            changes.push(match catalog.aliases.get(alias) {
                Some(of) => put(key, &(alias, of))?,
                None => RecordChange::Delete(key),
            });
        }
        Ddl::Access(_) => changes.push(put(ACCESS, &catalog.access)?),
        _ => {
            let Some(id) = ddl.collection() else { return Ok(()) };
            let key = format!("{COLLECTION}{id}");
            match catalog.collections.get(&id) {
                Some(collection) => changes.push(put(key, collection)?),
                None => {
                    changes.push(RecordChange::Delete(key));
                    changes.push(RecordChange::Delete(format!("{ADOPTED}{id}")));
                }
            }
        }
    }
    Ok(())
}

/// The records of a checkpoint in which nothing has happened, without those that say whose it is.
pub fn nothing_yet() -> Result<Vec<RecordChange>> {
    Ok(vec![put(FORMAT_KEY, &FORMAT)?, put(CLEAN, &true)?])
}

impl Checkpoint {
    /// What `records` say. Those of other checkpoints than whole ones may be read too: see [`check`].
    ///
    /// Errors: `Checkpoint` for a damaged record.
    pub fn from_records(records: &Records) -> Result<Checkpoint> {
        let mut checkpoint = Checkpoint {
            frontier: get(records, FRONTIER)?,
            began: get(records, BEGAN)?,
            source: get(records, SOURCE)?,
            calls_until: get(records, CALLS_UNTIL)?.unwrap_or(0),
            clock: get(records, CLOCK)?,
            clean: get(records, CLEAN)?.unwrap_or(false),
            ..Checkpoint::default()
        };
        checkpoint.applied.access = get::<Option<Access>>(records, ACCESS)?.flatten();
        if let Some(access) = &mut checkpoint.applied.access {
            // Whether a user is on the target is for somebody else to see to: each run looks again.
            access.users.clear();
        }
        for (key, value) in records {
            let Some(slash) = key.find('/') else { continue };
            let (prefix, id) = key.split_at(slash + 1);
            match prefix {
                POSITION => drop(checkpoint.positions.insert(PChannel(id.into()), decode(key, value)?)),
                SENT_HIGH => drop(checkpoint.sent_high.insert(VChannel(id.into()), decode(key, value)?)),
                INTENT => checkpoint.intents.push(decode(key, value)?),
                ADOPTED => drop(checkpoint.adopted.insert(decode(key, value)?)),
                ALIAS => {
                    let (alias, of): (CollectionName, Alias) = decode(key, value)?;
                    checkpoint.applied.aliases.insert(alias, of);
                }
                DATABASE => {
                    let database: Database = decode(key, value)?;
                    checkpoint.applied.databases.insert(database.id, database);
                }
                COLLECTION => {
                    let collection: Collection = decode(key, value)?;
                    checkpoint.applied.collections.insert(collection.id, collection);
                }
                _ => return Err(damaged(key, "nothing is kept under such a key")),
            }
        }
        Ok(checkpoint)
    }
}
