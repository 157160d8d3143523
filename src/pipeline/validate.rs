//! What values must be beyond their shape, and what keys must be to each other.

use std::time::Duration;

use http::Uri;

use super::keys::{self, TlsKeys};
use super::reader::{Objection, Reader, Section};
use super::{Delivery, Names, Select, StartAt, TargetConfig, names, select};
use crate::milvus::channel::VChannel;
use crate::milvus::position::MsgPosition;
use crate::milvus::tso::Tso;

/// The longest name of a pipeline: it becomes the name of a folder.
const NAME_LENGTH: usize = 100;

/// Letters, digits, `-` and `_`.
pub(super) fn name(text: &str) -> Result<(), Objection> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    if !text.bytes().all(allowed) {
        return Err((format!("can't be \"{text}\""), "use letters, digits, - and _".to_owned()));
    }
    if text.len() > NAME_LENGTH {
        let message = format!("has {} characters", text.len());
        return Err((message, format!("use at most {NAME_LENGTH}")));
    }
    Ok(())
}

/// `http://host:port` or `https://host:port` and nothing more. Messages don't repeat the text: a password may be in it.
pub(super) fn address(text: &str) -> Result<(), Objection> {
    let refuse = |message: &str, hint: &str| Err((message.to_owned(), hint.to_owned()));
    let shape = "write http://host:port or https://host:port";
    let Ok(uri) = text.parse::<Uri>() else { return refuse("is no address", shape) };
    let (Some("http" | "https"), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
        return refuse("does not begin with http:// or https://", shape);
    };
    if authority.as_str().contains('@') {
        return refuse("holds credentials", "put them into keys of their own");
    }
    if uri.host().is_none_or(str::is_empty) {
        return refuse("has no host", shape);
    }
    let after_colon = authority.as_str().rsplit_once(':').filter(|(_, port)| !port.ends_with(']'));
    if after_colon.is_some() && uri.port_u16().is_none_or(|port| port == 0) {
        return refuse("has no valid port", shape);
    }
    if !matches!(uri.path(), "" | "/") || uri.query().is_some() || text.contains('#') {
        return refuse("has something after host and port", shape);
    }
    Ok(())
}

/// `host:port`.
pub(super) fn host(text: &str) -> Result<(), Objection> {
    let good = text.rsplit_once(':').is_some_and(|(host, port)| {
        !host.is_empty()
            && !host.contains(['/', '@', ',', ' '])
            && port.parse::<u16>().is_ok_and(|port| port > 0)
    });
    if good { Ok(()) } else { Err((format!("\"{text}\" is no host:port"), "write kafka-1:9092".to_owned())) }
}

/// `pulsar://host:port` or `pulsar+ssl://host:port`.
pub(super) fn pulsar_address(text: &str) -> Result<(), Objection> {
    let shape = "write pulsar://host:port or pulsar+ssl://host:port";
    let rest = text.strip_prefix("pulsar://").or_else(|| text.strip_prefix("pulsar+ssl://"));
    match rest {
        None => Err(("does not begin with pulsar:// or pulsar+ssl://".to_owned(), shape.to_owned())),
        Some(rest) => host(rest.trim_end_matches('/'))
            .map_err(|_| ("is not a host and a port after that".to_owned(), shape.to_owned())),
    }
}

/// `start` in `[source]`.
pub(super) fn start(text: &str) -> Result<StartAt, Objection> {
    match text {
        "collection" => Ok(StartAt::Collection),
        "earliest" => Ok(StartAt::Earliest),
        "latest" => Ok(StartAt::Latest),
        _ => Tso::parse(text).map(StartAt::After).ok_or_else(|| {
            let hint = "it is \"collection\", \"earliest\", \"latest\", a time such as \"2026-11-22T10:00:00Z\", or a \
                        Milvus timestamp";
            (format!("can't be \"{text}\""), hint.to_owned())
        }),
    }
}

/// An entry of `[source.positions]`.
pub(super) fn position(vchannel: &str, text: &str) -> Result<MsgPosition, Objection> {
    MsgPosition::from_base64(&VChannel(vchannel.into()), text).map_err(|message| {
        (message, "take it as milvus-cdc or milvus-backup hand it out for this vchannel".to_owned())
    })
}

