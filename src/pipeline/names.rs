//! `[target.names]`: under which names collections stand on the target.
//!
//! Everything up to the sink speaks of collections by their names at the source. [`Names`] is asked where the target is
//! spoken to (`sinks::named`, `verify`), and where names are told to the user.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Select, select};
use crate::error::{Error, Kind};
use crate::milvus::catalog::{Catalog, CollectionName, Ddl};

/// The database that always is.
const DEFAULT_DATABASE: &str = "default";
/// Milvus: `proxy.maxNameLength`.
const LONGEST_NAME: usize = 255;

/// Names at the source, and those on the target where they differ. A collection's own entry wins over its database's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names(Arc<Entries>);

#[derive(Debug, Default, PartialEq, Eq)]
struct Entries {
    databases: BTreeMap<String, String>,
    collections: BTreeMap<CollectionName, CollectionName>,
}

impl Names {
    /// Of a file's entries: `db` to `db2`, `db.collection` to `db2.collection2`.
    pub fn new<'a>(entries: impl IntoIterator<Item = (&'a str, &'a str)>) -> Names {
        let mut found = Entries::default();
        for (from, to) in entries {
            match (parted(from), parted(to)) {
                (Some(from), Some(to)) => drop(found.collections.insert(from, to)),
                _ => drop(found.databases.insert(from.to_owned(), to.to_owned())),
            }
        }
        Names(Arc::new(found))
    }

    /// Whether every name is the same on both sides.
    pub fn is_empty(&self) -> bool {
        self.0.databases.is_empty() && self.0.collections.is_empty()
    }

    /// A database's name on the target.
    pub fn database<'a>(&'a self, name: &'a str) -> &'a str {
        self.0.databases.get(name).map_or(name, String::as_str)
    }

    /// A collection's name on the target.
    pub fn collection(&self, name: &CollectionName) -> CollectionName {
        match self.0.collections.get(name) {
            Some(name) => name.clone(),
            None => CollectionName {
                database: self.database(&name.database).to_owned(),
                collection: name.collection.clone(),
            },
        }
    }

    /// The name on the target of an alias of the collection `of`, both names the source's: it stands in that one's
    /// database, under its own name or that of its own entry.
    pub fn alias(&self, alias: &CollectionName, of: &CollectionName) -> CollectionName {
        let CollectionName { collection, .. } = self.collection(alias);
        CollectionName { database: self.collection(of).database, collection }
    }

    /// The name on the target, if it is another one.
    pub fn other(&self, name: &CollectionName) -> Option<CollectionName> {
        Some(self.collection(name)).filter(|target| target != name)
    }

    /// Puts the names on the target into a step.
    pub fn put_into(&self, ddl: &mut Ddl) {
        ddl.rename(&|name| self.collection(name), &|name| self.database(name).to_owned());
    }

    /// Both names for the user: `shop.orders (archive.orders on the target)`, or the one that there is.
    pub fn both(&self, name: &CollectionName) -> String {
        match self.other(name) {
            Some(target) => format!("{name} ({target} on the target)"),
            None => name.to_string(),
        }
    }

    /// The names at the source that stand for `target`.
    pub fn sources(&self, target: &CollectionName) -> Vec<CollectionName> {
        let named = self.0.collections.keys().cloned();
        let databases =
            self.0.databases.iter().filter(|(_, to)| **to == target.database).map(|(from, _)| from.clone());
        let in_databases = databases
            .chain([target.database.clone()])
            .map(|database| CollectionName { database, collection: target.collection.clone() });
        let mut found: Vec<_> =
            named.chain(in_databases).filter(|name| self.collection(name) == *target).collect();
        found.sort();
        found.dedup();
        found
    }

    /// Whether the target's database that the source's database `name` becomes belongs to others too by another entry, so
    /// that it does not come and go with that one.
    pub fn is_shared(&self, name: &str) -> bool {
        let target = self.database(name);
        let named = |(from, to): (&CollectionName, &CollectionName)| {
            to.database == target && self.database(&from.database) != target
        };
        self.0.databases.iter().any(|(from, to)| to == target && from != name)
            || self.0.collections.iter().any(named)
    }

    /// The error for two names of collections or aliases in `catalog` that would be one on the target.
    pub fn conflict(&self, catalog: &Catalog) -> Option<Error> {
        let collections = catalog.collections.values().map(|of| (&of.name, self.collection(&of.name)));
        let aliases = catalog.aliases.iter().filter_map(|(name, alias)| {
            let of = catalog.collections.get(&alias.collection)?;
            Some((name, self.alias(name, &of.name)))
        });
        self.conflict_of(collections.chain(aliases))
    }

    fn conflict_of<'a>(
        &self,
        names: impl IntoIterator<Item = (&'a CollectionName, CollectionName)>,
    ) -> Option<Error> {
        if self.is_empty() {
            return None;
        }
        let mut taken: BTreeMap<CollectionName, &CollectionName> = BTreeMap::new();
        for (name, target) in names {
            if let Some(other) = taken.insert(target.clone(), name).filter(|other| *other != name) {
                let message =
                    format!("{other} and {name} of the source would both be {target} on the target");
                return Some(Error::new(Kind::Conflict, message).hint(format!(
                    "give one of them another name in [target.names], for example \"{name}\" = \"{target}_2\", or leave \
                     it out in [select]"
                )));
            }
        }
        None
    }

    /// The entries as written, in order.
    pub fn entries(&self) -> Vec<(String, String)> {
        let databases = self.0.databases.iter().map(|(from, to)| (from.clone(), to.clone()));
        let collections = self.0.collections.iter().map(|(from, to)| (from.to_string(), to.to_string()));
        databases.chain(collections).collect()
    }
}

