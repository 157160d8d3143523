//! The catalog of the source, in its etcd: a list, then a watch, and the confirmation of ticks.
//!
//! ```text
//! etcd ──list, watch──► mirror ──assemble──► Catalog ──► CatalogUpdate ──difference──► steps
//!   ▲                     ▲                                   ▲
//!   └── read since ───────┘              a tick T of the log ─┘ confirmed by that read
//! ```
//!
//! `keys` knows where things are, `mirror` holds the raw values, `assemble` makes a catalog of them, `history` tells
//! when something was dropped, `difference` compares two catalogs; none of these does I/O. `etcd` and `run` do.
//!
//! The etcd user needs to read everything below `<root_path>/<meta_path>/`, nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::AtomicI64;

use tokio::sync::watch::Receiver;

pub use self::assemble::Assembled;
pub use self::difference::{ALTERABLE, Observed, applied_after, difference};
use self::etcd::{Connection, Servers, key_changes};
use self::keys::Meta;
use self::mirror::Mirror;
pub use self::standing::Standing;
pub use self::version::Version;
use crate::error::{Error, Kind, Result};
use crate::milvus::catalog::{Catalog, CollectionId, CollectionName, PartitionId};
use crate::milvus::tso::Tso;
use crate::pipeline::SourceConfig;

mod access;
mod assemble;
mod difference;
mod etcd;
mod history;
mod keys;
mod mirror;
mod patience;
mod run;
mod standing;
mod version;

/// Which collections a pipeline takes.
pub type Selection = dyn Fn(&CollectionName) -> bool + Send + Sync;

/// How many keys are looked at for a cluster under another path than the given one.
const SEARCHED: i64 = 20_000;
/// How often a read is tried again.
const TRIES: u32 = 3;

/// News of the source's catalog.
#[derive(Clone, Debug)]
pub struct CatalogUpdate {
    /// Everything that was created or dropped up to this tick is in the catalog as last sent, this update's included.
    /// Never decreases. `None`: the news are not tied to a tick; the last one stays confirmed.
    pub upto: Option<Tso>,
    /// The selected part of the catalog, if it is another one than before; always in the first update.
    pub wanted: Option<Arc<Catalog>>,
    /// Collections that exist and are not selected: their rows may be thrown away at once.
    pub ignored: Arc<BTreeSet<CollectionId>>,
    /// Databases that exist and are not in the catalog.
    pub other_databases: Arc<BTreeSet<i64>>,
    /// When things were dropped that were in the catalog before.
    pub drop_times: Arc<DropTimes>,
}

/// When things were dropped: every row of them that anybody could see is older. What is not here was dropped at a time
/// that could not be found out. Kept for an hour of the source's time after the drop was confirmed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DropTimes {
    /// Collections.
    pub collections: BTreeMap<CollectionId, Tso>,
    /// Partitions that were dropped from collections that live on.
    pub partitions: BTreeMap<PartitionId, Tso>,
    /// When collections got the names that they have now.
    pub renames: BTreeMap<CollectionId, Tso>,
}

/// The catalog of a Milvus cluster of 2.3 to 2.5.
pub struct CatalogSource {
    servers: Servers,
    meta: Meta,
    select: Arc<Selection>,
    connection: Connection,
    version: Option<Version>,
    applied: Arc<Catalog>,
    seen: Arc<AtomicI64>,
}

impl CatalogSource {
    /// Connects, and looks whether there is a Milvus that can be read from.
    ///
    /// # Errors
    /// `Unavailable`: no server answers. `Denied`: user name, password or permissions are wrong. `NotFound`: there is
    /// no Milvus at this place. `Version`: it is too old or too new. `PipelineFile`: the settings contradict each
    /// other, or name files that can't be read.
    pub async fn connect(
        config: &SourceConfig,
        select: impl Fn(&CollectionName) -> bool + Send + Sync + 'static,
    ) -> Result<CatalogSource> {
        let servers = Servers::new(config)?;
        let meta = Meta::new(&config.root_path, &config.meta_path);
        let connection = servers.connect(&meta).await?;
        let sessions = sessions(&connection, &meta).await?;
        let place = format!("at {} below {}", connection.address(), meta.prefix());
        let version = version::running(&sessions, &place)?;
        if connection.with_prefix(&format!("{}root-coord/", meta.prefix()), 1, true).await?.is_empty() {
            return Err(nothing_there(&connection, &meta, !sessions.is_empty()).await);
        }
        if version.is_none() {
            tracing::warn!(
                "the version of the source {place} is unknown, because none of its servers is running; going on as \
                 if it were supported"
            );
        }
        Ok(CatalogSource {
            servers,
            meta,
            select: Arc::new(select),
            connection,
            version,
            applied: Arc::new(Catalog::default()),
            seen: Arc::default(),
        })
    }

    /// The same source, which follows who may do what as well.
    pub fn with_access(mut self, access: bool) -> CatalogSource {
        self.meta = self.meta.with_access(access);
        self
    }

    /// The same source for a pipeline that has already applied `applied`: then the times are found too at which things
    /// were dropped while nobody watched.
    pub fn resume(mut self, applied: Catalog) -> CatalogSource {
        self.applied = Arc::new(applied);
        self
    }