/// Properties of librdkafka that are decided elsewhere, and where.
const KAFKA_SET_ELSEWHERE: [(&str, &str); 10] = [
    ("bootstrap.servers", "write brokers in [source.mq]"),
    ("metadata.broker.list", "write brokers in [source.mq]"),
    ("security.protocol", "write security in [source.mq]"),
    ("sasl.mechanism", "write sasl_mechanism in [source.mq]"),
    ("sasl.mechanisms", "write sasl_mechanism in [source.mq]"),
    ("sasl.username", "write username in [source.mq]"),
    ("sasl.password", "write password in [source.mq]"),
    ("ssl.ca.location", "write ca in [source.mq.tls]"),
    ("ssl.certificate.location", "write cert in [source.mq.tls]"),
    ("ssl.key.location", "write key in [source.mq.tls]"),
];
/// Those on which it depends that nothing is lost.
const KAFKA_OURS: [&str; 7] = [
    "group.id",
    "enable.auto.commit",
    "enable.auto.offset.store",
    "auto.offset.reset",
    "enable.partition.eof",
    "allow.auto.create.topics",
    "isolation.level",
];

/// An entry of `[source.mq.options]`.
pub(super) fn kafka_option(name: &str, text: &str) -> Result<String, Objection> {
    if let Some((_, instead)) = KAFKA_SET_ELSEWHERE.iter().find(|(key, _)| *key == name) {
        return Err(("has a key of its own".to_owned(), (*instead).to_owned()));
    }
    if KAFKA_OURS.contains(&name) {
        return Err((
            "is set by the pipeline: what is read depends on it".to_owned(),
            "remove it".to_owned(),
        ));
    }
    Ok(text.to_owned())
}

/// User, TLS and `security` of Kafka fit each other.
pub(super) fn kafka_security(
    reader: &mut Reader<'_>,
    mq: &Section<'_>,
    tls: &Section<'_>,
    security: Option<&str>,
) {
    pair(reader, mq, &keys::KAFKA_USERNAME, &keys::KAFKA_PASSWORD);
    let Some(security) = security else { return };
    let sasl = security.starts_with("sasl");
    let is = format!("but \"security\" is \"{security}\"");
    if sasl && !mq.has(&keys::KAFKA_USERNAME) && !mq.has(&keys::KAFKA_PASSWORD) {
        let message = "means a user".to_owned();
        reader.object(mq, &keys::KAFKA_SECURITY, (message, "set username and password".to_owned()));
    }
    if !sasl && mq.has(&keys::KAFKA_USERNAME) {
        let hint = "set it to \"sasl_ssl\" or \"sasl_plaintext\"".to_owned();
        reader.object(mq, &keys::KAFKA_USERNAME, (format!("is set, {is}"), hint));
    }
    if tls.has(&keys::SOURCE_MQ_TLS_KEYS.server_name) {
        let message = "does not go with Kafka: the name is that of each broker".to_owned();
        let hint = "remove it; `\"ssl.endpoint.identification.algorithm\" = \"none\"` in [source.mq.options] leaves the \
                    name unchecked";
        reader.object(tls, &keys::SOURCE_MQ_TLS_KEYS.server_name, (message, hint.to_owned()));
    }
    if tls.is_written() && !security.ends_with("ssl") {
        let hint = "set it to \"ssl\" or \"sasl_ssl\", or remove the table".to_owned();
        reader.object_to_table(tls, (format!("is set, {is}"), hint));
    }
}

/// A pattern of `[select]`.
pub(super) fn pattern(text: &str) -> Result<(), Objection> {
    match select::objection(text) {
        Some((message, hint)) => Err((format!("\"{text}\" {message}"), hint)),
        None => Ok(()),
    }
}

/// Anything.
pub(super) fn anything(_: &str) -> Result<(), Objection> {
    Ok(())
}

/// A user goes with a password.
pub(super) fn credentials(
    reader: &mut Reader<'_>,
    section: &Section<'_>,
    username: &keys::Key,
    password: &keys::Key,
) {
    pair(reader, section, username, password);
}

/// A time that another system counts in seconds.
pub(super) fn whole_seconds(
    reader: &mut Reader<'_>,
    section: &Section<'_>,
    key: &keys::Key,
    value: Duration,
) {
    if value.subsec_nanos() > 0 {
        let message = "is not in whole seconds, which is what etcd counts in".to_owned();
        reader.object(section, key, (message, "write \"3s\"".to_owned()));
    }
}

