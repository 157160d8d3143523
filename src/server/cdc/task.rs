//! A task: the pipeline that it is, and what is kept with that.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use twox_hash::XxHash3_128;

use super::overlap::{self, Name, Taken};
use super::request::{CollectionInfo, Create, KafkaConnectParam, MilvusConnectParam};
use super::response;
use super::translate::target_uri;
use crate::server::view::{State, View};

/// The key below which a task is kept with its pipeline.
const KEY: &str = "cdc";
/// The most characters in the name of a pipeline.
const NAME_LENGTH: usize = 100;

/// What is kept of a request, without its secrets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Kept {
    pub task_id: String,
    /// The address of the target as it was given: tasks that share it may not overlap.
    pub target: String,
    pub milvus_connect_param: MilvusConnectParam,
    pub collection_infos: Vec<CollectionInfo>,
    pub db_collections: Option<std::collections::BTreeMap<String, Vec<CollectionInfo>>>,
    pub names: Vec<Name>,
    pub excluded: Vec<Name>,
    pub user_roles: bool,
    pub disable_auto_start: bool,
}

impl Kept {
    /// Of a request for the task `task_id`.
    pub fn new(task_id: &str, request: &Create, excluded: Vec<Name>) -> Kept {
        Kept {
            task_id: task_id.to_owned(),
            target: target_uri(&request.milvus),
            milvus_connect_param: MilvusConnectParam {
                username: String::new(),
                password: String::new(),
                token: String::new(),
                ..request.milvus.clone()
            },
            collection_infos: request.collection_infos.clone(),
            db_collections: request.db_collections.clone(),
            names: overlap::names(request),
            excluded,
            user_roles: request.enable_user_role,
            disable_auto_start: request.disable_auto_start,
        }
    }

    /// What is to be kept with the pipeline.
    pub fn extra(&self) -> Value {
        json!({ KEY: self })
    }

    /// What was kept with a pipeline; `None` if that is no task.
    pub fn of(extra: &Value) -> Option<Kept> {
        Kept::deserialize(extra.get(KEY)?).ok()
    }

    /// What others can't take.
    pub fn taken(&self) -> Taken {
        Taken { names: self.names.clone(), excluded: self.excluded.clone(), user_roles: self.user_roles }
    }

    /// What is told of the task while its pipeline is like `view`.
    pub fn shown(&self, view: &View) -> response::Task {
        let reason = view.reason.as_ref().map(|reason| match (reason.kind, &reason.hint) {
            (None, _) => reason.message.clone(),
            (Some(_), None) => format!("fail to run the task, err: {}", reason.message),
            (Some(_), Some(hint)) => format!("fail to run the task, err: {} ({hint})", reason.message),
        });
        response::Task {
            task_id: self.task_id.clone(),
            milvus_connect_param: self.milvus_connect_param.clone(),
            kafka_connect_param: KafkaConnectParam::default(),
            collection_infos: Some(self.collection_infos.clone()).filter(|infos| !infos.is_empty()),
            db_collections: self.db_collections.clone(),
            state: if is_paused(view.state) { "Paused" } else { "Running" }.to_owned(),
            reason: reason.unwrap_or_default(),
        }
    }
}

/// Whether a pipeline in this state does nothing until it is told to.
pub(super) fn is_paused(state: State) -> bool {
    matches!(state, State::Paused | State::Failed | State::Removing)
}

/// Why a task that was running is not to run when the server is started; `None`: it is. `extra` is what is kept with its
/// pipeline.
pub(in crate::server) fn held_back(extra: &Value) -> Option<String> {
    let task = Kept::of(extra)?;
    task.disable_auto_start.then(|| "the task is disabled auto start".to_owned())
}

/// A new id, as milvus-cdc has them: 32 hexadecimal digits.
pub(super) fn new_id() -> String {
    format!("{:032x}", rand::random::<u128>())
}

/// The name of the pipeline for a task. Ids may be any text, names may not.
pub(super) fn pipeline_name(task_id: &str) -> String {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    if !task_id.is_empty() && task_id.len() <= NAME_LENGTH && task_id.bytes().all(fits) {
        return task_id.to_owned();
    }
    format!("cdc-{:032x}", XxHash3_128::oneshot(task_id.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_that_are_names_are_names_and_others_get_one() {
        for id in ["6623ae52d35842a5a2c9d89b16ed7aa1", "my_task-1"] {
            assert_eq!(pipeline_name(id), id);
        }
        for id in ["a b", "täsk", "a/b", "", &"x".repeat(101)] {
            let name = pipeline_name(id);
            assert!(name.starts_with("cdc-") && name.len() == 36, "{id}: {name}");
            assert_eq!(name, pipeline_name(id));
        }
        assert_ne!(pipeline_name("a b"), pipeline_name("a c"));
        assert_eq!(new_id().len(), 32);
        assert_ne!(new_id(), new_id());
    }

    #[test]
    fn what_is_kept_holds_no_secret_and_is_read_back() {
        let mut request = Create { disable_auto_start: true, ..Create::default() };
        request.milvus.uri = "http://t:1".to_owned();
        request.milvus.token = "hush".to_owned();
        (request.milvus.username, request.milvus.password) = ("hush".to_owned(), "hush".to_owned());
        let kept = Kept::new("t", &request, vec![Name::new("a", "b")]);
        assert!(!kept.extra().to_string().contains("hush"));
        assert_eq!(held_back(&kept.extra()).as_deref(), Some("the task is disabled auto start"));
        assert_eq!(Kept::of(&kept.extra()), Some(kept));
        assert_eq!((Kept::of(&json!({})), held_back(&Value::Null)), (None, None));
    }
}
