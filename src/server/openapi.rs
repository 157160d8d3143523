//! The description of the API, made from the code: from the handlers, their types, and the table of keys.

use axum::Json;
use serde_json::{Map, Value, json};
use utoipa::OpenApi;

use super::{StateOf, api, events};
use crate::pipeline::keys::{Default, KEYS, Key, Shape, TABLES, Table};

/// What a pipeline file says, as JSON.
#[derive(utoipa::ToSchema)]
pub struct Definition {}

#[derive(OpenApi)]
#[openapi(
    info(title = "migrans", description = "Pipelines between Milvus clusters: made, watched and removed."),
    paths(
        api::list, api::get, api::put, api::remove, api::pause, api::resume, api::report, events::events,
    ),
    components(schemas(Definition, StateOf)),
    tags((name = "pipelines", description = "What is copied from where to where")),
)]
struct Api;

/// The description.
pub fn description() -> Value {
    let mut description = serde_json::to_value(Api::openapi()).unwrap_or_default();
    description["components"]["schemas"]["Definition"] = table(TABLES[0]);
    description["components"]["securitySchemes"] = json!({"token": {"type": "http", "scheme": "bearer"}});
    description["security"] = json!([{}, {"token": []}]);
    description
}

/// Answers with it.
pub async fn get() -> Json<Value> {
    Json(description())
}

fn table(of: &Table) -> Value {
    let mut properties = Map::new();
    let mut required = Vec::new();
    for key in KEYS.iter().filter(|key| key.table == of.path) {
        let is_needed = key.default == Default::Required && key.variants.is_empty();
        // What the path says need not be said again.
        if is_needed && !key.path().eq("name") {
            required.push(key.name);
        }
        properties.insert(key.name.to_owned(), value(key));
    }
    for inner in TABLES.iter().filter(|inner| inner.parent() == Some(of.path)) {
        if inner.required {
            required.push(inner.name());
        }
        properties.insert(inner.name().to_owned(), table(inner));
    }
    let additional = if of.free.is_some() { json!({"type": "string"}) } else { json!(false) };
    let mut schema = json!({
        "type": "object", "description": of.meaning, "properties": properties, "additionalProperties": additional,
    });
    if !required.is_empty() {
        schema["required"] = json!(required);
    }
    schema
}

fn value(key: &Key) -> Value {
    let list = |items: Value, least: usize| json!({"type": "array", "items": items, "minItems": least});
    let text = json!({"type": "string", "minLength": 1});
    let address = json!({"type": "string", "pattern": "^https?://[^/@]+/?$"});
    let mut schema = match key.shape {
        Shape::Name => json!({"type": "string", "pattern": "^[A-Za-z0-9_-]{1,100}$"}),
        Shape::Text | Shape::Path | Shape::Start => text,
        Shape::Secret => json!({"type": "string", "minLength": 1, "format": "password", "writeOnly": true}),
        Shape::Address => address,
        Shape::Addresses => list(address, 1),
        Shape::Hosts => list(json!({"type": "string", "pattern": "^[^/@, ]+:[0-9]+$"}), 1),
        Shape::PulsarAddress => json!({"type": "string", "pattern": "^pulsar(\\+ssl)?://"}),
        Shape::Patterns => list(
            json!({"type": "string", "pattern": "^[^.]+\\.[^.]+$"}),
            usize::from(key.default == Default::Required),
        ),
        Shape::Size(..) => json!({"type": "string", "pattern": "^[0-9]+ ?(B|[kMGT]B|[KMGT]iB)$"}),
        Shape::Duration(..) => json!({"type": "string", "pattern": "^[0-9]+ ?(ms|s|m|h|d)$"}),
        Shape::Count(least, most) => json!({"type": "integer", "minimum": least, "maximum": most}),
        Shape::Flag => json!({"type": "boolean"}),
        Shape::OneOf(words) => json!({"type": "string", "enum": words}),
    };
    schema["description"] = key.meaning.into();
    if let Default::Value(default) = key.default {
        schema["default"] = match key.shape {
            Shape::Count(..) | Shape::Flag => serde_json::from_str(default).unwrap_or_default(),
            _ => default.into(),
        };
    }
    schema
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_of_a_pipeline_file_is_described() {
        let description = description();
        let definition = &description["components"]["schemas"]["Definition"];
        for key in KEYS {
            let tables = key.table.split('.').filter(|table| !table.is_empty());
            let table = tables.fold(definition, |schema, table| &schema["properties"][table]);
            assert!(table["properties"][key.name]["type"].is_string(), "{}", key.path());
        }
        assert_eq!(definition["required"], json!(["source", "select", "target"]));
    }

    #[test]
    fn every_operation_is_described_with_its_problems() {
        let description = description();
        let operations = description["paths"].as_object().unwrap().values();
        let operations: Vec<&Value> =
            operations.flat_map(|path| path.as_object().unwrap().values()).collect();
        assert_eq!(operations.len(), 8);
        for operation in operations {
            let content = &operation["responses"]["default"]["content"]["application/problem+json"];
            assert!(content.is_object(), "{operation}");
        }
    }
}
