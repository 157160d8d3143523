//! The librdkafka client: its settings, and what it says of its connections.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::{ClientContext, Statistics};

use crate::error::{Error, Kind, Result};
use crate::pipeline::KafkaConfig;

/// What holds unless the pipeline file says otherwise in `[source.mq.options]`.
const DEFAULTS: [(&str, &str); 11] = [
    // Per topic, since each has a queue of its own. With less than a message or two in it, fetching stops and starts.
    ("queued.max.messages.kbytes", "4096"),
    ("fetch.message.max.bytes", "2097152"),
    // Milvus allows itself messages of that size.
    ("message.max.bytes", "16777216"),
    // A full queue is looked at again soon; the default of a second would make a backlog crawl.
    ("fetch.queue.backoff.ms", "5"),
    ("fetch.error.backoff.ms", "100"),
    // Ticks arrive five times a second on each topic; a broker that collects for a moment saves both sides work.
    ("fetch.wait.max.ms", "100"),
    // A connection that is cut without a word is given up after this long …
    ("socket.timeout.ms", "10000"),
    ("socket.keepalive.enable", "true"),
    // … and connecting is tried this often.
    ("reconnect.backoff.max.ms", "1000"),
    ("topic.metadata.refresh.interval.ms", "5000"),
    ("statistics.interval.ms", "0"),
];

/// Asking a cluster for its brokers may take this long in a check.
const PROBE_TIMEOUT: Duration = Duration::from_secs(10);

/// A refusal that has stood for this long is final, if nothing has ever come from the cluster. (librdkafka goes on trying
/// all the time, but tells of the same error only once in half a minute.)
const REFUSED_FOR: Duration = Duration::from_secs(3);

/// What librdkafka complains of.
#[derive(Debug, Default)]
pub(super) struct Health(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    last: Option<(Instant, RDKafkaErrorCode, String)>,
    /// The cluster has answered at least once.
    answered: bool,
    refused: Option<Instant>,
}

impl Health {
    fn note(&self, code: RDKafkaErrorCode, trouble: &str) {
        let mut state = self.lock();
        if code != RDKafkaErrorCode::AllBrokersDown {
            let since = state.refused.unwrap_or_else(Instant::now);
            state.refused = is_refusal(code, trouble).then_some(since);
        }
        let (code, trouble) = match state.last.take() {
            // That all are down says less than why each is.
            Some((_, why, known)) if code == RDKafkaErrorCode::AllBrokersDown => (why, known),
            _ => (code, trouble.to_owned()),
        };
        state.last = Some((Instant::now(), code, trouble));
    }

    /// The cluster has answered a question.
    pub(super) fn answered(&self) {
        let mut state = self.lock();
        (state.answered, state.refused) = (true, None);
    }

    /// The last complaint, if it came after `since`.
    pub(super) fn trouble_since(&self, since: Instant) -> Option<String> {
        let state = self.lock();
        state.last.as_ref().filter(|(at, ..)| *at > since).map(|(_, _, trouble)| trouble.clone())
    }

    /// The error to end with, if the cluster has never let us in and says that it won't. Later, a refusal may be one of
    /// the things that come with an outage, and is waited for like one.
    pub(super) fn refusal(&self) -> Option<Error> {
        let state = self.lock();
        let (_, code, trouble) = state.last.as_ref()?;
        let long = state.refused.is_some_and(|refused| refused.elapsed() > REFUSED_FOR);
        (long && !state.answered).then(|| refusal(*code, trouble))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_refusal(code: RDKafkaErrorCode, trouble: &str) -> bool {
    match code {
        RDKafkaErrorCode::Authentication
        | RDKafkaErrorCode::SSL
        | RDKafkaErrorCode::SaslAuthenticationFailed => true,
        // A broker that does not like our certificate just ends the connection with an alert.
        RDKafkaErrorCode::BrokerTransportFailure => is_about_tls(trouble),
        _ => false,
    }
}

fn is_about_tls(trouble: &str) -> bool {
    trouble.contains("SSL")
}

fn refusal(code: RDKafkaErrorCode, trouble: &str) -> Error {
    let (what, hint) = if code == RDKafkaErrorCode::SSL || is_about_tls(trouble) {
        (
            "no TLS connection to Kafka",
            "check security in [source.mq] and the certificates in [source.mq.tls]",
        )
    } else {
        ("Kafka refuses the user", "check security, sasl_mechanism, username and password in [source.mq]")
    };
    Error::new(Kind::Denied, format!("{what}: {trouble}")).hint(hint)
}

/// Takes what librdkafka says.
pub(super) struct Listener {
    health: Arc<Health>,
}

impl ClientContext for Listener {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        // What matters of it comes as an error too, or as a channel that waits.
        tracing::debug!(?level, facility, "librdkafka: {message}");
    }

    fn stats(&self, _statistics: Statistics) {}

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "librdkafka");
        self.health.note(error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Unknown), reason);
    }
}

