//! One connection to a broker: requests and their answers, and what is sent to consumers.
//!
//! Commands are those of the `pulsar` crate. Its consumers are not used: they begin anew at their first position whenever a
//! connection is lost, without a word.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use pulsar::error::ConnectionError;
use pulsar::proto::base_command::Type;
use pulsar::proto::{
    AuthData, BaseCommand, CommandAuthResponse, CommandCloseConsumer, CommandConnect, CommandPing,
    CommandPong,
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::codec::Framed;

use super::inbox::Inbox;
use super::trouble::{Sort, Trouble};
use super::wire::{Frames, Received};
use crate::pipeline::Secret;
use crate::tls::Safety;

/// How long connecting may take, greetings included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long an answer may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(8);
/// A broker that is silent for this long is asked whether it is there …
const SILENCE: Duration = Duration::from_secs(3);
/// … and if it still is silent after this long, it is not.
const DEAD_AFTER: Duration = Duration::from_secs(8);
/// The version of the protocol that is spoken: the first that tells where a subscription stands (`v17` in
/// `PulsarApi.proto`).
const PROTOCOL: i32 = 17;

trait Socket: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Socket for T {}

type Stream = Framed<Box<dyn Socket>, Frames>;

/// Where a broker is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Address {
    /// What to connect to, `host:port`.
    pub(super) target: String,
    /// The broker that a proxy there is to be told of, `host:port`.
    pub(super) behind_proxy: Option<String>,
}

/// What every connection is made with.
pub(super) struct Credentials {
    pub(super) safety: Option<Safety>,
    pub(super) token: Option<Secret>,
}

/// An open connection. Closed when dropped.
pub(super) struct Connection {
    shared: Arc<Shared>,
    tasks: [AbortHandle; 2],
}

struct Shared {
    outbox: mpsc::UnboundedSender<BaseCommand>,
    ids: AtomicU64,
    state: Mutex<State>,
    credentials: Arc<Credentials>,
}

#[derive(Default)]
struct State {
    requests: HashMap<u64, oneshot::Sender<BaseCommand>>,
    consumers: HashMap<u64, Arc<Inbox>>,
    over: Option<Trouble>,
}

impl Connection {
    /// Connects and says who we are.
    pub(super) async fn open(
        address: &Address,
        credentials: &Arc<Credentials>,
    ) -> Result<Connection, Trouble> {
        let connect = async {
            let mut stream = Framed::new(dial(&address.target, credentials.safety.as_ref()).await?, Frames);
            greet(&mut stream, address, credentials).await?;
            Ok(stream)
        };
        let stream = match timeout(CONNECT_TIMEOUT, connect).await {
            Ok(result) => result?,
            Err(_) => {
                let seconds = CONNECT_TIMEOUT.as_secs();
                return Err(Trouble::passing(format!("no answer to connecting within {seconds} s")));
            }
        };
        let (sink, stream) = stream.split();
        let (outbox, messages) = mpsc::unbounded_channel();
        let shared = Arc::new(Shared {
            outbox,
            ids: AtomicU64::new(1),
            state: Mutex::default(),
            credentials: Arc::clone(credentials),
        });
        let tasks = [
            tokio::spawn(send(sink, messages, Arc::clone(&shared))).abort_handle(),
            tokio::spawn(receive(stream, Arc::clone(&shared))).abort_handle(),
        ];
        Ok(Connection { shared, tasks })
    }

    /// Whether it is still of use.
    pub(super) fn is_open(&self) -> bool {
        self.shared.lock().over.is_none()
    }

    /// A number that no other request or consumer of this connection has.
    pub(super) fn new_id(&self) -> u64 {
        self.shared.ids.fetch_add(1, Ordering::Relaxed)
    }

    /// Sends a command that has no answer.
    pub(super) fn send(&self, command: BaseCommand) {
        self.shared.send(command);
    }