/// TLS settings fit each other and the addresses.
pub(super) fn tls(
    reader: &mut Reader<'_>,
    section: &Section<'_>,
    keys: &TlsKeys,
    addresses: Option<&[String]>,
) {
    pair(reader, section, &keys.cert, &keys.key);
    for (plain, safe) in [("http://", "https://"), ("pulsar://", "pulsar+ssl://")] {
        let is_plain = |address: &String| address.to_ascii_lowercase().starts_with(plain);
        if section.is_written() && addresses.is_some_and(|addresses| addresses.iter().any(is_plain)) {
            let message = format!("is set, but an address begins with {plain}");
            reader.object_to_table(section, (message, format!("write {safe} there, or remove the table")));
        }
    }
}

fn pair(reader: &mut Reader<'_>, section: &Section<'_>, one: &keys::Key, other: &keys::Key) {
    let (there, missing) = match (section.has(one), section.has(other)) {
        (true, false) => (one, other),
        (false, true) => (other, one),
        _ => return,
    };
    let message = format!("is set without \"{}\"", missing.name);
    reader.object(section, there, (message, format!("set both or none of {} and {}", one.name, other.name)));
}

/// Something is selected.
pub(super) fn selection(reader: &mut Reader<'_>, section: &Section<'_>, select: &Select) {
    let excluded = |pattern: &String| select.exclude.iter().any(|exclude| select::covers(exclude, pattern));
    if select.collections.iter().all(excluded) {
        let message = "leaves out everything that \"collections\" takes".to_owned();
        let hint = "remove patterns from exclude, or add others to collections".to_owned();
        reader.object(section, &keys::SELECT_EXCLUDE, (message, hint));
    }
}

/// An entry of `[target.names]` by itself.
pub(super) fn name_entry(from: &str, to: &str) -> Result<String, Objection> {
    match names::objection(from, to) {
        Some(objection) => Err(objection),
        None => Ok(to.to_owned()),
    }
}

/// The entries of `[target.names]` go together, and with the selection.
pub(super) fn names(reader: &mut Reader<'_>, section: &Section<'_>, names: &Names, select: &Select) {
    for (entry, objection) in names::objections(names, select) {
        reader.object_to_entry(section, &entry, objection);
    }
}

/// The budget has room for batches.
pub(super) fn delivery(reader: &mut Reader<'_>, section: &Section<'_>, delivery: &Delivery) {
    if delivery.memory / 2 < delivery.batch {
        let message = "is less than twice \"batch\"".to_owned();
        let key = &keys::DELIVERY_MEMORY;
        reader.object(section, key, (message, "raise memory, or lower batch".to_owned()));
    }
}

/// A standby may take over collections only if it does not get again what they hold.
pub(super) fn standby(reader: &mut Reader<'_>, section: &Section<'_>, start: StartAt, target: &TargetConfig) {
    let adopts = matches!(target, TargetConfig::Milvus(milvus) if milvus.adopt);
    if adopts && target.is_standby() && matches!(start, StartAt::Collection | StartAt::Earliest) {
        let message = "goes with mode = \"replicate\" only where a start is set".to_owned();
        let hint = "set start in [source] to \"latest\" or to the time up to which the target has everything, \
                    or remove adopt";
        reader.object(section, &keys::TARGET_ADOPT, (message, hint.to_owned()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_have_a_scheme_and_a_host_and_no_more() {
        for text in [
            "http://127.0.0.1:2379",
            "https://db.example",
            "https://db.example/",
            "http://[::1]:19530",
            "http://[::1]",
            "HTTP://Host:1",
        ] {
            assert_eq!(address(text), Ok(()), "{text}");
        }
        for (text, message) in [
            ("127.0.0.1:2379", "does not begin with http:// or https://"),
            ("localhost", "does not begin with http:// or https://"),
            ("tcp://localhost:1", "does not begin with http:// or https://"),
            ("", "is no address"),
            ("http://", "is no address"),
            ("http://a b", "is no address"),
            ("http://:19530", "has no host"),
            ("http://h:99999", "has no valid port"),
            ("http://h:0", "has no valid port"),
            ("http://h:port", "has no valid port"),
            ("http://user:secret@h:1", "holds credentials"),
            ("http://h:1/db", "has something after host and port"),
            ("http://h:1?x", "has something after host and port"),
        ] {
            assert_eq!(address(text).unwrap_err().0, message, "{text}");
        }
    }

    #[test]
    fn names_are_fit_for_a_folder() {
        assert_eq!(name("Orders-standby_2"), Ok(()));
        for text in ["a b", "a/b", "..", "é", "a.b"] {
            assert!(name(text).is_err(), "{text}");
        }
        assert_eq!(name(&"x".repeat(101)).unwrap_err().0, "has 101 characters");
    }
}