    /// The highest revision of etcd that [`CatalogSource::run`] has shown all of; zero before.
    pub fn seen(&self) -> Arc<AtomicI64> {
        Arc::clone(&self.seen)
    }

    /// The lowest version of the servers that ran when it was connected, if one ran.
    pub fn version(&self) -> Option<Version> {
        self.version
    }

    /// What it is, for logs and `check`: e.g. `Milvus 2.3.5 by etcd at http://127.0.0.1:2379, by-dev/meta/`.
    pub fn describe(&self) -> String {
        let version = self.version.map(|version| format!(" {version}")).unwrap_or_default();
        format!("Milvus{version} by etcd at {}, {}", self.servers.describe(), self.meta.prefix())
    }

    /// The hosts of the proxies that run, as they tell etcd: with the port at which the cluster's own servers reach
    /// them, not clients.
    ///
    /// # Errors
    /// `Unavailable`, `Denied`.
    pub async fn proxies(&self) -> Result<Vec<String>> {
        Ok(version::proxies(&sessions(&self.connection, &self.meta).await?))
    }

    /// The catalog as it is now.
    ///
    /// # Errors
    /// `Unavailable`, `Denied`; `Corrupt` for a key or value that can't be understood.
    pub async fn read(&self) -> Result<Assembled> {
        let mut tries = 1;
        loop {
            match self.read_once(tries > 1).await {
                Err(error) if error.kind() == Kind::Unavailable && tries < TRIES => tries += 1,
                result => return result,
            }
        }
    }

    async fn read_once(&self, anew: bool) -> Result<Assembled> {
        let connection = if anew { self.servers.connect(&self.meta).await? } else { self.connection.clone() };
        let list = connection.list(&self.meta).await?;
        let mirror = Mirror::new(list.revision, key_changes(&self.meta, list.keys)?);
        assemble::assemble(&mirror, &self.meta, &*self.select)
    }

    /// Follows the catalog until the sender of `ticks` is gone. `ticks` holds the newest tick that was seen on any
    /// channel, `Tso::ZERO` before the first. `out` is called at once with the catalog as it is, then with every change
    /// (indexes, load states and properties within about 50 ms) and with every tick, the newest first if they come
    /// faster than they can be confirmed. It must not block. The future may be dropped at any time.
    ///
    /// While etcd can't be reached it waits for it, and says so in the log.
    ///
    /// # Errors
    /// `Corrupt` for a key or value that can't be understood, or an etcd that went back in time; `Denied` if access is
    /// taken away; `Version` after an update to a Milvus that is not supported.
    pub async fn run(self, ticks: Receiver<Tso>, out: impl Fn(CatalogUpdate) + Send) -> Result<()> {
        let follower = run::Follower {
            servers: self.servers,
            meta: self.meta,
            select: self.select,
            ticks,
            out,
            sent: None,
            before: self.applied,
            drop_times: Arc::default(),
            confirmed: Tso::ZERO,
            cluster: None,
            revision: 0,
            seen: self.seen,
            resource_groups: BTreeMap::new(),
        };
        follower.run(self.connection).await
    }
}

/// The servers of the cluster that run: role and what they say about themselves.
async fn sessions(connection: &Connection, meta: &Meta) -> Result<Vec<(String, Vec<u8>)>> {
    let prefix = meta.sessions();
    let mut sessions = Vec::new();
    for kv in connection.with_prefix(&prefix, 0, false).await? {
        let (key, value) = kv.into_key_value();
        let role = key.strip_prefix(prefix.as_bytes()).unwrap_or(&key);
        sessions.push((String::from_utf8_lossy(role).into_owned(), value));
    }
    Ok(sessions)
}

/// The error for an etcd without a catalog below `meta`, with a hint where one is.
async fn nothing_there(connection: &Connection, meta: &Meta, sessions: bool) -> Error {
    let place = format!("below {} in the source's etcd at {}", meta.prefix(), connection.address());
    if sessions {
        return Error::new(Kind::NotFound, format!("a Milvus runs {place}, but has no metadata there"))
            .hint("metadata in TiKV (metastore.type = tikv) is not supported; it must be in etcd");
    }
    const MARK: &str = "/root-coord/database/db-info/";
    // Without the permission to look elsewhere there is just no hint of this sort.
    let keys = connection.with_prefix("", SEARCHED, true).await.unwrap_or_default();
    let found: BTreeSet<String> = keys
        .iter()
        .filter_map(|kv| kv.key_str().ok()?.split_once(MARK).map(|(prefix, _)| prefix))
        .filter(|prefix| !prefix.ends_with("/snapshots"))
        .filter_map(|prefix| prefix.rsplit_once('/'))
        .map(|(root, meta)| format!("root_path = \"{root}\" with meta_path = \"{meta}\""))
        .collect();
    let found: Vec<String> = found.into_iter().collect();
    let hint = if found.is_empty() {
        "check source.etcd, source.root_path and source.meta_path (etcd.rootPath and etcd.metaSubPath of Milvus)"
            .to_owned()
    } else {
        format!("this etcd has a Milvus under {}", found.join(", and under "))
    };
    Error::new(Kind::NotFound, format!("there is no Milvus {place}")).hint(hint)
}
