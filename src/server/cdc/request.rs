//! What the requests of milvus-cdc's API say: names, shapes and defaults of their fields.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::decode::{Decoder, Object, find};

/// One request: what is asked for, and its data.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Request {
    /// `request_type`
    pub kind: String,
    /// `request_data`
    pub data: Map<String, Value>,
}

impl Request {
    /// Reads a body. The error is what is wrong with it.
    pub fn parse(body: &[u8]) -> Result<Request, String> {
        // As Go does: what is no UTF-8 becomes the replacement character.
        let text = String::from_utf8_lossy(body);
        let body: Value = serde_json::from_str(&text).map_err(|error| error.to_string())?;
        let fields = match body {
            Value::Null => Map::new(),
            Value::Object(fields) => fields,
            _ => return Err("the body must be an object".to_owned()),
        };
        let kind = match find(&fields, "request_type") {
            None | Some(Value::Null) => String::new(),
            Some(Value::String(text)) => text.clone(),
            Some(_) => return Err("request_type must be a string".to_owned()),
        };
        let data = match find(&fields, "request_data") {
            None | Some(Value::Null) => Map::new(),
            Some(Value::Object(fields)) => fields.clone(),
            Some(_) => return Err("request_data must be an object".to_owned()),
        };
        Ok(Request { kind, data })
    }
}

/// The data of a `create` request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Create {
    pub kafka: KafkaConnectParam,
    pub milvus: MilvusConnectParam,
    /// Of the default database.
    pub collection_infos: Vec<CollectionInfo>,
    /// By database. `None` and empty are told apart in what `get` answers.
    pub db_collections: Option<BTreeMap<String, Vec<CollectionInfo>>>,
    pub rpc_channel: RpcChannel,
    pub name_mapping: Vec<NameMapping>,
    pub enable_user_role: bool,
    pub buffer: BufferConfig,
    pub disable_auto_start: bool,
    pub task_id: String,
}

/// `milvus_connect_param`: the target. Secrets are blanked before it is kept or shown.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct MilvusConnectParam {
    pub host: String,
    pub port: i64,
    pub enable_tls: bool,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub username: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub password: String,
    pub uri: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub token: String,
    pub dial_config: DialConfig,
    pub channel_num: i64,
    pub ignore_partition: bool,
    /// In seconds.
    pub connect_timeout: i64,
}

/// `dial_config`: TLS by files on the server's machine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct DialConfig {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub server_name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub server_pem_path: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub ca_pem_path: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub client_pem_path: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub client_key_path: String,
}

/// `kafka_connect_param`: a target that is read and answered as milvus-cdc does, but that we don't have.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct KafkaConnectParam {
    pub address: String,
    pub topic: String,
    pub enable_sasl: bool,
    pub sasl: KafkaSasl,
}

/// `sasl` in it. What it holds is read for its types alone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct KafkaSasl {}

/// An entry of `collection_infos`, or of a database in `db_collections`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct CollectionInfo {
    /// A name, or `*`.
    pub name: String,
    /// By vchannel, in the base64 form of Milvus' `MsgPosition`.
    pub positions: Option<BTreeMap<String, String>>,
    pub use_start_position: bool,
}

/// `rpc_channel_info`: milvus-cdc's channel for DDL, which is not read here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct RpcChannel {
    pub name: String,
    pub position: String,
}

/// An entry of `name_mapping`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct NameMapping {
    pub source_db: String,
    pub target_db: String,
    /// If empty, the whole database goes under the other name.
    pub collection_mapping: BTreeMap<String, String>,
}

/// `buffer_config`, which is checked and has no use, there as here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct BufferConfig {
    pub period: i64,
    pub size: i64,
}

impl Create {
    /// Reads `request_data`. The error is in the words of `mapstructure`.
    pub fn decode(data: &Map<String, Value>) -> Result<Create, String> {
        let mut decoder = Decoder::default();
        let top = Object::top(data);
        let kafka = decoder.object(&top, "kafka_connect_param");
        let milvus = decoder.object(&top, "milvus_connect_param");
        let rpc_channel = decoder.object(&top, "rpc_channel_info");
        let extra = decoder.object(&top, "extra_info");
        let buffer = decoder.object(&top, "buffer_config");
        // Read for its type alone: nothing has used it for long, there either.
        decoder.map_of_texts(&top, "positions");
        let collection_infos = decoder.objects(&top, "collection_infos");
        let db_collections = decoder.map_of_objects(&top, "db_collections");
        let name_mapping = decoder.objects(&top, "name_mapping");
        let create = Create {
            kafka: decode_kafka(&mut decoder, &kafka),
            milvus: decode_milvus(&mut decoder, &milvus),
            collection_infos: decode_collections(&mut decoder, &collection_infos),
            db_collections: db_collections.map(|databases| {
                let read = |(name, infos): (String, Vec<Object<'_>>)| {
                    (name, decode_collections(&mut decoder, &infos))
                };
                databases.into_iter().map(read).collect()
            }),
            rpc_channel: RpcChannel {
                name: decoder.text(&rpc_channel, "name"),
                position: decoder.text(&rpc_channel, "position"),
            },
            name_mapping: name_mapping.iter().map(|entry| decode_mapping(&mut decoder, entry)).collect(),
            enable_user_role: decoder.flag(&extra, "enable_user_role"),
            buffer: BufferConfig {
                period: decoder.number(&buffer, "period"),
                size: decoder.number(&buffer, "size"),
            },
            disable_auto_start: decoder.flag(&top, "disable_auto_start"),
            task_id: decoder.text(&top, "task_id"),
        };
        decoder.finish(create)
    }
}

