//! Log lines on standard error, as text or as JSON, in peace with a progress display below them.

use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::str::FromStr;
use std::sync::{OnceLock, PoisonError, RwLock};

use indicatif::ProgressBar;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::reload;

use crate::error::{Error, Kind, Result};

/// The variable with a filter that goes before the level: directives as of `tracing_subscriber::EnvFilter`.
pub const FILTER_VARIABLE: &str = "MIGRANS_LOG";

/// Puts another filter in the place of the one that logging was started with.
type Reload = Box<dyn Fn(EnvFilter) -> Result<(), reload::Error> + Send + Sync>;
static RELOAD: OnceLock<Reload> = OnceLock::new();

/// The display that log lines have to be put above, while there is one.
static DISPLAY: RwLock<Option<ProgressBar>> = RwLock::new(None);

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// For people, in colour on a terminal (unless `NO_COLOR` is set).
    Text,
    /// An object a line.
    Json,
}

/// Starts logging: lines of this crate from `level` on, and warnings of the libraries that it uses; or what the
/// variable `MIGRANS_LOG` says instead.
///
/// # Errors
/// Of kind `Usage` for a level or filter that is none, of kind `Internal` if logging was started before.
pub fn init(format: Format, level: &str) -> Result<()> {
    let filter = match std::env::var(FILTER_VARIABLE) {
        Ok(directives) if !directives.is_empty() => parse_filter(&directives)?,
        _ => level_filter(level)?,
    };
    let ansi =
        io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(Lines)
        .with_ansi(ansi)
        // It would tell standard error that standard error is gone, and panic.
        .log_internal_errors(false);
    let started = match format {
        Format::Text => {
            let builder = builder.with_target(false).with_filter_reloading();
            let handle = builder.reload_handle();
            builder.try_init().map(|()| drop(RELOAD.set(Box::new(move |filter| handle.reload(filter)))))
        }
        Format::Json => {
            let builder = builder.json().flatten_event(true).with_filter_reloading();
            let handle = builder.reload_handle();
            builder.try_init().map(|()| drop(RELOAD.set(Box::new(move |filter| handle.reload(filter)))))
        }
    };
    started.map_err(|error| Error::new(Kind::Internal, "can't start logging").caused_by(error))
}

/// From now on, lines are shown from `level` on, whatever [`init`] was told.
///
/// # Errors
/// Of kind `Usage` for a level that is none, of kind `Internal` if logging was not started.
pub fn set_level(level: &str) -> Result<()> {
    let filter = level_filter(level)?;
    let failed = |cause: Option<reload::Error>| {
        let error = Error::new(Kind::Internal, "can't change what is logged");
        match cause {
            Some(cause) => error.caused_by(cause),
            None => error,
        }
    };
    let reload = RELOAD.get().ok_or_else(|| failed(None))?;
    reload(filter).map_err(|cause| failed(Some(cause)))
}

fn level_filter(level: &str) -> Result<EnvFilter> {
    let level = LevelFilter::from_str(level).map_err(|_| {
        Error::new(Kind::Usage, format!("{level:?} is no log level"))
            .hint("choose error, warn, info, debug, trace or off")
    })?;
    // Nobody who asks for this program's details wants those of the HTTP/2 frames below it.
    let libraries = level.min(LevelFilter::WARN);
    parse_filter(&format!("{libraries},migrans={level}"))
}

fn parse_filter(directives: &str) -> Result<EnvFilter> {
    EnvFilter::try_new(directives).map_err(|error| {
        Error::new(Kind::Usage, format!("{FILTER_VARIABLE} is not a filter for log lines: {directives:?}"))
            // Its own source has the same words.
            .caused_by(error.to_string())
            .hint("write for example migrans=debug or warn,migrans::sinks=trace")
    })
}

/// Puts log lines above `display` from now on; `None` ends that.
pub(crate) fn share_with(display: Option<ProgressBar>) {
    *DISPLAY.write().unwrap_or_else(PoisonError::into_inner) = display;
}

/// Writes whole events; tracing hands over one at a time.
struct Lines;

impl MakeWriter<'_> for Lines {
    type Writer = Lines;

    fn make_writer(&self) -> Lines {
        Lines
    }
}

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let display = DISPLAY.read().unwrap_or_else(PoisonError::into_inner);
        match display.as_ref().filter(|display| !display.is_hidden()) {
            // Not `suspend`, which panics if the terminal is gone.
            Some(display) => display.println(String::from_utf8_lossy(bytes).trim_end_matches('\n')),
            None => io::stderr().write_all(bytes)?,
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Format::Text => "text",
            Format::Json => "json",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_holds_for_this_crate_and_is_capped_for_libraries() {
        let text = |level| level_filter(level).unwrap().to_string();
        assert_eq!(text("debug"), "migrans=debug,warn");
        assert_eq!(text("INFO"), "migrans=info,warn");
        assert_eq!(text("error"), "migrans=error,error");
        assert_eq!(text("off"), "migrans=off,off");
    }

    #[test]
    fn what_is_no_level_or_filter_is_an_error_of_usage() {
        let error = level_filter("loud").unwrap_err();
        assert_eq!((error.kind(), error.message()), (Kind::Usage, "\"loud\" is no log level"));
        let error = parse_filter("migrans=loud").unwrap_err();
        assert_eq!(error.kind(), Kind::Usage);
        assert!(error.message().starts_with("MIGRANS_LOG is not a filter"), "{error}");
    }
}
