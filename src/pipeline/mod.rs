//! What a pipeline is to do, as written in its file.
//!
//! [`keys`] lists what a file can say; `file.rs` reads it, strictly, by way of `reader.rs` (one key at a time),
//! `env.rs` (`${NAME}`), `units.rs` (sizes and durations) and `validate.rs` (what values must be to each other).

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use crate::milvus::channel::VChannel;
use crate::milvus::position::MsgPosition;
use crate::milvus::tso::Tso;

pub mod env;
mod file;
mod fingerprint;
pub mod keys;
mod names;
mod problem;
mod reader;
pub mod reference;
mod secrets;
mod select;
mod surroundings;
pub mod units;
mod validate;

pub use self::fingerprint::Difference;
pub use self::names::{Names, is_permanent};
pub use self::secrets::{MASK, find_mask, masked};
pub use self::surroundings::{References, Surroundings, environment};
/// A pipeline file, read and validated, with all defaults filled in.
#[derive(Clone, Debug)]
pub struct Pipeline {
    /// Its name.
    pub name: String,
    /// The folder of its checkpoint.
    pub state_dir: PathBuf,
    /// Where changes come from.
    pub source: SourceConfig,
    /// Which collections.
    pub select: Select,
    /// What beside collections.
    pub catalog: CatalogConfig,
    /// Where changes go.
    pub target: TargetConfig,
    /// How.
    pub delivery: Delivery,
    /// Who, where that is not for the state folder alone to decide.
    pub ownership: Option<OwnershipConfig>,
    /// Whether it is started again after a failure.
    pub restart: Restart,
    /// What the user calls it by.
    pub labels: BTreeMap<String, String>,
}

/// `[restart]`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Restart {
    /// How often after failures in a row; `None`: as whoever runs the pipeline has it.
    pub attempts: Option<usize>,
    /// The first pause.
    pub pause: Duration,
    /// The longest pause.
    pub longest_pause: Duration,
}

/// `[source]`
#[derive(Clone, Debug)]
pub struct SourceConfig {
    /// Addresses of the etcd of the source, `http://` or `https://`.
    pub etcd: Vec<String>,
    /// User name for etcd.
    pub etcd_username: Option<String>,
    /// Password for etcd.
    pub etcd_password: Option<Secret>,
    /// TLS for etcd.
    pub etcd_tls: Option<Tls>,
    /// Milvus' `etcd.rootPath`.
    pub root_path: String,
    /// Milvus' `etcd.metaSubPath`.
    pub meta_path: String,
    /// Its proxy, where it is not to be found through etcd alone. Only `verify` speaks to it.
    pub milvus: SourceMilvus,
    /// The message queue.
    pub mq: MqConfig,
    /// Where a pipeline begins that has not run before.
    pub start: StartAt,
    /// Where single vchannels begin, in place of that.
    pub positions: BTreeMap<VChannel, MsgPosition>,
}

/// `[source.milvus]`
#[derive(Clone, Debug, Default)]
pub struct SourceMilvus {
    /// `http://host:port` or `https://host:port`; `None`: the host of a proxy that etcd knows, at Milvus' usual port.
    pub uri: Option<String>,
    /// `user:password` or an API key.
    pub token: Option<Secret>,
    /// TLS beyond what the URI says.
    pub tls: Option<Tls>,
}

/// How to reach the proxy of a Milvus.
#[derive(Clone, Debug)]
pub struct MilvusServer {
    /// `http://host:port` or `https://host:port`.
    pub uri: String,
    /// `user:password` or an API key.
    pub token: Option<Secret>,
    /// TLS beyond what the URI says.
    pub tls: Option<Tls>,
    /// How long connecting may take.
    pub connect_timeout: Duration,
}

/// `start` in `[source]`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StartAt {
    /// Each collection at its own start position.
    #[default]
    Collection,
    /// At the first messages that are still in the queue.
    Earliest,
    /// Now, whenever the pipeline is started first.
    Latest,
    /// With the first change later than this.
    After(Tso),
}

/// TLS settings of a connection.
#[derive(Clone, Debug, Default)]
pub struct Tls {
    /// A PEM file with the certificates to trust, beside those of the system.
    pub ca: Option<PathBuf>,
    /// A PEM file with our own certificate.
    pub cert: Option<PathBuf>,
    /// A PEM file with its key.
    pub key: Option<PathBuf>,
    /// The name to expect in the server's certificate.
    pub server_name: Option<String>,
}

/// `[source.mq]`
#[derive(Clone, Debug)]
pub enum MqConfig {
    /// Milvus' embedded queue.
    Rocksmq(RocksmqConfig),
    /// Kafka.
    Kafka(KafkaConfig),
    /// Pulsar.
    Pulsar(PulsarConfig),
}

/// `[source.mq]` with `type = "rocksmq"`
#[derive(Clone, Debug)]
pub struct RocksmqConfig {
    /// Milvus' `rocksmq.path`.
    pub path: PathBuf,
}

