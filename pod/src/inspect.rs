//! The `info` of verbose status answers: what crictl's inspect commands print.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::config::{PidMode, PodOrNode};
use crate::error::Result;
use crate::node::{Node, blocking, exists};
use crate::sandbox::Sandbox;
use crate::spec::enclosure;

impl Node {
    pub(crate) async fn inspect_pod(self: &Arc<Self>, id: &str) -> Result<Value> {
        let (node, pod) = (self.clone(), self.table.pod(id)?);
        blocking(move || {
            let monitor = pod.monitor();
            Ok(json!({
                "sandboxID": pod.id,
                "pid": monitor.as_ref().map_or(0, runtime::Monitor::pause_pid),
                "monitorPid": monitor.as_ref().map_or(0, runtime::Monitor::pid),
                "phase": pod.phase(),
                "processStatus": if monitor.is_some() { "running" } else { "deleted" },
                "networkNamespace": pod.netns(),
                "netNamespaceClosed": pod.netns().is_some_and(|path| !exists(&path)),
                "ips": pod.ips(),
                "cniResult": node.network.show_result(&pod.id),
                "stateDirectory": pod.dir,
                "resources": pod.resources(),
                "runtimeHandler": pod.config.handler,
                "runtimeSpec": pause_spec(&pod),
            }))
        })
        .await
    }

    pub(crate) async fn inspect_container(self: &Arc<Self>, id: &str) -> Result<Value> {
        let container = self.table.container(id)?;
        let node = self.clone();
        blocking(move || {
            let spec = node.records.load_spec(&container.pod.id, &container.id)?;
            Ok(json!({
                "sandboxID": container.pod.id,
                "pid": if container.has_ended() { 0 } else { container.pid() },
                "cgroup": container.cgroup(),
                "writableLayer": node.container_dir(&container.id).join("upper"),
                "privileged": container.config.security.privileged,
                "runtimeSpec": spec,
            }))
        })
        .await
    }
}

/// Pause is made from no bundle, or from another one within a sandbox. What people look for in its spec is true of it
/// all the same: the namespaces and where they are, the host's name and the kernel's parameters.
fn pause_spec(pod: &Sandbox) -> Value {
    let config = &pod.config;
    let pid = pod.monitor().map(|monitor| monitor.pause_pid());
    let place = |name: &str| pid.map(|pid| format!("/proc/{pid}/ns/{name}"));
    let namespace = |kind: &str, path: Option<String>| json!({ "type": kind, "path": path });
    let shared = &config.security.namespaces;
    let mut namespaces = vec![namespace("mount", place("mnt"))];
    if shared.pid == PidMode::Pod {
        namespaces.push(namespace("pid", place("pid")));
    }
    if shared.ipc == PodOrNode::Pod {
        namespaces.push(namespace("ipc", place("ipc")));
    }
    if let Some(path) = pod.netns() {
        namespaces.push(namespace("network", Some(path.display().to_string())));
        namespaces.push(namespace("uts", place("uts")));
    }
    if shared.users.is_some() {
        namespaces.push(namespace("user", place("user")));
    }
    json!({
        "ociVersion": "1.0.2",
        "process": { "args": ["/pause"], "cwd": "/" },
        "hostname": config.hostname,
        "annotations": enclosure::annotations(&pod.id, config),
        "linux": { "namespaces": namespaces, "sysctl": config.sysctls },
    })
}
