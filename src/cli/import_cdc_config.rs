//! `migrans import-cdc-config`.

use std::io::Write;
use std::path::{Path, PathBuf};

use crate::error::{Error, Kind, Result};
use crate::server::cdc::import;

/// Reads milvus-cdc's configuration in `file`, and writes the server's file that does the same to `output`, which must not be
/// there yet, or prints it.
pub fn import_cdc_config(file: &Path, output: Option<&PathBuf>) -> Result<()> {
    let yaml = std::fs::read_to_string(file).map_err(|cause| {
        Error::new(Kind::PipelineFile, format!("can't read {}", file.display())).caused_by(cause)
    })?;
    let text = import::server_file(&yaml, &file.display().to_string())?;
    let Some(output) = output else {
        print!("{text}");
        return Ok(());
    };
    let failed = |cause: std::io::Error| {
        Error::new(Kind::Usage, format!("can't write {}", output.display())).caused_by(cause)
    };
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    // There may be passwords in it.
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(output).and_then(|mut written| written.write_all(text.as_bytes())).map_err(failed)?;
    println!("wrote {}: migrans serve {0} starts a server from it", output.display());
    Ok(())
}
