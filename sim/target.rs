//! The simulated target: calls arrive, take effect wholly, in part or not at all, and are answered, each when the
//! simulation says so.

use std::collections::{BTreeMap, BTreeSet};
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::Duration;

use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use arrow_array::{ArrayRef, RecordBatch};
use async_trait::async_trait;
use migrans::milvus::catalog::{Catalog, Collection, CollectionId, CollectionName, Ddl, Load};
use migrans::ops::apply::describe;
use migrans::sinks::{Found, Operation, Sink, Write};
use migrans::{Error, Kind, Result};
use rand::RngExt;
use rand::rngs::StdRng;

use super::messages::{keyed_partition, shard};
use super::source::Key;
use super::world::SimWorld;

/// How many shards collections have here; what a call changes in one of them it may fail to change in another.
const SHARDS: usize = 2;

/// What goes wrong at the target, as chances.
#[derive(Clone, Debug)]
pub struct Faults {
    /// An answer is lost; the call took effect, wholly or in part or not, or will.
    pub lost: f64,
    /// The call is refused for now.
    pub busy: f64,
    /// The call is refused for good, which stops the pipeline.
    pub fatal: f64,
    /// The call takes effect late, as far as up to its deadline, when the run that made it may be gone.
    pub slow: f64,
}

/// A request.
#[derive(Clone, Debug)]
pub enum Request {
    /// Rows.
    Write(Write),
    /// A step of the catalog.
    Ddl(Ddl),
}

/// A call under way.
#[derive(Debug)]
struct Call {
    request: Request,
    /// The run of the pipeline that made it.
    run: u32,
    /// It takes effect from here on,
    from: Duration,
    /// and before this, or never.
    until: Duration,
    landed: bool,
    answer: Option<Result<()>>,
    answered: bool,
}

impl Call {
    /// Whether somebody waits for an answer that is not decided.
    fn is_awaited(&self, run: u32) -> bool {
        self.run == run && self.answer.is_none() && !self.answered
    }
}

/// A collection as it stands.
#[derive(Clone, Debug)]
pub struct Held {
    /// Its id at the source.
    pub id: CollectionId,
    /// Rows by partition; a key may be there twice.
    pub partitions: BTreeMap<String, Vec<(Key, i64)>>,
    /// Names of indexes.
    pub indexes: BTreeSet<String>,
    /// What is loaded.
    pub load: Option<Load>,
    /// Properties.
    pub properties: BTreeMap<String, String>,
    keyed: bool,
}

/// All that the target holds.
#[derive(Debug, Default)]
pub struct Tables {
    /// Names of databases.
    pub databases: BTreeSet<String>,
    /// Collections by name.
    pub collections: BTreeMap<CollectionName, Held>,
    /// Aliases: the collections that they stand for.
    pub aliases: BTreeMap<CollectionName, CollectionId>,
    calls: BTreeMap<u64, Call>,
    next: u64,
    run: u32,
    /// What must never happen, and did.
    pub violations: Vec<String>,
    /// Calls that were made.
    pub made: u64,
}

/// Looks at each call of a write before it is made.
pub type Watch = Box<dyn Fn(&Write, Duration) -> Option<String> + Send + Sync>;

/// The target as one run of the pipeline sees it. Clones are the same one.
#[derive(Clone)]
pub struct SimTarget {
    tables: Arc<Mutex<Tables>>,
    world: SimWorld,
    watch: Arc<Watch>,
    run: u32,
}

impl SimTarget {
    /// A new run against `tables`.
    pub fn new(tables: &Arc<Mutex<Tables>>, world: SimWorld, watch: Watch) -> SimTarget {
        let mut held = lock(tables);
        held.run += 1;
        let run = held.run;
        drop(held);
        SimTarget { tables: Arc::clone(tables), world, watch: Arc::new(watch), run }
    }

    async fn call(&self, request: Request, deadline: Duration) -> Result<()> {
        let id = {
            let now = self.world.elapsed();
            let mut tables = lock(&self.tables);
            if let Some((_, stale)) =
                tables.calls.iter().find(|(_, call)| call.run < self.run && !call.landed && call.until > now)
            {
                let left = stale.until - now;
                let text = format!(
                    "INVARIANT 6: {request:?} is sent while a call of an earlier run may take effect for {left:?}: {:?}",
                    stale.request
                );
                tables.violations.push(text);
            }
            if let Request::Write(write) = &request
                && let Some(violation) = (self.watch)(write, deadline)
            {
                tables.violations.push(violation);
            }
            let id = tables.next;
            tables.next += 1;
            tables.made += 1;
            let until = now + deadline;
            let call = Call {
                request,
                run: self.run,
                from: now,
                until,
                landed: false,
                answer: None,
                answered: false,
            };
            tables.calls.insert(id, call);
            id
        };
        poll_fn(|_| match lock(&self.tables).calls.get_mut(&id) {
            None => Poll::Pending,
            Some(call) => match call.answer.take() {
                Some(answer) => {
                    call.answered = true;
                    Poll::Ready(answer)
                }
                None => Poll::Pending,
            },
        })
        .await
    }
}