/// `[source.mq]` with `type = "kafka"`
#[derive(Clone, Debug)]
pub struct KafkaConfig {
    /// `host:port` each.
    pub brokers: Vec<String>,
    /// librdkafka's `security.protocol`.
    pub security: &'static str,
    /// librdkafka's `sasl.mechanism`, for a security with SASL.
    pub sasl_mechanism: &'static str,
    /// The user for SASL.
    pub username: Option<String>,
    /// That user's password.
    pub password: Option<Secret>,
    /// TLS beyond what `security` says.
    pub tls: Option<Tls>,
    /// Further properties of librdkafka.
    pub options: BTreeMap<String, String>,
}

/// `[source.mq]` with `type = "pulsar"`
#[derive(Clone, Debug)]
pub struct PulsarConfig {
    /// `pulsar://host:port` or `pulsar+ssl://host:port`.
    pub uri: String,
    /// The tenant of the topics.
    pub tenant: String,
    /// Their namespace.
    pub namespace: String,
    /// A JWT.
    pub token: Option<Secret>,
    /// The durable subscription that makes the brokers keep what is not yet durable, if there is to be one.
    pub subscription: Option<String>,
    /// TLS beyond what the URI says.
    pub tls: Option<Tls>,
}

/// `[select]`: patterns `database.collection`.
#[derive(Clone, Debug)]
pub struct Select {
    /// What to take.
    pub collections: Vec<String>,
    /// What to leave out of that.
    pub exclude: Vec<String>,
}

/// `[catalog]`
#[derive(Clone, Copy, Debug, Default)]
pub struct CatalogConfig {
    /// Roles, grants, privilege groups and the roles of users.
    pub rbac: bool,
}

/// `[target]`
#[derive(Clone, Debug)]
pub enum TargetConfig {
    /// A Milvus by gRPC.
    Milvus(MilvusTarget),
    /// Takes everything, keeps nothing: for benchmarks.
    Null,
}

/// `[target]` with `type = "milvus"`
#[derive(Clone, Debug)]
pub struct MilvusTarget {
    /// `http://host:port` or `https://host:port`.
    pub uri: String,
    /// `user:password` or an API key.
    pub token: Option<Secret>,
    /// TLS beyond what the URI says.
    pub tls: Option<Tls>,
    /// How it is written.
    pub mode: TargetMode,
    /// Whether collections that are already there may be written to if their schema matches.
    pub adopt: bool,
    /// How long connecting may take.
    pub connect_timeout: Duration,
    /// Names that are not those of the source.
    pub names: Names,
}

impl TargetConfig {
    /// Names that are not those of the source.
    pub fn names(&self) -> Names {
        match self {
            TargetConfig::Milvus(target) => target.names.clone(),
            TargetConfig::Null => Names::default(),
        }
    }
}

/// `mode` in `[target]` of Milvus
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TargetMode {
    /// By Insert, Upsert and Delete.
    #[default]
    Write,
    /// As a standby, by ReplicateMessage.
    Replicate,
}

impl TargetConfig {
    /// Whether it is a standby that gets the source's messages.
    pub fn is_standby(&self) -> bool {
        matches!(self, TargetConfig::Milvus(target) if target.mode == TargetMode::Replicate)
    }
}

impl MilvusTarget {
    /// How to reach it.
    pub fn server(&self) -> MilvusServer {
        MilvusServer {
            uri: self.uri.clone(),
            token: self.token.clone(),
            tls: self.tls.clone(),
            connect_timeout: self.connect_timeout,
        }
    }
}

/// `[delivery]`
#[derive(Clone, Debug)]
pub struct Delivery {
    /// The budget for changes in flight, in bytes.
    pub memory: u64,
    /// How long changes may be held back to make batches fuller.
    pub max_lag: Duration,
    /// The size that batches are cut at, in bytes.
    pub batch: u64,
    /// The most calls in flight.
    pub max_calls: usize,
    /// How long one call may take.
    pub call_deadline: Duration,
    /// How often progress is made durable while changes flow.
    pub checkpoint_interval: Duration,
}

/// `[ownership]`
#[derive(Clone, Debug)]
pub struct OwnershipConfig {
    /// Addresses of the etcd that decides, `http://` or `https://`.
    pub etcd: Vec<String>,
    /// User name for it.
    pub etcd_username: Option<String>,
    /// Password for it.
    pub etcd_password: Option<Secret>,
    /// TLS for it.
    pub etcd_tls: Option<Tls>,
    /// The prefix of all keys there.
    pub prefix: String,
    /// How long an owner may be silent; whole seconds.
    pub ttl: Duration,
    /// How long a new owner waits after one that did not stop cleanly.
    pub settle: Duration,
}

/// A text that is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub String);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("(secret)")
    }
}
