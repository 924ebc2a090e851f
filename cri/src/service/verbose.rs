//! The `info` of verbose answers: a map whose values are JSON, for crictl and people.

use std::collections::BTreeMap;

use pod::Pods;
use pod::config::{ContainerConfig, PodConfig};
use serde_json::{Value, json};

use crate::config::Config;
use crate::convert::shown;
use crate::message;

/// One value under the key that crictl looks for.
pub(super) fn map(info: &Value) -> BTreeMap<String, String> {
    BTreeMap::from([("info".to_owned(), info.to_string())])
}

/// What is known of a pod, and what was asked for.
pub(super) fn pod(mut info: Value, config: &PodConfig) -> BTreeMap<String, String> {
    info["config"] = plain("PodSandboxConfig", &shown::pod(config));
    map(&info)
}

/// What is known of a container, and what was asked for.
pub(super) fn container(mut info: Value, config: &ContainerConfig) -> BTreeMap<String, String> {
    info["config"] = plain("ContainerConfig", &shown::container(config));
    // Bytes on our side of the wire, a text for everybody else.
    let envs = config.envs.iter().map(|(key, value)| json!({ "key": key, "value": value }));
    info["config"]["envs"] = envs.collect();
    map(&info)
}

/// The contract has all these messages; without its descriptors there is nothing to show.
fn plain<M: prost::Message>(name: &str, message: &M) -> Value {
    message::to_plain_json(name, message).unwrap_or_default()
}

/// What the node has, lacks, and is configured to be.
pub(super) fn node(pods: &Pods, config: &Config) -> BTreeMap<String, String> {
    let host = pods.runtime().host();
    // The configuration has paths only, never a secret. A table of it always fits JSON.
    let settings = serde_json::to_value(config).unwrap_or_default();
    let host = json!({ "host": host, "missing": host.missing() });
    let handlers = pods.handlers().into_iter().map(|handler| {
        let about = json!({
            "program": handler.program, "ready": handler.problem.is_none(), "problem": handler.problem,
            "recursive_read_only_mounts": handler.recursive_read_only,
            "user_namespaces": handler.user_namespaces,
        });
        (handler.name, about)
    });
    let handlers: Value = serde_json::Map::from_iter(handlers).into();
    let network = match pods.network().status() {
        Ok(()) => "OK".to_owned(),
        Err(problem) => pod::chain(&problem),
    };
    let network = [("cniconfig", pods.network().show()), ("lastCNILoadStatus", network.into())];
    [("config", settings), ("handlers", handlers), ("host", host)]
        .into_iter()
        .chain(network)
        .map(|(key, value)| (key.to_owned(), value.to_string()))
        .collect()
}
