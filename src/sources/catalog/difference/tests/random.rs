//! From any catalog to any other: each step works where it stands, and they lead there.

use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use proptest::test_runner::RngSeed;

use super::*;

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
