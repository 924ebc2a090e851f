//! Pod and container configurations from files, as crictl reads them.

use std::path::Path;

use anyhow::ensure;

use crate::message;
use crate::wire::cri::{ContainerConfig, PodSandboxConfig};

/// Reads a pod's configuration.
pub(crate) fn pod(path: &Path) -> anyhow::Result<PodSandboxConfig> {
    let config: PodSandboxConfig = message::from_file("PodSandboxConfig", path)?;
    let metadata = config.metadata.as_ref();
    ensure!(
        metadata.is_some_and(|metadata| !metadata.name.is_empty()),
        "{}: metadata.name is missing",
        path.display()
    );
    Ok(config)
}

/// Reads a container's configuration.
pub(crate) fn container(path: &Path) -> anyhow::Result<ContainerConfig> {
    let config: ContainerConfig = message::from_file("ContainerConfig", path)?;
    let metadata = config.metadata.as_ref();
    ensure!(
        metadata.is_some_and(|metadata| !metadata.name.is_empty()),
        "{}: metadata.name is missing",
        path.display()
    );
    Ok(config)
}
