//! Which source the state is of, and how far that had come when it was seen last.

use serde::{Deserialize, Serialize};

use super::state::{Checkpoint, Update};
use crate::error::{Error, Kind, Result};
use crate::sources::catalog::Standing;

/// What is kept of a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// When its default database was created, in Unix nanoseconds: which cluster it is. `None` if it does not say.
    pub born: Option<u64>,
    /// The id of its etcd. It may change.
    pub etcd: u64,
    /// The highest revision of that etcd that was seen.
    pub revision: i64,
}

impl Source {
    fn of(standing: &Standing) -> Source {
        Source { born: standing.born, etcd: standing.etcd, revision: standing.revision }
    }
}

impl Checkpoint {
    /// Whether the source is still the one that this checkpoint is of, and not at an earlier state. Returns what is to be
    /// recorded of it.
    ///
    /// Errors: `Checkpoint`, if it is another cluster, or went back.
    pub fn recognise(&self, standing: &Standing) -> Result<Update> {
        let now = Source::of(standing);
        let Some(known) = self.source else { return Ok(Update::Source(now)) };
        if let (Some(known), Some(now)) = (known.born, now.born)
            && known != now
        {
            return Err(Error::new(
                Kind::Checkpoint,
                format!(
                    "this is the state of another source cluster: that one was set up at {}, the one at these \
                     addresses at {}",
                    moment(known),
                    moment(now)
                ),
            )
            .hint(
                "check etcd and root_path in [source]; if the cluster was set up anew, start afresh \
                 (migrans checkpoint reset), with an empty target",
            ));
        }
        let frontier = self.frontier.filter(|frontier| Some(*frontier) != self.began);
        let lower = known.etcd == now.etcd && now.revision < known.revision;
        let went_back = if lower {
            Some(format!("its etcd is at revision {}, and was at {} before", now.revision, known.revision))
        } else {
            match (standing.reserved, frontier) {
                (Some(reserved), Some(frontier)) if reserved < frontier => Some(format!(
                    "its etcd knows of no timestamp after {reserved}, and changes up to {frontier} were applied"
                )),
                _ => None,
            }
        };
        if let Some(how) = went_back {
            let again = frontier.filter(|_| lower).map_or_else(String::new, |frontier| {
                format!(
                    "; if its metadata was only moved and nothing is missing, migrans checkpoint rewind --to {} goes \
                     on with it",
                    frontier.0
                )
            });
            return Err(Error::new(
                Kind::Checkpoint,
                format!("the source went back to an earlier state: {how}"),
            )
            .hint(format!(
                "was its etcd restored from a backup? Then the target holds changes that the source has lost, and \
                 collections of that time would be dropped: put the source right, or start afresh \
                 (migrans checkpoint reset) on an empty target{again}"
            )));
        }
        // A fact that can't be told now does not take the place of one that could be told before.
        Ok(Update::Source(Source { born: now.born.or(known.born), ..now }))
    }
}

/// Unix nanoseconds for people.
pub fn moment(nanos: u64) -> String {
    match jiff::Timestamp::from_nanosecond(i128::from(nanos)) {
        Ok(moment) => moment.to_string(),
        Err(_) => nanos.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::milvus::tso::Tso;

    const NOW: Standing = Standing { born: Some(5_000), etcd: 1, revision: 100, reserved: Some(Tso(900)) };

    fn checkpoint() -> Checkpoint {
        Checkpoint {
            frontier: Some(Tso(500)),
            source: Some(Source { born: Some(5_000), etcd: 1, revision: 90 }),
            ..Checkpoint::default()
        }
    }

    #[test]
    fn a_source_that_went_on_is_recognised_and_recorded() {
        let Update::Source(source) = checkpoint().recognise(&NOW).unwrap() else { unreachable!() };
        assert_eq!(source, Source { born: Some(5_000), etcd: 1, revision: 100 });
        let silent = Standing { born: None, reserved: None, ..NOW };
        let Update::Source(source) = checkpoint().recognise(&silent).unwrap() else { unreachable!() };
        assert_eq!(source.born, Some(5_000), "what is known stays known");
        Checkpoint::default().recognise(&NOW).unwrap();
        let moved = Standing { etcd: 2, revision: 3, ..NOW };
        checkpoint().recognise(&moved).unwrap();
    }

    #[test]
    fn another_cluster_is_refused_though_its_etcd_looks_the_same() {
        let error = checkpoint().recognise(&Standing { born: Some(6_000), ..NOW }).unwrap_err();
        assert!(error.message().contains("another source cluster"), "{error}");
        assert!(error.hint_text().unwrap().contains("checkpoint reset"), "{error:?}");
    }

    #[test]
    fn a_source_that_went_back_is_refused() {
        for (standing, what, way_out) in [
            (Standing { revision: 89, ..NOW }, "is at revision 89, and was at 90", "rewind --to 500"),
            (
                Standing { reserved: Some(Tso(499)), etcd: 2, ..NOW },
                "no timestamp after 499",
                "checkpoint reset",
            ),
        ] {
            let error = checkpoint().recognise(&standing).unwrap_err();
            assert!(error.message().contains("went back") && error.message().contains(what), "{error}");
            assert!(error.hint_text().unwrap().contains(way_out), "{error:?}");
        }
        let begun = Checkpoint { began: Some(Tso(500)), ..checkpoint() };
        begun.recognise(&Standing { reserved: Some(Tso(499)), ..NOW }).unwrap();
    }
}
