//! How a process becomes the owner: whoever creates the key is it, all others watch it and try again when it is gone.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use etcd_client::{Compare, CompareOp, PutOptions, Txn, TxnOp, TxnOpResponse};
use serde::{Deserialize, Serialize};
use tokio::runtime::Runtime;

use super::fence::{self, Fence};
use super::line::{Keys, Line};
use super::term::{self, Term};
use super::{Owner, Standing};
use crate::dataflow::checkpoint::records::{self, Records};
use crate::dataflow::checkpoint::{self};
use crate::error::{Error, Kind, Result};
use crate::pipeline::{OwnershipConfig, Pipeline};

/// How often a process that stands by looks around.
const LOOK: Duration = Duration::from_millis(100);
/// How often it asks who the owner is, in case the watch does not tell.
const ASK: Duration = Duration::from_secs(2);
/// How often the log says that it still stands by, or still waits for the etcd.
const REMINDER: Duration = Duration::from_secs(60);

/// What the owner before leaves for the next one.
#[derive(Debug, Serialize, Deserialize)]
struct Legacy {
    /// How long after the end of its ownership its calls may be alive, in milliseconds.
    settle_ms: u64,
    /// Who it was.
    owner: Owner,
}

/// A process that would own the pipeline.
pub struct Candidate {
    config: OwnershipConfig,
    keys: Keys,
    line: Line,
    fence: Fence,
    runtime: Runtime,
}

enum Attempt {
    Taken(Option<Owner>, i64),
    Ours(Claimed),
}

struct Claimed {
    epoch: i64,
    owner: Owner,
    lease: i64,
    ttl: Duration,
    /// How long calls of others may be alive from now on, unless the checkpoint says that there are none; `None` for
    /// the first owner ever.
    settle: Option<Duration>,
}

impl Candidate {
    /// For `pipeline`, if it has `[ownership]`.
    ///
    /// # Errors
    /// `PipelineFile` for settings that do not fit together or name files that can't be read.
    pub fn new(pipeline: &Pipeline) -> Result<Option<Candidate>> {
        let Some(config) = &pipeline.ownership else { return Ok(None) };
        // A thread of its own: signs of life must not wait for anything.
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("ownership")
            .enable_all()
            .build()
            .map_err(|cause| {
                Error::new(Kind::Internal, "can't start the runtime of the ownership").caused_by(cause)
            })?;
        Ok(Some(Candidate {
            keys: Keys::new(config, pipeline),
            line: Line::new(config)?,
            fence: Fence::new(tail(config)),
            config: config.clone(),
            runtime,
        }))
    }

    /// What everything that writes to the target has to ask.
    pub fn fence(&self) -> Fence {
        self.fence.clone()
    }

