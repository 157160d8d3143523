//! From the text of a pipeline file to a [`Pipeline`].

use std::path::{Path, PathBuf};

use toml::de::DeTable;

use super::env::Lookup;
use super::keys::{self, TlsKeys};
use super::problem::{self, Origin, Problem};
use super::reader::{Reader, Section};
use super::surroundings::{self, Surroundings};
use super::validate;
use super::{
    CatalogConfig, Delivery, KafkaConfig, MilvusTarget, MqConfig, Names, OwnershipConfig, Pipeline,
    PulsarConfig, Restart, RocksmqConfig, Secret, Select, SourceConfig, SourceMilvus, TargetConfig,
    TargetMode, Tls,
};
use crate::error::{Error, Kind, Result};
use crate::milvus::channel::VChannel;

impl Pipeline {
    /// Reads the pipeline file at `path`, with variables from the environment.
    ///
    /// # Errors
    /// Of kind `PipelineFile`; one error that lists everything that is wrong, a line each.
    pub fn load(path: &Path) -> Result<Pipeline> {
        let bytes = std::fs::read(path).map_err(|error| {
            Error::new(Kind::PipelineFile, format!("can't read the pipeline file {}", path.display()))
                .caused_by(error)
        })?;
        match std::str::from_utf8(&bytes) {
            Ok(text) => Pipeline::parse(text, path, &surroundings::environment),
            Err(error) => Err(Error::new(
                Kind::PipelineFile,
                format!("{}: byte {} is not UTF-8 text", path.display(), error.valid_up_to()),
            )
            .hint("save the file as UTF-8")),
        }
    }

    /// Reads the text of a pipeline file. `origin` is its path, for messages and as the start of relative paths;
    /// nothing is read from disk.
    ///
    /// # Errors
    /// As [`Pipeline::load`].
    pub fn parse(text: &str, origin: &Path, lookup: Lookup<'_>) -> Result<Pipeline> {
        let folder = origin.parent().unwrap_or(Path::new(""));
        read_text(text, Origin::File(origin, text), &Surroundings::of_file(folder, lookup))
    }

    /// Reads what a pipeline file says from `values`, an object of objects with the same keys. Messages name places by
    /// their keys alone, which are in the error's parts too.
    ///
    /// # Errors
    /// As [`Pipeline::load`].
    pub fn from_values(values: &serde_json::Value, surroundings: &Surroundings<'_>) -> Result<Pipeline> {
        let mut problems = Vec::new();
        if !values.is_object() {
            problems.push(Problem {
                at: None,
                key: None,
                message: "a pipeline is an object".to_owned(),
                hint: Some("write the tables and keys of a pipeline file as a JSON object".to_owned()),
            });
        }
        if problems.is_empty() {
            find_unwritable(values, &mut String::new(), &mut problems);
        }
        if let Some(error) = problem::into_error(Origin::Values, problems) {
            return Err(error);
        }
        // By way of the text there is one reader only.
        let text = toml::to_string(values).map_err(|cause| {
            Error::new(Kind::PipelineFile, "this can't be written as a pipeline file").caused_by(cause)
        })?;
        read_text(&text, Origin::Values, surroundings)
    }
}

/// What JSON has and a pipeline file has not.
fn find_unwritable(value: &serde_json::Value, path: &mut String, problems: &mut Vec<Problem>) {
    let mut refuse = |path: &str, what: &str, hint: &str| {
        let message = format!("\"{path}\" is {what}");
        problems.push(Problem { at: None, key: Some(path.to_owned()), message, hint: Some(hint.to_owned()) });
    };
    match value {
        serde_json::Value::Null => refuse(path, "null", "leave the key out"),
        serde_json::Value::Number(number) if number.is_u64() && !number.is_i64() => {
            refuse(path, "too large a number", "numbers end at 9223372036854775807");
        }
        serde_json::Value::Array(items) => {
            items.iter().for_each(|item| find_unwritable(item, path, problems));
        }
        serde_json::Value::Object(entries) => {
            for (name, value) in entries {
                let length = path.len();
                if length > 0 {
                    path.push('.');
                }
                path.push_str(name);
                find_unwritable(value, path, problems);
                path.truncate(length);
            }
        }
        _ => {}
    }
}

