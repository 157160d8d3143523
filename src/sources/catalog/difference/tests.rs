//! Steps are tried out on a small model of a Milvus target that refuses what the real one refuses.

use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use proptest::test_runner::RngSeed;

use super::*;
use crate::milvus::catalog::{Field, Index, Schema};
use crate::ops::apply::describe;

const DEFAULT: &str = "default";

fn name(database: &str, collection: &str) -> CollectionName {
    CollectionName { database: database.to_owned(), collection: collection.to_owned() }
}

fn database(id: i64, name: &str, created: u64) -> Database {
    Database { id, name: name.to_owned(), created: Tso(created), properties: BTreeMap::new() }
}

fn collection(id: i64, name: CollectionName, created: u64, partition_key: bool) -> Collection {
    let field = Field {
        id: 100,
        name: "id".into(),
        data_type: 5,
        primary_key: true,
        partition_key,
        ..Field::default()
    };
    Collection {
        id: CollectionId(id),
        name,
        created: Tso(created),
        schema: Schema { description: String::new(), dynamic: false, fields: vec![field] },
        shards: 1,
        consistency_level: 2,
        properties: BTreeMap::new(),
        vchannels: vec![],
        start_positions: BTreeMap::new(),
        partitions: BTreeMap::from([(PartitionId(id * 10), partition("_default", created))]),
        indexes: BTreeMap::new(),
        load: None,
    }
}

fn partition(name: &str, created: u64) -> Partition {
    Partition { name: name.to_owned(), created: Tso(created) }
}

fn catalog(collections: impl IntoIterator<Item = Collection>) -> Catalog {
    let databases = BTreeMap::from([(1, database(1, DEFAULT, 1))]);
    let collections = collections.into_iter().map(|one| (one.id, one)).collect();
    Catalog { databases, collections, ..Catalog::default() }
}

fn whole() -> Option<Load> {
    Some(Load { replicas: 1, partitions: None })
}

fn part(names: &[&str]) -> Option<Load> {
    Some(Load { replicas: 1, partitions: Some(names.iter().map(|name| (*name).to_owned()).collect()) })
}

/// [`difference`] up to `upto`, with these drop times.
fn steps(applied: &Catalog, wanted: &Catalog, upto: u64, drop_times: &DropTimes) -> Result<Vec<(Tso, Ddl)>> {
    named_steps(applied, wanted, upto, drop_times, &Names::default())
}

fn named_steps(
    applied: &Catalog,
    wanted: &Catalog,
    upto: u64,
    drop_times: &DropTimes,
    names: &Names,
) -> Result<Vec<(Tso, Ddl)>> {
    let nothing = (BTreeSet::new(), BTreeSet::new());
    let observed = Observed {
        wanted,
        upto: Tso(upto),
        ignored: &nothing.0,
        other_databases: &nothing.1,
        drop_times,
        names,
    };
    difference(applied, &observed)
}

/// The steps in short: time and what.
fn short(applied: &Catalog, wanted: &Catalog, upto: u64) -> Vec<String> {
    let steps = steps(applied, wanted, upto, &DropTimes::default()).unwrap();
    let set = |load: &Option<Load>| match load {
        None => "nothing".to_owned(),
        Some(Load { replicas, partitions: None }) => format!("all x{replicas}"),
        Some(Load { replicas, partitions: Some(names) }) => {
            format!("{} x{replicas}", names.iter().cloned().collect::<Vec<_>>().join("+"))
        }
    };
    steps
        .iter()
        .map(|(ts, step)| {
            let what = match step {
                Ddl::CreateDatabase(database) => format!("create database {}", database.id),
                Ddl::DropDatabase { id, .. } => format!("drop database {id}"),
                Ddl::CreateCollection(collection) => format!("create {}", collection.id),
                Ddl::DropCollection { id, .. } => format!("drop {id}"),
                Ddl::CreatePartition { partition_id, .. } => format!("create partition {}", partition_id.0),
                Ddl::DropPartition { partition_id, .. } => format!("drop partition {}", partition_id.0),
                Ddl::CreateIndex { index_id, .. } => format!("create index {index_id}"),
                Ddl::DropIndex { index_id, .. } => format!("drop index {index_id}"),
                Ddl::SetLoad { from, to, .. } => format!("load {} instead of {}", set(to), set(from)),
                Ddl::SetProperties { .. } => "set properties".to_owned(),
                other => describe(other),
            };
            format!("{} {what}", ts.0)
        })
        .collect()
}

