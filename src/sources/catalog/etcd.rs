//! The connection to the source's etcd: reads, the watch, and what their errors mean.
//!
//! Every read is linearizable, unless it is of a revision that such a read has shown.

use std::error::Error as StdError;
use std::sync::Arc;
use std::time::Duration;

use etcd_client::{
    Certificate, Client, ConnectOptions, EventType, GetOptions, GetResponse, Identity, KeyValue, KvClient,
    TlsOptions, WatchClient, WatchOptions, WatchStream,
};
use tonic::Code;

use super::keys::{self, Meta, Range};
use super::mirror::KeyChange;
use crate::error::{Error, Kind, Result};
use crate::pipeline::{SourceConfig, Tls};

/// How long connecting to one server and one small read may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long one page of a long read may take.
const PAGE_PATIENCE: Duration = Duration::from_secs(30);
/// Keys to a page.
const PAGE: i64 = 2_000;
/// How often an open watch is checked for life, and how long the answer may take. (etcd refuses checks more often than
/// every 5 s.)
const KEEP_ALIVE: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(5));
/// What to do when a server can't be reached.
const REACHABLE: &str = "is it up, are address and protocol (http:// or https://) right?";
/// The largest answer. A watch that was behind, and a read of what has changed, come in one piece.
const LARGEST_ANSWER: usize = 1 << 30;

/// The servers of one etcd cluster, and how to log in.
#[derive(Clone)]
pub struct Servers {
    addresses: Vec<String>,
    options: ConnectOptions,
}

/// A connection to one of them.
#[derive(Clone)]
pub struct Connection {
    address: Arc<str>,
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
    address: Arc<str>,
    meta: Meta,
    stream: WatchStream,
}

impl Servers {
    /// # Errors
    /// `PipelineFile` if the addresses and the TLS settings do not fit together, or a file can't be read.
    pub fn new(config: &SourceConfig) -> Result<Servers> {
        let mut options = ConnectOptions::new()
            .with_connect_timeout(PATIENCE)
            .with_keep_alive(KEEP_ALIVE.0, KEEP_ALIVE.1)
            .with_require_leader(true)
            .with_auto_token_refresh(true);
        if let Some(user) = &config.etcd_username {
            let password = config.etcd_password.as_ref().map(|secret| secret.0.clone()).unwrap_or_default();
            options = options.with_user(user, password);
        }
        let encrypted = config.etcd.iter().filter(|address| address.starts_with("https://")).count();
        if encrypted > 0 {
            if let Some(plain) = config.etcd.iter().find(|address| !address.starts_with("https://")) {
                let message = format!("source.etcd holds {plain} beside addresses with https://");
                return Err(Error::new(Kind::PipelineFile, message)
                    .hint("the servers of one etcd are either all https:// or all http://"));
            }
            options = options.with_tls(tls(config.etcd_tls.as_ref())?);
        } else if config.etcd_tls.is_some() {
            let message = "source.etcd_tls is set, but the addresses in source.etcd are not https://";
            return Err(Error::new(Kind::PipelineFile, message)
                .hint("write https:// in source.etcd, or remove source.etcd_tls"));
        }
        Ok(Servers { addresses: config.etcd.clone(), options })
    }

    /// All addresses, for people.
    pub fn describe(&self) -> String {
        self.addresses.join(", ")
    }

    /// Connects to the first server that answers a read below `meta`.
    ///
    /// # Errors
    /// `Denied` for what is wrong with user name, password or permissions; `Unavailable` if no server answers.
    pub async fn connect(&self, meta: &Meta) -> Result<Connection> {
        let mut failures = Vec::new();
        for address in &self.addresses {
            match self.connect_to(address, meta).await {
                Ok(connection) => return Ok(connection),
                Err(error) if error.kind() == Kind::Unavailable => failures.push(error),
                Err(error) => return Err(error),
            }
        }
        if failures.len() > 1 {
            let reason = |error: &Error| match StdError::source(error) {
                Some(cause) => format!("{error} ({cause})"),
                None => error.to_string(),
            };
            let reasons: Vec<String> = failures.iter().map(reason).collect();
            let message =
                format!("none of the servers of the source's etcd can be used: {}", self.describe());
            return Err(Error::new(Kind::Unavailable, message).caused_by(reasons.join("; ")).hint(REACHABLE));
        }
        Err(failures.pop().unwrap_or_else(|| Error::new(Kind::PipelineFile, "source.etcd names no server")))
    }

    async fn connect_to(&self, address: &str, meta: &Meta) -> Result<Connection> {
        let address: Arc<str> = address.into();
        let connecting = Client::connect([&*address], Some(self.options.clone()));
        let client = answer_within(PATIENCE, &address, connecting).await?;
        let connection = Connection {
            kv: client.kv_client().max_decoding_message_size(LARGEST_ANSWER),
            watch: client.watch_client().max_decoding_message_size(LARGEST_ANSWER),
            address,
        };
        connection.revision(meta).await?;
        Ok(connection)
    }
}

