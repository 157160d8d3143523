//! `migrans remove`.

use std::path::Path;

use crate::error::Result;
use crate::pipeline::Pipeline;
use crate::remove;

/// Takes away what the pipeline in the file `path` keeps outside of its target.
pub fn remove(path: &Path) -> Result<()> {
    let removed = remove::remove(&Pipeline::load(path)?)?;
    for what in &removed {
        println!("removed {what}");
    }
    if removed.is_empty() {
        println!("there was nothing to remove");
    }
    Ok(())
}
