//! The simulated source: a Milvus that executes random requests, writes its log and its catalog, and remembers what every
//! row was at every time. What it remembers is the reference that the target is compared with.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use migrans::milvus::catalog::{
    Alias, Catalog, Collection, CollectionId, CollectionName, Database, Index, Load, Partition, PartitionId,
    Schema,
};
use migrans::milvus::channel::{PChannel, VChannel};
use migrans::milvus::proto::schema::DataType;
use migrans::milvus::tso::Tso;
use migrans::sources::catalog::{CatalogUpdate, DropTimes};
use rand::RngExt;
use rand::rngs::StdRng;

use super::messages::{by_partition, by_shard, delete_message, field, insert_message, key};
use super::queue::{Message, Topics};

/// A primary key of either type, as text.
pub type Key = String;

/// A row: the name of its partition, and its value, which no other row has.
pub type Row = (String, i64);

/// What the rows of one key were: from each time on, the row, or none.
pub type Versions = Vec<(Tso, Option<Row>)>;

/// How the source behaves.
#[derive(Clone, Debug)]
pub struct Habits {
    /// Physical channels.
    pub channels: usize,
    /// The most collections at a time.
    pub collections: usize,
    /// Different keys of a collection: few are used again and again.
    pub keys: usize,
    /// Whether there is DDL after the beginning.
    pub ddl: bool,
    /// Chances of a repeated message, and of a repeated or backward tick.
    pub repeats: f64,
    /// Chance that a tick is older than it could be.
    pub late_ticks: f64,
}

/// The source.
pub struct Source {
    habits: Habits,
    topics: Topics,
    last: Tso,
    next_id: i64,
    next_channel: usize,
    catalog: Catalog,
    drop_times: DropTimes,
    /// Messages on their way into their topics.
    pending: BTreeMap<PChannel, Vec<(Tso, Message)>>,
    ticks: BTreeMap<PChannel, Tso>,
    versions: BTreeMap<(CollectionId, Key), Versions>,
    /// When a delete of a key was written, whether there was a row or not.
    deletes: BTreeMap<(CollectionId, Key), Vec<Tso>>,
    wanted_sent: Option<Catalog>,
}

impl Source {
    /// A source without anything in it.
    pub fn new(habits: Habits, topics: Topics) -> Source {
        let mut catalog = Catalog::default();
        let created = Tso(1);
        catalog
            .databases
            .insert(1, Database { id: 1, name: "default".into(), created, properties: BTreeMap::new() });
        Source {
            habits,
            topics,
            last: Tso(1),
            next_id: 100,
            next_channel: 0,
            catalog,
            drop_times: DropTimes::default(),
            pending: BTreeMap::new(),
            ticks: BTreeMap::new(),
            versions: BTreeMap::new(),
            deletes: BTreeMap::new(),
            wanted_sent: None,
        }
    }

    /// Executes a random request at the wall clock `unix_now`. Returns it in words.
    pub fn execute(&mut self, chance: &mut StdRng, unix_now: u64) -> String {
        let ts = Tso::from_millis(unix_now).max(self.last.succ());
        self.last = ts;
        let ids: Vec<CollectionId> = self.catalog.collections.keys().copied().collect();
        if ids.is_empty() || self.habits.ddl && chance.random_bool(0.15) {
            return self.change_catalog(chance, ts);
        }
        if ids.len() < self.habits.collections && chance.random_bool(0.1) {
            return self.create_collection(chance, ts);
        }
        let id = ids[chance.random_range(0..ids.len())];
        let collection = self.catalog.collections[&id].clone();
        let partitions: Vec<PartitionId> = collection.partitions.keys().copied().collect();
        let partition = partitions[chance.random_range(0..partitions.len())];
        let keys: BTreeSet<Key> = (0..chance.random_range(1..6usize))
            .map(|_| key(&collection, chance.random_range(0..self.habits.keys)))
            .collect();
        match chance.random_range(0..10) {
            0..4 => {
                let new: Vec<Key> =
                    keys.into_iter().filter(|key| self.row(id, key, Tso::MAX).is_none()).collect();
                self.insert(chance, ts, &collection, partition, &new);
                format!("insert {new:?} into {}", collection.name)
            }
            4..7 => {
                let keys: Vec<Key> = keys.into_iter().collect();
                self.upsert(chance, ts, &collection, partition, &keys);
                format!("upsert {keys:?} into {}", collection.name)
            }
            7..9 => {
                let keys: Vec<Key> = keys.into_iter().collect();
                let scope =
                    chance.random_bool(0.5).then_some(partition).filter(|_| !collection.has_partition_key());
                self.delete(ts, &collection, scope, &keys);
                format!("delete {keys:?} from {} {scope:?}", collection.name)
            }
            _ => {
                // Insert, delete and insert again at once.
                let new: Vec<Key> =
                    keys.into_iter().filter(|key| self.row(id, key, Tso::MAX).is_none()).collect();
                self.insert(chance, ts, &collection, partition, &new);
                self.last = self.last.succ();
                self.delete(self.last, &collection, None, &new);
                self.last = self.last.succ();
                let again = partitions[chance.random_range(0..partitions.len())];
                self.insert(chance, self.last, &collection, again, &new);
                format!("bounce {new:?} in {}", collection.name)
            }
        }
    }

