//! Capabilities by name and as sets of bits, see capabilities(7).
//!
//! Pure but for [`Set::bounding`], which reads what the calling process can give away at all.

use std::fmt;
use std::ops::{BitAnd, BitOr, Sub};

use oci_spec::runtime::{Capabilities, Capability};
use serde::{Deserialize, Serialize};

/// A set of capabilities.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Set(u64);

/// A name that is no capability's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown capability {0:?}")]
pub struct Unknown(pub String);

impl Set {
    /// All that this release knows.
    pub const ALL: Self = Self((1 << TABLE.len()) - 1);
    /// None.
    pub const EMPTY: Self = Self(0);
    /// What mounting and joining namespaces needs; seccomp filters without no_new_privs need it too.
    pub(crate) const SYS_ADMIN: Self = Self(1 << 21);
    /// What raising rlimits and lowering oom_score_adj needs.
    pub(crate) const SYS_RESOURCE: Self = Self(1 << 24);

    /// Reads a name in any case, with or without `CAP_`; `ALL` is every one.
    pub fn parse(name: &str) -> Result<Self, Unknown> {
        let upper = name.to_ascii_uppercase();
        if upper == "ALL" {
            return Ok(Self::ALL);
        }
        let bare = upper.strip_prefix("CAP_").unwrap_or(&upper);
        let known = TABLE.iter().position(|(known, _)| *known == bare);
        known.map(|bit| Self(1 << bit)).ok_or_else(|| Unknown(name.to_owned()))
    }

    /// The bounding set of the calling process: no child of it ever has more.
    ///
    /// Capabilities that the kernel does not know are not in it.
    pub fn bounding() -> Self {
        let has = |bit: &usize| {
            rustix::thread::capability_is_in_bounding_set(rustix_bit(*bit)).is_ok_and(|inside| inside)
        };
        Self((0..TABLE.len()).filter(has).fold(0, |bits, bit| bits | 1 << bit))
    }

    /// The set with the kernel's numbering of bits.
    pub(crate) const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// The kernel's numbering of bits.
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// Whether nothing is in it.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether all of `other` is in it.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// The names with `CAP_`, in the kernel's order.
    pub fn names(self) -> impl Iterator<Item = String> {
        self.known().map(|(name, _)| format!("CAP_{name}"))
    }

    /// The set as the OCI specification's types write it.
    pub fn to_oci(self) -> Capabilities {
        self.known().map(|(_, capability)| *capability).collect()
    }

    fn known(self) -> impl Iterator<Item = &'static (&'static str, Capability)> {
        TABLE.iter().enumerate().filter(move |(bit, _)| self.0 & (1 << bit) != 0).map(|(_, entry)| entry)
    }
}

impl From<&Capabilities> for Set {
    fn from(capabilities: &Capabilities) -> Self {
        let bit = |wanted: &Capability| TABLE.iter().position(|(_, capability)| capability == wanted);
        Self(capabilities.iter().filter_map(bit).fold(0, |bits, bit| bits | 1 << bit))
    }
}

impl BitAnd for Set {
    type Output = Self;

    fn bitand(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }
}

impl BitOr for Set {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl Sub for Set {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }
}

impl fmt::Debug for Set {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.names()).finish()
    }
}

/// One capability as rustix writes it.
pub(crate) fn rustix_bit(bit: usize) -> rustix::thread::CapabilitySet {
    rustix::thread::CapabilitySet::from_bits_retain(1 << bit)
}

/// How many capabilities [`Set::ALL`] has.
pub(crate) const COUNT: usize = TABLE.len();

