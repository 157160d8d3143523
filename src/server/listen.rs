//! Connections: taken, made safe, served, and ended in good order.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{self, ServerConfig};
use tokio_util::sync::CancellationToken;

use super::config::Certificate;
use crate::error::{Error, Kind, Result};

/// The handshake, and the head of a request, may take this long each.
const HEAD_TIME: Duration = Duration::from_secs(10);
/// Requests that are being answered when the server stops are given this long.
const LAST_ANSWERS: Duration = Duration::from_secs(3);
/// The pause after a connection could not be taken, which is for want of something.
const BREATH: Duration = Duration::from_millis(50);

/// What makes connections safe.
///
/// # Errors
/// `PipelineFile`: a file can't be read or used.
pub fn acceptor(certificate: &Certificate) -> Result<TlsAcceptor> {
    let unusable = |what: &str, path: &std::path::Path| {
        Error::new(Kind::PipelineFile, format!("{what} in [tls], {}, can't be used", path.display()))
    };
    let failed = |cause| unusable("cert", &certificate.cert).caused_by(cause);
    let chain: Vec<CertificateDer<'static>> =
        CertificateDer::pem_file_iter(&certificate.cert).and_then(Iterator::collect).map_err(failed)?;
    let key = PrivateKeyDer::from_pem_file(&certificate.key)
        .map_err(|cause| unusable("key", &certificate.key).caused_by(cause))?;
    let failed = |cause: rustls::Error| unusable("cert and key", &certificate.cert).caused_by(cause);
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(failed)?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(failed)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// Serves `app` until `over`, then lets requests be answered that have come in.
pub async fn serve(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    app: Router,
    connections: usize,
    over: CancellationToken,
) {
    let places = Arc::new(Semaphore::new(connections));
    let graceful = GracefulShutdown::new();
    loop {
        let next = async {
            // The semaphore is never closed.
            let place = Arc::clone(&places).acquire_owned().await.ok();
            (place, listener.accept().await)
        };
        let (place, accepted) = tokio::select! {
            () = over.cancelled() => break,
            next = next => next,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!("a connection could not be taken: {error}");
                tokio::time::sleep(BREATH).await;
                continue;
            }
        };
        // Events are small, and wanted at once.
        drop(stream.set_nodelay(true));
        let (tls, app, watcher, over) = (tls.clone(), app.clone(), graceful.watcher(), over.clone());
        tokio::spawn(async move {
            let _place = place;
            match tls {
                None => converse(stream, app, watcher).await,
                Some(tls) => tokio::select! {
                    () = over.cancelled() => {}
                    made = tokio::time::timeout(HEAD_TIME, tls.accept(stream)) => match made {
                        Ok(Ok(stream)) => converse(stream, app, watcher).await,
                        Ok(Err(error)) => tracing::debug!("no TLS: {error}"),
                        Err(_) => tracing::debug!("no TLS: it takes too long"),
                    },
                },
            }
        });
    }
    drop(listener);
    if tokio::time::timeout(LAST_ANSWERS, graceful.shutdown()).await.is_err() {
        tracing::debug!("some connections were cut off");
    }
}

async fn converse<S>(stream: S, app: Router, watcher: Watcher)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD_TIME);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(Some(HEAD_TIME * 2))
        .max_header_list_size(64 << 10);
    let connection =
        builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(app)).into_owned();
    if let Err(error) = watcher.watch(connection).await {
        tracing::debug!("a connection ended: {error}");
    }
}
