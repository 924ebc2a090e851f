//! The durable records of pods and containers: one JSON file each, replaced by rename.
//!
//! `<data>/pods/<pod>/pod.json` and `<data>/pods/<pod>/<container>.json`; beside a container's lies
//! `<container>.spec`, the OCI spec it was made from, written once. They are written without
//! fsync, since they are only worth something until the node restarts: each carries the boot id
//! (`/proc/sys/kernel/random/boot_id`), and a record of another boot is a dead one.

use std::fs;
use std::io::{self, Write};
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use oci_spec::runtime::Spec;
use runtime::selinux::Labels;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::config::{ContainerConfig, PodConfig, PodResources, Resources};
use crate::error::{Error, Result};
use crate::status::User;

/// What is known of a pod.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct PodRecord {
    pub id: String,
    pub boot_id: String,
    pub config: Arc<PodConfig>,
    pub created_at_ns: i64,
    pub phase: PodPhase,
    /// The pinned network namespace, none with the node's network.
    pub netns: Option<PathBuf>,
    pub ips: Vec<IpAddr>,
    /// What the kubelet said last of the pod's resources; none until it says something else than at the start.
    #[serde(default)]
    pub resized: Option<PodResources>,
    /// The cgroup of its enclosure, where its handler makes such.
    #[serde(default)]
    pub enclosure: Option<String>,
    /// What its containers are labelled with; none where SELinux is off or does not separate them.
    #[serde(default)]
    pub selinux: Option<Labels>,
}

/// How far a pod has come; it only moves down this list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum PodPhase {
    /// RunPodSandbox has not answered: hidden from lists, taken down at the next start.
    Creating,
    /// Its namespaces are held and its network is up.
    Ready,
    /// Its monitor is gone or going; some of it may still have to be released.
    Stopping,
    /// Everything but the records and the containers' files is released.
    Stopped,
}

/// What is known of a container.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ContainerRecord {
    pub id: String,
    pub pod_id: String,
    pub boot_id: String,
    pub config: Arc<ContainerConfig>,
    pub created_at_ns: i64,
    pub started_at_ns: i64,
    pub phase: ContainerPhase,
    /// Its first process in the node's PID namespace, 0 before there is one.
    pub pid: i32,
    pub image_id: String,
    /// The ids of the images of `config.image_volumes`, in their order.
    #[serde(default)]
    pub volume_images: Vec<String>,
    pub user: User,
    pub resources: Resources,
    pub stop_signal: String,
    pub log_path: Option<PathBuf>,
    pub cgroup: String,
}

/// How far a container has come; it only moves down this list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum ContainerPhase {
    /// CreateContainer has not answered: hidden from lists, taken down at the next start.
    Creating,
    /// Its init waits for Start.
    Created,
    /// Its command runs.
    Running,
    /// It ended.
    Exited(Ending),
}

/// How a container ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Ending {
    pub at_ns: i64,
    pub code: i32,
    pub reason: String,
    pub message: String,
}

/// What an earlier daemon left.
#[derive(Debug, Default)]
pub(crate) struct Loaded {
    /// Each pod with its containers.
    pub pods: Vec<(PodRecord, Vec<ContainerRecord>)>,
    /// What could not be read.
    pub unreadable: Vec<Error>,
}

/// The directory of the records.
#[derive(Debug, Clone)]
pub(crate) struct Records {
    root: PathBuf,
}

impl Records {
    /// Opens `<data>/pods`, making it if needed.
    pub(crate) fn open(data: &Path) -> Result<Self> {
        let root = data.join("pods");
        make_private_dir(&root)?;
        Ok(Self { root })
    }

    pub(crate) fn save_pod(&self, record: &PodRecord) -> Result<()> {
        make_private_dir(&self.root.join(&record.id))?;
        save(&self.pod_path(&record.id), record)
    }

    pub(crate) fn save_container(&self, record: &ContainerRecord) -> Result<()> {
        save(&self.container_path(&record.pod_id, &record.id), record)
    }

    /// Keeps the spec as it was given to the runtime, seccomp profile and all.
    pub(crate) fn save_spec(&self, pod_id: &str, id: &str, spec: &Spec) -> Result<()> {
        save(&self.spec_path(pod_id, id), spec)
    }

    pub(crate) fn load_spec(&self, pod_id: &str, id: &str) -> Result<Spec> {
        load(&self.spec_path(pod_id, id))
    }

    pub(crate) fn remove_container(&self, pod_id: &str, id: &str) -> Result<()> {
        absent_is_fine("remove", &self.spec_path(pod_id, id), |path| fs::remove_file(path))?;
        absent_is_fine("remove", &self.container_path(pod_id, id), |path| fs::remove_file(path))
    }

