//! Which versions of Milvus are written to, and what they can hold.

use std::fmt;

use crate::error::{Error, Kind, Result};
use crate::milvus::proto::schema::DataType;

/// A server's version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Version {
    number: (u32, u32, u32),
    text: String,
}

/// The first version that this sink writes to, and the first that it does not any more: 2.6 has another way of
/// writing (section G of Milvus' proxy changed with its streaming log) that was not tried yet.
const SUPPORTED: ((u32, u32, u32), (u32, u32, u32)) = ((2, 3, 0), (2, 6, 0));

impl Version {
    /// Reads what GetVersion answers, e.g. `v2.3.5-lite`.
    ///
    /// # Errors
    /// `Version` if it can't be read or is not supported.
    pub(crate) fn parse(text: &str) -> Result<Version> {
        let unsupported = |message: String| {
            Error::new(Kind::Version, message).hint("Milvus 2.3, 2.4 and 2.5 are supported")
        };
        let number =
            parse_number(text).ok_or_else(|| unsupported(format!("it says that its version is `{text}`")))?;
        if number < SUPPORTED.0 {
            return Err(unsupported(format!("it is Milvus {text}, which is too old")));
        }
        if number >= SUPPORTED.1 {
            return Err(unsupported(format!("it is Milvus {text}, which is too new")));
        }
        Ok(Version { number, text: text.to_owned() })
    }

    /// Whether it is `major.minor.patch` or later.
    pub(crate) fn is_at_least(&self, major: u32, minor: u32, patch: u32) -> bool {
        self.number >= (major, minor, patch)
    }

    /// The first version that can store fields of this type. Versions before don't check: 2.3.5 creates a
    /// collection with sparse vectors and then can't take rows.
    pub(crate) fn needed_for(data_type: DataType) -> (u32, u32, u32) {
        match data_type {
            DataType::Array => (2, 3, 2),
            DataType::Float16Vector | DataType::BFloat16Vector | DataType::SparseFloatVector => (2, 4, 0),
            DataType::Int8Vector => (2, 5, 0),
            _ => SUPPORTED.0,
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

fn parse_number(text: &str) -> Option<(u32, u32, u32)> {
    let text = text.strip_prefix('v').unwrap_or(text);
    let mut parts = text.splitn(3, '.');
    let major = parts.next()?.parse().ok()?;
    let minor = parts.next()?.parse().ok()?;
    let patch = parts.next()?;
    let digits = patch.find(|c: char| !c.is_ascii_digit()).unwrap_or(patch.len());
    Some((major, minor, patch[..digits].parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_between_2_3_and_2_6_are_taken() {
        for text in ["v2.3.0", "v2.3.5-lite", "2.4.23", "v2.5.24-gpu", "v2.5.0-beta"] {
            assert_eq!(Version::parse(text).unwrap().to_string(), text);
        }
        assert!(Version::parse("2.4.1").unwrap().is_at_least(2, 4, 0));
        assert!(!Version::parse("v2.3.5-lite").unwrap().is_at_least(2, 3, 6));
    }

    #[test]
    fn others_are_refused_with_what_they_are() {
        for (text, said) in [
            ("v2.2.16", "Milvus v2.2.16, which is too old"),
            ("v2.6.0", "Milvus v2.6.0, which is too new"),
            ("3.0.0", "Milvus 3.0.0, which is too new"),
            ("master-20240101-abcdef", "says that its version is `master-20240101-abcdef`"),
            ("", "says that its version is ``"),
        ] {
            let error = Version::parse(text).unwrap_err();
            assert_eq!(error.kind(), Kind::Version);
            assert!(error.message().contains(said), "{error}");
        }
    }
}
