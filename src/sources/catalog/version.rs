//! Which Milvus this is: its version, and where its proxies are.

use std::fmt;

use serde::Deserialize;

use crate::error::{Error, Kind, Result};

/// The first version whose log and metadata are understood.
const FIRST: Version = Version { major: 2, minor: 3, patch: 0 };
/// The first version that is too new: 2.6 writes its log in another form.
const END: Version = Version { major: 2, minor: 6, patch: 0 };

/// A version of Milvus, without what may follow the numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// 2 in 2.3.5.
    pub major: u32,
    /// 3 in 2.3.5.
    pub minor: u32,
    /// 5 in 2.3.5.
    pub patch: u32,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

impl Version {
    /// Reads `2.3.5`, `v2.3.5`, `2.4.0-rc.1`.
    pub fn parse(text: &str) -> Option<Version> {
        let text = text.strip_prefix('v').unwrap_or(text);
        let numbers = text.split(['-', '+']).next()?;
        let mut parts = numbers.split('.').map(|part| part.parse::<u32>().ok());
        let version = Version { major: parts.next()??, minor: parts.next()??, patch: parts.next()?? };
        parts.next().is_none().then_some(version)
    }
}

/// What a server writes about itself to `session/<role>` or `session/<role>-<id>`.
#[derive(Deserialize)]
struct Session {
    #[serde(rename = "Version", default)]
    version: String,
    #[serde(rename = "Address", default)]
    address: String,
}

/// The addresses of the proxies among `sessions`, `host:port` each.
pub fn proxies(sessions: &[(String, Vec<u8>)]) -> Vec<String> {
    let proxies = sessions.iter().filter(|(role, _)| role == "proxy" || role.starts_with("proxy-"));
    let addresses =
        proxies.filter_map(|(_, value)| Some(serde_json::from_slice::<Session>(value).ok()?.address));
    addresses.filter(|address| !address.is_empty()).collect()
}

/// The lowest version among the servers that run, `None` if none runs or none says a version that can be read.
/// `sessions` are the keys, without what all have in common, and their values.
///
/// # Errors
/// `Version` if one of them is not supported.
pub fn running(sessions: &[(String, Vec<u8>)], cluster: &str) -> Result<Option<Version>> {
    let mut lowest: Option<Version> = None;
    for (role, value) in sessions {
        // `session/id` is a counter.
        let Ok(session) = serde_json::from_slice::<Session>(value) else { continue };
        let Some(version) = Version::parse(&session.version) else { continue };
        if version < FIRST || version >= END {
            let message = format!(
                "the source {cluster} is Milvus {} (says its {role}), which is not supported",
                session.version
            );
            return Err(Error::new(Kind::Version, message).hint(format!(
                "migrans reads from Milvus {FIRST} up to, not including, {END}; update {}",
                if version < FIRST { "the source" } else { "migrans" }
            )));
        }
        lowest = Some(lowest.map_or(version, |lowest| lowest.min(version)));
    }
    Ok(lowest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(role: &str, version: &str) -> (String, Vec<u8>) {
        let value = format!(
            r#"{{"ServerID":1,"ServerName":"{role}","Address":"127.0.0.1:1","Exclusive":true,"Version":"{version}"}}"#
        );
        (role.to_owned(), value.into_bytes())
    }

    #[test]
    fn versions_are_read_with_or_without_what_follows() {
        let version = |major, minor, patch| Some(Version { major, minor, patch });
        assert_eq!(Version::parse("2.3.5"), version(2, 3, 5));
        assert_eq!(Version::parse("v2.4.23"), version(2, 4, 23));
        assert_eq!(Version::parse("2.5.0-beta+abc.1"), version(2, 5, 0));
        for other in ["", "2", "2.3", "master-20240101", "2.3.5.1", "2.x.1"] {
            assert_eq!(Version::parse(other), None, "{other}");
        }
    }

    #[test]
    fn the_lowest_of_the_running_versions_counts() {
        let sessions =
            [session("rootcoord", "2.4.1"), session("datanode-3", "2.3.5"), ("id".into(), b"17".to_vec())];
        assert_eq!(running(&sessions, "x").unwrap(), Version::parse("2.3.5"));
    }

    #[test]
    fn proxies_are_found_among_the_servers() {
        let sessions =
            [session("rootcoord", "2.3.5"), session("proxy-7", "2.3.5"), ("id".into(), b"17".to_vec())];
        assert_eq!(proxies(&sessions), ["127.0.0.1:1"]);
        assert_eq!(proxies(&sessions[..1]), Vec::<String>::new());
    }

    #[test]
    fn nobody_there_or_an_unknown_version_is_no_error() {
        assert_eq!(running(&[], "x").unwrap(), None);
        assert_eq!(
            running(&[session("rootcoord", "master"), ("id".into(), b"2".to_vec())], "x").unwrap(),
            None
        );
        assert_eq!(running(&[("rootcoord".into(), b"{}".to_vec())], "x").unwrap(), None);
    }

    #[test]
    fn a_version_out_of_range_is_refused_with_the_way_out() {
        for (version, way_out) in
            [("2.2.9", "update the source"), ("2.6.0", "update migrans"), ("4.0.0", "migrans")]
        {
            let sessions = [session("rootcoord", "2.3.5"), session("querynode-2", version)];
            let error = running(&sessions, "http://e:2379, by-dev/meta/").unwrap_err();
            assert_eq!(error.kind(), Kind::Version);
            assert!(error.message().contains(version) && error.message().contains("querynode-2"), "{error}");
            assert!(error.hint_text().unwrap().contains(way_out), "{error:?}");
        }
    }
}
