//! From raw metadata keys to a [`Catalog`].
//!
//! A collection is in it once it is there for users: its state is `Created`, and so is that of at least one partition.
//! (Milvus writes fields and partitions before it sets that state, so a collection in it is whole.)

use std::collections::{BTreeMap, BTreeSet};

use prost::Message;

use super::access;
use super::keys::{DEFAULT_DATABASE, Key, Meta};
use super::mirror::{Entry, Mirror};
use crate::error::{Error, Kind, Result};
use crate::milvus::catalog::{
    Alias, Catalog, Collection, CollectionId, CollectionName, Database, Field, Index, Load, Partition,
    PartitionId, Schema,
};
use crate::milvus::channel::{PChannel, Position, VChannel};
use crate::milvus::proto::common::KeyValuePair;
use crate::milvus::proto::etcd::{AliasInfo, CollectionInfo, DatabaseInfo, PartitionInfo};
use crate::milvus::proto::index::FieldIndex;
use crate::milvus::proto::query::{CollectionLoadInfo, PartitionLoadInfo, Replica};
use crate::milvus::proto::schema::FieldSchema;
use crate::milvus::tso::Tso;

/// `CollectionState` and `PartitionState` of `etcd_meta.proto`: created, creating; the others are on their way out.
pub const CREATED: i32 = 0;
/// See [`CREATED`].
pub const CREATING: i32 = 1;
/// `DatabaseState` counts otherwise.
const DATABASE_CREATED: i32 = 1;
/// `LoadStatus` and `LoadType` of `query_coord.proto`.
const LOADED: i32 = 2;
const LOAD_COLLECTION: i32 = 2;
/// Fields below are Milvus' own: `RowID` and `Timestamp`.
const FIRST_USER_FIELD: i64 = 100;
/// The resource group in which everything is loaded that names none.
const DEFAULT_RESOURCE_GROUP: &str = "__default_resource_group";
/// What the unnamed database is called.
const DEFAULT_DATABASE_NAME: &str = "default";
/// No collection can have such a name (Milvus allows 255 characters, none of them a control character), so a selection
/// that takes it takes every collection of its database.
const NO_NAME: &str =
    concat!("\u{1}\u{1}\u{1}\u{1}\u{1}\u{1}\u{1}\u{1}", "any collection", "\u{1}\u{1}\u{1}\u{1}");

/// What a cluster holds, sorted into what is selected and what is not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Assembled {
    /// The selected collections, and the databases that they are in or that are selected as a whole.
    pub catalog: Catalog,
    /// Collections that exist and are not selected.
    pub ignored: BTreeSet<CollectionId>,
    /// Databases that exist and are not in the catalog.
    pub other_databases: BTreeSet<i64>,
    /// Selected collections that are loaded in other resource groups than the default one, and in which.
    pub resource_groups: BTreeMap<CollectionName, BTreeSet<String>>,
}

/// Puts together what `mirror` holds of the collections that `select` takes.
///
/// # Errors
/// `Corrupt`, naming the key, for a value that can't be decoded.
pub fn assemble(mirror: &Mirror, meta: &Meta, select: &dyn Fn(&CollectionName) -> bool) -> Result<Assembled> {
    let reader = Reader { mirror, meta };
    let databases = reader.databases()?;
    let mut assembled = Assembled::default();
    for (key, entry) in mirror.collections() {
        let &Key::Collection(id, database) = key else { continue };
        let info: CollectionInfo = reader.decode(key, entry)?;
        if info.state != CREATED && info.state != CREATING {
            continue;
        }
        let database_id = match database.unwrap_or(info.db_id) {
            0 => DEFAULT_DATABASE, // from before there were databases
            id => id,
        };
        // The database of a collection that is about to come or go may be missing.
        let Some(database) = databases.get(&database_id) else { continue };
        let schema_name = info.schema.as_ref().map(|schema| schema.name.clone()).unwrap_or_default();
        let name = CollectionName { database: database.name.clone(), collection: schema_name };
        if !select(&name) {
            assembled.ignored.insert(id);
            continue;
        }
        if info.state == CREATED
            && let Some(collection) = reader.collection(id, name, info)?
        {
            assembled.catalog.databases.insert(database_id, database.clone());
            assembled.catalog.collections.insert(id, collection);
        }
    }
    assembled.catalog.aliases = reader.aliases(&databases, &assembled.catalog)?;
    assembled.resource_groups = reader.resource_groups(&assembled.catalog)?;
    if meta.has_access() {
        assembled.catalog.access = Some(access::assemble(mirror, meta, select)?);
    }
    for (id, database) in databases {
        let all = CollectionName { database: database.name.clone(), collection: NO_NAME.to_owned() };
        if select(&all) {
            assembled.catalog.databases.insert(id, database);
        } else if !assembled.catalog.databases.contains_key(&id) {
            assembled.other_databases.insert(id);
        }
    }
    Ok(assembled)
}

