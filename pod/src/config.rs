//! What a pod and a container are asked to be: the domain form of the CRI's configurations.
//!
//! The values here are already valid (parse, don't validate): the `cri` crate refuses what the
//! contract forbids before one of these exists. They are kept in the durable records, so a field is
//! added with `#[serde(default)]` and never changes its meaning.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

pub use runtime::IdMap;
use serde::{Deserialize, Serialize};

/// The CRI's `PodSandboxConfig`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodConfig {
    /// Who the pod is; unique among living pods.
    pub metadata: PodMetadata,
    /// Host name of the pod; empty only with the node's network.
    pub hostname: String,
    /// Absolute directory that container log paths are relative to; none when logs are not wanted.
    pub log_directory: Option<PathBuf>,
    /// Contents for `/etc/resolv.conf`; none copies the host's file.
    pub dns: Option<Dns>,
    /// Ports of the host that lead to the pod.
    pub port_mappings: Vec<PortMapping>,
    /// Returned verbatim; filters select by them.
    pub labels: BTreeMap<String, String>,
    /// Returned verbatim; never interpreted, but for the CNI bandwidth annotations.
    pub annotations: BTreeMap<String, String>,
    /// The cgroup that the pod's containers go below, as the kubelet writes it; none for Corten's own.
    pub cgroup_parent: Option<String>,
    /// Kernel parameters of the pod's own namespaces, dotted names.
    pub sysctls: BTreeMap<String, String>,
    /// Namespaces and identity of the pod.
    pub security: SecurityContext,
    /// What the RuntimeClass adds for the sandbox itself.
    pub overhead: Resources,
    /// The sum of the containers' resources.
    pub resources: Resources,
    /// The RuntimeClass handler; empty for the default one.
    pub handler: String,
}

/// The CRI's `PodSandboxMetadata`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PodMetadata {
    /// Name of the pod.
    pub name: String,
    /// Kubernetes' uid of the pod.
    pub uid: String,
    /// Kubernetes namespace.
    pub namespace: String,
    /// How often the sandbox was made anew.
    pub attempt: u32,
}

/// Contents of `/etc/resolv.conf`, see resolv.conf(5).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dns {
    /// `nameserver` lines.
    pub servers: Vec<String>,
    /// The `search` line.
    pub searches: Vec<String>,
    /// The `options` line.
    pub options: Vec<String>,
}

/// One port of the host that leads to one of the pod.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortMapping {
    /// Transport protocol.
    pub protocol: Protocol,
    /// Port in the pod.
    pub container_port: u16,
    /// Port on the host; never 0 here, mappings without one ask for nothing.
    pub host_port: u16,
    /// Address of the host to listen on; none for all.
    pub host_ip: Option<IpAddr>,
}

/// Transport protocols of a port mapping.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// RFC 9260.
    Sctp,
    /// RFC 9293.
    Tcp,
    /// RFC 768.
    Udp,
}

/// The CRI's `ContainerConfig`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerConfig {
    /// Who the container is; unique in its pod.
    pub metadata: ContainerMetadata,
    /// The image to run, as PullImage returned it.
    pub image: String,
    /// What the user wrote in the pod's manifest, reported back.
    pub user_specified_image: String,
    /// Replaces the image's entry point when not empty.
    pub command: Vec<String>,
    /// Replaces the image's command when not empty.
    pub args: Vec<String>,
    /// Replaces the image's working directory when given.
    pub working_dir: Option<String>,
    /// Added to the image's environment, later ones win.
    pub envs: Vec<(String, String)>,
    /// Binds from the host.
    pub mounts: Vec<Mount>,
    /// Images that the container reads as directories.
    #[serde(default)]
    pub image_volumes: Vec<ImageVolume>,
    /// Device nodes of the host.
    pub devices: Vec<Device>,
    /// Returned verbatim; filters select by them.
    pub labels: BTreeMap<String, String>,
    /// Returned verbatim; never interpreted.
    pub annotations: BTreeMap<String, String>,
    /// Log file relative to the pod's log directory; none when logs are not wanted.
    pub log_path: Option<PathBuf>,
    /// Whether standard input stays open for attached clients.
    pub stdin: bool,
    /// Whether standard input closes when the first attached client leaves.
    pub stdin_once: bool,
    /// Whether the process gets a terminal.
    pub tty: bool,
    /// Limits.
    pub resources: Resources,
    /// Identity, namespaces and confinement.
    pub security: SecurityContext,
    /// The signal that asks the process to end; none for the image's, then SIGTERM.
    pub stop_signal: Option<String>,
}

