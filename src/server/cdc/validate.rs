//! What a `create` request must be, in milvus-cdc's order and words. It refuses more than one collection or database in a
//! task; here they are welcome.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use prost::Message;

use super::request::{CollectionInfo, Create, RpcChannel};
use super::response::Refusal;
use crate::milvus::channel::VChannel;
use crate::milvus::position::MsgPosition;
use crate::milvus::proto::msg;
use crate::pipeline::Select;

/// What the server has set for all tasks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The most tasks.
    pub max_tasks: usize,
    /// The most bytes in the name of a collection or database.
    pub max_name_length: usize,
    /// The one name that `rpc_channel_info` may have; `None`: any.
    pub replicate_channel: Option<String>,
}

/// Checks what can be checked without any server.
pub(super) fn create(request: &Create, limits: &Limits) -> Result<(), Refusal> {
    target(request)?;
    if request.buffer.period < 0 {
        return Err(Refusal::client("the cache period is less zero"));
    }
    if request.buffer.size < 0 {
        return Err(Refusal::client("the cache size is less zero"));
    }
    let databases = request.db_collections.iter().flatten();
    match (request.collection_infos.is_empty(), databases.clone().next().is_none()) {
        (true, true) => return Err(Refusal::client("the collection info is empty")),
        (false, false) => {
            return Err(Refusal::client("the collection info and db collection info should be only one"));
        }
        (false, true) => collections(&request.collection_infos, limits)?,
        (true, false) => {
            for (database, infos) in databases.clone() {
                if database.len() > limits.max_name_length {
                    let most = limits.max_name_length;
                    return Err(Refusal::client(format!(
                        "the db name length exceeds {most} characters, {database}"
                    )));
                }
                collections(infos, limits)?;
            }
        }
    }
    let rpc = &request.rpc_channel;
    if limits.replicate_channel.as_ref().is_some_and(|known| !rpc.name.is_empty() && rpc.name != *known) {
        let message = "the rpc channel is invalid, the channel name should be the same as the source config";
        return Err(Refusal::client(message));
    }
    for (database, infos) in databases.map(|(name, infos)| (name.as_str(), infos)) {
        infos.iter().try_for_each(|info| name(database, &info.name))?;
    }
    request.collection_infos.iter().try_for_each(|info| name("default", &info.name))
}

fn target(request: &Create) -> Result<(), Refusal> {
    let (milvus, kafka) = (&request.milvus, &request.kafka);
    let no_milvus = milvus.uri.is_empty() && milvus.host.is_empty() && milvus.port <= 0;
    match (no_milvus, kafka.address.is_empty()) {
        (true, true) => return Err(Refusal::client("the downstream address is empty")),
        (false, false) => {
            return Err(Refusal::client("don't support milvus and kafka at the same time now"));
        }
        (true, false) => {
            if kafka.topic.is_empty() {
                return Err(Refusal::client("the kafka topic is empty"));
            }
        }
        (false, true) => {
            if milvus.uri.is_empty() && milvus.host.is_empty() {
                return Err(Refusal::client("the milvus host is empty"));
            }
            if milvus.uri.is_empty() && milvus.port <= 0 {
                return Err(Refusal::client("the milvus port is less or equal zero"));
            }
            if milvus.username.is_empty() != milvus.password.is_empty() {
                return Err(Refusal::client("cannot set only one of the milvus username and password"));
            }
            if milvus.connect_timeout < 0 {
                return Err(Refusal::client("the milvus connect timeout is less zero"));
            }
        }
    }
    Ok(())
}

fn collections(infos: &[CollectionInfo], limits: &Limits) -> Result<(), Refusal> {
    if infos.is_empty() {
        return Err(Refusal::client("empty collection info"));
    }
    for info in infos {
        if info.name == "*" && infos.len() > 1 {
            let names: Vec<&str> = infos.iter().map(|info| info.name.as_str()).collect();
            return Err(Refusal::client(format!(
                "make sure the only one collection if you want to use the '*' collection param, current param: [{}]",
                names.join(" ")
            )));
        }
        let mut channels = info.positions.iter().flatten().map(|(channel, _)| channel).peekable();
        if info.name == "*" && channels.peek().is_some() {
            return Err(Refusal::client("the collection name is `*`, the positions should be empty"));
        }
        let looks_virtual =
            |channel: &str| channel.rsplit_once('_').is_some_and(|(_, tail)| tail.contains('v'));
        if let Some(channel) = channels.find(|channel| !looks_virtual(channel)) {
            return Err(Refusal::client(format!(
                "the position channel name is not virtual channel, {channel}"
            )));
        }
    }
    let most = limits.max_name_length;
    let long: Vec<&str> =
        infos.iter().map(|info| info.name.as_str()).filter(|name| name.len() > most).collect();
    let mut message = String::new();
    if infos.iter().any(|info| info.name.is_empty()) {
        message.push_str("there is a collection name that is empty. ");
    }
    if !long.is_empty() {
        message.push_str(&format!(
            "there are some collection names whose length exceeds {most} characters, [{}]",
            long.join(" ")
        ));
    }
    if message.is_empty() { Ok(()) } else { Err(Refusal::client(message)) }
}

/// A database and a collection that Milvus can have, or `*`. (milvus-cdc takes such names: it ends with a panic if they hold
/// dots, and never finds the others.)
fn name(database: &str, collection: &str) -> Result<(), Refusal> {
    for (what, name) in [("db", database), ("collection", collection)] {
        let wild = name != "*" && name.contains(['*', '?']);
        if wild || name.contains('.') || Select::objection(&format!("{name}.{name}")).is_some() {
            return Err(Refusal::client(format!("the {what} name is invalid, {name}")));
        }
    }
    Ok(())
}

/// The positions of a collection: each of a vchannel, all of one collection, each in a form that can be read.
pub(super) fn positions(info: &CollectionInfo) -> Result<(), Refusal> {
    let mut collection = None;
    for (channel, position) in info.positions.iter().flatten() {
        let vchannel = VChannel(channel.as_str().into());
        let Some(id) = vchannel.collection_id() else {
            return Err(Refusal::client(format!(
                "the vchannel is invalid, {channel}, err: virtual channel name({channel}) is not valid: invalid parameter"
            )));
        };
        MsgPosition::from_base64(&vchannel, position).map_err(|message| {
            Refusal::server(format!("fail to decode the position data: {channel} {message}"))
        })?;
        if *collection.get_or_insert(id) != id {
            return Err(Refusal::client("the channel position info should be in the same collection"));
        }
    }
    Ok(())
}

/// A position in milvus-cdc's channel for DDL. It has no use here, but what is wrong with it is told.
pub(super) fn rpc_position(channel: &RpcChannel) -> Result<(), Refusal> {
    let bytes = STANDARD.decode(&channel.position).map_err(|error| error.to_string());
    let read = bytes.and_then(|bytes| msg::MsgPosition::decode(&*bytes).map_err(|error| error.to_string()));
    read.map(drop).map_err(|error| Refusal::server(format!("fail to decode the rpc position data: {error}")))
}
