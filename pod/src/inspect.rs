//! The `info` of verbose status answers: what crictl's inspect commands print.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::error::Result;
use crate::node::{Node, blocking};

impl Node {
    pub(crate) fn inspect_pod(&self, id: &str) -> Result<Value> {
        let pod = self.table.pod(id)?;
        let monitor = pod.monitor();
        Ok(json!({
            "sandboxID": pod.id,
            "pid": monitor.as_ref().map_or(0, runtime::Monitor::pause_pid),
            "monitorPid": monitor.as_ref().map_or(0, runtime::Monitor::pid),
            "phase": pod.phase(),
            "networkNamespace": pod.netns(),
            "ips": pod.ips(),
            "stateDirectory": pod.dir,
            "resources": pod.resources(),
            "config": *pod.config,
        }))
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
                "config": *container.config,
                "runtimeSpec": spec,
            }))
        })
        .await
    }
}
