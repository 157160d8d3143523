//! Setting a checkpoint back: claiming less than it does.

use std::collections::BTreeMap;

use super::source::Source;
use super::state::{Checkpoint, Update};
use crate::error::{Error, Kind, Result};
use crate::milvus::channel::VChannel;
use crate::milvus::tso::Tso;

impl Checkpoint {
    /// What makes `to` the frontier. Everything between it and the old one is in doubt from then on: it is read again, as
    /// far as the queue still has it, and applied as upserts and deletes. The places in the channels are forgotten and
    /// found again by the time. The source may be at an earlier revision than before.
    ///
    /// Errors: `Refused` for a time after the frontier, or before the pipeline began.
    pub fn rewound(&self, to: Tso) -> Result<Vec<Update>> {
        let Some(frontier) = self.frontier else {
            return Err(Error::new(
                Kind::Refused,
                "there is nothing to go back from: nothing was applied yet",
            ));
        };
        if to > frontier {
            let message = format!("{to} is after the frontier, {frontier}");
            return Err(Error::new(Kind::Refused, message)
                .hint("a checkpoint can only be set back: what was not applied can't be passed over"));
        }
        if let Some(began) = self.began.filter(|began| to < *began) {
            let message = format!("{to} is before {began}, where this pipeline began");
            return Err(Error::new(Kind::Refused, message).hint(format!(
                "what was before was never copied: rewind to {} at the earliest, or set up a pipeline that begins earlier",
                began.0
            )));
        }
        let mut updates = vec![Update::Frontier(to, BTreeMap::new()), self.doubted(frontier, 0)];
        updates.extend(self.source.map(|source| Update::Source(Source { revision: 0, ..source })));
        Ok(updates)
    }

    /// What puts everything in doubt that may have been sent with a ts up to `high`, by calls that are over at
    /// `calls_until`, in Unix milliseconds.
    pub fn doubted(&self, high: Tso, calls_until: u64) -> Update {
        let shards = self.applied.collections.values().flat_map(|collection| &collection.vchannels);
        let mut highs: BTreeMap<VChannel, Tso> = shards.map(|shard| (shard.clone(), high)).collect();
        let mut until = calls_until;
        if !self.clean {
            for (shard, sent) in &self.sent_high {
                let high = highs.entry(shard.clone()).or_insert(high);
                *high = (*high).max(*sent);
            }
            until = until.max(self.calls_until);
        }
        Update::SentHigh(highs.into_iter().collect(), until)
    }
}

#[cfg(test)]
mod tests {
    use super::super::records::{self, Records};
    use super::*;
    use crate::milvus::catalog::{Collection, CollectionId};

    /// F at 500, stopped cleanly, one collection with two shards.
    fn checkpoint() -> Checkpoint {
        let json = serde_json::json!({
            "id": 7, "name": {"database": "default", "collection": "c"}, "created": 5,
            "schema": {"description": "", "dynamic": false, "fields": []}, "shards": 2, "consistency_level": 2,
            "properties": {}, "vchannels": ["a_1_7v0", "a_2_7v1"], "start_positions": {},
            "partitions": {}, "indexes": {}, "load": null
        });
        let collection: Collection = serde_json::from_value(json).unwrap();
        let mut checkpoint = Checkpoint {
            frontier: Some(Tso(500)),
            source: Some(Source { born: Some(1), etcd: 2, revision: 30 }),
            clean: true,
            ..Checkpoint::default()
        };
        checkpoint.applied.collections.insert(CollectionId(7), collection);
        checkpoint
    }

    fn after(checkpoint: &Checkpoint, updates: &[Update]) -> Checkpoint {
        let mut records = Records::new();
        records::apply(&mut records, &records::nothing_yet().unwrap());
        for update in updates {
            records::apply(&mut records, &update.changes().unwrap());
        }
        Checkpoint { applied: checkpoint.applied.clone(), ..Checkpoint::from_records(&records).unwrap() }
    }

    #[test]
    fn everything_between_the_new_frontier_and_the_old_is_in_doubt() {
        let before = checkpoint();
        let after = after(&before, &before.rewound(Tso(200)).unwrap());
        assert_eq!((after.frontier, after.clean, after.calls_until), (Some(Tso(200)), false, 0));
        assert!(after.positions.is_empty());
        for shard in ["a_1_7v0", "a_2_7v1"] {
            assert_eq!(after.in_doubt_up_to(&VChannel(shard.into())), Tso(500));
        }
        assert_eq!(after.source, Some(Source { born: Some(1), etcd: 2, revision: 0 }));
    }

    #[test]
    fn what_was_in_doubt_before_stays_so() {
        let mut before = checkpoint();
        before.clean = false;
        before.calls_until = 77;
        before.sent_high =
            BTreeMap::from([(VChannel("a_1_7v0".into()), Tso(600)), (VChannel("gone_9v0".into()), Tso(450))]);
        let after = after(&before, &before.rewound(Tso(200)).unwrap());
        assert_eq!(after.calls_until, 77);
        let doubt = |shard: &str| after.in_doubt_up_to(&VChannel(shard.into()));
        assert_eq!((doubt("a_1_7v0"), doubt("a_2_7v1"), doubt("gone_9v0")), (Tso(600), Tso(500), Tso(500)));
    }

    #[test]
    fn it_goes_back_only_and_not_behind_the_beginning() {
        let began = Checkpoint { began: Some(Tso(100)), ..checkpoint() };
        for (checkpoint, to, what) in [
            (&began, 501, "is after the frontier, 500"),
            (&began, 99, "is before 100, where this pipeline began"),
            (&Checkpoint::default(), 1, "nothing was applied yet"),
        ] {
            let error = checkpoint.rewound(Tso(to)).unwrap_err();
            assert_eq!(error.kind(), Kind::Refused);
            assert!(error.message().contains(what), "{error}");
        }
        began.rewound(Tso(100)).unwrap();
        began.rewound(Tso(500)).unwrap();
        checkpoint().rewound(Tso(1)).unwrap();
    }
}
