//! What there is to compare: both sides' catalogs next to each other.

use std::collections::{BTreeMap, BTreeSet};

use super::unit::Unit;
use crate::error::{Error, Kind, Result};
use crate::milvus::catalog::{Catalog, Collection, CollectionName, Field};
use crate::milvus::columns::vector_size;
use crate::milvus::proto::common::LoadState;
use crate::milvus::proto::milvus::DescribeCollectionResponse;
use crate::milvus::proto::schema::DataType;
use crate::pipeline::{Names, TargetMode};
use crate::proxy::{Client, Role};
use crate::sinks::milvus::compare;

/// How far things are from being comparable, by collection.
pub(super) type Plan = BTreeMap<CollectionName, CollectionPlan>;

/// What is to be done about one collection, and what is known already.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct CollectionPlan {
    /// Differences beside rows.
    pub(super) problems: Vec<String>,
    /// What can't be compared.
    pub(super) gaps: Vec<String>,
    /// What is worth knowing and no difference.
    pub(super) notes: Vec<String>,
    /// What can be compared.
    pub(super) units: Vec<Unit>,
    /// What is on one side only, or not loaded on one; its rows can at most be counted.
    pub(super) lone: Vec<Lone>,
    /// It may be another plan once the pipeline is further.
    pub(super) is_unsettled: bool,
    /// Something of it is being loaded, on whichever side: it will be another plan soon.
    pub(super) is_loading: bool,
    /// Its etcd knows it, but not the source's proxy.
    pub(super) is_missing_at_proxy: bool,
}

impl CollectionPlan {
    /// The same for a collection that has this name on the target.
    fn standing_under(mut self, on_target: &CollectionName) -> CollectionPlan {
        let lone = self.lone.iter_mut().map(|lone| &mut lone.unit);
        self.units.iter_mut().chain(lone).for_each(|unit| unit.on_target = on_target.clone());
        self
    }
}

/// Rows without anything to compare them with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Lone {
    pub(super) unit: Unit,
    /// Where it can be counted.
    pub(super) loaded: Vec<Role>,
    /// Where it is at all.
    pub(super) only: Option<Role>,
}

/// A collection as its server tells it.
#[derive(Clone, Debug, Default)]
pub(super) struct Found {
    pub(super) described: DescribeCollectionResponse,
    pub(super) partitions: BTreeSet<String>,
    pub(super) loaded: Loaded,
}

/// What of a collection can be queried.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Loaded {
    pub(super) whole: bool,
    pub(super) partitions: BTreeSet<String>,
    /// Something of it is being loaded.
    pub(super) is_loading: bool,
}

/// Makes a plan for the collections of `catalog` and those of the target that `select` takes.
pub(super) async fn plan(
    catalog: &Catalog,
    source: &Client,
    target: &Client,
    mode: TargetMode,
    names: &Names,
    select: &(dyn Fn(&CollectionName) -> bool + Send + Sync),
) -> Result<Plan> {
    if let Some(error) = names.conflict(catalog) {
        return Err(error);
    }
    let mut plan = Plan::new();
    for collection in catalog.collections.values() {
        let name = &collection.name;
        let Some(at_source) = find(source, name).await? else {
            // It was dropped since its etcd was read, or this is another cluster's proxy.
            let problems = vec!["the source's etcd has it, but not its proxy".to_owned()];
            plan.insert(
                name.clone(),
                CollectionPlan {
                    problems,
                    is_unsettled: true,
                    is_missing_at_proxy: true,
                    ..Default::default()
                },
            );
            continue;
        };
        if at_source.described.collection_id != collection.id.0 {
            return Err(strange_proxy(source, name));
        }
        let on_target = names.collection(name);
        let at_target = find(target, &on_target).await?;
        let planned = pair(collection, &at_source, at_target.as_ref(), mode);
        plan.insert(name.clone(), planned.standing_under(&on_target));
    }
    let first = catalog.collections.values().next();
    if let Some(first) = first.filter(|_| plan.values().all(|plan| plan.is_missing_at_proxy)) {
        return Err(strange_proxy(source, &first.name));
    }
    for database in target.databases().await? {
        for collection in target.collections(&database).await? {
            let on_target = CollectionName { database: database.clone(), collection };
            let sources = names.sources(&on_target);
            let mut selected = sources.iter().filter(|name| select(name));
            // Without its counterpart: it would come from here.
            if let Some(name) =
                selected.next().filter(|_| !sources.iter().any(|name| plan.contains_key(name)))
                && let Some(found) = find(target, &on_target).await?
            {
                let planned = alone(name, &found, Role::Target);
                plan.insert(name.clone(), planned.standing_under(&on_target));
            }
        }
    }
    Ok(plan)
}

