//! The server's file.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Deserializer};

use super::auth::Tokens;
use super::cdc;
use super::definition::Rules;
use super::manager::Settings;
use crate::error::{Error, Kind, Result};
use crate::pipeline::env;
use crate::pipeline::{environment, units};

/// `server.toml`, read and validated.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where it listens.
    #[serde(default = "loopback")]
    pub listen: SocketAddr,
    /// Its folder: the store, and the state folders of the pipelines.
    pub data_dir: PathBuf,
    /// Threads for the calls of all pipelines, and for requests.
    #[serde(default = "threads")]
    pub threads: usize,
    /// Other folders in which pipelines may have their state folders.
    #[serde(default)]
    pub state_dirs: Vec<PathBuf>,
    /// Variables of the environment that secrets in definitions may be taken from.
    #[serde(default)]
    pub variables: Vec<String>,
    /// Listen on an address that others reach, without tokens or without TLS.
    #[serde(default)]
    pub insecure: bool,
    /// The certificate.
    pub tls: Option<Certificate>,
    /// Who may do what.
    #[serde(default)]
    pub tokens: TokenLists,
    /// What holds for pipelines whose definitions do not say it.
    #[serde(default)]
    pub restart: RestartDefaults,
    /// What requests may be.
    #[serde(default)]
    pub limits: Limits,
    /// The API of milvus-cdc; without this there is none.
    pub cdc: Option<cdc::Table>,
}

/// `[tls]`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Certificate {
    /// A PEM file with the certificate, and those between it and its root.
    pub cert: PathBuf,
    /// A PEM file with its key.
    pub key: PathBuf,
}

/// `[tokens]`
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TokenLists {
    read: Vec<String>,
    write: Vec<String>,
}

impl std::fmt::Debug for TokenLists {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} and {} secrets", self.read.len(), self.write.len())
    }
}

/// `[restart]`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RestartDefaults {
    /// How often after failures in a row.
    pub attempts: usize,
}

impl Default for RestartDefaults {
    fn default() -> Self {
        RestartDefaults { attempts: 1_000_000 }
    }
}

/// `[limits]`
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Bytes of a body.
    #[serde(deserialize_with = "size")]
    pub body: usize,
    /// How long a request may take.
    #[serde(deserialize_with = "duration")]
    pub request_time: Duration,
    /// Connections at a time.
    pub connections: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { body: 1 << 20, request_time: Duration::from_secs(60), connections: 1024 }
    }
}

fn loopback() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 8444))
}

fn threads() -> usize {
    2
}

fn size<'de, D: Deserializer<'de>>(deserializer: D) -> std::result::Result<usize, D::Error> {
    let text = String::deserialize(deserializer)?;
    let bytes = units::parse_size(&text).map_err(serde::de::Error::custom)?;
    usize::try_from(bytes).map_err(serde::de::Error::custom)
}

fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    units::parse_duration(&text).map_err(serde::de::Error::custom)
}

impl Config {
    /// Reads the file at `path`.
    ///
    /// # Errors
    /// `PipelineFile`: it can't be read, or says what can't be.
    pub fn load(path: &Path) -> Result<Config> {
        let text = std::fs::read_to_string(path).map_err(|cause| {
            Error::new(Kind::PipelineFile, format!("can't read the server's file {}", path.display()))
                .caused_by(cause)
        })?;
        Config::parse(&text, path)
    }

