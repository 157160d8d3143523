//! The steps that lead from the catalog that was applied to the one that the source has.
//!
//! Level-triggered: the two are compared, whatever happened in between. Steps whose time is known take it; it decides
//! between which rows they come. Indexes, load states and properties have no time among the rows and are brought in
//! line at the end. A step whose time is not confirmed yet (`> upto`) is left to a later call.
//!
//! Times give way where the order of steps needs it, never the other way round: what gives up a name goes before what
//! takes it, a database comes before what is in it, a partition and an index are released before they go (Milvus 2.3.5
//! refuses to drop a loaded partition and any index of a loaded collection, and to change the number of replicas of a
//! loaded collection; all else about load states can be changed in place).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::DropTimes;
use super::keys::DEFAULT_DATABASE;
use crate::error::{Error, Kind, Result};
use crate::milvus::access::Access;
use crate::milvus::catalog::{
    Alias, Catalog, Collection, CollectionId, CollectionName, Database, Ddl, Index, Load, Partition,
    PartitionId,
};
use crate::milvus::tso::Tso;
use crate::pipeline::Names;

/// The partition that every collection without a partition key has from the start.
const DEFAULT_PARTITION: &str = "_default";
/// A property that Milvus (2.4) changes only while the collection is released.
const ONLY_WHILE_RELEASED: &str = "mmap.enabled";

/// Parameters of an index that AlterIndex (2.4) takes.
pub const ALTERABLE: [&str; 2] = ["mmap.enabled", "indexoffsetcache.enabled"];

/// What is known of the source.
#[derive(Clone, Copy, Debug)]
pub struct Observed<'a> {
    /// The selected part of its catalog.
    pub wanted: &'a Catalog,
    /// Everything created up to this time is in `wanted`.
    pub upto: Tso,
    /// Collections that it has but that are not selected.
    pub ignored: &'a BTreeSet<CollectionId>,
    /// Databases that it has but that are not in `wanted`.
    pub other_databases: &'a BTreeSet<i64>,
    /// When collections and partitions were dropped, where known.
    pub drop_times: &'a DropTimes,
    /// Which names are one on the target.
    pub names: &'a Names,
}

/// The steps from `applied` to what was `observed`, in the order in which they are to be applied, each with the time
/// at which it takes its place among the rows. The times never decrease and are at most `observed.upto`; they may be
/// earlier than rows that were applied long ago, if those are of other collections or the step was seen late.
///
/// # Errors
/// `Refused` for what can't be brought about by steps yet: a collection that was renamed to what is not selected, or whose
/// schema changed.
/// `Conflict` if two collections would have one name on the target.
pub fn difference(applied: &Catalog, observed: &Observed<'_>) -> Result<Vec<(Tso, Ddl)>> {
    if let Some(error) = observed.names.conflict(observed.wanted) {
        return Err(error);
    }
    let mut plan = Plan { applied, observed, steps: Vec::new() };
    plan.refuse_what_is_not_supported()?;
    let mut kept = plan.drop_collections();
    plan.rename_collections(&mut kept);
    plan.databases(&kept);
    plan.create_collections();
    plan.aliases();
    for (id, collection) in &applied.collections {
        if let Some(wanted) = observed.wanted.collections.get(id) {
            plan.change_collection(collection, wanted);
        }
    }
    plan.access();
    plan.steps.sort_by_key(|(ts, rank, _)| (*ts, *rank));
    let mut steps: Vec<(Tso, Ddl)> = plan.steps.into_iter().map(|(ts, _, ddl)| (ts, ddl)).collect();
    name_steps(applied, &mut steps);
    Ok(steps)
}

/// An alias' name on the target: it stands in the database of its collection, which `catalog` has.
fn on_target(
    names: &Names,
    catalog: &Catalog,
    name: &CollectionName,
    alias: &Alias,
) -> Option<CollectionName> {
    catalog.collections.get(&alias.collection).map(|of| names.alias(name, &of.name))
}

