//! The one error type of the crate: what went wrong, whose fault it is, and what to do about it.
//!
//! Callers decide by [`Kind`], people read the message and the hint. A cause is kept as `source` and never
//! pasted into the message, so each fact is printed once.

use std::error::Error as StdError;
use std::fmt;

/// The result of everything in this crate that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What sort of failure an [`Error`] is. The retry policy and the exit code are read from this alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// The command line is wrong (exit code 2).
    Usage,
    /// The pipeline file is missing, malformed or contradicts itself (exit code 2).
    PipelineFile,
    /// A server can't be reached, or says that it is not ready yet. The call did not take effect; try it again.
    Unavailable,
    /// The target asks for a slower pace. The call did not take effect; try it again.
    RateLimited,
    /// The target is out of memory, disk or quota. The call did not take effect; wait until somebody makes room.
    Exhausted,
    /// The call may or may not have taken effect, wholly or in part: an answer was lost.
    InDoubt,
    /// Credentials are missing, wrong, or lack a permission.
    Denied,
    /// The object to act on does not exist.
    NotFound,
    /// The target has something in the way that this pipeline did not create.
    Conflict,
    /// The target can't ever take what is asked of it (schema, row, feature).
    Refused,
    /// A server's version is outside of what is supported.
    Version,
    /// Log entries that are still needed are gone from the source.
    Gap,
    /// Bytes from the source can't be understood.
    Corrupt,
    /// The state folder is unusable: somebody else's, in use, damaged, or on a full disk.
    Checkpoint,
    /// Another process owns the pipeline, or this one no longer does.
    Ownership,
    /// A defect of this program.
    Internal,
}

/// What the sender of a failed call does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disposition {
    /// Send the same call again after a back-off.
    Retry,
    /// As `Retry`, at a slow pace, while telling the user what is waited for.
    Wait,
    /// The outcome is unknown: wait out the call's deadline, then send it in its repeatable form.
    Resolve,
    /// Stop the pipeline.
    Stop,
}

impl Kind {
    /// How the sender of a call that failed with this kind goes on.
    pub fn disposition(self) -> Disposition {
        match self {
            Kind::Unavailable | Kind::RateLimited => Disposition::Retry,
            Kind::Exhausted => Disposition::Wait,
            Kind::InDoubt => Disposition::Resolve,
            _ => Disposition::Stop,
        }
    }

    /// Its name, as it stands in answers and metrics.
    pub fn name(self) -> &'static str {
        match self {
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

    /// The exit code of a process that ends with this error.
    pub fn exit_code(self) -> u8 {
        match self {
            Kind::Usage | Kind::PipelineFile => 2,
            _ => 1,
        }
    }
}

/// An error: a kind, a message that says what and where, optionally a cause and a hint that says what to do.
pub struct Error(Box<Inner>);

struct Inner {
    kind: Kind,
    message: String,
    hint: Option<String>,
    source: Option<Box<dyn StdError + Send + Sync>>,
    parts: Vec<Part>,
}

/// One of the things that an error is about, where it is about several, or about a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// The key that it is about, with the tables around it: `source.mq.path`.
    pub key: Option<String>,
    /// What is wrong.
    pub message: String,
    /// What the user can do.
    pub hint: Option<String>,
}

impl Error {
    /// A new error of `kind`. The message is one line without a full stop and names the place.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Error(Box::new(Inner { kind, message: message.into(), hint: None, source: None, parts: Vec::new() }))
    }

    /// Adds what the user can do.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.0.hint = Some(hint.into());
        self
    }

    /// Adds the error that led to this one.
    pub fn caused_by(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// Adds the things that it is about, one by one, for programs. The message has them all.
    pub fn with_parts(mut self, parts: Vec<Part>) -> Self {
        self.0.parts = parts;
        self
    }

    /// Puts `context` in front of the message, keeping kind, hint and cause.
    pub fn context(mut self, context: impl fmt::Display) -> Self {
        self.0.message = format!("{context}: {}", self.0.message);
        self
    }

    /// The kind.
    pub fn kind(&self) -> Kind {
        self.0.kind
    }

    /// The message alone.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// What the user can do, if known.
    pub fn hint_text(&self) -> Option<&str> {
        self.0.hint.as_deref()
    }

    /// The things that it is about, one by one, where they are known.
    pub fn parts(&self) -> &[Part] {
        &self.0.parts
    }

    /// The whole story for a person: message, causes, hint, a line each.
    pub fn report(&self) -> String {
        let mut text = self.0.message.clone();
        let mut cause = StdError::source(self);
        while let Some(error) = cause {
            text.push_str(&format!("\n  cause: {error}"));
            cause = error.source();
        }
        if let Some(hint) = &self.0.hint {
            text.push_str(&format!("\n  hint: {hint}"));
        }
        text
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.0.kind, self.report())
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_deref().map(|source| source as &(dyn StdError + 'static))
    }
}
