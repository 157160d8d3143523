//! Which parts of a pipeline file tie it to its state folder.
//!
//! A checkpoint says "this target holds everything that this selection of this source had up to F, and reading goes
//! on at these positions". So it is bound to what that sentence is about:
//!
//! - `root_path`, `meta_path` and the kind of queue: another root is another cluster, and positions are in the
//!   queue's own encoding;
//! - `start` and the positions: what lies before them is not on the target, and never will be;
//! - the selection: a collection that it takes in later would lack all its rows up to F;
//! - the target's kind and address: another target does not hold what the checkpoint claims;
//! - the names on the target: what was applied stands under those of the last run.
//!
//! It is not bound to how the source is reached (etcd's addresses, the queue's folder), to credentials, TLS, `adopt`
//! or `[delivery]`: these may change between runs. The pipeline's name is no part of it, as the checkpoint keeps that
//! beside it. Because etcd's addresses are left out, two
//! clusters with the same root look alike here; only the id that etcd itself gives its cluster tells them apart.

use serde::{Deserialize, Serialize};

use super::keys::{self, BetweenRuns, Key};
use super::{MqConfig, Pipeline, PulsarConfig, StartAt, TargetConfig};

/// The format of the text. A change of what is in it is a change of this number.
const FORMAT: u32 = 1;

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Identity {
    format: u32,
    root_path: String,
    meta_path: String,
    mq: String,
    start: String,
    positions: Vec<String>,
    collections: Vec<String>,
    exclude: Vec<String>,
    target: String,
    /// Left out where there are none: a file without the table is what it was before there was one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    names: Vec<String>,
}

/// How a pipeline differs from the one that wrote a state.
#[derive(Clone, Debug)]
pub struct Difference {
    /// The key that says so; `None` if it is not about one.
    pub key: Option<&'static Key>,
    /// What is different, in words for the user.
    pub text: String,
}

impl Difference {
    /// Why this must not change while the state stays.
    pub fn why(&self) -> Option<&'static str> {
        match self.key?.between_runs {
            BetweenRuns::Tied(why) => Some(why),
            BetweenRuns::Free => None,
        }
    }
}

impl Pipeline {
    /// A text that two pipeline files share exactly if the state folder of the one can be taken over by the other.
    /// It is JSON, holds no secrets, and stays the same from version to version of this program.
    pub fn fingerprint(&self) -> String {
        // Strings in a struct: nothing of this can fail to serialise.
        serde_json::to_string(&Identity::of(self)).unwrap_or_default()
    }

    /// How the pipeline whose fingerprint is `recorded` differs from this one. Empty exactly if the fingerprints are
    /// equal.
    pub fn differences_from(&self, recorded: &str) -> Vec<Difference> {
        let ours = Identity::of(self);
        let theirs = match serde_json::from_str::<Identity>(recorded) {
            Ok(theirs) if theirs.format == FORMAT => theirs,
            _ => {
                let text = "it was written by another version of migrans".to_owned();
                return vec![Difference { key: None, text }];
            }
        };
        let list = |patterns: &[String]| format!("[{}]", patterns.join(", "));
        [
            (&keys::SOURCE_ROOT_PATH, "root_path in [source]", theirs.root_path, ours.root_path),
            (&keys::SOURCE_META_PATH, "meta_path in [source]", theirs.meta_path, ours.meta_path),
            (&keys::SOURCE_MQ_TYPE, "[source.mq]", theirs.mq, ours.mq),
            (&keys::SOURCE_START, "start in [source]", theirs.start, ours.start),
            (&keys::SOURCE_START, "[source.positions]", list(&theirs.positions), list(&ours.positions)),
            (
                &keys::SELECT_COLLECTIONS,
                "collections in [select]",
                list(&theirs.collections),
                list(&ours.collections),
            ),
            (&keys::SELECT_EXCLUDE, "exclude in [select]", list(&theirs.exclude), list(&ours.exclude)),
            (&keys::TARGET_URI, "[target]", theirs.target, ours.target),
            (&keys::TARGET_URI, "[target.names]", list(&theirs.names), list(&ours.names)),
        ]
        .into_iter()
        .filter(|(_, _, theirs, ours)| theirs != ours)
        .map(|(key, what, theirs, ours)| Difference {
            key: Some(key),
            text: format!("{what} was {theirs}, is {ours}"),
        })
        .collect()
    }
}

impl Identity {
    fn of(pipeline: &Pipeline) -> Identity {
        Identity {
            format: FORMAT,
            root_path: pipeline.source.root_path.clone(),
            meta_path: pipeline.source.meta_path.clone(),
            mq: match &pipeline.source.mq {
                MqConfig::Rocksmq(_) => "rocksmq".to_owned(),
                MqConfig::Kafka(_) => "kafka".to_owned(),
                MqConfig::Pulsar(PulsarConfig { tenant, namespace, .. }) => {
                    format!("pulsar at {tenant}/{namespace}")
                }
            },
            start: match pipeline.source.start {
                StartAt::Collection => "collection".to_owned(),
                StartAt::Earliest => "earliest".to_owned(),
                StartAt::Latest => "latest".to_owned(),
                StartAt::After(tso) => tso.0.to_string(),
            },
            positions: pipeline
                .source
                .positions
                .iter()
                .map(|(channel, position)| format!("{channel} at {:?}", position.position))
                .collect(),
            collections: sorted(&pipeline.select.collections),
            exclude: sorted(&pipeline.select.exclude),
            target: match &pipeline.target {
                TargetConfig::Milvus(milvus) => {
                    let kind = if pipeline.target.is_standby() { "standby" } else { "milvus" };
                    format!("{kind} at {}", canonical(&milvus.uri))
                }
                TargetConfig::Null => "null".to_owned(),
            },
            names: pipeline
                .target
                .names()
                .entries()
                .iter()
                .map(|(from, to)| format!("{from} = {to}"))
                .collect(),
        }
    }
}