fn strange_proxy(source: &Client, name: &CollectionName) -> Error {
    let message = format!(
        "the Milvus at {} is not the one whose catalog is in the source's etcd: it has no collection {name} with the same id",
        source.uri()
    );
    Error::new(Kind::Conflict, message)
        .hint("write the address of the source's proxy as uri into [source.milvus]")
}

async fn find(client: &Client, name: &CollectionName) -> Result<Option<Found>> {
    let Some(described) = client.describe(name).await? else { return Ok(None) };
    let Some(partitions) = client.partitions(name).await? else { return Ok(None) };
    let partitions: BTreeSet<String> = partitions.into_iter().collect();
    let mut loaded = Loaded::default();
    match client.load_state(name, &[]).await? {
        LoadState::Loaded => loaded.whole = true,
        LoadState::Loading => loaded.is_loading = true,
        _ => {}
    }
    let has_key =
        described.schema.iter().flat_map(|schema| &schema.fields).any(|field| field.is_partition_key);
    if loaded.whole && !has_key {
        for partition in &partitions {
            match client.load_state(name, std::slice::from_ref(partition)).await? {
                LoadState::Loaded => drop(loaded.partitions.insert(partition.clone())),
                LoadState::Loading => loaded.is_loading = true,
                _ => {}
            }
        }
    }
    Ok(Some(Found { described, partitions, loaded }))
}

/// A collection that is on one side only.
fn alone(name: &CollectionName, found: &Found, role: Role) -> CollectionPlan {
    let schema = found.described.schema.clone().unwrap_or_default();
    let key = schema.fields.iter().find(|field| field.is_primary_key).map(|field| field.name.clone());
    let unit = Unit {
        collection: name.clone(),
        on_target: name.clone(),
        partition: None,
        key: key.unwrap_or_default(),
        fields: Vec::new(),
        vectors: Vec::new(),
        row_size: 0,
    };
    CollectionPlan {
        problems: vec![format!("it is on the {} only", role.word())],
        lone: vec![Lone {
            unit,
            loaded: found.loaded.whole.then_some(role).into_iter().collect(),
            only: Some(role),
        }],
        is_unsettled: true,
        ..Default::default()
    }
}