/// Puts into each step the name that its collection has by then.
fn name_steps(applied: &Catalog, steps: &mut [(Tso, Ddl)]) {
    let mut names: BTreeMap<CollectionId, CollectionName> =
        applied.collections.iter().map(|(id, collection)| (*id, collection.name.clone())).collect();
    let mut aliases: BTreeMap<CollectionName, CollectionId> =
        applied.aliases.iter().map(|(name, alias)| (name.clone(), alias.collection)).collect();
    for (_, ddl) in steps {
        if let Some(name) = ddl.collection().and_then(|id| names.get(&id)) {
            ddl.set_collection_name(name.clone());
        }
        match ddl {
            Ddl::CreateCollection(collection) => drop(names.insert(collection.id, collection.name.clone())),
            Ddl::RenameCollection { id, to, .. } => drop(names.insert(*id, to.clone())),
            Ddl::SetAlias { alias, id, from, .. } => {
                let before = aliases.insert(alias.clone(), *id);
                *from = before.filter(|before| before != id).and_then(|before| names.get(&before).cloned());
            }
            Ddl::DropAlias { alias, .. } => drop(aliases.remove(alias)),
            _ => {}
        }
    }
}

/// Changes `applied` to what it is after `step`.
pub fn applied_after(applied: &mut Catalog, step: &Ddl) {
    match step {
        Ddl::CreateDatabase(database) => {
            applied.databases.insert(database.id, database.clone());
        }
        Ddl::DropDatabase { id, .. } => {
            applied.databases.remove(id);
        }
        Ddl::CreateCollection(collection) => {
            applied.collections.insert(collection.id, Collection::clone(collection));
        }
        Ddl::SetDatabaseProperties { id, properties, .. } => {
            if let Some(database) = applied.databases.get_mut(id) {
                database.properties = properties.clone();
            }
        }
        Ddl::DropCollection { id, .. } => {
            applied.collections.remove(id);
        }
        Ddl::SetAlias { alias, id, changed, .. } => {
            applied.aliases.insert(alias.clone(), Alias { collection: *id, changed: *changed });
        }
        Ddl::DropAlias { alias, .. } => {
            applied.aliases.remove(alias);
        }
        Ddl::Access(step) => applied.access.get_or_insert_default().apply(step),
        Ddl::RenameCollection { id, .. }
        | Ddl::AlterIndex { id, .. }
        | Ddl::CreatePartition { id, .. }
        | Ddl::DropPartition { id, .. }
        | Ddl::CreateIndex { id, .. }
        | Ddl::DropIndex { id, .. }
        | Ddl::SetLoad { id, .. }
        | Ddl::SetProperties { id, .. } => {
            if let Some(collection) = applied.collections.get_mut(id) {
                collection_after(collection, step);
            }
        }
    }
}

fn collection_after(collection: &mut Collection, step: &Ddl) {
    match step {
        Ddl::CreatePartition { partition_id, partition, .. } => {
            collection.partitions.insert(*partition_id, partition.clone());
        }
        Ddl::DropPartition { partition_id, .. } => {
            collection.partitions.remove(partition_id);
        }
        Ddl::RenameCollection { to, .. } => collection.name = to.clone(),
        Ddl::CreateIndex { index_id, index, .. } | Ddl::AlterIndex { index_id, index, .. } => {
            collection.indexes.insert(*index_id, index.clone());
        }
        Ddl::DropIndex { index_id, .. } => {
            collection.indexes.remove(index_id);
        }
        Ddl::SetLoad { to, .. } => collection.load = to.clone(),
        Ddl::SetProperties { properties, .. } => collection.properties = properties.clone(),
        _ => {}
    }
}

/// Which of several steps of one time comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    Release,
    DropIndex,
    DropPartition,
    DropAlias,
    DropCollection,
    CreateDatabase,
    Rename,
    DropDatabase,
    CreateCollection,
    CreatePartition,
    SetAlias,
    SetProperties,
    CreateIndex,
    Load,
    Access,
}

