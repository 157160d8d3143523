//! Definitions as they may be shown.

use serde_json::{Map, Value};

use super::env;
use super::keys::{KEYS, Shape, TABLES, is_secret_entry};

/// What stands in the place of a secret.
pub const MASK: &str = "(secret)";

/// `definition`, which is that of a pipeline file as JSON, without the secrets in it. A value that only says from which
/// variable a secret is taken stays.
pub fn masked(definition: &Value) -> Value {
    let mut masked = definition.clone();
    if let Value::Object(top) = &mut masked {
        mask(top, "");
    }
    masked
}

fn mask(entries: &mut Map<String, Value>, path: &str) {
    for (name, value) in entries {
        let below = super::keys::below(path, name);
        if let Value::Object(inner) = value {
            mask(inner, &below);
            continue;
        }
        let is_key =
            KEYS.iter().any(|key| key.shape == Shape::Secret && key.table == path && key.name == name);
        let table = TABLES.iter().find(|table| table.path == path);
        let is_entry = table.is_some_and(|table| is_secret_entry(table, name));
        let is_shown = value.as_str().is_some_and(env::is_reference);
        if (is_key || is_entry) && !is_shown {
            *value = MASK.into();
        }
    }
}

/// The first key of `definition` whose value is the mask of a secret: somebody sends back what was shown.
pub fn find_mask(definition: &Value) -> Option<String> {
    fn find(value: &Value, path: &str) -> Option<String> {
        match value {
            Value::String(text) if text == MASK => Some(path.to_owned()),
            Value::Object(entries) => {
                entries.iter().find_map(|(name, value)| find(value, &super::keys::below(path, name)))
            }
            _ => None,
        }
    }
    find(definition, "")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_secret_key_is_masked_and_nothing_else() {
        for key in KEYS {
            let leaf = json!({key.name: "hush"});
            let tables = key.table.split('.').filter(|table| !table.is_empty()).rev();
            let whole = tables.fold(leaf, |inner, table| json!({table: inner}));
            let text = masked(&whole).to_string();
            assert_eq!(text.contains("hush"), key.shape != Shape::Secret, "{text}");
            assert_eq!(find_mask(&masked(&whole)).is_some(), key.shape == Shape::Secret);
        }
    }

    #[test]
    fn options_that_hold_secrets_are_masked_and_references_stay() {
        let definition = json!({
            "source": {"mq": {"password": "${KAFKA}", "options": {
                "ssl.key.password": "hush", "ssl.key.pem": "hush", "sasl.oauthbearer.config": "hush",
                "client.id": "me",
            }}},
            "target": {"token": "${TOKEN:-hush}", "uri": "http://t:1"},
        });
        let text = masked(&definition).to_string();
        assert!(!text.contains("hush"), "{text}");
        assert!(
            text.contains("${KAFKA}") && text.contains("\"me\"") && text.contains("http://t:1"),
            "{text}"
        );
    }

    #[test]
    fn what_is_no_object_is_not_touched() {
        assert_eq!(masked(&json!([1])), json!([1]));
        assert_eq!(masked(&json!({"target": 5})), json!({"target": 5}));
        assert_eq!(masked(&json!({"target": {"token": ["hush"]}})), json!({"target": {"token": MASK}}));
    }
}
