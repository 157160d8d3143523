//! Answers in the shape of milvus-cdc: always HTTP status 200, the code in the body.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::request::{CollectionInfo, KafkaConnectParam, MilvusConnectParam};

/// Why a request is refused: the code and message of the body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    /// As HTTP has them: 400 for what the caller can mend, 500 for the rest.
    pub code: u16,
    /// What is wrong.
    pub message: String,
}

impl Refusal {
    /// What the caller can mend.
    pub fn client(message: impl Into<String>) -> Refusal {
        Refusal { code: 400, message: message.into() }
    }

    /// Everything else.
    pub fn server(message: impl Into<String>) -> Refusal {
        Refusal { code: 500, message: message.into() }
    }

    /// Puts the words in front that name the kind of request, as for all that its handler says.
    pub fn of_handling(self, kind: &str) -> Refusal {
        Refusal { message: format!("fail to handle the {kind} request, error: {}", self.message), ..self }
    }

    /// The body.
    pub fn body(&self) -> Value {
        json!({ "code": self.code, "message": self.message })
    }
}

/// The body of a success. Without data there is no key for it.
pub(super) fn success(data: Option<Value>) -> Value {
    match data {
        Some(data) => json!({ "code": 200, "data": data }),
        None => json!({ "code": 200 }),
    }
}

/// What is told of a task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Task {
    /// Its id.
    pub task_id: String,
    /// The target, without its secrets.
    pub milvus_connect_param: MilvusConnectParam,
    /// Always empty.
    pub kafka_connect_param: KafkaConnectParam,
    /// The collections of the default database as they were given.
    pub collection_infos: Option<Vec<CollectionInfo>>,
    /// Those of other databases as they were given.
    pub db_collections: Option<BTreeMap<String, Vec<CollectionInfo>>>,
    /// `Initial`, `Running` or `Paused`.
    pub state: String,
    /// Why it is paused; left out if it is not.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
}

/// A place in the log from which a task goes on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Position {
    /// The collection's id at the source.
    pub collection_id: i64,
    /// The vchannel, under which a `create` request takes `msg_id` in its `positions`.
    pub channel_name: String,
    /// In Unix milliseconds: everything up to it is on the target.
    pub time: u64,
    /// The same as a timestamp of Milvus.
    pub tt: u64,
    /// Milvus' `MsgPosition` in base64.
    pub msg_id: String,
}
