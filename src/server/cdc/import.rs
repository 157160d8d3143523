//! From milvus-cdc's `cdc.yaml` to the file of a server. Each of its keys is carried over, or named with why it is not.

use std::fmt::Write as _;

use serde_json::{Map, Value};
use toml::Table;

use super::decode::plain;
use crate::error::{Error, Kind, Result};

/// Keys without a counterpart, and why.
const WITHOUT: [(&str, &str); 27] = [
    ("batchMode", "messages are always handled in batches"),
    ("detectDeadLock", "it is for those who work on milvus-cdc"),
    ("dryRun", "`migrans check` tells what would be done"),
    ("replicateID", "nothing on the target is marked as copied"),
    ("retry", "what can be tried again is tried until it works; `[restart]` is for the rest"),
    (
        "packer",
        "`[delivery]` of a pipeline decides how changes are put together; there are no limits to set here",
    ),
    ("enableReverse", "it has no effect in milvus-cdc either"),
    ("reverseMilvus", "it has no effect in milvus-cdc either"),
    ("currentMilvus", "it has no effect in milvus-cdc either"),
    ("metaStoreConfig", "tasks are kept in data_dir: make them again with the requests that made them"),
    ("sourceConfig.readChanLen", "memory is bounded in bytes, by `memory` in `[delivery]`"),
    ("sourceConfig.channelNum", "the channels are read from the source's catalog"),
    ("sourceConfig.timeTickInterval", "nothing but rows and DDL is sent to a target"),
    ("sourceConfig.defaultPartitionName", "partitions are read from the source's catalog"),
    ("sourceConfig.etcd.tlsMinVersion", "TLS 1.3 is used wherever the server has it, TLS 1.2 elsewhere"),
    ("sourceConfig.pulsar.webAddress", "brokers are spoken to by their own protocol alone"),
    ("sourceConfig.pulsar.webPort", "brokers are spoken to by their own protocol alone"),
    ("sourceConfig.pulsar.maxMessageSize", "brokers tell it themselves"),
    ("sourceConfig.kafka.producer", "nothing is ever written to the source's queue"),
    ("sourceConfig.etcd.username", "enableAuth is not set"),
    ("sourceConfig.etcd.password", "enableAuth is not set"),
    ("sourceConfig.etcd.tlsCertPath", "enableTLS is not set"),
    ("sourceConfig.etcd.tlsKeyPath", "enableTLS is not set"),
    ("sourceConfig.etcd.tlsCACertPath", "enableTLS is not set"),
    ("sourceConfig.etcd", "etcdAddress goes before it"),
    ("sourceConfig.kafka", "Pulsar goes before it where both are set"),
    ("sourceConfig.pulsar.authPlugin", "without authParams it has no effect"),
];

/// The text of a server's file that does what `yaml` says, which is the text of `origin`.
///
/// # Errors
/// `PipelineFile`: it is no YAML, or says something that can't be done.
pub fn server_file(yaml: &str, origin: &str) -> Result<String> {
    let value: Value = serde_saphyr::from_str(yaml).map_err(|error| {
        let message = error.to_string();
        Error::new(
            Kind::PipelineFile,
            format!("{origin} is no YAML: {}", message.lines().next().unwrap_or_default()),
        )
    })?;
    let Value::Object(entries) = value else {
        return Err(wrong(origin, "it holds no keys").hint("give the file that milvus-cdc is started with"));
    };
    let mut config = Config { entries, notes: Vec::new(), origin };
    let mut file = Table::new();
    let address = config.text("address")?.unwrap_or_else(|| "127.0.0.1:8444".to_owned());
    // `:8444` is all addresses, in Go.
    let address = if address.starts_with(':') { format!("0.0.0.0{address}") } else { address };
    let address = address.replace("localhost:", "127.0.0.1:");
    let is_open = address.parse().is_ok_and(|address: std::net::SocketAddr| !address.ip().is_loopback());
    file.insert("listen".to_owned(), address.into());
    file.insert("data_dir".to_owned(), "/var/lib/migrans".into());
    if is_open {
        file.insert("insecure".to_owned(), true.into());
    }
    let mut cdc = Table::new();
    for (theirs, ours) in [("maxTaskNum", "max_task_num"), ("maxNameLength", "max_name_length")] {
        // 0 is as not set. (With that, milvus-cdc makes no task at all.)
        if let Some(number) = config.number(theirs)?.filter(|number| *number > 0) {
            cdc.insert(ours.to_owned(), number.into());
        }
    }
    if let Some(channel) = config.text("sourceConfig.replicateChan")? {
        cdc.insert("replicate_channel".to_owned(), channel.into());
    }
    let level = config.text("logLevel")?;
    cdc.insert("source".to_owned(), config.source()?.into());
    file.insert("cdc".to_owned(), cdc.into());
    let notes = config.notes();

    let mut text = format!("# Made from milvus-cdc's {origin} by `migrans import-cdc-config`.\n");
    if let Some(level) = level {
        let _ = writeln!(text, "# logLevel: start it as `migrans --log-level {level} serve`.");
    }
    if is_open {
        text.push_str(
            "# insecure: milvus-cdc lets anybody in who reaches it. Tokens in [tokens] and a certificate in [tls] are better.\n",
        );
    }
    if !notes.is_empty() {
        text.push_str("#\n# Without a counterpart here:\n");
        for (path, why) in notes {
            let _ = writeln!(text, "#   {path}: {why}");
        }
    }
    let written = toml::to_string(&file)
        .map_err(|cause| Error::new(Kind::Internal, "can't write the server's file").caused_by(cause))?;
    Ok(format!("{text}\n{written}"))
}

