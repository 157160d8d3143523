//! What a cluster holds besides rows: databases, collections, partitions, indexes, load state.
//!
//! These types describe the source as read from etcd, and what was applied of it as kept in the checkpoint.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

use super::access::{Access, AccessStep};
use super::channel::{PChannel, Position, VChannel};
use super::proto::schema::DataType;
use super::tso::Tso;

/// A collection's id at the source. Never reused, also not by a collection that is created again under its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CollectionId(pub i64);

/// A partition's id at the source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PartitionId(pub i64);

impl PartitionId {
    /// In a delete: every partition of the collection.
    pub const ALL: PartitionId = PartitionId(-1);
}

impl fmt::Display for CollectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A collection's name: database and name in it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct CollectionName {
    /// The database, `default` where the source has none.
    pub database: String,
    /// The collection.
    pub collection: String,
}

impl fmt::Display for CollectionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.database, self.collection)
    }
}

/// A database.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Database {
    /// Its id at the source; the default database is 1.
    pub id: i64,
    /// Its name.
    pub name: String,
    /// When it was created.
    pub created: Tso,
    /// Its properties (2.4 and later).
    pub properties: BTreeMap<String, String>,
}

/// A collection with everything that belongs to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Collection {
    /// Its id.
    pub id: CollectionId,
    /// Its name.
    pub name: CollectionName,
    /// The time of its creation; each of its rows is later.
    pub created: Tso,
    /// Its fields.
    pub schema: Schema,
    /// Number of shards.
    pub shards: i32,
    /// The default consistency level of searches, by Milvus' number (0 strong … 4 customized).
    pub consistency_level: i32,
    /// Its properties, e.g. `collection.ttl.seconds`.
    pub properties: BTreeMap<String, String>,
    /// Its virtual channels, one per shard.
    pub vchannels: Vec<VChannel>,
    /// Where each physical channel is to be read from to see all of it: the position of its creation message.
    pub start_positions: BTreeMap<PChannel, Position>,
    /// Its partitions, `_default` among them.
    pub partitions: BTreeMap<PartitionId, Partition>,
    /// Its indexes by id.
    pub indexes: BTreeMap<i64, Index>,
    /// What of it is loaded, if anything.
    pub load: Option<Load>,
}

impl Collection {
    /// Whether rows are spread over partitions by the value of a field. Such partitions can't be named in calls.
    pub fn has_partition_key(&self) -> bool {
        self.schema.fields.iter().any(|field| field.partition_key)
    }
}

/// A partition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Partition {
    /// Its name.
    pub name: String,
    /// When it was created.
    pub created: Tso,
}

/// An index on one field.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Index {
    /// Its name.
    pub name: String,
    /// The field it is on.
    pub field: String,
    /// What its creator asked for: `index_type`, `metric_type`, `params`, …
    pub params: BTreeMap<String, String>,
}

/// What of a collection is loaded for search.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Load {
    /// Number of replicas.
    pub replicas: i32,
    /// `None`: the whole collection. Otherwise these partitions, by name.
    pub partitions: Option<BTreeSet<String>>,
}

/// A collection's fields, without Milvus' own (`RowID`, `Timestamp`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Schema {
    /// Free text.
    pub description: String,
    /// Whether rows may carry fields beyond these. Then `fields` holds the hidden JSON field `$meta` too.
    pub dynamic: bool,
    /// The fields in order of their ids.
    pub fields: Vec<Field>,
}

impl Schema {
    /// The primary key.
    pub fn primary_key(&self) -> Option<&Field> {
        self.fields.iter().find(|field| field.primary_key)
    }
}

/// One field.
#[derive(Default, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Field {
    /// Its id, 100 or more.
    pub id: i64,
    /// Its name.
    pub name: String,
    /// Free text.
    pub description: String,
    /// Milvus' number of its type, see [`Field::data_type`].
    pub data_type: i32,
    /// The type of the elements of an `Array`, otherwise 0.
    pub element_type: i32,
    /// `dim`, `max_length`, `max_capacity`, …
    pub type_params: BTreeMap<String, String>,
    /// Whether it is the primary key.
    pub primary_key: bool,
    /// Whether the server makes up its values.
    pub auto_id: bool,
    /// Whether it decides the partition.
    pub partition_key: bool,
    /// Whether it is the hidden field `$meta`.
    pub dynamic: bool,
    /// Whether it may be null (2.5).
    pub nullable: bool,
    /// An encoded `schema.ValueField`, if it has a default (2.5).
    pub default_value: Option<Vec<u8>>,
    /// Whether the server computes its values from other fields (2.5).
    pub function_output: bool,
}

