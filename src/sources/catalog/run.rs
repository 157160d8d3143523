//! Following the catalog: list, watch, confirm ticks, start again when the connection is lost.
//!
//! # How a tick is confirmed
//! Milvus lets a tick T out only after every DDL up to T is in etcd. So a linearizable read that begins after T was
//! seen shows every collection and partition that was created up to T. It need not show much:
//! 1. The revision of the store. If nothing has been written since the last confirmation, that is all.
//! 2. What has been put since then where collections and partitions begin. Mostly nothing: other things are written
//!    all the time.
//! 3. If there is something: what has been put in all ranges, at one revision. The watch brings the same, sooner or
//!    later, and deletions too; for these it is not urgent.
//!
//! Between 2 and 3, what was seen by (2) is not counted as complete: only a read of (3), or the watch, brings fields.
//! Progress notifications of the watch would do as well, but are wrong in etcd before 3.4.25 and 3.5.8.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use etcd_client::KeyValue;
use futures_util::future::{join_all, try_join};
use tokio::sync::watch::Receiver;
use tokio::time::Instant;

use super::assemble::{Assembled, assemble};
use super::etcd::{Answer, Connection, Servers, Watched, key_changes};
use super::history::{drop_time, rename_time};
use super::keys::{DEFAULT_DATABASE, Key, Meta, RANGES, Range};
use super::mirror::Mirror;
use super::patience::Patience;
use super::{CatalogUpdate, DropTimes, Selection, version};
use crate::error::{Error, Kind, Result};
use crate::milvus::catalog::{Catalog, CollectionId, CollectionName};
use crate::milvus::tso::Tso;

/// How long changes are gathered when no tick carries them.
const GATHER: Duration = Duration::from_millis(50);
/// A connection that lasted this long was a good one.
const GOOD: Duration = Duration::from_secs(10);
/// How often in a row credentials may be refused: a token that is being renewed, or rights that are being changed.
const DENIALS: u32 = 3;
/// How many histories are asked for at once.
const HISTORIES: usize = 32;
/// How long, in the source's time, a drop is remembered after it was confirmed.
const REMEMBERED: Duration = Duration::from_secs(3600);

/// The state of a source that is being followed, over all its connections.
pub struct Follower<F> {
    pub servers: Servers,
    pub meta: Meta,
    pub select: Arc<Selection>,
    pub ticks: Receiver<Tso>,
    pub out: F,
    /// What was sent last.
    pub sent: Option<Sent>,
    /// What was there before that: what is missing now was dropped.
    pub before: Arc<Catalog>,
    pub drop_times: Arc<DropTimes>,
    pub confirmed: Tso,
    /// The identity of the etcd cluster, and the highest revision of it that was seen.
    pub cluster: Option<u64>,
    pub revision: i64,
    /// Where that revision is told.
    pub seen: Arc<AtomicI64>,
    /// In which resource groups collections are loaded, as was told.
    pub resource_groups: BTreeMap<CollectionName, BTreeSet<String>>,
}

/// What the last update said.
pub struct Sent {
    catalog: Arc<Catalog>,
    ignored: Arc<BTreeSet<CollectionId>>,
    other_databases: Arc<BTreeSet<i64>>,
}

/// What the reads for one tick have shown.
struct Confirmation {
    tick: Tso,
    /// All collections and partitions up to this revision are known.
    revision: i64,
    /// What was put since, by range, if anything.
    puts: Vec<(Range, Answer)>,
}

enum Event {
    Changed(Watched),
    Tick(Tso),
    Confirmed(Confirmation),
    Gathered,
    NoMoreTicks,
}

type Confirming = Pin<Box<dyn Future<Output = Result<Confirmation>> + Send>>;

impl<F: Fn(CatalogUpdate) + Send> Follower<F> {
    /// Follows until there are no more ticks.
    ///
    /// # Errors
    /// What waiting does not heal. While etcd can't be reached, it waits.
    pub async fn run(mut self, connection: Connection) -> Result<()> {
        let mut connection = Some(connection);
        let mut patience = Patience::default();
        let mut denials = 0;
        loop {
            let began = Instant::now();
            let error = match connection.take() {
                Some(connection) => self.session(&connection, &mut patience).await,
                None => match self.servers.connect(&self.meta).await {
                    Ok(connection) => self.session(&connection, &mut patience).await,
                    Err(error) => Err(error),
                },
            };
            let Err(error) = error else { return Ok(()) };
            if began.elapsed() > GOOD {
                patience.restore();
                denials = 0;
            }
            match error.kind() {
                Kind::Unavailable => {}
                Kind::Denied if denials < DENIALS => denials += 1,
                _ => return Err(error),
            }
            if self.ticks.has_changed().is_err() {
                return Ok(());
            }
            patience.wait(&error).await;
        }
    }

