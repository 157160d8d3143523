//! `/api/v1/pipelines`: pipelines as resources.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use http::header::{CONTENT_TYPE, LOCATION};
use http::{HeaderMap, HeaderValue, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::auth::Role;
use super::guard::read_body;
use super::manager::{Manager, Options, Outcome};
use super::problem::Problem;
use super::view::View;
use super::{StateOf, unit::Unit};
use crate::error::Kind;
use crate::progress::Report;

/// What the handlers work with.
#[derive(Clone)]
pub struct Api {
    /// The pipelines.
    pub manager: Manager,
    /// The most bytes of a body.
    pub body_limit: usize,
}

/// All pipelines.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct Pipelines {
    /// By name.
    pipelines: Vec<View>,
}

/// What a removed pipeline leaves.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct Removed {
    /// What was removed with it, in words.
    removed: Vec<String>,
}

/// Why a pipeline is paused.
#[derive(Debug, Default, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Pause {
    /// In words.
    #[schema(max_length = 1000, required = false)]
    #[serde(default)]
    reason: String,
}

/// Which pipelines to list.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
pub struct Filter {
    /// Only those with this label: `team=search`.
    #[param(required = false)]
    label: Option<String>,
}

/// How to make a pipeline.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
pub struct Making {
    /// A new pipeline is paused from the beginning.
    #[serde(default)]
    #[param(required = false)]
    paused: bool,
}

/// How to remove a pipeline.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
pub struct Removal {
    /// What becomes of its state.
    #[serde(default)]
    #[param(required = false)]
    state: StateOf,
}

type Name = Result<Path<String>, PathRejection>;
type Queried<T> = Result<Query<T>, QueryRejection>;

fn name(name: Name) -> Result<String, Problem> {
    name.map(|Path(name)| name)
        .map_err(|_| Problem::new(StatusCode::BAD_REQUEST, "the name in the path is not UTF-8"))
}

fn query<T>(query: Queried<T>) -> Result<T, Problem> {
    query
        .map(|Query(query)| query)
        .map_err(|rejection| Problem::new(StatusCode::BAD_REQUEST, rejection.body_text()))
}

