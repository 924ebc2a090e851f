//! What containers use: processor and memory from their cgroups, disk from their writable layers.
//!
//! The writable layer is walked on a thread of its own and the figure kept, since a walk of a large
//! tree would hold up every list.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use runtime::cgroup;

use crate::container::{Container, parse_cgroup};
use crate::error::{Error, Result};
use crate::node::{Node, blocking, now_ns};
use crate::record::ContainerPhase;
use crate::status::{ContainerFilter, ContainerStats, DiskUsage};

/// How old a measured writable layer may be before it is walked again.
const DISK_AGE: Duration = Duration::from_secs(10);

/// What is kept of a container between two requests.
#[derive(Debug, Default)]
pub(crate) struct Readings {
    last: Mutex<Last>,
}

#[derive(Debug, Default)]
struct Last {
    /// When, and the processor time used until then, nanoseconds.
    cpu: Option<(Instant, u64)>,
    disk: Option<(Instant, DiskUsage)>,
    walking: bool,
    /// The cgroup's files, open while the container runs.
    meter: Option<cgroup::Meter>,
}

impl Node {
    /// One container's figures; also of one that does not run, then without processor and memory.
    pub(crate) async fn container_stats(self: &Arc<Self>, id: &str) -> Result<ContainerStats> {
        let container = self.table.container(id)?;
        let node = self.clone();
        let id = id.to_owned();
        blocking(move || node.read_stats(&container).ok_or_else(|| Error::container_not_found(&id))).await
    }

    /// The figures of those that run and that the filter picks. One that goes away meanwhile is left out.
    pub(crate) async fn list_container_stats(
        self: &Arc<Self>,
        filter: ContainerFilter,
    ) -> Vec<ContainerStats> {
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

    fn read_stats(self: &Arc<Self>, container: &Arc<Container>) -> Option<ContainerStats> {
        let status = container.status()?;
        let usage = match container.phase() {
            ContainerPhase::Running => self.read_cgroup(container).ok(),
            _ => None,
        };
        let usage_nano_cores = usage.as_ref().and_then(|usage| container.readings.rate(usage.cpu_usage_ns));
        Some(ContainerStats {
            status,
            timestamp_ns: now_ns(),
            usage,
            usage_nano_cores,
            writable_layer: self.writable_layer(container),
        })
    }

    fn read_cgroup(&self, container: &Container) -> Result<cgroup::Stats> {
        let mut last = container.readings.lock();
        let meter = match &mut last.meter {
            Some(meter) => meter,
            none => none.insert(self.runtime.cgroups().open(&parse_cgroup(&container.cgroup())?).meter()),
        };
        meter.read().map_err(|source| Error::Cgroup {
            operation: "read",
            id: container.id.clone(),
            source: Arc::new(source),
        })
    }

    /// The last measured figure; measured now when there is none, and anew behind the scenes when it is old.
    fn writable_layer(self: &Arc<Self>, container: &Arc<Container>) -> Option<DiskUsage> {
        let upper = self.container_dir(&container.id).join("upper");
        let mut last = container.readings.lock();
        let Some((measured, usage)) = last.disk.clone() else {
            let usage = measure(&upper, &self.mountpoint)?;
            last.disk = Some((Instant::now(), usage.clone()));
            return Some(usage);
        };
        if measured.elapsed() > DISK_AGE && !last.walking {
            last.walking = true;
            let (container, mountpoint) = (container.clone(), self.mountpoint.clone());
            tokio::task::spawn_blocking(move || {
                let usage = measure(&upper, &mountpoint);
                let mut last = container.readings.lock();
                last.walking = false;
                last.disk = usage.map(|usage| (Instant::now(), usage));
            });
        }
        Some(usage)
    }
}

impl Readings {
    fn lock(&self) -> MutexGuard<'_, Last> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Closes what was open for a container that has ended.
    pub(crate) fn close(&self) {
        self.lock().meter = None;
    }

    /// Billionths of a processor used since the last reading.
    fn rate(&self, used_ns: u64) -> Option<u64> {
        let mut last = self.lock();
        let now = Instant::now();
        let (before, used_before) = last.cpu.replace((now, used_ns))?;
        let elapsed = u64::try_from(now.duration_since(before).as_nanos()).ok()?;
        let used = used_ns.checked_sub(used_before)?;
        u64::try_from(u128::from(used) * 1_000_000_000 / u128::from(elapsed.max(1))).ok()
    }
}

fn measure(upper: &Path, mountpoint: &Path) -> Option<DiskUsage> {
    let (mut used_bytes, mut inodes_used) = (0, 0);
    let mut directories = vec![upper.to_owned()];
    while let Some(directory) = directories.pop() {
        // A directory may go away while it is walked.
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            let Ok(metadata) = entry.metadata() else { continue };
            used_bytes += metadata.blocks() * 512;
            inodes_used += 1;
            if metadata.is_dir() {
                directories.push(entry.path());
            }
        }
    }
    upper.symlink_metadata().ok()?;
    Some(DiskUsage {
        mountpoint: mountpoint.to_owned(),
        timestamp_ns: now_ns(),
        used_bytes,
        inodes_used: inodes_used + 1,
    })
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
    fn a_tree_is_counted_with_its_root() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("a")).unwrap();
        fs::write(dir.path().join("a/file"), vec![1; 10_000]).unwrap();
        let usage = measure(dir.path(), Path::new("/")).unwrap();
        assert_eq!(usage.inodes_used, 3);
        assert!(usage.used_bytes >= 10_000, "{usage:?}");
        assert_eq!(measure(&dir.path().join("none"), Path::new("/")), None);
    }

    #[test]
    fn the_rate_needs_two_readings() {
        let readings = Readings::default();
        assert_eq!(readings.rate(5), None);
        assert!(readings.rate(1_000_005).is_some());
        assert_eq!(readings.rate(3), None, "the counter began anew");
    }

    #[test]
    fn proc_is_a_mount_point() {
        assert_eq!(mountpoint(Path::new("/proc/sys/kernel")).unwrap(), Path::new("/proc"));
    }
}