    fn change_catalog(&mut self, chance: &mut StdRng, ts: Tso) -> String {
        let ids: Vec<CollectionId> = self.catalog.collections.keys().copied().collect();
        if ids.is_empty() || ids.len() < self.habits.collections && chance.random_bool(0.4) {
            return self.create_collection(chance, ts);
        }
        let id = ids[chance.random_range(0..ids.len())];
        match chance.random_range(0..18) {
            12..15 => self.rename_collection(chance, id, ts),
            15..17 => self.set_alias(chance, id, ts),
            17 => self.drop_alias(),
            0 | 1 => self.drop_collection(id, ts),
            2..5 => self.create_partition(id, ts),
            5 | 6 => self.drop_partition(id, ts),
            7 => {
                let Some(collection) = self.catalog.collections.get_mut(&id) else { return String::new() };
                let value = chance.random_range(1..100).to_string();
                collection.properties.insert("collection.ttl.seconds".into(), value);
                format!("set properties of {}", collection.name)
            }
            8 | 9 => self.change_index(id),
            10 => self.create_database(ts),
            _ => self.drop_database(),
        }
    }

    fn create_collection(&mut self, chance: &mut StdRng, ts: Tso) -> String {
        let databases: Vec<String> =
            self.catalog.databases.values().map(|database| database.name.clone()).collect();
        let name = CollectionName {
            database: databases[chance.random_range(0..databases.len())].clone(),
            // Some are not selected.
            collection: format!(
                "{}{}",
                ["c", "c", "c", "other"][chance.random_range(0..4)],
                chance.random_range(0..3)
            ),
        };
        if self.is_taken(&name) {
            return format!("{name} is there already");
        }
        let id = self.new_id();
        let shards = chance.random_range(1..4usize).min(self.habits.channels);
        let vchannels: Vec<VChannel> = (0..shards)
            .map(|shard| {
                self.next_channel += 1;
                let channel = self.next_channel % self.habits.channels;
                VChannel(format!("by-dev-rootcoord-dml_{channel}_{id}v{shard}").into())
            })
            .collect();
        let start_positions = vchannels
            .iter()
            .map(|channel| (channel.pchannel(), self.topics.end(&channel.pchannel())))
            .collect();
        let text = chance.random_bool(0.3);
        let by_key = chance.random_bool(0.2);
        let names = if by_key { vec!["_default_0", "_default_1", "_default_2"] } else { vec!["_default"] };
        let partitions = names.iter().map(|name| {
            self.next_id += 1;
            (PartitionId(self.next_id), Partition { name: (*name).into(), created: ts })
        });
        let key_type = if text { DataType::VarChar } else { DataType::Int64 };
        let mut fields = vec![field(100, "id", key_type, true), field(101, "v", DataType::Int64, false)];
        fields[1].partition_key = by_key;
        let collection = Collection {
            id: CollectionId(id),
            name: name.clone(),
            created: ts,
            partitions: partitions.collect(),
            schema: Schema { description: String::new(), dynamic: false, fields },
            shards: i32::try_from(shards).unwrap_or(1),
            consistency_level: 0,
            properties: BTreeMap::new(),
            vchannels,
            start_positions,
            indexes: BTreeMap::new(),
            load: None,
        };
        self.catalog.collections.insert(CollectionId(id), collection);
        format!("create {name} ({id}) with {shards} shards")
    }

