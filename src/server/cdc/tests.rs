//! Requests and what becomes of them, in tables.

use serde_json::{Map, Value, json};

use super::decode::Decoder;
use super::request::{self, Create, Delete, Maintenance, Request};

mod decoding;
mod importing;
mod overlapping;
mod translating;
mod validating;

/// The data of a `create` request, decoded.
fn create(data: Value) -> Create {
    let Value::Object(data) = data else { panic!("{data} is no object") };
    Create::decode(&data).unwrap()
}

/// A target that goes with every request.
fn with_target(mut data: Value) -> Value {
    data["milvus_connect_param"] = json!({ "uri": "http://localhost:19530" });
    data
}