    pub(crate) fn remove_pod(&self, id: &str) -> Result<()> {
        absent_is_fine("remove", &self.root.join(id), |path| fs::remove_dir_all(path))
    }

    pub(crate) fn load_all(&self) -> Result<Loaded> {
        let mut loaded = Loaded::default();
        for pod_dir in entries(&self.root)? {
            // A daemon was killed before it had written a new pod's record, or amid a removed pod's end.
            if let Ok(false) = fs::exists(pod_dir.join("pod.json")) {
                let removed = fs::remove_dir_all(&pod_dir).map_err(Error::file("remove", &pod_dir));
                loaded.unreadable.extend(removed.err());
                continue;
            }
            match load_pod(&pod_dir, &mut loaded.unreadable) {
                Ok(pod) => loaded.pods.push(pod),
                Err(error) => loaded.unreadable.push(error),
            }
        }
        Ok(loaded)
    }

    fn pod_path(&self, id: &str) -> PathBuf {
        self.root.join(id).join("pod.json")
    }

    fn container_path(&self, pod_id: &str, id: &str) -> PathBuf {
        self.root.join(pod_id).join(format!("{id}.json"))
    }

    fn spec_path(&self, pod_id: &str, id: &str) -> PathBuf {
        self.root.join(pod_id).join(format!("{id}.spec"))
    }
}

fn load_pod(dir: &Path, unreadable: &mut Vec<Error>) -> Result<(PodRecord, Vec<ContainerRecord>)> {
    let pod: PodRecord = load(&dir.join("pod.json"))?;
    let mut containers = Vec::new();
    for path in entries(dir)? {
        if path.extension().is_none_or(|extension| extension != "json") || path.ends_with("pod.json") {
            continue;
        }
        match load(&path) {
            Ok(container) => containers.push(container),
            Err(error) => unreadable.push(error),
        }
    }
    Ok((pod, containers))
}

/// What is in a directory.
pub(crate) fn entries(dir: &Path) -> Result<Vec<PathBuf>> {
    let paths = |entries: fs::ReadDir| entries.map(|entry| entry.map(|entry| entry.path())).collect();
    fs::read_dir(dir).and_then(paths).map_err(Error::file("list", dir))
}

fn load<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let bytes = fs::read(path).map_err(Error::file("read", path))?;
    serde_json::from_slice(&bytes)
        .map_err(|source| Error::Record { path: path.to_owned(), source: Arc::new(source) })
}

/// Replaces the file in one step, so that a reader finds the old record or the new one.
fn save<T: Serialize>(path: &Path, record: &T) -> Result<()> {
    let bytes = serde_json::to_vec(record)
        .map_err(|source| Error::Record { path: path.to_owned(), source: Arc::new(source) })?;
    let partial = path.with_extension("new");
    let write = || {
        let mut options = fs::OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        options.open(&partial)?.write_all(&bytes)?;
        fs::rename(&partial, path)
    };
    write().map_err(|error| {
        // Its part of a full disk is of more use to others.
        drop(fs::remove_file(&partial));
        Error::file("write", path)(error)
    })
}

/// Makes a directory that only root can enter, with its parents.
pub(crate) fn make_private_dir(path: &Path) -> Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(Error::file("make directory", path))
}

fn absent_is_fine(
    operation: &'static str,
    path: &Path,
    remove: impl FnOnce(&Path) -> io::Result<()>,
) -> Result<()> {
    match remove(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::file(operation, path)(error)),
        _ => Ok(()),
    }
}

/// The kernel's name for this boot, see random(4).
pub(crate) fn boot_id() -> Result<String> {
    let path = Path::new("/proc/sys/kernel/random/boot_id");
    Ok(fs::read_to_string(path).map_err(Error::file("read", path))?.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_daemon_left_half_written_or_half_removed_is_gone_at_the_next_start() {
        let data = tempfile::tempdir().unwrap();
        let records = Records::open(data.path()).unwrap();
        let pods = data.path().join("pods");
        fs::create_dir(pods.join("made")).unwrap();
        for (id, left) in [("written", "pod.new"), ("removed", "c1.spec")] {
            fs::create_dir(pods.join(id)).unwrap();
            fs::write(pods.join(id).join(left), "{").unwrap();
        }
        // What was whole once and cannot be read is somebody's, and is told.
        fs::create_dir(pods.join("damaged")).unwrap();
        fs::write(pods.join("damaged/pod.json"), "{").unwrap();
        let loaded = records.load_all().unwrap();
        assert!(loaded.pods.is_empty());
        assert_eq!(loaded.unreadable.len(), 1, "{:?}", loaded.unreadable);
        assert_eq!(entries(&pods).unwrap(), [pods.join("damaged")]);
    }
}
