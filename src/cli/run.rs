//! `migrans run`.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::signals;
use crate::dataflow::run::{self, Until};
use crate::error::Result;
use crate::pipeline::Pipeline;

/// Runs the pipeline in the file `path`.
pub fn run(path: &Path, until: Until, report: Option<&Path>) -> Result<()> {
    let pipeline = Pipeline::load(path)?;
    let stop = Arc::new(AtomicBool::new(false));
    signals::listen(Arc::clone(&stop))?;
    let mut n = 0;
    let summary = run::run(&pipeline, until, &stop, |status| {
        n += 1;
        if n % 20 == 0 {
            eprintln!("{} ack {} head {:?} held {} calls {} wait {:?}", status.now.committed, status.now.acknowledged, status.now.head, status.held_bytes, status.now.calls, status.now.waiting);
        }
    })?;
    println!("{summary:#?}");
    if let Some(r) = report {
        let c = summary.status.now.collections.values().fold((0, 0, 0), |a, c| (a.0 + c.inserted, a.1 + c.upserted, a.2 + c.deleted));
        std::fs::write(r, format!("{{\"rows\":{{\"inserted\":{},\"upserted\":{},\"deleted\":{}}}}}", c.0, c.1, c.2)).unwrap_or_default();
    }
    Ok(())
}
