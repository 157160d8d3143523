//! Connections that write nothing once their pipeline may be another process's.
//!
//! The fence is asked before each write to the socket. So nothing can be sent late that was waiting in a buffer of ours,
//! however long the process was stopped. What remains is the time between that and the system call, some hundred
//! nanoseconds: if the process is stopped just there, what it writes when it goes on is one frame. So the fence is asked
//! again afterwards, and the connection broken off if it has closed meanwhile, so that the server gives the call up.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_util::either::Either;
use tonic::transport::{Channel, Endpoint};
use tower::{Service, ServiceExt, service_fn};

use crate::ownership::Fence;
use crate::tls::Safety;

/// Connects `endpoint` to `address` by way of `fence`, with TLS by `safety`.
pub(super) async fn connect(
    endpoint: &Endpoint,
    address: &Uri,
    safety: Option<Safety>,
    connect_timeout: Duration,
    fence: Fence,
) -> Result<Channel, tonic::transport::Error> {
    let mut http = HttpConnector::new();
    http.enforce_http(false);
    http.set_nodelay(true);
    http.set_connect_timeout(Some(connect_timeout));
    let address = address.clone();
    let connector = service_fn(move |_| {
        let (mut http, address, safety) = (http.clone(), address.clone(), safety.clone());
        let fence = fence.clone();
        async move {
            let stream = http.ready().await?.call(address.clone()).await?.into_inner();
            if let Some(tail) = fence.tail() {
                // What was sent and not taken in by then is thrown away, not delivered later.
                let tail = u32::try_from(tail.as_millis()).unwrap_or(u32::MAX);
                rustix::net::sockopt::set_tcp_user_timeout(&stream, tail).map_err(io::Error::from)?;
            }
            let stream = Fenced { stream, fence };
            let stream = match safety {
                Some(safety) => {
                    let host = address.host().unwrap_or_default();
                    Either::Right(safety.connect(host, stream).await?)
                }
                None => Either::Left(stream),
            };
            Ok::<_, Box<dyn std::error::Error + Send + Sync>>(TokioIo::new(stream))
        }
    });
    endpoint.connect_with_connector(connector).await
}

/// A connection behind a fence.
struct Fenced {
    stream: TcpStream,
    fence: Fence,
}

impl Fenced {
    fn guarded(
        &mut self,
        write: impl FnOnce(Pin<&mut TcpStream>) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        self.fence.check().map_err(io::Error::other)?;
        let written = write(Pin::new(&mut self.stream));
        if let Err(closed) = self.fence.check() {
            // Reset: what has not left yet is thrown away.
            let _ = rustix::net::sockopt::set_socket_linger(&self.stream, Some(Duration::ZERO));
            return Poll::Ready(Err(io::Error::other(closed)));
        }
        written
    }
}

impl AsyncRead for Fenced {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Fenced {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.guarded(|stream| stream.poll_write(context, bytes))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.guarded(|stream| stream.poll_write_vectored(context, pieces))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn nothing_passes_a_closed_fence() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let fence = Fence::new(Duration::from_secs(1));
        let mut fenced = Fenced { stream, fence: fence.clone() };
        let (mut other, _) = listener.accept().await.unwrap();
        fenced.write_all(b"before").await.unwrap();
        fence.close();
        let error = fenced.write_all(b"after").await.unwrap_err();
        assert!(error.to_string().contains("nothing is sent"), "{error}");
        let error = fenced.write_vectored(&[io::IoSlice::new(b"after")]).await.unwrap_err();
        assert!(error.to_string().contains("nothing is sent"), "{error}");
        drop(fenced);
        let mut seen = Vec::new();
        other.read_to_end(&mut seen).await.unwrap();
        assert_eq!(seen, b"before");
    }

    #[tokio::test]
    async fn a_write_during_which_the_fence_closes_breaks_the_connection_off() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let fence = Fence::new(Duration::from_secs(1));
        let mut fenced = Fenced { stream, fence: fence.clone() };
        let (mut other, _) = listener.accept().await.unwrap();
        let written = fenced.guarded(|_| {
            fence.close();
            Poll::Ready(Ok(5))
        });
        assert!(matches!(written, Poll::Ready(Err(_))));
        drop(fenced);
        let error = other.read_to_end(&mut Vec::new()).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    }
}
