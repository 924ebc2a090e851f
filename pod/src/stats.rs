//! What containers and pods use: processor, memory, pressure and processes from their cgroups, the network from
//! the pods' namespaces, disk from the writable layers (`disk`).

pub(crate) mod disk;
mod metrics;
mod pods;
mod readings;

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub(crate) use self::readings::{Meters, Readings};

use crate::container::{Container, parse_cgroup};
use crate::error::{Error, Result};
use crate::node::{Node, blocking, now_ns};
use crate::record::ContainerPhase;
use crate::status::{ContainerFilter, ContainerStats, DiskUsage};

impl Node {
    /// One container's figures; also of one that does not run, then without processor and memory.
    pub(crate) async fn container_stats(self: &Arc<Self>, id: &str) -> Result<ContainerStats> {
        let container = self.table.container(id)?;
        self.walker.ask();
        let node = self.clone();
        let id = id.to_owned();
        blocking(move || node.read_stats(&container).ok_or_else(|| Error::container_not_found(&id))).await
    }

    /// The figures of those that run and that the filter picks. One that goes away meanwhile is left out.
    pub(crate) async fn list_container_stats(
        self: &Arc<Self>,
        filter: ContainerFilter,
    ) -> Vec<ContainerStats> {
        self.walker.ask();
        let node = self.clone();
        let read = move || {
            let all = node.table.containers().into_iter();
            let picked = all.filter(|container| {
                container.phase() == ContainerPhase::Running
                    && container.status().is_some_and(|status| filter.matches(&status))
            });
            Ok(picked.filter_map(|container| node.read_stats(&container)).collect())
        };
        // Nothing in it fails; a panic shows as an empty list.
        blocking(read).await.unwrap_or_default()
    }

    /// What all writable layers take, by their last figures. Where they share the file system of `images`, that is the
    /// name of it, since the kubelet takes two names for two file systems.
    pub(crate) fn writable_layers(&self, images: &Path) -> DiskUsage {
        self.walker.ask();
        let device = |path: &Path| path.metadata().map(|metadata| metadata.dev()).ok();
        let is_same = device(images).is_some_and(|device_of| device(&self.mountpoint) == Some(device_of));
        let mountpoint = if is_same { images.to_owned() } else { self.mountpoint.clone() };
        let none = DiskUsage { mountpoint, timestamp_ns: now_ns(), used_bytes: 0, inodes_used: 0 };
        let layers = self.table.containers().into_iter().filter_map(|container| container.layer.usage());
        layers.fold(none, |sum, layer| DiskUsage {
            used_bytes: sum.used_bytes.saturating_add(layer.used_bytes),
            inodes_used: sum.inodes_used.saturating_add(layer.inodes_used),
            ..sum
        })
    }

    fn read_stats(&self, container: &Container) -> Option<ContainerStats> {
        let status = container.status()?;
        let reading = match container.phase() {
            ContainerPhase::Running => {
                let open = || Some(self.runtime.cgroups().open(&parse_cgroup(&container.cgroup()).ok()?));
                container.readings.read(&self.meters, open)
            }
            _ => None,
        };
        let (usage, usage_nano_cores) = reading.map_or((None, None), |(usage, rate)| (Some(usage), rate));
        Some(ContainerStats {
            status,
            timestamp_ns: now_ns(),
            usage,
            usage_nano_cores,
            writable_layer: container.layer.usage(),
        })
    }
}

/// The directory where the file system of `path` is mounted.
pub(crate) fn mountpoint(path: &Path) -> Result<PathBuf> {
    let device =
        |path: &Path| path.metadata().map(|metadata| metadata.dev()).map_err(Error::file("look at", path));
    let wanted = device(path)?;
    let mut top = path;
    while let Some(parent) = top.parent() {
        if device(parent)? != wanted {
            break;
        }
        top = parent;
    }
    Ok(top.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proc_is_a_mount_point() {
        assert_eq!(mountpoint(Path::new("/proc/sys/kernel")).unwrap(), Path::new("/proc"));
    }
}
