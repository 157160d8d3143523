//! Who may do what, from rootcoord's keys.
//!
//! | key below `root-coord/` | value |
//! |---|---|
//! | `credential/users/<user>` | the hash of the password: dropped before it gets here |
//! | `credential/roles/<role>` | nothing |
//! | `credential/user-role-mapping/<user>/<role>` | nothing |
//! | `credential/grantee-privileges/<role>/<object type>/<database>.<object>` | an id |
//! | `credential/grantee-id/<id>/<privilege>` | who granted it |
//! | `privilege-group/<group>` | `PrivilegeGroupInfo` (2.5) |
//!
//! (`internal/metastore/kv/rootcoord/kv_catalog.go`.) There are no snapshots of these: nobody knows when they were written.
//! Privileges have their names in clients behind `Privilege` or, for built-in groups, behind `PrivilegeGroup`; groups that
//! users made have theirs alone (`MetaStore2API`).

use std::collections::BTreeMap;

use super::assemble::decode;
use super::keys::{Key, Meta};
use super::mirror::Mirror;
use crate::error::Result;
use crate::milvus::access::{ANY, Access, BUILT_IN_ROLES, COLLECTION, Grant, ROOT};
use crate::milvus::catalog::CollectionName;
use crate::milvus::proto::milvus::PrivilegeGroupInfo;

/// What grants of times before databases are about.
const DEFAULT_DATABASE: &str = "default";

/// What `mirror` holds of it. Grants on collections that `select` does not take are left out, and so is everything that
/// is about root, admin and public.
///
/// # Errors
/// `Corrupt`, naming the key, for a group that can't be decoded.
pub fn assemble(mirror: &Mirror, meta: &Meta, select: &dyn Fn(&CollectionName) -> bool) -> Result<Access> {
    let mut access = Access::default();
    let mut grantees: Vec<(String, String, String, String)> = Vec::new();
    let mut privileges: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (key, entry) in mirror.from(Key::Access("".into())) {
        let Key::Access(path) = key else { break };
        let parts: Vec<&str> = path.split('/').collect();
        match parts[..] {
            ["credential", "users", user] if user != ROOT => drop(access.users.insert(user.to_owned())),
            ["credential", "roles", role] if !is_built_in(role) => drop(access.roles.insert(role.to_owned())),
            ["credential", "user-role-mapping", user, role] if user != ROOT && !is_built_in(role) => {
                access.bindings.entry(user.to_owned()).or_default().insert(role.to_owned());
            }
            ["credential", "grantee-privileges", role, object, name] if !is_built_in(role) => {
                let id = String::from_utf8_lossy(&entry.value).into_owned();
                grantees.push((role.to_owned(), object.to_owned(), name.to_owned(), id));
            }
            ["credential", "grantee-id", id, privilege] => {
                privileges.entry(id.to_owned()).or_default().push(client_name(privilege));
            }
            ["privilege-group", group] => {
                let info: PrivilegeGroupInfo = decode(meta, key, entry)?;
                let names = info.privileges.into_iter().map(|privilege| client_name(&privilege.name));
                access.groups.insert(group.to_owned(), names.collect());
            }
            _ => {}
        }
    }
    for (role, object, name, id) in grantees {
        let (database, name) = name.split_once('.').unwrap_or((DEFAULT_DATABASE, &name));
        let collection = CollectionName { database: database.to_owned(), collection: name.to_owned() };
        if object == COLLECTION && name != ANY && !select(&collection) {
            continue;
        }
        let of = privileges.get(&id).into_iter().flatten();
        access.grants.extend(of.map(|privilege| Grant {
            role: role.clone(),
            object: object.clone(),
            database: database.to_owned(),
            name: name.to_owned(),
            privilege: privilege.clone(),
        }));
    }
    // What is half written or half taken away is not there.
    let roles = access.roles.clone();
    access.grants.retain(|grant| roles.contains(&grant.role));
    access.bindings.values_mut().for_each(|bound| bound.retain(|role| roles.contains(role)));
    let users = access.users.clone();
    access.bindings.retain(|user, bound| users.contains(user) && !bound.is_empty());
    Ok(access)
}

fn is_built_in(role: &str) -> bool {
    BUILT_IN_ROLES.contains(&role)
}

