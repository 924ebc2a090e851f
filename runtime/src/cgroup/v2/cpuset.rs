//! `cpuset.cpus` and `cpuset.mems`; an empty one means the parent's.

pub(in crate::cgroup) use crate::cgroup::v1::cpuset::plan;
