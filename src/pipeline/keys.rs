//! Every table and key of a pipeline file: what it means, its shape, its default. The reader takes its defaults and
//! limits from here, and `docs/pipeline.md` is made from it, so the three can't disagree.

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

/// The top level.
pub static TOP: Table =
    Table { path: "", variants: &[], required: true, free: None, meaning: "The pipeline as a whole." };
/// `[source]`
pub static SOURCE: Table = Table {
    path: "source",
    variants: &[],
    required: true,
    free: None,
    meaning: "The Milvus cluster that is followed. Its catalog is read from its etcd, its rows from its message \
              queue; nothing is written to either.",
};
/// `[source.etcd_tls]`
pub static SOURCE_ETCD_TLS: Table = Table {
    path: "source.etcd_tls",
    variants: &[],
    required: false,
    free: None,
    meaning: "TLS for the connection to etcd, beyond what `https://` in its addresses does by itself.",
};
/// `[source.milvus]`
pub static SOURCE_MILVUS: Table = Table {
    path: "source.milvus",
    variants: &[],
    required: false,
    free: None,
    meaning: "How `migrans verify` reads the source's rows: through its proxy, as any client does. Nothing else uses this.",
};
/// `[source.milvus.tls]`
pub static SOURCE_MILVUS_TLS: Table = Table {
    path: "source.milvus.tls",
    variants: &[],
    required: false,
    free: None,
    meaning: "TLS for the connection to the source's proxy, beyond what `https://` in its address does by itself.",
};
/// `[source.mq]`
pub static SOURCE_MQ: Table = Table {
    path: "source.mq",
    variants: &[],
    required: true,
    free: None,
    meaning: "The message queue of the source.",
};
/// `[source.mq.tls]`
pub static SOURCE_MQ_TLS: Table = Table {
    path: "source.mq.tls",
    variants: &["kafka", "pulsar"],
    required: false,
    free: None,
    meaning: "TLS for the connections to the brokers.",
};
/// `[source.mq.options]`
pub static SOURCE_MQ_OPTIONS: Table = Table {
    path: "source.mq.options",
    variants: &["kafka"],
    required: false,
    free: Some(
        "any property of librdkafka that a consumer has, as a text: `\"socket.keepalive.enable\" = \"true\"`",
    ),
    meaning: "Further properties of the Kafka client, passed through as they are. Those that decide what is read and \
              from where are set by the pipeline and refused here.",
};
/// `[source.positions]`
pub static SOURCE_POSITIONS: Table = Table {
    path: "source.positions",
    variants: &[],
    required: false,
    free: Some(
        "the name of a vchannel: its position, in the base64 form of Milvus' `MsgPosition` that milvus-cdc and \
         milvus-backup hand out",
    ),
    meaning: "Where single vchannels are begun, in place of what `start` says. Of such a vchannel everything later than \
              the time in its position is taken, and nothing earlier. They must stay between runs, since what lies before them is not on the target.",
};
/// `[select]`
pub static SELECT: Table = Table {
    path: "select",
    variants: &[],
    required: true,
    free: None,
    meaning: "Which collections the pipeline takes. A pattern is `database.collection`; in either part `*` stands \
              for any run of characters and `?` for any single one, neither reaches over the dot, and case matters. \
              Collections that appear later are taken as well if they match.",
};
/// `[catalog]`
pub static CATALOG: Table = Table {
    path: "catalog",
    variants: &[],
    required: false,
    free: None,
    meaning: "What is carried over beside collections, their aliases, indexes, properties and load states. `docs/catalog.md` \
              lists all of it.",
};
/// `[target]`
pub static TARGET: Table =
    Table { path: "target", variants: &[], required: true, free: None, meaning: "Where the changes go." };
/// `[target.tls]`
pub static TARGET_TLS: Table = Table {
    path: "target.tls",
    variants: &["milvus"],
    required: false,
    free: None,
    meaning: "TLS for the connection to the target, beyond what `https://` in its address does by itself.",
};
/// `[target.names]`
pub static TARGET_NAMES: Table = Table {
    path: "target.names",
    variants: &["milvus"],
    required: false,
    free: Some(
        "names at the source, `database` or `database.collection`: the name on the target, of the same form",
    ),
    meaning: "Under which names things stand on the target, where these are not the source's: `\"shop\" = \"archive\"` for a \
              whole database, `\"shop.orders\" = \"archive.old_orders\"` for one collection, which wins. A database that is \
              not there is created. Aliases and grants follow. Two collections that would have one name are refused. They must stay \
              between runs, since everything stands under these names; `docs/catalog.md` has the rules.",
};
/// `[delivery]`
pub static DELIVERY: Table = Table {
    path: "delivery",
    variants: &[],
    required: false,
    free: None,
    meaning: "How much, how fast, how fresh. The defaults suit most pipelines.",
};

