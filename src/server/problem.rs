//! Errors as answers: `application/problem+json` of RFC 9457.

use axum::Json;
use axum::response::{IntoResponse, Response};
use http::header::CONTENT_TYPE;
use http::{HeaderValue, StatusCode};
use serde::Serialize;

use crate::error::{Error, Kind};

/// An answer that says what is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct Problem {
    /// Always `about:blank`: `kind` tells problems apart.
    #[serde(rename = "type")]
    pub about: About,
    /// The words for the status.
    pub title: &'static str,
    /// The status of the answer.
    pub status: u16,
    /// What is wrong, and where.
    pub detail: String,
    /// What sort of problem it is, such as `PipelineFile`.
    pub kind: &'static str,
    /// What to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required = false)]
    pub hint: Option<String>,
    /// The things that are wrong, one by one, where they have keys.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    pub errors: Vec<ProblemPart>,
}

/// What the field `type` of a problem says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub enum About {
    /// There is nothing to read about it but what stands here.
    #[serde(rename = "about:blank")]
    Blank,
}

/// One of the things that are wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct ProblemPart {
    /// The key of the definition, with the tables around it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required = false)]
    pub key: Option<String>,
    /// What is wrong.
    pub detail: String,
    /// What to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required = false)]
    pub hint: Option<String>,
}

impl Problem {
    /// A problem with a request as such.
    pub fn new(status: StatusCode, detail: impl Into<String>) -> Problem {
        Problem::from(Error::new(Kind::Usage, detail)).with_status(status)
    }

    /// The same with another status.
    pub fn with_status(mut self, status: StatusCode) -> Problem {
        self.status = status.as_u16();
        self.title = status.canonical_reason().unwrap_or("Error");
        self
    }

    /// The same with what to do.
    pub fn hint(mut self, hint: impl Into<String>) -> Problem {
        self.hint = Some(hint.into());
        self
    }
}

/// The status that says the same as `kind`.
pub fn status(kind: Kind) -> StatusCode {
    match kind {
        Kind::Usage => StatusCode::BAD_REQUEST,
        Kind::PipelineFile => StatusCode::UNPROCESSABLE_ENTITY,
        Kind::NotFound => StatusCode::NOT_FOUND,
        Kind::Denied => StatusCode::FORBIDDEN,
        Kind::Conflict | Kind::Checkpoint | Kind::Ownership => StatusCode::CONFLICT,
        Kind::RateLimited => StatusCode::TOO_MANY_REQUESTS,
        Kind::Unavailable | Kind::Exhausted => StatusCode::SERVICE_UNAVAILABLE,
        Kind::InDoubt | Kind::Refused | Kind::Version | Kind::Gap | Kind::Corrupt => StatusCode::BAD_GATEWAY,
        Kind::Internal => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Problem {
        let parts = error.parts().iter().map(|part| ProblemPart {
            key: part.key.clone(),
            detail: part.message.clone(),
            hint: part.hint.clone(),
        });
        let problem = Problem {
            about: About::Blank,
            title: "",
            status: 0,
            detail: error.message().to_owned(),
            kind: error.kind().name(),
            hint: error.hint_text().map(str::to_owned),
            errors: parts.collect(),
        };
        problem.with_status(status(error.kind()))
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, Json(self)).into_response();
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Part;

    #[test]
    fn an_error_becomes_a_problem_with_all_that_it_says() {
        let part = Part { key: Some("target.uri".into()), message: "bad".into(), hint: None };
        let error = Error::new(Kind::PipelineFile, "bad").hint("mend it").with_parts(vec![part]);
        let json = serde_json::to_value(Problem::from(error)).unwrap();
        let wanted = serde_json::json!({
            "type": "about:blank", "title": "Unprocessable Entity", "status": 422, "detail": "bad",
            "kind": "PipelineFile", "hint": "mend it", "errors": [{"key": "target.uri", "detail": "bad"}],
        });
        assert_eq!(json, wanted);
    }

    #[test]
    fn the_type_of_the_answer_is_that_of_problems() {
        let response = Problem::new(StatusCode::IM_A_TEAPOT, "short and stout").into_response();
        assert_eq!(response.status(), StatusCode::IM_A_TEAPOT);
        assert_eq!(response.headers()[CONTENT_TYPE], "application/problem+json");
    }
}
