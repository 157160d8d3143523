//! When something was dropped or renamed.
//!
//! Up to 2.5, whatever rootcoord writes at a timestamp it also writes to `snapshots/<key>_ts<timestamp>`, in the same
//! transaction (`suffix_snapshot.go`). Seen on 2.3.5: a drop writes the state `Dropping` there at the timestamp of the
//! drop, and later, when all is cleaned up, the tombstone to the very same key. So the time is found also by who comes
//! late, until the hourly clean-up has run.

use prost::Message;

use super::assemble::{CREATED, CREATING};
use super::keys::{Key, Meta};
use super::mirror::TOMBSTONE;
use crate::error::{Error, Kind, Result};
use crate::milvus::proto::etcd::{CollectionInfo, PartitionInfo};
use crate::milvus::tso::Tso;

/// The time at which `key` was dropped: the first in its history after it was last alive. `history` are the keys and
/// values below [`Meta::history`].
///
/// # Errors
/// `Corrupt`, naming the key.
pub fn drop_time(meta: &Meta, key: &Key, history: &[(Vec<u8>, Vec<u8>)]) -> Result<Option<Tso>> {
    let moments = moments(meta, key, history, |value| alive(key, value))?;
    let gone_for_good = moments.iter().rev().take_while(|(_, alive)| !alive).last();
    Ok(gone_for_good.map(|(ts, _)| *ts))
}

/// The time at which the collection at `key` got the name that it has at the end. `history` is as for [`drop_time`].
///
/// # Errors
/// `Corrupt`, naming the key.
pub fn rename_time(meta: &Meta, key: &Key, history: &[(Vec<u8>, Vec<u8>)]) -> Result<Option<Tso>> {
    let name = |value: &[u8]| {
        let info = if value == TOMBSTONE { None } else { Some(CollectionInfo::decode(value)?) };
        Ok(info.and_then(|info| info.schema).map(|schema| schema.name))
    };
    let moments = moments(meta, key, history, name)?;
    let Some((_, last)) = moments.last() else { return Ok(None) };
    Ok(moments.iter().rev().take_while(|(_, name)| name == last).last().map(|(ts, _)| *ts))
}

fn moments<T: Ord>(
    meta: &Meta,
    key: &Key,
    history: &[(Vec<u8>, Vec<u8>)],
    read: impl Fn(&[u8]) -> Result<T, prost::DecodeError>,
) -> Result<Vec<(Tso, T)>> {
    let prefix = meta.history(key);
    let mut moments = Vec::with_capacity(history.len());
    for (path, value) in history {
        let corrupt = || {
            let path = String::from_utf8_lossy(path);
            Error::new(Kind::Corrupt, format!("the key {path} in the source's etcd can't be understood"))
                .hint("is this the metadata of a Milvus 2.3 to 2.5?")
        };
        let ts =
            path.strip_prefix(prefix.as_bytes()).and_then(|ts| std::str::from_utf8(ts).ok()?.parse().ok());
        let ts = Tso(ts.ok_or_else(corrupt)?);
        moments.push((ts, read(value).map_err(|error| corrupt().caused_by(error))?));
    }
    moments.sort_unstable();
    Ok(moments)
}

fn alive(key: &Key, value: &[u8]) -> Result<bool, prost::DecodeError> {
    if value == TOMBSTONE {
        return Ok(false);
    }
    let state = match key {
        Key::Collection(..) => CollectionInfo::decode(value)?.state,
        Key::Partition(..) => PartitionInfo::decode(value)?.state,
        _ => CREATED,
    };
    Ok(state == CREATED || state == CREATING)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::milvus::catalog::{CollectionId, PartitionId};
    use crate::milvus::proto::schema::CollectionSchema;

    const KEY: Key = Key::Collection(CollectionId(7), Some(1));

    fn entry(ts: u64, state: Option<i32>) -> (Vec<u8>, Vec<u8>) {
        let value = match state {
            Some(state) => CollectionInfo { state, ..Default::default() }.encode_to_vec(),
            None => TOMBSTONE.to_vec(),
        };
        (format!("by-dev/meta/snapshots/root-coord/database/collection-info/1/7_ts{ts}").into_bytes(), value)
    }

    fn dropped(history: &[(u64, Option<i32>)]) -> Option<u64> {
        let history: Vec<_> = history.iter().map(|(ts, state)| entry(*ts, *state)).collect();
        drop_time(&Meta::new("by-dev", "meta"), &KEY, &history).unwrap().map(|ts| ts.0)
    }

    #[test]
    fn the_drop_is_the_first_change_after_the_last_sign_of_life() {
        assert_eq!(dropped(&[(100, Some(0)), (200, Some(0)), (300, Some(2))]), Some(300));
        assert_eq!(dropped(&[(100, Some(0)), (300, None)]), Some(300));
        assert_eq!(dropped(&[(100, Some(0)), (300, Some(2)), (310, Some(3)), (320, None)]), Some(300));
        assert_eq!(dropped(&[(99, Some(0)), (300, None)]), Some(300), "timestamps are numbers, not text");
        assert_eq!(dropped(&[(1000, None), (999, Some(0))]), Some(1000));
    }

    #[test]
    fn nothing_is_said_of_what_lives_or_has_no_history() {
        assert_eq!(dropped(&[]), None);
        assert_eq!(dropped(&[(100, Some(1)), (100, Some(0))]), None);
    }

    #[test]
    fn what_is_left_after_the_clean_up_is_taken_as_it_is() {
        assert_eq!(dropped(&[(300, None)]), Some(300));
    }

    #[test]
    fn a_rename_is_the_first_change_with_the_last_name() {
        let meta = Meta::new("by-dev", "meta");
        let renamed = |history: &[(u64, &str)]| {
            let entry = |(ts, name): &(u64, &str)| {
                let schema = Some(CollectionSchema { name: (*name).into(), ..Default::default() });
                let value = CollectionInfo { schema, ..Default::default() }.encode_to_vec();
                (format!("{}{ts}", meta.history(&KEY)).into_bytes(), value)
            };
            let history: Vec<_> = history.iter().map(entry).collect();
            rename_time(&meta, &KEY, &history).unwrap().map(|ts| ts.0)
        };
        assert_eq!(renamed(&[(100, "a"), (200, "b"), (300, "b")]), Some(200));
        assert_eq!(renamed(&[(100, "b"), (200, "a"), (1000, "b"), (999, "a")]), Some(1000));
        assert_eq!(
            renamed(&[(200, "b")]),
            Some(200),
            "under the key of another database it begins with that"
        );
        assert_eq!(renamed(&[]), None);
    }

    #[test]
    fn a_partition_has_states_of_its_own() {
        let meta = Meta::new("by-dev", "meta");
        let key = Key::Partition(CollectionId(7), PartitionId(8));
        let entry = |ts: u64, state: i32| {
            let value = PartitionInfo { state, ..Default::default() }.encode_to_vec();
            (format!("{}{ts}", meta.history(&key)).into_bytes(), value)
        };
        assert_eq!(drop_time(&meta, &key, &[entry(1, 0), entry(5, 2)]).unwrap(), Some(Tso(5)));
        let error = drop_time(&meta, &key, &[(b"elsewhere".to_vec(), vec![])]).unwrap_err();
        assert_eq!(error.kind(), Kind::Corrupt);
        let error = drop_time(&meta, &key, &[(entry(1, 0).0, vec![0xff])]).unwrap_err();
        assert!(error.message().contains("root-coord/partitions/7/8_ts1"), "{error}");
    }
}
