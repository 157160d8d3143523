//! The line to the etcd of the ownership: where things are, and one call at a time over a connection that is made
//! anew after any trouble.

use std::time::Duration;

use etcd_client::{
    Client, DeleteOptions, EventType, GetOptions, GetResponse, KeyValue, KvClient, LeaseClient, Txn,
    TxnResponse, WatchClient, WatchOptions, WatchStream,
};

use crate::error::{Error, Kind, Result};
use crate::etcd::{Access, Server, Servers};
use crate::pipeline::{OwnershipConfig, Pipeline};

/// The largest answer: a page of records.
const LARGEST_ANSWER: usize = 256 << 20;
/// Keys to a page. A value has half a megabyte at most.
const PAGE: i64 = 200;

/// Where a pipeline's keys are.
#[derive(Clone, Debug)]
pub struct Keys(String);

/// A way to the etcd.
pub struct Line {
    servers: Servers,
    patience: Duration,
    link: Option<Link>,
}

struct Link {
    server: Server,
    kv: KvClient,
    lease: LeaseClient,
    watch: WatchClient,
}

/// What a sign of life met with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beat {
    /// The lease has its whole time again.
    Alive,
    /// There is no such lease any more.
    Gone,
}

impl Keys {
    /// Of a pipeline with `[ownership]`.
    pub fn new(config: &OwnershipConfig, pipeline: &Pipeline) -> Keys {
        let prefix = config.prefix.trim_end_matches('/');
        Keys(format!("{prefix}/{}/", pipeline.name))
    }

    /// What all of them begin with.
    pub fn all(&self) -> &str {
        &self.0
    }

    /// Who owns the pipeline: there as long as somebody does.
    pub fn owner(&self) -> String {
        format!("{}owner", self.0)
    }

    /// What the next owner must know of the last one.
    pub fn term(&self) -> String {
        format!("{}term", self.0)
    }

    /// How many transactions have changed what follows.
    pub fn commit(&self) -> String {
        format!("{}commit", self.0)
    }

    /// The checkpoint's records.
    pub fn records(&self) -> String {
        format!("{}record/", self.0)
    }

    /// What is left of records that are too long for one value.
    pub fn more(&self) -> String {
        format!("{}more/", self.0)
    }

    /// A commit that is too large for one transaction.
    pub fn journal(&self) -> String {
        format!("{}journal/", self.0)
    }
}

/// The end of the range of all keys that begin with `prefix`, which ends in a slash.
pub fn after(prefix: &str) -> String {
    match prefix.strip_suffix('/') {
        Some(path) => format!("{path}0"),
        None => format!("{prefix}\u{10ffff}"),
    }
}

impl Line {
    /// To the etcd in `[ownership]`. Connects when it is used.
    ///
    /// # Errors
    /// `PipelineFile` for settings that do not fit together or name files that can't be read.
    pub fn new(config: &OwnershipConfig) -> Result<Line> {
        // Within the time of a lease a server that is gone has to be noticed and another one reached.
        let patience = (config.ttl / 4).clamp(Duration::from_millis(500), Duration::from_secs(5));
        let servers = Servers::new(Access {
            whose: "the ownership's etcd",
            table: "ownership",
            rights: ("keep the ownership there", "read and write all keys below ownership.prefix"),
            patience,
            addresses: config.etcd.clone(),
            username: config.etcd_username.clone(),
            password: config.etcd_password.clone(),
            tls: config.etcd_tls.clone(),
        })?;
        Ok(Line { servers, patience, link: None })
    }

    /// Another one to the same place.
    pub fn another(&self) -> Line {
        Line { servers: self.servers.clone(), patience: self.patience, link: None }
    }

    /// All addresses, for people.
    pub fn describe(&self) -> String {
        self.servers.describe()
    }

    async fn link(&mut self) -> Result<&mut Link> {
        if self.link.is_none() {
            let patience = self.patience;
            let open = |client: Client, server: Server| async move {
                let mut link = Link {
                    kv: client.kv_client().max_decoding_message_size(LARGEST_ANSWER),
                    lease: client.lease_client(),
                    watch: client.watch_client(),
                    server,
                };
                // A connection is made when it is first used.
                let probe = GetOptions::new().with_serializable().with_count_only();
                match link.server.answer_within(patience, link.kv.get("/", Some(probe))).await {
                    Err(error) if error.kind() != Kind::Denied => Err(error),
                    // It may not read this key, but it answers.
                    _ => Ok(link),
                }
            };
            self.link = Some(self.servers.connect(open).await?);
        }
        self.link.as_mut().ok_or_else(|| Error::new(Kind::Internal, "a connection was lost at once"))
    }