#[test]
fn a_new_collection_comes_at_its_time_and_what_belongs_to_it_in_workable_order() {
    let mut new = collection(5, name(DEFAULT, "x"), 100, false);
    new.partitions.insert(PartitionId(51), partition("p", 110));
    new.partitions.insert(PartitionId(52), partition("q", 210));
    new.indexes.insert(7, index(1));
    new.load = part(&["p", "q"]);
    let wanted = catalog([new]);
    let applied = catalog([]);
    assert_eq!(short(&applied, &wanted, 99), Vec::<String>::new());
    assert_eq!(
        short(&applied, &wanted, 200),
        ["100 create 5", "110 create partition 51", "200 create index 7", "200 load p x1 instead of nothing"]
    );
    let steps = steps(&applied, &wanted, 200, &DropTimes::default()).unwrap();
    let Ddl::CreateCollection(bare) = &steps[0].1 else { panic!() };
    assert!(bare.partitions.keys().eq([&PartitionId(50)]) && bare.indexes.is_empty() && bare.load.is_none());
}

#[test]
fn partitions_of_a_partition_key_come_with_their_collection() {
    let mut new = collection(5, name(DEFAULT, "x"), 100, true);
    new.partitions.insert(PartitionId(51), partition("_default_1", 101));
    assert_eq!(short(&catalog([]), &catalog([new]), 200), ["100 create 5"]);
}

#[test]
fn a_name_is_given_up_before_it_is_taken() {
    let (old, new) =
        (collection(5, name(DEFAULT, "x"), 100, false), collection(6, name(DEFAULT, "x"), 150, false));
    assert_eq!(short(&catalog([old.clone()]), &catalog([new.clone()]), 200), ["149 drop 5", "150 create 6"]);
    // Known, but too late to be true: a name can't be taken twice.
    let drop_times =
        |ts| DropTimes { collections: BTreeMap::from([(old.id, Tso(ts))]), ..DropTimes::default() };
    let at = |ts, upto| {
        let steps = steps(&catalog([old.clone()]), &catalog([new.clone()]), upto, &drop_times(ts)).unwrap();
        steps.into_iter().map(|(ts, _)| ts.0).collect::<Vec<_>>()
    };
    assert_eq!(at(120, 200), [120, 150]);
    assert_eq!(at(170, 200), [149, 150]);
    assert_eq!(at(120, 130), [120]);
    assert_eq!(at(120, 110), [] as [u64; 0], "its drop is not confirmed yet");
}

#[test]
fn a_database_is_replaced_with_what_is_in_it() {
    let mut applied = catalog([collection(5, name("a", "x"), 100, false)]);
    applied.databases.insert(2, database(2, "a", 90));
    let mut wanted = catalog([collection(6, name("a", "x"), 200, false)]);
    wanted.databases.insert(3, database(3, "a", 190));
    assert_eq!(
        short(&applied, &wanted, 300),
        ["189 drop 5", "189 drop database 2", "190 create database 3", "200 create 6"]
    );
    assert_eq!(short(&applied, &wanted, 150), ["150 drop 5", "150 drop database 2"]);
}

#[test]
fn a_database_comes_before_its_first_collection_whatever_its_clock_says() {
    let mut wanted = catalog([collection(6, name("a", "x"), 200, false)]);
    wanted.databases.insert(3, database(3, "a", 205));
    assert_eq!(short(&catalog([]), &wanted, 203), ["200 create database 3", "200 create 6"]);
}

