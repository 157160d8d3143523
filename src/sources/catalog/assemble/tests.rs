//! On metadata recorded from a real 2.3.5, see `testdata/record.py`.

use super::*;
use crate::milvus::proto::common::KeyDataPair;
use crate::milvus::proto::schema::{CollectionSchema, DataType};
use crate::sources::catalog::history::drop_time;
use crate::sources::catalog::mirror::{KeyChange, TOMBSTONE};
use crate::sources::catalog::version::{Version, running};

const RECORDED: &str = include_str!("../testdata/milvus-2.3.5.txt");

fn meta() -> Meta {
    Meta::new("by-dev", "meta")
}

/// Roughly.
fn when_recorded() -> std::ops::Range<Tso> {
    Tso::parse("2023-01-01T00:00:00Z").unwrap()..Tso::parse("2100-01-01T00:00:00Z").unwrap()
}

/// All recorded keys and values.
fn recorded() -> Vec<(String, Vec<u8>)> {
    let lines = RECORDED.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| {
            let (key, hex) = line.split_once(' ').unwrap();
            let bytes = (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap());
            (key.to_owned(), bytes.collect())
        })
        .collect()
}

fn mirror_of(values: impl IntoIterator<Item = (Key, Vec<u8>)>) -> Mirror {
    let change = |(key, value)| KeyChange { key, revision: 1, value: Some(value) };
    Mirror::new(1, values.into_iter().map(change))
}

fn mirror() -> Mirror {
    let keys = recorded()
        .into_iter()
        .filter_map(|(key, value)| Some((meta().parse(key.as_bytes()).unwrap()?, value)));
    mirror_of(keys)
}

fn all(_: &CollectionName) -> bool {
    true
}

fn named<'a>(assembled: &'a Assembled, name: &str) -> &'a Collection {
    let found: Vec<_> = assembled
        .catalog
        .collections
        .values()
        .filter(|collection| collection.name.to_string() == name)
        .collect();
    assert_eq!(found.len(), 1, "{name}");
    found[0]
}

