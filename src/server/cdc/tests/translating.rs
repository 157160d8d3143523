//! `create` requests and the definitions that they become.

use std::path::Path;

use super::*;
use crate::milvus::channel::{Position, VChannel};
use crate::milvus::position::MsgPosition;
use crate::milvus::tso::Tso;
use crate::pipeline::{Pipeline, StartAt, Surroundings, TargetConfig};
use crate::server::cdc::overlap::Name;
use crate::server::cdc::response::Refusal;
use crate::server::cdc::translate::{definition, target_uri};

const NOW: Tso = Tso(470_658_020_989_730_819);

fn source() -> Map<String, Value> {
    let source = json!({
        "etcd": ["http://etcd:2379"],
        "etcd_username": "reader",
        "etcd_password": "${ETCD_PASSWORD}",
        "mq": { "type": "rocksmq", "path": "/mq" },
    });
    source.as_object().unwrap().clone()
}

fn translated(data: Value) -> Result<Value, Refusal> {
    definition("task", &create(data), &[], &source(), NOW)
}

/// The pipeline that a request becomes, by way of the reader of definitions.
fn pipeline(data: Value) -> Pipeline {
    let definition = translated(data).unwrap();
    let lookup = |name: &str| match name {
        "ETCD_PASSWORD" => Some("secret".into()),
        "HOME" => Some("/home".into()),
        _ => None,
    };
    let surroundings = Surroundings::of_file(Path::new("/tasks"), &lookup);
    Pipeline::from_values(&definition, &surroundings)
        .unwrap_or_else(|error| panic!("{}\n{definition}", error.report()))
}

fn target(milvus: Value) -> crate::pipeline::MilvusTarget {
    match pipeline(json!({ "milvus_connect_param": milvus, "collection_infos": [{ "name": "*" }] })).target {
        TargetConfig::Milvus(target) => target,
        TargetConfig::Null => panic!("no Milvus"),
    }
}

#[test]
fn the_whole_definition() {
    let data = json!({
        "milvus_connect_param": { "host": "target", "port": 19530, "username": "root", "password": "Milvus" },
        "db_collections": { "shop": [{ "name": "orders" }, { "name": "users" }] },
        "name_mapping": [
            { "source_db": "shop", "target_db": "store", "collection_mapping": { "orders": "sales" } },
        ],
        "extra_info": { "enable_user_role": true },
    });
    let excluded = [Name::new("shop", "tmp")];
    let wanted = json!({
        "name": "task",
        "source": {
            "etcd": ["http://etcd:2379"],
            "etcd_username": "reader",
            "etcd_password": "${ETCD_PASSWORD}",
            "mq": { "type": "rocksmq", "path": "/mq" },
            "start": "470658020989730819",
        },
        "select": { "collections": ["shop.orders", "shop.users"], "exclude": ["shop.tmp"] },
        "target": {
            "type": "milvus",
            "uri": "http://target:19530",
            "token": "root:Milvus",
            "adopt": true,
            "connect_timeout": "5s",
            "names": { "shop.orders": "store.sales" },
        },
        "catalog": { "rbac": true },
    });
    assert_eq!(definition("task", &create(data), &excluded, &source(), NOW), Ok(wanted));
}

#[test]
fn the_target_is_reached_as_the_request_says() {
    let plain = target(json!({ "uri": "http://target:19530", "token": "key" }));
    assert_eq!(plain.uri, "http://target:19530");
    assert_eq!(plain.token.unwrap().0, "key");
    assert!(plain.tls.is_none() && plain.adopt);
    assert_eq!(plain.connect_timeout.as_secs(), 5);
    assert_eq!(target(json!({ "uri": "target:19530" })).uri, "http://target:19530");
    assert!(target(json!({ "uri": "target:19530" })).token.is_none());
    let by_host = json!({ "host": "target", "port": 443, "enable_tls": true, "connect_timeout": 20 });
    assert_eq!(target(by_host.clone()).uri, "https://target:443");
    assert_eq!(target(by_host).connect_timeout.as_secs(), 20);
    assert_eq!(
        target(json!({ "uri": "http://t:1", "connect_timeout": 100_000 })).connect_timeout.as_secs(),
        300
    );
    let both = json!({ "uri": "http://uri:1", "host": "host", "port": 2, "token": "t", "username": "u", "password": "p" });
    assert_eq!(target(both.clone()).uri, "http://uri:1");
    assert_eq!(target(both).token.unwrap().0, "t");
}