impl ConsumerContext for Listener {}

/// Makes the client.
pub(super) fn create(config: &KafkaConfig, health: Arc<Health>) -> Result<BaseConsumer<Listener>> {
    settings(config).create_with_context(Listener { health }).map_err(|error| refused(&error))
}

fn settings(config: &KafkaConfig) -> ClientConfig {
    let mut client = ClientConfig::new();
    for (name, value) in DEFAULTS {
        client.set(name, value);
    }
    client
        .set("client.id", "migrans")
        .set("bootstrap.servers", config.brokers.join(","))
        .set("security.protocol", config.security);
    if let (Some(username), Some(password)) = (&config.username, &config.password) {
        client
            .set("sasl.mechanism", config.sasl_mechanism)
            .set("sasl.username", username)
            .set("sasl.password", &password.0);
    }
    if let Some(tls) = &config.tls {
        let files = [
            ("ssl.ca.location", &tls.ca),
            ("ssl.certificate.location", &tls.cert),
            ("ssl.key.location", &tls.key),
        ];
        for (name, file) in files {
            if let Some(file) = file {
                client.set(name, file.to_string_lossy());
            }
        }
    }
    for (name, value) in &config.options {
        client.set(name, value);
    }
    client
        .set("group.id", "migrans")
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("auto.offset.reset", "error")
        .set("enable.partition.eof", "true")
        .set("allow.auto.create.topics", "false")
        .set_log_level(RDKafkaLogLevel::Info);
    client
}

fn refused(error: &KafkaError) -> Error {
    match error {
        KafkaError::ClientConfig(_, what, name, value) => {
            let value = if name.contains("password") { "" } else { value.as_str() };
            Error::new(Kind::PipelineFile, format!("librdkafka takes no {name} = {value:?}: {what}"))
                .hint("see [source.mq.options] and [source.mq.tls] in the pipeline file")
        }
        other => {
            Error::new(Kind::PipelineFile, format!("librdkafka makes no client of [source.mq]: {other}"))
                .hint("see [source.mq.options] and [source.mq.tls] in the pipeline file")
        }
    }
}

/// Asks for the cluster's brokers.
pub(super) fn probe(config: &KafkaConfig) -> Result<()> {
    let health = Arc::new(Health::default());
    let began = Instant::now();
    let consumer = create(config, Arc::clone(&health))?;
    let Err(error) = consumer.fetch_metadata(None, PROBE_TIMEOUT) else { return Ok(()) };
    // Errors are told when the client is polled.
    drop(consumer.poll(Duration::ZERO));
    if let Some((_, code, trouble)) =
        health.lock().last.as_ref().filter(|(_, code, trouble)| is_refusal(*code, trouble))
    {
        return Err(refusal(*code, trouble));
    }
    let what = health.trouble_since(began).unwrap_or_else(|| error.to_string());
    let message = format!("Kafka at {} does not answer: {what}", config.brokers.join(", "));
    Err(Error::new(Kind::Unavailable, message).hint(
        "check brokers and security in [source.mq], and that the names that the brokers advertise can be reached",
    ))
}