fn parted(name: &str) -> Option<CollectionName> {
    let (database, collection) = name.split_once('.')?;
    Some(CollectionName { database: database.to_owned(), collection: collection.to_owned() })
}

/// What is wrong with the entry `from = to` by itself, and what to write instead.
pub(super) fn objection(from: &str, to: &str) -> Option<(String, String)> {
    let parts = |name: &str| name.split('.').count();
    if parts(from) > 2 || from.split('.').any(str::is_empty) {
        let hint = "write the name of a database, or database.collection; both are the source's".to_owned();
        return Some(("is no name of a database or a collection".to_owned(), hint));
    }
    if from.contains(['*', '?']) {
        let hint = "write one entry for each collection, or one for its whole database".to_owned();
        return Some(("is a pattern".to_owned(), hint));
    }
    if parts(from) != parts(to) {
        let (what, hint) = match parts(from) {
            1 => ("a database", format!("write \"{from}\" = \"another_database\"")),
            _ => ("a collection", format!("write \"{from}\" = \"database.collection\"")),
        };
        return Some((format!("names {what}, and \"{to}\" is none"), hint));
    }
    let wrong = to.split('.').find(|name| !is_name(name))?;
    let hint = format!(
        "Milvus' names have letters, digits and _, no digit first, and at most {LONGEST_NAME} characters"
    );
    Some((format!("can't be \"{to}\": \"{wrong}\" is no name that Milvus takes"), hint))
}

fn is_name(name: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '_';
    name.len() <= LONGEST_NAME
        && name.chars().all(fits)
        && name.chars().next().is_some_and(|first| !first.is_ascii_digit())
}

