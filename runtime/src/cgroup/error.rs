//! What can go wrong with a control group.

use std::io;
use std::path::PathBuf;

use super::CgroupPath;

/// An operation on a control group that could not be done.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Processes are still in the cgroup.
    #[error("remove cgroup {path}: processes are still in it")]
    Busy {
        /// The cgroup.
        path: CgroupPath,
    },
    /// The device program could not be loaded or attached.
    #[error("set the device rules of cgroup {path}: {operation}")]
    Devices {
        /// The cgroup.
        path: CgroupPath,
        /// What was tried.
        operation: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The path is already taken by another cgroup.
    #[error("create cgroup {path}: it exists")]
    Exists {
        /// The cgroup.
        path: CgroupPath,
    },
    /// A file or directory of cgroupfs could not be used.
    #[error("{operation} {}", path.display())]
    Io {
        /// `open`, `read`, `write "VALUE" to`, `mkdir`, ...
        operation: String,
        /// The file.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A limit that makes no sense.
    #[error("{limit} {value:?} is not valid: {reason}")]
    InvalidLimit {
        /// The limit, as the OCI spec names it.
        limit: String,
        /// What was asked for.
        value: String,
        /// Why not.
        reason: &'static str,
    },
    /// A path that names no cgroup.
    #[error("cgroup path {path:?} is not valid: {reason}")]
    InvalidPath {
        /// What was asked for.
        path: String,
        /// Why not.
        reason: &'static str,
    },
    /// The new memory limit is below what is in use.
    #[error("set memory limit of {limit} bytes: {usage} bytes are in use, stop or shrink the workload first")]
    MemoryInUse {
        /// What was asked for.
        limit: u64,
        /// What is used.
        usage: u64,
    },
    /// A limit needs a controller that the cgroup does not have.
    #[error("set {limit} of cgroup {path}: the {controller} controller is not available there")]
    NoController {
        /// The cgroup.
        path: CgroupPath,
        /// The controller.
        controller: String,
        /// The limit, as the OCI spec names it.
        limit: String,
    },
    /// No control group file system is mounted.
    #[error("find control groups: no cgroup file system is mounted, mount cgroup2 at /sys/fs/cgroup")]
    NoHierarchy,
    /// The host's service manager is another one, or does not own a v2 hierarchy.
    #[error(
        "use systemd for cgroups: it is not this host's service manager, or cgroup v2 is not alone; set driver = \
         \"cgroupfs\" under [cgroup]"
    )]
    NoSystemd,
    /// The cgroup does not exist.
    #[error("cgroup {path} does not exist")]
    NotFound {
        /// The cgroup.
        path: CgroupPath,
    },
    /// The processes did not stand still in time.
    #[error("freeze cgroup {path}: its processes did not stop in time")]
    NotFrozen {
        /// The cgroup.
        path: CgroupPath,
    },
    /// systemd could not be asked, or said no.
    #[error("{operation} {path}")]
    Systemd {
        /// `start scope`, ...
        operation: &'static str,
        /// The cgroup.
        path: CgroupPath,
        /// The cause.
        source: super::SystemdFailure,
    },
    /// A resource of the OCI spec that Corten does not set.
    #[error("set {limit}: not supported")]
    Unsupported {
        /// The limit, as the OCI spec names it.
        limit: &'static str,
    },
}

impl Error {
    /// Whether the file, or the cgroup that it was in, does not exist.
    pub(super) fn is_missing(&self) -> bool {
        // A file of a cgroup that was removed while it was open answers ENODEV.
        matches!(self, Self::Io { source, .. }
            if matches!(source.raw_os_error(), Some(libc::ENOENT | libc::ENODEV | libc::ENOTDIR)))
    }
}
