//! Who may do what in a cluster: roles, their privileges, and the users that have them. Passwords are no part of it: the
//! catalog holds only hashes of them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

use super::catalog::CollectionName;

/// The user and the roles that every cluster has by itself, and that nobody else may set up.
pub const ROOT: &str = "root";
/// See [`ROOT`].
pub const BUILT_IN_ROLES: [&str; 2] = ["admin", "public"];
/// Stands for every object, and for every database.
pub const ANY: &str = "*";
/// The type of objects whose names are those of collections.
pub const COLLECTION: &str = "Collection";

/// Who may do what, without what every cluster has by itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Access {
    /// Users.
    pub users: BTreeSet<String>,
    /// Roles.
    pub roles: BTreeSet<String>,
    /// Which roles a user has.
    pub bindings: BTreeMap<String, BTreeSet<String>>,
    /// What roles may do.
    pub grants: BTreeSet<Grant>,
    /// Groups of privileges (2.5) that somebody has made.
    pub groups: BTreeMap<String, BTreeSet<String>>,
}

/// A role may do something with some object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Grant {
    /// The role.
    pub role: String,
    /// The type of the object: `Collection`, `Global`, `User`.
    pub object: String,
    /// The database; `*`: all.
    pub database: String,
    /// The object's name; `*`: all.
    pub name: String,
    /// The privilege, or the group of privileges, as a client names it.
    pub privilege: String,
}

impl fmt::Display for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Grant { role, object, database, name, privilege } = self;
        write!(f, "{privilege} on {object} {database}.{name} to {role}")
    }
}

/// One step of bringing the target's access control in line with the source's. Every step is safe to repeat.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AccessStep {
    /// See whether these users, all that the source has, are there.
    ExpectUsers(BTreeSet<String>),
    /// Create a role.
    CreateRole(String),
    /// Drop a role, of which nothing is left.
    DropRole(String),
    /// Give a user a role.
    Bind(String, String),
    /// Take a role from a user.
    Unbind(String, String),
    /// Grant.
    Grant(Grant),
    /// Revoke.
    Revoke(Grant),
    /// Create a group of privileges.
    CreateGroup(String),
    /// Drop one.
    DropGroup(String),
    /// Change a group: what comes to it, and what goes.
    ChangeGroup(String, BTreeSet<String>, BTreeSet<String>),
}

impl AccessStep {
    /// Puts other names of collections and databases in the place of those that it has.
    pub(super) fn rename(
        &mut self,
        collection: &dyn Fn(&CollectionName) -> CollectionName,
        database: &dyn Fn(&str) -> String,
    ) {
        let (AccessStep::Grant(grant) | AccessStep::Revoke(grant)) = self else { return };
        if grant.database == ANY {
            return;
        }
        if grant.object == COLLECTION && grant.name != ANY {
            let name = CollectionName { database: grant.database.clone(), collection: grant.name.clone() };
            let CollectionName { database, collection } = collection(&name);
            (grant.database, grant.name) = (database, collection);
        } else {
            grant.database = database(&grant.database);
        }
    }
}

impl fmt::Display for AccessStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AccessStep::ExpectUsers(users) => write!(f, "look for {} user(s)", users.len()),
            AccessStep::CreateRole(role) => write!(f, "create role {role}"),
            AccessStep::DropRole(role) => write!(f, "drop role {role}"),
            AccessStep::Bind(user, role) => write!(f, "give user {user} the role {role}"),
            AccessStep::Unbind(user, role) => write!(f, "take the role {role} from user {user}"),
            AccessStep::Grant(grant) => write!(f, "grant {grant}"),
            AccessStep::Revoke(grant) => write!(f, "revoke {grant}"),
            AccessStep::CreateGroup(group) => write!(f, "create privilege group {group}"),
            AccessStep::DropGroup(group) => write!(f, "drop privilege group {group}"),
            AccessStep::ChangeGroup(group, ..) => write!(f, "change privilege group {group}"),
        }
    }
}