fn sorted(patterns: &[String]) -> Vec<String> {
    let mut patterns = patterns.to_vec();
    patterns.sort_unstable();
    patterns.dedup();
    patterns
}

/// A URI with the differences gone that make no difference: case of the host, a default port, a slash at the end.
fn canonical(uri: &str) -> String {
    let lower = uri.trim_end_matches('/').to_ascii_lowercase();
    let default_port = if lower.starts_with("https://") { ":443" } else { ":80" };
    lower.strip_suffix(default_port).unwrap_or(&lower).to_owned()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    const FILE: &str = r#"
        name = "p"
        state_dir = "/state"
        source = { etcd = ["http://a:1"], mq = { type = "rocksmq", path = "/mq" } }
        select = { collections = ["b.*", "a.*"] }
        target = { type = "milvus", uri = "http://Target:19530" }
    "#;

    fn pipeline(from: &str, to: &str) -> Pipeline {
        assert!(FILE.contains(from), "{from}");
        Pipeline::parse(&FILE.replace(from, to), Path::new("/p.toml"), &|_| None).unwrap()
    }

    #[test]
    fn it_is_a_stable_text() {
        // Checkpoints hold this: changing it makes existing state folders unusable.
        assert_eq!(
            pipeline("", "").fingerprint(),
            r#"{"format":1,"root_path":"by-dev","meta_path":"meta","mq":"rocksmq","start":"collection","positions":[],"collections":["a.*","b.*"],"#
                .to_owned()
                + r#""exclude":[],"target":"milvus at http://target:19530"}"#
        );
    }

    #[test]
    fn it_ignores_what_may_change_between_runs() {
        let before = pipeline("", "").fingerprint();
        for (from, to) in [
            ("name = \"p\"", "name = \"q\""),
            ("/state", "/elsewhere"),
            ("\"http://a:1\"", "\"http://b:2\", \"http://c:3\""),
            ("\"/mq\"", "\"/moved/mq\""),
            ("\"b.*\", \"a.*\"", "\"a.*\", \"b.*\", \"a.*\""),
            ("http://Target:19530", "http://target:19530/"),
            ("type = \"milvus\"", "adopt = true, token = \"t:p\", type = \"milvus\""),
            ("name = \"p\"", "name = \"p\"\ndelivery = { memory = \"1GiB\" }"),
        ] {
            let after = pipeline(from, to);
            assert_eq!(after.fingerprint(), before, "{from} → {to}");
            assert!(after.differences_from(&before).is_empty());
        }
    }

    #[test]
    fn it_tells_what_makes_another_pipeline_of_it() {
        let before = pipeline("", "").fingerprint();
        for (from, to, difference) in [
            ("etcd =", "root_path = \"prod\", etcd =", "root_path in [source] was by-dev, is prod"),
            ("etcd =", "meta_path = \"m\", etcd =", "meta_path in [source] was meta, is m"),
            ("etcd =", "start = \"earliest\", etcd =", "start in [source] was collection, is earliest"),
            (
                "type = \"rocksmq\", path = \"/mq\"",
                "type = \"pulsar\", uri = \"pulsar://b:6650\", tenant = \"t\"",
                "[source.mq] was rocksmq, is pulsar at t/default",
            ),
            ("\"b.*\", ", "", "collections in [select] was [a.*, b.*], is [a.*]"),
            ("collections =", "exclude = [\"a.x\"], collections =", "exclude in [select] was [], is [a.x]"),
            (
                "Target:19530",
                "other:19530",
                "[target] was milvus at http://target:19530, is milvus at http://other:19530",
            ),
            (
                "type = \"milvus\"",
                "mode = \"replicate\", type = \"milvus\"",
                "[target] was milvus at http://target:19530, is standby at http://target:19530",
            ),
            (
                "type = \"milvus\"",
                "names = { a = \"z\", \"b.c\" = \"b.d\" }, type = \"milvus\"",
                "[target.names] was [], is [a = z, b.c = b.d]",
            ),
            (
                "type = \"milvus\", uri = \"http://Target:19530\"",
                "type = \"null\"",
                "[target] was milvus at http://target:19530, is null",
            ),
        ] {
            let after = pipeline(from, to);
            assert_ne!(after.fingerprint(), before);
            let differences = after.differences_from(&before);
            assert_eq!(differences.iter().map(|it| it.text.as_str()).collect::<Vec<_>>(), [difference]);
            assert!(differences[0].why().is_some(), "{difference}");
        }
    }

    #[test]
    fn a_fingerprint_that_cant_be_read_differs() {
        assert_eq!(pipeline("", "").differences_from("?").len(), 1);
    }

    #[test]
    fn default_ports_make_no_difference() {
        assert_eq!(canonical("https://H:443/"), canonical("https://h"));
        assert_eq!(canonical("http://h:80"), "http://h");
        assert_eq!(canonical("http://h:8080"), "http://h:8080");
    }
}
