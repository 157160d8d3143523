//! Keys of `[select]`, `[catalog]` and `[target]`.

use super::{BetweenRuns, Default, Key, Shape, TlsKeys, tls_keys};

/// `collections` in `[select]`
pub static SELECT_COLLECTIONS: Key = Key {
    table: "select",
    variants: &[],
    name: "collections",
    shape: Shape::Patterns,
    default: Default::Required,
    meaning: "What to take: at least one pattern.",
    example: "[\"default.orders\", \"shop.*\"]",
    between_runs: BetweenRuns::Tied(
        "a collection that is taken in later would lack its earlier rows, and one that is left out would be dropped",
    ),
};
/// `exclude` in `[select]`
pub static SELECT_EXCLUDE: Key = Key {
    table: "select",
    variants: &[],
    name: "exclude",
    shape: Shape::Patterns,
    default: Default::Words("nothing is left out"),
    meaning: "What to leave out of that. It wins over `collections`.",
    example: "[\"shop.tmp_*\"]",
    between_runs: BetweenRuns::Tied(
        "a collection that is taken in later would lack its earlier rows, and one that is left out would be dropped",
    ),
};
/// `rbac` in `[catalog]`
pub static CATALOG_RBAC: Key = Key {
    table: "catalog",
    variants: &[],
    name: "rbac",
    shape: Shape::Flag,
    default: Default::Value("false"),
    meaning: "Whether roles, grants, privilege groups and the roles of users follow too. The token in `[target]` has to be one \
              of a user that may do that. Users themselves are not created, since the source has only hashes of their passwords: \
              those that are missing are told. `root`, `admin` and `public` are left alone.",
    example: "true",
    between_runs: BetweenRuns::Free,
};
/// `type` in `[target]`
pub static TARGET_TYPE: Key = Key {
    table: "target",
    variants: &[],
    name: "type",
    shape: Shape::OneOf(&["milvus", "null"]),
    default: Default::Required,
    meaning: "Its kind. `milvus`: a Milvus, see `mode`. `null`: takes everything and keeps nothing, to measure the \
              source's side alone.",
    example: "\"milvus\"",
    between_runs: BetweenRuns::Tied("another target does not hold what was applied to this one"),
};
/// `uri` in `[target]` of Milvus
pub static TARGET_URI: Key = Key {
    table: "target",
    variants: &["milvus"],
    name: "uri",
    shape: Shape::Address,
    default: Default::Required,
    meaning: "The address of its proxy.",
    example: "\"http://127.0.0.1:19530\"",
    between_runs: BetweenRuns::Tied("another target does not hold what was applied to this one"),
};
/// `token` in `[target]` of Milvus
pub static TARGET_TOKEN: Key = Key {
    table: "target",
    variants: &["milvus"],
    name: "token",
    shape: Shape::Secret,
    default: Default::Words("no authentication"),
    meaning: "`user:password` or an API key. Take it from the environment rather than writing it into the file.",
    example: "\"${TARGET_TOKEN}\"",
    between_runs: BetweenRuns::Free,
};
/// `mode` in `[target]` of Milvus
pub static TARGET_MODE: Key = Key {
    table: "target",
    variants: &["milvus"],
    name: "mode",
    shape: Shape::OneOf(&["write", "replicate"]),
    default: Default::Value("write"),
    meaning: "How it is written. `write`: by Insert, Upsert and Delete, as any client does; others may write to it too. \
              `replicate`: the source's messages go into the target's own log by ReplicateMessage, with their timestamps, \
              row ids and generated keys. The target is then a standby: it needs `common.ttMsgEnabled: false` in its \
              milvus.yaml, takes no writes from anybody else, and gets its time from this pipeline, which must be the only \
              one. Each frontier is recorded at once, whatever `checkpoint_interval` says. `docs/failover.md` tells how to \
              switch over.",
    example: "\"replicate\"",
    between_runs: BetweenRuns::Tied("what was sent as rows can't be sent again as messages"),
};
/// `adopt` in `[target]` of Milvus
pub static TARGET_ADOPT: Key = Key {
    table: "target",
    variants: &["milvus"],
    name: "adopt",
    shape: Shape::Flag,
    default: Default::Value("false"),
    meaning: "Whether collections that are already on the target, and that this pipeline did not create, may be \
              written to if their schema matches. Without it they are a conflict, reported before anything is \
              written. With `mode = \"replicate\"` it needs a `start` that is `latest` or a time, since messages that the \
              target has already would be there twice.",
    example: "true",
    between_runs: BetweenRuns::Free,
};
/// `connect_timeout` in `[target]` of Milvus
pub static TARGET_CONNECT_TIMEOUT: Key = Key {
    table: "target",
    variants: &["milvus"],
    name: "connect_timeout",
    shape: Shape::Duration("100ms", "5m"),
    default: Default::Value("10s"),
    meaning: "How long connecting may take.",
    example: "\"30s\"",
    between_runs: BetweenRuns::Free,
};
/// The keys of `[target.tls]`
pub static TARGET_TLS_KEYS: TlsKeys = tls_keys("target.tls", &["milvus"]);