/// The plan for one collection of the source.
fn pair(collection: &Collection, source: &Found, target: Option<&Found>, mode: TargetMode) -> CollectionPlan {
    let Some(target) = target else { return alone(&collection.name, source, Role::Source) };
    let mut plan = CollectionPlan {
        problems: compare::differences(collection, &target.described, mode),
        is_loading: source.loaded.is_loading || target.loaded.is_loading,
        ..Default::default()
    };
    let Some(key) = collection.schema.primary_key() else {
        plan.gaps.push("it has no primary key".to_owned());
        return plan;
    };
    if let Some(seconds) = collection.properties.get("collection.ttl.seconds") {
        let text = "its rows end after {} s, and those of the target were written later: some may be on the target only";
        plan.notes.push(text.replace("{}", seconds));
    }
    let compared: Vec<&Field> =
        collection.schema.fields.iter().filter(|field| is_comparable(field, target, &mut plan)).collect();
    if !compared.iter().any(|field| field.primary_key) {
        plan.gaps.push(format!("the rows, since the key `{}` is not the same on both sides", key.name));
        plan.is_unsettled |= !plan.problems.is_empty();
        return plan;
    }
    let others = compared.iter().filter(|field| !field.primary_key).map(|field| field.name.clone());
    let fields: Vec<String> = std::iter::once(key.name.clone()).chain(others).collect();
    let vectors = compared.iter().filter(|field| field.data_type >= DataType::BinaryVector as i32);
    let vectors: Vec<String> = vectors.map(|field| field.name.clone()).collect();
    let row_size = compared.iter().map(|field| field_size(field)).sum();
    let unit = |partition: Option<&String>| Unit {
        collection: collection.name.clone(),
        on_target: collection.name.clone(),
        partition: partition.cloned(),
        key: key.name.clone(),
        fields: fields.clone(),
        vectors: vectors.clone(),
        row_size,
    };
    if collection.has_partition_key() {
        let roles = [(Role::Source, source), (Role::Target, target)];
        let roles = roles.iter().filter(|(_, found)| found.loaded.whole).map(|(role, _)| *role);
        place(&mut plan, unit(None), roles.collect());
    } else {
        for partition in source.partitions.union(&target.partitions) {
            let has = |found: &Found| found.partitions.contains(partition);
            let is_loaded = |found: &Found| found.loaded.partitions.contains(partition);
            let roles = [(Role::Source, source), (Role::Target, target)];
            let loaded: Vec<Role> =
                roles.iter().filter(|(_, found)| is_loaded(found)).map(|(role, _)| *role).collect();
            let only = match (has(source), has(target)) {
                (true, false) => Role::Source,
                (false, true) => Role::Target,
                _ => {
                    place(&mut plan, unit(Some(partition)), loaded);
                    continue;
                }
            };
            plan.problems.push(format!("partition {partition} is on the {} only", only.word()));
            plan.lone.push(Lone { unit: unit(Some(partition)), loaded, only: Some(only) });
        }
    }
    plan.is_unsettled |= !plan.problems.is_empty();
    plan
}

/// Puts a unit of both sides where it belongs.
fn place(plan: &mut CollectionPlan, unit: Unit, loaded: Vec<Role>) {
    if loaded.len() == 2 {
        plan.units.push(unit);
        return;
    }
    let what = unit.partition.as_ref().map_or("it".to_owned(), |partition| format!("partition {partition}"));
    let place = match &loaded[..] {
        [] => "either side",
        [Role::Source] => "the target",
        [_, ..] => "the source",
    };
    plan.gaps.push(format!("{what} is not loaded on {place}, so its rows can't be queried"));
    plan.is_unsettled |= loaded == [Role::Source];
    plan.lone.push(Lone { unit, loaded, only: None });
}

/// Whether a field of the source can be compared with the target's. If not, it is said why.
fn is_comparable(field: &Field, target: &Found, plan: &mut CollectionPlan) -> bool {
    let empty = Default::default();
    let schema = target.described.schema.as_ref().unwrap_or(&empty);
    if field.dynamic {
        // That one side has no dynamic fields is a difference that has been noted.
        return schema.enable_dynamic_field;
    }
    if field.function_output {
        plan.notes.push(format!("field `{}` is computed by a function and not compared", field.name));
        return false;
    }
    if matches!(field.data_type(), None | Some(DataType::None)) {
        plan.gaps.push(format!("field `{}`, whose type is not known ({})", field.name, field.data_type));
        return false;
    }
    let found = schema.fields.iter().find(|found| found.name == field.name);
    found.is_some_and(|found| found.data_type == field.data_type && found.element_type == field.element_type)
}

/// About the bytes of a value, as far as its type tells.
fn field_size(field: &Field) -> usize {
    let dim = field.type_params.get("dim").and_then(|dim| dim.parse().ok());
    match (field.data_type(), dim) {
        (Some(data_type), Some(dim)) => vector_size(data_type, dim).unwrap_or(64),
        (Some(DataType::VarChar | DataType::String | DataType::Json | DataType::Array), _) => 64,
        _ => 8,
    }
}

#[cfg(test)]
mod tests;