    fn is_taken(&self, name: &CollectionName) -> bool {
        self.catalog.aliases.contains_key(name)
            || self.catalog.collections.values().any(|other| other.name == *name)
    }

    /// A free name, perhaps with others changing theirs before: names go round, also in a moment that nobody looks at.
    fn rename_collection(&mut self, chance: &mut StdRng, id: CollectionId, ts: Tso) -> String {
        let Some(collection) = self.catalog.collections.get(&id) else { return String::new() };
        let from = collection.name.clone();
        if !from.collection.starts_with('c') {
            // To be selected from now on would be an error.
            return String::from("nothing is renamed");
        }
        let others: Vec<CollectionId> = self
            .catalog
            .collections
            .values()
            .filter(|other| other.id != id && other.name.collection.starts_with('c'))
            .map(|other| other.id)
            .collect();
        if !others.is_empty() && chance.random_bool(0.4) {
            let other = others[chance.random_range(0..others.len())];
            let name = self.catalog.collections[&other].name.clone();
            // One goes aside, the other takes its name, and it takes the other's.
            self.rename(other, from.clone(), ts.succ());
            self.last = ts.succ().succ();
            self.rename(id, name.clone(), self.last);
            return format!("{from} and {name} change names");
        }
        let databases: Vec<String> =
            self.catalog.databases.values().map(|database| database.name.clone()).collect();
        let to = CollectionName {
            database: databases[chance.random_range(0..databases.len())].clone(),
            collection: format!("c{}", chance.random_range(0..5)),
        };
        if self.is_taken(&to) {
            return format!("{to} is there already");
        }
        self.rename(id, to.clone(), ts);
        format!("rename {from} to {to}")
    }

    fn rename(&mut self, id: CollectionId, to: CollectionName, ts: Tso) {
        if let Some(collection) = self.catalog.collections.get_mut(&id) {
            if collection.name.database != to.database {
                // Milvus refuses that for what has aliases.
                self.catalog.aliases.retain(|_, alias| alias.collection != id);
            }
            collection.name = to;
        }
        self.drop_times.renames.insert(id, ts);
    }

    fn set_alias(&mut self, chance: &mut StdRng, id: CollectionId, ts: Tso) -> String {
        let Some(of) = self.catalog.collections.get(&id) else { return String::new() };
        let alias = CollectionName {
            database: of.name.database.clone(),
            collection: format!("c{}", chance.random_range(0..6)),
        };
        if self.catalog.collections.values().any(|other| other.name == alias) {
            return format!("{alias} is a collection");
        }
        self.catalog.aliases.insert(alias.clone(), Alias { collection: id, changed: ts });
        format!("let the alias {alias} stand for {id}")
    }

    fn drop_alias(&mut self) -> String {
        match self.catalog.aliases.pop_first() {
            Some((alias, _)) => format!("drop the alias {alias}"),
            None => String::from("no alias to drop"),
        }
    }

    fn drop_collection(&mut self, id: CollectionId, ts: Tso) -> String {
        // Milvus refuses to drop what has aliases.
        self.catalog.aliases.retain(|_, alias| alias.collection != id);
        let Some(collection) = self.catalog.collections.remove(&id) else { return String::new() };
        self.drop_times.collections.insert(id, ts);
        format!("drop {} ({id})", collection.name)
    }

    fn create_partition(&mut self, id: CollectionId, ts: Tso) -> String {
        let partition = PartitionId(self.new_id());
        let Some(collection) = self.catalog.collections.get_mut(&id) else { return String::new() };
        let free = (1..4)
            .map(|number| format!("p{number}"))
            .find(|name| collection.partitions.values().all(|partition| partition.name != *name));
        match free {
            Some(name) if !collection.has_partition_key() => {
                collection.partitions.insert(partition, Partition { name: name.clone(), created: ts });
                format!("create partition {name} of {}", collection.name)
            }
            _ => String::from("no partition to create"),
        }
    }