#[test]
fn what_takes_a_name_on_the_target_comes_after_what_had_it() {
    let names = Names::new([("default.old", "default.x")]);
    let old = collection(5, name(DEFAULT, "old"), 100, false);
    let new = collection(6, name(DEFAULT, "x"), 200, false);
    let nothing = (BTreeSet::new(), BTreeSet::new());
    let times = DropTimes::default();
    let observed = |wanted| Observed {
        wanted,
        upto: Tso(300),
        ignored: &nothing.0,
        other_databases: &nothing.1,
        drop_times: &times,
        names: &names,
    };
    let (applied, wanted) = (catalog([old.clone()]), catalog([new.clone()]));
    let steps = difference(&applied, &observed(&wanted)).unwrap();
    let drop = Ddl::DropCollection { id: old.id, name: old.name.clone() };
    assert_eq!(steps[0], (Tso(199), drop), "although nobody knows when it was dropped");
    assert!(matches!(steps[1], (Tso(200), Ddl::CreateCollection(_))));

    let both = catalog([old, new]);
    let error = difference(&applied, &observed(&both)).unwrap_err();
    assert_eq!(error.kind(), Kind::Conflict);
    assert!(error.message().contains("default.old and default.x"), "{error}");
}

#[test]
fn a_database_that_is_merely_not_selected_stays_and_so_does_the_default_one() {
    let mut applied = catalog([]);
    applied.databases.insert(2, database(2, "a", 90));
    let wanted = Catalog::default();
    let (ignored, others) = (BTreeSet::new(), BTreeSet::from([2]));
    let drop_times = DropTimes::default();
    let observed = Observed {
        wanted: &wanted,
        upto: Tso(300),
        ignored: &ignored,
        other_databases: &others,
        drop_times: &drop_times,
        names: &Names::default(),
    };
    assert_eq!(difference(&applied, &observed).unwrap(), []);
    assert_eq!(short(&applied, &wanted, 300), ["300 drop database 2"]);
}

#[test]
fn a_loaded_partition_is_released_before_it_is_dropped() {
    let mut old = collection(5, name(DEFAULT, "x"), 100, false);
    old.partitions.insert(PartitionId(51), partition("p", 110));
    old.load = whole();
    let mut new = old.clone();
    new.partitions.remove(&PartitionId(51));
    assert_eq!(
        short(&catalog([old.clone()]), &catalog([new.clone()]), 200),
        [
            "200 load _default x1 instead of all x1",
            "200 drop partition 51",
            "200 load all x1 instead of _default x1"
        ]
    );
    // The source has released it, its drop is not confirmed yet: it is not loaded again in between.
    let mut released = old.clone();
    released.load = part(&["_default"]);
    let drop_times =
        DropTimes { partitions: BTreeMap::from([(PartitionId(51), Tso(250))]), ..DropTimes::default() };
    assert_eq!(steps(&catalog([released]), &catalog([new.clone()]), 200, &drop_times).unwrap(), []);
    // It was the only one that was loaded.
    old.load = part(&["p"]);
    new.load = None;
    assert_eq!(
        short(&catalog([old]), &catalog([new]), 200),
        ["200 load nothing instead of p x1", "200 drop partition 51"]
    );
}

#[test]
fn the_load_state_is_told_again_after_a_new_partition_of_a_loaded_collection() {
    let mut old = collection(5, name(DEFAULT, "x"), 100, false);
    old.load = whole();
    let mut new = old.clone();
    new.partitions.insert(PartitionId(51), partition("p", 110));
    assert_eq!(
        short(&catalog([old]), &catalog([new]), 200),
        ["110 create partition 51", "200 load all x1 instead of all x1"]
    );
}

#[test]
fn an_index_is_dropped_and_replicas_change_while_the_collection_is_released() {
    let mut old = collection(5, name(DEFAULT, "x"), 100, false);
    old.indexes.insert(7, index(1));
    old.load = whole();
    let mut new = old.clone();
    new.indexes = BTreeMap::from([(8, index(2))]);
    assert_eq!(
        short(&catalog([old.clone()]), &catalog([new]), 200),
        [
            "200 load nothing instead of all x1",
            "200 drop index 7",
            "200 create index 8",
            "200 load all x1 instead of nothing"
        ]
    );
    let mut new = old.clone();
    new.load = Some(Load { replicas: 2, partitions: None });
    assert_eq!(
        short(&catalog([old]), &catalog([new]), 200),
        ["200 load nothing instead of all x1", "200 load all x2 instead of nothing"]
    );
}

