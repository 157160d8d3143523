//! `maintenance`: the log level of the running server. milvus-cdc answers these with a sentence, whatever comes of them.

use serde_json::Value;

use super::decode::plain;
use super::request::Maintenance;
use crate::logging;

/// Does what is asked for, and says what came of it.
pub(super) fn answer(request: &Maintenance) -> String {
    match request.operation.as_str() {
        "set_log_level" => match request.params.get("log_level") {
            None => "log_level is required".to_owned(),
            Some(level) => set_log_level(level),
        },
        // These have milvus-cdc log single messages of the queue.
        "set_force_log_msg" | "reset_log_msg" => {
            format!("unsupported operation: {}, use migrans tail to see messages", request.operation)
        }
        operation => format!("unsupported operation: {operation}"),
    }
}

fn set_log_level(level: &Value) -> String {
    let level = plain(level);
    // The levels of milvus-cdc's logger, which knows them in lower and in upper case. The last three are worse than any
    // line of ours.
    let ours = match level.as_str() {
        "debug" | "DEBUG" => "debug",
        "info" | "INFO" | "" => "info",
        "warn" | "WARN" | "warning" | "WARNING" => "warn",
        "error" | "ERROR" => "error",
        "dpanic" | "DPANIC" | "panic" | "PANIC" | "fatal" | "FATAL" => "off",
        _ => return format!("parse log level failed: unrecognized level: {level:?}"),
    };
    match logging::set_level(ours) {
        Ok(()) => format!("set log level to {level}"),
        Err(error) => format!("set log level failed: {}", error.message()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn said(operation: &str, params: Value) -> String {
        let params = params.as_object().unwrap().clone();
        answer(&Maintenance { operation: operation.to_owned(), params })
    }

    #[test]
    fn what_is_wrong_is_said_in_the_state() {
        assert_eq!(said("dance", json!({})), "unsupported operation: dance");
        assert_eq!(said("", json!({})), "unsupported operation: ");
        assert_eq!(said("set_log_level", json!({})), "log_level is required");
        let said = said("set_log_level", json!({ "log_level": "loud" }));
        assert_eq!(said, "parse log level failed: unrecognized level: \"loud\"");
    }
}