fn map<const N: usize>(pairs: [(&str, &str); N]) -> BTreeMap<String, String> {
    pairs.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

#[test]
fn every_attribute_of_a_collection_is_found() {
    let assembled = assemble(&mirror(), &meta(), &all).unwrap();
    let every = named(&assembled, "shop.every");
    assert_eq!(every.schema.description, "all attributes – ünïcode");
    assert!(every.schema.dynamic);
    assert_eq!((every.shards, every.consistency_level), (2, 1));
    assert_eq!(every.properties, map([("collection.ttl.seconds", "1800")]));
    let fields: Vec<_> = every
        .schema
        .fields
        .iter()
        .map(|field| {
            (field.id, field.name.as_str(), field.data_type().unwrap(), field.primary_key, field.dynamic)
        })
        .collect();
    assert_eq!(
        fields,
        [
            (100, "key", DataType::VarChar, true, false),
            (101, "number", DataType::Int16, false, false),
            (102, "list", DataType::Array, false, false),
            (103, "vector", DataType::FloatVector, false, false),
            (104, "$meta", DataType::Json, false, true),
        ]
    );
    let [key, _, list, vector, _] = every.schema.fields.as_slice() else { panic!() };
    assert_eq!((key.description.as_str(), &key.type_params), ("the key", &map([("max_length", "200")])));
    assert_eq!(list.element_type, DataType::Int32 as i32);
    assert_eq!(list.type_params, map([("max_capacity", "9")]));
    assert_eq!(vector.type_params, map([("dim", "8")]));
    assert!(
        every.schema.fields.iter().all(|field| !field.auto_id && !field.nullable && !field.partition_key)
    );

    assert_eq!(every.vchannels.len(), 2);
    assert!(every.vchannels[1].0.ends_with(&format!("_{}v1", every.id)));
    let pchannels: BTreeSet<PChannel> = every.vchannels.iter().map(VChannel::pchannel).collect();
    assert!(every.start_positions.keys().eq(&pchannels));
    assert!(every.start_positions.values().all(|position| position.0.len() == 8));
    assert!(when_recorded().contains(&every.created));
}

#[test]
fn only_partitions_that_are_there_are_part_of_a_collection() {
    let assembled = assemble(&mirror(), &meta(), &all).unwrap();
    let every = named(&assembled, "shop.every");
    let names: BTreeSet<_> = every.partitions.values().map(|partition| partition.name.as_str()).collect();
    assert_eq!(names, BTreeSet::from(["_default", "kept", "released"]));
    for partition in every.partitions.values() {
        assert_eq!(partition.created == every.created, partition.name == "_default");
        assert!(partition.created >= every.created);
    }
}

#[test]
fn indexes_are_what_their_creator_asked_for() {
    let assembled = assemble(&mirror(), &meta(), &all).unwrap();
    let indexes = |name| -> BTreeMap<&str, (&str, &BTreeMap<String, String>)> {
        named(&assembled, name)
            .indexes
            .values()
            .map(|index| (index.name.as_str(), (index.field.as_str(), &index.params)))
            .collect()
    };
    let by_vector = map([("index_type", "IVF_FLAT"), ("metric_type", "L2"), ("params", "{\"nlist\":16}")]);
    let by_number = map([("index_type", "STL_SORT")]); // nothing was asked for
    assert_eq!(
        indexes("shop.every"),
        BTreeMap::from([("by_vector", ("vector", &by_vector)), ("by_number", ("number", &by_number))])
    );
    let auto = map([("index_type", "AUTOINDEX"), ("metric_type", "IP")]);
    assert_eq!(indexes("default.auto"), BTreeMap::from([("vector", ("vector", &auto))]));
}

#[test]
fn load_states_are_whole_in_part_or_not_at_all() {
    let assembled = assemble(&mirror(), &meta(), &all).unwrap();
    let load = |name| named(&assembled, name).load.clone();
    let some = |names: &[&str]| Some(names.iter().map(|name| (*name).to_owned()).collect());
    assert_eq!(load("shop.every"), Some(Load { replicas: 1, partitions: some(&["_default", "kept"]) }));
    assert_eq!(load("default.keyed"), Some(Load { replicas: 1, partitions: None }));
    assert_eq!(load("default.auto"), None);
}

#[test]
fn a_partition_key_and_a_generated_key_are_known() {
    let assembled = assemble(&mirror(), &meta(), &all).unwrap();
    let keyed = named(&assembled, "default.keyed");
    assert!(keyed.has_partition_key());
    assert!(keyed.schema.primary_key().unwrap().auto_id);
    assert_eq!(keyed.partitions.len(), 3);
    assert!(keyed.partitions.values().all(|partition| partition.created == keyed.created));
}

#[test]
fn what_is_dropped_is_neither_in_the_catalog_nor_ignored() {
    let everything = assemble(&mirror(), &meta(), &all).unwrap();
    assert_eq!(everything.catalog.collections.len(), 3);
    assert!(everything.ignored.is_empty() && everything.other_databases.is_empty());
    let nothing = assemble(&mirror(), &meta(), &|_| false).unwrap();
    assert_eq!(nothing.catalog, Catalog::default());
    assert!(nothing.ignored.iter().eq(everything.catalog.collections.keys()));
    assert!(nothing.other_databases.iter().eq(everything.catalog.databases.keys()));
}

#[test]
fn a_database_is_in_if_something_in_it_is_or_all_of_it_is() {
    let names = |assembled: &Assembled| -> Vec<String> {
        assembled.catalog.databases.values().map(|database| database.name.clone()).collect()
    };
    let assembled = assemble(&mirror(), &meta(), &|name| name.collection == "every").unwrap();
    assert_eq!(names(&assembled), ["shop"]);
    assert_eq!(assembled.other_databases.len(), 2);
    let assembled = assemble(&mirror(), &meta(), &|name| name.database == "empty").unwrap();
    assert_eq!(names(&assembled), ["empty"]);
    let database = assembled.catalog.databases.values().next().unwrap();
    assert!(when_recorded().contains(&database.created));
    // A pattern for some names of a database does not take the database.
    let assembled = assemble(&mirror(), &meta(), &|name| name.collection.starts_with("orders_")).unwrap();
    assert_eq!(assembled.catalog.databases.len(), 0);
}

#[test]
fn drop_times_are_in_the_history() {
    let history = |key: &Key| -> Option<Tso> {
        let prefix = meta().history(key).into_bytes();
        let entries = recorded().into_iter().map(|(key, value)| (key.into_bytes(), value));
        let entries: Vec<_> = entries.filter(|(key, _)| key.starts_with(&prefix)).collect();
        assert!(!entries.is_empty(), "{key:?}");
        drop_time(&meta(), key, &entries).unwrap()
    };
    let mut dropped = 0;
    for (key, entry) in mirror().between(Key::Database(i64::MIN), Key::Field(CollectionId(i64::MIN), 0)) {
        let created = match key {
            Key::Collection(..) => {
                let info = CollectionInfo::decode(entry.value.as_slice()).unwrap();
                (info.state == 2).then_some(info.create_time)
            }
            Key::Partition(..) => {
                let info = PartitionInfo::decode(entry.value.as_slice()).unwrap();
                (info.state == 2).then_some(info.partition_created_timestamp)
            }
            _ => continue,
        };
        let drop = history(key);
        assert_eq!(drop.is_some(), created.is_some(), "{key:?}");
        if let (Some(drop), Some(created)) = (drop, created) {
            assert!(drop > Tso(created));
            dropped += 1;
        }
    }
    assert_eq!(dropped, 2);
}

#[test]
fn the_version_is_in_the_sessions() {
    let sessions: Vec<_> =
        recorded().into_iter().filter(|(key, _)| key.starts_with("by-dev/meta/session/")).collect();
    assert_eq!(running(&sessions, "here").unwrap(), Version::parse("2.3.5"));
}

#[test]
fn a_value_that_cannot_be_decoded_is_named() {
    for (key, text) in [
        (Key::Database(1), "root-coord/database/db-info/1"),
        (Key::Collection(CollectionId(5), Some(1)), "root-coord/database/collection-info/1/5"),
    ] {
        let error = assemble(&mirror_of([(key, vec![0x08])]), &meta(), &all).unwrap_err();
        assert_eq!(error.kind(), Kind::Corrupt);
        assert!(error.message().contains(&format!("by-dev/meta/{text}")), "{error}");
    }
}

/// A collection of one field and partition, in the state `state`.
fn small(id: i64, state: i32) -> Vec<(Key, Vec<u8>)> {
    let id = CollectionId(id);
    let info = CollectionInfo {
        id: id.0,
        schema: Some(CollectionSchema { name: format!("c{id}"), ..Default::default() }),
        create_time: 10,
        state,
        ..Default::default()
    };
    let field = FieldSchema { field_id: 100, name: "id".into(), is_primary_key: true, ..Default::default() };
    let partition =
        PartitionInfo { partition_id: 7, partition_name: "_default".into(), ..Default::default() };
    vec![
        (Key::Collection(id, Some(1)), info.encode_to_vec()),
        (Key::Field(id, 100), field.encode_to_vec()),
        (Key::Partition(id, PartitionId(7)), partition.encode_to_vec()),
    ]
}

#[test]
fn what_is_not_complete_yet_is_not_there_yet() {
    let collections = |values: Vec<(Key, Vec<u8>)>| {
        let assembled = assemble(&mirror_of(values), &meta(), &all).unwrap();
        (assembled.catalog.collections.len(), assembled.ignored.len())
    };
    assert_eq!(collections(small(5, 0)), (1, 0));
    for state in [1, 2, 3] {
        assert_eq!(collections(small(5, state)), (0, 0), "{state}");
    }
    assert_eq!(
        collections(small(5, 0).into_iter().filter(|(key, _)| !matches!(key, Key::Field(..))).collect()),
        (0, 0)
    );
    let creating = PartitionInfo { partition_id: 7, state: CREATING, ..Default::default() }.encode_to_vec();
    let mut values = small(5, 0);
    values[2].1 = creating;
    assert_eq!(collections(values), (0, 0));
    let mut values = small(5, 0);
    values[2].1 = TOMBSTONE.to_vec();
    assert_eq!(collections(values), (0, 0));
}

#[test]
fn a_collection_of_a_database_that_is_gone_is_gone() {
    let mut values = small(5, 0);
    values[0].0 = Key::Collection(CollectionId(5), Some(99));
    let assembled = assemble(&mirror_of(values), &meta(), &all).unwrap();
    assert!(assembled.catalog.collections.is_empty() && assembled.ignored.is_empty());
}

#[test]
fn the_layouts_of_old_versions_are_understood() {
    let field = |field_id, name: &str| FieldSchema { field_id, name: name.into(), ..Default::default() };
    let info = CollectionInfo {
        id: 5,
        schema: Some(CollectionSchema {
            name: "old".into(),
            fields: vec![field(1, "Timestamp"), field(101, "b"), field(100, "a")],
            ..Default::default()
        }),
        create_time: 10,
        partition_i_ds: vec![6, 7],
        partition_names: vec!["_default".into(), "p".into()],
        partition_created_timestamps: vec![10, 12],
        start_positions: vec![KeyDataPair { key: "ch".into(), data: vec![1] }],
        ..Default::default()
    };
    // Moved to the key with a database and changed since: the newer one counts.
    let moved = CollectionInfo { consistency_level: 3, db_id: 1, ..info.clone() };
    let old = (Key::Collection(CollectionId(5), None), info.encode_to_vec());
    let new = (Key::Collection(CollectionId(5), Some(1)), moved.encode_to_vec());
    for (values, level) in [(vec![old.clone()], 0), (vec![old, new], 3)] {
        let assembled = assemble(&mirror_of(values), &meta(), &all).unwrap();
        let collection = named(&assembled, "default.old");
        assert_eq!(collection.consistency_level, level);
        let names: Vec<_> = collection.schema.fields.iter().map(|field| field.name.as_str()).collect();
        assert_eq!(names, ["a", "b"]);
        let partitions: Vec<_> = collection
            .partitions
            .iter()
            .map(|(id, partition)| (id.0, partition.name.as_str(), partition.created.0))
            .collect();
        assert_eq!(partitions, [(6, "_default", 10), (7, "p", 12)]);
    }
}

#[test]
fn loads_in_motion_and_of_old_versions_are_understood() {
    let load = |status, load_type, released: &[i64], partitions: &[(i64, i32)]| {
        let mut values = small(5, 0);
        let id = CollectionId(5);
        let info = PartitionInfo { partition_id: 8, partition_name: "p".into(), ..Default::default() };
        values.push((Key::Partition(id, PartitionId(8)), info.encode_to_vec()));
        let info = CollectionLoadInfo {
            collection_id: 5,
            replica_number: 2,
            status,
            load_type,
            released_partitions: released.to_vec(),
            ..Default::default()
        };
        values.push((Key::CollectionLoad(id), info.encode_to_vec()));
        for (partition_id, status) in partitions {
            let info =
                PartitionLoadInfo { partition_id: *partition_id, status: *status, ..Default::default() };
            values.push((Key::PartitionLoad(id, PartitionId(*partition_id)), info.encode_to_vec()));
        }
        let assembled = assemble(&mirror_of(values), &meta(), &all).unwrap();
        let load = named(&assembled, "default.c5").load.clone()?;
        assert_eq!(load.replicas, 2);
        Some(load.partitions.map(|names| names.into_iter().collect::<Vec<_>>().join(" ")))
    };
    let part = |names: &str| Some(Some(names.to_owned()));
    let whole = Some(None);
    assert_eq!(load(1, 2, &[], &[]), None, "loading has begun");
    assert_eq!(load(1, 2, &[], &[(7, 1), (8, 1)]), None);
    assert_eq!(load(2, 2, &[], &[(7, 2), (8, 2)]), whole);
    assert_eq!(load(2, 2, &[], &[(7, 2)]), part("_default"), "one was released");
    assert_eq!(load(1, 2, &[], &[(7, 2), (8, 1)]), part("_default"), "and is being loaded again");
    assert_eq!(load(2, 1, &[], &[(7, 2), (8, 2)]), part("_default p"), "one by one is not the whole");
    assert_eq!(load(2, 1, &[], &[(8, 2), (99, 2)]), part("p"), "99 is gone");
    assert_eq!(load(2, 2, &[], &[]), whole, "as 2.2 wrote it");
    assert_eq!(load(2, 2, &[8], &[]), part("_default"));
}
