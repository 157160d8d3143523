//! The checkpoint in the etcd, where the next owner finds it.
//!
//! Every transaction asks for two things: that the owner's key is still the one of this term, and that the count of
//! commits is the one that we left. The first keeps out a former owner; the second our own transactions that were given
//! up and arrive late.
//!
//! etcd takes 128 operations and 1.5 MiB at a time. A commit within [`OPS`] and [`BYTES`] is one transaction. A larger one is
//! first written down in parts as a journal, which counts once the key `journal/whole` is there, and then carried out
//! piece by piece. Whoever opens the checkpoint carries out a whole journal once more, which comes to the same, and
//! throws away parts of one.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use etcd_client::{Compare, CompareOp, DeleteOptions, KeyValue, Txn, TxnOp, TxnOpResponse};
use prost::Message;
use tokio::runtime::Handle;

use super::Owner;
use super::election::Outage;
use super::line::{Keys, Line, after};
use super::term::Shared;
use crate::dataflow::checkpoint::{RecordChange, Records, Storage, records};
use crate::error::{Error, Kind, Result};

/// Changes to one transaction, and their bytes: the limits of an etcd as it comes, with room to spare.
const OPS: usize = 100;
const BYTES: usize = 1 << 20;
/// The longest value; what is longer is put into several.
const VALUE: usize = 512 << 10;
/// The pause before a transaction is tried again.
const PAUSE: Duration = Duration::from_millis(50);

/// Keeps the checkpoint in the etcd up to date.
pub struct Replica {
    handle: Handle,
    shared: Arc<Shared>,
    line: Line,
    /// How many transactions there were.
    commit: u64,
    /// What is there.
    records: Records,
    /// The records that have more than one value.
    long: BTreeSet<String>,
    /// How many transactions there are still to be, for tests.
    #[cfg(test)]
    left: Option<usize>,
}

/// A record as it is to be.
#[derive(Clone, PartialEq, Message)]
struct Entry {
    #[prost(string, tag = "1")]
    key: String,
    /// `None`: gone.
    #[prost(bytes = "vec", optional, tag = "2")]
    value: Option<Vec<u8>>,
}

#[derive(Clone, PartialEq, Message)]
struct Journal {
    #[prost(message, repeated, tag = "1")]
    entries: Vec<Entry>,
}

/// Reads what is there, and makes it whole.
pub(super) async fn open(shared: Arc<Shared>, line: Line, handle: Handle) -> Result<(Replica, Records)> {
    let (records, long) = (Records::new(), BTreeSet::new());
    let mut replica = Replica {
        handle,
        shared,
        line,
        commit: 0,
        records,
        long,
        #[cfg(test)]
        left: None,
    };
    let keys = replica.shared.keys.clone();
    let (commit, _) = replica.line.one(&keys.commit()).await?;
    replica.commit = number(commit.as_ref()).ok_or_else(|| foreign(&keys.commit()))?;
    let journal = replica.line.below(&keys.journal()).await?;
    if !journal.is_empty() {
        replica.read(&keys).await?;
        match whole(&keys, &journal)? {
            Some(journal) => {
                tracing::info!(records = journal.entries.len(), "completing a commit of the owner before");
                replica.carry_out(&journal.entries).await?;
            }
            None => replica.step(vec![clear(&keys.journal())]).await?,
        }
    }
    replica.read(&keys).await?;
    let records = replica.records.clone();
    Ok((replica, records))
}

impl Replica {
    async fn read(&mut self, keys: &Keys) -> Result<()> {
        (self.records, self.long) = read(&mut self.line, keys).await?;
        Ok(())
    }

    async fn commit(&mut self, changes: &[RecordChange]) -> Result<()> {
        let mut after = self.records.clone();
        records::apply(&mut after, changes);
        let entries = difference(&self.records, &after);
        let mut ops = Vec::new();
        entries.iter().for_each(|entry| self.operations(entry, &mut ops));
        let bytes: usize = entries.iter().map(Entry::bytes).sum();
        if ops.is_empty() {
            return Ok(());
        }
        if ops.len() <= OPS && bytes <= BYTES {
            self.step(ops).await?;
            self.note(&entries);
        } else {
            self.write_down(&entries).await?;
            self.carry_out(&entries).await?;
        }
        self.records = after;
        Ok(())
    }