#[test]
fn a_rename_stands_at_its_time_and_what_comes_later_has_the_new_name() {
    let old = collection(5, name(DEFAULT, "x"), 100, false);
    let mut new = collection(5, name(DEFAULT, "y"), 100, false);
    new.partitions.insert(PartitionId(51), partition("early", 150));
    new.partitions.insert(PartitionId(52), partition("late", 250));
    let times = DropTimes { renames: BTreeMap::from([(old.id, Tso(200))]), ..DropTimes::default() };
    let (applied, wanted) = (catalog([old]), catalog([new]));
    let found: Vec<String> = steps(&applied, &wanted, 300, &times)
        .unwrap()
        .iter()
        .map(|(ts, ddl)| format!("{ts:?} {}", describe(ddl)))
        .collect();
    assert_eq!(
        found,
        [
            "Tso(150) create partition early of default.x",
            "Tso(200) rename collection default.x to default.y",
            "Tso(250) create partition late of default.y"
        ]
    );
    assert_eq!(steps(&applied, &wanted, 199, &times).unwrap().len(), 1, "what is not confirmed waits");
}

#[test]
fn two_that_change_names_go_by_way_of_a_third() {
    let (a, b) = (|id, of| collection(id, name(DEFAULT, of), 100, false), |of| name(DEFAULT, of));
    let (applied, wanted) = (catalog([a(5, "x"), a(6, "y")]), catalog([a(5, "y"), a(6, "x")]));
    let times = DropTimes {
        renames: BTreeMap::from([(CollectionId(5), Tso(220)), (CollectionId(6), Tso(210))]),
        ..DropTimes::default()
    };
    let rename = |id, from, to| Ddl::RenameCollection { id: CollectionId(id), name: b(from), to: b(to) };
    let found: Vec<Ddl> =
        steps(&applied, &wanted, 300, &times).unwrap().into_iter().map(|(_, ddl)| ddl).collect();
    assert_eq!(found, [rename(5, "x", "migrans_5"), rename(6, "y", "x"), rename(5, "migrans_5", "y")]);
}

#[test]
fn an_alias_moves_and_goes_before_what_it_stands_for() {
    let of = |id, of| collection(id, name(DEFAULT, of), 100, false);
    let alias = |of, changed| {
        BTreeMap::from([(name(DEFAULT, "a"), Alias { collection: CollectionId(of), changed: Tso(changed) })])
    };
    let mut before = catalog([of(5, "x"), of(6, "y")]);
    assert_eq!(
        short(&before, &Catalog { aliases: alias(5, 150), ..before.clone() }, 300),
        ["150 let the alias default.a stand for default.x"]
    );
    before.aliases = alias(5, 150);
    let after = Catalog { aliases: alias(6, 160), ..catalog([of(6, "y")]) };
    assert_eq!(
        short(&before, &after, 300),
        ["160 let the alias default.a stand for default.y", "300 drop 5"]
    );
    let moved = steps(&before, &after, 300, &DropTimes::default()).unwrap();
    assert!(matches!(&moved[0].1, Ddl::SetAlias { from: Some(from), .. } if *from == name(DEFAULT, "x")));
    assert_eq!(short(&before, &catalog([of(6, "y")]), 300), ["299 drop the alias default.a", "300 drop 5"]);
}

