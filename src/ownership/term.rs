//! The time for which a process owns a pipeline: signs of life, and what happens when they are not answered.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::runtime::Runtime;
use tokio::task::JoinHandle;

use super::election::{Outage, place};
use super::fence::Fence;
use super::line::{Beat, Keys, Line};
use super::replica::{self, Replica};
use super::{Owner, Standing};
use crate::clock;
use crate::dataflow::checkpoint::Records;
use crate::error::{Error, Kind, Result};

/// The pause after a sign of life that was not answered.
const PAUSE: Duration = Duration::from_millis(100);
/// The part of a lease that is left unused: clocks run at different speeds.
const UNUSED: u32 = 20;

/// What a term begins with.
pub struct Beginning {
    pub keys: Keys,
    pub line: Line,
    pub fence: Fence,
    pub runtime: Runtime,
    pub epoch: i64,
    pub owner: Owner,
    pub lease: i64,
    pub ttl: Duration,
    /// The lease lasts from then at least, by the clock of the fence.
    pub granted: Duration,
    /// Since when, and for how long from then on, calls of an owner before may be alive.
    pub settle: Option<(Instant, Duration)>,
}

/// This process owns the pipeline, as far as it knows. When it is dropped, the ownership ends by itself a while later.
pub struct Term {
    shared: Arc<Shared>,
    owner: Owner,
    lease: i64,
    settle: Option<(Instant, Duration)>,
    line: Line,
    heart: JoinHandle<()>,
    runtime: Runtime,
}

/// What those know who may find out that a term has ended.
pub struct Shared {
    pub keys: Keys,
    pub epoch: i64,
    pub fence: Fence,
    state: Mutex<State>,
    /// The run is about to end: nobody waits for the etcd any more.
    closing: AtomicBool,
}

#[derive(Default)]
struct State {
    /// Whose the pipeline is now, once it is not ours.
    lost: Option<Lost>,
    trouble: Option<String>,
}

#[derive(Clone)]
enum Lost {
    To(Owner),
    ToNobody,
    ToUnknown,
}

impl Term {
    /// Begins to give signs of life.
    pub fn begin(beginning: Beginning) -> Term {
        let Beginning { keys, line, fence, runtime, epoch, owner, lease, ttl, granted, settle } = beginning;
        fence.keep(granted + usable(ttl));
        let state = Mutex::default();
        let shared = Arc::new(Shared { keys, epoch, fence, state, closing: AtomicBool::new(false) });
        let heart = runtime.spawn(live(Arc::clone(&shared), line.another(), lease, ttl));
        Term { shared, owner, lease, settle, line, heart, runtime }
    }

    /// The checkpoint as the owner before left it, empty if there was none, and what keeps it up to date.
    ///
    /// # Errors
    /// `Unavailable`, `Denied`; `Ownership` if it has ended already.
    pub fn replica(&self) -> Result<(Replica, Records)> {
        let handle = self.runtime.handle().clone();
        self.runtime.block_on(replica::open(Arc::clone(&self.shared), self.line.another(), handle))
    }

    /// How to speak of that checkpoint.
    pub fn place(&self) -> String {
        place(&self.line, &self.shared.keys)
    }

    /// The fencing epoch.
    pub fn epoch(&self) -> i64 {
        self.shared.epoch
    }

    /// How long calls of an owner before may still be alive, unless the checkpoint says that there are none. `None` if
    /// there was no owner before.
    pub fn settles_in(&self) -> Option<Duration> {
        self.settle.map(|(since, settle)| settle.saturating_sub(since.elapsed()))
    }

    /// Whether the ownership has been lost, and how.
    pub fn lost(&self) -> Option<Error> {
        self.shared.lost()
    }

    /// For people.
    pub fn standing(&self) -> Standing {
        let closed = self.shared.fence.check().is_err();
        let trouble = self.shared.lock(|state| state.trouble.clone()).filter(|_| closed);
        Standing::Owner { epoch: self.shared.epoch, since: self.owner.since.clone(), trouble }
    }