/// The CRI's `ContainerMetadata`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ContainerMetadata {
    /// Name of the container in its pod.
    pub name: String,
    /// How often the container was made anew.
    pub attempt: u32,
}

/// A bind from the host into the container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// Absolute path in the container.
    pub container_path: PathBuf,
    /// Absolute path on the host.
    pub host_path: PathBuf,
    /// Writable, read-only, or read-only with everything below.
    pub access: MountAccess,
    /// How mounts made later travel between host and container.
    pub propagation: Propagation,
    /// Whether the source is relabelled for SELinux.
    pub selinux_relabel: bool,
    /// The ids that its files have in the container; none for those that they have on the node.
    #[serde(default)]
    pub users: Option<IdMap>,
}

/// An image, or a part of one, mounted into the container, always read-only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageVolume {
    /// Absolute path in the container.
    pub container_path: PathBuf,
    /// The image, as PullImage returned it.
    pub image: String,
    /// What the user wrote in the pod's manifest, reported back.
    pub user_specified_image: String,
    /// A directory or file of the image, relative to its root; empty for all of it.
    pub sub_path: PathBuf,
    /// Whether it is relabelled for SELinux.
    pub selinux_relabel: bool,
    /// The ids that the request wants; in a pod with a user namespace it has the pod's in any case.
    #[serde(default)]
    pub users: Option<IdMap>,
}

/// How a mount may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum MountAccess {
    /// Reads and writes.
    Writable,
    /// The mount itself is read-only.
    ReadOnly,
    /// The mount and every mount below it are read-only (mount_setattr(2) with AT_RECURSIVE).
    RecursiveReadOnly,
}

/// mount_namespaces(7).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Propagation {
    /// `rshared`: both ways.
    Bidirectional,
    /// `rslave`: from the host into the container.
    HostToContainer,
    /// `rprivate`: neither way.
    Private,
}

/// A device node of the host, given to the container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// Absolute path in the container.
    pub container_path: PathBuf,
    /// Absolute path on the host; a directory stands for all devices below it.
    pub host_path: PathBuf,
    /// Letters out of `rwm`, see the devices cgroup.
    pub permissions: String,
}

/// The CRI's `LinuxContainerResources`: what is none is left to the kernel's default.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resources {
    /// Microseconds.
    pub cpu_period: Option<u64>,
    /// Microseconds a period; negative for no limit.
    pub cpu_quota: Option<i64>,
    /// Relative weight, 2 to 262144.
    pub cpu_shares: Option<u64>,
    /// Bytes.
    pub memory_limit_bytes: Option<i64>,
    /// Bytes of memory and swap together.
    pub memory_swap_limit_bytes: Option<i64>,
    /// -1000 to 1000, see proc_pid_oom_score_adj(5).
    pub oom_score_adj: i32,
    /// Processors, in the list form of cpuset(7).
    pub cpuset_cpus: Option<String>,
    /// Memory nodes, in the list form of cpuset(7).
    pub cpuset_mems: Option<String>,
    /// Page size as the kernel writes it (`2MB`) and bytes.
    pub hugepage_limits: Vec<(String, u64)>,
    /// Files of cgroup v2 and their contents.
    pub unified: BTreeMap<String, String>,
}

impl Resources {
    /// Who limits memory and says nothing of swap means no swap: what both peers do. A word on swap that stands, in
    /// what was in force `before` or as a file of cgroup v2, is left alone.
    pub(crate) fn take_swap_for_none(&mut self, before: &Self) {
        let unsaid = self.memory_swap_limit_bytes.is_none() && !self.unified.contains_key("memory.swap.max");
        if unsaid && before.memory_swap_limit_bytes == before.memory_limit_bytes {
            self.memory_swap_limit_bytes = self.memory_limit_bytes;
        }
    }
}

