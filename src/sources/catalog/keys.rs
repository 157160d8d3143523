//! Which of Milvus' metadata keys in etcd matter here, and what each of them is about.
//!
//! Everything lies below `<root_path>/<meta_path>/`. The keys are those of Milvus 2.3 to 2.5
//! (`internal/metastore/kv/rootcoord`, `.../indexcoord`, `.../querycoord`); 2.3.5 was looked at.

use std::sync::Arc;

use crate::error::{Error, Kind, Result};
use crate::milvus::catalog::{CollectionId, PartitionId};

/// The database that collections are in unless they say otherwise.
pub const DEFAULT_DATABASE: i64 = 1;

/// How many ranges of keys there are.
pub const RANGES: usize = 8;

/// What a key is about. The order keeps what belongs to one collection together.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    /// A `DatabaseInfo`, by the database's id.
    Database(i64),
    /// A `CollectionInfo` by its database's id. `None`: under the key of times before databases, which is in the
    /// default one.
    Collection(CollectionId, Option<i64>),
    /// A `PartitionInfo`.
    Partition(CollectionId, PartitionId),
    /// A `FieldSchema`, by the field's id.
    Field(CollectionId, i64),
    /// A `FieldIndex`, by the index' id.
    Index(CollectionId, i64),
    /// A `CollectionLoadInfo`.
    CollectionLoad(CollectionId),
    /// A `PartitionLoadInfo`.
    PartitionLoad(CollectionId, PartitionId),
    /// A `Replica`, by its id.
    Replica(CollectionId, i64),
    /// An `AliasInfo` by its database's id, `None` as for collections.
    Alias(Option<i64>, Arc<str>),
    /// Something about who may do what: what stands behind `root-coord/`.
    Access(Arc<str>),
}

impl Key {
    /// Whether the value is none of our business: it holds the hash of a password.
    pub fn is_secret(&self) -> bool {
        matches!(self, Key::Access(path) if path.starts_with("credential/users/"))
    }
}

/// Keys from `start`, inclusive, to `end`, exclusive. They are listed and watched as one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Range {
    /// Collections as written before there were databases.
    LegacyCollections,
    /// Databases, collections, fields and partitions: they stand side by side, so that one watch brings them in the
    /// order in which they were written. Aliases stand among them, and from 2.5 on functions.
    Collections,
    /// Indexes.
    Indexes,
    /// What is loaded, of collections and of partitions, again side by side.
    Loads,
    /// Aliases as written before there were databases.
    LegacyAliases,
    /// In which resource groups loaded collections are.
    Replicas,
    /// Users, roles, and what they may do.
    Credentials,
    /// Groups of privileges (2.5).
    PrivilegeGroups,
}

impl Range {
    /// All of them; a range's place here is its `as usize`.
    const ALL: [Range; RANGES] = [
        Range::LegacyCollections,
        Range::Collections,
        Range::Indexes,
        Range::Loads,
        Range::LegacyAliases,
        Range::Replicas,
        Range::Credentials,
        Range::PrivilegeGroups,
    ];
    /// So many of them are about who may do what; they are the last.
    const ACCESS: usize = 2;

    /// The first key and the one after the last, below `<root_path>/<meta_path>/`. A `0` follows a `/`.
    fn bounds(self) -> (&'static str, &'static str) {
        match self {
            Range::LegacyCollections => ("root-coord/collection/", "root-coord/collection0"),
            Range::Collections => ("root-coord/database/", "root-coord/partitions0"),
            Range::Indexes => ("field-index/", "field-index0"),
            Range::Loads => ("querycoord-collection-loadinfo/", "querycoord-partition-loadinfo0"),
            Range::LegacyAliases => ("root-coord/aliases/", "root-coord/aliases0"),
            Range::Replicas => ("querycoord-replica/", "querycoord-replica0"),
            Range::Credentials => ("root-coord/credential/", "root-coord/credential0"),
            Range::PrivilegeGroups => ("root-coord/privilege-group/", "root-coord/privilege-group0"),
        }
    }

