//! What this host offers, probed once: what is missing is said in words.
//!
//! The probes change nothing: calls that the kernel refuses or that have no effect, and files that are read.

use std::fs;
use std::os::fd::BorrowedFd;
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use rustix::mount::{FsOpenFlags, fsconfig_set_flag, fsconfig_set_string, fsopen};
use serde::{Deserialize, Serialize};

use crate::capabilities::Set;
use crate::selinux::Selinux;
use crate::{apparmor, sys};

mod idmap;

/// What the kernel and the daemon's own privileges allow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Host {
    /// The kernel's release, as uname(2) gives it.
    pub kernel: String,
    /// The layout of the control groups: `v2`, `hybrid` or `none`.
    pub cgroups: String,
    /// The capabilities that the daemon can give away, `CAP_` names.
    pub capabilities: Vec<String>,
    /// CAP_SYS_RESOURCE: rlimits can be raised and oom_score_adj lowered.
    pub sys_resource: bool,
    /// AppArmor is enabled.
    pub apparmor: bool,
    /// SELinux is enabled.
    pub selinux: bool,
    /// seccomp filters can be installed.
    pub seccomp: bool,
    /// openat2(2), Linux 5.6.
    pub openat2: bool,
    /// mount_setattr(2) and with it recursively read-only mounts, Linux 5.12.
    pub mount_setattr: bool,
    /// The file system of the layers takes idmapped mounts; others are tried when they are mounted.
    pub idmapped_mounts: bool,
    /// Pods can have user namespaces of their own: idmapped mounts, and overlay over them (Linux 5.19).
    pub user_namespaces: bool,
    /// Overlay takes its layers one by one (`lowerdir+`), Linux 6.7.
    pub overlay_layers: bool,
}

impl Host {
    /// Probes the running kernel and the calling process, and the file system of the data directory; `pause`
    /// is a program that does nothing.
    pub(crate) fn probe(pause: BorrowedFd<'_>, data: &Path) -> Self {
        let capabilities = Set::bounding() & own_capabilities();
        let mount_setattr = has_mount_setattr();
        let kernel = rustix::system::uname().release().to_string_lossy().into_owned();
        let idmapped_mounts = mount_setattr && idmap::probe(pause, data).is_ok();
        Self {
            user_namespaces: idmapped_mounts && is_since(&kernel, (5, 19)),
            kernel,
            cgroups: cgroups().to_owned(),
            capabilities: capabilities.names().collect(),
            sys_resource: capabilities.contains(Set::SYS_RESOURCE),
            apparmor: apparmor::is_on(),
            selinux: Selinux::detect().is_some(),
            seccomp: fs::exists("/proc/sys/kernel/seccomp/actions_avail").unwrap_or(false),
            openat2: has_openat2(),
            mount_setattr,
            idmapped_mounts,
            overlay_layers: has_overlay_layers(),
        }
    }

    /// Why containers cannot run here at all.
    pub fn unfit(&self) -> Option<&'static str> {
        if !self.openat2 {
            Some("the kernel lacks openat2(2), or something forbids it: Linux 5.14 is the oldest that works")
        } else if !self.mount_setattr {
            Some(
                "the kernel lacks mount_setattr(2), or something forbids it: Linux 5.14 is the oldest that works",
            )
        } else if !self.capabilities.iter().any(|name| name == "CAP_SYS_ADMIN") {
            Some("CAP_SYS_ADMIN is missing: Corten must run as root")
        } else {
            None
        }
    }

    /// A sentence for each thing that is missing and what follows from that.
    pub fn missing(&self) -> Vec<&'static str> {
        let sentences = [
            (
                self.sys_resource,
                "CAP_SYS_RESOURCE is missing: oom_score_adj and rlimits are set as far as allowed",
            ),
            (self.apparmor, "AppArmor is off: pods that name a profile are refused"),
            (self.seccomp, "the kernel has no seccomp filters: pods with a profile are refused"),
            (
                self.idmapped_mounts,
                "the layers' file system or the kernel has no idmapped mounts: pods with user namespaces are refused",
            ),
            (
                self.user_namespaces || !self.idmapped_mounts,
                "overlay takes no idmapped layers (Linux before 5.19): pods with user namespaces are refused",
            ),
            (
                self.overlay_layers,
                "overlay takes its layers in one page only (Linux before 6.7): they get short names",
            ),
            (self.cgroups != "none", "no control groups are mounted on /sys/fs/cgroup: limits cannot be set"),
            (
                self.cgroups != "hybrid",
                "control groups are of version 1: Corten is at its best with version 2 alone",
            ),
        ];
        sentences.into_iter().filter(|(there, _)| !there).map(|(_, sentence)| sentence).collect()
    }
}

