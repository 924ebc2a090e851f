//! Every system call that no safe crate offers; the only place with `unsafe`.

#![allow(unsafe_code, reason = "the one home of unsafe code, each block one call")]

pub mod bpf;
pub mod seccomp;
