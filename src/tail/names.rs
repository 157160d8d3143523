//! Names for the ids in messages.

use std::collections::{BTreeMap, BTreeSet};

use super::line::Line;
use crate::milvus::catalog::{Catalog, Collection, CollectionId, CollectionName, PartitionId};

/// What the catalog has had while we looked. Collections that were dropped keep their names here.
#[derive(Debug, Default)]
pub(super) struct Names {
    now: Catalog,
    collections: BTreeMap<CollectionId, CollectionName>,
    partitions: BTreeMap<PartitionId, String>,
    /// Looked for and not found: they were dropped before we came.
    unknown: BTreeSet<CollectionId>,
    asked: BTreeSet<CollectionId>,
}

impl Names {
    pub(super) fn set(&mut self, catalog: Catalog) {
        for collection in catalog.collections.values() {
            self.collections.insert(collection.id, collection.name.clone());
            let partitions = collection.partitions.iter();
            self.partitions.extend(partitions.map(|(id, partition)| (*id, partition.name.clone())));
        }
        self.unknown.append(&mut self.asked);
        self.now = catalog;
    }

    /// Collections that are there now.
    pub(super) fn collections(&self) -> impl Iterator<Item = &Collection> {
        self.now.collections.values()
    }

    /// Whether there is nothing to be found out about a collection by looking again.
    pub(super) fn knows(&mut self, id: CollectionId) -> bool {
        let known = self.collections.contains_key(&id) || self.unknown.contains(&id);
        if !known {
            self.asked.insert(id);
        }
        known
    }

    /// Writes names into a line.
    pub(super) fn complete(&self, line: &mut Line) {
        if let Some(id) = line.collection {
            line.name = self.collections.get(&id).cloned();
        }
        if line.partition_name.is_none()
            && let Some(id) = line.partition
        {
            line.partition_name = match id {
                PartitionId::ALL => Some("*".to_owned()),
                id => self.partitions.get(&id).cloned(),
            };
        }
        let schema = line.collection.and_then(|id| self.now.collections.get(&id)).map(|found| &found.schema);
        if let Some(key) = schema.and_then(|schema| schema.primary_key()) {
            line.take_keys(&key.name);
        }
    }
}