#[test]
fn parameters_that_can_be_altered_are_and_a_database_gets_its_properties() {
    let with = |params: &[(&str, &str)]| {
        let mut made = collection(5, name(DEFAULT, "x"), 100, false);
        let mut index = index(1);
        index.params.extend(params.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())));
        made.indexes.insert(7, index);
        made.load = whole();
        catalog([made])
    };
    assert_eq!(
        short(&with(&[]), &with(&[("mmap.enabled", "true")]), 300),
        [
            "300 load nothing instead of all x1",
            "300 alter index i on default.x.id",
            "300 load all x1 instead of nothing"
        ]
    );
    let back = steps(&with(&[("mmap.enabled", "true")]), &with(&[]), 300, &DropTimes::default()).unwrap();
    assert!(
        back.iter().any(
            |(_, ddl)| matches!(ddl, Ddl::AlterIndex { removed, .. } if removed.contains("mmap.enabled"))
        )
    );

    let (mut applied, mut wanted) = (catalog([]), catalog([]));
    applied.databases.insert(2, database(2, "a", 90));
    let mut altered = database(2, "a", 90);
    altered.properties.insert("database.replica.number".into(), "2".into());
    wanted.databases.insert(2, altered);
    assert_eq!(short(&applied, &wanted, 300), ["300 set properties of database a"]);
}

#[test]
fn what_cannot_be_brought_about_is_refused_by_name() {
    let old = collection(5, name(DEFAULT, "x"), 100, false);
    let refused = |change: &dyn Fn(&mut Collection), words: &str| {
        let mut new = old.clone();
        change(&mut new);
        let error = steps(&catalog([old.clone()]), &catalog([new]), 200, &DropTimes::default()).unwrap_err();
        assert_eq!(error.kind(), Kind::Refused);
        assert!(error.message().contains("default.x") && error.message().contains(words), "{error}");
        assert!(error.hint_text().is_some());
    };
    refused(&|new| new.schema.fields[0].nullable = true, "schema");
    refused(&|new| new.shards = 2, "shards");
    refused(&|new| new.consistency_level = 0, "consistency");

    let (wanted, applied) = (catalog([]), catalog([old.clone()]));
    let (ignored, others, drop_times) = (BTreeSet::from([old.id]), BTreeSet::new(), DropTimes::default());
    let observed = Observed {
        wanted: &wanted,
        upto: Tso(200),
        ignored: &ignored,
        other_databases: &others,
        drop_times: &drop_times,
        names: &Names::default(),
    };
    let error = difference(&applied, &observed).unwrap_err();
    assert_eq!(error.kind(), Kind::Refused);
    assert!(error.message().contains("default.x") && error.message().contains("selected"), "{error}");

    let (mut applied, mut wanted) = (catalog([]), catalog([]));
    applied.databases.insert(2, database(2, "a", 90));
    wanted.databases.insert(2, database(2, "b", 90));
    let error = steps(&applied, &wanted, 200, &DropTimes::default()).unwrap_err();
    assert!(error.message().contains("database a"), "{error}");
}

fn index(variant: u8) -> Index {
    Index {
        name: "i".into(),
        field: "id".into(),
        params: BTreeMap::from([("index_type".to_owned(), variant.to_string())]),
    }
}

