//! RemovePodSandbox: the whole of the one teardown.

use std::sync::Arc;

use super::{Sandbox, files};
use crate::error::{Error, Result};
use crate::node::{Node, blocking};

impl Node {
    /// Stops the pod if need be and removes all of it. Fine when it is unknown.
    pub(crate) async fn remove_pod(self: &Arc<Self>, id: &str) -> Result<()> {
        let Ok(pod) = self.table.pod(id) else { return Ok(()) };
        let node = self.clone();
        self.removing_pods.run(pod.id.clone(), || async move { node.remove_pod_parts(&pod).await }).await
    }

    /// Idempotent, driven by the record; goes on past failures and returns them all.
    pub(crate) async fn remove_pod_parts(self: &Arc<Self>, pod: &Arc<Sandbox>) -> Result<()> {
        let mut failures = Vec::new();
        self.halt(pod).await.unwrap_or_else(|error| failures.push(error));
        for container in self.table.containers_of(&pod.id) {
            self.remove_container_parts(&container).await.unwrap_or_else(|error| failures.push(error));
        }
        if failures.is_empty() {
            let (node, gone) = (self.clone(), pod.clone());
            let removed = blocking(move || {
                files::remove(&gone.dir)?;
                node.records.remove_pod(&gone.id)
            });
            removed.await.unwrap_or_else(|error| failures.push(error));
        }
        Error::teardown("pod", &pod.id, failures)?;
        self.table.remove_pod(pod);
        pod.tell_deleted();
        self.running_pods.discard(&pod.config.metadata);
        Ok(())
    }
}
