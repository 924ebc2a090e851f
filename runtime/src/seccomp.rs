//! System call filters: from an OCI profile to the BPF program that the kernel takes.
//!
//! The compiler, the tables of system call numbers and the default profile are this project's own. A
//! profile is compiled once, in the daemon; installing the program is [`crate::sys::seccomp`]'s.

use oci_spec::runtime::{LinuxSeccomp, LinuxSeccompFilterFlag};
use serde::{Deserialize, Serialize};

pub use default::default_profile;
pub use error::Error;
pub use json::parse;

use assemble::Instruction;
use machine::Machine;

mod assemble;
mod compile;
mod default;
mod error;
mod json;
mod machine;
mod policy;
mod syscalls;

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

/// The kernel's limit, BPF_MAXINSNS.
const INSTRUCTIONS_MAX: usize = 4096;

/// Compiles a profile for this machine.
pub fn compile(profile: &LinuxSeccomp) -> Result<Program, Error> {
    compile_for(profile, Machine::HOST)
}

fn compile_for(profile: &LinuxSeccomp, machine: Machine) -> Result<Program, Error> {
    let instructions = compile::compile(&policy::resolve(profile, machine)?);
    if instructions.len() > INSTRUCTIONS_MAX {
        return Err(Error::TooLong { instructions: instructions.len() });
    }
    let code = instructions.into_iter().flat_map(Instruction::to_bytes).collect();
    Ok(Program { flags: flags(profile), code })
}

fn flags(profile: &LinuxSeccomp) -> u32 {
    let flag = |flag: &LinuxSeccompFilterFlag| match flag {
        // The process that installs a filter has one thread; what is said about notifications needs a listener.
        LinuxSeccompFilterFlag::SeccompFilterFlagTsync
        | LinuxSeccompFilterFlag::SeccompFilterFlagWaitKillableRecv => 0,
        LinuxSeccompFilterFlag::SeccompFilterFlagLog => 1 << 1,
        LinuxSeccompFilterFlag::SeccompFilterFlagSpecAllow => 1 << 2,
    };
    profile.flags().iter().flatten().map(flag).fold(0, |flags, flag| flags | flag)
}

#[cfg(test)]
mod tests;