#[async_trait]
impl Sink for SimTarget {
    async fn write(&self, write: &Write, deadline: Duration) -> Result<()> {
        self.call(Request::Write(write.clone()), deadline).await
    }

    async fn apply(&self, ddl: &Ddl, deadline: Duration) -> Result<()> {
        self.call(Request::Ddl(ddl.clone()), deadline).await
    }

    async fn find(&self, name: &CollectionName) -> Result<Found> {
        let found = lock(&self.tables).collections.contains_key(name);
        Ok(if found { Found::Collection } else { Found::Absent })
    }

    async fn differences(&self, _wanted: &Collection) -> Result<Vec<String>> {
        Ok(Vec::new())
    }

    fn objections(&self, _wanted: &Catalog) -> Vec<String> {
        Vec::new()
    }

    fn describe(&self) -> String {
        String::from("simulated")
    }
}

/// The tables, whoever panicked with them.
pub fn lock(tables: &Mutex<Tables>) -> MutexGuard<'_, Tables> {
    tables.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Tables {
    /// Whether no call can take effect any more.
    pub fn is_quiet(&self, now: Duration) -> bool {
        self.calls.values().all(|call| call.landed || call.until <= now)
    }

    /// Something happens to some call. Returns it in words.
    pub fn go_on(&mut self, chance: &mut StdRng, now: Duration, faults: &Faults) -> String {
        self.expire(now);
        let open: Vec<u64> = self
            .calls
            .iter()
            .filter(|(_, call)| call.from <= now && (!call.landed || call.is_awaited(self.run)))
            .map(|(id, _)| *id)
            .collect();
        if open.is_empty() {
            return String::new();
        }
        let id = open[chance.random_range(0..open.len())];
        let Some(mut call) = self.calls.remove(&id) else { return String::new() };
        let mut text = format!("call {id} of run {}, {}: ", call.run, describe_request(&call.request));
        if !call.is_awaited(self.run) {
            text += &format!("{:?}, late", self.land(&call.request, None, false));
            call.landed = true;
            self.calls.insert(id, call);
            return text;
        }
        if !call.landed && chance.random_bool(faults.slow) {
            call.from = chance.random_range(now..call.until);
            text += &format!("slow, until {:.3}", call.from.as_secs_f64());
        } else if chance.random_bool(faults.fatal) {
            call.answer = Some(Err(Error::new(Kind::Refused, "refused by the simulation")));
            call.landed = true;
            text += "refused for good";
        } else if !call.landed && chance.random_bool(faults.busy) {
            let kind = [Kind::Unavailable, Kind::RateLimited, Kind::Exhausted][chance.random_range(0..3)];
            call.answer = Some(Err(Error::new(kind, "not now")));
            call.landed = true;
            text += &format!("{kind:?}");
        } else if chance.random_bool(faults.lost) {
            match chance.random_range(0..3) {
                0 if !call.landed => {
                    let part = chance.random_range(0..SHARDS);
                    text += &format!(
                        "{:?} in part {part}, answer lost",
                        self.land(&call.request, Some(part), true)
                    );
                    call.landed = true;
                }
                1 if !call.landed => {
                    text += &format!("{:?}, answer lost", self.land(&call.request, None, true));
                    call.landed = true;
                }
                // It may land later.
                _ => text += "answer lost",
            }
            call.answer = Some(Err(Error::new(Kind::InDoubt, "the answer was lost")));
        } else if call.landed {
            call.answer = Some(Ok(()));
            text += "answered";
        } else {
            let result = self.land(&call.request, None, true);
            text += &format!("{result:?}");
            call.landed = true;
            if result.is_err() || chance.random_bool(0.7) {
                call.answer = Some(result);
            }
        }
        self.calls.insert(id, call);
        text
    }

    /// A step that an earlier run had begun is finished. Milvus carries steps out in the order in which they came, so what
    /// that run had sent does not land any more after this.
    pub fn finish(&mut self, ddl: &Ddl) -> Result<()> {
        self.ddl(ddl)?;
        for call in self.calls.values_mut() {
            if matches!(&call.request, Request::Ddl(sent) if sent.collection() == ddl.collection() || is_of(sent, ddl))
            {
                call.landed = true;
            }
        }
        Ok(())
    }

    /// What has not taken effect by its deadline never will.
    fn expire(&mut self, now: Duration) {
        let run = self.run;
        for call in self.calls.values_mut().filter(|call| call.until <= now) {
            call.landed = true;
            if call.is_awaited(run) {
                call.answer = Some(Err(Error::new(Kind::InDoubt, "no answer within the deadline")));
            }
        }
        self.calls.retain(|_, call| !call.landed || !call.answered && call.run == run);
    }

    /// A request takes effect; with `part`, only in that shard.
    fn land(&mut self, request: &Request, part: Option<usize>, live: bool) -> Result<()> {
        let result = match request {
            Request::Write(write) => self.write(write, part),
            Request::Ddl(ddl) => self.ddl(ddl),
        };
        if let Err(error) = &result
            && live
        {
            self.violations.push(format!("INVARIANT 1: {} ({request:?})", error.message()));
        }
        result
    }

    fn write(&mut self, write: &Write, part: Option<usize>) -> Result<()> {
        let name = &write.collection.name;
        let missing = |what: &str| Error::new(Kind::NotFound, format!("{what} is not there"));
        let held = self.collections.get_mut(name).ok_or_else(|| missing(&name.to_string()))?;
        if let Some(partition) = &write.partition
            && !held.partitions.contains_key(&**partition)
        {
            return Err(missing(&format!("partition {partition} of {name}")));
        }
        let here = |key: &str| part.is_none_or(|part| shard(key, SHARDS) == part);
        match &write.operation {
            Operation::Delete(keys) => {
                for key in texts(keys).iter().filter(|key| here(key)) {
                    held.delete(key, write.partition.as_deref());
                }
            }
            Operation::Messages(..) => return Err(Error::new(Kind::Internal, "this target is no standby")),
            Operation::Insert(batches) | Operation::Upsert(batches) => {
                let upsert = matches!(write.operation, Operation::Upsert(_));
                let mut seen = BTreeSet::new();
                for (key, value) in rows(batches) {
                    if upsert && !seen.insert(key.clone()) {
                        return Err(Error::new(
                            Kind::Internal,
                            format!("an upsert holds the key {key} twice"),
                        ));
                    }
                    if !here(&key) {
                        continue;
                    }
                    let partition = match &write.partition {
                        Some(partition) => partition.to_string(),
                        None if held.keyed => keyed_partition(&key),
                        None => String::from("_default"),
                    };
                    if upsert {
                        held.delete(&key, Some(&partition));
                    }
                    held.partitions.entry(partition).or_default().push((key, value));
                }
            }
        }
        Ok(())
    }

    fn ddl(&mut self, ddl: &Ddl) -> Result<()> {
        let refused = |text: String| Err(Error::new(Kind::Refused, text));
        let held = ddl.collection_name().and_then(|name| self.collections.get_mut(name));
        match (ddl, held) {
            (Ddl::CreateDatabase(database), _) => drop(self.databases.insert(database.name.clone())),
            (Ddl::DropDatabase { name, .. }, _) => {
                if self.collections.keys().any(|collection| collection.database == *name) {
                    return refused(format!("the database {name} is not empty"));
                }
                self.databases.remove(name);
            }
            (Ddl::CreateCollection(collection), None) => {
                if self.aliases.contains_key(&collection.name) {
                    return refused(format!("{} is an alias", collection.name));
                }
                let database = &collection.name.database;
                if database != "default" && !self.databases.contains(database) {
                    return refused(format!("the database {database} is not there"));
                }
                let partitions =
                    collection.partitions.values().map(|partition| (partition.name.clone(), Vec::new()));
                let held = Held {
                    id: collection.id,
                    partitions: partitions.collect(),
                    indexes: BTreeSet::new(),
                    load: None,
                    properties: collection.properties.clone(),
                    keyed: collection.has_partition_key(),
                };
                self.collections.insert(collection.name.clone(), held);
            }
            (Ddl::CreateCollection(collection), Some(held)) => {
                if held.id != collection.id {
                    return refused(format!("another {} is there, id {}", collection.name, held.id));
                }
            }
            (Ddl::DropCollection { name, .. }, Some(held)) => {
                let id = held.id;
                if let Some((alias, _)) = self.aliases.iter().find(|(_, of)| **of == id) {
                    return refused(format!("{name} has the alias {alias}"));
                }
                self.collections.remove(name);
            }
            (Ddl::DropCollection { .. }, None) => {}
            (Ddl::RenameCollection { id, name, to }, held) => {
                let is_old = held.is_some_and(|held| held.id == *id);
                let is_new = self.collections.get(to).map(|held| held.id == *id);
                match (is_old, is_new) {
                    (true, None) if self.aliases.contains_key(to) => {
                        return refused(format!("{to} is an alias"));
                    }
                    (true, None) if to.database != "default" && !self.databases.contains(&to.database) => {
                        return refused(format!("the database of {to} is not there"));
                    }
                    (true, None)
                        if name.database != to.database && self.aliases.values().any(|of| of == id) =>
                    {
                        return refused(format!("{name} has an alias"));
                    }
                    (true, None) => {
                        if let Some(held) = self.collections.remove(name) {
                            self.collections.insert(to.clone(), held);
                        }
                    }
                    (false, Some(true)) => {}
                    _ => {
                        return refused(format!(
                            "{name} ({id}) can't become {to}: {:?}",
                            self.collections.keys()
                        ));
                    }
                }
            }
            (Ddl::SetAlias { alias, id, name, from, .. }, held) => {
                if held.is_none_or(|held| held.id != *id) {
                    return refused(format!("the collection {name} of the alias {alias} is not there"));
                }
                if self.collections.contains_key(alias) {
                    return refused(format!("the alias {alias} has the name of a collection"));
                }
                if from.is_none() && self.aliases.get(alias).is_some_and(|of| of != id) {
                    return refused(format!("the alias {alias} is somebody else's"));
                }
                self.aliases.insert(alias.clone(), *id);
            }
            (Ddl::DropAlias { alias, .. }, _) => drop(self.aliases.remove(alias)),
            (Ddl::CreatePartition { partition, .. }, Some(held)) => {
                held.partitions.entry(partition.name.clone()).or_default();
            }
            (Ddl::DropPartition { partition, .. }, Some(held)) => {
                let is_loaded =
                    |load: &Load| load.partitions.as_ref().is_none_or(|loaded| loaded.contains(partition));
                if held.load.as_ref().is_some_and(is_loaded) {
                    return refused(format!("partition {partition} is loaded"));
                }
                held.partitions.remove(partition);
            }
            (Ddl::CreateIndex { index, .. }, Some(held)) => drop(held.indexes.insert(index.name.clone())),
            (Ddl::DropIndex { index, .. }, Some(held)) => {
                if held.load.is_some() {
                    return refused(format!("index {} is loaded", index.name));
                }
                held.indexes.remove(&index.name);
            }
            (Ddl::SetLoad { to, .. }, Some(held)) => held.load = to.clone(),
            (Ddl::SetProperties { properties, .. }, Some(held)) => held.properties = properties.clone(),
            (Ddl::SetDatabaseProperties { .. } | Ddl::Access(_) | Ddl::AlterIndex { .. }, _) => {}
            (Ddl::DropPartition { .. } | Ddl::DropIndex { .. } | Ddl::SetLoad { to: None, .. }, None) => {}
            (ddl, None) => return refused(format!("the collection of {ddl:?} is not there")),
        }
        Ok(())
    }
}

