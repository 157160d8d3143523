//! Keys of `[delivery]`, `[ownership]` and `[restart]`.

use super::{BetweenRuns, Default, Key, Shape, TlsKeys, tls_keys};

/// `memory` in `[delivery]`
pub static DELIVERY_MEMORY: Key = Key {
    table: "delivery",
    variants: &[],
    name: "memory",
    shape: Shape::Size("16MiB", "1TiB"),
    default: Default::Value("256MiB"),
    meaning: "The budget for changes in flight: read from the queue, but not yet durable on the target. Reading \
              pauses when it is used up. The process takes this and a constant. With Kafka and Pulsar, a quarter of it is for \
              what their clients have read ahead. At least twice `batch`.",
    example: "\"1GiB\"",
    between_runs: BetweenRuns::Free,
};
/// `max_lag` in `[delivery]`
pub static DELIVERY_MAX_LAG: Key = Key {
    table: "delivery",
    variants: &[],
    name: "max_lag",
    shape: Shape::Duration("0ms", "10m"),
    default: Default::Value("200ms"),
    meaning: "How long changes may be held back to make batches fuller. Smaller is fresher, larger is more \
              throughput per call.",
    example: "\"1s\"",
    between_runs: BetweenRuns::Free,
};
/// `batch` in `[delivery]`
pub static DELIVERY_BATCH: Key = Key {
    table: "delivery",
    variants: &[],
    name: "batch",
    shape: Shape::Size("64KiB", "48MiB"),
    default: Default::Value("8MiB"),
    meaning: "The size that batches are cut at. (A Milvus proxy takes no call above 64 MiB.)",
    example: "\"16MiB\"",
    between_runs: BetweenRuns::Free,
};
/// `max_calls` in `[delivery]`
pub static DELIVERY_MAX_CALLS: Key = Key {
    table: "delivery",
    variants: &[],
    name: "max_calls",
    shape: Shape::Count(1, 256),
    default: Default::Value("4"),
    meaning: "The most calls to the target that are in flight at a time. The pipeline uses fewer when the target \
              gets slower by more.",
    example: "8",
    between_runs: BetweenRuns::Free,
};
/// `call_deadline` in `[delivery]`
pub static DELIVERY_CALL_DEADLINE: Key = Key {
    table: "delivery",
    variants: &[],
    name: "call_deadline",
    shape: Shape::Duration("1s", "10m"),
    default: Default::Value("10s"),
    meaning: "How long one call may take. It is also how long a start after a crash waits, at most, until no call \
              from before the crash can still take effect. With `[ownership]`, its `ttl` and `settle` limit both.",
    example: "\"30s\"",
    between_runs: BetweenRuns::Free,
};
/// `checkpoint_interval` in `[delivery]`
pub static DELIVERY_CHECKPOINT_INTERVAL: Key = Key {
    table: "delivery",
    variants: &[],
    name: "checkpoint_interval",
    shape: Shape::Duration("10ms", "1m"),
    default: Default::Value("500ms"),
    meaning: "How often progress is made durable while changes flow. After a crash, what was applied since then is \
              applied again, with the same outcome.",
    example: "\"2s\"",
    between_runs: BetweenRuns::Free,
};

