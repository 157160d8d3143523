//! Whether the server is there, and takes requests.

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::StatusCode;

use super::api::Api;
use super::problem::Problem;

/// It is there.
pub async fn alive() -> &'static str {
    "ok\n"
}

/// It has brought its pipelines back, and is not being stopped. How these are is for the metrics to tell.
pub async fn ready(State(api): State<Api>) -> Response {
    if api.manager.is_closing() {
        return Problem::new(StatusCode::SERVICE_UNAVAILABLE, "the server is being stopped").into_response();
    }
    "ok\n".into_response()
}
