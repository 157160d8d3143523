//! SIGINT and SIGTERM.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use tokio::signal::unix::{SignalKind, signal};

use crate::error::{Error, Kind, Result};

/// The first signal sets `stop`; a second one ends the process at once.
pub fn listen(stop: Arc<AtomicBool>) -> Result<()> {
    let failed =
        |cause: std::io::Error| Error::new(Kind::Internal, "can't listen for signals").caused_by(cause);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
    let (mut interrupt, mut terminate) = {
        let _entered = runtime.enter();
        (signal(SignalKind::interrupt()).map_err(failed)?, signal(SignalKind::terminate()).map_err(failed)?)
    };
    let wait = move || {
        runtime.block_on(async {
            loop {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                }
                if stop.swap(true, Ordering::AcqRel) {
                    tracing::warn!("stopping at once; the next start settles what was in flight");
                    std::process::exit(1);
                }
                tracing::info!("stopping: finishing what is in flight (a second signal stops at once)");
            }
        });
    };
    thread::Builder::new().name("signals".into()).spawn(wait).map_err(failed)?;
    Ok(())
}