    /// One list and one watch.
    async fn session(&mut self, connection: &Connection, patience: &mut Patience) -> Result<()> {
        let tick = *self.ticks.borrow_and_update();
        let sessions = super::sessions(connection, &self.meta).await?;
        version::running(&sessions, self.meta.prefix())?;
        let list = connection.list(&self.meta).await?;
        self.check_identity(&list, connection)?;
        let mut view = View::new(&self.meta, list)?;
        let mut watch = connection.watch(&self.meta, self.revision).await?;
        self.publish(connection, &view.mirror, true, Some(tick)).await?;
        patience.reached(connection.address());

        let mut confirming: Option<Confirming> = None;
        let mut gather_until: Option<Instant> = None;
        loop {
            let event = tokio::select! {
                watched = watch.next() => Event::Changed(watched?),
                confirmation = maybe(confirming.as_mut()) => Event::Confirmed(confirmation?),
                changed = self.ticks.changed(), if confirming.is_none() => match changed {
                    Ok(()) => Event::Tick(*self.ticks.borrow_and_update()),
                    Err(_) => Event::NoMoreTicks,
                },
                () = maybe(gather_until.map(|until| Box::pin(tokio::time::sleep_until(until)))) => Event::Gathered,
            };
            match event {
                Event::Changed(watched) => {
                    self.revision = self.revision.max(watched.revision);
                    if view.mirror.absorb(watched.range, watched.revision, watched.changes) {
                        gather_until.get_or_insert(Instant::now() + GATHER);
                    }
                }
                Event::Tick(tick) => {
                    if tick > self.confirmed {
                        let (connection, meta) = (connection.clone(), self.meta.clone());
                        confirming =
                            Some(Box::pin(confirm(connection, meta, tick, view.floors(self.revision))));
                    }
                }
                Event::Confirmed(confirmation) => {
                    confirming = None;
                    self.revision = self.revision.max(confirmation.revision);
                    let tick = confirmation.tick;
                    let changed = view.absorb(&self.meta, confirmation)? || gather_until.is_some();
                    gather_until = None;
                    self.publish(connection, &view.mirror, changed, Some(tick)).await?;
                }
                Event::Gathered => {
                    gather_until = None;
                    self.publish(connection, &view.mirror, true, None).await?;
                }
                Event::NoMoreTicks => return Ok(()),
            }
        }
    }

    /// An etcd that was put back to an earlier state, or another one altogether, must not look like so many drops.
    fn check_identity(&mut self, list: &Answer, connection: &Connection) -> Result<()> {
        let at = connection.address();
        let other = self.cluster.is_some_and(|cluster| cluster != list.cluster);
        if other || list.revision < self.revision {
            return Err(went_back(at, other, self.revision, list.revision));
        }
        self.cluster = Some(list.cluster);
        self.revision = list.revision;
        Ok(())
    }

    /// Sends what is new, and that `tick` is confirmed.
    async fn publish(
        &mut self,
        connection: &Connection,
        mirror: &Mirror,
        changed: bool,
        tick: Option<Tso>,
    ) -> Result<()> {
        let upto = tick.filter(|tick| *tick > self.confirmed);
        let mut wanted = None;
        let mut news = false;
        if changed {
            let select = Arc::clone(&self.select);
            let assembled = assemble(mirror, &self.meta, &*select)?;
            wanted = self.take_over(connection, assembled, &mut news).await?;
        }
        let Some(sent) = &self.sent else { return Ok(()) };
        if upto.is_none() && wanted.is_none() && !news {
            return Ok(());
        }
        self.seen.fetch_max(self.revision, Ordering::Relaxed);
        if let Some(upto) = upto {
            self.confirmed = upto;
            forget_before(&mut self.drop_times, upto);
        }
        (self.out)(CatalogUpdate {
            upto,
            wanted,
            ignored: Arc::clone(&sent.ignored),
            other_databases: Arc::clone(&sent.other_databases),
            drop_times: Arc::clone(&self.drop_times),
        });
        Ok(())
    }

