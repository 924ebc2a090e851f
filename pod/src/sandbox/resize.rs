//! UpdatePodSandboxResources: the kubelet tells of a pod's new size before it sets the pod's cgroup itself.
//!
//! There is nothing to set: the pod's cgroup is the kubelet's, pause has none in there, and the containers' limits come
//! by calls of their own. An error would have the kubelet refuse the new size, so there is one only for a pod that does
//! not exist.

use std::sync::Arc;

use super::Sandbox;
use crate::config::PodResources;
use crate::error::{Result, chain};
use crate::node::{Node, blocking};

impl Node {
    /// Keeps what is said, to be shown.
    pub(crate) async fn resize_pod(self: &Arc<Self>, id: &str, told: PodResources) -> Result<()> {
        let pod = self.table.pod(id)?;
        let (node, resized) = (self.clone(), pod.clone());
        let kept =
            blocking(move || resized.update(&node.records, |record| record.resized = Some(told))).await;
        if let Err(error) = kept {
            tracing::warn!(pod = pod.id, error = chain(&error), "keep the pod's new size");
        }
        Ok(())
    }
}

impl Sandbox {
    /// What the kubelet said last of the pod's resources.
    pub(crate) fn resources(&self) -> PodResources {
        let at_the_start = || PodResources {
            overhead: self.config.overhead.clone(),
            resources: self.config.resources.clone(),
        };
        self.lock().record.resized.clone().unwrap_or_else(at_the_start)
    }
}