/// Catalogs of which any two can follow each other: what an id stands for never changes, the same name is used by
/// several ids, at most one of them at a time.
/// Of what was before 101 or, if it `is_later`, after that: renames are at 101 to 500.
fn any_catalog(is_later: bool) -> impl Strategy<Value = Catalog> {
    // Several ids compete for one name: 10, 11, 12 for default.x, 13, 14 for a.x, in databases that compete too.
    let x = prop_oneof![
        Just(None),
        select(vec![(10, DEFAULT, 100), (11, DEFAULT, 200), (12, DEFAULT, 300)]).prop_map(Some)
    ];
    let z = prop_oneof![Just(None), Just(Some((15, DEFAULT, 150)))];
    let in_a = prop_oneof![
        Just((None, None)),
        Just((Some((2, 120)), None)),
        Just((Some((2, 120)), Some((13, "a", 130)))),
        // Its clock is late.
        Just((Some((3, 245)), None)),
        Just((Some((3, 245)), Some((14, "a", 240)))),
    ];
    // Two that change their names, also with each other, and once with 10, 11 and 12.
    let pair = select(vec![
        ("", ""),
        ("u", ""),
        ("u", "v"),
        ("v", "u"),
        ("w", "u"),
        ("v", "w"),
        ("", "v"),
        ("x", "v"),
    ]);
    // What aliases are called that some collections have at other times, of which of the collections there are.
    let aliases =
        prop::collection::btree_map(select(vec!["u", "v", "x", "alias"]), (0..8usize, 0..300u64), 0..3);
    (x, z, in_a, pair, aliases).prop_flat_map(move |(x, z, (database_a, a), (u, v), aliases)| {
        let x = x.filter(|_| u != "x");
        let collections: Vec<_> = [x, z, a].into_iter().flatten().map(any_collection).collect();
        collections.prop_map(move |mut collections| {
            let named = [(16, u, 50), (17, v, 60)].into_iter().filter(|(_, name, _)| !name.is_empty());
            collections
                .extend(named.map(|(id, new, created)| collection(id, name(DEFAULT, new), created, false)));
            let mut catalog = catalog(collections);
            for (alias, (of, later)) in &aliases {
                let alias = name(DEFAULT, alias);
                let is_taken = catalog.collections.values().any(|collection| collection.name == alias);
                let of = catalog.collections.values().filter(|one| one.name.database == DEFAULT).nth(*of);
                if let Some(of) = of.filter(|_| !is_taken) {
                    // What was a collection's name is free once that has another one.
                    let changed = match (is_later, &*alias.collection) {
                        (false, _) => of.created.0 + later % 40,
                        (true, "alias") => of.created.0.max(101) + later,
                        (true, _) => 501 + later,
                    };
                    let changed = Tso(changed);
                    catalog.aliases.insert(alias, Alias { collection: of.id, changed });
                }
            }
            if let Some((id, created)) = database_a {
                catalog.databases.insert(id, database(id, "a", created));
            }
            catalog
        })
    })
}

