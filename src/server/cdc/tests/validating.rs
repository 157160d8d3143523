//! `create` requests and what is wrong with them, in milvus-cdc's words.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use prost::Message;

use super::*;
use crate::milvus::proto::msg;
use crate::server::cdc::response::Refusal;
use crate::server::cdc::validate::{self, Limits};

fn limits() -> Limits {
    Limits { max_tasks: 10, max_name_length: 6, replicate_channel: Some("by-dev-replicate-msg".to_owned()) }
}

fn check(data: Value) -> Result<(), Refusal> {
    validate::create(&create(data), &limits())
}

#[test]
fn a_request_is_refused_in_the_order_and_the_words_of_milvus_cdc() {
    let all = json!([{ "name": "*" }]);
    let milvus = json!({ "uri": "http://localhost:19530" });
    for (data, message) in [
        (json!({}), "the downstream address is empty"),
        (json!({ "milvus_connect_param": { "port": -1 } }), "the downstream address is empty"),
        (
            json!({ "milvus_connect_param": milvus, "kafka_connect_param": { "address": "k:1" } }),
            "don't support milvus and kafka at the same time now",
        ),
        (json!({ "milvus_connect_param": { "port": 1 } }), "the milvus host is empty"),
        (json!({ "milvus_connect_param": { "host": "h" } }), "the milvus port is less or equal zero"),
        (
            json!({ "milvus_connect_param": { "host": "h", "port": 1, "username": "root" } }),
            "cannot set only one of the milvus username and password",
        ),
        (
            json!({ "milvus_connect_param": { "uri": "u", "password": "x" } }),
            "cannot set only one of the milvus username and password",
        ),
        (
            json!({ "milvus_connect_param": { "uri": "u", "connect_timeout": -1 } }),
            "the milvus connect timeout is less zero",
        ),
        (json!({ "kafka_connect_param": { "address": "k:1" } }), "the kafka topic is empty"),
        (
            json!({ "milvus_connect_param": milvus, "buffer_config": { "period": -1, "size": -1 } }),
            "the cache period is less zero",
        ),
        (
            json!({ "milvus_connect_param": milvus, "buffer_config": { "size": -1 } }),
            "the cache size is less zero",
        ),
        (json!({ "milvus_connect_param": milvus }), "the collection info is empty"),
        (
            json!({ "milvus_connect_param": milvus, "collection_infos": [], "db_collections": {} }),
            "the collection info is empty",
        ),
        (
            json!({ "milvus_connect_param": milvus, "collection_infos": all, "db_collections": { "a": all } }),
            "the collection info and db collection info should be only one",
        ),
        (
            json!({ "milvus_connect_param": milvus, "db_collections": { "seventh": all } }),
            "the db name length exceeds 6 characters, seventh",
        ),
        (json!({ "milvus_connect_param": milvus, "db_collections": { "a": [] } }), "empty collection info"),
        (json!({ "milvus_connect_param": milvus, "db_collections": { "a": null } }), "empty collection info"),
        (
            json!({ "milvus_connect_param": milvus, "collection_infos": [{ "name": "a" }, { "name": "*" }] }),
            "make sure the only one collection if you want to use the '*' collection param, current param: [a *]",
        ),
        (
            json!({ "milvus_connect_param": milvus, "collection_infos": [{ "name": "*", "positions": { "x": "y" } }] }),
            "the collection name is `*`, the positions should be empty",
        ),
        (
            json!({ "milvus_connect_param": milvus, "collection_infos": [{ "name": "a", "positions": { "dml_1": "y" } }] }),
            "the position channel name is not virtual channel, dml_1",
        ),
        (
            json!({ "milvus_connect_param": milvus, "collection_infos": [{ "name": "" }] }),
            "there is a collection name that is empty. ",
        ),
        (
            json!({ "milvus_connect_param": milvus, "collection_infos": [{ "name": "seventh" }, { "name": "a_eighth" }] }),
            "there are some collection names whose length exceeds 6 characters, [seventh a_eighth]",
        ),
        (
            json!({ "milvus_connect_param": milvus, "collection_infos": [{ "name": "seventh" }, {}] }),
            "there is a collection name that is empty. there are some collection names whose length exceeds 6 \
             characters, [seventh]",
        ),
        (
            json!({ "milvus_connect_param": milvus, "collection_infos": all, "rpc_channel_info": { "name": "x" } }),
            "the rpc channel is invalid, the channel name should be the same as the source config",
        ),
        (
            json!({ "milvus_connect_param": milvus, "collection_infos": [{ "name": "a.b" }] }),
            "the collection name is invalid, a.b",
        ),
        (
            json!({ "milvus_connect_param": milvus, "collection_infos": [{ "name": "a*" }] }),
            "the collection name is invalid, a*",
        ),
        (
            json!({ "milvus_connect_param": milvus, "db_collections": { "": all } }),
            "the db name is invalid, ",
        ),
    ] {
        assert_eq!(check(data.clone()), Err(Refusal::client(message)), "{data}");
    }
}

