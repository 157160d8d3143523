//! Connecting to an etcd, the source's or that of the ownership: addresses, credentials, TLS, and what errors mean.

use std::error::Error as StdError;
use std::sync::Arc;
use std::time::Duration;

use etcd_client::{Certificate, Client, ConnectOptions, Identity, TlsOptions};
use tonic::Code;

use crate::error::{Error, Kind, Result};
use crate::pipeline::{Secret, Tls};

/// How often an open connection is checked for life, and how long the answer may take. (etcd refuses checks more often
/// than every 5 s.)
const KEEP_ALIVE: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(5));
/// What to do when a server can't be reached.
const REACHABLE: &str = "is it up, are address and protocol (http:// or https://) right?";

/// Which etcd, and what to call it.
#[derive(Clone, Debug)]
pub struct Access {
    /// Whose it is, for messages: `the source's etcd`.
    pub whose: &'static str,
    /// The table of the pipeline file with its keys `etcd`, `etcd_username`, `etcd_password` and `etcd_tls`.
    pub table: &'static str,
    /// What its user is for and is not allowed to do, and the permission that is missing then.
    pub rights: (&'static str, &'static str),
    /// How long connecting to one server may take.
    pub patience: Duration,
    /// `http://host:port` or `https://host:port` each.
    pub addresses: Vec<String>,
    /// The user.
    pub username: Option<String>,
    /// That user's password.
    pub password: Option<Secret>,
    /// TLS beyond what the addresses say.
    pub tls: Option<Tls>,
}

/// The servers of one etcd cluster, and how to log in.
#[derive(Clone)]
pub struct Servers {
    access: Arc<Access>,
    options: ConnectOptions,
}

/// One server: its address, and how to speak of it.
#[derive(Clone, Debug)]
pub struct Server {
    address: Arc<str>,
    access: Arc<Access>,
}

impl Servers {
    /// # Errors
    /// `PipelineFile` if the addresses and the TLS settings do not fit together, or a file can't be read.
    pub fn new(access: Access) -> Result<Servers> {
        let table = access.table;
        let mut options = ConnectOptions::new()
            .with_connect_timeout(access.patience)
            .with_keep_alive(KEEP_ALIVE.0, KEEP_ALIVE.1)
            .with_require_leader(true)
            .with_auto_token_refresh(true);
        if let Some(user) = &access.username {
            let password = access.password.as_ref().map(|secret| secret.0.clone()).unwrap_or_default();
            options = options.with_user(user, password);
        }
        let encrypted = access.addresses.iter().filter(|address| address.starts_with("https://")).count();
        if encrypted > 0 {
            if let Some(plain) = access.addresses.iter().find(|address| !address.starts_with("https://")) {
                let message = format!("{table}.etcd holds {plain} beside addresses with https://");
                return Err(Error::new(Kind::PipelineFile, message)
                    .hint("the servers of one etcd are either all https:// or all http://"));
            }
            options = options.with_tls(tls(table, access.tls.as_ref())?);
        } else if access.tls.is_some() {
            let message =
                format!("{table}.etcd_tls is set, but the addresses in {table}.etcd are not https://");
            return Err(Error::new(Kind::PipelineFile, message)
                .hint(format!("write https:// in {table}.etcd, or remove {table}.etcd_tls")));
        }
        Ok(Servers { access: Arc::new(access), options })
    }

    /// All addresses, for people.
    pub fn describe(&self) -> String {
        self.access.addresses.join(", ")
    }