struct Plan<'a> {
    applied: &'a Catalog,
    observed: &'a Observed<'a>,
    steps: Vec<(Tso, Rank, Ddl)>,
}

impl<'a> Plan<'a> {
    fn push(&mut self, at: Tso, rank: Rank, ddl: Ddl) {
        self.steps.push((at, rank, ddl));
    }

    fn wanted(&self) -> &'a Catalog {
        self.observed.wanted
    }

    fn upto(&self) -> Tso {
        self.observed.upto
    }

    fn refuse_what_is_not_supported(&self) -> Result<()> {
        for (id, collection) in &self.applied.collections {
            let name = &collection.name;
            let Some(wanted) = self.wanted().collections.get(id) else {
                if self.observed.ignored.contains(id) {
                    let message = format!(
                        "the source's collection {name} (id {id}) still exists, but is no longer selected: it was \
                         renamed, or the selection was changed"
                    );
                    return Err(Error::new(Kind::Refused, message).hint(
                        "give it its name back or select it again; to stop following a collection, use a new \
                         pipeline (name and state_dir) for the others",
                    ));
                }
                continue;
            };
            let changed = if wanted.schema != collection.schema {
                "has got another schema".to_owned()
            } else if wanted.shards != collection.shards || wanted.vchannels != collection.vchannels {
                "has got other shards".to_owned()
            } else if wanted.consistency_level != collection.consistency_level {
                "has got another default consistency level".to_owned()
            } else {
                continue;
            };
            let message = format!(
                "the source's collection {name} (id {id}) {changed}, which can't be brought about at the target yet"
            );
            return Err(Error::new(Kind::Refused, message).hint(
                "undo that change at the source, or follow the collection anew: leave it out of a new pipeline's \
                 selection (name and state_dir), or drop it at the target and start from an empty state_dir",
            ));
        }
        for (id, database) in &self.applied.databases {
            let Some(wanted) = self.wanted().databases.get(id) else { continue };
            if wanted.name == database.name {
                continue;
            }
            let message = format!(
                "the source's database {} (id {id}) was renamed to {}, which can't be brought about at the target",
                database.name, wanted.name
            );
            return Err(Error::new(Kind::Refused, message).hint("undo that change at the source"));
        }
        Ok(())
    }

    /// The time before which a collection must have given up its name, because that has been taken again.
    fn name_taken(&self, name: &CollectionName) -> Option<Tso> {
        let taken = self.taken_on_target(&self.observed.names.collection(name));
        taken.into_iter().chain(self.database_taken(&name.database)).min()
    }

    /// When a name on the target is taken by what did not have it before.
    fn taken_on_target(&self, target: &CollectionName) -> Option<Tso> {
        let names = self.observed.names;
        let taken = self.wanted().collections.values();
        let taken = taken.filter(|other| names.collection(&other.name) == *target);
        let collections = taken.filter_map(|other| match self.applied.collections.get(&other.id) {
            None => Some(other.created),
            Some(before) if names.collection(&before.name) != *target => Some(self.renamed(other.id)),
            Some(_) => None,
        });
        let is_it = |catalog: &Catalog, name: &CollectionName| {
            let alias = catalog.aliases.get(name);
            alias.and_then(|alias| on_target(names, catalog, name, alias)).as_ref() == Some(target)
        };
        let aliases = self.wanted().aliases.iter();
        let aliases = aliases.filter(|(name, _)| is_it(self.wanted(), name) && !is_it(self.applied, name));
        collections.chain(aliases.map(|(_, alias)| alias.changed)).filter(|ts| *ts <= self.upto()).min()
    }

    /// When a collection got the name that it has now.
    fn renamed(&self, id: CollectionId) -> Tso {
        self.observed.drop_times.renames.get(&id).copied().unwrap_or(self.upto())
    }

    /// When a collection that is gone was dropped.
    fn dropped(&self, collection: &Collection) -> Tso {
        let known = self.observed.drop_times.collections.get(&collection.id).copied();
        let at = known.unwrap_or(self.upto());
        self.name_taken(&collection.name).map_or(at, |taken| at.min(taken.pred()))
    }

    /// When a database of this name comes about that is not the one that was applied under it.
    fn database_taken(&self, name: &str) -> Option<Tso> {
        let database = self.wanted().databases.values().find(|other| other.name == name)?;
        let replaces = !self.applied.databases.contains_key(&database.id)
            && self.applied.databases.values().any(|other| other.name == name);
        replaces.then(|| self.database_at(database)).flatten()
    }

    /// When a new database is to be created: at its time, but before its first collection.
    fn database_at(&self, database: &Database) -> Option<Tso> {
        let collections = self.wanted().collections.values();
        let first = collections
            .filter(|collection| collection.name.database == database.name)
            .map(|collection| collection.created);
        first.chain([database.created]).filter(|ts| *ts <= self.upto()).min()
    }

    /// Drops what is gone. Says which databases still hold something whose drop is to come.
    fn drop_collections(&mut self) -> BTreeSet<&'a str> {
        let mut kept = BTreeSet::new();
        for (id, collection) in &self.applied.collections {
            if self.wanted().collections.contains_key(id) {
                continue;
            }
            let at = self.dropped(collection);
            if at > self.upto() {
                kept.insert(collection.name.database.as_str());
            } else {
                let ddl = Ddl::DropCollection { id: *id, name: collection.name.clone() };
                self.push(at, Rank::DropCollection, ddl);
            }
        }
        kept
    }

    /// Renames what has another name now. What gave up its name before it got that one (two that changed places, or a name
    /// in between that nobody saw) goes aside until then, under a name that nobody has.
    fn rename_collections(&mut self, kept: &mut BTreeSet<&'a str>) {
        for (id, collection) in &self.applied.collections {
            let Some(wanted) = self.wanted().collections.get(id) else { continue };
            let mut name = collection.name.clone();
            if wanted.name == name {
                continue;
            }
            let at = self.renamed(*id);
            if let Some(taken) = self.name_taken(&name).filter(|taken| taken.pred() < at) {
                let database = name.database.clone();
                let aside = CollectionName { database, collection: format!("migrans_{id}") };
                let ddl = Ddl::RenameCollection { id: *id, name, to: aside.clone() };
                self.push(taken.pred(), Rank::Rename, ddl);
                name = aside;
            }
            if at <= self.upto() {
                self.push(at, Rank::Rename, Ddl::RenameCollection { id: *id, name, to: wanted.name.clone() });
            } else {
                kept.insert(collection.name.database.as_str());
            }
        }
    }

    /// Aliases move, unless that is into another database of the target: there they are made anew.
    fn aliases(&mut self) {
        let (upto, names) = (self.upto(), self.observed.names);
        for (name, alias) in &self.applied.aliases {
            let wanted = self.wanted().aliases.get(name);
            let leaves = self.leaves_database(alias.collection);
            if wanted == Some(alias) && leaves.is_none() {
                continue;
            }
            // Nothing can be dropped or go to another database that has an alias.
            let of = self.applied.collections.get(&alias.collection);
            let lives = self.wanted().collections.contains_key(&alias.collection);
            let gone = of.filter(|_| !lives).map(|collection| self.dropped(collection).pred());
            let end = gone.into_iter().chain(leaves.map(|(first, _)| first.pred())).min();
            let on_target_now = of.map(|of| names.alias(name, &of.name));
            let to = wanted.filter(|wanted| *wanted != alias);
            let stays = |to: &&Alias| {
                end.is_none_or(|end| to.changed <= end)
                    && self.leaves_database(to.collection).is_none()
                    && !self.has_yet_to_come(to.collection)
                    && on_target(names, self.wanted(), name, to) == on_target_now
            };
            if to.filter(stays).is_some() {
                continue;
            }
            let at = to.map(|to| to.changed).into_iter().chain(end).min().unwrap_or(upto);
            let taken = on_target_now.and_then(|target| self.taken_on_target(&target)).map(Tso::pred);
            let at = taken.map_or(at, |taken| at.min(taken));
            if at <= upto {
                let of = of.map_or_else(|| name.clone(), |collection| collection.name.clone());
                let ddl = Ddl::DropAlias { alias: name.clone(), id: alias.collection, name: of };
                self.push(at, Rank::DropAlias, ddl);
            }
        }
        for (name, alias) in &self.wanted().aliases {
            let left = self.leaves_database(alias.collection).map(|(_, last)| last);
            let is_there = self.applied.aliases.get(name) == Some(alias) && left.is_none();
            let Some(of) = self.wanted().collections.get(&alias.collection).filter(|_| !is_there) else {
                continue;
            };
            let at = alias.changed.max(of.created).max(left.unwrap_or(Tso::ZERO));
            if self.has_yet_to_come(of.id) {
                continue;
            }
            if at <= upto {
                let (alias, changed) = (name.clone(), alias.changed);
                let ddl = Ddl::SetAlias { alias, id: of.id, name: of.name.clone(), from: None, changed };
                self.push(at, Rank::SetAlias, ddl);
            }
        }
    }

    /// Whether a collection is not in the database of the target that it is to be in, also after the renames that are due.
    fn has_yet_to_come(&self, collection: CollectionId) -> bool {
        let database = |name: &CollectionName| self.observed.names.collection(name).database;
        let renames = self.steps.iter().rev().find_map(|(_, _, ddl)| match ddl {
            Ddl::RenameCollection { id, to, .. } if *id == collection => Some(to),
            _ => None,
        });
        let applied = || self.applied.collections.get(&collection).map(|applied| &applied.name);
        let wanted = self.wanted().collections.get(&collection).map(|wanted| &wanted.name);
        renames.or_else(applied).zip(wanted).is_some_and(|(now, then)| database(now) != database(then))
    }

    /// When a collection first and last goes from one database of the target to another.
    fn leaves_database(&self, collection: CollectionId) -> Option<(Tso, Tso)> {
        let database = |name: &CollectionName| self.observed.names.collection(name).database;
        let mut found = self.steps.iter().filter_map(|(ts, _, ddl)| match ddl {
            Ddl::RenameCollection { id, name, to } if *id == collection && database(name) != database(to) => {
                Some(*ts)
            }
            _ => None,
        });
        let first = found.next()?;
        Some(found.fold((first, first), |(first, last), ts| (first.min(ts), last.max(ts))))
    }

    fn access(&mut self) {
        let Some(wanted) = &self.wanted().access else { return };
        let nothing = Access::default();
        for step in self.applied.access.as_ref().unwrap_or(&nothing).steps_to(wanted) {
            self.push(self.upto(), Rank::Access, Ddl::Access(step));
        }
    }

    fn databases(&mut self, kept: &BTreeSet<&str>) {
        for (id, database) in &self.applied.databases {
            let stays = self.wanted().databases.contains_key(id)
                || self.observed.other_databases.contains(id)
                || *id == DEFAULT_DATABASE;
            if !stays && !kept.contains(database.name.as_str()) {
                let at = self.database_taken(&database.name).map_or(self.upto(), Tso::pred);
                let ddl = Ddl::DropDatabase { id: *id, name: database.name.clone() };
                self.push(at, Rank::DropDatabase, ddl);
            }
        }
        for (id, database) in &self.wanted().databases {
            if let Some(before) = self.applied.databases.get(id)
                && before.properties != database.properties
            {
                let ddl = Ddl::SetDatabaseProperties {
                    id: *id,
                    name: database.name.clone(),
                    removed: removed(&before.properties, &database.properties),
                    properties: database.properties.clone(),
                };
                self.push(self.upto(), Rank::SetProperties, ddl);
            }
            if !self.applied.databases.contains_key(id)
                && let Some(at) = self.database_at(database)
            {
                self.push(at, Rank::CreateDatabase, Ddl::CreateDatabase(database.clone()));
            }
        }
    }

    fn create_collections(&mut self) {
        for (id, wanted) in &self.wanted().collections {
            if self.applied.collections.contains_key(id) || wanted.created > self.upto() {
                continue;
            }
            let mut bare = wanted.clone();
            bare.indexes.clear();
            bare.load = None;
            // Partitions that hold the values of a partition key come with the collection and by no other way.
            if !wanted.has_partition_key() {
                bare.partitions.retain(|_, partition| {
                    partition.created <= wanted.created || partition.name == DEFAULT_PARTITION
                });
            }
            let bare = Arc::new(bare);
            self.push(wanted.created, Rank::CreateCollection, Ddl::CreateCollection(Arc::clone(&bare)));
            self.change_collection(&bare, wanted);
        }
    }

    /// Steps within a collection that is at the target, or will be by then.
    fn change_collection(&mut self, applied: &Collection, wanted: &Collection) {
        let upto = self.upto();
        let (id, name) = (applied.id, &applied.name);
        let mut present = applied.partitions.clone();
        let mut load = applied.load.clone();

        let created: Vec<(&PartitionId, &Partition)> = wanted
            .partitions
            .iter()
            .filter(|(id, partition)| !applied.partitions.contains_key(id) && partition.created <= upto)
            .collect();
        let mut dropped: Vec<(Tso, &PartitionId, &Partition)> = Vec::new();
        let mut waiting = false;
        for (partition_id, partition) in &applied.partitions {
            if wanted.partitions.contains_key(partition_id) {
                continue;
            }
            let known = self.observed.drop_times.partitions.get(partition_id).copied();
            let mut at = known.unwrap_or(upto);
            let taken = created.iter().filter(|(_, other)| other.name == partition.name);
            if let Some(taken) = taken.map(|(_, other)| other.created).min() {
                at = at.min(taken.pred());
            }
            if at > upto { waiting = true } else { dropped.push((at, partition_id, partition)) }
        }
        dropped.sort_by_key(|(at, ..)| *at);

        for (at, partition_id, partition) in dropped {
            let newer = created.iter().filter(|(_, other)| other.created < at);
            let names =
                present.values().chain(newer.map(|(_, other)| *other)).map(|other| other.name.clone());
            if let Some(without) = without(load.as_ref(), &partition.name, names.collect()) {
                self.set_load(at, Rank::Release, applied, &mut load, without);
            }
            present.remove(partition_id);
            let partition = partition.name.clone();
            let ddl = Ddl::DropPartition { id, name: name.clone(), partition_id: *partition_id, partition };
            self.push(at, Rank::DropPartition, ddl);
        }
        let grows = !created.is_empty();
        for (partition_id, partition) in created {
            present.insert(*partition_id, partition.clone());
            let partition = partition.clone();
            let at = partition.created.max(applied.created);
            let ddl = Ddl::CreatePartition { id, name: name.clone(), partition_id: *partition_id, partition };
            self.push(at, Rank::CreatePartition, ddl);
        }

        let to = wanted.load.as_ref().and_then(|load| reachable(load, wanted, &present, waiting));
        let same_index = |id: &i64| applied.indexes.get(id) == wanted.indexes.get(id);
        let altered = |id: &i64| {
            let (before, after) = (applied.indexes.get(id)?, wanted.indexes.get(id)?);
            (before != after && can_alter(before, after)).then(|| removed(&before.params, &after.params))
        };
        let is_altered = |id: &i64| altered(id).is_some();
        let old_indexes: Vec<_> =
            applied.indexes.iter().filter(|(id, _)| !same_index(id) && !is_altered(id)).collect();
        let alterations: Vec<_> =
            wanted.indexes.iter().filter_map(|(id, index)| Some((id, index, altered(id)?))).collect();
        let other_replicas =
            load.as_ref().zip(to.as_ref()).is_some_and(|(from, to)| from.replicas != to.replicas);
        let mapped = |properties: &BTreeMap<String, String>| properties.get(ONLY_WHILE_RELEASED).cloned();
        let remapped = mapped(&applied.properties) != mapped(&wanted.properties);
        if load.is_some()
            && (!old_indexes.is_empty() || !alterations.is_empty() || other_replicas || remapped)
        {
            self.set_load(upto, Rank::Release, applied, &mut load, None);
        }
        for (index_id, index) in old_indexes {
            let ddl = Ddl::DropIndex { id, name: name.clone(), index_id: *index_id, index: index.clone() };
            self.push(upto, Rank::DropIndex, ddl);
        }
        if applied.properties != wanted.properties {
            let removed = removed(&applied.properties, &wanted.properties);
            let properties = wanted.properties.clone();
            let ddl = Ddl::SetProperties { id, name: name.clone(), removed, properties };
            self.push(upto, Rank::SetProperties, ddl);
        }
        for (index_id, index, removed) in alterations {
            let (name, index) = (name.clone(), index.clone());
            self.push(
                upto,
                Rank::SetProperties,
                Ddl::AlterIndex { id, name, index_id: *index_id, removed, index },
            );
        }
        for (index_id, index) in wanted.indexes.iter().filter(|(id, _)| !same_index(id) && !is_altered(id)) {
            let ddl = Ddl::CreateIndex { id, name: name.clone(), index_id: *index_id, index: index.clone() };
            self.push(upto, Rank::CreateIndex, ddl);
        }
        // Whether a new partition of a loaded collection is loaded at once depends on how the collection came to be
        // loaded, which may be otherwise at the target: so it is told.
        if load != to || (grows && to.is_some()) {
            self.set_load(upto, Rank::Load, applied, &mut load, to);
        }
    }

    fn set_load(
        &mut self,
        at: Tso,
        rank: Rank,
        collection: &Collection,
        load: &mut Option<Load>,
        to: Option<Load>,
    ) {
        let from = std::mem::replace(load, to.clone());
        let ddl = Ddl::SetLoad { id: collection.id, name: collection.name.clone(), from, to };
        self.push(at, rank, ddl);
    }
}

