//! Whether the server is there, takes requests, and how its pipelines are.

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::header::CONTENT_TYPE;

use super::api::Api;
use super::problem::Problem;
use super::view;
use crate::metrics::{self, Seen};
use crate::milvus::tso::Tso;

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

/// The metrics of all pipelines.
pub async fn metrics(State(api): State<Api>) -> Response {
    let units = api.manager.units();
    let seen = units.iter().map(|(name, unit)| {
        let (record, floor) = (unit.record(), unit.floor());
        let live = unit.live();
        Seen {
            pipeline: name.clone(),
            state: live.state.name(),
            status: live.status.clone(),
            floor,
            made: Tso::parse(&record.created).unwrap_or(Tso::ZERO),
            restarts: live.restarts,
            failures: live.failures,
            last_error: live.last_error.as_ref().and_then(|reason| {
                let at: jiff::Timestamp = reason.since.parse().ok()?;
                Some((reason.kind?, at.as_second()))
            }),
        }
    });
    let text = metrics::text(seen.collect(), view::STATES);
    ([(CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response()
}