#[test]
fn tls_is_one_way_by_the_servers_certificate_or_both_ways() {
    let one_way = json!({ "server_name": "milvus", "server_pem_path": "/tls/server.pem" });
    let tls = target(json!({ "uri": "https://t:1", "dial_config": one_way })).tls.unwrap();
    assert_eq!(tls.ca.as_deref(), Some(Path::new("/tls/server.pem")));
    assert_eq!(tls.server_name.as_deref(), Some("milvus"));
    assert!(tls.cert.is_none() && tls.key.is_none());
    let both_ways =
        json!({ "ca_pem_path": "/ca.pem", "client_pem_path": "/c.pem", "client_key_path": "/c.key" });
    let reached = target(json!({ "host": "t", "port": 1, "dial_config": both_ways }));
    assert_eq!(reached.uri, "https://t:1");
    let tls = reached.tls.unwrap();
    assert_eq!(tls.ca.as_deref(), Some(Path::new("/ca.pem")));
    assert_eq!(tls.cert.as_deref(), Some(Path::new("/c.pem")));
    assert_eq!(tls.key.as_deref(), Some(Path::new("/c.key")));
    assert!(target(json!({ "uri": "http://t:1", "dial_config": { "server_name": "x" } })).tls.is_none());
}

#[test]
fn nothing_in_a_request_is_read_from_the_environment() {
    let secret =
        target(json!({ "uri": "http://t:1", "username": "${ETCD_PASSWORD}", "password": "a$b$$c${HOME}" }));
    assert_eq!(secret.token.unwrap().0, "${ETCD_PASSWORD}:a$b$$c${HOME}");
    let names = pipeline(with_target(json!({ "collection_infos": [{ "name": "a$$b" }] })));
    assert_eq!(names.select.collections, ["default.a$$b"]);
}

#[test]
fn the_selection_is_what_the_request_names() {
    let select = |data: Value| pipeline(with_target(data)).select.collections;
    assert_eq!(select(json!({ "collection_infos": [{ "name": "*" }] })), ["default.*"]);
    assert_eq!(
        select(json!({ "collection_infos": [{ "name": "b" }, { "name": "a" }] })),
        ["default.a", "default.b"]
    );
    assert_eq!(select(json!({ "db_collections": { "*": [{ "name": "*" }] } })), ["*.*"]);
    assert_eq!(
        select(json!({ "db_collections": { "x": [{ "name": "*" }], "y": [{ "name": "a" }] } })),
        ["x.*", "y.a"]
    );
}

#[test]
fn a_task_begins_when_it_was_asked_for_unless_something_else_is_said() {
    let start = |info: Value| pipeline(with_target(json!({ "collection_infos": info }))).source.start;
    assert_eq!(start(json!([{ "name": "a" }])), StartAt::After(NOW));
    assert_eq!(start(json!([{ "name": "a", "use_start_position": true }])), StartAt::Collection);
    let configured = |start: &str, info: Value| {
        let mut source = source();
        source.insert("start".to_owned(), start.into());
        let request = create(with_target(json!({ "collection_infos": info })));
        let definition = definition("task", &request, &[], &source, NOW).unwrap();
        definition["source"]["start"].as_str().unwrap().to_owned()
    };
    assert_eq!(configured("collection", json!([{ "name": "a" }])), "collection");
    assert_eq!(configured("earliest", json!([{ "name": "a" }])), "earliest");
    assert_eq!(configured("latest", json!([{ "name": "a" }])), NOW.0.to_string());
    assert_eq!(configured("latest", json!([{ "name": "a", "use_start_position": true }])), "collection");
    let mixed = json!([{ "name": "a", "use_start_position": true }, { "name": "b" }]);
    assert_eq!(
        translated(with_target(json!({ "collection_infos": mixed }))),
        Err(Refusal::client("the use_start_position should be the same for all collections of a task"))
    );
}

