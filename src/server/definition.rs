//! Definitions of pipelines as they come from elsewhere: read by the reader of pipeline files, with less trust.

use std::ffi::OsString;
use std::path::{Component, Path, PathBuf};

use serde_json::Value;

use crate::error::{Error, Kind, Part, Result};
use crate::pipeline::keys::{self, Key};
use crate::pipeline::{self, Pipeline, References, Surroundings};

/// What a server lets definitions do.
#[derive(Clone, Debug)]
pub struct Rules {
    /// Where relative paths start.
    pub folder: PathBuf,
    /// Where pipelines have their state folders.
    pub states: PathBuf,
    /// Where else they may have them.
    pub other_states: Vec<PathBuf>,
    /// The variables that secrets may be taken from.
    pub variables: Vec<String>,
}

/// Reads the definition of the pipeline `name`. If it does not say its name, that is added to it.
///
/// # Errors
/// `PipelineFile`, with everything that is wrong in its parts.
pub fn read(name: &str, definition: &mut Value, rules: &Rules) -> Result<Pipeline> {
    if let Value::Object(entries) = definition {
        entries.entry("name").or_insert_with(|| name.into());
    }
    if let Some(key) = pipeline::find_mask(definition) {
        let message = format!("\"{key}\" is what a secret is shown as, {:?}", pipeline::MASK);
        let part = Part {
            key: Some(key),
            message: message.clone(),
            hint: Some("secrets are never given out: send it again".to_owned()),
        };
        return Err(refused(vec![part]));
    }
    let lookup = |variable: &str| -> Option<OsString> {
        let is_allowed = rules.variables.iter().any(|allowed| allowed == variable);
        is_allowed.then(|| pipeline::environment(variable)).flatten()
    };
    let surroundings = Surroundings {
        folder: &rules.folder,
        lookup: &lookup,
        references: References::InSecrets,
        states: Some(&rules.states),
    };
    let read = Pipeline::from_values(definition, &surroundings)?;
    if read.name != name {
        let message = format!("\"name\" is {:?}, but the pipeline is addressed as {name:?}", read.name);
        return Err(refused(vec![about(&keys::NAME, message, "leave it out, or make both the same")]));
    }
    let folders = rules.other_states.iter().chain([&rules.states]);
    if !folders.into_iter().any(|folder| is_strictly_below(&read.state_dir, folder)) {
        let message = "\"state_dir\" is not in a folder that this server allows".to_owned();
        let hint = "leave it out, or have the server's file name the folder around it in state_dirs";
        return Err(refused(vec![about(&keys::STATE_DIR, message, hint)]));
    }
    Ok(read)
}

/// Refuses to turn the pipeline that has `fingerprint` into `changed` if its state would not be true any more.
///
/// # Errors
/// `Conflict`, with each difference, and why it must not be, in its parts.
pub fn check_change(changed: &Pipeline, fingerprint: &str) -> Result<()> {
    let differences = changed.differences_from(fingerprint);
    if differences.is_empty() {
        return Ok(());
    }
    let parts = differences.iter().map(|difference| Part {
        key: difference.key.map(Key::path),
        message: match difference.why() {
            Some(why) => format!("{}; it must stay, since {why}", difference.text),
            None => difference.text.clone(),
        },
        hint: None,
    });
    let parts: Vec<Part> = parts.collect();
    let told: Vec<&str> = parts.iter().map(|part| part.message.as_str()).collect();
    let message = format!("the pipeline {:?} can't become that: {}", changed.name, told.join("; "));
    Err(Error::new(Kind::Conflict, message)
        .hint("give it another name; or delete it with its state (state=remove), then make it anew")
        .with_parts(parts))
}

fn about(key: &Key, message: String, hint: &str) -> Part {
    Part { key: Some(key.path()), message, hint: Some(hint.to_owned()) }
}

fn refused(parts: Vec<Part>) -> Error {
    let messages: Vec<&str> = parts.iter().map(|part| part.message.as_str()).collect();
    let error = Error::new(Kind::PipelineFile, messages.join("; "));
    let error = match parts.first().and_then(|part| part.hint.clone()) {
        Some(hint) => error.hint(hint),
        None => error,
    };
    error.with_parts(parts)
}

fn is_strictly_below(path: &Path, folder: &Path) -> bool {
    let steps_back = path.components().any(|part| part == Component::ParentDir);
    !steps_back && path != folder && path.starts_with(folder)
}

#[cfg(test)]
pub(super) mod tests {
    use serde_json::json;

    use super::*;