    /// Waits until this process owns the pipeline. `None` if `stop` is set before. `observe` is called a few times a
    /// second meanwhile.
    ///
    /// # Errors
    /// `Unavailable` if the etcd can't be reached at the beginning (later it is waited for), `Denied`, and `Checkpoint`
    /// if the checkpoint there is of another definition of the pipeline.
    pub fn stand_by(
        mut self,
        pipeline: &Pipeline,
        stop: &AtomicBool,
        mut observe: impl FnMut(Standing),
    ) -> Result<Option<Term>> {
        let mut reached = false;
        let mut said: Option<(Option<Owner>, Instant)> = None;
        let mut out = Outage::default();
        while !stop.load(Ordering::Acquire) {
            let attempt = self.runtime.block_on(attempt(&mut self.line, &self.keys, &self.config));
            match attempt {
                Ok(Attempt::Ours(claimed)) => return self.take(claimed).map(Some),
                Ok(Attempt::Taken(owner, revision)) => {
                    out.is_over();
                    if !reached {
                        self.check_definition(pipeline)?;
                        reached = true;
                    }
                    if said.as_ref().is_none_or(|(to, at)| *to != owner || at.elapsed() > REMINDER) {
                        match &owner {
                            Some(owner) => tracing::info!("standing by: {owner}, owns {}", pipeline.name),
                            None => tracing::info!("standing by: another process owns {}", pipeline.name),
                        }
                        said = Some((owner.clone(), Instant::now()));
                    }
                    self.wait(revision, stop, || observe(Standing::By(owner.clone())));
                }
                Err(error) if error.kind() == Kind::Unavailable && reached => {
                    out.tell(&error);
                    observe(Standing::By(None));
                    std::thread::sleep(LOOK);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    /// Waits until the owner's key may be gone, as it was at `revision`.
    fn wait(&mut self, revision: i64, stop: &AtomicBool, mut observe: impl FnMut()) {
        let began = Instant::now();
        let key = self.keys.owner();
        let Ok(mut watch) = self.runtime.block_on(self.line.watch(&key, revision)) else { return };
        while began.elapsed() < ASK && !stop.load(Ordering::Acquire) {
            observe();
            let gone = async { tokio::time::timeout(LOOK, watch.gone()).await };
            if self.runtime.block_on(gone).is_ok() {
                return;
            }
        }
    }

    /// A standby of another definition would find out only when it is needed.
    fn check_definition(&mut self, pipeline: &Pipeline) -> Result<()> {
        let key = format!("{}{}", self.keys.records(), records::PIPELINE);
        let (found, _) = self.runtime.block_on(self.line.one(&key))?;
        let Some(kv) = found else { return Ok(()) };
        let records = Records::from([(records::PIPELINE.to_owned(), kv.value().to_vec())]);
        let place = place(&self.line, &self.keys);
        checkpoint::check_owner(&records, pipeline).map_err(|error| error.context(place))
    }

    fn take(self, claimed: Claimed) -> Result<Term> {
        let Candidate { config, keys, line, fence, runtime } = self;
        if claimed.ttl > config.ttl {
            tracing::warn!(
                "the ownership's etcd grants no lease of less than {:?}, so a takeover takes that much longer",
                claimed.ttl
            );
        }
        let Claimed { epoch, owner, lease, ttl, settle } = claimed;
        tracing::info!(epoch, "owner of the pipeline since {}", owner.since);
        let settle = settle.map(|settle| (Instant::now(), settle));
        Ok(Term::begin(term::Beginning { keys, line, fence, runtime, epoch, owner, lease, ttl, settle }))
    }
}

/// How much longer than the ownership is known to last a call may be alive; the rest of `settle` is for what the network
/// holds up.
pub fn tail(config: &OwnershipConfig) -> Duration {
    config.settle / 2
}

/// How to speak of the checkpoint in the etcd.
pub fn place(line: &Line, keys: &Keys) -> String {
    format!("the checkpoint below {} in the ownership's etcd at {}", keys.all(), line.describe())
}

async fn attempt(line: &mut Line, keys: &Keys, config: &OwnershipConfig) -> Result<Attempt> {
    let (owner, revision) = line.one(&keys.owner()).await?;
    if let Some(kv) = owner {
        return Ok(Attempt::Taken(serde_json::from_slice(kv.value()).ok(), revision));
    }
    let (legacy, _) = line.one(&keys.term()).await?;
    let before = legacy.as_ref().map_or(0, |kv| kv.mod_revision());
    let settle = match &legacy {
        None => None,
        Some(kv) => {
            let legacy: Legacy = serde_json::from_slice(kv.value()).map_err(|cause| {
                let message = format!("the key {} in the ownership's etcd is not of migrans", keys.term());
                Error::new(Kind::Checkpoint, message)
                    .caused_by(cause)
                    .hint("was it written by another version? Give this pipeline a prefix of its own")
            })?;
            Some(Duration::from_millis(legacy.settle_ms))
        }
    };
    let sent = fence::now();
    let (lease, ttl) = line.grant(config.ttl).await?;
    let me = Owner::this();
    // If this owner dies while it waits for the calls of the one before, the next has to wait for those too.
    let longest = settle.unwrap_or_default().max(config.settle);
    let settle_ms = u64::try_from(longest.as_millis()).unwrap_or(u64::MAX);
    let internal = |cause| Error::new(Kind::Internal, "can't encode the owner").caused_by(cause);
    let owner = serde_json::to_vec(&me).map_err(internal)?;
    let legacy = serde_json::to_vec(&Legacy { settle_ms, owner: me.clone() }).map_err(internal)?;
    let mut puts = vec![
        TxnOp::put(keys.owner(), owner, Some(PutOptions::new().with_lease(lease))),
        TxnOp::put(keys.term(), legacy, None),
    ];
    if before == 0 {
        puts.push(TxnOp::put(keys.commit(), "0", None));
    }
    let claim = Txn::new()
        .when([
            Compare::create_revision(keys.owner(), CompareOp::Equal, 0),
            Compare::mod_revision(keys.term(), CompareOp::Equal, before),
        ])
        .and_then(puts)
        .or_else([TxnOp::get(keys.owner(), None)]);
    let response = loop {
        match line.txn(claim.clone()).await {
            // Whether it was carried out is not known: another time tells, as long as the lease lasts.
            Err(error) if error.kind() == Kind::Unavailable && fence::now() < sent + ttl => {
                tokio::time::sleep(LOOK).await;
            }
            answer => break answer?,
        }
    };
    let revision = response.header().map_or(0, |header| header.revision());
    if response.succeeded() {
        return Ok(Attempt::Ours(Claimed { epoch: revision, owner: me, lease, ttl, settle }));
    }
    let found = response.op_responses().into_iter().find_map(|response| match response {
        TxnOpResponse::Get(mut get) => get.take_kvs().pop(),
        _ => None,
    });
    match found {
        Some(kv) if kv.lease() == lease => {
            let epoch = kv.create_revision();
            Ok(Attempt::Ours(Claimed { epoch, owner: me, lease, ttl, settle }))
        }
        other => {
            // It ends by itself as well.
            drop(line.revoke(lease).await);
            let owner = other.and_then(|kv| serde_json::from_slice(kv.value()).ok());
            Ok(Attempt::Taken(owner, revision))
        }
    }
}

/// Takes away everything that `pipeline` has in the etcd, as its owner. Returns what was removed.
///
/// # Errors
/// `Ownership` if another process owns the pipeline.
pub fn remove(pipeline: &Pipeline) -> Result<Option<String>> {
    let Some(mut candidate) = Candidate::new(pipeline)? else { return Ok(None) };
    candidate.check_definition(pipeline)?;
    let attempt = candidate.runtime.block_on(attempt(
        &mut candidate.line,
        &candidate.keys,
        &candidate.config,
    ))?;
    match attempt {
        Attempt::Taken(owner, _) => {
            let who = owner.map_or_else(String::new, |owner| format!(": {owner}"));
            let message = format!("another process owns the pipeline {}{who}", pipeline.name);
            Err(Error::new(Kind::Ownership, message).hint("stop it, and all that stand by, then try again"))
        }
        Attempt::Ours(claimed) => {
            let (line, keys) = (&mut candidate.line, &candidate.keys);
            let removed = format!("keys below {} in the ownership's etcd at {}", keys.all(), line.describe());
            let cleared = candidate.runtime.block_on(line.clear(keys.all()));
            let revoked = candidate.runtime.block_on(line.revoke(claimed.lease));
            cleared?;
            revoked?;
            // The keys of the election itself were made just now.
            Ok(claimed.settle.map(|_| removed))
        }
    }
}

/// Who owns `pipeline`, if it has `[ownership]`, in words.
///
/// # Errors
/// As [`Candidate::stand_by`].
pub fn describe(pipeline: &Pipeline) -> Result<Option<String>> {
    let Some(mut candidate) = Candidate::new(pipeline)? else { return Ok(None) };
    candidate.check_definition(pipeline)?;
    let (found, _) = candidate.runtime.block_on(candidate.line.one(&candidate.keys.owner()))?;
    let at = format!("by etcd at {}", candidate.line.describe());
    Ok(Some(match found {
        None => format!("nobody's, {at}"),
        Some(kv) => match serde_json::from_slice::<Owner>(kv.value()) {
            Ok(owner) => format!("{owner}, {at}"),
            Err(_) => format!("another process, {at}"),
        },
    }))
}

/// Says that the etcd is away, and that it is back, but not all the time.
#[derive(Debug, Default)]
pub struct Outage {
    since: Option<Instant>,
    said: Option<Instant>,
}

impl Outage {
    /// It does not answer.
    pub fn tell(&mut self, error: &Error) {
        let now = Instant::now();
        let since = *self.since.get_or_insert(now);
        if self.said.is_none_or(|said| now - said > REMINDER) {
            self.said = Some(now);
            let waited_s = (now - since).as_secs();
            tracing::warn!(waited_s, "waiting for the etcd: {}", error.report().replace("\n  ", "; "));
        }
    }

    /// It does.
    pub fn is_over(&mut self) {
        if let Some(since) = self.since.take() {
            let waited_ms = since.elapsed().as_millis();
            tracing::info!(waited_ms, "the ownership's etcd is there again");
        }
        self.said = None;
    }
}