fn read_text(text: &str, origin: Origin<'_>, surroundings: &Surroundings<'_>) -> Result<Pipeline> {
    let (pipeline, problems) = match DeTable::parse(text) {
        Ok(document) => {
            let mut reader = Reader::new(text, surroundings);
            let pipeline = read(&mut reader, &Section::top(document.get_ref()));
            (pipeline, reader.into_problems())
        }
        Err(error) => {
            let at = error.span().map(|span| span.start);
            let message = error.message().replace('\n', ", ");
            (None, vec![Problem { at, key: None, message, hint: None }])
        }
    };
    match (pipeline, problem::into_error(origin, problems)) {
        (_, Some(error)) => Err(error),
        (Some(pipeline), None) => Ok(pipeline),
        (None, None) => {
            Err(Error::new(Kind::Internal, "a key of the pipeline file is read in another shape"))
        }
    }
}

fn read(reader: &mut Reader<'_>, top: &Section<'_>) -> Option<Pipeline> {
    reader.check_names(top, None);
    let name = reader.text(top, &keys::NAME, validate::name);
    let state_dir = match reader.path(top, &keys::STATE_DIR) {
        None if !top.has(&keys::STATE_DIR) => default_state_dir(reader, top, name.as_deref()),
        state_dir => state_dir,
    };
    let source = read_source(reader, top, name.as_deref());
    let select = read_select(reader, top);
    let section = reader.section(top, &keys::CATALOG);
    reader.check_names(&section, None);
    let rbac = reader.flag(&section, &keys::CATALOG_RBAC);
    let target = read_target(reader, top, select.as_ref());
    if let (Some(source), Some(target)) = (&source, &target) {
        let section = reader.section(top, &keys::TARGET);
        validate::standby(reader, &section, source.start, target);
    }
    let delivery = read_delivery(reader, top);
    let ownership = reader.section(top, &keys::OWNERSHIP);
    let owned = ownership.is_written();
    let ownership = read_ownership(reader, &ownership);
    let restart = read_restart(reader, top);
    let labels = reader.section(top, &keys::LABELS);
    let labels = reader.entries(&labels, |_, text| Ok(text.to_owned()));
    Some(Pipeline {
        name: name?,
        state_dir: state_dir?,
        source: source?,
        select: select?,
        catalog: CatalogConfig { rbac: rbac? },
        target: target?,
        delivery: delivery?,
        ownership: if owned { Some(ownership?) } else { None },
        restart: restart?,
        labels: labels?,
    })
}

/// As the XDG base directory specification has it: an `XDG_STATE_HOME` that is no absolute path is as none.
fn default_state_dir(reader: &mut Reader<'_>, top: &Section<'_>, name: Option<&str>) -> Option<PathBuf> {
    let Surroundings { lookup, states, .. } = reader.surroundings();
    if let Some(states) = states {
        return Some(states.join(name?));
    }
    let absolute = |variable: &str| lookup(variable).map(PathBuf::from).filter(|path| path.is_absolute());
    let state_home = absolute("XDG_STATE_HOME").or_else(|| Some(absolute("HOME")?.join(".local/state")));
    match state_home {
        Some(state_home) => Some(state_home.join("migrans").join(name?)),
        None => {
            let message = "has no default without the variables XDG_STATE_HOME and HOME".to_owned();
            let hint = "write it into the file, or set one of them".to_owned();
            reader.object(top, &keys::STATE_DIR, (message, hint));
            None
        }
    }
}

