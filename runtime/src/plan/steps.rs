//! The encoded plan: what the stages read, in the order in which they need it.
//!
//! Paths in the container are relative to its root and have neither `.` nor `..` in them.

use std::ffi::CString;

use serde::{Deserialize, Serialize};

use crate::IdMap;
use crate::capabilities::Set;
use crate::seccomp::Program;

/// The work of a container's init stage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Container {
    pub(crate) namespaces: Namespaces,
    pub(crate) root: Root,
    /// In the order in which they are attached.
    pub(crate) mounts: Vec<Mount>,
    /// Nodes below `/dev`, their paths relative to it.
    pub(crate) devices: Vec<Device>,
    /// Nodes elsewhere in the container.
    pub(crate) far_devices: Vec<Device>,
    pub(crate) masked: Vec<CString>,
    pub(crate) readonly: Vec<CString>,
    /// Paths relative to `/proc/sys`, and the values.
    pub(crate) sysctls: Vec<(CString, CString)>,
    /// Only with a UTS namespace of the container's own.
    pub(crate) hostname: Option<CString>,
    /// Only with a UTS namespace of the container's own.
    pub(crate) domainname: Option<CString>,
    /// The cgroup relative to each hierarchy's mount: what v1 hierarchies show of themselves.
    pub(crate) cgroup: Option<CString>,
    pub(crate) process: Process,
    /// Of the pod's user namespace, if it has one.
    pub(crate) users: Option<IdMap>,
}

/// The work of an exec stage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Exec {
    /// CLONE_NEW* of what the container does not share with the host.
    pub(crate) join: u32,
    pub(crate) process: Process,
    /// Of the pod's user namespace, if it has one.
    pub(crate) users: Option<IdMap>,
}

/// Where the container's namespaces come from; the mount namespace is always a new one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Namespaces {
    /// CLONE_NEW* of network, IPC and UTS that are the container's own.
    pub(crate) unshare: u32,
    /// CLONE_NEW* of user, network, IPC and UTS that are the pod's.
    pub(crate) join: u32,
    /// Whether the container sees its cgroup as the root.
    pub(crate) cgroup: bool,
    pub(crate) pid: Pid,
}

/// The PID namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Pid {
    /// The host's.
    Host,
    /// That of a process whose pidfd the stage gets.
    Joined,
    /// The one that the stage was cloned into.
    New,
}

/// The root file system.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Root {
    pub(crate) layers: CString,
    pub(crate) lowers: Vec<CString>,
    pub(crate) upper: CString,
    pub(crate) work: CString,
    pub(crate) readonly: bool,
    pub(crate) propagation: Option<Propagation>,
    /// SELinux' context of all files in it.
    pub(crate) label: Option<CString>,
}

/// One mount.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Mount {
    pub(crate) target: CString,
    pub(crate) kind: Kind,
    pub(crate) attributes: Attributes,
    /// SELinux' context that the files of a bind or a volume are given, and the top of message queues.
    pub(crate) label: Option<CString>,
}

/// What is mounted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Kind {
    /// A tree of the host; `mapped` shows its files with the pod's ids.
    Bind { source: CString, recursive: bool, mapped: bool },
    /// The cgroups of the container.
    Cgroup,
    /// The tmpfs with the device nodes, filled by the stage.
    Devices { data: Vec<Parameter> },
    /// A file system that the kernel makes.
    Filesystem { name: FilesystemName, data: Vec<Parameter> },
    /// A directory of the host that gets what the image has there, once; always with the pod's ids.
    Volume { source: CString },
}

/// A key of fsconfig(2) with its value, if it takes one.
pub(crate) type Parameter = (CString, Option<CString>);

/// Names of fsopen(2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum FilesystemName {
    Devpts,
    Mqueue,
    Proc,
    Sysfs,
    Tmpfs,
}

/// What mount_setattr(2) is to do to a mount.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Attributes {
    /// MOUNT_ATTR_* for the mount itself.
    pub(crate) own: u64,
    /// MOUNT_ATTR_* for the mount and all below it.
    pub(crate) recursive: u64,
    /// None is private.
    pub(crate) propagation: Option<Propagation>,
}

/// mount_namespaces(7).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Propagation {
    /// MS_PRIVATE, MS_SLAVE, MS_SHARED or MS_UNBINDABLE.
    pub(crate) kind: u64,
    pub(crate) recursive: bool,
}

/// A device node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Device {
    pub(crate) path: CString,
    /// S_IFCHR, S_IFBLK or S_IFIFO.
    pub(crate) format: u32,
    pub(crate) major: u32,
    pub(crate) minor: u32,
    pub(crate) mode: u32,
    /// On the host.
    pub(crate) uid: u32,
    /// On the host.
    pub(crate) gid: u32,
}

/// The process that is executed in the end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Process {
    pub(crate) args: Vec<CString>,
    pub(crate) env: Vec<CString>,
    /// Relative to the root; empty for the root itself.
    pub(crate) cwd: CString,
    pub(crate) umask: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// The primary group is among them.
    pub(crate) groups: Vec<u32>,
    pub(crate) capabilities: Capabilities,
    pub(crate) rlimits: Vec<Rlimit>,
    pub(crate) no_new_privs: bool,
    pub(crate) oom_score_adj: i32,
    pub(crate) terminal: Option<Terminal>,
    pub(crate) labels: Labels,
    pub(crate) filter: Option<Program>,
}

/// What the kernel's security modules are told to confine the process to; none leaves it to them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Labels {
    /// A profile that is loaded.
    pub(crate) apparmor: Option<CString>,
    /// A context, `user:role:type:level`.
    pub(crate) selinux: Option<CString>,
}

/// The five sets of capabilities(7).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Capabilities {
    pub(crate) bounding: Set,
    pub(crate) permitted: Set,
    pub(crate) effective: Set,
    pub(crate) inheritable: Set,
    pub(crate) ambient: Set,
}

/// One limit of setrlimit(2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Rlimit {
    /// RLIMIT_*.
    pub(crate) resource: u8,
    pub(crate) soft: u64,
    pub(crate) hard: u64,
}

/// A terminal; its size is none for the kernel's default.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Terminal {
    pub(crate) size: Option<Size>,
}

/// The size of a terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Size {
    pub(crate) rows: u16,
    pub(crate) columns: u16,
}