    fn drop_partition(&mut self, id: CollectionId, ts: Tso) -> String {
        let Some(collection) = self.catalog.collections.get_mut(&id) else { return String::new() };
        let droppable = collection
            .partitions
            .iter()
            .find(|(_, partition)| partition.name.starts_with('p'))
            .map(|(id, _)| *id);
        let Some(dropped) = droppable.filter(|_| collection.load.is_none()) else {
            return String::from("no partition to drop");
        };
        let Some(partition) = collection.partitions.remove(&dropped) else { return String::new() };
        let name = collection.name.clone();
        self.drop_times.partitions.insert(dropped, ts);
        let of = self.versions.range_mut((id, String::new())..).take_while(|((other, _), _)| *other == id);
        for (_, versions) in of {
            if matches!(versions.last(), Some((_, Some((in_partition, _)))) if *in_partition == partition.name)
            {
                versions.push((ts, None));
            }
        }
        format!("drop partition {} of {name}", partition.name)
    }

    /// Makes an index, then loads, releases, drops the index, and so on.
    fn change_index(&mut self, id: CollectionId) -> String {
        let index_id = self.new_id();
        let Some(collection) = self.catalog.collections.get_mut(&id) else { return String::new() };
        let name = collection.name.clone();
        if collection.load.is_some() {
            collection.load = None;
            return format!("release {name}");
        }
        if collection.indexes.is_empty() {
            let index = Index { name: format!("i{index_id}"), field: "v".into(), params: BTreeMap::new() };
            collection.indexes.insert(index_id, index);
            return format!("create an index on {name}");
        }
        if index_id % 2 == 0 {
            collection.indexes.clear();
            return format!("drop the index on {name}");
        }
        collection.load = Some(Load { replicas: 1, partitions: None });
        format!("load {name}")
    }

    fn create_database(&mut self, ts: Tso) -> String {
        let id = self.new_id();
        let free = ["d1", "d2"]
            .iter()
            .find(|name| self.catalog.databases.values().all(|other| other.name != **name));
        let Some(name) = free else { return String::from("no database to create") };
        let database = Database { id, name: (*name).into(), created: ts, properties: BTreeMap::new() };
        self.catalog.databases.insert(id, database);
        format!("create database {name}")
    }

    fn drop_database(&mut self) -> String {
        let used: BTreeSet<&str> =
            self.catalog.collections.values().map(|collection| collection.name.database.as_str()).collect();
        let empty = self
            .catalog
            .databases
            .values()
            .find(|other| other.id != 1 && !used.contains(other.name.as_str()));
        let Some((id, name)) = empty.map(|database| (database.id, database.name.clone())) else {
            return String::from("no database to drop");
        };
        self.catalog.databases.remove(&id);
        format!("drop database {name}")
    }

    fn new_id(&mut self) -> i64 {
        self.next_id += 1;
        self.next_id
    }

    fn insert(
        &mut self,
        chance: &mut StdRng,
        ts: Tso,
        collection: &Collection,
        partition: PartitionId,
        keys: &[Key],
    ) {
        for (partition, keys) in by_partition(collection, partition, keys) {
            let name = collection.partitions[&partition].name.clone();
            let mut rows = Vec::new();
            for key in keys {
                let value = self.new_id();
                self.set(collection.id, &key, ts, Some((name.clone(), value)));
                rows.push((key, value));
            }
            for (vchannel, rows) in by_shard(collection, rows, |(key, _)| key) {
                // A large request comes in several messages.
                let cut = if chance.random_bool(0.2) { 1 } else { rows.len().max(1) };
                for rows in rows.chunks(cut) {
                    let message = insert_message(self.new_id(), ts, collection, partition, &vchannel, rows);
                    self.send(chance, &vchannel, ts, Message::Insert(message));
                }
            }
        }
    }