    /// Its place in [`Range::ALL`].
    pub fn index(self) -> usize {
        self as usize
    }
}

static ALL_RANGES: [Range; RANGES] = Range::ALL;

/// Where a cluster's metadata lies in etcd.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Meta {
    prefix: String,
    root: String,
    access: bool,
}

impl Meta {
    /// By Milvus' `etcd.rootPath` and `etcd.metaSubPath`.
    pub fn new(root_path: &str, meta_path: &str) -> Meta {
        let parts = [root_path, meta_path].map(|part| part.trim_matches('/'));
        let mut prefix = String::new();
        for part in parts.into_iter().filter(|part| !part.is_empty()) {
            prefix.push_str(part);
            prefix.push('/');
        }
        let root = match parts[0] {
            "" => String::new(),
            root => format!("{root}/"),
        };
        Meta { prefix, root, access: false }
    }

    /// The same, where who may do what is of interest too.
    pub fn with_access(self, access: bool) -> Meta {
        Meta { access, ..self }
    }

    /// Whether who may do what is of interest.
    pub fn has_access(&self) -> bool {
        self.access
    }

    /// The ranges that are of interest.
    pub fn ranges(&self) -> &'static [Range] {
        let without = if self.access { 0 } else { Range::ACCESS };
        &ALL_RANGES[..RANGES - without]
    }

    /// What all keys begin with, a slash at its end.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The first key of `range` and the one after its last.
    pub fn bounds(&self, range: Range) -> (String, String) {
        let (start, end) = range.bounds();
        (self.join(start), self.join(end))
    }

    /// The range that `key` lies in.
    pub fn range_of(&self, key: &[u8]) -> Option<Range> {
        let rest = key.strip_prefix(self.prefix.as_bytes())?;
        self.ranges().iter().copied().find(|range| {
            let (start, end) = range.bounds();
            start.as_bytes() <= rest && rest < end.as_bytes()
        })
    }

    /// The two places where something new shows first: collections, and partitions.
    pub fn newcomers(&self) -> [String; 2] {
        [self.join("root-coord/database/collection-info/"), self.join("root-coord/partitions/")]
    }

    /// Where servers say that they are there, and which version they are.
    pub fn sessions(&self) -> String {
        self.join("session/")
    }

    /// Up to which time timestamps are reserved. (It is below Milvus' `etcd.kvSubPath`, which is `kv` unless configured.)
    pub fn reserved(&self) -> String {
        format!("{}kv/gid/timestamp", self.root)
    }

    /// Where the earlier values of `key` are kept: this, followed by the decimal timestamp of the change.
    pub fn history(&self, key: &Key) -> String {
        format!("{}snapshots/{}_ts", self.prefix, path(key))
    }

    /// The key in full.
    pub fn path(&self, key: &Key) -> String {
        self.join(&path(key))
    }

    /// What `key` is about; `None` if that does not matter here.
    ///
    /// # Errors
    /// `Corrupt` if it stands where ids are expected and has none.
    pub fn parse(&self, key: &[u8]) -> Result<Option<Key>> {
        let strange = || {
            let text = String::from_utf8_lossy(key);
            Error::new(Kind::Corrupt, format!("the key {text:?} in the source's etcd has an unknown form"))
                .hint("is this the metadata of a Milvus 2.3 to 2.5?")
        };
        let Some(rest) = key.strip_prefix(self.prefix.as_bytes()) else { return Ok(None) };
        let Ok(rest) = std::str::from_utf8(rest) else { return Err(strange()) };
        let ids = |rest: &str| rest.split('/').map(|id| id.parse().ok()).collect::<Option<Vec<i64>>>();
        type Make = fn(&[i64]) -> Option<Key>;
        const PLACES: [(&str, Make); 9] = [
            ("root-coord/database/db-info/", |ids| match ids {
                [id] => Some(Key::Database(*id)),
                _ => None,
            }),
            ("root-coord/database/collection-info/", |ids| match ids {
                [database, id] => Some(Key::Collection(CollectionId(*id), Some(*database))),
                _ => None,
            }),
            ("root-coord/partitions/", |ids| match ids {
                [collection, id] => Some(Key::Partition(CollectionId(*collection), PartitionId(*id))),
                _ => None,
            }),
            ("root-coord/fields/", |ids| match ids {
                [collection, id] => Some(Key::Field(CollectionId(*collection), *id)),
                _ => None,
            }),
            ("root-coord/collection/", |ids| match ids {
                [id] => Some(Key::Collection(CollectionId(*id), None)),
                _ => None,
            }),
            ("field-index/", |ids| match ids {
                [collection, id] => Some(Key::Index(CollectionId(*collection), *id)),
                _ => None,
            }),
            ("querycoord-collection-loadinfo/", |ids| match ids {
                [collection] => Some(Key::CollectionLoad(CollectionId(*collection))),
                _ => None,
            }),
            ("querycoord-replica/", |ids| match ids {
                [collection, id] => Some(Key::Replica(CollectionId(*collection), *id)),
                _ => None,
            }),
            ("querycoord-partition-loadinfo/", |ids| match ids {
                [collection, id] => Some(Key::PartitionLoad(CollectionId(*collection), PartitionId(*id))),
                _ => None,
            }),
        ];
        for (place, make) in PLACES {
            if let Some(rest) = rest.strip_prefix(place) {
                let key = ids(rest).and_then(|ids| make(&ids)).ok_or_else(strange)?;
                return Ok(Some(key));
            }
        }
        if let Some(alias) = rest.strip_prefix("root-coord/database/aliases/") {
            let (database, alias) = alias.split_once('/').ok_or_else(strange)?;
            return Ok(Some(Key::Alias(Some(database.parse().map_err(|_| strange())?), alias.into())));
        }
        if let Some(alias) = rest.strip_prefix("root-coord/aliases/") {
            return Ok(Some(Key::Alias(None, alias.into())));
        }
        let access = rest.strip_prefix("root-coord/").filter(|_| self.access);
        let is_access =
            |rest: &str| ["credential/", "privilege-group/"].iter().any(|of| rest.starts_with(of));
        Ok(access.filter(|rest| is_access(rest)).map(|rest| Key::Access(rest.into())))
    }

    fn join(&self, path: &str) -> String {
        format!("{}{path}", self.prefix)
    }
}

