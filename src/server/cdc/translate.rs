//! From a `create` request to the definition of the pipeline that does it.

use std::path::Path;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::overlap::{self, Name};
use super::request::{CollectionInfo, Create, DialConfig, MilvusConnectParam};
use super::response::Refusal;
use crate::milvus::channel::VChannel;
use crate::milvus::position::MsgPosition;
use crate::milvus::tso::Tso;

/// How long connecting may take where the request does not say, as in milvus-cdc, and at most, as in a pipeline file.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const LONGEST_CONNECT_TIMEOUT: Duration = Duration::from_secs(300);

/// The address of the target, which also tells targets apart: as it was given, or made of host and port.
pub(super) fn target_uri(milvus: &MilvusConnectParam) -> String {
    if !milvus.uri.is_empty() {
        return milvus.uri.clone();
    }
    let scheme = if milvus.enable_tls { "https" } else { "http" };
    format!("{scheme}://{}:{}", milvus.host, milvus.port)
}

/// What the file of a pipeline says that does what `request` asks for.
///
/// `source` is its `[source]`. `now` is when the request came: rows of collections that are there already are copied from
/// then on, unless the request or `source` says otherwise.
pub(super) fn definition(
    name: &str,
    request: &Create,
    excluded: &[Name],
    source: &Map<String, Value>,
    now: Tso,
) -> Result<Value, Refusal> {
    let mut definition = json!({
        "name": name,
        "source": source_of(request, source, now)?,
        "select": select(request, excluded),
        "target": target(request)?,
    });
    if request.enable_user_role {
        definition["catalog"] = json!({ "rbac": true });
    }
    Ok(definition)
}

fn source_of(request: &Create, source: &Map<String, Value>, now: Tso) -> Result<Map<String, Value>, Refusal> {
    let mut source = source.clone();
    let databases = request.db_collections.iter().flatten().flat_map(|(_, infos)| infos);
    let infos: Vec<&CollectionInfo> = request.collection_infos.iter().chain(databases).collect();
    let from_start = infos.iter().filter(|info| info.use_start_position).count();
    if from_start > 0 && from_start < infos.len() {
        let message = "the use_start_position should be the same for all collections of a task";
        return Err(Refusal::client(message));
    }
    // The pipeline as a whole begins no later than any of its channels.
    let given = infos.iter().filter_map(|info| info.positions.as_ref()).flatten();
    let earliest = given.filter_map(|(channel, position)| {
        Some(MsgPosition::from_base64(&VChannel(channel.as_str().into()), position).ok()?.time)
    });
    let begin = match earliest.min() {
        None => Some(now),
        // milvus-cdc's own positions say no time.
        Some(Tso::ZERO) => None,
        Some(time) => Some(time.min(now)),
    };
    if from_start > 0 {
        source.insert("start".to_owned(), "collection".into());
    } else if source.get("start").is_none_or(|start| start == "latest") {
        // Not `latest`, which is when the pipeline starts: what is inserted before that, but after our answer, is wanted.
        let start = begin.map_or_else(|| "collection".to_owned(), |time| time.0.to_string());
        source.insert("start".to_owned(), start.into());
    }
    let mut positions = Map::new();
    for (channel, position) in infos.iter().filter_map(|info| info.positions.as_ref()).flatten() {
        let former = positions.insert(channel.clone(), text(position));
        if former.is_some_and(|former| former != text(position)) {
            return Err(Refusal::client(format!("the position of {channel} is given twice")));
        }
    }
    if !positions.is_empty() {
        source.insert("positions".to_owned(), positions.into());
    }
    Ok(source)
}

fn select(request: &Create, excluded: &[Name]) -> Value {
    let patterns = |names: &[Name]| names.iter().map(|name| text(&name.to_string())).collect::<Vec<_>>();
    let mut select = json!({ "collections": patterns(&overlap::names(request)) });
    if !excluded.is_empty() {
        select["exclude"] = json!(patterns(excluded));
    }
    select
}

fn target(request: &Create) -> Result<Value, Refusal> {
    let milvus = &request.milvus;
    let tls = tls(&milvus.dial_config);
    let timeout = match u64::try_from(milvus.connect_timeout) {
        Ok(0) | Err(_) => CONNECT_TIMEOUT,
        Ok(seconds) => Duration::from_secs(seconds).min(LONGEST_CONNECT_TIMEOUT),
    };
    let mut target = json!({
        "type": "milvus",
        "uri": text(&address(&target_uri(milvus), !tls.is_empty())),
        // milvus-cdc goes on with whatever stands there under the name: a task that is deleted and made again has to.
        "adopt": true,
        "connect_timeout": format!("{}s", timeout.as_secs()),
    });
    let token = match (&*milvus.token, &*milvus.username) {
        ("", "") => None,
        ("", username) => Some(format!("{username}:{}", milvus.password)),
        (token, _) => Some(token.to_owned()),
    };
    if let Some(token) = token {
        target["token"] = text(&token);
    }
    if !tls.is_empty() {
        target["tls"] = tls.into();
    }
    let names = names(request)?;
    if !names.is_empty() {
        target["names"] = names.into();
    }
    Ok(target)
}

/// Without a scheme it is one without TLS, as Milvus' own client has it; with files for TLS it is one with it.
fn address(uri: &str, tls: bool) -> String {
    let rest = match uri.split_once("://") {
        Some(("http" | "tcp", rest)) if tls => rest,
        Some(("tcp", rest)) => return format!("http://{rest}"),
        Some(_) => return uri.to_owned(),
        None => uri,
    };
    format!("{}://{rest}", if tls { "https" } else { "http" })
}

/// `server_pem_path` is TLS by the server's certificate; without it the other three are TLS both ways. Relative paths start
/// where the server runs.
fn tls(dial: &DialConfig) -> Map<String, Value> {
    let mut table = Map::new();
    let mut put = |key: &str, path: &str| {
        if !path.is_empty() {
            let path =
                std::path::absolute(Path::new(path)).map_or(path.into(), |path| path.display().to_string());
            table.insert(key.to_owned(), text(&path));
        }
    };
    if dial.server_pem_path.is_empty() {
        put("ca", &dial.ca_pem_path);
        put("cert", &dial.client_pem_path);
        put("key", &dial.client_key_path);
    } else {
        put("ca", &dial.server_pem_path);
    }
    if !table.is_empty() && !dial.server_name.is_empty() {
        table.insert("server_name".to_owned(), text(&dial.server_name));
    }
    table
}

/// `[target.names]`: a database under another name, or single collections of it.
fn names(request: &Create) -> Result<Map<String, Value>, Refusal> {
    let mut names = Map::new();
    for mapping in &request.name_mapping {
        // As in every request of Milvus: no name is that of the default database.
        let target = if mapping.target_db.is_empty() { "default" } else { &*mapping.target_db };
        let mut put = |from: String, to: String| {
            let to = text(&to);
            if names.insert(from.clone(), to.clone()).is_some_and(|other| other != to) {
                return Err(Refusal::client(format!("the name mapping of {from} is given twice")));
            }
            Ok(())
        };
        if mapping.collection_mapping.is_empty() {
            put(mapping.source_db.clone(), target.to_owned())?;
        }
        for (from, to) in &mapping.collection_mapping {
            match (from.as_str(), to.as_str()) {
                ("*", "*") => put(mapping.source_db.clone(), target.to_owned())?,
                _ => put(format!("{}.{from}", mapping.source_db), format!("{target}.{to}"))?,
            }
        }
    }
    Ok(names)
}

/// What a request says is never to be read from the server's environment.
fn text(text: &str) -> Value {
    Value::String(text.replace('$', "$$"))
}