    /// Connects to the first server with which `open` succeeds.
    ///
    /// # Errors
    /// `Denied` for what is wrong with user name, password or permissions; `Unavailable` if no server answers.
    pub async fn connect<T, F>(&self, open: impl Fn(Client, Server) -> F) -> Result<T>
    where
        F: Future<Output = Result<T>>,
    {
        let mut failures = Vec::new();
        for address in &self.access.addresses {
            let server = Server { address: address.as_str().into(), access: Arc::clone(&self.access) };
            let connecting = Box::pin(Client::connect([address], Some(self.options.clone())));
            let opened = match server.answer_within(self.access.patience, connecting).await {
                Ok(client) => Box::pin(open(client, server)).await,
                Err(error) => Err(error),
            };
            match opened {
                Ok(opened) => return Ok(opened),
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
            let whose = self.access.whose;
            let message = format!("none of the servers of {whose} can be used: {}", self.describe());
            return Err(Error::new(Kind::Unavailable, message).caused_by(reasons.join("; ")).hint(REACHABLE));
        }
        let none = || Error::new(Kind::PipelineFile, format!("{}.etcd names no server", self.access.table));
        Err(failures.pop().unwrap_or_else(none))
    }
}

fn tls(table: &str, tls: Option<&Tls>) -> Result<TlsOptions> {
    let read = |key: &str, path: &std::path::Path| {
        std::fs::read(path).map_err(|error| {
            Error::new(
                Kind::PipelineFile,
                format!("{} ({table}.etcd_tls.{key}) can't be read", path.display()),
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
            let message = format!("{table}.etcd_tls has only one of cert and key");
            return Err(Error::new(Kind::PipelineFile, message).hint("give both, or neither"));
        }
    }
    if let Some(name) = &tls.server_name {
        options = options.domain_name(name);
    }
    Ok(options)
}

impl Server {
    /// Its address.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// How to speak of it: `the source's etcd at http://127.0.0.1:2379`.
    pub fn describe(&self) -> String {
        format!("{} at {}", self.access.whose, self.address)
    }

    /// What `call` answers.
    ///
    /// # Errors
    /// As [`Server::explain`]; `Unavailable` if there is no answer within `patience`.
    pub async fn answer_within<T>(
        &self,
        patience: Duration,
        call: impl Future<Output = Result<T, etcd_client::Error>>,
    ) -> Result<T> {
        match tokio::time::timeout(patience, call).await {
            Ok(answer) => answer.map_err(|error| self.explain(error)),
            Err(_) => {
                let message = format!("{} did not answer within {patience:?}", self.describe());
                Err(Error::new(Kind::Unavailable, message).hint("is it up, has its cluster a leader?"))
            }
        }
    }

    /// What an error of the client means. The texts are those of etcd's `rpctypes/error.go`.
    pub fn explain(&self, error: etcd_client::Error) -> Error {
        let (at, table, address) = (self.describe(), self.access.table, &self.address);
        let denied = |what: &str, hint: String| Error::new(Kind::Denied, format!("{at} {what}")).hint(hint);
        let status = match error {
            etcd_client::Error::GRpcStatus(status) => status,
            etcd_client::Error::InvalidUri(_)
            | etcd_client::Error::InvalidArgs(_)
            | etcd_client::Error::EndpointError(_) => {
                return Error::new(
                    Kind::PipelineFile,
                    format!("{address:?} in {table}.etcd is not an address"),
                )
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
            let hint = format!("check {table}.etcd_username and {table}.etcd_password");
            return denied("refuses user name and password", hint);
        }
        if text.contains("user name is empty") || text.contains("user name not found") {
            let hint = format!("set {table}.etcd_username and {table}.etcd_password");
            return denied("wants a user name and a password", hint);
        }
        if text.contains("authentication is not enabled") {
            let hint =
                format!("remove {table}.etcd_username and {table}.etcd_password, or is this the wrong etcd?");
            return denied("has no authentication switched on, but a user name is given", hint);
        }
        if status.code() == Code::PermissionDenied {
            let (refused, needed) = self.access.rights;
            return denied(
                &format!("does not let this user {refused}"),
                format!("grant the user a role that may {needed}"),
            );
        }
        if text.contains("has been compacted") {
            return Error::new(
                Kind::Unavailable,
                format!("{at} compacted a revision while it was being read"),
            );
        }
        if status.code() == Code::Unimplemented {
            let message =
                format!("what listens at {address} ({table}.etcd) is not an etcd of version 3.4 or later");
            return Error::new(Kind::NotFound, message).caused_by(text.to_owned());
        }
        let cause = with_root(text.to_owned(), &status);
        if cause.contains("certificate") {
            let message = format!("{at} and migrans do not accept each other's certificates");
            let hint = format!("check {table}.etcd_tls: ca, cert, key and server_name");
            return Error::new(Kind::Unavailable, message).caused_by(cause).hint(hint);
        }
        unreachable(&at).caused_by(cause)
    }
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
pub(crate) mod testing;

#[cfg(test)]
mod tests {
    use super::*;
    use tonic::Status;

    fn access(etcd: &[&str], tls: Option<Tls>) -> Access {
        Access {
            whose: "the source's etcd",
            table: "source",
            rights: ("read", "read"),
            patience: Duration::from_secs(5),
            addresses: etcd.iter().map(|address| (*address).to_owned()).collect(),
            username: None,
            password: None,
            tls,
        }
    }

    async fn probe(client: Client, server: Server) -> Result<()> {
        let mut kv = client.kv_client();
        server.answer_within(Duration::from_secs(5), kv.get("x", None)).await.map(|_| ())
    }

    fn refused(etcd: &[&str], etcd_tls: Option<Tls>) -> String {
        let error = Servers::new(access(etcd, etcd_tls)).err().unwrap();
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
        let access = Arc::new(access(&["http://e:1"], None));
        let server = Server { address: "http://e:1".into(), access };
        let kind = |status: Status| server.explain(etcd_client::Error::GRpcStatus(status)).kind();
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
        let servers = Servers::new(access(&[&address], None)).unwrap();
        let error = servers.connect(probe).await.err().unwrap();
        assert_eq!(error.kind(), Kind::Unavailable);
        assert!(error.message().contains(&address), "{error}");
        assert!(error.report().contains("refused"), "{error:?}");
        let servers = Servers::new(access(&[&address, "http://127.0.0.1:1"], None)).unwrap();
        let error = servers.connect(probe).await.err().unwrap();
        assert!(error.message().contains(&address) && error.message().contains("127.0.0.1:1"), "{error}");
    }
}
