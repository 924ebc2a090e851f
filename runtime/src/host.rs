//! What this host offers, probed once: what is missing is said in words.

use serde::{Deserialize, Serialize};

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
    /// Idmapped mounts, Linux 5.12; which file systems take them is known at the mount only.
    pub idmapped_mounts: bool,
    /// Overlay takes its layers one by one (`lowerdir+`), Linux 6.7.
    pub overlay_layers: bool,
}

impl Host {
    /// Probes the running kernel and the calling process.
    pub fn probe() -> Self {
        unimplemented!()
    }

    /// A sentence for each thing that is missing and what follows from that.
    pub fn missing(&self) -> Vec<&'static str> {
        unimplemented!()
    }
}