    /// Makes `assembled` what was sent last. Returns its catalog if that is another one than before; `news` says
    /// whether anything is new.
    async fn take_over(
        &mut self,
        connection: &Connection,
        assembled: Assembled,
        news: &mut bool,
    ) -> Result<Option<Arc<Catalog>>> {
        let Assembled { catalog, ignored, other_databases, resource_groups } = assembled;
        self.tell_resource_groups(resource_groups);
        let same = self.sent.as_ref().is_some_and(|sent| *sent.catalog == catalog);
        if let Some(sent) = self.sent.as_ref().filter(|_| same)
            && *sent.ignored == ignored
            && *sent.other_databases == other_databases
        {
            return Ok(None);
        }
        *news = true;
        let catalog = match &self.sent {
            Some(sent) if same => Arc::clone(&sent.catalog),
            _ => {
                self.find_drop_times(connection, &catalog, &ignored).await?;
                Arc::new(catalog)
            }
        };
        self.before = Arc::clone(&catalog);
        self.sent = Some(Sent {
            catalog: Arc::clone(&catalog),
            ignored: Arc::new(ignored),
            other_databases: Arc::new(other_databases),
        });
        Ok((!same).then_some(catalog))
    }

    /// Resource groups are a property of the cluster, so loads on the target are in its default one: told once for each.
    fn tell_resource_groups(&mut self, found: BTreeMap<CollectionName, BTreeSet<String>>) {
        for (name, groups) in &found {
            if self.resource_groups.get(name) != Some(groups) {
                let groups = Vec::from_iter(groups.iter().map(String::as_str)).join(", ");
                tracing::warn!(
                    "the source has {name} loaded in the resource groups {groups}; the target has it in its default one, \
                     since groups are made for the nodes of a cluster"
                );
            }
        }
        self.resource_groups = found;
    }

    /// Looks up when that was dropped which was there before and is not in `catalog`.
    async fn find_drop_times(
        &mut self,
        connection: &Connection,
        catalog: &Catalog,
        ignored: &BTreeSet<CollectionId>,
    ) -> Result<()> {
        let mut gone = Vec::new();
        let mut renamed = Vec::new();
        for (id, collection) in &self.before.collections {
            match catalog.collections.get(id) {
                None if ignored.contains(id) => {}
                None => gone.extend(self.collection_keys(*id, &collection.name)),
                Some(now) => {
                    if now.name != collection.name {
                        renamed.push((*id, key_of(catalog, *id, &now.name)));
                    }
                    gone.extend(
                        collection
                            .partitions
                            .keys()
                            .filter(|partition| !now.partitions.contains_key(partition))
                            .map(|partition| Key::Partition(*id, *partition)),
                    );
                }
            }
        }
        if gone.is_empty() && renamed.is_empty() {
            return Ok(());
        }
        let mut found = DropTimes::clone(&self.drop_times);
        for (id, key) in renamed {
            let entries = entries(connection, &self.meta, &key).await?;
            match rename_time(&self.meta, &key, &entries)? {
                Some(ts) => drop(found.renames.insert(id, ts)),
                // Of an earlier rename, a time is wrong.
                None => drop(found.renames.remove(&id)),
            }
        }
        for keys in gone.chunks(HISTORIES) {
            let histories = keys.iter().map(|key| history(connection, &self.meta, key));
            for (key, ts) in keys.iter().zip(join_all(histories).await) {
                match (key, ts?) {
                    (Key::Collection(id, _), Some(ts)) => {
                        found.collections.insert(*id, ts);
                    }
                    (Key::Partition(_, id), Some(ts)) => {
                        found.partitions.insert(*id, ts);
                    }
                    _ => {}
                }
            }
        }
        self.drop_times = Arc::new(found);
        Ok(())
    }

    fn collection_keys(&self, id: CollectionId, name: &CollectionName) -> [Key; 2] {
        [key_of(&self.before, id, name), Key::Collection(id, None)]
    }
}

/// What a connection has shown so far.
struct View {
    mirror: Mirror,
    /// Up to this revision, nothing has begun that is not in the mirror. What belongs to it may not be there yet.
    probed: i64,
}