/// Whether both are about one alias.
fn is_of(one: &Ddl, other: &Ddl) -> bool {
    let alias = |ddl: &Ddl| match ddl {
        Ddl::SetAlias { alias, .. } | Ddl::DropAlias { alias, .. } => Some(alias.clone()),
        _ => None,
    };
    alias(one).is_some() && alias(one) == alias(other)
}

impl Held {
    fn delete(&mut self, key: &str, partition: Option<&str>) {
        for (name, rows) in &mut self.partitions {
            if partition.is_none_or(|partition| partition == name) {
                rows.retain(|(other, _)| other != key);
            }
        }
    }
}

/// A request in a few words.
fn describe_request(request: &Request) -> String {
    let write = match request {
        Request::Ddl(ddl) => return describe(ddl),
        Request::Write(write) => write,
    };
    let (verb, what) = match &write.operation {
        Operation::Insert(batches) => ("insert", format!("{:?}", rows(batches))),
        Operation::Upsert(batches) => ("upsert", format!("{:?}", rows(batches))),
        Operation::Delete(keys) => ("delete", format!("{:?}", texts(keys))),
        Operation::Messages(shard, messages) => ("messages", format!("{} of {shard}", messages.len())),
    };
    format!("{verb} {} {:?} {what}", write.collection.name, write.partition.as_deref().unwrap_or_default())
}

/// Keys and values of batches.
pub fn rows(batches: &[RecordBatch]) -> Vec<(Key, i64)> {
    let mut all = Vec::new();
    for batch in batches {
        let column = |name: &str| batch.column_by_name(name);
        if let (Some(keys), Some(values)) = (column("id"), column("v")) {
            let values = values.as_primitive::<Int64Type>().values();
            all.extend(texts(keys).into_iter().zip(values.iter().copied()));
        }
    }
    all
}

/// Keys of either type.
pub fn texts(keys: &ArrayRef) -> Vec<Key> {
    if let Some(numbers) = keys.as_primitive_opt::<Int64Type>() {
        return numbers.values().iter().map(i64::to_string).collect();
    }
    keys.as_string_view_opt().map_or_else(Vec::new, |keys| keys.iter().flatten().map(str::to_owned).collect())
}
