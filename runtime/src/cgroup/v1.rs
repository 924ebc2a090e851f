//! Controllers on v1 hierarchies of their own. Follows cgroup-v1/*.rst.

pub(super) mod cpu;
pub(super) mod cpuset;
pub(super) mod details;
pub(super) mod devices;
pub(super) mod freeze;
pub(super) mod io;
pub(super) mod memory;
pub(super) mod stats;