    /// Makes `entries` certain to be carried out.
    async fn write_down(&mut self, entries: &[Entry]) -> Result<()> {
        let journal = Journal { entries: entries.to_vec() }.encode_to_vec();
        let prefix = self.shared.keys.journal();
        let parts = journal.chunks(VALUE);
        let count = parts.len();
        for (index, part) in parts.enumerate() {
            self.step(vec![TxnOp::put(format!("{prefix}part/{index:06}"), part, None)]).await?;
        }
        self.step(vec![TxnOp::put(format!("{prefix}whole"), count.to_string(), None)]).await
    }

    /// Carries out what was written down. May be cut short anywhere, and done again.
    async fn carry_out(&mut self, entries: &[Entry]) -> Result<()> {
        let mut ops = Vec::new();
        let mut bytes = 0;
        for entry in entries {
            let mut more = Vec::new();
            self.operations(entry, &mut more);
            for op in more {
                // An operation has one value, so the bytes are at most this.
                let size = entry.bytes().min(VALUE);
                if ops.len() == OPS || bytes + size > BYTES {
                    self.step(std::mem::take(&mut ops)).await?;
                    bytes = 0;
                }
                bytes += size;
                ops.push(op);
            }
        }
        if !ops.is_empty() {
            self.step(ops).await?;
        }
        self.step(vec![clear(&self.shared.keys.journal())]).await?;
        self.note(entries);
        Ok(())
    }

    /// What makes one record what it is to be.
    fn operations(&self, entry: &Entry, ops: &mut Vec<TxnOp>) {
        let keys = &self.shared.keys;
        let key = format!("{}{}", keys.records(), entry.key);
        let more = format!("{}{}/", keys.more(), entry.key);
        // Pieces never stand without their record, also when this is cut short.
        let rest = |from: usize| {
            let rest = DeleteOptions::new().with_range(after(&more));
            self.long.contains(&entry.key).then(|| TxnOp::delete(format!("{more}{from:06}"), Some(rest)))
        };
        let Some(value) = &entry.value else {
            ops.extend(rest(0));
            ops.push(TxnOp::delete(key, None));
            return;
        };
        ops.push(TxnOp::put(key, value.get(..VALUE).unwrap_or(value), None));
        let pieces = value.chunks(VALUE).skip(1);
        let count = pieces.len();
        ops.extend(pieces.enumerate().map(|(i, piece)| TxnOp::put(format!("{more}{i:06}"), piece, None)));
        ops.extend(rest(count));
    }

    fn note(&mut self, entries: &[Entry]) {
        for Entry { key, value } in entries {
            match value {
                Some(value) if value.len() > VALUE => drop(self.long.insert(key.clone())),
                _ => drop(self.long.remove(key)),
            }
        }
    }

    /// One transaction, as the owner. While the etcd does not answer it waits.
    ///
    /// # Errors
    /// `Ownership` if this process is not the owner any more; `Unavailable` if the run is ending and it can't be found
    /// out whether it is.
    async fn step(&mut self, mut ops: Vec<TxnOp>) -> Result<()> {
        let (owner, commit) = (self.shared.keys.owner(), self.shared.keys.commit());
        let next = self.commit + 1;
        #[cfg(test)]
        match &mut self.left {
            Some(0) => return Err(Error::new(Kind::Unavailable, "cut short by a test")),
            Some(left) => *left -= 1,
            None => {}
        }
        ops.push(TxnOp::put(commit.as_str(), next.to_string(), None));
        let txn = Txn::new()
            .when([
                Compare::create_revision(owner.as_str(), CompareOp::Equal, self.shared.epoch),
                Compare::value(commit.as_str(), CompareOp::Equal, self.commit.to_string()),
            ])
            .and_then(ops)
            .or_else([TxnOp::get(owner, None), TxnOp::get(commit.as_str(), None)]);
        let mut out = Outage::default();
        loop {
            if let Some(error) = self.shared.lost() {
                return Err(error);
            }
            match self.line.txn(txn.clone()).await {
                Ok(response) if response.succeeded() => break,
                Ok(response) => {
                    let mut found = response.op_responses().into_iter().map(|response| match response {
                        TxnOpResponse::Get(mut get) => get.take_kvs().pop(),
                        _ => None,
                    });
                    let (owner, count) = (found.next().flatten(), found.next().flatten());
                    if owner.as_ref().is_none_or(|kv| kv.create_revision() != self.shared.epoch) {
                        let owner = owner.and_then(|kv| serde_json::from_slice::<Owner>(kv.value()).ok());
                        return Err(self.shared.lose(Some(owner)));
                    }
                    // An attempt that was given up has arrived after all.
                    if number(count.as_ref()) == Some(next) {
                        break;
                    }
                    return Err(foreign(&commit));
                }
                Err(error) if error.kind() == Kind::Unavailable && !self.shared.is_over() => {
                    out.tell(&error);
                    tokio::time::sleep(PAUSE).await;
                }
                Err(error) => return Err(error.context("can't record the checkpoint")),
            }
        }
        out.is_over();
        self.commit = next;
        Ok(())
    }
}

