//! System call filters: from an OCI profile to the BPF program that the kernel takes.
//!
//! The compiler, the tables of system call numbers and the default profile are this project's own. A
//! profile is compiled once, in the daemon; installing the program is [`crate::sys::seccomp`]'s.

use oci_spec::runtime::{Capability, LinuxSeccomp};
use serde::{Deserialize, Serialize};

pub use error::Error;

mod error;

/// A compiled filter with the flags that it is installed with.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Program {
    /// SECCOMP_FILTER_FLAG_*.
    flags: u32,
    /// The instructions as `struct sock_filter` lies in memory.
    code: Vec<u8>,
}

impl std::fmt::Debug for Program {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Program").field("flags", &self.flags).field("instructions", &self.len()).finish()
    }
}

impl Program {
    /// Number of instructions.
    pub fn len(&self) -> usize {
        self.code.len() / 8
    }

    /// Whether it has no instruction; a compiled program always has some.
    pub fn is_empty(&self) -> bool {
        self.code.is_empty()
    }

    /// SECCOMP_FILTER_FLAG_* to install it with.
    pub fn flags(&self) -> u32 {
        self.flags
    }

    /// The instructions, eight bytes each, as `struct sock_filter` lies in memory.
    pub fn code(&self) -> &[u8] {
        &self.code
    }
}

/// The RuntimeDefault profile for a process with these capabilities.
pub fn default_profile(capabilities: &[Capability]) -> LinuxSeccomp {
    let _ = capabilities;
    unimplemented!()
}

/// Compiles a profile for this machine.
pub fn compile(profile: &LinuxSeccomp) -> Result<Program, Error> {
    let _ = profile;
    unimplemented!()
}

/// Reads a Localhost profile, in the OCI form or in docker's, for a process with these capabilities.
pub fn parse(json: &[u8], capabilities: &[Capability]) -> Result<LinuxSeccomp, Error> {
    let _ = (json, capabilities);
    unimplemented!()
}
