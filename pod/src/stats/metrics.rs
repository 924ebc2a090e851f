//! All that is counted of pods and containers, for ListPodSandboxMetrics: more, and slower, than the statistics.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use runtime::Processes;
use runtime::cgroup::{CgroupPath, Details, DeviceIo};
use rustix::fs::{major, minor};

use super::pods::Crowd;
use crate::container::{Container, parse_cgroup};
use crate::node::{Node, blocking, now_ns};
use crate::sandbox::Sandbox;
use crate::status::{ContainerMetrics, Disk, DiskIo, Metrics, PodMetrics};

/// Devices' names by their numbers, each looked up once for a collection.
#[derive(Debug, Default)]
struct DeviceNames(HashMap<(u32, u32), String>);

impl Node {
    /// Everything that is counted of the ready pods and their running containers.
    pub(crate) async fn list_metrics(self: &Arc<Self>) -> Metrics {
        self.walker.ask();
        let node = self.clone();
        let read = move || {
            let mut names = DeviceNames::default();
            let mut crowd = node.crowd();
            let pods: Vec<_> = node.ready_pods().collect();
            let mut interfaces = node.interfaces(&pods);
            let measured = pods.iter().filter_map(|pod| {
                let mut metrics = node.pod_metrics(pod, &mut crowd, &mut names)?;
                metrics.network = interfaces.remove(&pod.id);
                Some(metrics)
            });
            let pods = measured.collect();
            Ok(Metrics { disk: disk(&node.config.data, &mut names), pods })
        };
        // Nothing in it fails; a panic shows as an empty list.
        blocking(read).await.unwrap_or_default()
    }

    fn pod_metrics(&self, pod: &Sandbox, crowd: &mut Crowd, names: &mut DeviceNames) -> Option<PodMetrics> {
        let status = pod.status()?;
        let timestamp_ns = now_ns();
        let own_cgroup = crowd.own_cgroup(pod).and_then(|parent| self.pod_cgroup(parent).ok());
        let details = own_cgroup.as_ref().and_then(|path| self.details(path));
        let running = crowd.containers_of(pod);
        Some(PodMetrics {
            status,
            timestamp_ns,
            cgroup: own_cgroup.map(String::from).unwrap_or_default(),
            io: details.as_ref().map(|details| names.resolve(&details.devices)).unwrap_or_default(),
            details,
            network: None,
            containers: running
                .iter()
                .filter_map(|container| self.container_metrics(container, names))
                .collect(),
        })
    }

    fn container_metrics(&self, container: &Container, names: &mut DeviceNames) -> Option<ContainerMetrics> {
        let status = container.status()?;
        let path = parse_cgroup(&container.cgroup()).ok()?;
        let details = self.details(&path)?;
        let cgroup = self.runtime.cgroups().open(&path);
        Some(ContainerMetrics {
            status,
            timestamp_ns: now_ns(),
            cgroup: path.into(),
            io: names.resolve(&details.devices),
            details,
            processes: Processes::look(&cgroup.processes().unwrap_or_default()),
            writable_layer: container.layer.usage(),
        })
    }

    /// None when the cgroup is gone.
    fn details(&self, path: &CgroupPath) -> Option<Details> {
        self.runtime.cgroups().open(path).details().ok()
    }
}

impl DeviceNames {
    fn resolve(&mut self, devices: &[DeviceIo]) -> Vec<DiskIo> {
        let named = |device: &DeviceIo| DiskIo {
            name: self.name((device.major, device.minor)),
            major: device.major,
            minor: device.minor,
            io: device.io,
        };
        devices.iter().map(named).collect()
    }

    /// `/dev/sda`; the numbers for what has no name, as file systems without a disk have none.
    fn name(&mut self, numbers: (u32, u32)) -> String {
        let look_up = || {
            let numbers = format!("{}:{}", numbers.0, numbers.1);
            let link = fs::read_link(Path::new("/sys/dev/block").join(&numbers)).ok();
            let name = link.as_deref().and_then(Path::file_name).and_then(|name| name.to_str());
            name.map_or(numbers, |name| format!("/dev/{name}"))
        };
        self.0.entry(numbers).or_insert_with(look_up).clone()
    }
}

/// The file system of the writable layers.
fn disk(data: &Path, names: &mut DeviceNames) -> Option<Disk> {
    let device = data.metadata().ok()?.dev();
    let found = rustix::fs::statvfs(data).ok()?;
    Some(Disk {
        device: names.name((major(device), minor(device))),
        bytes: found.f_blocks.saturating_mul(found.f_frsize),
        inodes: found.f_files,
        free_inodes: found.f_ffree,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_system_has_a_size_and_a_name() {
        let dir = tempfile::tempdir().unwrap();
        let disk = disk(dir.path(), &mut DeviceNames::default()).unwrap();
        assert!(disk.bytes > 0);
        assert!(!disk.device.is_empty());
    }

    #[test]
    fn a_device_without_a_name_has_its_numbers() {
        assert_eq!(DeviceNames::default().name((0, 4_000_000)), "0:4000000");
    }
}