fn read_source(reader: &mut Reader<'_>, top: &Section<'_>, name: Option<&str>) -> Option<SourceConfig> {
    let source = reader.section(top, &keys::SOURCE);
    reader.check_names(&source, None);
    let etcd = reader.list(&source, &keys::SOURCE_ETCD, validate::address);
    let root_path = reader.text(&source, &keys::SOURCE_ROOT_PATH, validate::anything);
    let meta_path = reader.text(&source, &keys::SOURCE_META_PATH, validate::anything);
    let etcd_username = reader.text(&source, &keys::SOURCE_ETCD_USERNAME, validate::anything);
    let etcd_password = reader.text(&source, &keys::SOURCE_ETCD_PASSWORD, validate::anything).map(Secret);
    validate::credentials(reader, &source, &keys::SOURCE_ETCD_USERNAME, &keys::SOURCE_ETCD_PASSWORD);
    let tls = reader.section(&source, &keys::SOURCE_ETCD_TLS);
    let etcd_tls = read_tls(reader, &tls, &keys::SOURCE_ETCD_TLS_KEYS, etcd.as_deref());
    let milvus = read_source_milvus(reader, &source);
    let mq = read_mq(reader, &source, name);
    let start = reader.value(&source, &keys::SOURCE_START, validate::start);
    let positions = reader.section(&source, &keys::SOURCE_POSITIONS);
    let positions = reader.entries(&positions, validate::position);
    let positions = positions.map(|positions| {
        positions.into_iter().map(|(channel, position)| (VChannel(channel.into()), position)).collect()
    });
    Some(SourceConfig {
        etcd: etcd?,
        etcd_username,
        etcd_password,
        etcd_tls,
        root_path: root_path?,
        meta_path: meta_path?,
        milvus,
        mq: mq?,
        start: start?,
        positions: positions?,
    })
}

fn read_source_milvus(reader: &mut Reader<'_>, source: &Section<'_>) -> SourceMilvus {
    let milvus = reader.section(source, &keys::SOURCE_MILVUS);
    reader.check_names(&milvus, None);
    let uri = reader.text(&milvus, &keys::SOURCE_MILVUS_URI, validate::address);
    let token = reader.text(&milvus, &keys::SOURCE_MILVUS_TOKEN, validate::anything).map(Secret);
    let tls = reader.section(&milvus, &keys::SOURCE_MILVUS_TLS);
    let tls = read_tls(reader, &tls, &keys::SOURCE_MILVUS_TLS_KEYS, uri.as_ref().map(std::slice::from_ref));
    SourceMilvus { uri, token, tls }
}

fn read_mq(reader: &mut Reader<'_>, source: &Section<'_>, name: Option<&str>) -> Option<MqConfig> {
    let mq = reader.section(source, &keys::SOURCE_MQ);
    match read_type(reader, &mq, &keys::SOURCE_MQ_TYPE)? {
        "rocksmq" => {
            let path = reader.path(&mq, &keys::SOURCE_MQ_PATH);
            Some(MqConfig::Rocksmq(RocksmqConfig { path: path? }))
        }
        "kafka" => read_kafka(reader, &mq).map(MqConfig::Kafka),
        "pulsar" => read_pulsar(reader, &mq, name).map(MqConfig::Pulsar),
        _ => None,
    }
}

fn read_kafka(reader: &mut Reader<'_>, mq: &Section<'_>) -> Option<KafkaConfig> {
    let brokers = reader.list(mq, &keys::KAFKA_BROKERS, validate::host);
    let security = reader.choice(mq, &keys::KAFKA_SECURITY);
    let sasl_mechanism = reader.choice(mq, &keys::KAFKA_SASL_MECHANISM);
    let username = reader.text(mq, &keys::KAFKA_USERNAME, validate::anything);
    let password = reader.text(mq, &keys::KAFKA_PASSWORD, validate::anything).map(Secret);
    let tls = reader.section(mq, &keys::SOURCE_MQ_TLS);
    validate::kafka_security(reader, mq, &tls, security);
    let tls = read_tls(reader, &tls, &keys::SOURCE_MQ_TLS_KEYS, None);
    let options = reader.section(mq, &keys::SOURCE_MQ_OPTIONS);
    let options = reader.entries(&options, validate::kafka_option);
    Some(KafkaConfig {
        brokers: brokers?,
        security: security?,
        sasl_mechanism: sasl_mechanism?,
        username,
        password,
        tls,
        options: options?,
    })
}

