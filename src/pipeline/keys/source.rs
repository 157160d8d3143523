//! Keys of the top level and of `[source]`.

use super::{BetweenRuns, Default, Key, Shape, TlsKeys, tls_keys};

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