/// A privilege as a client names it.
fn client_name(stored: &str) -> String {
    let name = stored.strip_prefix("PrivilegeGroup").or_else(|| stored.strip_prefix("Privilege"));
    name.filter(|name| !name.is_empty()).unwrap_or(stored).to_owned()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use prost::Message as _;

    use super::super::mirror::KeyChange;
    use super::*;
    use crate::milvus::proto::milvus::PrivilegeEntity;

    fn access(entries: &[(&str, &[u8])]) -> Access {
        try_access(entries).unwrap()
    }

    fn try_access(entries: &[(&str, &[u8])]) -> Result<Access> {
        let changes = entries.iter().map(|(path, value)| KeyChange {
            key: Key::Access((*path).into()),
            revision: 5,
            value: Some(value.to_vec()),
        });
        let meta = Meta::new("by-dev", "meta").with_access(true);
        assemble(&Mirror::new(9, changes), &meta, &|name| name.collection != "other")
    }

    fn set(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    /// As a 2.3.5 has them in its etcd.
    const ENTRIES: &[(&str, &[u8])] = &[
        ("credential/users/root", b""),
        ("credential/users/ann", b""),
        ("credential/roles/admin", b""),
        ("credential/roles/public", b""),
        ("credential/roles/reader", b""),
        ("credential/user-role-mapping/ann/reader", b""),
        ("credential/user-role-mapping/ann/admin", b""),
        (concat!("credential/user-role-mapping/", "root", "/reader"), b""),
        ("credential/grantee-privileges/public/Global/default.*", b"aa"),
        ("credential/grantee-id/aa/PrivilegeDescribeCollection", b"root"),
        ("credential/grantee-privileges/reader/Collection/default.c", b"bb"),
        ("credential/grantee-id/bb/PrivilegeQuery", b"root"),
        ("credential/grantee-id/bb/PrivilegeSearch", b"root"),
        ("credential/grantee-privileges/reader/Collection/default.other", b"cc"),
        ("credential/grantee-id/cc/PrivilegeQuery", b"root"),
        ("credential/grantee-privileges/reader/Global/shop.*", b"dd"),
        ("credential/grantee-id/dd/*", b"root"),
    ];

    #[test]
    fn what_every_cluster_has_and_what_is_not_selected_is_left_out() {
        let found = access(ENTRIES);
        assert_eq!(found.users, set(&["ann"]));
        assert_eq!(found.roles, set(&["reader"]));
        assert_eq!(found.bindings, BTreeMap::from([("ann".to_owned(), set(&["reader"]))]));
        let grants: Vec<String> = found.grants.iter().map(ToString::to_string).collect();
        assert_eq!(
            grants,
            [
                "Query on Collection default.c to reader",
                "Search on Collection default.c to reader",
                "* on Global shop.* to reader"
            ]
        );
    }

    #[test]
    fn groups_of_2_5_and_what_they_are_called() {
        let privileges =
            ["PrivilegeQuery", "PrivilegeSearch"].map(|name| PrivilegeEntity { name: name.into() }).to_vec();
        let info = PrivilegeGroupInfo { group_name: "readers".into(), privileges };
        let found = access(&[
            ("privilege-group/readers", &info.encode_to_vec()),
            ("credential/roles/r", b""),
            ("credential/grantee-privileges/r/Collection/*.*", b"aa"),
            ("credential/grantee-id/aa/readers", b"root"),
            ("credential/grantee-id/aa/PrivilegeGroupCollectionReadOnly", b"root"),
        ]);
        assert_eq!(found.groups, BTreeMap::from([("readers".to_owned(), set(&["Query", "Search"]))]));
        let grants: Vec<String> = found.grants.iter().map(ToString::to_string).collect();
        assert_eq!(grants, ["CollectionReadOnly on Collection *.* to r", "readers on Collection *.* to r"]);
    }

    #[test]
    fn a_group_that_is_damaged_is_an_error() {
        let error = try_access(&[("privilege-group/readers", b"\xff")]).unwrap_err();
        assert!(error.message().contains("privilege-group/readers"), "{error}");
    }

    #[test]
    fn what_is_half_written_is_not_there() {
        let found = access(&[
            ("credential/user-role-mapping/ann/reader", b""),
            ("credential/grantee-privileges/reader/Collection/default.c", b"bb"),
            ("credential/grantee-id/bb/PrivilegeQuery", b"root"),
        ]);
        assert_eq!(found, Access::default());
    }
}