impl Field {
    /// Its type; `None` for one that this version of migrans does not know.
    pub fn data_type(&self) -> Option<DataType> {
        DataType::try_from(self.data_type).ok()
    }
}

/// A second name of a collection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alias {
    /// The collection that it stands for.
    pub collection: CollectionId,
    /// When it came to stand for that one.
    pub changed: Tso,
}

/// One step of bringing the target's catalog in line with the source's. Every step is safe to repeat.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ddl {
    /// Create a database.
    CreateDatabase(Database),
    /// Drop a database that this pipeline created.
    DropDatabase {
        /// Its id at the source.
        id: i64,
        /// Its name.
        name: String,
    },
    /// Change a database's properties to these.
    SetDatabaseProperties {
        /// Its id at the source.
        id: i64,
        /// Its name.
        name: String,
        /// Properties that it had and is to have no more.
        removed: BTreeSet<String>,
        /// All its properties.
        properties: BTreeMap<String, String>,
    },
    /// Create a collection with the partitions that it has in `Collection::partitions`. Its indexes and load
    /// state follow as steps of their own.
    CreateCollection(std::sync::Arc<Collection>),
    /// Drop a collection that this pipeline created.
    DropCollection {
        /// Its id at the source.
        id: CollectionId,
        /// Its name.
        name: CollectionName,
    },
    /// Give a collection another name, perhaps in another database.
    RenameCollection {
        /// The collection.
        id: CollectionId,
        /// Its name.
        name: CollectionName,
        /// The other one.
        to: CollectionName,
    },
    /// Let an alias stand for a collection, whether it is a new one or stands for another so far.
    SetAlias {
        /// The alias.
        alias: CollectionName,
        /// The collection.
        id: CollectionId,
        /// Its name.
        name: CollectionName,
        /// The collection that it stands for so far.
        from: Option<CollectionName>,
        /// When the source did that.
        changed: Tso,
    },
    /// Drop an alias.
    DropAlias {
        /// The alias.
        alias: CollectionName,
        /// The collection that it stands for.
        id: CollectionId,
        /// That one's name.
        name: CollectionName,
    },
    /// Create a partition.
    CreatePartition {
        /// The collection.
        id: CollectionId,
        /// Its name.
        name: CollectionName,
        /// The partition's id at the source.
        partition_id: PartitionId,
        /// The partition.
        partition: Partition,
    },
    /// Drop a partition.
    DropPartition {
        /// The collection.
        id: CollectionId,
        /// Its name.
        name: CollectionName,
        /// The partition's id at the source.
        partition_id: PartitionId,
        /// The partition's name.
        partition: String,
    },
    /// Create an index.
    CreateIndex {
        /// The collection.
        id: CollectionId,
        /// Its name.
        name: CollectionName,
        /// The index' id at the source.
        index_id: i64,
        /// The index.
        index: Index,
    },
    /// Change parameters of an index that can be changed in place.
    AlterIndex {
        /// The collection.
        id: CollectionId,
        /// Its name.
        name: CollectionName,
        /// The index' id at the source.
        index_id: i64,
        /// Parameters that it had and is to have no more.
        removed: BTreeSet<String>,
        /// The index.
        index: Index,
    },
    /// Drop an index.
    DropIndex {
        /// The collection.
        id: CollectionId,
        /// Its name.
        name: CollectionName,
        /// The index' id at the source.
        index_id: i64,
        /// The index.
        index: Index,
    },
    /// Change what is loaded: `None` releases the collection.
    SetLoad {
        /// The collection.
        id: CollectionId,
        /// Its name.
        name: CollectionName,
        /// What was loaded before.
        from: Option<Load>,
        /// What is to be loaded.
        to: Option<Load>,
    },
    /// Change a collection's properties to these.
    SetProperties {
        /// The collection.
        id: CollectionId,
        /// Its name.
        name: CollectionName,
        /// Properties that it had and is to have no more.
        removed: BTreeSet<String>,
        /// All its properties.
        properties: BTreeMap<String, String>,
    },
    /// Change who may do what.
    Access(AccessStep),
}

