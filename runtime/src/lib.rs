//! Corten's OCI runtime: the monitor beside each pod, the stages of container processes, control groups, seccomp.

pub mod capabilities;
pub mod cgroup;
pub mod host;
mod native;
pub mod plan;
pub mod seccomp;
pub mod sys;