#[test]
fn what_milvus_cdc_takes_is_taken() {
    for data in [
        json!({ "collection_infos": [{ "name": "*" }] }),
        json!({ "collection_infos": [{ "name": "a" }], "rpc_channel_info": { "name": "by-dev-replicate-msg" } }),
        json!({ "collection_infos": [], "db_collections": { "*": [{ "name": "*" }] } }),
        json!({ "db_collections": { "foo": [{ "name": "a" }] }, "collection_infos": null }),
        json!({ "collection_infos": [{ "name": "a", "positions": {} }] }),
    ] {
        assert_eq!(check(with_target(data.clone())), Ok(()), "{data}");
    }
    let by_host = json!({
        "milvus_connect_param": { "host": "h", "port": 1, "username": "root", "password": "Milvus", "connect_timeout": 10 },
        "collection_infos": [{ "name": "a" }],
    });
    assert_eq!(check(by_host), Ok(()));
}

#[test]
fn several_collections_and_databases_are_taken() {
    for data in [
        json!({ "collection_infos": [{ "name": "a" }, { "name": "b" }] }),
        json!({ "db_collections": { "foo": [{ "name": "a" }, { "name": "b" }], "bar": [{ "name": "*" }] } }),
    ] {
        assert_eq!(check(with_target(data.clone())), Ok(()), "{data}");
    }
}

#[test]
fn any_channel_will_do_where_the_server_names_none() {
    let request = create(with_target(
        json!({ "collection_infos": [{ "name": "a" }], "rpc_channel_info": { "name": "x" } }),
    ));
    let limits = Limits { replicate_channel: None, ..limits() };
    assert_eq!(validate::create(&request, &limits), Ok(()));
}

/// A position as milvus-cdc hands it out.
fn encoded(channel: &str) -> String {
    let message =
        msg::MsgPosition { channel_name: channel.to_owned(), msg_id: vec![1; 8], ..Default::default() };
    STANDARD.encode(message.encode_to_vec())
}

#[test]
fn positions_are_of_one_collection_and_can_be_read() {
    let check = |positions: Value| {
        let request = create(json!({ "collection_infos": [{ "name": "a", "positions": positions }] }));
        validate::positions(&request.collection_infos[0])
    };
    let good = encoded("dml_1");
    assert_eq!(check(json!({})), Ok(()));
    assert_eq!(check(json!({ "dml_1_5v0": good, "dml_2_5v1": encoded("dml_2") })), Ok(()));
    assert_eq!(
        check(json!({ "dml_1_5v0": good, "dml_1_6v0": good })),
        Err(Refusal::client("the channel position info should be in the same collection"))
    );
    assert_eq!(
        check(json!({ "dml_1_xv0": good })),
        Err(Refusal::client(
            "the vchannel is invalid, dml_1_xv0, err: virtual channel name(dml_1_xv0) is not valid: invalid parameter"
        ))
    );
    let refused = check(json!({ "dml_1_5v0": "%" })).unwrap_err();
    assert_eq!(refused.code, 500);
    assert!(refused.message.starts_with("fail to decode the position data: "), "{}", refused.message);
}
