//! How a process becomes the owner: whoever creates the key is it, all others watch it and try again when it is gone.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use etcd_client::{Compare, CompareOp, PutOptions, Txn, TxnOp, TxnOpResponse};
use serde::{Deserialize, Serialize};
use tokio::runtime::Runtime;

use super::fence::Fence;
use super::line::{Keys, Line};
use super::term::{self, Term};
use super::{Owner, Standing, replica};
use crate::clock;
use crate::dataflow::checkpoint::{self, Records, records};
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
    /// The lease lasts from then at least.
    granted: Duration,
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
    /// `Denied`, and `Checkpoint` for keys of another program. For an etcd that can't be reached it waits.
    pub fn stand_by(
        mut self,
        pipeline: &Pipeline,
        stop: &AtomicBool,
        mut observe: impl FnMut(Standing),
    ) -> Result<Option<Term>> {
        let mut said: Option<(Option<Owner>, Instant)> = None;
        let mut out = Outage::default();
        while !stop.load(Ordering::Acquire) {
            let attempt = self.runtime.block_on(attempt(&mut self.line, &self.keys, &self.config));
            match attempt {
                Ok(Attempt::Ours(claimed)) => return Ok(Some(self.take(claimed))),
                Ok(Attempt::Taken(owner, revision)) => {
                    out.is_over();
                    if said.as_ref().is_none_or(|(to, at)| *to != owner || at.elapsed() > REMINDER) {
                        match &owner {
                            Some(owner) => tracing::info!("standing by: {owner}, owns {}", pipeline.name),
                            None => tracing::info!("standing by: another process owns {}", pipeline.name),
                        }
                        said = Some((owner.clone(), Instant::now()));
                    }
                    self.wait(revision, stop, || observe(Standing::By(owner.clone())));
                }
                Err(error) if error.kind() == Kind::Unavailable => {
                    out.tell(&error);
                    observe(Standing::By(None));
                    std::thread::sleep(LOOK);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    /// Takes the ownership at once.
    ///
    /// # Errors
    /// `Ownership` if another process has it.
    pub fn claim(mut self, pipeline: &Pipeline) -> Result<Term> {
        self.check_definition(pipeline)?;
        match self.runtime.block_on(attempt(&mut self.line, &self.keys, &self.config))? {
            Attempt::Ours(claimed) => Ok(self.take(claimed)),
            Attempt::Taken(owner, _) => {
                let who = owner.map_or_else(|| "another process".to_owned(), |owner| owner.to_string());
                let message = format!("{who}, owns the pipeline {}", pipeline.name);
                Err(Error::new(Kind::Ownership, message)
                    .hint("stop it, and all that stand by, then try again"))
            }
        }
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

    /// Whether the checkpoint that is there, if one is, is that of `pipeline` as its file defines it. (A standby would
    /// find out only when it is needed.)
    ///
    /// # Errors
    /// `Checkpoint` if it is not; `Unavailable`, `Denied`.
    pub fn check_definition(&mut self, pipeline: &Pipeline) -> Result<()> {
        let key = format!("{}{}", self.keys.records(), records::PIPELINE);
        let (found, _) = self.runtime.block_on(self.line.one(&key))?;
        let Some(kv) = found else { return Ok(()) };
        let records = Records::from([(records::PIPELINE.to_owned(), kv.value().to_vec())]);
        let place = place(&self.line, &self.keys);
        checkpoint::of_pipeline(&records, pipeline).map_err(|error| error.context(place))
    }

    fn take(self, claimed: Claimed) -> Term {
        let Candidate { config, keys, line, fence, runtime } = self;
        if claimed.ttl > config.ttl {
            tracing::warn!(
                "the ownership's etcd grants no lease of less than {:?}, so a takeover takes that much longer",
                claimed.ttl
            );
        }
        let Claimed { epoch, owner, lease, ttl, granted, settle } = claimed;
        tracing::info!(epoch, "owner of the pipeline since {}", owner.since);
        let settle = settle.map(|settle| (Instant::now(), settle));
        Term::begin(term::Beginning { keys, line, fence, runtime, epoch, owner, lease, ttl, granted, settle })
    }
}

/// How much longer than the ownership is known to last a call may be alive; the rest of `settle` is for what the network
/// holds up.
fn tail(config: &OwnershipConfig) -> Duration {
    config.settle / 2
}

/// The longest that a call may take.
pub fn longest_call(config: &OwnershipConfig) -> Duration {
    config.ttl + tail(config)
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
    let granted = clock::up();
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
            Err(error) if error.kind() == Kind::Unavailable && clock::up() < granted + ttl => {
                tokio::time::sleep(LOOK).await;
            }
            answer => break answer?,
        }
    };
    let revision = response.header().map_or(0, |header| header.revision());
    if response.succeeded() {
        return Ok(Attempt::Ours(Claimed { epoch: revision, owner: me, lease, ttl, granted, settle }));
    }
    let found = response.op_responses().into_iter().find_map(|response| match response {
        TxnOpResponse::Get(mut get) => get.take_kvs().pop(),
        _ => None,
    });
    match found {
        Some(kv) if kv.lease() == lease => {
            let epoch = kv.create_revision();
            Ok(Attempt::Ours(Claimed { epoch, owner: me, lease, ttl, granted, settle }))
        }
        other => {
            // It ends by itself as well.
            drop(line.revoke(lease).await);
            let owner = other.and_then(|kv| serde_json::from_slice(kv.value()).ok());
            Ok(Attempt::Taken(owner, revision))
        }
    }
}

/// What the etcd says about `pipeline`, if it has `[ownership]`: who owns it, in words, and the checkpoint's records.
/// Changes nothing.
///
/// # Errors
/// As [`Candidate::stand_by`].
pub fn look(pipeline: &Pipeline) -> Result<Option<(String, Records)>> {
    let Some(mut candidate) = Candidate::new(pipeline)? else { return Ok(None) };
    candidate.check_definition(pipeline)?;
    let Candidate { line, keys, runtime, .. } = &mut candidate;
    let (found, _) = runtime.block_on(line.one(&keys.owner()))?;
    let who = match found.map(|kv| serde_json::from_slice::<Owner>(kv.value())) {
        None => "nobody owns it".to_owned(),
        Some(Ok(owner)) => owner.to_string(),
        Some(Err(_)) => "another process owns it".to_owned(),
    };
    let records = runtime.block_on(replica::records(line, keys))?;
    Ok(Some((format!("{who}; by etcd at {}, {}", line.describe(), keys.all()), records)))
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
