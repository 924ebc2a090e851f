//! What pods and containers are found to be: the answers of Status, List and Stats.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use crate::config::{ContainerConfig, PodConfig, Resources};

/// The state of a pod, as the CRI names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PodState {
    /// Its namespaces are held and its network is up.
    Ready,
    /// Stopped, or lost.
    NotReady,
}

/// The CRI's `PodSandboxStatus`, and what ListPodSandbox shows of it.
#[derive(Debug, Clone)]
pub struct PodStatus {
    /// 64 lower-case hex digits.
    pub id: String,
    /// What it was asked to be.
    pub config: Arc<PodConfig>,
    /// Ready or not.
    pub state: PodState,
    /// Nanoseconds since 1970.
    pub created_at_ns: i64,
    /// Addresses in CNI's order; empty with the node's network.
    pub ips: Vec<IpAddr>,
}

/// What a runtime handler is and can do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HandlerStatus {
    /// The name that a RuntimeClass gives; empty for the default one.
    pub name: String,
    /// The program of another runtime; none for Corten's own.
    pub program: Option<PathBuf>,
    /// Mounts that are read-only with all below them.
    pub recursive_read_only: bool,
    /// Pods with a user namespace of their own.
    pub user_namespaces: bool,
    /// Why its pods are refused, if they are.
    pub problem: Option<String>,
}

/// The state of a container, as the CRI names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ContainerState {
    /// Prepared, not started.
    Created,
    /// Started and not ended.
    Running,
    /// Ended; the exit code is known or 255.
    Exited,
    /// Nobody can say.
    Unknown,
}

/// The CRI's `ContainerStatus`, and what ListContainers shows of it.
#[derive(Debug, Clone)]
pub struct ContainerStatus {
    /// 64 lower-case hex digits.
    pub id: String,
    /// Its pod.
    pub pod_id: String,
    /// What it was asked to be.
    pub config: Arc<ContainerConfig>,
    /// Created, running or exited.
    pub state: ContainerState,
    /// Nanoseconds since 1970.
    pub created_at_ns: i64,
    /// Nanoseconds since 1970; 0 when not started.
    pub started_at_ns: i64,
    /// Nanoseconds since 1970; 0 when not ended.
    pub finished_at_ns: i64,
    /// Exit code, or 128 + signal.
    pub exit_code: i32,
    /// `Completed`, `Error`, `OOMKilled`, `StartError`, `Unknown`; empty while alive.
    pub reason: String,
    /// For people.
    pub message: String,
    /// The image's id: the one that PullImage returned.
    pub image_id: String,
    /// The ids of the images of `config.image_volumes`, in their order.
    pub volume_images: Vec<String>,
    /// Absolute path of the log; none when logs are not wanted.
    pub log_path: Option<PathBuf>,
    /// The limits in force.
    pub resources: Resources,
    /// Who the first process runs as.
    pub user: User,
    /// The signal that StopContainer sends, `SIGTERM`.
    pub stop_signal: String,
}

/// The CRI's `LinuxContainerUser`.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct User {
    /// User id.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
    /// All further groups, the primary one included.
    pub supplemental_groups: Vec<u32>,
}

/// Which pods a list shows; conditions that are given must all hold.
#[derive(Debug, Clone, Default)]
pub struct PodFilter {
    /// An id or its beginning.
    pub id: Option<String>,
    /// The state.
    pub state: Option<PodState>,
    /// Labels that must be there with these values.
    pub labels: BTreeMap<String, String>,
}

/// Which containers a list shows; conditions that are given must all hold.
#[derive(Debug, Clone, Default)]
pub struct ContainerFilter {
    /// An id or its beginning.
    pub id: Option<String>,
    /// The pod's id or its beginning.
    pub pod_id: Option<String>,
    /// The state.
    pub state: Option<ContainerState>,
    /// Labels that must be there with these values.
    pub labels: BTreeMap<String, String>,
}

