//! Plans from what both sides tell, without servers.

use std::collections::BTreeMap;

use super::*;
use crate::milvus::catalog::{CollectionId, Partition, PartitionId, Schema};
use crate::milvus::proto::common::KeyValuePair;
use crate::milvus::proto::schema::{CollectionSchema, FieldSchema};
use crate::milvus::tso::Tso;

fn field(name: &str, data_type: DataType) -> Field {
    Field {
        id: 100,
        name: name.into(),
        data_type: data_type as i32,
        primary_key: name == "k",
        dynamic: name == "$meta",
        ..Field::default()
    }
}

fn collection() -> Collection {
    let dim = BTreeMap::from([("dim".to_owned(), "8".to_owned())]);
    let vector = Field { type_params: dim, ..field("v", DataType::FloatVector) };
    let fields = vec![
        field("a", DataType::VarChar),
        field("k", DataType::Int64),
        vector,
        field("$meta", DataType::Json),
    ];
    let partition = |name: &str| Partition { name: name.into(), created: Tso(1) };
    Collection {
        id: CollectionId(1),
        name: CollectionName { database: "default".into(), collection: "c".into() },
        created: Tso(1),
        schema: Schema { description: String::new(), dynamic: true, fields },
        shards: 1,
        consistency_level: 2,
        properties: BTreeMap::new(),
        vchannels: vec![],
        start_positions: BTreeMap::new(),
        partitions: BTreeMap::from([
            (PartitionId(1), partition("_default")),
            (PartitionId(2), partition("p")),
        ]),
        indexes: BTreeMap::new(),
        load: None,
    }
}

/// A collection as its server tells it, wholly loaded.
fn found(of: &Collection) -> Found {
    let fields = of.schema.fields.iter().filter(|field| !field.dynamic).map(|field| FieldSchema {
        name: field.name.clone(),
        data_type: field.data_type,
        is_primary_key: field.primary_key,
        is_partition_key: field.partition_key,
        type_params: field
            .type_params
            .iter()
            .map(|(key, value)| KeyValuePair { key: key.clone(), value: value.clone() })
            .collect(),
        ..Default::default()
    });
    let schema = CollectionSchema {
        fields: fields.collect(),
        enable_dynamic_field: of.schema.dynamic,
        ..Default::default()
    };
    let partitions: BTreeSet<String> =
        of.partitions.values().map(|partition| partition.name.clone()).collect();
    Found {
        described: DescribeCollectionResponse { schema: Some(schema), shards_num: 1, ..Default::default() },
        loaded: Loaded { whole: true, partitions: partitions.clone(), is_loading: false },
        partitions,
    }
}

#[test]
fn two_that_are_alike_are_compared_by_partition_over_all_fields() {
    let source = collection();
    let plan = pair(&source, &found(&source), Some(&found(&source)), TargetMode::Write);
    let partitions: Vec<_> = plan.units.iter().map(|unit| unit.partition.as_deref().unwrap()).collect();
    assert_eq!(partitions, ["_default", "p"]);
    let unit = &plan.units[0];
    assert_eq!(unit.fields, ["k", "a", "v", "$meta"]);
    assert_eq!((unit.key.as_str(), unit.vectors.as_slice()), ("k", &["v".to_owned()][..]));
    assert!(plan.problems.is_empty() && plan.gaps.is_empty() && plan.lone.is_empty() && !plan.is_unsettled);
}

#[test]
fn with_a_partition_key_it_is_compared_as_a_whole() {
    let mut source = collection();
    source.schema.fields[0].partition_key = true;
    let mut loaded = found(&source);
    loaded.loaded.partitions.clear();
    let plan = pair(&source, &loaded, Some(&loaded), TargetMode::Write);
    assert_eq!(plan.units.len(), 1);
    assert_eq!(plan.units[0].partition, None);
}

#[test]
fn what_is_on_one_side_only_is_a_difference() {
    let source = collection();
    let plan = pair(&source, &found(&source), None, TargetMode::Write);
    assert_eq!(plan.problems, ["it is on the source only"]);
    assert!(plan.units.is_empty() && plan.is_unsettled);

    let mut target = found(&source);
    target.partitions.remove("p");
    target.partitions.insert("q".into());
    target.loaded.partitions = target.partitions.clone();
    let plan = pair(&source, &found(&source), Some(&target), TargetMode::Write);
    assert_eq!(plan.problems, ["partition p is on the source only", "partition q is on the target only"]);
    let only: Vec<_> = plan.lone.iter().map(|lone| (lone.only, lone.loaded.clone())).collect();
    assert_eq!(only, [(Some(Role::Source), vec![Role::Source]), (Some(Role::Target), vec![Role::Target])]);
    assert_eq!(plan.units.len(), 1);
}

#[test]
fn what_is_not_loaded_is_a_gap_and_may_pass_if_only_the_target_lacks_it() {
    let source = collection();
    let mut part = found(&source);
    part.loaded.partitions.remove("p");
    let plan = pair(&source, &found(&source), Some(&part), TargetMode::Write);
    assert_eq!(plan.gaps, ["partition p is not loaded on the target, so its rows can't be queried"]);
    assert!(plan.is_unsettled && plan.problems.is_empty());
    let plan = pair(&source, &part, Some(&found(&source)), TargetMode::Write);
    assert_eq!(plan.gaps, ["partition p is not loaded on the source, so its rows can't be queried"]);
    assert!(!plan.is_unsettled);
    let plan = pair(&source, &part, Some(&part), TargetMode::Write);
    assert_eq!(plan.gaps, ["partition p is not loaded on either side, so its rows can't be queried"]);
    assert!(!plan.is_unsettled);
    assert_eq!(plan.units.len(), 1);
}

#[test]
fn only_columns_of_one_type_are_compared_and_nothing_without_the_key() {
    let source = collection();
    let mut target = found(&source);
    let schema = target.described.schema.as_mut().unwrap();
    schema.fields[0].data_type = DataType::Int64 as i32;
    schema.enable_dynamic_field = false;
    let plan = pair(&source, &found(&source), Some(&target), TargetMode::Write);
    assert_eq!(plan.problems.len(), 2, "{:?}", plan.problems);
    assert_eq!(plan.units[0].fields, ["k", "v"]);

    target.described.schema.as_mut().unwrap().fields[1].data_type = DataType::VarChar as i32;
    let plan = pair(&source, &found(&source), Some(&target), TargetMode::Write);
    assert!(plan.units.is_empty());
    assert_eq!(plan.gaps, ["the rows, since the key `k` is not the same on both sides"]);
}

#[test]
fn what_is_computed_or_unknown_or_runs_out_is_told() {
    let mut source = collection();
    source.schema.fields[2].function_output = true;
    source.schema.fields[0].data_type = 99;
    source.properties.insert("collection.ttl.seconds".into(), "60".into());
    let plan = pair(&source, &found(&source), Some(&found(&source)), TargetMode::Write);
    assert_eq!(plan.units[0].fields, ["k", "$meta"]);
    assert_eq!(plan.notes.len(), 2, "{:?}", plan.notes);
    assert_eq!(plan.gaps, ["field `a`, whose type is not known (99)"]);
}