/// What is left of the file.
struct Config<'o> {
    entries: Map<String, Value>,
    notes: Vec<(String, String)>,
    origin: &'o str,
}

impl Config<'_> {
    /// Takes a value out. milvus-cdc does not mind the case of keys.
    fn take(&mut self, path: &str) -> Option<Value> {
        let mut entries = &mut self.entries;
        let (tables, name) = path.rsplit_once('.').unwrap_or(("", path));
        for table in tables.split('.').filter(|table| !table.is_empty()) {
            entries = entry(entries, table)?.as_object_mut()?;
        }
        let value = entry(entries, name).map(Value::take);
        entries.retain(|_, value| !value.is_null());
        value.filter(|value| !value.is_null() && value.as_object().is_none_or(|entries| !entries.is_empty()))
    }

    /// Takes a text out; an empty one is as none.
    fn text(&mut self, path: &str) -> Result<Option<String>> {
        match self.take(path) {
            None => Ok(None),
            Some(value @ (Value::Array(_) | Value::Object(_))) => {
                Err(wrong(self.origin, &format!("{path} must be a text, not {}", plain(&value))))
            }
            Some(Value::String(text)) => Ok(Some(text).filter(|text| !text.is_empty())),
            Some(Value::Number(number)) => Ok(Some(number.to_string())),
            Some(value) => Ok(Some(plain(&value))),
        }
    }

    /// As [`Config::text`], as a value of our file, in which a dollar stands for itself.
    fn value(&mut self, path: &str) -> Result<Option<toml::Value>> {
        Ok(self.text(path)?.map(|text| text.replace('$', "$$").into()))
    }

    fn number(&mut self, path: &str) -> Result<Option<i64>> {
        let Some(text) = self.text(path)? else { return Ok(None) };
        let number =
            text.parse().map_err(|_| wrong(self.origin, &format!("{path} must be a number, not {text}")))?;
        Ok(Some(number))
    }

    fn flag(&mut self, path: &str) -> Result<bool> {
        match self.text(path)?.as_deref() {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(text) => Err(wrong(self.origin, &format!("{path} must be true or false, not {text}"))),
        }
    }

    fn texts(&mut self, path: &str) -> Result<Vec<String>> {
        match self.take(path) {
            None => Ok(Vec::new()),
            Some(Value::String(text)) => Ok(vec![text]),
            Some(Value::Array(items)) => Ok(items.iter().map(plain).collect()),
            Some(other) => Err(wrong(self.origin, &format!("{path} must be a list, not {}", plain(&other)))),
        }
    }

    /// `[cdc.source]`
    fn source(&mut self) -> Result<Table> {
        let mut source = Table::new();
        let deprecated = self.texts("sourceConfig.etcdAddress")?;
        let paths = ["sourceConfig.etcdRootPath", "sourceConfig.etcdMetaSubPath"];
        let [old_root, old_meta] = [self.value(paths[0])?, self.value(paths[1])?];
        let is_old = !deprecated.is_empty();
        let (addresses, root, meta, tls) = if is_old {
            (deprecated, old_root, old_meta, false)
        } else {
            for (path, value) in paths.iter().zip([old_root, old_meta]) {
                if value.is_some() {
                    self.note(path, "it has no effect without etcdAddress");
                }
            }
            (
                self.texts("sourceConfig.etcd.address")?,
                self.value("sourceConfig.etcd.rootPath")?,
                self.value("sourceConfig.etcd.metaSubPath")?,
                self.flag("sourceConfig.etcd.enableTLS")?,
            )
        };
        if addresses.is_empty() {
            return Err(wrong(self.origin, "sourceConfig.etcd.address is missing"));
        }
        let scheme = if tls { "https" } else { "http" };
        let addresses = addresses.iter().map(|address| {
            let host = address.split_once("://").map_or(address.as_str(), |(_, host)| host);
            toml::Value::from(format!("{scheme}://{host}").replace('$', "$$"))
        });
        source.insert("etcd".to_owned(), toml::Value::Array(addresses.collect()));
        put(&mut source, "root_path", root);
        put(&mut source, "meta_path", meta);
        if !is_old && self.flag("sourceConfig.etcd.enableAuth")? {
            let user = self.value("sourceConfig.etcd.username")?;
            put(&mut source, "etcd_username", user);
            let password = self.value("sourceConfig.etcd.password")?;
            put(&mut source, "etcd_password", password);
        }
        if tls {
            let mut table = Table::new();
            for (theirs, ours) in [("tlsCACertPath", "ca"), ("tlsCertPath", "cert"), ("tlsKeyPath", "key")] {
                let path = self.value(&format!("sourceConfig.etcd.{theirs}"))?;
                put(&mut table, ours, path);
            }
            source.insert("etcd_tls".to_owned(), table.into());
        }
        source.insert("mq".to_owned(), self.queue()?.into());
        Ok(source)
    }

    fn queue(&mut self) -> Result<Table> {
        let mut mq = Table::new();
        if let Some(address) = self.value("sourceConfig.pulsar.address")? {
            mq.insert("type".to_owned(), "pulsar".into());
            mq.insert("uri".to_owned(), address);
            let tenant = self.value("sourceConfig.pulsar.tenant")?;
            put(&mut mq, "tenant", tenant);
            let namespace = self.value("sourceConfig.pulsar.namespace")?;
            put(&mut mq, "namespace", namespace);
            if let Some(parameters) = self.text("sourceConfig.pulsar.authParams")? {
                let plugin = self.text("sourceConfig.pulsar.authPlugin")?.unwrap_or_default();
                let token = parameters.split(',').find_map(|entry| entry.trim().strip_prefix("token:"));
                let (true, Some(token)) = (plugin.ends_with("AuthenticationToken"), token) else {
                    let message = format!("sourceConfig.pulsar.authPlugin is {plugin:?}");
                    return Err(wrong(self.origin, &message)
                        .hint("tokens are the only way to show who one is to Pulsar"));
                };
                mq.insert("token".to_owned(), token.replace('$', "$$").into());
            }
            return Ok(mq);
        }
        let Some(brokers) = self.text("sourceConfig.kafka.address")? else {
            return Err(wrong(
                self.origin,
                "neither sourceConfig.pulsar.address nor sourceConfig.kafka.address is set",
            ));
        };
        self.take("sourceConfig.pulsar").into_iter().for_each(|_| {
            self.notes.push(("sourceConfig.pulsar".to_owned(), "it has no address".to_owned()));
        });
        let brokers = brokers.split(',').map(|broker| broker.trim().replace('$', "$$").into());
        mq.insert("type".to_owned(), "kafka".into());
        mq.insert("brokers".to_owned(), toml::Value::Array(brokers.collect()));
        let security =
            self.text("sourceConfig.kafka.securityProtocol")?.map(|text| text.to_ascii_lowercase());
        let mechanism = self.text("sourceConfig.kafka.saslMechanisms")?;
        let user = self.value("sourceConfig.kafka.saslUsername")?;
        let password = self.value("sourceConfig.kafka.saslPassword")?;
        // Milvus' own default, with a user.
        let security = security.or_else(|| user.is_some().then(|| "sasl_ssl".to_owned()));
        put(&mut mq, "security", security.map(Into::into));
        put(&mut mq, "sasl_mechanism", mechanism.map(Into::into));
        put(&mut mq, "username", user);
        put(&mut mq, "password", password);
        if let Some(Value::Object(options)) = self.take("sourceConfig.kafka.consumer") {
            let options: Table = options
                .iter()
                .map(|(key, value)| (key.clone(), plain(value).replace('$', "$$").into()))
                .collect();
            put(&mut mq, "options", (!options.is_empty()).then(|| options.into()));
        }
        Ok(mq)
    }

    fn note(&mut self, path: &str, why: &str) {
        self.notes.push((path.to_owned(), why.to_owned()));
    }

    /// Everything that was not carried over.
    fn notes(mut self) -> Vec<(String, String)> {
        for (path, why) in WITHOUT {
            if self.take(path).is_some() {
                self.note(path, why);
            }
        }
        leaves(&Value::Object(self.entries), String::new(), &mut self.notes);
        self.notes
    }
}

fn leaves(value: &Value, path: String, notes: &mut Vec<(String, String)>) {
    match value {
        Value::Object(entries) => {
            for (key, value) in entries {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                leaves(value, path, notes);
            }
        }
        Value::Null => {}
        _ => notes.push((path, "milvus-cdc has no such key either".to_owned())),
    }
}

fn entry<'v>(entries: &'v mut Map<String, Value>, name: &str) -> Option<&'v mut Value> {
    let folded = name.to_lowercase();
    let key = entries.keys().find(|key| **key == name || key.to_lowercase() == folded)?.clone();
    entries.get_mut(&key)
}

fn put(table: &mut Table, key: &str, value: Option<toml::Value>) {
    if let Some(value) = value {
        table.insert(key.to_owned(), value);
    }
}

fn wrong(origin: &str, message: &str) -> Error {
    Error::new(Kind::PipelineFile, format!("{origin}: {message}"))
}