/// From where on a confirmation must look.
#[derive(Clone, Copy)]
struct Floors {
    /// Up to this revision, all collections and partitions are known.
    known: i64,
    /// Up to these, all that was put in each range.
    complete: [i64; RANGES],
    /// The store was at this revision.
    revision: i64,
}

impl View {
    fn new(meta: &Meta, list: Answer) -> Result<View> {
        let mirror = Mirror::new(list.revision, key_changes(meta, list.keys)?);
        Ok(View { mirror, probed: list.revision })
    }

    fn floors(&self, revision: i64) -> Floors {
        Floors {
            known: self.probed.max(self.mirror.complete(Range::Collections)),
            complete: self.mirror.all_complete(),
            revision,
        }
    }

    /// Takes in what a confirmation has read. Says whether the mirror is another one now.
    fn absorb(&mut self, meta: &Meta, confirmation: Confirmation) -> Result<bool> {
        self.probed = self.probed.max(confirmation.revision);
        let mut changed = false;
        for (range, answer) in confirmation.puts {
            changed |= self.mirror.absorb(range, answer.revision, key_changes(meta, answer.keys)?);
        }
        Ok(changed)
    }
}

/// Confirms `tick`, which was seen before this was called.
async fn confirm(connection: Connection, meta: Meta, tick: Tso, floors: Floors) -> Result<Confirmation> {
    let Floors { known, complete, revision } = floors;
    let now = connection.revision(&meta).await?;
    if now.revision < revision {
        return Err(went_back(connection.address(), false, revision, now.revision));
    }
    if now.revision <= known {
        return Ok(Confirmation { tick, revision: known, puts: Vec::new() });
    }
    let [collections, partitions] = meta.newcomers();
    let (collections, partitions) =
        try_join(connection.put_since(&collections, known), connection.put_since(&partitions, known)).await?;
    if collections.keys.is_empty() && partitions.keys.is_empty() {
        let revision = collections.revision.min(partitions.revision);
        return Ok(Confirmation { tick, revision, puts: Vec::new() });
    }
    let mut puts: Vec<(Range, Answer)> = Vec::with_capacity(RANGES);
    let mut at = None;
    for range in meta.ranges().iter().copied() {
        let mut answer = connection.put_in_range_since(&meta, range, complete[range.index()], at).await?;
        // The header always tells the present revision; what was read is as of the first one.
        answer.revision = *at.get_or_insert(answer.revision);
        puts.push((range, answer));
    }
    Ok(Confirmation { tick, revision: at.unwrap_or(known), puts })
}

/// Where a collection is kept that `catalog` has in a database.
fn key_of(catalog: &Catalog, id: CollectionId, name: &CollectionName) -> Key {
    let mut databases = catalog.databases.values();
    let database = databases.find(|database| database.name == name.database);
    Key::Collection(id, Some(database.map_or(DEFAULT_DATABASE, |database| database.id)))
}

async fn history(connection: &Connection, meta: &Meta, key: &Key) -> Result<Option<Tso>> {
    drop_time(meta, key, &entries(connection, meta, key).await?)
}

async fn entries(connection: &Connection, meta: &Meta, key: &Key) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let entries = connection.with_prefix(&meta.history(key), 0, false).await?;
    Ok(entries.into_iter().map(KeyValue::into_key_value).collect())
}

fn went_back(address: &str, other: bool, before: i64, now: i64) -> Error {
    let what = if other {
        "is not the one that was read before".to_owned()
    } else {
        format!("went back from revision {before} to {now}")
    };
    Error::new(Kind::Corrupt, format!("the source's etcd at {address} {what}"))
        .hint("was it restored from a backup? Make sure that the source is as it should be, then start again")
}

fn forget_before(drop_times: &mut Arc<DropTimes>, confirmed: Tso) {
    let old = |ts: &Tso| ts.after(REMEMBERED) < confirmed;
    let all = [&drop_times.collections, &drop_times.renames];
    if all.iter().any(|times| times.values().any(old)) || drop_times.partitions.values().any(old) {
        let mut kept = DropTimes::clone(drop_times);
        kept.collections.retain(|_, ts| !old(ts));
        kept.partitions.retain(|_, ts| !old(ts));
        kept.renames.retain(|_, ts| !old(ts));
        *drop_times = Arc::new(kept);
    }
}

/// The output of `future`, if there is one; otherwise never.
async fn maybe<T: Future + Unpin>(future: Option<T>) -> T::Output {
    match future {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;