/// Whether a kernel of this release is at least of that version; one that cannot be read is not.
fn is_since(release: &str, version: (u32, u32)) -> bool {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|number| number.parse().ok());
    match (numbers.next().flatten(), numbers.next().flatten()) {
        (Some(major), Some(minor)) => (major, minor) >= version,
        _ => false,
    }
}

fn own_capabilities() -> Set {
    rustix::thread::capabilities(None).map_or(Set::EMPTY, |sets| Set::from_bits(sets.permitted.bits()))
}

fn cgroups() -> &'static str {
    const CGROUP2: i64 = 0x6367_7270;
    match rustix::fs::statfs(c"/sys/fs/cgroup") {
        Ok(stat) if stat.f_type == CGROUP2 => "v2",
        _ if fs::exists("/sys/fs/cgroup/memory").unwrap_or(false) => "hybrid",
        _ => "none",
    }
}

fn has_openat2() -> bool {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    rustix::fs::openat2(CWD, c"/", flags, Mode::empty(), ResolveFlags::IN_ROOT).is_ok()
}

/// Asks for no change of the root mount.
fn has_mount_setattr() -> bool {
    let root = rustix::fs::open(c"/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty());
    let missing = |error: std::io::Error| error.raw_os_error() == Some(libc::ENOSYS);
    root.is_ok_and(|root| !sys::mount::set_attributes(&root, 0, 0, false).is_err_and(missing))
}

/// Begins to describe an overlay that is never made.
fn has_overlay_layers() -> bool {
    let Ok(context) = fsopen(c"overlay", FsOpenFlags::FSOPEN_CLOEXEC) else { return false };
    // Until Linux 6.5 it takes every word, and looks at them later.
    fsconfig_set_flag(&context, c"no-such-word").is_err()
        && fsconfig_set_string(&context, c"lowerdir+", c"/") != Err(Errno::INVAL)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn this_host_is_fit_and_written_down() {
        let pause = crate::pause::program().unwrap();
        let host = Host::probe(pause.as_fd(), Path::new("/"));
        assert_eq!(host.unfit(), None);
        assert!(!host.kernel.is_empty());
        assert_eq!(serde_json::from_str::<Host>(&serde_json::to_string(&host).unwrap()).unwrap(), host);
        let said = host.missing().iter().any(|sentence| sentence.starts_with("CAP_SYS_RESOURCE"));
        assert_eq!(said, !host.sys_resource);
    }

    #[test]
    fn releases_are_compared_as_numbers() {
        for (release, expected) in [
            ("6.1.0-13-amd64", true),
            ("5.19", true),
            ("5.4.0", false),
            ("10.0", true),
            ("5", false),
            ("x", false),
        ] {
            assert_eq!(is_since(release, (5, 19)), expected, "{release}");
        }
    }

    #[test]
    fn what_is_missing_is_said() {
        let host = Host {
            kernel: "5.4.0".into(),
            cgroups: "none".into(),
            capabilities: Vec::new(),
            sys_resource: false,
            apparmor: false,
            selinux: true,
            seccomp: false,
            openat2: false,
            mount_setattr: false,
            idmapped_mounts: false,
            user_namespaces: false,
            overlay_layers: false,
        };
        assert_eq!(host.missing().len(), 6);
        assert!(host.unfit().is_some_and(|reason| reason.contains("openat2")));
    }
}
