//! `POST /cdc`: the HTTP API of milvus-cdc, so that what was written for that tool goes on working. `docs/milvus-cdc.md`
//! tells what is the same and what is not.
//!
//! ```text
//! body ──request.rs──► Create ──validate.rs──► ──overlap.rs──► what to leave out ──translate.rs──► definition
//!        decode.rs                                                                                     │
//! answer ◄──response.rs──────────────────────────────── task.rs ◄──── service.rs ◄──────────────── the manager
//! ```

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, any};
use axum::{Extension, Router};
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Method, Request};
use serde_json::Value;

use super::auth::Role;

mod decode;
pub mod import;
mod maintenance;
mod overlap;
mod request;
mod response;
mod service;
mod settings;
mod task;
#[cfg(test)]
mod tests;
mod translate;
mod validate;

pub use self::service::Service;
pub use self::settings::{Settings, Table};
pub(super) use self::task::held_back;

/// `/cdc`: whatever is asked, and whatever comes of it, the answer has status 200, and JSON with a `code`. `body_limit` is the
/// most bytes of a body. `metrics` is at the path where milvus-cdc has its own.
pub fn router<S: Clone + Send + Sync + 'static>(
    service: Arc<Service>,
    body_limit: usize,
    metrics: MethodRouter<S>,
) -> Router<S> {
    let tasks = Router::new().route("/cdc", any(answer)).with_state((service, body_limit));
    tasks.route("/cdc/metrics", metrics)
}

async fn answer(
    State((service, body_limit)): State<(Arc<Service>, usize)>,
    Extension(role): Extension<Role>,
    request: Request<Body>,
) -> Response {
    let answer = if *request.method() == Method::POST {
        match axum::body::to_bytes(request.into_body(), body_limit).await {
            Ok(body) => {
                // Not dropped where the caller goes away: what was begun is finished, or undone.
                let answered = tokio::spawn(async move { service.answer(&body, role).await });
                answered.await.unwrap_or_else(|error| service::unfinished(&error))
            }
            Err(error) => service::unreadable(error),
        }
    } else {
        service::wrong_method()
    };
    in_json(&answer)
}

/// As Go's encoder writes it: with the end of a line.
fn in_json(answer: &Value) -> Response {
    let mut response = format!("{answer}\n").into_response();
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