fn decode_kafka(decoder: &mut Decoder, kafka: &Object<'_>) -> KafkaConnectParam {
    let sasl = decoder.object(kafka, "sasl");
    for name in ["username", "mechanisms", "security_protocol"] {
        decoder.text(&sasl, name);
    }
    decoder.secret(&sasl, "password");
    KafkaConnectParam {
        address: decoder.text(kafka, "address"),
        topic: decoder.text(kafka, "topic"),
        enable_sasl: decoder.flag(kafka, "enable_sasl"),
        sasl: KafkaSasl {},
    }
}

fn decode_milvus(decoder: &mut Decoder, milvus: &Object<'_>) -> MilvusConnectParam {
    let dial = decoder.object(milvus, "dial_config");
    MilvusConnectParam {
        host: decoder.text(milvus, "host"),
        port: decoder.number(milvus, "port"),
        enable_tls: decoder.flag(milvus, "enable_tls"),
        username: decoder.text(milvus, "username"),
        password: decoder.secret(milvus, "password"),
        uri: decoder.text(milvus, "uri"),
        token: decoder.secret(milvus, "token"),
        dial_config: DialConfig {
            server_name: decoder.text(&dial, "server_name"),
            server_pem_path: decoder.text(&dial, "server_pem_path"),
            ca_pem_path: decoder.text(&dial, "ca_pem_path"),
            client_pem_path: decoder.text(&dial, "client_pem_path"),
            client_key_path: decoder.text(&dial, "client_key_path"),
        },
        channel_num: decoder.number(milvus, "channel_num"),
        ignore_partition: decoder.flag(milvus, "ignore_partition"),
        connect_timeout: decoder.number(milvus, "connect_timeout"),
    }
}

fn decode_collections(decoder: &mut Decoder, infos: &[Object<'_>]) -> Vec<CollectionInfo> {
    let read = |info: &Object<'_>| CollectionInfo {
        name: decoder.text(info, "name"),
        positions: decoder.map_of_texts(info, "positions"),
        use_start_position: decoder.flag(info, "use_start_position"),
    };
    infos.iter().map(read).collect()
}

fn decode_mapping(decoder: &mut Decoder, mapping: &Object<'_>) -> NameMapping {
    NameMapping {
        source_db: decoder.text(mapping, "source_db"),
        target_db: decoder.text(mapping, "target_db"),
        collection_mapping: decoder.map_of_texts(mapping, "collection_mapping").unwrap_or_default(),
    }
}

/// The data of a `delete` request.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Delete {
    pub task_id: String,
    pub ignore_not_found: bool,
}

impl Delete {
    /// As [`Create::decode`].
    pub fn decode(data: &Map<String, Value>) -> Result<Delete, String> {
        let mut decoder = Decoder::default();
        let top = Object::top(data);
        let delete = Delete {
            task_id: decoder.text(&top, "task_id"),
            ignore_not_found: decoder.flag(&top, "ignore_not_found"),
        };
        decoder.finish(delete)
    }
}

/// The `task_id` of a `pause`, `resume`, `get` or `position` request. The error is as of [`Create::decode`].
pub(super) fn task_id(data: &Map<String, Value>) -> Result<String, String> {
    let mut decoder = Decoder::default();
    let task_id = decoder.text(&Object::top(data), "task_id");
    decoder.finish(task_id)
}

/// The data of a `maintenance` request.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Maintenance {
    pub operation: String,
    pub params: Map<String, Value>,
}

impl Maintenance {
    /// As [`Create::decode`]. (These two names are those of Go's fields in messages.)
    pub fn decode(data: &Map<String, Value>) -> Result<Maintenance, String> {
        let mut decoder = Decoder::default();
        let top = Object::top(data);
        let maintenance = Maintenance {
            operation: decoder.text(&top, "Operation"),
            params: decoder.anything(&top, "Params"),
        };
        decoder.finish(maintenance)
    }
}