/// `etcd` in `[ownership]`
pub static OWNERSHIP_ETCD: Key = Key {
    table: "ownership",
    variants: &[],
    name: "etcd",
    shape: Shape::Addresses,
    default: Default::Required,
    meaning: "The addresses of the etcd (3.4 or later) that decides, with `http://` or `https://` in front. It may be the \
              source's own: nothing below Milvus' prefix is touched. All processes of the pipeline name the same one.",
    example: "[\"http://etcd-1:2379\", \"http://etcd-2:2379\", \"http://etcd-3:2379\"]",
    between_runs: BetweenRuns::Free,
};
/// `etcd_username` in `[ownership]`
pub static OWNERSHIP_ETCD_USERNAME: Key = Key {
    table: "ownership",
    variants: &[],
    name: "etcd_username",
    shape: Shape::Text,
    default: Default::Words("no authentication"),
    meaning: "The user for that etcd. It needs to read and write below `prefix`, nothing else. Goes with `etcd_password`.",
    example: "\"migrans\"",
    between_runs: BetweenRuns::Free,
};
/// `etcd_password` in `[ownership]`
pub static OWNERSHIP_ETCD_PASSWORD: Key = Key {
    table: "ownership",
    variants: &[],
    name: "etcd_password",
    shape: Shape::Secret,
    default: Default::Words("no authentication"),
    meaning: "That user's password. Take it from the environment rather than writing it into the file.",
    example: "\"${ETCD_PASSWORD}\"",
    between_runs: BetweenRuns::Free,
};
/// `prefix` in `[ownership]`
pub static OWNERSHIP_PREFIX: Key = Key {
    table: "ownership",
    variants: &[],
    name: "prefix",
    shape: Shape::Text,
    default: Default::Value("/migrans/"),
    meaning: "The prefix of all keys there; the pipeline's name follows. Two pipelines with the same name need different ones. \
              Below another one there is no checkpoint yet, and a state folder that was a copy of one is refused.",
    example: "\"/teams/search/migrans/\"",
    between_runs: BetweenRuns::Free,
};
/// `ttl` in `[ownership]`
pub static OWNERSHIP_TTL: Key = Key {
    table: "ownership",
    variants: &[],
    name: "ttl",
    shape: Shape::Duration("2s", "5m"),
    default: Default::Value("3s"),
    meaning: "How long an owner may be silent before its ownership ends, in whole seconds. A shorter outage of the etcd is not \
              noticed; in a longer one the owner stops sending before another can begin. An etcd with a long election \
              timeout makes it at least one and a half times that.",
    example: "\"10s\"",
    between_runs: BetweenRuns::Free,
};
/// `settle` in `[ownership]`
pub static OWNERSHIP_SETTLE: Key = Key {
    table: "ownership",
    variants: &[],
    name: "settle",
    shape: Shape::Duration("1s", "10m"),
    default: Default::Value("4s"),
    meaning: "How long a new owner waits, after one that did not stop cleanly, until no call of that one can still take effect. \
              From the death of an owner until the next one writes it takes at most `ttl`, a second, and this. No call is given \
              more time than `ttl` and half of this, whatever `call_deadline` says.",
    example: "\"10s\"",
    between_runs: BetweenRuns::Free,
};
/// The keys of `[ownership.etcd_tls]`
pub static OWNERSHIP_ETCD_TLS_KEYS: TlsKeys = tls_keys("ownership.etcd_tls", &[]);

/// `attempts` in `[restart]`
pub static RESTART_ATTEMPTS: Key = Key {
    table: "restart",
    variants: &[],
    name: "attempts",
    shape: Shape::Count(0, 1_000_000),
    default: Default::Words("as the server's file says for `migrans serve`; `0` for any other run"),
    meaning: "How often it is started again after failures in a row; `0`: never. A run that lasted longer than `longest_pause` \
              ends the row. What a start can't mend, as a wrong pipeline file, ends it at once.",
    example: "100",
    between_runs: BetweenRuns::Free,
};
/// `pause` in `[restart]`
pub static RESTART_PAUSE: Key = Key {
    table: "restart",
    variants: &[],
    name: "pause",
    shape: Shape::Duration("10ms", "1h"),
    default: Default::Value("1s"),
    meaning: "The pause before the first of these starts. Each further one is twice as long.",
    example: "\"5s\"",
    between_runs: BetweenRuns::Free,
};
/// `longest_pause` in `[restart]`
pub static RESTART_LONGEST_PAUSE: Key = Key {
    table: "restart",
    variants: &[],
    name: "longest_pause",
    shape: Shape::Duration("10ms", "1d"),
    default: Default::Value("1m"),
    meaning: "No pause is longer than this.",
    example: "\"5m\"",
    between_runs: BetweenRuns::Free,
};
