//! The connection to a Milvus: addresses, credentials, versions, and making calls.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use http::uri::{PathAndQuery, Scheme, Uri};
use tonic::codec::{BufferSettings, Codec, EncodeBuf, Encoder};
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Response};

use super::connector;
use super::rope::Rope;
use super::status::{self, Effect};
use super::version::Version;
use crate::error::{Error, Kind, Result};
use crate::milvus::proto::common::{ClientInfo, Status};
use crate::milvus::proto::milvus::milvus_service_client::MilvusServiceClient;
use crate::milvus::proto::milvus::{ConnectRequest, GetVersionRequest};
use crate::milvus::tso::Tso;
use crate::ownership::Fence;
use crate::pipeline::{MilvusServer, Secret};
use crate::tls::Safety;

/// Milvus' proxy takes 64 MiB (`proxy.grpc.serverMaxRecvSize`); the rest is for names and headers.
pub(crate) const MAX_REQUEST: usize = 60 << 20;
/// An answer repeats the keys of an insert.
const MAX_ANSWER: usize = 256 << 20;
const WINDOW: u32 = 16 << 20;
/// Milvus' proxy cuts connections that ping more often than every 5 s.
const KEEPALIVE: Duration = Duration::from_secs(20);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);

/// A connection. It is made anew by itself when it breaks; calls that it carried then fail.
#[derive(Clone)]
pub(crate) struct Client {
    service: InterceptedService<Channel, Gate>,
    role: Role,
    uri: String,
    version: Version,
    /// The time that questions go by, of a server whose own time says nothing.
    clock: Option<Arc<AtomicU64>>,
}

/// Which side of the pipeline a server is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Source,
    Target,
}

impl Role {
    /// The word for it.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Role::Source => "source",
            Role::Target => "target",
        }
    }

    /// Names the right key of the pipeline file where it is to be looked at.
    pub(crate) fn advise(self, error: Error) -> Error {
        match error.kind() {
            Kind::Denied => {
                error.hint(format!("check `token` in {}, and the permissions of its user", self.table()))
            }
            _ => error,
        }
    }

    /// The table of the pipeline file that says how to reach it.
    fn table(self) -> &'static str {
        match self {
            Role::Source => "[source.milvus]",
            Role::Target => "[target]",
        }
    }

    fn tls_table(self) -> &'static str {
        match self {
            Role::Source => "source.milvus.tls",
            Role::Target => "target.tls",
        }
    }
}

/// The generated client on our connection.
pub(crate) type Rpc = MilvusServiceClient<InterceptedService<Channel, Gate>>;

/// A call that writes rows, encoded by us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RowCall {
    Insert,
    Upsert,
    ReplicateMessage,
}

impl Client {
    /// Connects, logs in, and asks for the version.
    ///
    /// # Errors
    /// `PipelineFile` for an impossible address or TLS file, `Unavailable`, `Denied`, `Version`; all name the address.
    pub(crate) async fn connect(target: &MilvusServer, role: Role, fence: Fence) -> Result<Client> {
        let at = |error: Error| role.advise(error).context(format!("{} {}", role.word(), target.uri));
        let (endpoint, address, safety) = endpoint(target, role).map_err(at)?;
        let gate = Gate::new(target.token.as_ref(), fence.clone()).map_err(at)?;
        let connecting = connector::connect(&endpoint, &address, safety, target.connect_timeout, fence);
        let channel = tokio::time::timeout(target.connect_timeout, connecting)
            .await
            .map_err(|_| {
                unreachable(role).caused_by(format!("no answer within {:?}", target.connect_timeout))
            })
            .and_then(|connected| connected.map_err(|error| unreachable(role).caused_by(error)))
            .map_err(at)?;
        let service = InterceptedService::new(channel, gate);
        let version = hello(&service, target.connect_timeout).await.map_err(at)?;
        Ok(Client { service, role, uri: target.uri.clone(), version, clock: None })
    }

    /// The same, but [`Client::time`] is that of `clock`.
    pub(crate) fn by_clock(self, clock: Arc<AtomicU64>) -> Client {
        Client { clock: Some(clock), ..self }
    }

    /// The time that questions go by, if that is not the server's own.
    pub(super) fn clock(&self) -> Option<Tso> {
        self.clock.as_ref().map(|clock| Tso(clock.load(Ordering::Acquire).max(1)))
    }

    /// Which side it is.
    pub(crate) fn role(&self) -> Role {
        self.role
    }

    /// The address.
    pub(crate) fn uri(&self) -> &str {
        &self.uri
    }

    /// The server's version.
    pub(crate) fn version(&self) -> &Version {
        &self.version
    }

    /// To make calls with messages that are encoded or decoded in a way of their own.
    pub(crate) fn grpc(&self) -> tonic::client::Grpc<InterceptedService<Channel, Gate>> {
        tonic::client::Grpc::new(self.service.clone()).max_decoding_message_size(MAX_ANSWER)
    }