    /// Sends the request `id` and waits for its answer.
    pub(super) async fn ask(&self, id: u64, command: BaseCommand) -> Result<BaseCommand, Trouble> {
        let (sender, answer) = oneshot::channel();
        {
            let mut state = self.shared.lock();
            if let Some(trouble) = &state.over {
                return Err(trouble.clone());
            }
            state.requests.insert(id, sender);
        }
        self.shared.send(command);
        let answer = timeout(ANSWER_TIMEOUT, answer).await;
        let mut state = self.shared.lock();
        state.requests.remove(&id);
        match answer {
            Ok(Ok(BaseCommand { error: Some(error), .. })) => {
                Err(Trouble::answered(error.error, &error.message))
            }
            Ok(Ok(command)) => Ok(command),
            Ok(Err(_)) => {
                Err(state.over.clone().unwrap_or_else(|| Trouble::passing("the connection was closed")))
            }
            Err(_) => {
                Err(Trouble::passing(format!("no answer to a request within {} s", ANSWER_TIMEOUT.as_secs())))
            }
        }
    }

    /// Lets what the broker sends to consumer `id` go to `inbox`.
    pub(super) fn register(&self, id: u64, inbox: &Arc<Inbox>) {
        let mut state = self.shared.lock();
        match &state.over {
            Some(trouble) => inbox.end(trouble.clone()),
            None => drop(state.consumers.insert(id, Arc::clone(inbox))),
        }
    }

