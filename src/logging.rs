//! stub
use crate::Result;
/// f
pub enum Format {
    /// t
    Text,
    /// j
    Json,
}
/// x
pub fn init(_f: Format, level: &str) -> Result<()> {
    tracing_subscriber::fmt().with_env_filter(level).with_writer(std::io::stderr).init();
    Ok(())
}
