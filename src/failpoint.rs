//! Fail points: named places at which the process can be made to kill itself, for tests of `kill -9`.
//!
//! They are in every build, so that what is tested is what runs. `MIGRANS_FAIL_AT=call.sent:3` arms one: at its third
//! pass the process gets a SIGKILL, so nothing is flushed, closed or destructed. Unarmed, a pass costs one relaxed load
//! of a byte. `migrans fail-points` (hidden) lists them; so does `docs/reliability.md`.

use std::future::Future;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

use crate::error::{Error, Kind, Result};

/// The variable that arms a point: its name, and after a colon at which pass (1 unless it says so).
pub const VARIABLE: &str = "MIGRANS_FAIL_AT";

/// A call that has had no answer for this long has gone out.
const GONE_OUT: Duration = Duration::from_millis(2);

/// The point that is armed: its number, or [`NONE`].
static ARMED: AtomicU8 = AtomicU8::new(NONE);
/// How often the armed point is still to be passed before it kills.
static LEFT: AtomicU64 = AtomicU64::new(0);
const NONE: u8 = u8::MAX;

macro_rules! points {
    ($($point:ident $name:literal $meaning:literal)*) => {
        /// A place at which the process can be killed.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u8)]
        pub enum Point {
            $(#[doc = $meaning] $point,)*
        }

        /// All points, with their names and where they are.
        pub const POINTS: &[(Point, &str, &str)] = &[$((Point::$point, $name, $meaning),)*];
    };
}

points! {
    StartOpened "start.opened" "the state folder is there, nothing is in it yet"
    StartOwned "start.owned" "the state folder says whose it is, and nothing else"
    StartBegun "start.begun" "the beginning of a pipeline that starts at a time has been recorded, nothing was read"
    StartBuilt "start.built" "the dataflow is built, nothing has moved in it"
    ResumeWaiting "resume.waiting" "after a crash, while waiting until the last run's calls are over"
    ResumeReplay "resume.replay" "after that wait, before anything is sent again"
    ResumeFinished "resume.finished" "a step of the catalog that the crash interrupted is finished, that is not recorded"
    SentHighBefore "sent_high.before" "before it is recorded how far calls may go"
    SentHighUnsynced "sent_high.unsynced" "that is written, but not synced"
    SentHighDurable "sent_high.durable" "that is durable, but `apply` does not know it"
    SentHighRecorded "sent_high.recorded" "`apply` knows it, no call has gone out on it"
    CallBefore "call.before" "before a call goes out"
    CallSent "call.sent" "a call has gone out, and there is no answer yet"
    CallPart "call.part" "a call that needs several requests: one is answered, the next has not gone out"
    CallAnswered "call.answered" "the target has answered, `apply` does not know it"
    CallInDoubt "call.in_doubt" "an answer was lost, before the call waits for its turn to be sent again"
    CallAgain "call.again" "before a call goes out again whose answer was lost"
    CallAcknowledged "call.acknowledged" "`apply` knows that a call has succeeded, the frontier has not moved"
    SpanPart "span.part" "between the calls of one span: some are acknowledged, others not"
    SpanDone "span.done" "all calls of a span are acknowledged, its capability is still held"
    DdlBefore "ddl.before" "before a step of the catalog begins"
    IntentBefore "intent.before" "before it is recorded that a step of the catalog begins"
    IntentRecorded "intent.recorded" "that is durable, the step has not gone out"
    AdoptBefore "adopt.before" "a collection is to be adopted, which is not recorded yet"
    AdoptRecorded "adopt.recorded" "the adoption is durable, and nothing else was done"
    DdlUnchecked "ddl.unchecked" "the target has answered a step, whether it took effect has not been asked"
    DdlApplied "ddl.applied" "a step is on the target, that is not recorded"
    DdlRecorded "ddl.recorded" "a step is recorded, the rows behind it are not let go"
    CommitBefore "commit.before" "the frontier has moved, that is not recorded"
    CommitUnsynced "commit.unsynced" "frontier and positions are written, but not synced"
    CommitDurable "commit.durable" "they are durable, nobody knows it"
    CommitReleased "commit.released" "the source is about to be told what it need not keep any more"
    TickBefore "tick.before" "a standby: before a tick goes out"
    TickGiven "tick.given" "a standby: a tick is answered, other channels may lack it"
    StopBegun "stop.begun" "asked to stop, what was begun is not finished"
    StopBefore "stop.before" "everything is finished and committed, the clean stop is not recorded"
    StopRecorded "stop.recorded" "the clean stop is durable, the process has not ended"
}

/// Arms what the environment says, if it says anything.
///
/// # Errors
/// Of kind `Usage` for a name that there is not, with all that there are.
pub fn init() -> Result<()> {
    let Some(value) = std::env::var_os(VARIABLE).filter(|value| !value.is_empty()) else { return Ok(()) };
    let (point, name, pass) = parse(&value.to_string_lossy())?;
    tracing::warn!("{VARIABLE} is set: this process kills itself at pass {pass} of the fail point {name}");
    LEFT.store(pass, Ordering::Relaxed);
    ARMED.store(point as u8, Ordering::Release);
    Ok(())
}

fn parse(value: &str) -> Result<(Point, &'static str, u64)> {
    let (wanted, pass) = value.split_once(':').unwrap_or((value, "1"));
    let Some((point, name, _)) = POINTS.iter().find(|(_, name, _)| *name == wanted) else {
        let names: Vec<&str> = POINTS.iter().map(|(_, name, _)| *name).collect();
        return Err(Error::new(Kind::Usage, format!("{VARIABLE} names no fail point: {wanted:?}"))
            .hint(format!("there are {}", names.join(", "))));
    };
    match pass.parse() {
        Ok(pass) if pass > 0 => Ok((*point, name, pass)),
        _ => Err(Error::new(Kind::Usage, format!("{VARIABLE}: {pass:?} is no number of a pass"))
            .hint("write for example call.sent:3; the first pass is 1")),
    }
}

/// Kills the process here if `point` is armed and this is the pass that was asked for.
#[inline]
pub fn pass(point: Point) {
    if is_armed(point) && is_due() {
        kill(point);
    }
}

/// Whether `point` is armed, for what has to be done differently on the way to it.
#[inline]
pub fn is_armed(point: Point) -> bool {
    ARMED.load(Ordering::Relaxed) == point as u8
}

/// Runs `call`. If `point` is armed, the process is killed in the middle of the call that was asked for: after it has gone
/// out, before there is an answer. A call that is answered at once does not count.
pub async fn meanwhile<T>(point: Point, call: impl Future<Output = T>) -> T {
    if !is_armed(point) {
        return call.await;
    }
    let mut call = std::pin::pin!(call);
    match tokio::time::timeout(GONE_OUT, &mut call).await {
        Ok(answer) => answer,
        Err(_) => {
            pass(point);
            call.await
        }
    }
}

fn is_due() -> bool {
    LEFT.fetch_sub(1, Ordering::Relaxed) == 1
}

fn kill(point: Point) -> ! {
    let name = POINTS.iter().find(|(other, ..)| *other == point).map_or("", |(_, name, _)| name);
    eprintln!("killing itself at the fail point {name}");
    let _refused = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    // It ends this thread before it returns; if it was refused, this is the next best.
    std::process::abort()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn sources(folder: &Path, text: &mut String) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                sources(&path, text);
            } else if path.extension().is_some_and(|extension| extension == "rs")
                && path.file_name().is_some_and(|name| name != "failpoint.rs")
            {
                text.push_str(&std::fs::read_to_string(&path).unwrap());
            }
        }
    }

    #[test]
    fn every_point_is_passed_somewhere_and_documented() {
        let root = Path::new(""); // cargo runs tests in the package's folder
        let mut text = String::new();
        sources(&root.join("src"), &mut text);
        let docs = std::fs::read_to_string(root.join("docs/reliability.md")).unwrap();
        for (point, name, meaning) in POINTS {
            assert!(text.contains(&format!("Point::{point:?}")), "{name} is passed nowhere");
            assert!(
                docs.contains(&format!("| `{name}` | {meaning} |")),
                "{name} is not in docs/reliability.md"
            );
        }
    }

    #[test]
    fn names_are_unique_and_an_unknown_one_is_told_with_all_that_there_are() {
        let names: std::collections::BTreeSet<&str> = POINTS.iter().map(|(_, name, _)| *name).collect();
        assert_eq!(names.len(), POINTS.len());
        let error = parse("call.gone").unwrap_err();
        assert_eq!(error.kind(), Kind::Usage);
        assert!(error.message().contains("\"call.gone\""), "{error}");
        assert!(names.iter().all(|name| error.hint_text().unwrap().contains(name)));
    }

    #[test]
    fn a_pass_is_a_number_from_one() {
        assert_eq!(parse("call.sent").unwrap(), (Point::CallSent, "call.sent", 1));
        assert_eq!(parse("commit.before:12").unwrap(), (Point::CommitBefore, "commit.before", 12));
        for wrong in ["call.sent:0", "call.sent:", "call.sent:-1", "call.sent:x"] {
            assert_eq!(parse(wrong).unwrap_err().kind(), Kind::Usage, "{wrong}");
        }
    }

    #[test]
    fn unarmed_nothing_happens() {
        POINTS.iter().for_each(|(point, ..)| pass(*point));
    }
}