    /// After trouble the next call begins with a new connection, to another server if need be.
    fn judged<T>(&mut self, answer: Result<T>) -> Result<T> {
        if answer.is_err() {
            self.link = None;
        }
        answer
    }

    /// A transaction.
    pub async fn txn(&mut self, txn: Txn) -> Result<TxnResponse> {
        let patience = self.patience;
        let link = self.link().await?;
        let answer = link.server.answer_within(patience, link.kv.txn(txn)).await;
        self.judged(answer)
    }

    async fn get(&mut self, key: Vec<u8>, options: Option<GetOptions>) -> Result<GetResponse> {
        let patience = self.patience;
        let link = self.link().await?;
        let answer = link.server.answer_within(patience, link.kv.get(key, options)).await;
        self.judged(answer)
    }

    /// The key, if it is there, and the revision of the store.
    pub async fn one(&mut self, key: &str) -> Result<(Option<KeyValue>, i64)> {
        let mut response = self.get(key.as_bytes().to_vec(), None).await?;
        let revision = response.header().map_or(0, |header| header.revision());
        Ok((response.take_kvs().pop(), revision))
    }

    /// All keys that begin with `prefix`.
    pub async fn below(&mut self, prefix: &str) -> Result<Vec<KeyValue>> {
        let mut found = Vec::new();
        let mut start = prefix.as_bytes().to_vec();
        loop {
            let options = GetOptions::new().with_range(after(prefix)).with_limit(PAGE);
            let mut page = self.get(start, Some(options)).await?;
            let more = page.more();
            found.append(&mut page.take_kvs());
            match found.last() {
                Some(last) if more => start = [last.key(), b"\0"].concat(),
                _ => return Ok(found),
            }
        }
    }

    /// Deletes all keys that begin with `prefix`. Returns how many there were.
    pub async fn clear(&mut self, prefix: &str) -> Result<i64> {
        let patience = self.patience;
        let link = self.link().await?;
        let options = DeleteOptions::new().with_range(after(prefix));
        let answer = link.server.answer_within(patience, link.kv.delete(prefix, Some(options))).await;
        self.judged(answer).map(|deleted| deleted.deleted())
    }

    /// A lease of `ttl` seconds. Returns its id and how many seconds it got.
    pub async fn grant(&mut self, ttl: Duration) -> Result<(i64, Duration)> {
        let patience = self.patience;
        let seconds = i64::try_from(ttl.as_secs()).unwrap_or(i64::MAX);
        let link = self.link().await?;
        let answer = link.server.answer_within(patience, link.lease.grant(seconds, None)).await;
        let granted = self.judged(answer)?;
        Ok((granted.id(), Duration::from_secs(u64::try_from(granted.ttl()).unwrap_or(0))))
    }

    /// A sign of life.
    pub async fn beat(&mut self, lease: i64) -> Result<Beat> {
        let patience = self.patience;
        let link = self.link().await?;
        let beat = async {
            match link.lease.keep_alive(lease).await {
                Ok(_) => Ok(Beat::Alive),
                Err(etcd_client::Error::LeaseKeepAliveError(why)) if why.contains("not found") => {
                    Ok(Beat::Gone)
                }
                Err(error) => Err(error),
            }
        };
        let answer = link.server.answer_within(patience, beat).await;
        self.judged(answer)
    }

    /// Ends a lease, and with it the keys that hang on it.
    pub async fn revoke(&mut self, lease: i64) -> Result<()> {
        let patience = self.patience;
        let link = self.link().await?;
        let answer = link.server.answer_within(patience, link.lease.revoke(lease)).await;
        self.judged(answer).map(|_| ())
    }

    /// What becomes of `key` after `revision`.
    pub async fn watch(&mut self, key: &str, revision: i64) -> Result<Watch> {
        let patience = self.patience;
        let link = self.link().await?;
        let options = WatchOptions::new().with_start_revision(revision + 1);
        let answer = link.server.answer_within(patience, link.watch.watch(key, Some(options))).await;
        self.judged(answer).map(Watch)
    }
}

/// The watch of one key.
pub struct Watch(WatchStream);

impl Watch {
    /// Waits until the key is gone, or until the watch can't tell any more: then somebody has to look. Dropping the
    /// future loses nothing.
    pub async fn gone(&mut self) {
        loop {
            match self.0.message().await {
                Ok(Some(response)) if !response.canceled() && response.compact_revision() == 0 => {
                    if response.events().iter().any(|event| event.event_type() == EventType::Delete) {
                        return;
                    }
                }
                _ => return,
            }
        }
    }
}
