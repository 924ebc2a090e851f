//! The `info` of verbose answers: a map whose values are JSON, for crictl and people.

use std::collections::BTreeMap;

use pod::Pods;
use serde_json::{Value, json};

use crate::config::Config;

/// One value under the key that crictl looks for.
pub(super) fn map(info: &Value) -> BTreeMap<String, String> {
    BTreeMap::from([("info".to_owned(), info.to_string())])
}

/// What the node has, lacks, and is configured to be.
pub(super) fn node(pods: &Pods, config: &Config) -> BTreeMap<String, String> {
    let host = pods.runtime().host();
    // The configuration has paths only, never a secret. A table of it always fits JSON.
    let mut settings = serde_json::to_value(config).unwrap_or_default();
    settings["rootDir"] = json!(config.root);
    settings["stateDir"] = json!(config.state);
    let host = json!({ "host": host, "missing": host.missing() });
    let handlers = pods.handlers().into_iter().map(|handler| {
        let about = json!({ "program": handler.program, "ready": handler.problem.is_none(), "problem": handler.problem });
        (handler.name, about)
    });
    let handlers: Value = serde_json::Map::from_iter(handlers).into();
    [("config", settings), ("handlers", handlers), ("host", host)]
        .into_iter()
        .map(|(key, value)| (key.to_owned(), value.to_string()))
        .collect()
}
