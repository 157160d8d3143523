//! Who owns a pipeline that is started on several hosts: a key under a lease in an etcd, and its revision as the epoch.
//!
//! `docs/ownership.md` has the rules and why they hold. [`Fence`] is what keeps a former owner from writing; `line` is
//! the way to the etcd, `election` how a process becomes the owner, `term` what it does while it is, and `replica` the
//! checkpoint that the next owner goes on from.

use serde::{Deserialize, Serialize};

pub mod election;
mod fence;
mod line;
mod replica;
mod term;
#[cfg(test)]
mod tests;

pub use election::Candidate;
pub use fence::{Closed, Fence};
pub use replica::Replica;
pub use term::Term;

/// A process that owns a pipeline, as it describes itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// The name of its host.
    pub host: String,
    /// Its process id there.
    pub pid: u32,
    /// Since when it owns the pipeline (RFC 3339), by its clock.
    pub since: String,
}

impl Owner {
    /// This process, as of now.
    pub fn this() -> Owner {
        let name = rustix::system::uname();
        Owner {
            host: name.nodename().to_string_lossy().into_owned(),
            pid: std::process::id(),
            since: jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        }
    }
}

impl std::fmt::Display for Owner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "process {} on {}, since {}", self.pid, self.host, self.since)
    }
}

/// How a run stands to the ownership of its pipeline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Another process owns it; `None` if the etcd does not say at the moment.
    By(Option<Owner>),
    /// This one does.
    Owner {
        /// The fencing epoch: greater than that of every owner before.
        epoch: i64,
        /// Since when (RFC 3339).
        since: String,
        /// Why nothing may be sent at the moment, if so.
        trouble: Option<String>,
    },
}
