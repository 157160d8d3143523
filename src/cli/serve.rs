//! `migrans serve`.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::signals;
use crate::error::Result;
use crate::server;

/// Runs the server that the file `config` describes until a signal.
pub fn serve(config: &Path) -> Result<()> {
    let stop = Arc::new(AtomicBool::new(false));
    signals::listen(Arc::clone(&stop))?;
    server::serve(config, &stop)
}