#[test]
fn positions_go_along_and_the_pipeline_begins_with_the_earliest() {
    let encoded = |message: u64, time: u64| {
        let position = MsgPosition { position: Position(message.to_le_bytes().to_vec()), time: Tso(time) };
        position.to_base64(&VChannel("dml_1_7v0".into()))
    };
    let read = |positions: Value| {
        let infos = json!([{ "name": "a", "positions": positions }, { "name": "b" }]);
        pipeline(with_target(json!({ "collection_infos": infos }))).source
    };
    let source = read(json!({ "dml_1_7v0": encoded(5, 900), "dml_1_7v1": encoded(6, 800) }));
    let positions: Vec<_> = source.positions.iter().map(|(channel, at)| (&*channel.0, at.time.0)).collect();
    assert_eq!(positions, [("dml_1_7v0", 900), ("dml_1_7v1", 800)]);
    assert_eq!(source.start, StartAt::After(Tso(800)));
    assert_eq!(source.positions.first_key_value().unwrap().1.position.0, 5_u64.to_le_bytes());
    let late = read(json!({ "dml_1_7v0": encoded(5, NOW.0 + 1) }));
    assert_eq!(late.start, StartAt::After(NOW), "others begin when the task was asked for");
    let without_time = read(json!({ "dml_1_7v0": encoded(5, 0) }));
    assert_eq!(without_time.start, StartAt::Collection);
}

#[test]
fn names_are_mapped_by_database_or_by_collection() {
    let names = |mapping: Value| {
        let data =
            with_target(json!({ "db_collections": { "*": [{ "name": "*" }] }, "name_mapping": mapping }));
        Ok(translated(data)?["target"].get("names").cloned().unwrap_or_default())
    };
    for (mapping, wanted) in [
        (json!([]), Value::Null),
        (json!([{ "source_db": "a", "target_db": "b" }]), json!({ "a": "b" })),
        (
            json!([{ "source_db": "a", "target_db": "b", "collection_mapping": { "*": "*" } }]),
            json!({ "a": "b" }),
        ),
        (json!([{ "source_db": "a", "collection_mapping": { "x": "y" } }]), json!({ "a.x": "default.y" })),
        (
            json!([
                { "source_db": "a", "target_db": "b", "collection_mapping": { "x": "y", "z": "${HOME}" } },
                { "source_db": "a", "target_db": "b", "collection_mapping": { "x": "y" } },
            ]),
            json!({ "a.x": "b.y", "a.z": "b.$${HOME}" }),
        ),
    ] {
        assert_eq!(names(mapping.clone()), Ok(wanted), "{mapping}");
    }
    assert_eq!(
        names(json!([{ "source_db": "a", "target_db": "b" }, { "source_db": "a", "target_db": "c" }])),
        Err(Refusal::client("the name mapping of a is given twice"))
    );
}

#[test]
fn a_target_goes_by_the_address_that_was_given() {
    let uri = |milvus: Value| target_uri(&create(json!({ "milvus_connect_param": milvus })).milvus);
    assert_eq!(uri(json!({ "host": "h", "port": 1 })), "http://h:1");
    assert_eq!(uri(json!({ "host": "h", "port": 1, "enable_tls": true })), "https://h:1");
    assert_eq!(uri(json!({ "host": "h", "port": 1, "uri": "h:1" })), "h:1");
}
