//! Which cluster a source is, and how far it has come.
//!
//! # What tells two clusters apart
//! The creation time of the default database. Milvus 2.2.9 to 2.5 write it once, when root coordinator first starts on an
//! empty etcd (`model.NewDefaultDatabase`: `time.Now().UnixNano()`, kept by every later change of the database), to
//! `root-coord/database/db-info/1`. It stays through restarts, updates, and moves of the metadata to another etcd. Seen
//! on 2.3.5: the key has version 1 still after a restart, and two clusters that were started at the same time have
//! different values, in nanoseconds. Not taken:
//! - the id of the etcd cluster: it follows from addresses and a token, so all embedded etcds share one;
//! - the root user's credential: it changes with the password;
//! - create revisions: they change when keys are copied to another etcd.
//!
//! A source without that key has no identity that could be compared. Two clusters of which one was made as a copy of the
//! other's etcd have the same.
//!
//! # What tells an earlier state from a later one
//! The revision of the store, as long as it is the same etcd (it is another one if the ids differ; if they don't, it may
//! still be). And the time up to which Milvus has reserved timestamps: `<root_path>/kv/gid/timestamp`, 8 bytes
//! big-endian, Unix nanoseconds, ahead of every timestamp that was ever given out. It is outside of what the etcd user
//! must be able to read, so it counts only where it can be read.

use prost::Message;

use super::CatalogSource;
use super::keys::{DEFAULT_DATABASE, Key};
use crate::error::{Kind, Result};
use crate::milvus::proto::etcd::DatabaseInfo;
use crate::milvus::tso::Tso;

/// Which cluster it is, and how far it has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// When its default database was created, in Unix nanoseconds, if that can be told.
    pub born: Option<u64>,
    /// The id of the etcd cluster.
    pub etcd: u64,
    /// The revision of the store.
    pub revision: i64,
    /// Later than every timestamp that was given out so far, if that can be told.
    pub reserved: Option<Tso>,
}

impl CatalogSource {
    /// Which cluster this is, and how far it has come.
    ///
    /// # Errors
    /// `Unavailable`, `Denied`.
    pub async fn standing(&self) -> Result<Standing> {
        let store = self.connection.revision(&self.meta).await?;
        let default = self.meta.path(&Key::Database(DEFAULT_DATABASE));
        let reserved = match self.connection.value(&self.meta.reserved()).await {
            Err(error) if error.kind() == Kind::Denied => None,
            value => value?,
        };
        Ok(Standing {
            born: self.connection.value(&default).await?.as_deref().and_then(born),
            etcd: store.cluster,
            revision: store.revision,
            reserved: reserved.as_deref().and_then(millis).map(Tso::from_millis),
        })
    }
}

fn born(value: &[u8]) -> Option<u64> {
    let info = DatabaseInfo::decode(value).ok()?;
    (info.created_time > 0).then_some(info.created_time)
}

/// The millisecond after the one in which the time lies.
fn millis(value: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(value.try_into().ok()?) / 1_000_000 + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_facts_of_a_real_cluster_are_read() {
        // As a 2.3.5 wrote them.
        let database = b"\x12\x07default\x18\x01 \x01(\xf5\x94\xcd\xa5\xea\xae\xa6\xf5\x18";
        assert_eq!(born(database), Some(1_795_416_136_308_968_053));
        assert_eq!(born(b"\x12\x07default\x18\x01"), None);
        assert_eq!(born(b"\xff"), None);
        let reserved = b"\x18\xea\x99\x78\x0a\x74\x15\xce";
        assert_eq!(millis(reserved), Some(1_795_416_142_312));
        assert_eq!(millis(b"12"), None);
    }
}