    /// The run is about to end: from now on the checkpoint does not wait for an etcd that does not answer.
    pub fn close(&self) {
        self.shared.closing.store(true, Ordering::Release);
    }

    /// Takes away everything that the pipeline has in the etcd, and lets go of it. Returns what was removed; `None` if
    /// there was nothing but what this process has made.
    ///
    /// # Errors
    /// `Unavailable`, `Denied`.
    pub fn remove(mut self) -> Result<Option<String>> {
        let keys = self.shared.keys.clone();
        let removed = self.runtime.block_on(self.line.clear(keys.all()))?;
        let place =
            format!("the keys below {} in the ownership's etcd at {}", keys.all(), self.line.describe());
        let existed = self.settle.is_some() && removed > 0;
        self.release();
        Ok(existed.then_some(place))
    }

    /// Lets go of the ownership at once. Nothing that was sent may be alive any more.
    pub fn release(mut self) {
        self.close();
        self.heart.abort();
        self.shared.fence.close();
        match self.runtime.block_on(self.line.revoke(self.lease)) {
            Ok(()) => tracing::info!(epoch = self.shared.epoch, "let go of the ownership of the pipeline"),
            // It ends by itself.
            Err(error) => tracing::warn!("can't let go of the ownership at once: {error}"),
        }
    }
}

impl Drop for Term {
    fn drop(&mut self) {
        self.close();
        self.heart.abort();
        self.shared.fence.close();
    }
}

impl Shared {
    fn lock<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        act(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether the run is about to end and the ownership may have ended: nothing is to be waited for.
    pub fn is_over(&self) -> bool {
        self.closing.load(Ordering::Acquire) && self.fence.check().is_err()
    }

    /// Notes that the ownership has ended. `owner` is what stands in its key now, if that is known.
    pub fn lose(&self, owner: Option<Option<Owner>>) -> Error {
        self.fence.close();
        self.lock(|state| {
            state.lost.get_or_insert(match owner {
                Some(Some(owner)) => Lost::To(owner),
                Some(None) => Lost::ToNobody,
                None => Lost::ToUnknown,
            });
        });
        self.lost().unwrap_or_else(|| Error::new(Kind::Ownership, "this process does not own the pipeline"))
    }

    /// The error, once it has ended.
    pub fn lost(&self) -> Option<Error> {
        let lost = self.lock(|state| state.lost.clone())?;
        let now = match lost {
            Lost::To(owner) => format!("it is now that of {owner}"),
            Lost::ToNobody => "nobody has taken it over yet".to_owned(),
            Lost::ToUnknown => "who has it now is not known".to_owned(),
        };
        let message = format!(
            "this process no longer owns the pipeline (epoch {}): it gave no sign of life for too long; {now}",
            self.epoch
        );
        Some(Error::new(Kind::Ownership, message).hint(
            "it was stopped, suspended, or cut off from the etcd; it has sent nothing since. Started again, it stands by",
        ))
    }
}

/// How much of a lease counts.
fn usable(ttl: Duration) -> Duration {
    ttl - ttl / UNUSED
}

/// Gives signs of life until one is answered with the end.
async fn live(shared: Arc<Shared>, mut line: Line, lease: i64, ttl: Duration) {
    let interval = ttl / 3;
    let mut out = Outage::default();
    loop {
        // The lease lasts from when the server hears of it, which is later than this.
        let sent = clock::up();
        match line.beat(lease).await {
            Ok(Beat::Alive) => {
                shared.fence.keep(sent + usable(ttl));
                shared.lock(|state| state.trouble = None);
                out.is_over();
                tokio::time::sleep((sent + interval).saturating_sub(clock::up())).await;
            }
            Ok(Beat::Gone) => {
                let owner = line.one(&shared.keys.owner()).await.ok();
                let owner = owner.map(|(kv, _)| kv.and_then(|kv| serde_json::from_slice(kv.value()).ok()));
                shared.lose(owner);
                return;
            }
            Err(error) => {
                let trouble = format!("nothing is sent while the ownership is not certain: {error}");
                shared.lock(|state| state.trouble = Some(trouble));
                out.tell(&error);
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}