    /// Consumer `id` takes nothing more, and the broker need not keep it.
    pub(super) fn close_consumer(&self, id: u64) {
        if self.shared.lock().consumers.remove(&id).is_some() {
            self.shared.close_consumer(id);
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.tasks.iter().for_each(AbortHandle::abort);
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn send(&self, command: BaseCommand) {
        // Without a sending task the connection is over, which is told by `over`.
        let _ = self.outbox.send(command);
    }

    fn close_consumer(&self, consumer_id: u64) {
        let request_id = self.ids.fetch_add(1, Ordering::Relaxed);
        self.send(BaseCommand {
            r#type: Type::CloseConsumer.into(),
            close_consumer: Some(CommandCloseConsumer { consumer_id, request_id }),
            ..BaseCommand::default()
        });
    }

    /// Ends everything that depends on the connection.
    fn end(&self, trouble: Trouble) {
        let mut state = self.lock();
        let trouble = state.over.get_or_insert(trouble).clone();
        state.requests.clear();
        for (_, inbox) in state.consumers.drain() {
            inbox.end(trouble.clone());
        }
    }

    /// Deals with what a broker says.
    fn take(&self, received: Received) {
        match received {
            Received::Command(command) => self.take_command(*command),
            Received::Entry(id, frame) => {
                let mut state = self.lock();
                if state.consumers.get(&id).is_some_and(|inbox| !inbox.push(frame)) {
                    state.consumers.remove(&id);
                    drop(state);
                    self.close_consumer(id);
                }
            }
        }
    }

    fn take_command(&self, command: BaseCommand) {
        if command.ping.is_some() {
            self.send(BaseCommand {
                r#type: Type::Pong.into(),
                pong: Some(CommandPong {}),
                ..BaseCommand::default()
            });
        } else if let Some(closed) = &command.close_consumer {
            if let Some(inbox) = self.lock().consumers.remove(&closed.consumer_id) {
                inbox.end(Trouble::passing("the broker sent us away from the topic"));
            }
        } else if let Some(ended) = &command.reached_end_of_topic {
            if let Some(inbox) = self.lock().consumers.remove(&ended.consumer_id) {
                inbox.end(Trouble::passing("the topic has been terminated"));
            }
        } else if command.auth_challenge.is_some() {
            let response = AuthData {
                auth_method_name: Some("token".to_owned()),
                auth_data: self.credentials.token.as_ref().map(|token| token.0.clone().into_bytes()),
            };
            self.send(BaseCommand {
                r#type: Type::AuthResponse.into(),
                auth_response: Some(CommandAuthResponse {
                    client_version: Some(client()),
                    response: Some(response),
                    protocol_version: Some(PROTOCOL),
                }),
                ..BaseCommand::default()
            });
        } else if let Some(id) = answered(&command)
            && let Some(request) = self.lock().requests.remove(&id)
        {
            // Who asked may have given up.
            let _ = request.send(command);
        }
    }
}

/// The request that a command is the answer to.
fn answered(command: &BaseCommand) -> Option<u64> {
    let BaseCommand {
        success,
        error,
        lookup_topic_response,
        get_last_message_id_response,
        get_topics_of_namespace_response,
        ..
    } = command;
    success
        .as_ref()
        .map(|answer| answer.request_id)
        .or_else(|| error.as_ref().map(|answer| answer.request_id))
        .or_else(|| lookup_topic_response.as_ref().map(|answer| answer.request_id))
        .or_else(|| get_last_message_id_response.as_ref().map(|answer| answer.request_id))
        .or_else(|| get_topics_of_namespace_response.as_ref().map(|answer| answer.request_id))
}

async fn dial(target: &str, safety: Option<&Safety>) -> Result<Box<dyn Socket>, Trouble> {
    let failed = |error: std::io::Error| Trouble::io(&error);
    let socket = TcpStream::connect(target).await.map_err(failed)?;
    socket.set_nodelay(true).map_err(failed)?;
    let Some(safety) = safety else { return Ok(Box::new(socket)) };
    let host = target.rsplit_once(':').map_or(target, |(host, _)| host);
    Ok(Box::new(safety.connect(host, socket).await.map_err(failed)?))
}

async fn greet(stream: &mut Stream, address: &Address, credentials: &Credentials) -> Result<(), Trouble> {
    let command = BaseCommand {
        r#type: Type::Connect.into(),
        connect: Some(CommandConnect {
            client_version: client(),
            auth_method_name: credentials.token.as_ref().map(|_| "token".to_owned()),
            auth_data: credentials.token.as_ref().map(|token| token.0.clone().into_bytes()),
            protocol_version: Some(PROTOCOL),
            proxy_to_broker_url: address.behind_proxy.clone(),
            ..CommandConnect::default()
        }),
        ..BaseCommand::default()
    };
    stream.send(command).await.map_err(failed)?;
    let answer = match stream.next().await {
        Some(Ok(Received::Command(answer))) => answer,
        Some(Err(error)) => return Err(failed(error)),
        None => return Err(Trouble::passing("the connection was closed at once")),
        Some(Ok(Received::Entry(..))) => return Err(strange()),
    };
    match *answer {
        BaseCommand { connected: Some(_), .. } => Ok(()),
        BaseCommand { error: Some(error), .. } => Err(Trouble::answered(error.error, &error.message)),
        BaseCommand { auth_challenge: Some(_), .. } => {
            Err(Trouble::new(Sort::Denied, "the broker wants more than a token"))
        }
        _ => Err(strange()),
    }
}

fn strange() -> Trouble {
    Trouble::passing("what answers does not speak Pulsar's protocol")
}

fn failed(error: ConnectionError) -> Trouble {
    match error {
        ConnectionError::Io(error) => Trouble::io(&error),
        other => Trouble::passing(other.to_string()),
    }
}

fn client() -> String {
    concat!("migrans-", env!("CARGO_PKG_VERSION")).to_owned()
}

/// Sends what there is to send, until the connection ends.
async fn send(
    mut sink: SplitSink<Stream, BaseCommand>,
    mut messages: mpsc::UnboundedReceiver<BaseCommand>,
    shared: Arc<Shared>,
) {
    while let Some(message) = messages.recv().await {
        match timeout(DEAD_AFTER, sink.send(message)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return shared.end(failed(error)),
            Err(_) => return shared.end(dead()),
        }
    }
}

/// Receives, until the connection ends; a broker that has fallen silent is asked whether it is there.
async fn receive(mut stream: SplitStream<Stream>, shared: Arc<Shared>) {
    let mut heard = Instant::now();
    let mut asked = false;
    loop {
        let patience = if asked { DEAD_AFTER } else { SILENCE };
        match timeout_at(heard + patience, stream.next()).await {
            Ok(Some(Ok(message))) => {
                heard = Instant::now();
                asked = false;
                shared.take(message);
            }
            Ok(Some(Err(error))) => return shared.end(failed(error)),
            Ok(None) => return shared.end(Trouble::passing("the connection was closed")),
            Err(_) if asked => return shared.end(dead()),
            Err(_) => {
                asked = true;
                shared.send(BaseCommand {
                    r#type: Type::Ping.into(),
                    ping: Some(CommandPing {}),
                    ..BaseCommand::default()
                });
            }
        }
    }
}

fn dead() -> Trouble {
    Trouble::passing(format!("not a word for {} s", DEAD_AFTER.as_secs()))
}