fn read_pulsar(reader: &mut Reader<'_>, mq: &Section<'_>, name: Option<&str>) -> Option<PulsarConfig> {
    let uri = reader.text(mq, &keys::PULSAR_URI, validate::pulsar_address);
    let tenant = reader.text(mq, &keys::PULSAR_TENANT, validate::anything);
    let namespace = reader.text(mq, &keys::PULSAR_NAMESPACE, validate::anything);
    let token = reader.text(mq, &keys::PULSAR_TOKEN, validate::anything).map(Secret);
    let subscription = reader.flag(mq, &keys::PULSAR_SUBSCRIPTION);
    let tls = reader.section(mq, &keys::SOURCE_MQ_TLS);
    let tls = read_tls(reader, &tls, &keys::SOURCE_MQ_TLS_KEYS, uri.as_ref().map(std::slice::from_ref));
    Some(PulsarConfig {
        uri: uri?,
        tenant: tenant?,
        namespace: namespace?,
        token,
        subscription: if subscription? { Some(format!("migrans-{}", name?)) } else { None },
        tls,
    })
}

fn read_target(reader: &mut Reader<'_>, top: &Section<'_>, select: Option<&Select>) -> Option<TargetConfig> {
    let target = reader.section(top, &keys::TARGET);
    match read_type(reader, &target, &keys::TARGET_TYPE)? {
        "milvus" => {
            let uri = reader.text(&target, &keys::TARGET_URI, validate::address);
            let token = reader.text(&target, &keys::TARGET_TOKEN, validate::anything).map(Secret);
            let mode = reader.choice(&target, &keys::TARGET_MODE);
            let adopt = reader.flag(&target, &keys::TARGET_ADOPT);
            let connect_timeout = reader.duration(&target, &keys::TARGET_CONNECT_TIMEOUT);
            let tls = reader.section(&target, &keys::TARGET_TLS);
            let tls = read_tls(reader, &tls, &keys::TARGET_TLS_KEYS, uri.as_ref().map(std::slice::from_ref));
            let names = read_names(reader, &target, select);
            Some(TargetConfig::Milvus(MilvusTarget {
                uri: uri?,
                token,
                tls,
                mode: if mode? == "replicate" { TargetMode::Replicate } else { TargetMode::Write },
                adopt: adopt?,
                connect_timeout: connect_timeout?,
                names: names?,
            }))
        }
        "null" => Some(TargetConfig::Null),
        _ => None,
    }
}

fn read_names(reader: &mut Reader<'_>, target: &Section<'_>, select: Option<&Select>) -> Option<Names> {
    let section = reader.section(target, &keys::TARGET_NAMES);
    let entries = reader.entries(&section, validate::name_entry)?;
    let names = Names::new(entries.iter().map(|(from, to)| (from.as_str(), to.as_str())));
    if let Some(select) = select {
        validate::names(reader, &section, &names, select);
    }
    Some(names)
}

/// The `type` of a table. Which other keys the table can have depends on it; if it is written, but wrong, they can't
/// be judged.
fn read_type(
    reader: &mut Reader<'_>,
    section: &Section<'_>,
    key: &'static keys::Key,
) -> Option<&'static str> {
    let variant = reader.choice(section, key);
    if variant.is_some() || !section.has(key) {
        reader.check_names(section, variant);
    }
    variant
}

fn read_tls(
    reader: &mut Reader<'_>,
    section: &Section<'_>,
    keys: &'static TlsKeys,
    addresses: Option<&[String]>,
) -> Option<Tls> {
    reader.check_names(section, None);
    let tls = Tls {
        ca: reader.path(section, &keys.ca),
        cert: reader.path(section, &keys.cert),
        key: reader.path(section, &keys.key),
        server_name: reader.text(section, &keys.server_name, validate::anything),
    };
    validate::tls(reader, section, keys, addresses);
    section.is_written().then_some(tls)
}

