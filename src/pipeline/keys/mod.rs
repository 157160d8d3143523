//! Every table and key of a pipeline file: what it means, its shape, its default. The reader takes its defaults and
//! limits from here, and `docs/pipeline.md` is made from it, so the three can't disagree.

pub use self::delivery::*;
pub use self::source::*;
pub use self::tables::*;
pub use self::target::*;
pub use self::tls::TlsKeys;
use self::tls::tls_keys;

mod delivery;
mod source;
mod tables;
mod target;
mod tls;

/// A table of the file.
#[derive(Debug)]
pub struct Table {
    /// Its path, e.g. `source.mq`; the top level is the empty path.
    pub path: &'static str,
    /// The values of `type` in the table around it that it goes with; empty: any.
    pub variants: &'static [&'static str],
    /// Whether a file must have it.
    pub required: bool,
    /// If its keys are the user's own, each with a text: what they are.
    pub free: Option<&'static str>,
    /// What it is for.
    pub meaning: &'static str,
}

/// A key of the file.
#[derive(Debug)]
pub struct Key {
    /// The path of its table.
    pub table: &'static str,
    /// The values of `type` in its table that it goes with; empty: any.
    pub variants: &'static [&'static str],
    /// Its name.
    pub name: &'static str,
    /// What its value looks like.
    pub shape: Shape,
    /// What holds where it is not written.
    pub default: Default,
    /// What it means.
    pub meaning: &'static str,
    /// A value as written in the file.
    pub example: &'static str,
    /// Whether it may be another one in the next run with the same state.
    pub between_runs: BetweenRuns,
}

/// Whether a value may change between two runs that share a state folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BetweenRuns {
    /// Yes: the next run goes on with the new value.
    Free,
    /// No: what the state folder says would not be true any more, and a start is refused. This is why.
    Tied(&'static str),
}

/// What a value looks like. Limits are inclusive; sizes and durations are written as in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Letters, digits, `-` and `_`.
    Name,
    /// Any text but the empty one.
    Text,
    /// A text that is never printed.
    Secret,
    /// A path; a relative one starts at the folder of the pipeline file.
    Path,
    /// `http://host:port` or `https://host:port`.
    Address,
    /// A list of addresses, at least one.
    Addresses,
    /// A list of `host:port`, at least one.
    Hosts,
    /// `pulsar://host:port` or `pulsar+ssl://host:port`.
    PulsarAddress,
    /// Where a pipeline begins.
    Start,
    /// A list of patterns `database.collection`.
    Patterns,
    /// Bytes, with a unit: from, to.
    Size(&'static str, &'static str),
    /// A duration, with a unit: from, to.
    Duration(&'static str, &'static str),
    /// A whole number: from, to.
    Count(u64, u64),
    /// `true` or `false`.
    Flag,
    /// One of these.
    OneOf(&'static [&'static str]),
}

/// What holds where a key is not written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Default {
    /// Nothing: the key must be there.
    Required,
    /// This value, written as in the file, but a text without its quotes.
    Value(&'static str),
    /// What these words say.
    Words(&'static str),
}

impl Key {
    /// The key with the tables around it: `source.mq.path`.
    pub fn path(&self) -> String {
        below(self.table, self.name)
    }
}

/// `name` in the table `table`, which may be the top level.
pub fn below(table: &str, name: &str) -> String {
    if table.is_empty() { name.to_owned() } else { format!("{table}.{name}") }
}

/// Whether the value of `name` in a table whose keys are the user's own may be a secret.
pub fn is_secret_entry(table: &Table, name: &str) -> bool {
    const WORDS: [&str; 7] = ["password", "secret", "token", "pem", "oauthbearer", "credential", "jaas"];
    let name = name.to_ascii_lowercase();
    table.path == SOURCE_MQ_OPTIONS.path && WORDS.iter().any(|word| name.contains(word))
}

impl Table {
    /// The last part of its path: its key in the table around it.
    pub fn name(&self) -> &'static str {
        self.path.rsplit('.').next().unwrap_or_default()
    }

    /// The path of the table around it; `None` for the top level.
    pub fn parent(&self) -> Option<&'static str> {
        match self.path.rsplit_once('.') {
            Some((parent, _)) => Some(parent),
            None if self.path.is_empty() => None,
            None => Some(""),
        }
    }
}