/// What was in `before` and is not in `after`.
fn removed(before: &BTreeMap<String, String>, after: &BTreeMap<String, String>) -> BTreeSet<String> {
    before.keys().filter(|key| !after.contains_key(*key)).cloned().collect()
}

/// Whether an index can become another one without being built anew: only parameters differ that say how it is kept.
fn can_alter(before: &Index, after: &Index) -> bool {
    let built = |index: &Index| {
        let mut params = index.params.clone();
        params.retain(|key, _| !ALTERABLE.contains(&key.as_str()));
        (index.name.clone(), index.field.clone(), params)
    };
    built(before) == built(after)
}

/// What is to be loaded so that the partition called `dropped`, one of `names`, can be dropped; `None` if that needs no
/// change.
fn without(load: Option<&Load>, dropped: &str, names: BTreeSet<String>) -> Option<Option<Load>> {
    let load = load?;
    let mut partitions = load.partitions.clone().unwrap_or(names);
    if !partitions.remove(dropped) {
        return None;
    }
    Some((!partitions.is_empty()).then_some(Load { replicas: load.replicas, partitions: Some(partitions) }))
}

/// What of the wanted `load` can be had with the partitions that are `present`. While the drop of a partition is
/// `waiting`, loading the whole would load that one too, which the source has released.
fn reachable(
    load: &Load,
    wanted: &Collection,
    present: &BTreeMap<PartitionId, Partition>,
    waiting: bool,
) -> Option<Load> {
    let here = || present.iter().filter(|(id, _)| wanted.partitions.contains_key(id));
    let partitions: BTreeSet<String> = match &load.partitions {
        None if !waiting => return Some(load.clone()),
        None => here().map(|(_, partition)| partition.name.clone()).collect(),
        Some(names) => {
            here().map(|(_, partition)| partition.name.clone()).filter(|name| names.contains(name)).collect()
        }
    };
    (!partitions.is_empty()).then_some(Load { replicas: load.replicas, partitions: Some(partitions) })
}

#[cfg(test)]
mod tests;