/// What is wrong with `names` as a whole: with which entry, and what to do.
pub(super) fn objections(names: &Names, selected: &Select) -> Vec<(String, (String, String))> {
    let mut found = Vec::new();
    let mut taken: BTreeMap<&CollectionName, &CollectionName> = BTreeMap::new();
    for (from, to) in &names.0.collections {
        if let Some(other) = taken.insert(to, from) {
            let message = format!("would be \"{to}\", and so would \"{other}\"");
            found.push((from.to_string(), (message, "give each its own name".to_owned())));
        }
        if !selected.matches(from) {
            let hint = "select it, or remove the entry".to_owned();
            found.push((from.to_string(), ("is not selected by [select]".to_owned(), hint)));
        }
    }
    for from in names.0.databases.keys() {
        let may_match = |pattern: &String| select::takes_from(pattern, from);
        let all = format!("{from}.*");
        let is_left_out = selected.exclude.iter().any(|pattern| select::covers(pattern, &all));
        if is_left_out || !selected.collections.iter().any(may_match) {
            let hint = "select something of it, or remove the entry".to_owned();
            found.push((from.clone(), ("is a database of which [select] takes nothing".to_owned(), hint)));
        }
    }
    found
}

/// Whether a database of this name is there by itself, and stays.
pub fn is_permanent(database: &str) -> bool {
    database == DEFAULT_DATABASE
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> CollectionName {
        parted(text).unwrap()
    }

    fn names() -> Names {
        Names::new([("shop", "archive"), ("shop.orders", "default.old_orders"), ("db", "archive")])
    }

    #[test]
    fn a_collections_own_entry_wins_over_its_databases() {
        let names = names();
        assert_eq!(names.collection(&name("shop.orders")), name("default.old_orders"));
        assert_eq!(names.collection(&name("shop.items")), name("archive.items"));
        assert_eq!(names.collection(&name("other.items")), name("other.items"));
        assert_eq!(names.both(&name("shop.items")), "shop.items (archive.items on the target)");
        assert_eq!(names.both(&name("other.items")), "other.items");
    }

    #[test]
    fn an_alias_stands_in_the_database_of_its_collection() {
        let names =
            Names::new([("shop", "archive"), ("shop.orders", "default.old"), ("shop.a", "archive.b")]);
        assert_eq!(names.alias(&name("shop.now"), &name("shop.items")), name("archive.now"));
        assert_eq!(names.alias(&name("shop.now"), &name("shop.orders")), name("default.now"));
        assert_eq!(names.alias(&name("shop.a"), &name("shop.orders")), name("default.b"));
    }

    #[test]
    fn names_of_the_target_lead_back() {
        let names = names();
        assert_eq!(
            names.sources(&name("default.old_orders")),
            [name("default.old_orders"), name("shop.orders")]
        );
        assert_eq!(names.sources(&name("archive.orders")), [name("archive.orders"), name("db.orders")]);
        assert_eq!(
            names.sources(&name("archive.items")),
            [name("archive.items"), name("db.items"), name("shop.items")]
        );
        assert_eq!(names.sources(&name("shop.items")), [], "nothing of the source comes to stand there");
    }

    #[test]
    fn two_of_one_name_are_told_by_both() {
        let names = names();
        let conflict = |of: [&str; 3]| {
            let of = of.map(name);
            names.conflict_of(of.iter().map(|name| (name, names.collection(name))))
        };
        assert!(conflict(["shop.orders", "db.orders", "shop.items"]).is_none());
        let error = conflict(["shop.items", "x.y", "db.items"]).unwrap();
        assert_eq!(error.kind(), Kind::Conflict);
        assert_eq!(
            error.message(),
            "shop.items and db.items of the source would both be archive.items on the target"
        );
    }

    #[test]
    fn a_database_that_others_are_in_too_is_shared() {
        let names = names();
        assert!(names.is_shared("shop"), "db becomes archive too, and so would a database archive");
        assert!(names.is_shared("default"), "shop.orders comes to stand in it");
        assert!(!names.is_shared("other"));
        let moved = Names::new([("a", "b"), ("b", "c"), ("c", "a")]);
        assert!(!["a", "b", "c"].iter().any(|name| moved.is_shared(name)));
        assert!(Names::new([("a", "b")]).is_shared("b"), "a comes to stand in it");
    }
}
