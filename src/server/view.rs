//! What a server tells of a pipeline.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;

use crate::error::{Error, Kind};
use crate::progress::Report;

/// How a pipeline is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// It is being started: it connects to its source and target, and finishes what a crash has interrupted.
    #[default]
    Initial,
    /// It runs.
    Running,
    /// Another process owns it, and it is ready to go on.
    StandingBy,
    /// It has failed, and is started again after a pause.
    Retrying,
    /// It has failed and is not started again by itself.
    Failed,
    /// It was paused, and stays so until it is resumed.
    Paused,
    /// It is being removed, or that could not be finished.
    Removing,
}

/// Why a pipeline is as it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct Reason {
    /// The kind of error, such as `Conflict`; `None` if it is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required = false)]
    pub kind: Option<&'static str>,
    /// What is or was wrong.
    pub message: String,
    /// What to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required = false)]
    pub hint: Option<String>,
    /// Since when (RFC 3339).
    pub since: String,
}

impl Reason {
    /// An error that happened now.
    pub fn of(error: &Error) -> Reason {
        let report = error.report();
        // The hint has a field of its own.
        let message = report.split("\n  hint: ").next().unwrap_or_default().replace("\n  cause: ", ": ");
        Reason {
            kind: Some(kind_name(error.kind())),
            message,
            hint: error.hint_text().map(str::to_owned),
            since: now(),
        }
    }

    /// Somebody's own words.
    pub fn words(message: String, since: String) -> Reason {
        Reason { kind: None, message, hint: None, since }
    }
}

/// A pipeline.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub struct View {
    /// Its name.
    pub name: String,
    /// How it is.
    pub state: State,
    /// Why, if there is something to say: the last error of a pipeline that failed, the words of who paused it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required = false)]
    pub reason: Option<Reason>,
    /// What its file would say, without secrets.
    #[schema(value_type = Object)]
    pub definition: Value,
    /// The `[labels]` of its definition.
    pub labels: BTreeMap<String, String>,
    /// Failures in a row.
    pub failures: usize,
    /// When it was made (RFC 3339).
    pub created: String,
    /// When its definition was changed last (RFC 3339).
    pub changed: String,
    /// What its run has done, or its last one since the server was started.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required = false)]
    pub report: Option<Report>,
    /// What is kept with it. It may hold secrets, so it is never a part of an answer.
    #[serde(skip)]
    pub extra: Value,
}

/// The name of a kind, as it stands in logs, answers and metrics.
pub fn kind_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Usage => "Usage",
        Kind::PipelineFile => "PipelineFile",
        Kind::Unavailable => "Unavailable",
        Kind::RateLimited => "RateLimited",
        Kind::Exhausted => "Exhausted",
        Kind::InDoubt => "InDoubt",
        Kind::Denied => "Denied",
        Kind::NotFound => "NotFound",
        Kind::Conflict => "Conflict",
        Kind::Refused => "Refused",
        Kind::Version => "Version",
        Kind::Gap => "Gap",
        Kind::Corrupt => "Corrupt",
        Kind::Checkpoint => "Checkpoint",
        Kind::Ownership => "Ownership",
        Kind::Internal => "Internal",
    }
}

/// The present time (RFC 3339).
pub fn now() -> String {
    jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_has_the_whole_story_in_its_parts() {
        let error =
            Error::new(Kind::Gap, "no log").caused_by(Error::new(Kind::NotFound, "gone")).hint("look");
        let reason = Reason::of(&error);
        assert_eq!((reason.kind, reason.message.as_str()), (Some("Gap"), "no log: gone"));
        assert_eq!(reason.hint.as_deref(), Some("look"));
    }

    #[test]
    fn kinds_are_named_as_in_the_code() {
        for kind in [Kind::Usage, Kind::InDoubt, Kind::PipelineFile, Kind::Internal] {
            assert_eq!(kind_name(kind), format!("{kind:?}"));
        }
    }
}
