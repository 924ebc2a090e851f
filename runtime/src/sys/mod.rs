//! Every system call that no safe crate offers; the only place with `unsafe`.

#![allow(unsafe_code, reason = "the one home of unsafe code, each block one call")]

pub mod bpf;
pub(crate) mod clone;
pub(crate) mod fd;
pub(crate) mod keyring;
pub mod memory;
pub(crate) mod mount;
pub(crate) mod ring;
pub mod seccomp;
pub(crate) mod signal;
pub(crate) mod wait;
pub(crate) mod watch;
