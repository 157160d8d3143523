//! A pipeline that is not going to run any more leaves nothing behind but its target.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::dataflow::checkpoint::{self, Store};
use crate::dataflow::credits::Credits;
use crate::error::Result;
use crate::ownership::Candidate;
use crate::pipeline::Pipeline;
use crate::sources::{self, Context};

/// Takes away what `pipeline` keeps in the queue, its state folder, and its keys in the etcd of
/// `[ownership]`. The target stays as it is.
///
/// The queue comes first: if it can't be reached, the state is still there, and it can be removed again. Returns what was
/// taken away, in words.
pub fn remove(pipeline: &Pipeline) -> Result<Vec<String>> {
    let folder = &pipeline.state_dir;
    // Held while we are at it, so that the pipeline is not running.
    let lock = if folder.exists() {
        let mut store = Store::open(folder)?;
        checkpoint::load(&mut store, pipeline)?;
        Some(store)
    } else {
        None
    };
    let term = Candidate::new(pipeline)?.map(|candidate| candidate.claim(pipeline)).transpose()?;
    let stop = Arc::new(AtomicBool::new(false));
    let context = Context::new(Credits::new(0), Arc::default(), Arc::clone(&stop), folder.join("scratch"));
    let source = sources::connect(&pipeline.source.mq, context)?;
    let removed = source.remove();
    stop.store(true, Ordering::Release);
    drop(source);
    let mut removed = removed?;
    if lock.is_some() {
        drop(lock);
        checkpoint::destroy(folder)?;
        removed.push(format!("state folder {}", folder.display()));
    }
    if let Some(term) = term {
        removed.extend(term.remove()?);
    }
    Ok(removed)
}
