//! The protocol switched off, to measure what it costs: nothing is synced, and neither intents nor how far calls may go are
//! recorded. A crash then loses and doubles rows, so nobody may come to this by accident.

use std::sync::OnceLock;

use crate::error::{Error, Kind, Result};

/// The variable that switches the protocol off, and what it has to say.
pub const VARIABLE: &str = "MIGRANS_BENCH_WITHOUT_PROTOCOL";
const CONSENT: &str = "a crash loses and doubles rows";

static ON: OnceLock<bool> = OnceLock::new();

/// Whether this process runs without the protocol.
pub fn is_on() -> bool {
    *ON.get_or_init(|| std::env::var(VARIABLE).is_ok_and(|value| value == CONSENT))
}

/// Warns if the protocol is off. `resumes`: the state folder was written by an earlier run.
///
/// # Errors
/// Of kind `Usage` if the variable says something else, or if it would touch a pipeline that somebody runs.
pub fn check(resumes: bool) -> Result<()> {
    if std::env::var_os(VARIABLE).is_none() {
        return Ok(());
    }
    if !is_on() {
        return Err(Error::new(Kind::Usage, format!("{VARIABLE} is set to something unknown"))
            .hint(format!("unset it; only a benchmark sets it, to {CONSENT:?}")));
    }
    if resumes {
        return Err(Error::new(Kind::Usage, format!("{VARIABLE} is set, and this pipeline has run before"))
            .hint("unset it: without the protocol only a benchmark's new pipeline runs"));
    }
    tracing::warn!("{VARIABLE} is set: {CONSENT}");
    Ok(())
}