fn path(key: &Key) -> String {
    match key {
        Key::Database(id) => format!("root-coord/database/db-info/{id}"),
        Key::Collection(id, Some(database)) => format!("root-coord/database/collection-info/{database}/{id}"),
        Key::Collection(id, None) => format!("root-coord/collection/{id}"),
        Key::Partition(collection, id) => format!("root-coord/partitions/{collection}/{}", id.0),
        Key::Field(collection, id) => format!("root-coord/fields/{collection}/{id}"),
        Key::Index(collection, id) => format!("field-index/{collection}/{id}"),
        Key::CollectionLoad(collection) => format!("querycoord-collection-loadinfo/{collection}"),
        Key::PartitionLoad(collection, id) => format!("querycoord-partition-loadinfo/{collection}/{}", id.0),
        Key::Replica(collection, id) => format!("querycoord-replica/{collection}/{id}"),
        Key::Alias(Some(database), alias) => format!("root-coord/database/aliases/{database}/{alias}"),
        Key::Alias(None, alias) => format!("root-coord/aliases/{alias}"),
        Key::Access(path) => format!("root-coord/{path}"),
    }
}

/// The key after all keys that begin with `prefix`.
pub fn after(prefix: &str) -> Vec<u8> {
    let mut end = prefix.as_bytes().to_vec();
    while let Some(last) = end.pop() {
        if let Some(next) = last.checked_add(1) {
            end.push(next);
            return end;
        }
    }
    vec![0] // etcd's word for: no end
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys() -> [(Key, Range, &'static str); 13] {
        [
            (Key::Database(1), Range::Collections, "by-dev/meta/root-coord/database/db-info/1"),
            (
                Key::Collection(CollectionId(7), Some(3)),
                Range::Collections,
                "by-dev/meta/root-coord/database/collection-info/3/7",
            ),
            (
                Key::Collection(CollectionId(7), None),
                Range::LegacyCollections,
                "by-dev/meta/root-coord/collection/7",
            ),
            (
                Key::Partition(CollectionId(7), PartitionId(8)),
                Range::Collections,
                "by-dev/meta/root-coord/partitions/7/8",
            ),
            (Key::Field(CollectionId(7), 100), Range::Collections, "by-dev/meta/root-coord/fields/7/100"),
            (Key::Index(CollectionId(7), 9), Range::Indexes, "by-dev/meta/field-index/7/9"),
            (
                Key::CollectionLoad(CollectionId(7)),
                Range::Loads,
                "by-dev/meta/querycoord-collection-loadinfo/7",
            ),
            (
                Key::PartitionLoad(CollectionId(7), PartitionId(8)),
                Range::Loads,
                "by-dev/meta/querycoord-partition-loadinfo/7/8",
            ),
            (Key::Replica(CollectionId(7), 9), Range::Replicas, "by-dev/meta/querycoord-replica/7/9"),
            (
                Key::Alias(Some(1), "a".into()),
                Range::Collections,
                "by-dev/meta/root-coord/database/aliases/1/a",
            ),
            (Key::Alias(None, "a".into()), Range::LegacyAliases, "by-dev/meta/root-coord/aliases/a"),
            (
                Key::Access("credential/roles/r".into()),
                Range::Credentials,
                "by-dev/meta/root-coord/credential/roles/r",
            ),
            (
                Key::Access("privilege-group/g".into()),
                Range::PrivilegeGroups,
                "by-dev/meta/root-coord/privilege-group/g",
            ),
        ]
    }

    #[test]
    fn every_key_is_understood_and_lies_in_the_range_that_is_watched_for_it() {
        let meta = Meta::new("by-dev", "meta").with_access(true);
        for (key, range, text) in keys() {
            assert_eq!(meta.path(&key), text);
            assert_eq!(meta.parse(text.as_bytes()).unwrap(), Some(key));
            assert_eq!(meta.range_of(text.as_bytes()), Some(range));
            let (start, end) = meta.bounds(range);
            assert!(start.as_str() <= text && text < end.as_str(), "{text}");
        }
    }

    #[test]
    fn what_is_big_or_secret_is_not_watched() {
        let meta = Meta::new("by-dev", "meta");
        for other in [
            "root-coord/credential/users/root",
            "root-coord/privilege-group/g",
            "root-coord/collection-alias/a",
            "datacoord-meta/s/1/2/3",
            "snapshots/root-coord/database/db-info/1_ts5",
            "segment-index/1/2/3/4",
            "queryCoord-Collection-Target/1",
            "session/rootcoord",
        ] {
            let text = format!("by-dev/meta/{other}");
            assert_eq!(meta.parse(text.as_bytes()).unwrap(), None, "{text}");
            assert_eq!(meta.range_of(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn a_key_without_ids_where_ids_belong_is_corrupt() {
        let meta = Meta::new("by-dev", "meta");
        for bad in
            ["root-coord/fields/7", "root-coord/fields/7/x", "root-coord/partitions/7/8/9", "field-index/"]
        {
            let error = meta.parse(format!("by-dev/meta/{bad}").as_bytes()).unwrap_err();
            assert_eq!(error.kind(), Kind::Corrupt);
            assert!(error.message().contains(bad), "{error}");
        }
        assert_eq!(meta.parse(b"another/meta/root-coord/fields/x").unwrap(), None);
    }

    #[test]
    fn slashes_around_the_paths_do_not_matter() {
        assert_eq!(Meta::new("/a/b/", "meta").prefix(), "a/b/meta/");
        assert_eq!(Meta::new("a", "").prefix(), "a/");
    }

    #[test]
    fn after_is_the_end_of_a_prefix() {
        assert_eq!(after("a/"), b"a0");
        assert_eq!(after(""), [0]);
    }
}
