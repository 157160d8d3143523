//! What a definition is read in: where its paths start, and what it may know of the environment.

use std::ffi::OsString;
use std::path::Path;

use super::env::Lookup;

/// Where a definition is read.
pub struct Surroundings<'s> {
    /// Where relative paths start.
    pub folder: &'s Path,
    /// The variables that `${NAME}` may name.
    pub lookup: Lookup<'s>,
    /// Which values may name them.
    pub references: References,
    /// The folder in which pipelines have their state folders by default; `None`: that of the user.
    pub states: Option<&'s Path>,
}

/// Which values may refer to variables of the environment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum References {
    /// All.
    Everywhere,
    /// Those that are never shown. For definitions from elsewhere: any other value may come back in a message.
    InSecrets,
}

impl<'s> Surroundings<'s> {
    /// Of a file in `folder`, read by the user who wrote it.
    pub fn of_file(folder: &'s Path, lookup: Lookup<'s>) -> Surroundings<'s> {
        Surroundings { folder, lookup, references: References::Everywhere, states: None }
    }
}

/// The environment of this process.
pub fn environment(name: &str) -> Option<OsString> {
    std::env::var_os(name)
}
