//! Controllers on the v2 hierarchy. Follows cgroup-v2.rst.

pub(super) mod cpu;
pub(super) mod cpuset;
pub(super) mod details;
pub(super) mod devices;
pub(super) mod enable;
pub(super) mod freeze;
pub(super) mod io;
pub(super) mod memory;
pub(super) mod stats;
pub(super) mod unified;
