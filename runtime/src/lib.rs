//! Corten's OCI runtime: the monitor beside each pod, the stages of container processes, control groups, seccomp.

pub mod cgroup;
pub mod seccomp;
pub mod sys;