#[cfg(test)]
impl Replica {
    /// Dies after so many more transactions.
    pub fn fail_after(&mut self, transactions: usize) {
        self.left = Some(transactions);
    }
}

impl Storage for Replica {
    fn write(&mut self, changes: &[RecordChange]) -> Result<()> {
        let handle = self.handle.clone();
        handle.block_on(self.commit(changes))
    }
}

impl Entry {
    fn bytes(&self) -> usize {
        self.key.len() + self.value.as_ref().map_or(0, Vec::len)
    }
}

/// The records that are there. If the owner is busy, or died in the middle of a large commit, they may not be of one
/// moment.
pub(super) async fn records(line: &mut Line, keys: &Keys) -> Result<Records> {
    read(line, keys).await.map(|(records, _)| records)
}

/// The records, and those of them that have more than one value.
async fn read(line: &mut Line, keys: &Keys) -> Result<(Records, BTreeSet<String>)> {
    let (mut records, mut long) = (Records::new(), BTreeSet::new());
    for kv in line.below(&keys.records()).await? {
        records.insert(below(&keys.records(), &kv)?, kv.into_key_value().1);
    }
    // In the order of their keys: that of the pieces.
    for kv in line.below(&keys.more()).await? {
        let path = below(&keys.more(), &kv)?;
        let key = path.rsplit_once('/').map_or("", |(key, _)| key);
        records.get_mut(key).ok_or_else(|| foreign(&path))?.extend_from_slice(kv.value());
        long.insert(key.to_owned());
    }
    Ok((records, long))
}

/// What makes `after` of `before`.
fn difference(before: &Records, after: &Records) -> Vec<Entry> {
    let gone = before.keys().filter(|key| !after.contains_key(*key));
    let gone = gone.map(|key| Entry { key: key.clone(), value: None });
    let put = after.iter().filter(|(key, value)| before.get(*key) != Some(value));
    gone.chain(put.map(|(key, value)| Entry { key: key.clone(), value: Some(value.clone()) })).collect()
}

/// What was written down in `journal`, if all of it was.
fn whole(keys: &Keys, journal: &[KeyValue]) -> Result<Option<Journal>> {
    let mark = format!("{}whole", keys.journal());
    let (mark, parts): (Vec<&KeyValue>, Vec<&KeyValue>) =
        journal.iter().partition(|kv| kv.key() == mark.as_bytes());
    let Some(mark) = mark.first() else { return Ok(None) };
    let bytes: Vec<u8> = parts.iter().flat_map(|kv| kv.value()).copied().collect();
    if number(Some(mark)) != u64::try_from(parts.len()).ok() {
        return Err(foreign(&keys.journal()));
    }
    Journal::decode(bytes.as_slice()).map(Some).map_err(|cause| foreign(&keys.journal()).caused_by(cause))
}

fn clear(prefix: &str) -> TxnOp {
    TxnOp::delete(prefix, Some(DeleteOptions::new().with_range(after(prefix))))
}

fn number(kv: Option<&KeyValue>) -> Option<u64> {
    std::str::from_utf8(kv?.value()).ok()?.parse().ok()
}

/// The key of `kv` without `prefix`.
fn below(prefix: &str, kv: &KeyValue) -> Result<String> {
    let key = kv.key().strip_prefix(prefix.as_bytes()).unwrap_or(kv.key());
    String::from_utf8(key.to_vec()).map_err(|_| foreign(&String::from_utf8_lossy(kv.key())))
}

fn foreign(key: &str) -> Error {
    Error::new(Kind::Checkpoint, format!("the key {key} in the ownership's etcd is not as migrans left it"))
        .hint("nothing else may write below ownership.prefix; restore it, or start afresh with another name")
}