impl Access {
    /// The steps from this to `wanted`, in an order in which each can be done.
    pub fn steps_to(&self, wanted: &Access) -> Vec<AccessStep> {
        let mut steps = Vec::new();
        if self.users != wanted.users {
            steps.push(AccessStep::ExpectUsers(wanted.users.clone()));
        }
        for group in wanted.groups.keys().filter(|group| !self.groups.contains_key(*group)) {
            steps.push(AccessStep::CreateGroup(group.clone()));
        }
        let none = BTreeSet::new();
        for (group, privileges) in &wanted.groups {
            let before = self.groups.get(group).unwrap_or(&none);
            if before != privileges {
                let (new, old) = (privileges - before, before - privileges);
                steps.push(AccessStep::ChangeGroup(group.clone(), new, old));
            }
        }
        for role in &wanted.roles - &self.roles {
            steps.push(AccessStep::CreateRole(role));
        }
        steps.extend((&self.grants - &wanted.grants).into_iter().map(AccessStep::Revoke));
        steps.extend((&wanted.grants - &self.grants).into_iter().map(AccessStep::Grant));
        let pairs = |access: &Access| {
            let pairs = access.bindings.iter();
            let pairs = pairs.flat_map(|(user, roles)| roles.iter().map(|role| (user.clone(), role.clone())));
            pairs.collect::<BTreeSet<_>>()
        };
        let (mut before, after) = (pairs(self), pairs(wanted));
        steps.extend((&before - &after).into_iter().map(|(user, role)| AccessStep::Unbind(user, role)));
        // Of a user that has not been looked for, it is not known whether it could be given a role.
        before.retain(|(user, _)| self.users.contains(user));
        steps.extend((&after - &before).into_iter().map(|(user, role)| AccessStep::Bind(user, role)));
        for role in &self.roles - &wanted.roles {
            steps.push(AccessStep::DropRole(role));
        }
        for group in self.groups.keys().filter(|group| !wanted.groups.contains_key(*group)) {
            steps.push(AccessStep::DropGroup(group.clone()));
        }
        steps
    }

    /// Makes it what it is after `step`.
    pub fn apply(&mut self, step: &AccessStep) {
        match step {
            AccessStep::ExpectUsers(users) => self.users.clone_from(users),
            AccessStep::CreateRole(role) => drop(self.roles.insert(role.clone())),
            AccessStep::DropRole(role) => drop(self.roles.remove(role)),
            AccessStep::Bind(user, role) => {
                self.bindings.entry(user.clone()).or_default().insert(role.clone());
            }
            AccessStep::Unbind(user, role) => {
                if let Some(roles) = self.bindings.get_mut(user) {
                    roles.remove(role);
                }
                self.bindings.retain(|_, roles| !roles.is_empty());
            }
            AccessStep::Grant(grant) => drop(self.grants.insert(grant.clone())),
            AccessStep::Revoke(grant) => drop(self.grants.remove(grant)),
            AccessStep::CreateGroup(group) => drop(self.groups.entry(group.clone()).or_default()),
            AccessStep::DropGroup(group) => drop(self.groups.remove(group)),
            AccessStep::ChangeGroup(group, new, old) => {
                let privileges = self.groups.entry(group.clone()).or_default();
                privileges.extend(new.iter().cloned());
                privileges.retain(|privilege| !old.contains(privilege));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn set(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    fn grant(role: &str, name: &str) -> Grant {
        Grant {
            role: role.into(),
            object: COLLECTION.into(),
            database: "default".into(),
            name: name.into(),
            privilege: "Query".into(),
        }
    }

    #[test]
    fn a_role_goes_after_what_it_has_and_comes_before_it() {
        let with = Access {
            users: set(&["u"]),
            roles: set(&["r"]),
            bindings: BTreeMap::from([("u".to_owned(), set(&["r"]))]),
            grants: BTreeSet::from([grant("r", "c")]),
            groups: BTreeMap::from([("g".to_owned(), set(&["Query"]))]),
        };
        let words = |steps: Vec<AccessStep>| steps.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(
            words(Access::default().steps_to(&with)),
            [
                "look for 1 user(s)",
                "create privilege group g",
                "change privilege group g",
                "create role r",
                "grant Query on Collection default.c to r",
                "give user u the role r"
            ]
        );
        assert_eq!(
            words(with.steps_to(&Access::default())),
            [
                "look for 0 user(s)",
                "revoke Query on Collection default.c to r",
                "take the role r from user u",
                "drop role r",
                "drop privilege group g"
            ]
        );
    }

    fn some() -> impl Strategy<Value = Access> {
        let name = || prop::sample::select(vec!["a", "b", "c"]).prop_map(str::to_owned);
        let names = move || prop::collection::btree_set(name(), 0..3);
        let grants = prop::collection::btree_set((name(), name()), 0..4);
        let maps = move || prop::collection::btree_map(name(), names(), 0..3);
        (names(), names(), maps(), grants, maps()).prop_map(|(users, roles, mut bindings, grants, groups)| {
            bindings.retain(|_, roles| !roles.is_empty());
            let grants = grants.iter().map(|(role, name)| grant(role, name)).collect();
            Access { users, roles, bindings, grants, groups }
        })
    }

    proptest! {
        #[test]
        fn the_steps_lead_there(before in some(), after in some()) {
            let mut access = before.clone();
            for step in before.steps_to(&after) {
                access.apply(&step);
            }
            prop_assert_eq!(access, after);
        }
    }
}
