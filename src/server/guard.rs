//! What holds for every request: an end in time, an answer also after a panic, and a body of bounded size.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt;
use http::StatusCode;
use http::header::{CACHE_CONTROL, CONTENT_LENGTH, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderMap, HeaderValue};

use super::problem::Problem;
use crate::dataflow::host::panicked;

/// Answers in time, whatever happens.
pub async fn guard(State(time): State<Duration>, request: Request, next: Next) -> Response {
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let answer = AssertUnwindSafe(next.run(request)).catch_unwind();
    let mut answer = match tokio::time::timeout(time, answer).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(panic)) => {
            let error = panicked("the request", &*panic);
            tracing::error!(%method, path, "{}", error.report());
            Problem::from(error).into_response()
        }
        Err(_) => {
            let detail = format!("not done within {} s; it may still be done", time.as_secs());
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail)
                .hint("look what became of it")
                .into_response()
        }
    };
    tracing::debug!(%method, path, status = answer.status().as_u16(), "request");
    let headers = answer.headers_mut();
    headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    answer
}

/// Takes in a body of at most `limit` bytes.
///
/// # Errors
/// 413, or 400 if it breaks off.
pub async fn read_body(headers: &HeaderMap, body: Body, limit: usize) -> Result<Bytes, Problem> {
    let too_large = || {
        Problem::new(StatusCode::PAYLOAD_TOO_LARGE, format!("the body is larger than {limit} bytes"))
            .hint("the limit is body in [limits] of the server's file")
    };
    let announced = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|length| length > u64::try_from(limit).unwrap_or(u64::MAX)) {
        return Err(too_large());
    }
    axum::body::to_bytes(body, limit).await.map_err(|error| {
        let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
        if cause.contains("length limit") {
            too_large()
        } else {
            Problem::new(StatusCode::BAD_REQUEST, "the body breaks off")
        }
    })
}
