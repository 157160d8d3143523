//! The connection to the source's etcd: reads, the watch, and what their errors mean.
//!
//! Every read is linearizable, unless it is of a revision that such a read has shown.

use std::time::Duration;

use etcd_client::{
    EventType, GetOptions, GetResponse, KeyValue, KvClient, WatchClient, WatchOptions, WatchStream,
};

use super::keys::{self, Meta, Range};
use super::mirror::KeyChange;
use crate::error::{Error, Kind, Result};
use crate::etcd::{Access, Server};
use crate::pipeline::SourceConfig;

/// How long connecting to one server and one small read may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long one page of a long read may take.
const PAGE_PATIENCE: Duration = Duration::from_secs(30);
/// Keys to a page.
const PAGE: i64 = 2_000;
/// The largest answer. A watch that was behind, and a read of what has changed, come in one piece.
const LARGEST_ANSWER: usize = 1 << 30;

/// A connection to one of them.
#[derive(Clone)]
pub struct Connection {
    server: Server,
    kv: KvClient,
    watch: WatchClient,
}

/// What a read shows.
#[derive(Debug)]
pub struct Answer {
    /// The identity of the cluster that answered.
    pub cluster: u64,
    /// The revision of the whole store at that moment.
    pub revision: i64,
    /// The keys that were asked for.
    pub keys: Vec<KeyValue>,
    more: bool,
}

/// Changes of one range, in the order of their revisions.
#[derive(Debug)]
pub struct Watched {
    /// The range.
    pub range: Range,
    /// All that was put there up to this revision has been seen.
    pub revision: i64,
    /// Those that matter.
    pub changes: Vec<KeyChange>,
}

/// An open watch of all ranges.
pub struct Watch {
    server: Server,
    meta: Meta,
    stream: WatchStream,
}

/// How to come to the source's etcd.
pub fn access(config: &SourceConfig) -> Access {
    Access {
        whose: "the source's etcd",
        table: "source",
        rights: ("read Milvus' metadata", "read all keys below <root_path>/<meta_path>/"),
        patience: PATIENCE,
        addresses: config.etcd.clone(),
        username: config.etcd_username.clone(),
        password: config.etcd_password.clone(),
        tls: config.etcd_tls.clone(),
    }
}

/// The servers of the source's etcd.
#[derive(Clone)]
pub struct Servers(crate::etcd::Servers);

impl Servers {
    /// # Errors
    /// As [`crate::etcd::Servers::new`].
    pub fn new(config: &SourceConfig) -> Result<Servers> {
        crate::etcd::Servers::new(access(config)).map(Servers)
    }

    /// All addresses, for people.
    pub fn describe(&self) -> String {
        self.0.describe()
    }

    /// Connects to the first server that answers a read below `meta`.
    ///
    /// # Errors
    /// As [`crate::etcd::Servers::connect`].
    pub async fn connect(&self, meta: &Meta) -> Result<Connection> {
        let open = |client: etcd_client::Client, server| {
            let meta = meta.clone();
            async move {
                let connection = Connection {
                    kv: client.kv_client().max_decoding_message_size(LARGEST_ANSWER),
                    watch: client.watch_client().max_decoding_message_size(LARGEST_ANSWER),
                    server,
                };
                connection.revision(&meta).await?;
                Ok(connection)
            }
        };
        self.0.connect(open).await
    }
}

impl Connection {
    /// The address of the server at the other end.
    pub fn address(&self) -> &str {
        self.server.address()
    }

    /// The revision of the store: a read that costs next to nothing.
    pub async fn revision(&self, meta: &Meta) -> Result<Answer> {
        let range = GetOptions::new().with_count_only();
        self.get(PATIENCE, meta.sessions(), range).await
    }

    /// All keys that begin with `prefix`, `limit` at most.
    pub async fn with_prefix(&self, prefix: &str, limit: i64, keys_only: bool) -> Result<Vec<KeyValue>> {
        let mut options = GetOptions::new().with_range(keys::after(prefix)).with_limit(limit);
        if keys_only {
            options = options.with_keys_only();
        }
        // etcd takes a single zero byte for the empty key.
        let start = if prefix.is_empty() { vec![0] } else { prefix.as_bytes().to_vec() };
        Ok(self.get(PAGE_PATIENCE, start, options).await?.keys)
    }

    /// The value of one key, if it is there.
    pub async fn value(&self, key: &str) -> Result<Option<Vec<u8>>> {
        let answer = self.get(PATIENCE, key, GetOptions::new()).await?;
        Ok(answer.keys.into_iter().next().map(|kv| kv.into_key_value().1))
    }

    /// What has been put since `floor`, exclusive, below `prefix`.
    pub async fn put_since(&self, prefix: &str, floor: i64) -> Result<Answer> {
        let options = GetOptions::new().with_range(keys::after(prefix)).with_min_mod_revision(floor + 1);
        self.get(PAGE_PATIENCE, prefix, options).await
    }