fn tls(tls: Option<&Tls>) -> Result<TlsOptions> {
    let read = |key: &str, path: &std::path::Path| {
        std::fs::read(path).map_err(|error| {
            Error::new(
                Kind::PipelineFile,
                format!("{} (source.etcd_tls.{key}) can't be read", path.display()),
            )
            .caused_by(error)
        })
    };
    let mut options = TlsOptions::new().with_enabled_roots();
    let Some(tls) = tls else { return Ok(options) };
    if let Some(path) = &tls.ca {
        options = options.ca_certificate(Certificate::from_pem(read("ca", path)?));
    }
    match (&tls.cert, &tls.key) {
        (Some(cert), Some(key)) => {
            options = options.identity(Identity::from_pem(read("cert", cert)?, read("key", key)?));
        }
        (None, None) => {}
        _ => {
            let message = "source.etcd_tls has only one of cert and key";
            return Err(Error::new(Kind::PipelineFile, message).hint("give both, or neither"));
        }
    }
    if let Some(name) = &tls.server_name {
        options = options.domain_name(name);
    }
    Ok(options)
}

impl Connection {
    /// The address of the server at the other end.
    pub fn address(&self) -> &str {
        &self.address
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
        for range in Range::ALL {
            let (start, end) = meta.bounds(range);
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
        let [first, others @ ..] = Range::ALL;
        let mut client = self.watch.clone();
        let (start, end) = options(first);
        let mut stream = answer_within(PATIENCE, &self.address, client.watch(start, end)).await?;
        for range in others {
            let (start, end) = options(range);
            answer_within(PATIENCE, &self.address, stream.watch(start, end)).await?;
        }
        Ok(Watch { address: Arc::clone(&self.address), meta: meta.clone(), stream })
    }

    async fn get(&self, patience: Duration, key: impl Into<Vec<u8>>, options: GetOptions) -> Result<Answer> {
        let mut kv = self.kv.clone();
        let mut response: GetResponse =
            answer_within(patience, &self.address, kv.get(key, Some(options))).await?;
        let Some(header) = response.take_header() else {
            let message = format!("the source's etcd at {} answers without a revision", self.address);
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
            let response = self.stream.message().await.map_err(|error| explain(&self.address, error))?;
            let lost = |why: &str| {
                let kind = if why.contains("permission denied") { Kind::Denied } else { Kind::Unavailable };
                let message =
                    format!("the source's etcd at {} ended the watch of its keys: {why}", self.address);
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
            changes.push(KeyChange { key, revision, value: Some(kv.into_key_value().1) });
        }
    }
    Ok(changes)
}

async fn answer_within<T>(
    patience: Duration,
    address: &str,
    call: impl Future<Output = Result<T, etcd_client::Error>>,
) -> Result<T> {
    match tokio::time::timeout(patience, call).await {
        Ok(answer) => answer.map_err(|error| explain(address, error)),
        Err(_) => {
            let message =
                format!("the source's etcd at {address} did not answer within {} s", patience.as_secs());
            Err(Error::new(Kind::Unavailable, message).hint("is it up, has its cluster a leader?"))
        }
    }
}

/// What an error of the client means. The texts are those of etcd's `rpctypes/error.go`.
fn explain(address: &str, error: etcd_client::Error) -> Error {
    let at = format!("the source's etcd at {address}");
    let denied = |what: &str, hint: &str| Error::new(Kind::Denied, format!("{at} {what}")).hint(hint);
    let status = match error {
        etcd_client::Error::GRpcStatus(status) => status,
        etcd_client::Error::InvalidUri(_)
        | etcd_client::Error::InvalidArgs(_)
        | etcd_client::Error::EndpointError(_) => {
            return Error::new(Kind::PipelineFile, format!("{address:?} in source.etcd is not an address"))
                .caused_by(error)
                .hint("write it like http://127.0.0.1:2379");
        }
        etcd_client::Error::TransportError(error) => {
            return unreachable(&at).caused_by(with_root(error.to_string(), &error));
        }
        error => return unreachable(&at).caused_by(error),
    };
    let text = status.message();
    if text.contains("authentication failed") {
        let hint = "check source.etcd_username and source.etcd_password";
        return denied("refuses user name and password", hint);
    }
    if text.contains("user name is empty") || text.contains("user name not found") {
        let hint = "set source.etcd_username and source.etcd_password";
        return denied("wants a user name and a password", hint);
    }
    if text.contains("authentication is not enabled") {
        let hint = "remove source.etcd_username and source.etcd_password, or is this the wrong etcd?";
        return denied("has no authentication switched on, but a user name is given", hint);
    }
    if status.code() == Code::PermissionDenied {
        let hint = "grant the user a role that may read all keys below <root_path>/<meta_path>/";
        return denied("does not let this user read Milvus' metadata", hint);
    }
    if text.contains("has been compacted") {
        return Error::new(Kind::Unavailable, format!("{at} compacted a revision while it was being read"));
    }
    if status.code() == Code::Unimplemented {
        let message =
            format!("what listens at {address} (source.etcd) is not an etcd of version 3.4 or later");
        return Error::new(Kind::NotFound, message).caused_by(text.to_owned());
    }
    let cause = with_root(text.to_owned(), &status);
    if cause.contains("certificate") {
        let message = format!("{at} and migrans do not accept each other's certificates");
        let hint = "check source.etcd_tls: ca, cert, key and server_name";
        return Error::new(Kind::Unavailable, message).caused_by(cause).hint(hint);
    }
    unreachable(&at).caused_by(cause)
}

fn unreachable(at: &str) -> Error {
    Error::new(Kind::Unavailable, format!("{at} can't be reached")).hint(REACHABLE)
}

/// `text` and the first cause of `error`; the errors in between only repeat each other.
fn with_root(text: String, error: &dyn StdError) -> String {
    let mut root = error;
    while let Some(cause) = root.source() {
        root = cause;
    }
    let root = root.to_string();
    if text.is_empty() || root.contains(&text) {
        root
    } else if text.contains(&root) || error.source().is_none() {
        text
    } else {
        format!("{text}: {root}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::{MqConfig, RocksmqConfig};
    use tonic::Status;

    fn config(etcd: &[&str], etcd_tls: Option<Tls>) -> SourceConfig {
        SourceConfig {
            etcd: etcd.iter().map(|address| (*address).to_owned()).collect(),
            etcd_username: None,
            etcd_password: None,
            etcd_tls,
            root_path: "by-dev".into(),
            meta_path: "meta".into(),
            milvus: Default::default(),
            mq: MqConfig::Rocksmq(RocksmqConfig { path: "/nowhere".into() }),
            start: Default::default(),
            positions: Default::default(),
        }
    }

    fn refused(etcd: &[&str], etcd_tls: Option<Tls>) -> String {
        let error = Servers::new(&config(etcd, etcd_tls)).err().unwrap();
        assert_eq!(error.kind(), Kind::PipelineFile);
        error.report()
    }

    #[test]
    fn tls_settings_must_fit_the_addresses() {
        assert!(refused(&["http://a:1"], Some(Tls::default())).contains("https://"));
        assert!(refused(&["https://a:1", "http://b:1"], None).contains("http://b:1"));
        let tls = Tls { ca: Some("/no/such/ca.pem".into()), ..Tls::default() };
        assert!(refused(&["https://a:1"], Some(tls)).contains("/no/such/ca.pem"));
        let tls = Tls { key: Some("/no/such/key.pem".into()), ..Tls::default() };
        assert!(refused(&["https://a:1"], Some(tls)).contains("cert and key"));
    }

    #[test]
    fn what_etcd_says_is_sorted_by_what_helps() {
        let kind = |status: Status| explain("http://e:1", etcd_client::Error::GRpcStatus(status)).kind();
        let auth = "etcdserver: authentication failed, invalid user ID or password";
        assert_eq!(kind(Status::invalid_argument(auth)), Kind::Denied);
        assert_eq!(kind(Status::invalid_argument("etcdserver: user name is empty")), Kind::Denied);
        assert_eq!(
            kind(Status::failed_precondition("etcdserver: authentication is not enabled")),
            Kind::Denied
        );
        assert_eq!(kind(Status::permission_denied("etcdserver: permission denied")), Kind::Denied);
        let compacted = "etcdserver: mvcc: required revision has been compacted";
        assert_eq!(kind(Status::out_of_range(compacted)), Kind::Unavailable);
        assert_eq!(kind(Status::unavailable("etcdserver: no leader")), Kind::Unavailable);
        assert_eq!(kind(Status::unauthenticated("etcdserver: invalid auth token")), Kind::Unavailable);
    }

    #[tokio::test]
    async fn an_address_where_nobody_listens_is_named() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        drop(listener);
        let servers = Servers::new(&config(&[&address], None)).unwrap();
        let error = servers.connect(&Meta::new("by-dev", "meta")).await.err().unwrap();
        assert_eq!(error.kind(), Kind::Unavailable);
        assert!(error.message().contains(&address), "{error}");
        assert!(error.report().contains("refused"), "{error:?}");
        let servers = Servers::new(&config(&[&address, "http://127.0.0.1:1"], None)).unwrap();
        let error = servers.connect(&Meta::new("by-dev", "meta")).await.err().unwrap();
        assert!(error.message().contains(&address) && error.message().contains("127.0.0.1:1"), "{error}");
    }
}