fn any_collection((id, database, created): (i64, &'static str, u64)) -> impl Strategy<Value = Collection> {
    let p = prop_oneof![Just(vec![]), Just(vec![(1, "p", created + 10)]), Just(vec![(2, "p", created + 60)])];
    let q = prop_oneof![Just(vec![]), Just(vec![(3, "q", created + 5)])];
    let indexes = subsequence(vec![(1, 1), (2, 2), (2, 3)], 0..=3);
    let load = prop_oneof![
        Just(None),
        (1..3, prop_oneof![Just(None), subsequence(vec!["_default", "p", "q"], 1..3).prop_map(Some)])
            .prop_map(Some),
    ];
    let property = select(vec!["", "ttl", "mmap.enabled"]);
    (p, q, indexes, load, property).prop_map(move |(p, q, indexes, load, property)| {
        let mut made = collection(id, name(database, if id == 15 { "z" } else { "x" }), created, id == 15);
        // Those of a partition key are made with the collection and stay with it.
        let keyed = vec![(1, "p", created + 3), (3, "q", created)];
        for (at, name, created) in if id == 15 { keyed } else { [p, q].concat() } {
            made.partitions.insert(PartitionId(id * 10 + at), partition(name, created));
        }
        made.indexes = indexes.into_iter().map(|(at, variant)| (id * 10 + at, index(variant))).collect();
        if !property.is_empty() {
            made.properties.insert(property.to_owned(), "1".to_owned());
        }
        made.load = load.and_then(|(replicas, partitions): (i32, Option<Vec<&str>>)| {
            let here = |name: &&str| made.partitions.values().any(|partition| partition.name == *name);
            let partitions = partitions
                .map(|names| names.into_iter().filter(here).map(str::to_owned).collect::<BTreeSet<String>>());
            (partitions.as_ref() != Some(&BTreeSet::new())).then_some(Load { replicas, partitions })
        });
        made
    })
}

fn any_drop_times() -> impl Strategy<Value = DropTimes> {
    let ts = || (0..500u64).prop_map(Tso);
    (
        prop::collection::btree_map(select(vec![10, 11, 12, 13, 14, 15]).prop_map(CollectionId), ts(), 0..4),
        prop::collection::btree_map((100..160i64).prop_map(PartitionId), ts(), 0..30),
        // After they were created, and had their aliases.
        prop::collection::btree_map(
            select(vec![16, 17]).prop_map(CollectionId),
            (101..500u64).prop_map(Tso),
            0..3,
        ),
    )
        .prop_map(|(collections, partitions, renames)| DropTimes { collections, partitions, renames })
}

/// Applies `step` as a target of 2.3.5 would, or says why it refuses.
fn apply(target: &mut Catalog, step: &Ddl, names: &Names) -> Result<(), String> {
    let of =
        |target: &Catalog, id: &CollectionId| target.collections.get(id).cloned().ok_or("no such collection");
    let refuse = |refused: bool, why: &str| if refused { Err(why.to_owned()) } else { Ok(()) };
    let is_collection =
        |name: &CollectionName| target.collections.values().any(|one| names.collection(&one.name) == *name);
    let alias_of = |name: &CollectionName| {
        let mut found = target.aliases.iter().map(|(alias, of)| (alias, of.collection));
        found.find(|(alias, of)| names.alias(alias, &target.collections[of].name) == *name)
    };
    let is_taken = |name: &CollectionName| alias_of(name).is_some() || is_collection(name);
    let has_alias = |id: &CollectionId| target.aliases.values().any(|alias| alias.collection == *id);
    if let (Some(id), Some(name)) = (step.collection(), step.collection_name())
        && let Some(collection) = target.collections.get(&id)
    {
        refuse(collection.name != *name, "it has another name by then")?;
    }
    match step {
        Ddl::RenameCollection { id, name, to } => {
            of(target, id)?;
            let (from, to) = (names.collection(name), names.collection(to));
            refuse(is_taken(&to), "the name is taken")?;
            refuse(from.database != to.database && has_alias(id), "it has an alias")?;
        }
        Ddl::SetAlias { alias, id, name, from, .. } => {
            of(target, id)?;
            let alias = names.alias(alias, name);
            let before = alias_of(&alias).map(|(_, before)| before).filter(|before| before != id);
            let before = before.map(|before| of(target, &before)).transpose()?;
            refuse(before.map(|before| before.name) != *from, "it stands for another one")?;
            refuse(is_collection(&alias), "the name is taken")?;
        }
        Ddl::DropAlias { alias, id, .. } => {
            let is_there = target.aliases.get(alias).is_some_and(|there| there.collection == *id);
            refuse(!is_there, "no such alias")?;
        }
        Ddl::SetDatabaseProperties { .. } | Ddl::AlterIndex { .. } | Ddl::Access(_) => {}
        Ddl::CreateDatabase(new) => {
            refuse(target.databases.values().any(|database| database.name == new.name), "database exists")?;
        }
        Ddl::DropDatabase { name, id } => {
            refuse(!target.databases.contains_key(id), "no such database")?;
            let mut collections = target.collections.values();
            refuse(collections.any(|one| one.name.database == *name), "database is not empty")?;
        }
        Ddl::CreateCollection(new) => {
            let mut databases = target.databases.values();
            refuse(!databases.any(|database| database.name == new.name.database), "no such database")?;
            refuse(is_taken(&names.collection(&new.name)), "the name is taken")?;
        }
        Ddl::DropCollection { id, .. } => {
            of(target, id)?;
            refuse(has_alias(id), "it has an alias")?;
        }
        Ddl::CreatePartition { id, partition, .. } => {
            let collection = of(target, id)?;
            refuse(collection.partitions.values().any(|one| one.name == partition.name), "partition exists")?;
        }
        Ddl::DropPartition { id, partition_id, partition, .. } => {
            let collection = of(target, id)?;
            refuse(!collection.partitions.contains_key(partition_id), "no such partition")?;
            let loaded = collection
                .load
                .is_some_and(|load| load.partitions.is_none_or(|names| names.contains(partition)));
            refuse(loaded, "partition is loaded")?;
        }
        Ddl::CreateIndex { id, index_id, .. } => {
            refuse(of(target, id)?.indexes.contains_key(index_id), "index exists")?;
        }
        Ddl::DropIndex { id, index_id, .. } => {
            let collection = of(target, id)?;
            refuse(!collection.indexes.contains_key(index_id), "no such index")?;
            refuse(collection.load.is_some(), "collection is loaded")?;
        }
        Ddl::SetLoad { id, from, to, .. } => {
            let collection = of(target, id)?;
            refuse(collection.load != *from, "something else was loaded")?;
            if let (Some(from), Some(to)) = (from, to) {
                refuse(from.replicas != to.replicas, "the number of replicas can't change while loaded")?;
            }
            if let Some(names) = to.as_ref().and_then(|load| load.partitions.as_ref()) {
                let here = |name: &String| collection.partitions.values().any(|one| one.name == *name);
                refuse(names.is_empty() || !names.iter().all(here), "no such partition to load")?;
            }
        }
        Ddl::SetProperties { id, properties, .. } => {
            let collection = of(target, id)?;
            let mapped = |properties: &BTreeMap<String, String>| properties.contains_key(ONLY_WHILE_RELEASED);
            let remapped = mapped(&collection.properties) != mapped(properties);
            refuse(remapped && collection.load.is_some(), "collection is loaded")?;
        }
    }
    applied_after(target, step);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, rng_seed: RngSeed::Fixed(1), ..ProptestConfig::default() })]

    #[test]
    fn the_steps_lead_there_in_an_order_and_at_times_that_work(
        applied in any_catalog(false),
        wanted in any_catalog(true),
        mut drop_times in any_drop_times(),
        upto in 1..600u64,
        is_elsewhere in any::<bool>(),
    ) {
        // Milvus drops nothing for which an alias stands.
        for (alias, before) in &applied.aliases {
            if let Some(after) = wanted.aliases.get(alias)
                && let Some(dropped) = drop_times.collections.get_mut(&before.collection)
            {
                *dropped = after.changed.succ().max(*dropped);
            }
        }
        // Where one name is in another database, renames go from one to the other.
        let names = Names::new(is_elsewhere.then_some(("default.u", "other.u")));
        let mut target = applied.clone();
        for upto in [upto, u64::MAX] {
            let before = target.clone();
            let steps = named_steps(&target, &wanted, upto, &drop_times, &names).unwrap();
            let mut last = Tso::ZERO;
            for (ts, step) in &steps {
                prop_assert!(*ts >= last && ts.0 <= upto, "{steps:#?}");
                last = *ts;
                let done = apply(&mut target, step, &names);
                prop_assert!(done.is_ok(), "{done:?} at {step:?} of {steps:#?}");
                match step {
                    Ddl::CreateCollection(new) => prop_assert_eq!(*ts, new.created),
                    Ddl::CreatePartition { partition, .. } => prop_assert_eq!(*ts, partition.created),
                    Ddl::DropCollection { id, name } => {
                        if let Some(known) = drop_times.collections.get(id) {
                            prop_assert!(ts <= known);
                        }
                        let new = wanted.collections.values().filter(|new| new.name == *name && new.created.0 <= upto);
                        for new in new.filter(|new| !before.collections.contains_key(&new.id)) {
                            prop_assert!(*ts < new.created);
                        }
                    }
                    Ddl::DropPartition { partition_id, .. } => {
                        if let Some(known) = drop_times.partitions.get(partition_id) {
                            prop_assert!(ts <= known);
                        }
                    }
                    _ => {}
                }
            }
            for (id, collection) in &wanted.collections {
                let there = before.collections.contains_key(id) || collection.created.0 <= upto;
                prop_assert_eq!(target.collections.contains_key(id), there);
                let Some(made) = target.collections.get(id) else { continue };
                prop_assert_eq!(&made.indexes, &collection.indexes);
                prop_assert_eq!(&made.properties, &collection.properties);
                for (id, partition) in &collection.partitions {
                    let there = partition.created.0 <= upto
                        || collection.has_partition_key()
                        || before.collections.get(&made.id).is_some_and(|old| old.partitions.contains_key(id));
                    prop_assert_eq!(made.partitions.contains_key(id), there);
                }
            }
            let more = named_steps(&target, &wanted, upto, &drop_times, &names).unwrap();
            prop_assert_eq!(more, vec![], "not done at once");
        }
        prop_assert_eq!(target, wanted);
    }
}
