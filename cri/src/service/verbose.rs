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
    BTreeMap::from([("config".to_owned(), settings.to_string()), ("host".to_owned(), host.to_string())])
}
