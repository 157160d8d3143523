//! What a server tells of a pipeline.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;

use crate::error::Error;
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

/// The names of all states.
pub const STATES: &[&str] =
    &["initial", "running", "standing_by", "retrying", "failed", "paused", "removing"];

impl State {
    /// Its name, in answers and in metrics.
    pub fn name(self) -> &'static str {
        match self {
            State::Initial => "initial",
            State::Running => "running",
            State::StandingBy => "standing_by",
            State::Retrying => "retrying",
            State::Failed => "failed",
            State::Paused => "paused",
            State::Removing => "removing",
        }
    }
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
            kind: Some(error.kind().name()),
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

/// The present time (RFC 3339).
pub fn now() -> String {
    jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    #[test]
    fn a_reason_has_the_whole_story_in_its_parts() {
        let error =
            Error::new(Kind::Gap, "no log").caused_by(Error::new(Kind::NotFound, "gone")).hint("look");
        let reason = Reason::of(&error);
        assert_eq!((reason.kind, reason.message.as_str()), (Some("Gap"), "no log: gone"));
        assert_eq!(reason.hint.as_deref(), Some("look"));
    }

    #[test]
    fn states_are_named_alike_everywhere() {
        let all = [
            State::Initial,
            State::Running,
            State::StandingBy,
            State::Retrying,
            State::Failed,
            State::Paused,
            State::Removing,
        ];
        assert_eq!(all.map(State::name).as_slice(), STATES);
        for state in all {
            assert_eq!(serde_json::to_value(state).unwrap(), state.name());
        }
    }
}