impl Ddl {
    /// The collection that the step is about, `None` for a database's.
    pub fn collection(&self) -> Option<CollectionId> {
        self.about().map(|(id, _)| id)
    }

    /// The name of the collection that the step is about, `None` for a database's. A collection that is renamed: the old
    /// name.
    pub fn collection_name(&self) -> Option<&CollectionName> {
        self.about().map(|(_, name)| name)
    }

    fn about(&self) -> Option<(CollectionId, &CollectionName)> {
        match self {
            Ddl::CreateDatabase(_)
            | Ddl::DropDatabase { .. }
            | Ddl::SetDatabaseProperties { .. }
            | Ddl::Access(_) => None,
            Ddl::CreateCollection(collection) => Some((collection.id, &collection.name)),
            Ddl::DropCollection { id, name }
            | Ddl::RenameCollection { id, name, .. }
            | Ddl::SetAlias { id, name, .. }
            | Ddl::DropAlias { id, name, .. }
            | Ddl::CreatePartition { id, name, .. }
            | Ddl::DropPartition { id, name, .. }
            | Ddl::CreateIndex { id, name, .. }
            | Ddl::AlterIndex { id, name, .. }
            | Ddl::DropIndex { id, name, .. }
            | Ddl::SetLoad { id, name, .. }
            | Ddl::SetProperties { id, name, .. } => Some((*id, name)),
        }
    }

    /// Puts other names of collections and databases in the place of those that it has.
    pub fn rename(
        &mut self,
        collection: &dyn Fn(&CollectionName) -> CollectionName,
        database: &dyn Fn(&str) -> String,
    ) {
        match self {
            Ddl::CreateDatabase(created) => created.name = database(&created.name),
            Ddl::DropDatabase { name, .. } | Ddl::SetDatabaseProperties { name, .. } => {
                *name = database(name)
            }
            Ddl::RenameCollection { to, .. } => *to = collection(to),
            // An alias stands in the database of its collection.
            Ddl::SetAlias { alias, name, from, .. } => {
                *alias = CollectionName { database: collection(name).database, ..collection(alias) };
                *from = from.take().map(|from| collection(&from));
            }
            Ddl::DropAlias { alias, name, .. } => {
                *alias = CollectionName { database: collection(name).database, ..collection(alias) };
            }
            Ddl::Access(step) => step.rename(collection, database),
            _ => {}
        }
        if let Some(name) = self.collection_name() {
            self.set_collection_name(collection(name));
        }
    }

    /// Other names that the step takes or gives up, or on which it depends, beside [`Ddl::collection_name`].
    pub fn other_names(&self) -> Vec<&CollectionName> {
        match self {
            Ddl::RenameCollection { to, .. } => vec![to],
            Ddl::SetAlias { alias, from, .. } => std::iter::once(alias).chain(from).collect(),
            Ddl::DropAlias { alias, .. } => vec![alias],
            _ => Vec::new(),
        }
    }

    /// Puts another name in the place of [`Ddl::collection_name`], if there is one.
    pub fn set_collection_name(&mut self, new: CollectionName) {
        match self {
            Ddl::CreateDatabase(_)
            | Ddl::DropDatabase { .. }
            | Ddl::SetDatabaseProperties { .. }
            | Ddl::Access(_) => {}
            Ddl::CreateCollection(collection) => {
                if collection.name != new {
                    std::sync::Arc::make_mut(collection).name = new;
                }
            }
            Ddl::DropCollection { name, .. }
            | Ddl::RenameCollection { name, .. }
            | Ddl::SetAlias { name, .. }
            | Ddl::DropAlias { name, .. }
            | Ddl::CreatePartition { name, .. }
            | Ddl::DropPartition { name, .. }
            | Ddl::CreateIndex { name, .. }
            | Ddl::AlterIndex { name, .. }
            | Ddl::DropIndex { name, .. }
            | Ddl::SetLoad { name, .. }
            | Ddl::SetProperties { name, .. } => *name = new,
        }
    }
}

/// A selected part of a cluster's catalog. The source's as read, or the target's as far as it was applied.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Catalog {
    /// Databases by id.
    pub databases: BTreeMap<i64, Database>,
    /// Collections by id.
    pub collections: BTreeMap<CollectionId, Collection>,
    /// Aliases by name. They and collections share their names.
    pub aliases: BTreeMap<CollectionName, Alias>,
    /// Who may do what; `None` where that is not followed.
    pub access: Option<Access>,
}