    /// To make calls with [`answer`].
    pub(crate) fn rpc(&self) -> Rpc {
        rpc(&self.service)
    }

    /// Sends encoded rows. The answer says how many rows were taken.
    ///
    /// # Errors
    /// As [`status::check`] with rows at stake.
    pub(crate) async fn send_rows(
        &self,
        call: RowCall,
        rope: Rope,
        deadline: Duration,
        what: &str,
    ) -> Result<RowsAnswer> {
        let path = PathAndQuery::from_static(match call {
            RowCall::Insert => "/milvus.proto.milvus.MilvusService/Insert",
            RowCall::Upsert => "/milvus.proto.milvus.MilvusService/Upsert",
            RowCall::ReplicateMessage => "/milvus.proto.milvus.MilvusService/ReplicateMessage",
        });
        let mut grpc = self.grpc();
        let sent = async {
            grpc.ready().await.map_err(|error| tonic::Status::from_error(Box::new(error)))?;
            grpc.unary(request(rope, deadline), path, RopeCodec::default()).await
        };
        let advise = |error| self.role.advise(error);
        let answer = answer(sent, deadline, Effect::Rows, what).await.map_err(advise)?;
        status::check(answer.status.as_ref(), Effect::Rows, what).map_err(advise)?;
        Ok(answer)
    }
}

/// Makes a call whose answer is awaited for `deadline` at most.
///
/// # Errors
/// If the call as such fails; the status in the answer is not looked at.
pub(crate) async fn answer<T>(
    call: impl Future<Output = Result<Response<T>, tonic::Status>>,
    deadline: Duration,
    effect: Effect,
    what: &str,
) -> Result<T> {
    match tokio::time::timeout(deadline, call).await {
        Ok(Ok(response)) => Ok(response.into_inner()),
        Ok(Err(error)) => Err(status::of_call(error, effect, what)),
        Err(_) => Err(status::of_silence(effect, what)),
    }
}

/// A request that tells the server its deadline.
pub(crate) fn request<T>(message: T, deadline: Duration) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(deadline);
    request.extensions_mut().insert(Deadline(deadline));
    request
}

fn rpc(service: &InterceptedService<Channel, Gate>) -> Rpc {
    MilvusServiceClient::new(service.clone()).max_decoding_message_size(MAX_ANSWER)
}

/// Logs in and asks for the version.
async fn hello(service: &InterceptedService<Channel, Gate>, deadline: Duration) -> Result<Version> {
    let mut rpc = rpc(service);
    let host = std::fs::read_to_string("/etc/hostname").unwrap_or_default().trim().to_owned();
    let info = ClientInfo {
        sdk_type: "Rust".into(),
        sdk_version: env!("CARGO_PKG_VERSION").into(),
        local_time: jiff::Timestamp::now().to_string(),
        host,
        ..Default::default()
    };
    let message = ConnectRequest { client_info: Some(info), ..Default::default() };
    let connected =
        answer(rpc.connect(request(message, deadline)), deadline, Effect::Repeatable, "connecting").await;
    let connected = connected.map_err(|error| match error.kind() {
        Kind::Version => Error::new(Kind::Version, "this is not a Milvus 2.3 or later")
            .hint("the address of Milvus' gRPC port is needed, by default 19530"),
        _ => error,
    })?;
    status::check(connected.status.as_ref(), Effect::Repeatable, "connecting")?;
    let call = rpc.get_version(request(GetVersionRequest {}, deadline));
    let version = answer(call, deadline, Effect::Repeatable, "asking for the version").await?;
    status::check(version.status.as_ref(), Effect::Repeatable, "asking for the version")?;
    Version::parse(&version.version)
}

/// With its address, and what makes connections to it safe, if that is wanted.
fn endpoint(target: &MilvusServer, role: Role) -> Result<(Endpoint, Uri, Option<Safety>)> {
    let invalid = |message: &str| Error::new(Kind::PipelineFile, message.to_owned());
    let unusable = |error: http::Error| invalid("this is not an address").caused_by(error);
    let address = Uri::try_from(&target.uri).map_err(|error| unusable(error.into()))?;
    let safety = match address.scheme_str() {
        Some("https") => {
            let tls = target.tls.clone().unwrap_or_default();
            Some(Safety::new(&tls, role.tls_table(), &[b"h2"])?)
        }
        Some("http") if target.tls.is_none() => None,
        Some("http") => {
            return Err(invalid("TLS settings with an address without TLS")
                .hint("write `https://` in `uri`, or leave the TLS settings out"));
        }
        _ => return Err(invalid("this address has no scheme").hint("write `http://host:19530`")),
    };
    // As far as tonic knows there is no TLS: the connector sees to it.
    let mut inside = address.clone().into_parts();
    inside.scheme = Some(Scheme::HTTP);
    let endpoint = Endpoint::from(Uri::from_parts(inside).map_err(|error| unusable(error.into()))?)
        .origin(address.clone())
        .connect_timeout(target.connect_timeout)
        .tcp_nodelay(true)
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(WINDOW)
        .http2_keep_alive_interval(KEEPALIVE)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .keep_alive_while_idle(true);
    Ok((endpoint, address, safety))
}