/// What a pod has beside and in its containers, for those who look: the kubelet itself sets the pod's cgroup.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodResources {
    /// What the RuntimeClass adds for the sandbox itself.
    pub overhead: Resources,
    /// The sum of the containers' resources.
    pub resources: Resources,
}

/// The CRI's `LinuxSandboxSecurityContext` and `LinuxContainerSecurityContext`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecurityContext {
    /// Whose namespaces are used.
    pub namespaces: Namespaces,
    /// The user as a number or a name; none for the image's.
    pub run_as: Option<RunAs>,
    /// The primary group; only with `run_as`.
    pub run_as_group: Option<u32>,
    /// Groups besides the primary one.
    pub supplemental_groups: Vec<u32>,
    /// Whether the image's own group memberships count.
    pub supplemental_groups_policy: SupplementalGroupsPolicy,
    /// Whether the root file system is read-only.
    pub readonly_rootfs: bool,
    /// Everything the daemon itself may do.
    pub privileged: bool,
    /// prctl(2) PR_SET_NO_NEW_PRIVS.
    pub no_new_privs: bool,
    /// Capabilities added to or taken from the default set.
    pub capabilities: Capabilities,
    /// The system calls allowed.
    pub seccomp: Profile,
    /// The AppArmor profile; none for what is usual on this node.
    pub apparmor: Option<Profile>,
    /// SELinux options; ignored where SELinux is off.
    pub selinux: Option<SelinuxOptions>,
    /// Paths hidden from the container.
    pub masked_paths: Vec<PathBuf>,
    /// Paths that the container can only read.
    pub readonly_paths: Vec<PathBuf>,
}

/// The CRI's `NamespaceOption`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Namespaces {
    /// network_namespaces(7): the pod's or the node's.
    pub network: PodOrNode,
    /// pid_namespaces(7).
    pub pid: PidMode,
    /// ipc_namespaces(7): the pod's or the node's.
    pub ipc: PodOrNode,
    /// user_namespaces(7): the ids of the pod's own; none with the node's.
    #[serde(default)]
    pub users: Option<IdMap>,
}

/// Whose namespace it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum PodOrNode {
    /// The host's.
    Node,
    /// One of the pod's own, shared by its containers.
    Pod,
}

/// Whose PID namespace it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum PidMode {
    /// One of the container's own.
    Container,
    /// The host's.
    Node,
    /// The pod's, with pause as PID 1.
    Pod,
    /// That of another container of the pod, by id.
    Target(String),
}

/// Who the container runs as.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum RunAs {
    /// A number.
    Uid(u32),
    /// A name in the image's `/etc/passwd`.
    Name(String),
}

/// KEP-3619.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum SupplementalGroupsPolicy {
    /// The groups that the image's `/etc/group` lists for the user count too.
    Merge,
    /// Only the groups that the request names.
    Strict,
}

/// Changes to the default set, names with or without `CAP_`, or `ALL`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capabilities {
    /// Added to permitted, effective and bounding.
    pub add: Vec<String>,
    /// Taken away; applied after `add`, but `ALL` here clears the default set first.
    pub drop: Vec<String>,
    /// Added to inheritable and ambient too.
    pub add_ambient: Vec<String>,
}

/// The CRI's `SecurityProfile`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Profile {
    /// The runtime's own profile.
    RuntimeDefault,
    /// One that is on the node: a file (seccomp) or a loaded name (AppArmor).
    Localhost(String),
    /// No confinement.
    #[default]
    Unconfined,
}

/// The CRI's `SELinuxOption`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SelinuxOptions {
    /// SELinux user.
    pub user: String,
    /// SELinux role.
    pub role: String,
    /// SELinux type.
    pub kind: String,
    /// MLS or MCS level.
    pub level: String,
}