    pub fn rules() -> Rules {
        Rules {
            folder: "/etc/migrans".into(),
            states: "/data/pipelines".into(),
            other_states: vec!["/other".into()],
            variables: vec!["PATH".into()],
        }
    }

    pub fn definition() -> Value {
        json!({
            "source": {"etcd": ["http://e:2379"], "mq": {"type": "rocksmq", "path": "mq"}},
            "select": {"collections": ["default.*"]},
            "target": {"type": "milvus", "uri": "http://t:1"},
            "labels": {"team": "search"},
        })
    }

    fn with(pointer: &str, value: Value) -> Value {
        let mut definition = definition();
        let (table, key) = pointer.rsplit_once('/').unwrap();
        definition.pointer_mut(table).unwrap()[key] = value;
        definition
    }

    fn error(mut definition: Value) -> Error {
        read("a", &mut definition, &rules()).unwrap_err()
    }

    #[test]
    fn a_definition_is_that_of_a_pipeline_file() {
        let mut definition = definition();
        let read = read("a", &mut definition, &rules()).unwrap();
        assert_eq!(read.name, "a");
        assert_eq!(read.state_dir, Path::new("/data/pipelines/a"));
        assert_eq!(read.labels["team"], "search");
        assert_eq!(definition["name"], "a");
    }

    #[test]
    fn every_problem_names_its_key() {
        for (definition, key, message) in [
            (with("/target/memory", json!(1)), "target.memory", "unknown key \"memory\" in [target]"),
            (with("/target/uri", json!("t:1")), "target.uri", "does not begin with http://"),
            (with("/source/etcd", json!([])), "source.etcd", "is empty"),
            (with("/source/mq/path", json!(null)), "source.mq.path", "is null"),
            (with("/source/mq/type", json!("x")), "source.mq.type", "can't be \"x\""),
            (with("/target/token", json!("(secret)")), "target.token", "is what a secret is shown as"),
            (with("/name", json!("b")), "name", "is \"b\""),
            (with("/state_dir", json!("/etc/passwd")), "state_dir", "is not in a folder"),
            (with("/state_dir", json!("/data/pipelines/../x")), "state_dir", "is not in a folder"),
            (with("/state_dir", json!("/data/pipelines")), "state_dir", "is not in a folder"),
            (with("/delivery", json!({"max_calls": 1u64 << 63})), "delivery.max_calls", "too large"),
        ] {
            let error = error(definition);
            assert_eq!(error.kind(), Kind::PipelineFile, "{error}");
            let part = &error.parts()[0];
            assert_eq!(part.key.as_deref(), Some(key), "{error}");
            assert!(part.message.contains(message) && error.message().contains(message), "{error}");
        }
        for odd in [json!(null), json!(7), json!([definition()]), json!("x")] {
            assert_eq!(error(odd).message(), "a pipeline is an object");
        }
    }

    #[test]
    fn variables_are_for_secrets_and_only_those_that_are_allowed() {
        let path = std::env::var("PATH").unwrap();
        let mut allowed = with("/target/token", json!("${PATH}"));
        let pipeline::TargetConfig::Milvus(target) = read("a", &mut allowed, &rules()).unwrap().target else {
            unreachable!()
        };
        assert_eq!(target.token.unwrap().0, path);
        assert_eq!(allowed["target"]["token"], "${PATH}", "what is stored is where it is");
        let error_of = error(with("/target/token", json!("${HOME}")));
        assert!(error_of.message().contains("HOME is not set"), "{error_of}");
        for key in ["/source/root_path", "/source/start", "/state_dir", "/target/uri"] {
            let error = error(with(key, json!("${PATH}")));
            assert!(!error.report().contains(&path), "{error}");
            assert!(error.message().contains("is for passwords and tokens"), "{error}");
        }
        let error = error(with("/select/collections", json!(["${PATH}"])));
        assert!(!error.report().contains(&path), "{error}");
    }

    #[test]
    fn what_the_state_is_bound_to_must_stay_and_the_rest_may_change() {
        let read = |mut definition: Value| read("a", &mut definition, &rules()).unwrap();
        let fingerprint = read(definition()).fingerprint();
        let changed = read(with("/target/adopt", json!(true)));
        check_change(&changed, &fingerprint).unwrap();
        let changed = read(with("/select/collections", json!(["default.a"])));
        let error = check_change(&changed, &fingerprint).unwrap_err();
        assert_eq!(error.kind(), Kind::Conflict);
        assert_eq!(error.parts()[0].key.as_deref(), Some("select.collections"));
        assert!(error.message().contains("must stay, since a collection that is taken in later"), "{error}");
    }
}