fn read_select(reader: &mut Reader<'_>, top: &Section<'_>) -> Option<Select> {
    let section = reader.section(top, &keys::SELECT);
    reader.check_names(&section, None);
    let collections = reader.list(&section, &keys::SELECT_COLLECTIONS, validate::pattern);
    let exclude = reader.list(&section, &keys::SELECT_EXCLUDE, validate::pattern);
    let select = Select { collections: collections?, exclude: exclude.unwrap_or_default() };
    validate::selection(reader, &section, &select);
    Some(select)
}

fn read_delivery(reader: &mut Reader<'_>, top: &Section<'_>) -> Option<Delivery> {
    let section = reader.section(top, &keys::DELIVERY);
    reader.check_names(&section, None);
    let memory = reader.size(&section, &keys::DELIVERY_MEMORY);
    let max_lag = reader.duration(&section, &keys::DELIVERY_MAX_LAG);
    let batch = reader.size(&section, &keys::DELIVERY_BATCH);
    let max_calls = reader.count(&section, &keys::DELIVERY_MAX_CALLS);
    let call_deadline = reader.duration(&section, &keys::DELIVERY_CALL_DEADLINE);
    let checkpoint_interval = reader.duration(&section, &keys::DELIVERY_CHECKPOINT_INTERVAL);
    let delivery = Delivery {
        memory: memory?,
        max_lag: max_lag?,
        batch: batch?,
        max_calls: max_calls?,
        call_deadline: call_deadline?,
        checkpoint_interval: checkpoint_interval?,
    };
    validate::delivery(reader, &section, &delivery);
    Some(delivery)
}

fn read_restart(reader: &mut Reader<'_>, top: &Section<'_>) -> Option<Restart> {
    let section = reader.section(top, &keys::RESTART);
    reader.check_names(&section, None);
    let attempts = reader.count(&section, &keys::RESTART_ATTEMPTS);
    let pause = reader.duration(&section, &keys::RESTART_PAUSE);
    let longest_pause = reader.duration(&section, &keys::RESTART_LONGEST_PAUSE);
    if attempts.is_none() && section.has(&keys::RESTART_ATTEMPTS) {
        return None;
    }
    Some(Restart { attempts, pause: pause?, longest_pause: longest_pause? })
}

fn read_ownership(reader: &mut Reader<'_>, section: &Section<'_>) -> Option<OwnershipConfig> {
    reader.check_names(section, None);
    let etcd = reader.list(section, &keys::OWNERSHIP_ETCD, validate::address);
    let etcd_username = reader.text(section, &keys::OWNERSHIP_ETCD_USERNAME, validate::anything);
    let etcd_password = reader.text(section, &keys::OWNERSHIP_ETCD_PASSWORD, validate::anything).map(Secret);
    validate::credentials(reader, section, &keys::OWNERSHIP_ETCD_USERNAME, &keys::OWNERSHIP_ETCD_PASSWORD);
    let tls = reader.section(section, &keys::OWNERSHIP_ETCD_TLS);
    let etcd_tls = read_tls(reader, &tls, &keys::OWNERSHIP_ETCD_TLS_KEYS, etcd.as_deref());
    let prefix = reader.text(section, &keys::OWNERSHIP_PREFIX, validate::anything);
    let ttl = reader.duration(section, &keys::OWNERSHIP_TTL);
    let settle = reader.duration(section, &keys::OWNERSHIP_SETTLE);
    if let Some(ttl) = ttl {
        validate::whole_seconds(reader, section, &keys::OWNERSHIP_TTL, ttl);
    }
    Some(OwnershipConfig {
        etcd: etcd?,
        etcd_username,
        etcd_password,
        etcd_tls,
        prefix: prefix?,
        ttl: ttl?,
        settle: settle?,
    })
}

#[cfg(test)]
mod tests;