/// What ExecSync answers.
#[derive(Debug, Clone)]
pub struct ExecOutput {
    /// Standard output, as much as fits the answer.
    pub stdout: Vec<u8>,
    /// Standard error, as much as fits the answer.
    pub stderr: Vec<u8>,
    /// Exit code, or 128 + signal.
    pub exit_code: i32,
}

/// The CRI's `ContainerStats`.
#[derive(Debug, Clone)]
pub struct ContainerStats {
    /// The container.
    pub status: Arc<ContainerStatus>,
    /// When the numbers were read, nanoseconds since 1970.
    pub timestamp_ns: i64,
    /// Processor, memory, swap, pressure; none when it does not run.
    pub usage: Option<runtime::cgroup::Stats>,
    /// Average use of late, over a second at least, billionths of a processor; none at the first reading.
    pub usage_nano_cores: Option<u64>,
    /// The writable layer.
    pub writable_layer: Option<DiskUsage>,
}

/// The CRI's `PodSandboxStats`.
#[derive(Debug, Clone)]
pub struct PodStats {
    /// The pod.
    pub status: Arc<PodStatus>,
    /// When the numbers were read, nanoseconds since 1970.
    pub timestamp_ns: i64,
    /// Of its own cgroup, or the sum of its running containers; none when it is not ready.
    pub usage: Option<runtime::cgroup::Stats>,
    /// Average use of late, billionths of a processor; none at the first reading.
    pub usage_nano_cores: Option<u64>,
    /// Interfaces but for loopback; none with the node's network.
    pub network: Option<Vec<network::InterfaceUsage>>,
    /// Those of its containers that run.
    pub containers: Vec<ContainerStats>,
}

/// Everything that is counted (ListPodSandboxMetrics).
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    /// The file system of the writable layers.
    pub disk: Option<Disk>,
    /// The ready pods.
    pub pods: Vec<PodMetrics>,
}

/// What is counted of a pod.
#[derive(Debug, Clone)]
pub struct PodMetrics {
    /// The pod.
    pub status: Arc<PodStatus>,
    /// When the numbers were read, nanoseconds since 1970.
    pub timestamp_ns: i64,
    /// The cgroup that is the pod's alone; empty when there is none.
    pub cgroup: String,
    /// What that cgroup counts.
    pub details: Option<runtime::cgroup::Details>,
    /// Its I/O by device.
    pub io: Vec<DiskIo>,
    /// Interfaces but for loopback; none with the node's network.
    pub network: Option<Vec<network::InterfaceUsage>>,
    /// Those of its containers that run.
    pub containers: Vec<ContainerMetrics>,
}

/// What is counted of a running container.
#[derive(Debug, Clone)]
pub struct ContainerMetrics {
    /// The container.
    pub status: Arc<ContainerStatus>,
    /// When the numbers were read, nanoseconds since 1970.
    pub timestamp_ns: i64,
    /// Its cgroup.
    pub cgroup: String,
    /// What the cgroup counts.
    pub details: runtime::cgroup::Details,
    /// Its I/O by device.
    pub io: Vec<DiskIo>,
    /// Its processes and what they have open.
    pub processes: runtime::Processes,
    /// The writable layer.
    pub writable_layer: Option<DiskUsage>,
}

/// I/O on one device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskIo {
    /// `/dev/sda`.
    pub name: String,
    /// The device's numbers.
    pub major: u32,
    /// The device's numbers.
    pub minor: u32,
    /// Bytes and numbers of reads and writes.
    pub io: runtime::cgroup::Io,
}

/// A file system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disk {
    /// The device's name.
    pub device: String,
    /// Its size.
    pub bytes: u64,
    /// Its inodes.
    pub inodes: u64,
    /// Those not in use.
    pub free_inodes: u64,
}

/// Space that a directory takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskUsage {
    /// The mount point of its file system.
    pub mountpoint: PathBuf,
    /// When it was measured, nanoseconds since 1970.
    pub timestamp_ns: i64,
    /// Bytes.
    pub used_bytes: u64,
    /// Inodes.
    pub inodes_used: u64,
}