    fn upsert(
        &mut self,
        chance: &mut StdRng,
        ts: Tso,
        collection: &Collection,
        partition: PartitionId,
        keys: &[Key],
    ) {
        // A key stays in its partition as long as it lives: that is what using keys as keys means.
        let mut homes: BTreeMap<PartitionId, Vec<Key>> = BTreeMap::new();
        for key in keys {
            let home = self.row(collection.id, key, Tso::MAX).and_then(|(name, _)| {
                collection.partitions.iter().find(|(_, other)| other.name == *name).map(|(id, _)| *id)
            });
            homes.entry(home.unwrap_or(partition)).or_default().push(key.clone());
        }
        for (partition, keys) in homes {
            // Milvus writes the insert of an upsert before its delete, both with one ts.
            self.insert(chance, ts, collection, partition, &keys);
            for (partition, keys) in by_partition(collection, partition, &keys) {
                self.send_deletes(ts, collection, partition, keys);
            }
        }
    }

    fn delete(&mut self, ts: Tso, collection: &Collection, scope: Option<PartitionId>, keys: &[Key]) {
        let scope_name = scope.map(|id| collection.partitions[&id].name.clone());
        for key in keys {
            let lives_there = match (self.row(collection.id, key, Tso::MAX), &scope_name) {
                (Some((name, _)), Some(scope)) => name == scope,
                (row, None) => row.is_some(),
                (None, _) => false,
            };
            if lives_there {
                self.set(collection.id, key, ts, None);
            }
        }
        self.send_deletes(ts, collection, scope.unwrap_or(PartitionId::ALL), keys.to_vec());
    }

    fn send_deletes(&mut self, ts: Tso, collection: &Collection, scope: PartitionId, keys: Vec<Key>) {
        for key in &keys {
            self.deletes.entry((collection.id, key.clone())).or_default().push(ts);
        }
        for (vchannel, keys) in by_shard(collection, keys, |key| key) {
            let message = delete_message(self.new_id(), ts, collection, scope, &vchannel, &keys);
            self.pending.entry(vchannel.pchannel()).or_default().push((ts, Message::Delete(message)));
        }
    }

    fn send(&mut self, chance: &mut StdRng, vchannel: &VChannel, ts: Tso, message: Message) {
        let pending = self.pending.entry(vchannel.pchannel()).or_default();
        if chance.random_bool(self.habits.repeats) {
            pending.push((ts, message.clone()));
        }
        pending.push((ts, message));
    }

    fn set(&mut self, collection: CollectionId, key: &Key, ts: Tso, row: Option<Row>) {
        self.versions.entry((collection, key.clone())).or_default().push((ts, row));
    }

    /// Puts some message into its topic, out of order.
    pub fn publish(&mut self, chance: &mut StdRng) {
        let waiting: Vec<PChannel> = self
            .pending
            .iter()
            .filter(|(_, pending)| !pending.is_empty())
            .map(|(channel, _)| channel.clone())
            .collect();
        if waiting.is_empty() {
            return;
        }
        let channel = &waiting[chance.random_range(0..waiting.len())];
        let pending = self.pending.entry(channel.clone()).or_default();
        let (ts, message) = pending.swap_remove(chance.random_range(0..pending.len()));
        self.topics.append(channel, ts, message);
    }

    /// Puts a tick into some or all topics, and before it what it promises.
    pub fn tick(&mut self, chance: &mut StdRng, all: bool) {
        let used: BTreeSet<PChannel> =
            self.catalog.collections.values().flat_map(|c| &c.vchannels).map(VChannel::pchannel).collect();
        for channel in used {
            if !all && chance.random_bool(0.3) {
                continue;
            }
            let before = self.ticks.get(&channel).copied().unwrap_or(Tso::ZERO);
            let mut tick = self.last;
            if !all && tick > before && chance.random_bool(self.habits.late_ticks) {
                tick = Tso(chance.random_range(before.0..tick.0));
            }
            if tick < before {
                continue;
            }
            let pending = self.pending.entry(channel.clone()).or_default();
            let mut due: Vec<(Tso, Message)> = Vec::new();
            pending.retain(|(ts, message)| {
                let is_due = *ts <= tick;
                if is_due {
                    due.push((*ts, message.clone()));
                }
                !is_due
            });
            while !due.is_empty() {
                let (ts, message) = due.swap_remove(chance.random_range(0..due.len()));
                self.topics.append(&channel, ts, message);
            }
            self.topics.append(&channel, tick, Message::Tick(tick));
            if chance.random_bool(self.habits.repeats) {
                let backward = Tso(chance.random_range(1..=tick.0));
                self.topics.append(&channel, backward, Message::Tick(backward));
            }
            self.ticks.insert(channel, tick);
        }
    }