/// In the order of `linux/capability.h`: the index is the bit.
const TABLE: [(&str, Capability); 41] = [
    ("CHOWN", Capability::Chown),
    ("DAC_OVERRIDE", Capability::DacOverride),
    ("DAC_READ_SEARCH", Capability::DacReadSearch),
    ("FOWNER", Capability::Fowner),
    ("FSETID", Capability::Fsetid),
    ("KILL", Capability::Kill),
    ("SETGID", Capability::Setgid),
    ("SETUID", Capability::Setuid),
    ("SETPCAP", Capability::Setpcap),
    ("LINUX_IMMUTABLE", Capability::LinuxImmutable),
    ("NET_BIND_SERVICE", Capability::NetBindService),
    ("NET_BROADCAST", Capability::NetBroadcast),
    ("NET_ADMIN", Capability::NetAdmin),
    ("NET_RAW", Capability::NetRaw),
    ("IPC_LOCK", Capability::IpcLock),
    ("IPC_OWNER", Capability::IpcOwner),
    ("SYS_MODULE", Capability::SysModule),
    ("SYS_RAWIO", Capability::SysRawio),
    ("SYS_CHROOT", Capability::SysChroot),
    ("SYS_PTRACE", Capability::SysPtrace),
    ("SYS_PACCT", Capability::SysPacct),
    ("SYS_ADMIN", Capability::SysAdmin),
    ("SYS_BOOT", Capability::SysBoot),
    ("SYS_NICE", Capability::SysNice),
    ("SYS_RESOURCE", Capability::SysResource),
    ("SYS_TIME", Capability::SysTime),
    ("SYS_TTY_CONFIG", Capability::SysTtyConfig),
    ("MKNOD", Capability::Mknod),
    ("LEASE", Capability::Lease),
    ("AUDIT_WRITE", Capability::AuditWrite),
    ("AUDIT_CONTROL", Capability::AuditControl),
    ("SETFCAP", Capability::Setfcap),
    ("MAC_OVERRIDE", Capability::MacOverride),
    ("MAC_ADMIN", Capability::MacAdmin),
    ("SYSLOG", Capability::Syslog),
    ("WAKE_ALARM", Capability::WakeAlarm),
    ("BLOCK_SUSPEND", Capability::BlockSuspend),
    ("AUDIT_READ", Capability::AuditRead),
    ("PERFMON", Capability::Perfmon),
    ("BPF", Capability::Bpf),
    ("CHECKPOINT_RESTORE", Capability::CheckpointRestore),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_in_all_their_forms() {
        for (name, bits) in [
            ("CHOWN", 1),
            ("cap_chown", 1),
            ("CAP_SYS_ADMIN", 1 << 21),
            ("sys_resource", 1 << 24),
            ("CAP_CHECKPOINT_RESTORE", 1 << 40),
            ("ALL", (1 << 41) - 1),
            ("all", (1 << 41) - 1),
        ] {
            assert_eq!(Set::parse(name).map(Set::bits), Ok(bits), "{name}");
        }
    }

    #[test]
    fn unknown_names_are_refused_with_the_name() {
        for name in ["", "CAP_", "CAP_CAP_CHOWN", "CHOWN ", "CAP_ALL", "0"] {
            let error = Set::parse(name).expect_err(name);
            assert_eq!(error.to_string(), format!("unknown capability {name:?}"));
        }
    }

    #[test]
    fn the_table_agrees_with_the_kernel_header() {
        assert_eq!(Set::parse("SYS_ADMIN"), Ok(Set::SYS_ADMIN));
        assert_eq!(Set::parse("SYS_RESOURCE"), Ok(Set::SYS_RESOURCE));
        for (bit, (name, capability)) in TABLE.iter().enumerate() {
            let known = rustix::thread::CapabilitySet::from_name(name).expect(name);
            assert_eq!(known.bits(), 1 << bit, "{name}");
            assert_eq!(capability.to_string(), *name);
        }
    }

    #[test]
    fn a_set_survives_the_oci_form() {
        let set = Set::parse("CHOWN").unwrap() | Set::parse("BPF").unwrap();
        assert_eq!(Set::from(&set.to_oci()), set);
        assert_eq!(set.names().collect::<Vec<_>>(), ["CAP_CHOWN", "CAP_BPF"]);
        assert_eq!(set - Set::parse("BPF").unwrap(), Set::parse("CHOWN").unwrap());
    }

    #[test]
    fn the_bounding_set_is_the_one_of_proc() {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("CapBnd:\t")).unwrap();
        assert_eq!(Set::bounding().bits(), u64::from_str_radix(line, 16).unwrap() & Set::ALL.bits());
    }
}