/// All tables, each after the one around it.
pub static TABLES: [&Table; 19] = [
    &TOP,
    &SOURCE,
    &SOURCE_ETCD_TLS,
    &SOURCE_MILVUS,
    &SOURCE_MILVUS_TLS,
    &SOURCE_MQ,
    &SOURCE_MQ_TLS,
    &SOURCE_MQ_OPTIONS,
    &SOURCE_POSITIONS,
    &SELECT,
    &CATALOG,
    &TARGET,
    &TARGET_TLS,
    &TARGET_NAMES,
    &DELIVERY,
    &OWNERSHIP,
    &OWNERSHIP_ETCD_TLS,
    &RESTART,
    &LABELS,
];

/// All keys, by table.
pub static KEYS: [&Key; 66] = [
    &NAME,
    &STATE_DIR,
    &SOURCE_ETCD,
    &SOURCE_ROOT_PATH,
    &SOURCE_META_PATH,
    &SOURCE_ETCD_USERNAME,
    &SOURCE_ETCD_PASSWORD,
    &SOURCE_START,
    &SOURCE_ETCD_TLS_KEYS.ca,
    &SOURCE_ETCD_TLS_KEYS.cert,
    &SOURCE_ETCD_TLS_KEYS.key,
    &SOURCE_ETCD_TLS_KEYS.server_name,
    &SOURCE_MILVUS_URI,
    &SOURCE_MILVUS_TOKEN,
    &SOURCE_MILVUS_TLS_KEYS.ca,
    &SOURCE_MILVUS_TLS_KEYS.cert,
    &SOURCE_MILVUS_TLS_KEYS.key,
    &SOURCE_MILVUS_TLS_KEYS.server_name,
    &SOURCE_MQ_TYPE,
    &SOURCE_MQ_PATH,
    &KAFKA_BROKERS,
    &KAFKA_SECURITY,
    &KAFKA_SASL_MECHANISM,
    &KAFKA_USERNAME,
    &KAFKA_PASSWORD,
    &PULSAR_URI,
    &PULSAR_TENANT,
    &PULSAR_NAMESPACE,
    &PULSAR_TOKEN,
    &PULSAR_SUBSCRIPTION,
    &SOURCE_MQ_TLS_KEYS.ca,
    &SOURCE_MQ_TLS_KEYS.cert,
    &SOURCE_MQ_TLS_KEYS.key,
    &SOURCE_MQ_TLS_KEYS.server_name,
    &SELECT_COLLECTIONS,
    &SELECT_EXCLUDE,
    &CATALOG_RBAC,
    &TARGET_TYPE,
    &TARGET_URI,
    &TARGET_TOKEN,
    &TARGET_MODE,
    &TARGET_ADOPT,
    &TARGET_CONNECT_TIMEOUT,
    &TARGET_TLS_KEYS.ca,
    &TARGET_TLS_KEYS.cert,
    &TARGET_TLS_KEYS.key,
    &TARGET_TLS_KEYS.server_name,
    &DELIVERY_MEMORY,
    &DELIVERY_MAX_LAG,
    &DELIVERY_BATCH,
    &DELIVERY_MAX_CALLS,
    &DELIVERY_CALL_DEADLINE,
    &DELIVERY_CHECKPOINT_INTERVAL,
    &OWNERSHIP_ETCD,
    &OWNERSHIP_ETCD_USERNAME,
    &OWNERSHIP_ETCD_PASSWORD,
    &OWNERSHIP_PREFIX,
    &OWNERSHIP_TTL,
    &OWNERSHIP_SETTLE,
    &OWNERSHIP_ETCD_TLS_KEYS.ca,
    &OWNERSHIP_ETCD_TLS_KEYS.cert,
    &OWNERSHIP_ETCD_TLS_KEYS.key,
    &OWNERSHIP_ETCD_TLS_KEYS.server_name,
    &RESTART_ATTEMPTS,
    &RESTART_PAUSE,
    &RESTART_LONGEST_PAUSE,
];
