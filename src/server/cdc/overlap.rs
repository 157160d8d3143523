//! Which collections a task takes while others go to the same target. A collection belongs to one task of a target: one
//! that an earlier task takes already is a duplicate, and a task for `*` leaves out what earlier tasks name.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::request::Create;
use super::response::Refusal;

/// `database.collection`, each a name or `*`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub(super) struct Name {
    pub database: String,
    pub collection: String,
}

impl Name {
    /// Both parts.
    pub fn new(database: &str, collection: &str) -> Name {
        Name { database: database.to_owned(), collection: collection.to_owned() }
    }

    fn has_star(&self) -> bool {
        self.database == "*" || self.collection == "*"
    }

    /// Whether everything that `other` takes is taken by this one.
    pub fn covers(&self, other: &Name) -> bool {
        let covers = |ours: &str, theirs: &str| ours == "*" || ours == theirs;
        covers(&self.database, &other.database) && covers(&self.collection, &other.collection)
    }

    /// Whether there may be a collection that both take.
    fn meets(&self, other: &Name) -> bool {
        let meets = |ours: &str, theirs: &str| ours == "*" || theirs == "*" || ours == theirs;
        meets(&self.database, &other.database) && meets(&self.collection, &other.collection)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.database, self.collection)
    }
}

impl From<Name> for String {
    fn from(name: Name) -> String {
        name.to_string()
    }
}

impl TryFrom<String> for Name {
    type Error = String;

    fn try_from(text: String) -> Result<Name, String> {
        let (database, collection) =
            text.split_once('.').ok_or_else(|| format!("{text:?} is no database.collection"))?;
        Ok(Name::new(database, collection))
    }
}

/// What another task of the same target takes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Taken {
    /// What it takes.
    pub names: Vec<Name>,
    /// What it leaves out of that.
    pub excluded: Vec<Name>,
    /// Whether it copies users and roles.
    pub user_roles: bool,
}

/// What a request takes.
pub(super) fn names(request: &Create) -> Vec<Name> {
    let default = request.collection_infos.iter().map(|info| Name::new("default", &info.name));
    let others = request
        .db_collections
        .iter()
        .flatten()
        .flat_map(|(database, infos)| infos.iter().map(|info| Name::new(database, &info.name)));
    let mut names: Vec<Name> = default.chain(others).collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// What `request` has to leave out because other tasks of its target take it.
///
/// # Errors
/// In milvus-cdc's words, if such a task takes what is asked for, or copies users and roles already, or if a name mapping is
/// about other collections.
pub(super) fn exclusions(request: &Create, taken: &[Taken]) -> Result<Vec<Name>, Refusal> {
    if request.enable_user_role && taken.iter().any(|task| task.user_roles) {
        return Err(Refusal::client("the enable user role param is duplicate"));
    }
    let wanted = names(request);
    let others = || taken.iter().flat_map(|task| &task.names);
    let left_out = |name: &Name| taken.iter().any(|task| task.excluded.contains(name));
    let all = Name::new("*", "*");
    let duplicate = |name: &&Name| {
        others().any(|other| {
            other == *name || **name != all && other.has_star() && other.covers(name) && !left_out(name)
        })
    };
    let duplicates: Vec<String> = wanted.iter().filter(duplicate).map(Name::to_string).collect();
    if !duplicates.is_empty() {
        return Err(duplicate_with(&duplicates));
    }
    let mapped = request.name_mapping.iter().flat_map(|mapping| {
        let whole = mapping.collection_mapping.is_empty().then(|| Name::new(&mapping.source_db, "*"));
        let single = mapping.collection_mapping.keys().map(|name| Name::new(&mapping.source_db, name));
        single.chain(whole)
    });
    for name in mapped {
        if !wanted.iter().any(|wanted| wanted.covers(&name)) {
            return Err(Refusal::client(
                "the collection name in the name mapping is not in the collection info, checkout it",
            ));
        }
    }
    // Also where two stars only cross (`a.*` and `*.b`): milvus-cdc would copy what is in both twice.
    let crossing =
        |other: &&Name| wanted.iter().any(|name| name.has_star() && name.meets(other) && !other.covers(name));
    let mut excluded: Vec<Name> = others().filter(crossing).cloned().collect();
    excluded.sort_unstable();
    excluded.dedup();
    // What is excluded is so for the whole task: one that wants both needs to be two.
    match wanted.iter().find(|name| excluded.iter().any(|other| other.covers(name))) {
        Some(name) => Err(duplicate_with(&[name.to_string()])),
        None => Ok(excluded),
    }
}

fn duplicate_with(names: &[String]) -> Refusal {
    let names = names.join(" ");
    Refusal::client(format!("the collection name is duplicate with existing task, [{names}]"))
}