    /// Reads the text of a file at `path`, where relative paths start.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn parse(text: &str, path: &Path) -> Result<Config> {
        let mut config: Config = toml::from_str(text).map_err(|error| {
            let line = error.span().and_then(|span| text.get(..span.start));
            let line =
                line.map_or_else(String::new, |before| format!(":{}", before.matches('\n').count() + 1));
            // Only what is wrong: the line itself may hold a token.
            Error::new(Kind::PipelineFile, format!("{}{line}: {}", path.display(), error.message()))
        })?;
        config.check().map_err(|error| error.context(path.display()))?;
        let folder = path.parent().unwrap_or(Path::new(""));
        let here = |path: &mut PathBuf| *path = std::path::absolute(folder.join(&*path)).unwrap_or_default();
        here(&mut config.data_dir);
        config.state_dirs.iter_mut().for_each(here);
        if let Some(tls) = &mut config.tls {
            here(&mut tls.cert);
            here(&mut tls.key);
        }
        Ok(config)
    }

    fn check(&mut self) -> Result<()> {
        let wrong = |message: String, hint: &str| Err(Error::new(Kind::PipelineFile, message).hint(hint));
        for token in self.tokens.read.iter_mut().chain(&mut self.tokens.write) {
            *token = match env::substitute(token, &environment) {
                Ok(done) => done.text,
                Err(faults) => {
                    let messages: Vec<String> = faults.into_iter().map(|fault| fault.message).collect();
                    return wrong(format!("[tokens]: {}", messages.join("; ")), "set it");
                }
            };
            let is_usable = token.len() >= 16 && token.bytes().all(|byte| byte.is_ascii_graphic());
            if !is_usable {
                return wrong(
                    "[tokens]: a token is shorter than 16 characters, or not of printable ASCII".to_owned(),
                    "make one with: openssl rand -hex 32",
                );
            }
        }
        if self.threads == 0 || self.threads > 1024 {
            return wrong(format!("threads can't be {}", self.threads), "choose from 1 to 1024");
        }
        if self.limits.connections == 0 || self.limits.body == 0 || self.limits.request_time.is_zero() {
            return wrong("a limit in [limits] is 0".to_owned(), "nothing could ever be answered");
        }
        let is_open = self.tokens.read.is_empty() && self.tokens.write.is_empty();
        if !self.listen.ip().is_loopback() && !self.insecure {
            let missing = match (is_open, self.tls.is_none()) {
                (true, _) => "[tokens]",
                (_, true) => "[tls]",
                _ => return Ok(()),
            };
            return wrong(
                format!("listen = \"{}\" is reached by others, and there is no {missing}", self.listen),
                "add it, listen on 127.0.0.1, or say insecure = true if something else keeps others out",
            );
        }
        Ok(())
    }

    /// What the manager is told.
    pub fn settings(&self, path: &Path) -> Settings {
        let folder = path.parent().unwrap_or(Path::new(""));
        Settings {
            store: self.data_dir.join("server"),
            rules: Rules {
                folder: std::path::absolute(folder).unwrap_or_default(),
                states: self.data_dir.join("pipelines"),
                other_states: self.state_dirs.clone(),
                variables: self.variables.clone(),
            },
            attempts: self.restart.attempts,
            held_back: cdc::held_back,
        }
    }

    /// What holds for the tasks of milvus-cdc's API, if there is one.
    ///
    /// # Errors
    /// `PipelineFile`, with everything that is wrong in `[cdc]`.
    pub fn cdc_settings(&self, path: &Path) -> Result<Option<cdc::Settings>> {
        let folder = self.settings(path).rules.folder;
        let settings = self.cdc.as_ref().map(|table| table.settings(&folder, &environment));
        settings.transpose().map_err(|error| error.context(path.display()))
    }

    /// Who may do what.
    pub fn tokens(&self) -> Tokens {
        Tokens::new(self.tokens.read.clone(), self.tokens.write.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Config> {
        Config::parse(text, Path::new("/etc/migrans/server.toml"))
    }

    #[test]
    fn the_example_is_a_server_file() {
        let path = Path::new("deploy/server.toml");
        let text = std::fs::read_to_string(path).unwrap();
        // Its tokens are in variables that are not set here.
        let text = text
            .replace("${MIGRANS_READ_TOKEN}", "0123456789abcdef")
            .replace("${MIGRANS_WRITE_TOKEN}", "0123456789abcdeg");
        let config = parse(&text).unwrap();
        assert!(config.tls.is_some() && !config.tokens().is_open());
    }

    #[test]
    fn a_short_file_gets_defaults_and_paths_start_at_the_file() {
        let config = parse("data_dir = \"data\"\n[limits]\nbody = \"2MiB\"").unwrap();
        assert_eq!(config.data_dir, Path::new("/etc/migrans/data"));
        assert_eq!((config.limits.body, config.limits.connections), (2 << 20, 1024));
        assert_eq!(config.listen.to_string(), "127.0.0.1:8444");
    }

    #[test]
    fn what_is_wrong_is_named_and_no_token_is_repeated() {
        for (text, message) in [
            ("", "missing field `data_dir`"),
            ("data_dir = \"d\"\nport = 1", "server.toml:2: unknown field `port`"),
            ("data_dir = \"d\"\n[tokens]\nread = [\"hush\"]", "shorter than 16"),
            ("data_dir = \"d\"\n[tokens]\nread = [\"hush hush hush hush\"]", "not of printable ASCII"),
            ("data_dir = \"d\"\n[tokens]\nread = \"hush\"", "invalid type: string"),
            ("data_dir = \"d\"\nlisten = \"0.0.0.0:1\"", "there is no [tokens]"),
            (
                "data_dir = \"d\"\nlisten = \"0.0.0.0:1\"\n[tokens]\nread=[\"0123456789abcdef\"]",
                "there is no [tls]",
            ),
            ("data_dir = \"d\"\nthreads = 0", "threads can't be 0"),
            ("data_dir = \"d\"\n[limits]\nbody = \"0B\"", "a limit in [limits] is 0"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.message().contains(message), "{error}");
            let said = error.report().replace("string \"hush\"", "");
            assert!(!said.contains("hush"), "{said}");
        }
        assert!(parse("data_dir = \"d\"\nlisten = \"0.0.0.0:1\"\ninsecure = true").is_ok());
    }
}
