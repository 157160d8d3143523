//! What stands in a pipeline's way, found before anything is written.

use std::collections::{BTreeMap, BTreeSet};

use crate::dataflow::checkpoint::Checkpoint;
use crate::error::{Error, Kind, Result};
use crate::milvus::catalog::Catalog;
use crate::ops::apply::check_adoption;
use crate::pipeline::SourceConfig;
use crate::sinks::{Found, Sink};

/// Compares what is to be created with what the target has and can do. Each error is one obstacle.
pub async fn obstacles(
    sink: &dyn Sink,
    wanted: &Catalog,
    checkpoint: &Checkpoint,
    adopt: bool,
) -> Result<Vec<Error>> {
    let mut obstacles: Vec<Error> =
        sink.objections(wanted).into_iter().map(|text| Error::new(Kind::Refused, text)).collect();
    let named = sink.names();
    obstacles.extend(named.conflict(wanted));
    let mut names: BTreeMap<_, _> = BTreeMap::new();
    for collection in wanted.collections.values() {
        let ours = checkpoint.applied.collections.contains_key(&collection.id)
            || checkpoint.intents.iter().any(|step| step.collection_name() == Some(&collection.name))
            // What stands there may be the predecessor under the same name, which this pipeline will drop.
            || checkpoint
                .applied
                .collections
                .values()
                .any(|applied| named.collection(&applied.name) == named.collection(&collection.name));
        if !ours {
            names.insert(&collection.name, collection);
        }
    }
    for (name, collection) in names {
        if sink.find(name).await? == Found::Collection
            && let Err(error) = check_adoption(sink, adopt, collection).await
        {
            if error.kind() != Kind::Conflict {
                return Err(error);
            }
            obstacles.push(error);
        }
    }
    Ok(obstacles)
}

/// Positions in the pipeline file that belong to no selected collection.
pub fn stray_positions(source: &SourceConfig, wanted: &Catalog) -> Vec<Error> {
    let known: BTreeSet<_> =
        wanted.collections.values().flat_map(|collection| &collection.vchannels).collect();
    let stray = source.positions.keys().filter(|channel| !known.contains(channel));
    stray
        .map(|channel| {
            let message =
                format!("[source.positions] names {channel}, which is no channel of a selected collection");
            Error::new(Kind::Refused, message).hint("remove it, or select its collection")
        })
        .collect()
}

/// All obstacles as one error, if there are any.
pub fn as_error(mut obstacles: Vec<Error>) -> Option<Error> {
    if obstacles.len() < 2 {
        return obstacles.pop();
    }
    let kind = obstacles[0].kind();
    let lines: Vec<String> = obstacles.iter().map(|error| format!("  {}", error.message())).collect();
    let mut hints: Vec<&str> = obstacles.iter().filter_map(Error::hint_text).collect();
    hints.sort_unstable();
    hints.dedup();
    let error = Error::new(kind, format!("{} things stand in the way:\n{}", lines.len(), lines.join("\n")));
    Some(if hints.is_empty() { error } else { error.hint(hints.join("; ")) })
}