fn unreachable(role: Role) -> Error {
    Error::new(Kind::Unavailable, "the server can't be reached")
        .hint(format!("check `uri` in {}, and that Milvus is running", role.table()))
}

/// What each call passes last: it gets the token, as Milvus' own clients do (base64 in `authorization`), and no call gets
/// out, or may take, longer than the pipeline is ours.
#[derive(Clone)]
pub(crate) struct Gate {
    token: Option<MetadataValue<Ascii>>,
    fence: Fence,
}

/// How long a call may take, as its sender wants it.
#[derive(Clone, Copy)]
struct Deadline(Duration);

impl Gate {
    fn new(token: Option<&Secret>, fence: Fence) -> Result<Gate> {
        let Some(token) = token else { return Ok(Gate { token: None, fence }) };
        let mut value: MetadataValue<Ascii> = BASE64_STANDARD
            .encode(&token.0)
            .parse()
            .map_err(|_| Error::new(Kind::Internal, "the token can't be put into a header"))?;
        value.set_sensitive(true);
        Ok(Gate { token: Some(value), fence })
    }
}

impl Interceptor for Gate {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, tonic::Status> {
        if let Some(token) = &self.token {
            request.metadata_mut().insert("authorization", token.clone());
        }
        if let Some(Deadline(wanted)) = request.extensions().get::<Deadline>().copied() {
            let longest = self.fence.longest_call(wanted).map_err(status::of_fence)?;
            if longest < wanted {
                request.set_timeout(longest);
            }
        }
        Ok(request)
    }
}

/// What is of interest in a `milvus.MutationResult`, which also holds the keys of all rows, and in a
/// `milvus.ReplicateMessageResponse`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct RowsAnswer {
    #[prost(message, optional, tag = "1")]
    status: Option<Status>,
    #[prost(int64, tag = "6")]
    pub(crate) insert_count: i64,
}

/// Writes a rope's pieces into the connection's buffer.
#[derive(Default)]
struct RopeCodec {
    answers: tonic_prost::ProstCodec<(), RowsAnswer>,
}

impl Codec for RopeCodec {
    type Encode = Rope;
    type Decode = RowsAnswer;
    type Encoder = RopeEncoder;
    type Decoder = tonic_prost::ProstDecoder<RowsAnswer>;

    fn encoder(&mut self) -> RopeEncoder {
        RopeEncoder
    }

    fn decoder(&mut self) -> Self::Decoder {
        self.answers.decoder()
    }
}

struct RopeEncoder;

impl Encoder for RopeEncoder {
    type Item = Rope;
    type Error = tonic::Status;

    fn encode(&mut self, rope: Rope, out: &mut EncodeBuf<'_>) -> Result<(), tonic::Status> {
        use bytes::BufMut;
        out.reserve(rope.len());
        for piece in rope.into_pieces() {
            out.put_slice(&piece);
        }
        Ok(())
    }

    fn buffer_settings(&self) -> BufferSettings {
        // The size is known: `encode` reserves it.
        BufferSettings::new(64, usize::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_gets_no_more_time_than_the_ownership_and_none_without_it() {
        let fence = Fence::new(Duration::from_secs(2));
        let mut gate = Gate::new(None, fence.clone()).unwrap();
        let mut pass = |deadline| gate.call(request((), Duration::from_secs(deadline)));
        let timeout = |request: &Request<()>| {
            let text = request.metadata().get("grpc-timeout").unwrap().to_str().unwrap();
            let (number, unit) = text.split_at(text.len() - 1);
            let micros = match unit {
                "n" => 1e-3,
                "u" => 1.0,
                "m" => 1e3,
                "S" => 1e6,
                other => panic!("{other}"),
            };
            number.parse::<f64>().unwrap() * micros / 1e6
        };
        assert!((timeout(&pass(30).unwrap()) - 30.0).abs() < 0.01);
        fence.keep(crate::clock::up() + Duration::from_secs(3));
        let longest = timeout(&pass(30).unwrap());
        assert!(longest <= 5.0 && longest > 4.5, "{longest}");
        assert!((timeout(&pass(1).unwrap()) - 1.0).abs() < 0.01);
        fence.close();
        let error = status::of_call(pass(1).unwrap_err(), Effect::Rows, "Insert");
        assert_eq!(error.kind(), Kind::Unavailable, "what was not sent is not in doubt");
        assert!(error.message().contains("nothing is sent"), "{error}");
    }
}