/// List the pipelines
#[utoipa::path(
    get, path = "/api/v1/pipelines", tag = "pipelines", params(Filter),
    responses(
        (status = 200, description = "All of them, by name", body = Pipelines),
        (status = "default", description = "What is wrong", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub async fn list(State(api): State<Api>, filter: Queried<Filter>) -> Result<Response, Problem> {
    let Filter { label } = query(filter)?;
    let wanted = label.as_deref().map(|label| label.split_once('=').unwrap_or((label, "")));
    let mut pipelines = api.manager.list();
    if let Some((label, value)) = wanted {
        pipelines.retain(|view| view.labels.get(label).is_some_and(|own| own == value));
    }
    Ok(Json(Pipelines { pipelines }).into_response())
}

/// Get a pipeline
#[utoipa::path(
    get, path = "/api/v1/pipelines/{name}", tag = "pipelines", params(("name" = String, Path, description = "Its name")),
    responses(
        (status = 200, description = "How it is", body = View),
        (status = "default", description = "What is wrong", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub async fn get(State(api): State<Api>, path: Name) -> Result<Json<View>, Problem> {
    Ok(Json(find(&api, &name(path)?)?.view()))
}

/// Make a pipeline, or make it as this definition says
///
/// The body says what a pipeline file would say, as JSON or TOML. The same once more changes nothing. What may change between
/// runs is applied by starting the pipeline again; what may not is a conflict.
#[utoipa::path(
    put, path = "/api/v1/pipelines/{name}", tag = "pipelines",
    params(("name" = String, Path, description = "Its name"), Making),
    request_body(content((crate::server::openapi::Definition = "application/json"), (String = "application/toml"))),
    responses(
        (status = 200, description = "It is so, or has become so", body = View),
        (status = 201, description = "It is new", body = View),
        (status = "default", description = "What is wrong", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub async fn put(
    State(api): State<Api>,
    Extension(role): Extension<Role>,
    path: Name,
    making: Queried<Making>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    role.must_write()?;
    let (name, making) = (name(path)?, query(making)?);
    let definition = definition(&api, &headers, body).await?;
    let paused = making.paused.then(|| "paused since it was made".to_owned());
    let outcome = api.manager.put(&name, definition, Options { paused, ..Options::default() }).await?;
    let view = Json(find(&api, &name)?.view());
    if outcome != Outcome::Created {
        return Ok(view.into_response());
    }
    let mut answer = (StatusCode::CREATED, view).into_response();
    if let Ok(location) = HeaderValue::try_from(format!("/api/v1/pipelines/{name}")) {
        answer.headers_mut().insert(LOCATION, location);
    }
    Ok(answer)
}

/// Remove a pipeline
///
/// Its target stays as it is.
#[utoipa::path(
    delete, path = "/api/v1/pipelines/{name}", tag = "pipelines",
    params(("name" = String, Path, description = "Its name"), Removal),
    responses(
        (status = 200, description = "It is gone", body = Removed),
        (status = "default", description = "What is wrong", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub async fn remove(
    State(api): State<Api>,
    Extension(role): Extension<Role>,
    path: Name,
    removal: Queried<Removal>,
) -> Result<Json<Removed>, Problem> {
    role.must_write()?;
    let (name, Removal { state }) = (name(path)?, query(removal)?);
    find(&api, &name)?;
    let removed = api.manager.remove(&name, state).await.map_err(|error| match error.kind() {
        // The pipeline is there: it is something of it that is not.
        Kind::NotFound if api.manager.unit(&name).is_some() => {
            Problem::from(error).with_status(StatusCode::CONFLICT)
        }
        _ => error.into(),
    })?;
    Ok(Json(Removed { removed }))
}

/// Pause a pipeline
///
/// Answers once nothing of it is in flight. It stays paused, also when the server is started again.
#[utoipa::path(
    post, path = "/api/v1/pipelines/{name}/pause", tag = "pipelines", params(("name" = String, Path, description = "Its name")),
    request_body(content = Option<Pause>),
    responses(
        (status = 200, description = "It is paused", body = View),
        (status = "default", description = "What is wrong", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub async fn pause(
    State(api): State<Api>,
    Extension(role): Extension<Role>,
    path: Name,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<View>, Problem> {
    role.must_write()?;
    let name = name(path)?;
    let body = read_body(&headers, body, api.body_limit).await?;
    let pause = if body.is_empty() {
        Pause::default()
    } else {
        must_be_json(&headers)?;
        serde_json::from_slice::<Option<Pause>>(&body).map_err(|error| malformed(&error))?.unwrap_or_default()
    };
    if pause.reason.chars().count() > 1000 {
        return Err(Problem::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "\"reason\" is longer than 1000 characters",
        ));
    }
    let reason = Some(pause.reason).filter(|reason| !reason.is_empty());
    Ok(Json(api.manager.pause(&name, reason).await?))
}

/// Resume a pipeline
///
/// One that has failed is started again at once.
#[utoipa::path(
    post, path = "/api/v1/pipelines/{name}/resume", tag = "pipelines", params(("name" = String, Path, description = "Its name")),
    responses(
        (status = 200, description = "It is started", body = View),
        (status = "default", description = "What is wrong", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub async fn resume(
    State(api): State<Api>,
    Extension(role): Extension<Role>,
    path: Name,
) -> Result<Json<View>, Problem> {
    role.must_write()?;
    Ok(Json(api.manager.resume(&name(path)?).await?))
}

/// Get the report of a pipeline's run
///
/// What `migrans run --report` writes: of the run that goes on, or of the last one since the server was started.
#[utoipa::path(
    get, path = "/api/v1/pipelines/{name}/report", tag = "pipelines", params(("name" = String, Path, description = "Its name")),
    responses(
        (status = 200, description = "The report", body = Report),
        (status = "default", description = "What is wrong", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub async fn report(State(api): State<Api>, path: Name) -> Result<Json<Report>, Problem> {
    let name = name(path)?;
    let report = find(&api, &name)?.view().report;
    report.map(Json).ok_or_else(|| {
        let detail = format!("the pipeline {name:?} has not run since the server was started");
        Problem::new(StatusCode::NOT_FOUND, detail).hint("ask again once its state is running")
    })
}

/// The pipeline `name`.
pub(super) fn find(api: &Api, name: &str) -> Result<Arc<Unit>, Problem> {
    api.manager
        .unit(name)
        .ok_or_else(|| crate::Error::new(Kind::NotFound, format!("there is no pipeline {name:?}")).into())
}

/// The definition in a body, as JSON whichever it was written in.
async fn definition(api: &Api, headers: &HeaderMap, body: Body) -> Result<Value, Problem> {
    let is_toml = media_type(headers).is_some_and(|media| media == "application/toml");
    if !is_toml {
        must_be_json(headers)?;
    }
    let body = read_body(headers, body, api.body_limit).await?;
    if !is_toml {
        return serde_json::from_slice(&body).map_err(|error| malformed(&error));
    }
    let not_toml =
        |what: String| Problem::new(StatusCode::BAD_REQUEST, format!("the body is not TOML: {what}"));
    let text = std::str::from_utf8(&body).map_err(|error| not_toml(error.to_string()))?;
    toml::from_str(text).map_err(|error| {
        let line = error
            .span()
            .and_then(|span| text.get(..span.start))
            .map(|before| before.matches('\n').count() + 1);
        let line = line.map_or_else(String::new, |line| format!("line {line}: "));
        not_toml(format!("{line}{}", error.message()))
    })
}

fn media_type(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(CONTENT_TYPE)?.to_str().ok()?;
    Some(value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase())
}

fn must_be_json(headers: &HeaderMap) -> Result<(), Problem> {
    if media_type(headers).is_some_and(|media| media == "application/json" || media.ends_with("+json")) {
        return Ok(());
    }
    Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "the body is not said to be JSON or TOML")
        .hint("send Content-Type: application/json, or application/toml for a definition"))
}

fn malformed(error: &serde_json::Error) -> Problem {
    let what = match error.classify() {
        serde_json::error::Category::Data => error.to_string(),
        // A parser's words may repeat what it has read.
        _ => format!("it is malformed at line {}, column {}", error.line(), error.column()),
    };
    Problem::new(StatusCode::BAD_REQUEST, format!("the body is not the JSON that is wanted: {what}"))
}
