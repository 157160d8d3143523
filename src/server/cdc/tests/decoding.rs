//! Against what Go's mapstructure makes of the same requests; `testdata/decode.go` records it.

use super::*;

#[derive(serde::Deserialize)]
struct Row {
    request: String,
    decoded: Option<Value>,
    error: Option<String>,
}

#[test]
fn requests_are_decoded_as_mapstructure_does_and_refused_in_its_words() {
    let rows: Vec<Row> = serde_json::from_str(include_str!("../testdata/decode.json")).unwrap();
    assert!(rows.len() > 40);
    for row in rows {
        let request = Request::parse(row.request.as_bytes()).unwrap();
        let ours = decode(&request);
        match (row.decoded, row.error) {
            (Some(theirs), None) => assert_eq!(ours, Ok(theirs), "{}", row.request),
            (None, Some(theirs)) => assert_eq!(ours, Err(without_secrets(&theirs)), "{}", row.request),
            _ => panic!("a row with both or none: {}", row.request),
        }
    }
}

/// In this we differ: no secret is repeated, whatever it is.
fn without_secrets(error: &str) -> String {
    let line = |line: &str| match line.split_once("', value: '") {
        Some((start, _)) if line.contains("password'") || line.contains("token'") => {
            format!("{start}', value: '(secret)'")
        }
        _ => line.to_owned(),
    };
    error.lines().map(line).collect::<Vec<_>>().join("\n")
}

#[test]
fn secrets_that_are_no_texts_are_not_repeated() {
    let param = json!({ "password": 1_234_567, "token": { "key": "hush" } });
    let data =
        json!({ "milvus_connect_param": param, "kafka_connect_param": { "sasl": { "password": ["hush"] } } });
    let error = Create::decode(data.as_object().unwrap()).unwrap_err();
    assert!(error.starts_with("3 error(s)") && error.matches("(secret)").count() == 3, "{error}");
    assert!(!error.contains("hush") && !error.contains("234567"), "{error}");
}

fn decode(request: &Request) -> Result<Value, String> {
    let data = &request.data;
    match request.kind.as_str() {
        "create" => Create::decode(data).map(|create| as_recorded(&create, data)),
        "delete" => Delete::decode(data)
            .map(|delete| json!({ "task_id": delete.task_id, "ignore_not_found": delete.ignore_not_found })),
        "maintenance" => Maintenance::decode(data).map(|maintenance| {
            // Go has no parameters and an empty list of them; nobody can tell them apart.
            let params = Some(maintenance.params).filter(|params| !params.is_empty());
            json!({ "operation": maintenance.operation, "params": params })
        }),
        "list" => Ok(json!({})),
        _ => request::task_id(data).map(|task_id| json!({ "task_id": task_id })),
    }
}

/// As Go writes its own struct. What is read for its type alone is taken from the request.
fn as_recorded(create: &Create, data: &Map<String, Value>) -> Value {
    let mut kafka = json!(create.kafka);
    if let Some(sasl) = data.get("kafka_connect_param").and_then(|kafka| kafka.get("sasl")) {
        kafka["sasl"] = sasl.clone();
    }
    let collections = |infos: &[request::CollectionInfo]| (!infos.is_empty()).then(|| json!(infos));
    let given = |key: &str| data.get(key).is_some_and(|value| !value.is_null());
    let list = |key: &str, value: Option<Value>| if given(key) { value.or(Some(json!([]))) } else { value };
    let databases = create.db_collections.as_ref().map(|databases| {
        let entry = |(name, infos): (&String, &Vec<request::CollectionInfo>)| {
            let null = data["db_collections"][name].is_null();
            (name.clone(), if null { Value::Null } else { json!(infos) })
        };
        databases.iter().map(entry).collect::<Map<_, _>>()
    });
    let mappings = create.name_mapping.iter().map(|mapping| {
        json!({
            "source_db": mapping.source_db, "target_db": mapping.target_db,
            "collection_mapping": mapping.collection_mapping,
        })
    });
    let mappings: Vec<Value> = mappings.collect();
    json!({
        "kafka_connect_param": kafka,
        "milvus_connect_param": create.milvus,
        "collection_infos": list("collection_infos", collections(&create.collection_infos)),
        "db_collections": databases,
        "rpc_channel_info": { "name": create.rpc_channel.name, "position": create.rpc_channel.position },
        "name_mapping": list("name_mapping", (!mappings.is_empty()).then(|| json!(mappings))),
        "extra_info": { "enable_user_role": create.enable_user_role },
        "buffer_config": { "period": create.buffer.period, "size": create.buffer.size },
        "positions": data.get("positions").cloned().unwrap_or_default(),
        "disable_auto_start": create.disable_auto_start,
        "task_id": create.task_id,
    })
}

#[test]
fn a_body_that_is_no_request_is_refused() {
    for (body, message) in [
        ("", "EOF while parsing"),
        ("{", "EOF while parsing"),
        ("[]", "the body must be an object"),
        ("5", "the body must be an object"),
        (r#"{"request_type":5}"#, "request_type must be a string"),
        (r#"{"request_type":"get","request_data":[]}"#, "request_data must be an object"),
        (r#"{"request_type":"get"} x"#, "trailing characters"),
        (r#"{"request_type":"get","request_data":{"a":1e999}}"#, "number out of range"),
    ] {
        let error = Request::parse(body.as_bytes()).unwrap_err();
        assert!(error.contains(message), "{body}: {error}");
    }
}

#[test]
fn what_is_missing_or_null_is_empty() {
    let empty = Request { kind: String::new(), data: Map::new() };
    for body in ["null", "{}", r#"{"request_type":null,"request_data":null}"#] {
        assert_eq!(Request::parse(body.as_bytes()).unwrap(), empty, "{body}");
    }
}

#[test]
fn the_keys_of_the_body_match_without_regard_to_case() {
    let request = Request::parse(br#"{"Request_TYPE":"get","REQUEST_DATA":{"TASK_ID":"t"}}"#).unwrap();
    assert_eq!((request.kind.as_str(), request::task_id(&request.data)), ("get", Ok("t".to_owned())));
}

#[test]
fn the_exact_key_goes_before_one_in_another_case() {
    let request =
        Request::parse(br#"{"request_data":{"TASK_ID":"other","task_id":"t","Task_id":"o"}}"#).unwrap();
    assert_eq!(request::task_id(&request.data), Ok("t".to_owned()));
}

#[test]
fn bytes_that_are_no_text_are_replaced() {
    let request = Request::parse(b"{\"request_type\":\"g\xffet\"}").unwrap();
    assert_eq!(request.kind, "g\u{fffd}et");
}

#[test]
fn a_decoder_without_errors_gives_the_value() {
    assert_eq!(Decoder::default().finish(5), Ok(5));
}
