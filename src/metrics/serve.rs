//! Metrics of a process that runs one pipeline: `migrans run --metrics`.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::StatusCode;
use http::header::CONTENT_TYPE;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::{Seen, text};
use crate::error::{Error, Kind, Result};
use crate::server::listen;

/// Scrapers and probes at a time.
const CONNECTIONS: usize = 64;

/// The states of a single pipeline.
pub const STATES: &[&str] = &["initial", "running", "standing_by", "retrying"];

/// What is shown: replaced whenever the run tells something.
pub type Shown = Arc<Mutex<Seen>>;

/// Answers `/metrics`, `/healthz` and `/readyz` on `address` until the process ends.
///
/// # Errors
/// `Usage`: the address can't be listened on.
pub fn serve(address: SocketAddr, shown: Shown) -> Result<()> {
    let failed = |cause: std::io::Error| {
        Error::new(Kind::Usage, format!("can't listen on {address} for metrics")).caused_by(cause)
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
    let listener = runtime.block_on(TcpListener::bind(address)).map_err(failed)?;
    tracing::info!("metrics at http://{}/metrics", listener.local_addr().unwrap_or(address));
    let app = Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get("ok\n"))
        .route("/readyz", get(ready))
        .with_state(shown);
    let serve = move || {
        runtime.block_on(listen::serve(listener, None, app, CONNECTIONS, CancellationToken::new()));
    };
    thread::Builder::new().name("metrics".to_owned()).spawn(serve).map_err(failed)?;
    Ok(())
}

async fn metrics(State(shown): State<Shown>) -> Response {
    let seen = shown.lock().unwrap_or_else(PoisonError::into_inner).clone();
    ([(CONTENT_TYPE, super::CONTENT_TYPE)], text(vec![seen], STATES)).into_response()
}

/// Ready is what runs, or would at once if the owner were gone.
async fn ready(State(shown): State<Shown>) -> Response {
    match shown.lock().unwrap_or_else(PoisonError::into_inner).state {
        "running" | "standing_by" => "ok\n".into_response(),
        state => (StatusCode::SERVICE_UNAVAILABLE, format!("{state}\n")).into_response(),
    }
}