/// The value of a key.
///
/// # Errors
/// `Corrupt`, naming the key.
pub(super) fn decode<M: Message + Default>(meta: &Meta, key: &Key, entry: &Entry) -> Result<M> {
    M::decode(entry.value.as_slice()).map_err(|error| {
        let path = meta.path(key);
        Error::new(
            Kind::Corrupt,
            format!("the value of the key {path} in the source's etcd can't be decoded"),
        )
        .caused_by(error)
        .hint("is this the metadata of a Milvus 2.3 to 2.5?")
    })
}

struct Reader<'a> {
    mirror: &'a Mirror,
    meta: &'a Meta,
}

impl Reader<'_> {
    fn decode<M: Message + Default>(&self, key: &Key, entry: &Entry) -> Result<M> {
        decode(self.meta, key, entry)
    }

    fn databases(&self) -> Result<BTreeMap<i64, Database>> {
        let mut databases = BTreeMap::new();
        for (key, entry) in self.mirror.databases() {
            let info: DatabaseInfo = self.decode(key, entry)?;
            if info.state == DATABASE_CREATED {
                let database = Database {
                    id: info.id,
                    name: info.name,
                    created: database_created(info.created_time),
                    properties: pairs(info.properties),
                };
                databases.insert(info.id, database);
            }
        }
        databases.entry(DEFAULT_DATABASE).or_insert_with(|| Database {
            id: DEFAULT_DATABASE,
            name: DEFAULT_DATABASE_NAME.to_owned(),
            created: Tso::ZERO,
            properties: BTreeMap::new(),
        });
        Ok(databases)
    }

    /// `None`: not all of it is there yet.
    fn collection(
        &self,
        id: CollectionId,
        name: CollectionName,
        info: CollectionInfo,
    ) -> Result<Option<Collection>> {
        let partitions = self.partitions(id, &info)?;
        let schema = info.schema.unwrap_or_default();
        let mut fields = if schema.fields.is_empty() { self.fields(id)? } else { schema.fields };
        fields.retain(|field| field.field_id >= FIRST_USER_FIELD);
        fields.sort_by_key(|field| field.field_id);
        if fields.is_empty() || partitions.is_empty() {
            return Ok(None);
        }
        let fields: Vec<Field> = fields.into_iter().map(field).collect();
        Ok(Some(Collection {
            id,
            name,
            created: Tso(info.create_time),
            indexes: self.indexes(id, &fields)?,
            load: self.load(id, &partitions)?,
            schema: Schema { description: schema.description, dynamic: schema.enable_dynamic_field, fields },
            shards: info.shards_num,
            consistency_level: info.consistency_level,
            properties: pairs(info.properties),
            vchannels: info.virtual_channel_names.iter().map(|name| VChannel(name.as_str().into())).collect(),
            start_positions: info
                .start_positions
                .into_iter()
                .map(|position| (PChannel(position.key.into()), Position(position.data)))
                .collect(),
            partitions,
        }))
    }

    fn fields(&self, id: CollectionId) -> Result<Vec<FieldSchema>> {
        self.mirror
            .between(Key::Field(id, i64::MIN), Key::Field(id, i64::MAX))
            .map(|(key, entry)| self.decode(key, entry))
            .collect()
    }

    fn partitions(
        &self,
        id: CollectionId,
        info: &CollectionInfo,
    ) -> Result<BTreeMap<PartitionId, Partition>> {
        // Until 2.1 they stood in the collection's own value.
        let mut partitions: BTreeMap<PartitionId, Partition> = info
            .partition_i_ds
            .iter()
            .zip(&info.partition_names)
            .enumerate()
            .map(|(at, (id, name))| {
                let created = info.partition_created_timestamps.get(at).copied().unwrap_or(info.create_time);
                (PartitionId(*id), Partition { name: name.clone(), created: Tso(created) })
            })
            .collect();
        let (first, last) = (PartitionId(i64::MIN), PartitionId(i64::MAX));
        for (key, entry) in self.mirror.between(Key::Partition(id, first), Key::Partition(id, last)) {
            let info: PartitionInfo = self.decode(key, entry)?;
            if info.state == CREATED {
                let partition =
                    Partition { name: info.partition_name, created: Tso(info.partition_created_timestamp) };
                partitions.insert(PartitionId(info.partition_id), partition);
            }
        }
        Ok(partitions)
    }

    /// Those of the collections in `catalog`.
    fn aliases(
        &self,
        databases: &BTreeMap<i64, Database>,
        catalog: &Catalog,
    ) -> Result<BTreeMap<CollectionName, Alias>> {
        let mut aliases = BTreeMap::new();
        for (key, entry) in self.mirror.from(Key::Alias(None, "".into())) {
            let Key::Alias(database, name) = key else { break };
            let info: AliasInfo = self.decode(key, entry)?;
            let of = CollectionId(info.collection_id);
            let Some(database) = databases.get(&database.unwrap_or(DEFAULT_DATABASE)) else { continue };
            if info.state == CREATED && catalog.collections.contains_key(&of) {
                let name = CollectionName { database: database.name.clone(), collection: name.to_string() };
                aliases.insert(name, Alias { collection: of, changed: Tso(info.created_time) });
            }
        }
        Ok(aliases)
    }

    fn resource_groups(&self, catalog: &Catalog) -> Result<BTreeMap<CollectionName, BTreeSet<String>>> {
        let mut groups: BTreeMap<CollectionName, BTreeSet<String>> = BTreeMap::new();
        for (id, collection) in &catalog.collections {
            let replicas = self.mirror.between(Key::Replica(*id, i64::MIN), Key::Replica(*id, i64::MAX));
            for (key, entry) in replicas {
                let info: Replica = self.decode(key, entry)?;
                if !info.resource_group.is_empty() && info.resource_group != DEFAULT_RESOURCE_GROUP {
                    groups.entry(collection.name.clone()).or_default().insert(info.resource_group);
                }
            }
        }
        Ok(groups)
    }

    fn indexes(&self, id: CollectionId, fields: &[Field]) -> Result<BTreeMap<i64, Index>> {
        let mut indexes = BTreeMap::new();
        for (key, entry) in self.mirror.between(Key::Index(id, i64::MIN), Key::Index(id, i64::MAX)) {
            let FieldIndex { index_info: Some(info), deleted: false, .. } = self.decode(key, entry)? else {
                continue;
            };
            // The field may be a new one of which we have not heard yet: indexes come by a watch of their own.
            let Some(field) = fields.iter().find(|field| field.id == info.field_id) else { continue };
            let params = if !info.user_index_params.is_empty() {
                pairs(info.user_index_params)
            } else if info.is_auto_index {
                // What follows from the server's own choice of an index is not what was asked for.
                let mut params = pairs(info.index_params);
                params.retain(|key, _| key == "metric_type");
                params.insert("index_type".to_owned(), "AUTOINDEX".to_owned());
                params
            } else {
                // Of 2.2, and of a scalar index for which nothing was asked: the server's default type, e.g. STL_SORT.
                pairs(info.index_params)
            };
            indexes.insert(info.index_id, Index { name: info.index_name, field: field.name.clone(), params });
        }
        Ok(indexes)
    }

    /// What is loaded, seen on 2.3.5: a partition that is being loaded or was released alone from a collection that is
    /// loaded as a whole has no value with status `Loaded`; a partition that is created in a collection that is loaded
    /// as a whole has one before it is `Created`.
    fn load(&self, id: CollectionId, partitions: &BTreeMap<PartitionId, Partition>) -> Result<Option<Load>> {
        let key = Key::CollectionLoad(id);
        let Some(entry) = self.mirror.get(&key) else { return Ok(None) };
        let info: CollectionLoadInfo = self.decode(&key, entry)?;
        let mut known = false;
        let mut loaded = BTreeSet::new();
        let (first, last) = (PartitionId(i64::MIN), PartitionId(i64::MAX));
        for (key, entry) in self.mirror.between(Key::PartitionLoad(id, first), Key::PartitionLoad(id, last)) {
            let info: PartitionLoadInfo = self.decode(key, entry)?;
            known = true;
            if info.status == LOADED
                && let Some(partition) = partitions.get(&PartitionId(info.partition_id))
            {
                loaded.insert(partition.name.clone());
            }
        }
        let whole = info.load_type == LOAD_COLLECTION;
        if whole && !known && info.status == LOADED {
            // As 2.2 wrote it.
            let released = |id: &PartitionId| info.released_partitions.contains(&id.0);
            loaded = partitions
                .iter()
                .filter(|(id, _)| !released(id))
                .map(|(_, partition)| partition.name.clone())
                .collect();
        }
        if loaded.is_empty() {
            return Ok(None);
        }
        let all = loaded.len() == partitions.len();
        Ok(Some(Load { replicas: info.replica_number, partitions: (!whole || !all).then_some(loaded) }))
    }
}

fn pairs(pairs: Vec<KeyValuePair>) -> BTreeMap<String, String> {
    pairs.into_iter().map(|pair| (pair.key, pair.value)).collect()
}

fn field(field: FieldSchema) -> Field {
    Field {
        id: field.field_id,
        name: field.name,
        description: field.description,
        data_type: field.data_type,
        element_type: field.element_type,
        type_params: pairs(field.type_params),
        primary_key: field.is_primary_key,
        auto_id: field.auto_id,
        partition_key: field.is_partition_key,
        dynamic: field.is_dynamic,
        nullable: field.nullable,
        default_value: field.default_value.map(|value| value.encode_to_vec()),
        function_output: field.is_function_output,
    }
}

/// A database's time of creation is in nanoseconds since 1970 (seen on 2.3.5; the default database has the TSO 0 or
/// one of either sort), which as a TSO would be in the 22nd century.
fn database_created(time: u64) -> Tso {
    const NANOSECONDS_OF_2001: u64 = 1_000_000_000_000_000_000;
    if time < NANOSECONDS_OF_2001 { Tso(time) } else { Tso::from_millis(time / 1_000_000) }
}

#[cfg(test)]
mod tests;