/// `[ownership]`
pub static OWNERSHIP: Table = Table {
    path: "ownership",
    variants: &[],
    required: false,
    free: None,
    meaning: "For a pipeline that is started on several hosts, of which one runs and the others stand by: which of them owns \
              the pipeline is decided in an etcd, and the checkpoint is kept there too. Without this table, the lock on \
              `state_dir` decides alone. `docs/ownership.md` has the rules.",
};
/// `[ownership.etcd_tls]`
pub static OWNERSHIP_ETCD_TLS: Table = Table {
    path: "ownership.etcd_tls",
    variants: &[],
    required: false,
    free: None,
    meaning: "TLS for the connection to this etcd, beyond what `https://` in its addresses does by itself.",
};

/// `[restart]`
pub static RESTART: Table = Table {
    path: "restart",
    variants: &[],
    required: false,
    free: None,
    meaning: "Whether a pipeline that has failed is started again. What is waited for anyhow, such as a target that does \
              not answer, is no failure.",
};
/// `[labels]`
pub static LABELS: Table = Table {
    path: "labels",
    variants: &[],
    required: false,
    free: Some("any name: any text, such as `team = \"search\"`"),
    meaning: "What the user wants to find again with the pipeline. `migrans serve` shows them.",
};

/// `name`
pub static NAME: Key = Key {
    table: "",
    variants: &[],
    name: "name",
    shape: Shape::Name,
    default: Default::Required,
    meaning: "The pipeline's name, in logs and in the default of `state_dir`.",
    example: "\"orders-standby\"",
    between_runs: BetweenRuns::Tied("the state folder belongs to the pipeline of that name"),
};
/// `state_dir`
pub static STATE_DIR: Key = Key {
    table: "",
    variants: &[],
    name: "state_dir",
    shape: Shape::Path,
    default: Default::Words(
        "`$XDG_STATE_HOME/migrans/<name>`, or `~/.local/state/migrans/<name>` without that variable",
    ),
    meaning: "The folder of the checkpoint: what was applied, and where reading goes on. One process at a time may \
              own it. Without it the pipeline starts over. With `[ownership]` it is a copy of what is in etcd.",
    example: "\"/var/lib/migrans/orders-standby\"",
    between_runs: BetweenRuns::Free,
};
/// `etcd` in `[source]`
pub static SOURCE_ETCD: Key = Key {
    table: "source",
    variants: &[],
    name: "etcd",
    shape: Shape::Addresses,
    default: Default::Required,
    meaning: "The addresses of the source's etcd (Milvus: `etcd.endpoints`), with `http://` or `https://` in front.",
    example: "[\"http://127.0.0.1:2379\"]",
    between_runs: BetweenRuns::Free,
};
/// `root_path` in `[source]`
pub static SOURCE_ROOT_PATH: Key = Key {
    table: "source",
    variants: &[],
    name: "root_path",
    shape: Shape::Text,
    default: Default::Value("by-dev"),
    meaning: "The prefix of the source's keys in etcd (Milvus: `etcd.rootPath`).",
    example: "\"by-dev\"",
    between_runs: BetweenRuns::Tied("below another path is another cluster"),
};
/// `meta_path` in `[source]`
pub static SOURCE_META_PATH: Key = Key {
    table: "source",
    variants: &[],
    name: "meta_path",
    shape: Shape::Text,
    default: Default::Value("meta"),
    meaning: "The prefix of the catalog below `root_path` (Milvus: `etcd.metaSubPath`).",
    example: "\"meta\"",
    between_runs: BetweenRuns::Tied("below another path is another cluster"),
};
/// `etcd_username` in `[source]`
pub static SOURCE_ETCD_USERNAME: Key = Key {
    table: "source",
    variants: &[],
    name: "etcd_username",
    shape: Shape::Text,
    default: Default::Words("no authentication"),
    meaning: "The user for etcd. It needs to read below `root_path`, nothing else. Goes with `etcd_password`.",
    example: "\"reader\"",
    between_runs: BetweenRuns::Free,
};
/// `etcd_password` in `[source]`
pub static SOURCE_ETCD_PASSWORD: Key = Key {
    table: "source",
    variants: &[],
    name: "etcd_password",
    shape: Shape::Secret,
    default: Default::Words("no authentication"),
    meaning: "That user's password. Take it from the environment rather than writing it into the file.",
    example: "\"${ETCD_PASSWORD}\"",
    between_runs: BetweenRuns::Free,
};
/// The keys of `[source.etcd_tls]`
pub static SOURCE_ETCD_TLS_KEYS: TlsKeys = tls_keys("source.etcd_tls", &[]);
/// `uri` in `[source.milvus]`
pub static SOURCE_MILVUS_URI: Key = Key {
    table: "source.milvus",
    variants: &[],
    name: "uri",
    shape: Shape::Address,
    default: Default::Words("the host of a proxy that is in etcd, port 19530"),
    meaning: "The address of its proxy. Proxies tell etcd their host, but not the port for clients.",
    example: "\"http://127.0.0.1:19530\"",
    between_runs: BetweenRuns::Free,
};
/// `token` in `[source.milvus]`
pub static SOURCE_MILVUS_TOKEN: Key = Key {
    table: "source.milvus",
    variants: &[],
    name: "token",
    shape: Shape::Secret,
    default: Default::Words("no authentication"),
    meaning: "`user:password` or an API key. It needs to describe and query the collections, nothing else.",
    example: "\"${SOURCE_TOKEN}\"",
    between_runs: BetweenRuns::Free,
};
/// The keys of `[source.milvus.tls]`
pub static SOURCE_MILVUS_TLS_KEYS: TlsKeys = tls_keys("source.milvus.tls", &[]);
/// `type` in `[source.mq]`
pub static SOURCE_MQ_TYPE: Key = Key {
    table: "source.mq",
    variants: &[],
    name: "type",
    shape: Shape::OneOf(&["rocksmq", "kafka", "pulsar"]),
    default: Default::Required,
    meaning: "Its kind (Milvus: `mq.type`). `rocksmq`: the queue that is embedded in a standalone Milvus.",
    example: "\"rocksmq\"",
    between_runs: BetweenRuns::Tied("positions are in the words of the queue"),
};
/// `path` in `[source.mq]` of RocksMQ
pub static SOURCE_MQ_PATH: Key = Key {
    table: "source.mq",
    variants: &["rocksmq"],
    name: "path",
    shape: Shape::Path,
    default: Default::Required,
    meaning: "The folder of the queue (Milvus: `rocksmq.path`), on this machine. It is only read; Milvus may run \
              beside it.",
    example: "\"/var/lib/milvus/rdb_data\"",
    between_runs: BetweenRuns::Free,
};
/// `brokers` in `[source.mq]` of Kafka
pub static KAFKA_BROKERS: Key = Key {
    table: "source.mq",
    variants: &["kafka"],
    name: "brokers",
    shape: Shape::Hosts,
    default: Default::Required,
    meaning: "Brokers to begin with (Milvus: `kafka.brokerList`); the others are learnt from them. Topics are only \
              read: there is no consumer group, and nothing is committed.",
    example: "[\"kafka-1:9092\", \"kafka-2:9092\"]",
    between_runs: BetweenRuns::Free,
};
/// `security` in `[source.mq]` of Kafka
pub static KAFKA_SECURITY: Key = Key {
    table: "source.mq",
    variants: &["kafka"],
    name: "security",
    shape: Shape::OneOf(&["plaintext", "ssl", "sasl_plaintext", "sasl_ssl"]),
    default: Default::Value("plaintext"),
    meaning: "How the brokers are spoken to (Milvus: `kafka.securityProtocol`).",
    example: "\"sasl_ssl\"",
    between_runs: BetweenRuns::Free,
};
/// `sasl_mechanism` in `[source.mq]` of Kafka
pub static KAFKA_SASL_MECHANISM: Key = Key {
    table: "source.mq",
    variants: &["kafka"],
    name: "sasl_mechanism",
    shape: Shape::OneOf(&["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"]),
    default: Default::Value("PLAIN"),
    meaning: "How `username` and `password` are shown (Milvus: `kafka.saslMechanisms`).",
    example: "\"SCRAM-SHA-512\"",
    between_runs: BetweenRuns::Free,
};
/// `username` in `[source.mq]` of Kafka
pub static KAFKA_USERNAME: Key = Key {
    table: "source.mq",
    variants: &["kafka"],
    name: "username",
    shape: Shape::Text,
    default: Default::Words("no authentication"),
    meaning: "The user for SASL. It needs to read and describe the topics, nothing else. Goes with `password`.",
    example: "\"reader\"",
    between_runs: BetweenRuns::Free,
};
/// `password` in `[source.mq]` of Kafka
pub static KAFKA_PASSWORD: Key = Key {
    table: "source.mq",
    variants: &["kafka"],
    name: "password",
    shape: Shape::Secret,
    default: Default::Words("no authentication"),
    meaning: "That user's password. Take it from the environment rather than writing it into the file.",
    example: "\"${KAFKA_PASSWORD}\"",
    between_runs: BetweenRuns::Free,
};
/// `uri` in `[source.mq]` of Pulsar
pub static PULSAR_URI: Key = Key {
    table: "source.mq",
    variants: &["pulsar"],
    name: "uri",
    shape: Shape::PulsarAddress,
    default: Default::Required,
    meaning: "The address of a broker or of the proxy (Milvus: `pulsar.address` and `pulsar.port`).",
    example: "\"pulsar://127.0.0.1:6650\"",
    between_runs: BetweenRuns::Free,
};
/// `tenant` in `[source.mq]` of Pulsar
pub static PULSAR_TENANT: Key = Key {
    table: "source.mq",
    variants: &["pulsar"],
    name: "tenant",
    shape: Shape::Text,
    default: Default::Value("public"),
    meaning: "The tenant of the topics (Milvus: `pulsar.tenant`).",
    example: "\"milvus\"",
    between_runs: BetweenRuns::Tied("other topics are another log"),
};
/// `namespace` in `[source.mq]` of Pulsar
pub static PULSAR_NAMESPACE: Key = Key {
    table: "source.mq",
    variants: &["pulsar"],
    name: "namespace",
    shape: Shape::Text,
    default: Default::Value("default"),
    meaning: "The namespace of the topics (Milvus: `pulsar.namespace`).",
    example: "\"production\"",
    between_runs: BetweenRuns::Tied("other topics are another log"),
};
/// `token` in `[source.mq]` of Pulsar
pub static PULSAR_TOKEN: Key = Key {
    table: "source.mq",
    variants: &["pulsar"],
    name: "token",
    shape: Shape::Secret,
    default: Default::Words("no authentication"),
    meaning: "A token (JWT) for the brokers. Take it from the environment rather than writing it into the file.",
    example: "\"${PULSAR_TOKEN}\"",
    between_runs: BetweenRuns::Free,
};
/// `subscription` in `[source.mq]` of Pulsar
pub static PULSAR_SUBSCRIPTION: Key = Key {
    table: "source.mq",
    variants: &["pulsar"],
    name: "subscription",
    shape: Shape::Flag,
    default: Default::Value("false"),
    meaning: "Whether to keep a durable subscription `migrans-<name>` on each topic that is read, so that the brokers \
              keep what is not yet on the target, however long the pipeline is away. It moves with what is durable. \
              `migrans remove` takes it away with the pipeline; a pipeline that is just forgotten leaves the brokers \
              keeping everything.",
    example: "true",
    between_runs: BetweenRuns::Free,
};
/// The keys of `[source.mq.tls]`
pub static SOURCE_MQ_TLS_KEYS: TlsKeys = tls_keys("source.mq.tls", &[]);
/// `start` in `[source]`
pub static SOURCE_START: Key = Key {
    table: "source",
    variants: &[],
    name: "start",
    shape: Shape::Start,
    default: Default::Value("collection"),
    meaning: "Where a pipeline begins that has not run before. `collection`: each collection at its own beginning, \
              as the catalog has it. `earliest`: at the first messages that are still in the queue. `latest`: now, by this \
              machine's clock. A time (RFC 3339, or a Milvus timestamp): with the first change later than that, in every \
              collection. Rows from before the beginning are not copied, only collections themselves are.",
    example: "\"2026-11-22T10:00:00Z\"",
    between_runs: BetweenRuns::Tied("what lies before the beginning is not on the target"),
};
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

