//! Server-sent events: how one pipeline goes on.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::Stream;
use futures_util::stream::unfold;
use http::StatusCode;
use serde_json::json;
use tokio::sync::watch;
use tokio::time::{Interval, MissedTickBehavior, interval};

use super::api::{Api, find};
use super::manager::Manager;
use super::problem::Problem;
use super::unit::Unit;

/// How often progress is told.
const PROGRESS_EVERY: Duration = Duration::from_secs(1);

struct Listening {
    name: String,
    manager: Manager,
    unit: Arc<Unit>,
    states: watch::Receiver<u64>,
    pipelines: watch::Receiver<u64>,
    ticks: Interval,
    due: VecDeque<Event>,
    over: bool,
}

/// Follow a pipeline
///
/// Server-sent events: `state` now and whenever the pipeline's state or its reason changes, `progress` with its report every
/// second while it runs, and `end` when it is removed or the server stops.
#[utoipa::path(
    get, path = "/api/v1/pipelines/{name}/events", tag = "pipelines", params(("name" = String, Path, description = "Its name")),
    responses(
        (status = 200, description = "Events", body = String, content_type = "text/event-stream"),
        (status = "default", description = "What is wrong", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub async fn events(
    State(api): State<Api>,
    path: Result<Path<String>, PathRejection>,
) -> Result<Response, Problem> {
    let Path(name) =
        path.map_err(|_| Problem::new(StatusCode::BAD_REQUEST, "the name in the path is not UTF-8"))?;
    let unit = find(&api, &name)?;
    let mut ticks = interval(PROGRESS_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let listening = Listening {
        states: unit.changes(),
        pipelines: api.manager.changes(),
        manager: api.manager,
        due: VecDeque::from([state(&unit)]),
        name,
        unit,
        ticks,
        over: false,
    };
    let mut answer = Sse::new(follow(listening)).keep_alive(KeepAlive::default()).into_response();
    // A proxy in between is not to collect them.
    answer.headers_mut().insert("x-accel-buffering", http::HeaderValue::from_static("no"));
    Ok(answer)
}

fn follow(listening: Listening) -> impl Stream<Item = Result<Event, Infallible>> {
    unfold(listening, |mut listening| async move {
        loop {
            if let Some(event) = listening.due.pop_front() {
                return Some((Ok(event), listening));
            }
            if listening.over {
                return None;
            }
            listening.wait().await;
        }
    })
}

impl Listening {
    /// Waits until something is due.
    async fn wait(&mut self) {
        tokio::select! {
            biased;
            _ = self.pipelines.changed() => {
                let is_there = self.manager.unit(&self.name).is_some_and(|unit| Arc::ptr_eq(&unit, &self.unit));
                if !is_there || self.manager.is_closing() {
                    let reason = if is_there { "the server stops" } else { "the pipeline was removed" };
                    self.due.push_back(event("end", &json!({"reason": reason})));
                    self.over = true;
                }
            }
            _ = self.states.changed() => self.due.push_back(state(&self.unit)),
            _ = self.ticks.tick() => {
                let view = self.unit.view();
                if let Some(report) = view.report.filter(|_| self.unit.is_active()) {
                    self.due.push_back(event("progress", &report));
                }
            }
        }
    }
}

fn state(unit: &Unit) -> Event {
    let view = unit.view();
    event("state", &json!({"name": view.name, "state": view.state, "reason": view.reason}))
}

fn event(kind: &str, data: &impl serde::Serialize) -> Event {
    let text = serde_json::to_string(data).unwrap_or_default();
    Event::default().event(kind).data(text)
}