    /// What has been put in `range` since `floor`, exclusive, as the store was at revision `at`, or is now.
    pub async fn put_in_range_since(
        &self,
        meta: &Meta,
        range: Range,
        floor: i64,
        at: Option<i64>,
    ) -> Result<Answer> {
        let (start, end) = meta.bounds(range);
        let mut options = GetOptions::new().with_range(end).with_min_mod_revision(floor + 1);
        if let Some(at) = at {
            options = options.with_revision(at);
        }
        self.get(PAGE_PATIENCE, start, options).await
    }

    /// Everything in all ranges at one revision. The keys are those of all ranges.
    pub async fn list(&self, meta: &Meta) -> Result<Answer> {
        let mut answer = self.revision(meta).await?;
        for range in meta.ranges() {
            let (start, end) = meta.bounds(*range);
            let mut start = start.into_bytes();
            loop {
                let options = GetOptions::new()
                    .with_range(end.as_str())
                    .with_limit(PAGE)
                    .with_revision(answer.revision);
                let page = self.get(PAGE_PATIENCE, start, options).await?;
                let last = page.keys.last().map(|key| key.key().to_vec());
                answer.keys.extend(page.keys);
                match last {
                    Some(mut next) if page.more => {
                        next.push(0);
                        start = next;
                    }
                    _ => break,
                }
            }
        }
        Ok(answer)
    }

    /// Watches all ranges for what comes after `revision`.
    pub async fn watch(&self, meta: &Meta, revision: i64) -> Result<Watch> {
        let options = |range| {
            let (start, end) = meta.bounds(range);
            (start, Some(WatchOptions::new().with_range(end).with_start_revision(revision + 1)))
        };
        let Some((first, others)) = meta.ranges().split_first() else {
            return Err(Error::new(Kind::Internal, "there is nothing to watch"));
        };
        let mut client = self.watch.clone();
        let (start, end) = options(*first);
        let mut stream = self.server.answer_within(PATIENCE, client.watch(start, end)).await?;
        for range in others {
            let (start, end) = options(*range);
            self.server.answer_within(PATIENCE, stream.watch(start, end)).await?;
        }
        Ok(Watch { server: self.server.clone(), meta: meta.clone(), stream })
    }

    async fn get(&self, patience: Duration, key: impl Into<Vec<u8>>, options: GetOptions) -> Result<Answer> {
        let mut kv = self.kv.clone();
        let mut response: GetResponse =
            self.server.answer_within(patience, kv.get(key, Some(options))).await?;
        let Some(header) = response.take_header() else {
            let message = format!("{} answers without a revision", self.server.describe());
            return Err(
                Error::new(Kind::Unavailable, message).hint("is this an etcd of version 3.4 or later?")
            );
        };
        Ok(Answer {
            cluster: header.cluster_id(),
            revision: header.revision(),
            more: response.more(),
            keys: response.take_kvs(),
        })
    }
}

impl Watch {
    /// What has changed next. Dropping the future loses nothing.
    ///
    /// # Errors
    /// When the watch is lost, for whatever reason: mostly `Unavailable`.
    pub async fn next(&mut self) -> Result<Watched> {
        loop {
            let response = self.stream.message().await.map_err(|error| self.server.explain(error))?;
            let lost = |why: &str| {
                let kind = if why.contains("permission denied") { Kind::Denied } else { Kind::Unavailable };
                let message = format!("{} ended the watch of its keys: {why}", self.server.describe());
                Error::new(kind, message)
            };
            let Some(response) = response else { return Err(lost("the connection was closed")) };
            if response.compact_revision() > 0 {
                return Err(lost("what it had not shown yet was compacted"));
            }
            if response.canceled() {
                return Err(lost(match response.cancel_reason() {
                    "" => "no reason given",
                    reason => reason,
                }));
            }
            if let Some(watched) = self.understand(response.events())? {
                return Ok(watched);
            }
        }
    }

    /// All events of one response are of one range.
    fn understand(&self, events: &[etcd_client::Event]) -> Result<Option<Watched>> {
        let first = events.first().and_then(etcd_client::Event::kv);
        let Some(range) = first.and_then(|kv| self.meta.range_of(kv.key())) else { return Ok(None) };
        let mut watched = Watched { range, revision: 0, changes: Vec::new() };
        for event in events {
            let Some(kv) = event.kv() else { continue };
            watched.revision = watched.revision.max(kv.mod_revision());
            if let Some(key) = self.meta.parse(kv.key())? {
                let value = match event.event_type() {
                    EventType::Put if key.is_secret() => Some(Vec::new()),
                    EventType::Put => Some(kv.value().to_vec()),
                    EventType::Delete => None,
                };
                watched.changes.push(KeyChange { key, revision: kv.mod_revision(), value });
            }
        }
        Ok(Some(watched))
    }
}

/// Those of `keys` that matter.
///
/// # Errors
/// `Corrupt` for a key of an unknown form.
pub fn key_changes(meta: &Meta, keys: Vec<KeyValue>) -> Result<Vec<KeyChange>> {
    let mut changes = Vec::with_capacity(keys.len());
    for kv in keys {
        if let Some(key) = meta.parse(kv.key())? {
            let revision = kv.mod_revision();
            let value = if key.is_secret() { Vec::new() } else { kv.into_key_value().1 };
            changes.push(KeyChange { key, revision, value: Some(value) });
        }
    }
    Ok(changes)
}