    /// Lets the source's clock reach `unix_now`, without a request.
    pub fn pass_time(&mut self, unix_now: u64) {
        self.last = Tso::from_millis(unix_now).max(self.last.succ());
    }

    /// What a read of the catalog shows that began after `tick` was seen.
    pub fn look(&mut self, tick: Option<Tso>) -> CatalogUpdate {
        let mut update = self.shows(tick);
        let is_new = self.wanted_sent.as_ref() != update.wanted.as_deref();
        self.wanted_sent = update.wanted.as_deref().cloned();
        update.wanted = update.wanted.filter(|_| is_new);
        update
    }

    fn shows(&self, tick: Option<Tso>) -> CatalogUpdate {
        let selected = |collection: &&Collection| collection.name.collection.starts_with('c');
        let collections: BTreeMap<CollectionId, Collection> = self
            .catalog
            .collections
            .values()
            .filter(selected)
            .map(|collection| (collection.id, collection.clone()))
            .collect();
        let needed = |database: &Database| {
            database.id == 1
                || collections.values().any(|collection| collection.name.database == database.name)
        };
        let databases: BTreeMap<i64, Database> =
            self.catalog.databases.values().filter(|d| needed(d)).map(|d| (d.id, d.clone())).collect();
        let others =
            self.catalog.databases.keys().filter(|id| !databases.contains_key(id)).copied().collect();
        let ignored = self.catalog.collections.values().filter(|c| !selected(c)).map(|c| c.id).collect();
        let of_selected =
            |(_, alias): &(&CollectionName, &Alias)| collections.contains_key(&alias.collection);
        let aliases = self
            .catalog
            .aliases
            .iter()
            .filter(of_selected)
            .map(|(name, alias)| (name.clone(), alias.clone()))
            .collect();
        let wanted = Catalog { databases, collections, aliases, access: None };
        CatalogUpdate {
            upto: tick,
            wanted: Some(Arc::new(wanted)),
            ignored: Arc::new(ignored),
            other_databases: Arc::new(others),
            drop_times: Arc::new(self.drop_times.clone()),
        }
    }

    /// A new process knows nothing of what was read before.
    pub fn forget_reader(&mut self) {
        self.wanted_sent = None;
    }

    /// The selected part of the catalog now.
    pub fn wanted(&self) -> Catalog {
        self.shows(None).wanted.map_or_else(Catalog::default, |wanted| (*wanted).clone())
    }

    /// The time of the last request.
    pub fn last(&self) -> Tso {
        self.last
    }

    /// The row of a key at `ts`, if there was one.
    pub fn row(&self, collection: CollectionId, key: &Key, ts: Tso) -> Option<&Row> {
        let versions = self.versions.get(&(collection, key.clone()))?;
        let at = versions.partition_point(|(from, _)| *from <= ts);
        at.checked_sub(1).and_then(|at| versions[at].1.as_ref())
    }

    /// The history of all keys.
    pub fn versions(&self) -> &BTreeMap<(CollectionId, Key), Versions> {
        &self.versions
    }

    /// When deletes of a key were written.
    pub fn deletes(&self, collection: CollectionId, key: &Key) -> &[Tso] {
        self.deletes.get(&(collection, key.clone())).map_or(&[], |times| times)
    }

    /// When a collection was dropped, if it was.
    pub fn dropped(&self, collection: CollectionId) -> Option<Tso> {
        self.drop_times.collections.get(&collection).copied()
    }
}
