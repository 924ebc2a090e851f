//! The instruction sets and their ABIs: which numbers a process may use to call the kernel.

use oci_spec::runtime::Arch;

/// A processor that Corten runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Machine {
    #[cfg_attr(not(any(test, target_arch = "aarch64")), allow(dead_code, reason = "the other machine"))]
    Aarch64,
    #[cfg_attr(not(any(test, target_arch = "x86_64")), allow(dead_code, reason = "the other machine"))]
    X86_64,
}

/// One table of system calls, told apart by the kernel's audit architecture.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Abi {
    Aarch64,
    Arm,
    X86,
    X86_64,
}

/// The bit that marks a number of x32 among those of x86_64.
pub(super) const X32_BIT: u32 = 0x4000_0000;
/// Where ARM keeps numbers that belong to the architecture and not to Linux.
pub(super) const ARM_PRIVATE: u32 = 0x000f_0000;

// === impl Machine ===

impl Machine {
    #[cfg(target_arch = "aarch64")]
    pub(super) const HOST: Self = Self::Aarch64;
    #[cfg(target_arch = "x86_64")]
    pub(super) const HOST: Self = Self::X86_64;

    /// Every ABI that a process may use here, as profiles name them; the first is the machine's own.
    pub(super) fn architectures(self) -> &'static [Arch] {
        match self {
            Self::Aarch64 => &[Arch::ScmpArchAarch64, Arch::ScmpArchArm],
            Self::X86_64 => &[Arch::ScmpArchX86_64, Arch::ScmpArchX86, Arch::ScmpArchX32],
        }
    }

    pub(super) fn native(self) -> Abi {
        match self {
            Self::Aarch64 => Abi::Aarch64,
            Self::X86_64 => Abi::X86_64,
        }
    }

    /// The other ABI; a process that uses it has 32 bits.
    pub(super) fn compatible(self) -> (Arch, Abi) {
        match self {
            Self::Aarch64 => (Arch::ScmpArchArm, Abi::Arm),
            Self::X86_64 => (Arch::ScmpArchX86, Abi::X86),
        }
    }

    /// The name that docker's profiles have for it.
    pub(super) fn docker_name(self) -> &'static str {
        match self {
            Self::Aarch64 => "arm64",
            Self::X86_64 => "amd64",
        }
    }
}

// === impl Abi ===

impl Abi {
    /// AUDIT_ARCH_* of linux/audit.h.
    pub(super) fn audit(self) -> u32 {
        match self {
            Self::Aarch64 => 0xc000_00b7,
            Self::Arm => 0x4000_0028,
            Self::X86 => 0x4000_0003,
            Self::X86_64 => 0xc000_003e,
        }
    }

    /// Whether arguments have 32 bits.
    pub(super) fn is_narrow(self) -> bool {
        matches!(self, Self::Arm | Self::X86)
    }
}
