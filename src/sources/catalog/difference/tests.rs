//! Steps are tried out on a small model of a Milvus target that refuses what the real one refuses.

use super::*;
use crate::milvus::catalog::{Field, Index, Schema};
use crate::ops::apply::describe;

mod random;

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

fn index(variant: u8) -> Index {
    Index {
        name: "i".into(),
        field: "id".into(),
        params: BTreeMap::from([("index_type".to_owned(), variant.to_string())]),
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