/// The keys of a table with TLS settings.
#[derive(Debug)]
pub struct TlsKeys {
    /// `ca`
    pub ca: Key,
    /// `cert`
    pub cert: Key,
    /// `key`
    pub key: Key,
    /// `server_name`
    pub server_name: Key,
}

const fn tls_keys(table: &'static str, variants: &'static [&'static str]) -> TlsKeys {
    TlsKeys {
        ca: Key {
            table,
            variants,
            name: "ca",
            shape: Shape::Path,
            default: Default::Words("the certificates of the system alone"),
            meaning: "A PEM file with the certificates to trust, beside those of the system.",
            example: "\"ca.pem\"",
            between_runs: BetweenRuns::Free,
        },
        cert: Key {
            table,
            variants,
            name: "cert",
            shape: Shape::Path,
            default: Default::Words("none is shown"),
            meaning: "A PEM file with our own certificate. Goes with `key`.",
            example: "\"client.pem\"",
            between_runs: BetweenRuns::Free,
        },
        key: Key {
            table,
            variants,
            name: "key",
            shape: Shape::Path,
            default: Default::Words("none"),
            meaning: "A PEM file with the key of that certificate.",
            example: "\"client-key.pem\"",
            between_runs: BetweenRuns::Free,
        },
        server_name: Key {
            table,
            variants,
            name: "server_name",
            shape: Shape::Text,
            default: Default::Words("the host of the address"),
            meaning: "The name to expect in the server's certificate.",
            example: "\"milvus.example\"",
            between_runs: BetweenRuns::Free,
        },
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
