//! The brokers of a cluster: who serves which topic, and a connection to each that is needed.

use std::collections::HashMap;
use std::sync::{Arc, Mutex as SyncMutex, PoisonError};
use std::time::Instant;

use pulsar::proto::base_command::Type;
use pulsar::proto::command_get_topics_of_namespace::Mode;
use pulsar::proto::command_lookup_topic_response::LookupType;
use pulsar::proto::{BaseCommand, CommandGetTopicsOfNamespace, CommandLookupTopic};
use tokio::sync::Mutex;

use super::connection::{Address, Connection, Credentials};
use super::trouble::Trouble;
use crate::error::Result as MigransResult;
use crate::milvus::channel::PChannel;
use crate::pipeline::PulsarConfig;
use crate::tls::Safety;

/// The most brokers that one question for a topic may lead to. (Two are usual: one that is asked, one that serves.)
const REDIRECTS: usize = 20;

/// A Pulsar cluster.
pub(super) struct Brokers {
    /// As the pipeline file has it.
    pub(super) uri: String,
    base: Address,
    tenant_and_namespace: String,
    credentials: Arc<Credentials>,
    slots: SyncMutex<HashMap<Address, Arc<Mutex<Slot>>>>,
}

/// The connection to one broker, or what came of the last attempt.
#[derive(Default)]
struct Slot {
    open: Option<Arc<Connection>>,
    failed: Option<(Instant, Trouble)>,
}

impl Brokers {
    /// Reads the settings. Does not connect.
    ///
    /// Error: `PipelineFile`, if the TLS files can't be used.
    pub(super) fn new(config: &PulsarConfig) -> MigransResult<Brokers> {
        let safety = if is_safe(&config.uri) {
            Some(Safety::new(&config.tls.clone().unwrap_or_default(), "source.mq.tls", &[])?)
        } else {
            None
        };
        Ok(Brokers {
            uri: config.uri.clone(),
            base: Address { target: host_and_port(&config.uri).to_owned(), behind_proxy: None },
            tenant_and_namespace: format!("{}/{}", config.tenant, config.namespace),
            credentials: Arc::new(Credentials { safety, token: config.token.clone() }),
            slots: SyncMutex::default(),
        })
    }

    /// The same cluster without its connections, for another runtime.
    pub(super) fn detached(&self) -> Brokers {
        Brokers {
            uri: self.uri.clone(),
            base: self.base.clone(),
            tenant_and_namespace: self.tenant_and_namespace.clone(),
            credentials: Arc::clone(&self.credentials),
            slots: SyncMutex::default(),
        }
    }

    /// The full name of a channel's topic.
    pub(super) fn topic(&self, channel: &PChannel) -> String {
        format!("persistent://{}/{channel}", self.tenant_and_namespace)
    }

    /// A connection to the broker that serves `topic`.
    pub(super) async fn serving(&self, topic: &str) -> Result<Arc<Connection>, Trouble> {
        let mut address = self.base.clone();
        let mut authoritative = false;
        for _ in 0..REDIRECTS {
            let connection = self.connection(&address).await?;
            let request_id = connection.new_id();
            let command = BaseCommand {
                r#type: Type::Lookup.into(),
                lookup_topic: Some(CommandLookupTopic {
                    topic: topic.to_owned(),
                    request_id,
                    authoritative: Some(authoritative),
                    ..CommandLookupTopic::default()
                }),
                ..BaseCommand::default()
            };
            let answer = connection.ask(request_id, command).await?;
            let Some(answer) = answer.lookup_topic_response else { return Err(strange()) };
            let found = answer.response.and_then(|found| LookupType::try_from(found).ok());
            let url = if is_safe(&self.uri) {
                answer.broker_service_url_tls.as_ref()
            } else {
                answer.broker_service_url.as_ref()
            };
            match (found, url) {
                (Some(LookupType::Failed) | None, _) => {
                    let message = answer.message.unwrap_or_default();
                    return Err(Trouble::answered(answer.error.unwrap_or_default(), &message));
                }
                (_, None) => {
                    let listener = if is_safe(&self.uri) { "TLS" } else { "listener without TLS" };
                    return Err(Trouble::passing(format!("the broker of the topic has no {listener}")));
                }
                (Some(found), Some(url)) => {
                    let target = host_and_port(url).to_owned();
                    let proxied =
                        answer.proxy_through_service_url == Some(true) || address.behind_proxy.is_some();
                    address = if proxied {
                        Address { target: self.base.target.clone(), behind_proxy: Some(target) }
                    } else {
                        Address { target, behind_proxy: None }
                    };
                    if found == LookupType::Connect {
                        return self.connection(&address).await;
                    }
                    authoritative = answer.authoritative == Some(true);
                }
            }
        }
        Err(Trouble::passing("the brokers send us from one to the other without end"))
    }

    /// The full names of all persistent topics in the namespace, those of partitions in place of partitioned ones.
    pub(super) async fn topics(&self) -> Result<Vec<String>, Trouble> {
        let connection = self.connection(&self.base).await?;
        let request_id = connection.new_id();
        let command = BaseCommand {
            r#type: Type::GetTopicsOfNamespace.into(),
            get_topics_of_namespace: Some(CommandGetTopicsOfNamespace {
                request_id,
                namespace: self.tenant_and_namespace.clone(),
                mode: Some(Mode::Persistent.into()),
                ..CommandGetTopicsOfNamespace::default()
            }),
            ..BaseCommand::default()
        };
        let answer = connection.ask(request_id, command).await?;
        Ok(answer.get_topics_of_namespace_response.ok_or_else(strange)?.topics)
    }

    /// A connection to `address`. Who asks while another one is already connecting there gets what comes of that.
    async fn connection(&self, address: &Address) -> Result<Arc<Connection>, Trouble> {
        let asked = Instant::now();
        let slot = {
            let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(slots.entry(address.clone()).or_default())
        };
        let mut slot = slot.lock().await;
        if let Some(open) = slot.open.take_if(|open| !open.is_open()) {
            drop(open);
        }
        if let Some(open) = &slot.open {
            return Ok(Arc::clone(open));
        }
        if let Some((at, trouble)) = &slot.failed
            && *at > asked
        {
            return Err(trouble.clone());
        }
        match Connection::open(address, &self.credentials).await {
            Ok(connection) => {
                let connection = Arc::new(connection);
                slot.open = Some(Arc::clone(&connection));
                Ok(connection)
            }
            Err(trouble) => {
                let trouble = if *address == self.base {
                    trouble
                } else {
                    let Address { target, behind_proxy } = address;
                    let target = behind_proxy.as_ref().unwrap_or(target);
                    Trouble::new(trouble.sort, format!("broker {target}: {trouble}"))
                };
                slot.failed = Some((Instant::now(), trouble.clone()));
                Err(trouble)
            }
        }
    }
}

fn strange() -> Trouble {
    Trouble::passing("the broker answered something else than it was asked")
}

fn is_safe(uri: &str) -> bool {
    uri.starts_with("pulsar+ssl://")
}

/// What is after the scheme.
fn host_and_port(url: &str) -> &str {
    url.split_once("://").map_or(url, |(_, rest)| rest).trim_end_matches('/')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_host_and_port() {
        for url in ["pulsar://b-1:6650", "pulsar+ssl://b-1:6650/", "b-1:6650"] {
            assert_eq!(host_and_port(url), "b-1:6650");
        }
        assert!(is_safe("pulsar+ssl://b:1") && !is_safe("pulsar://b:1"));
    }
}
