//! What a cgroup may use: the part of the OCI spec's `linux.resources` that Corten honours.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::hierarchy::Controller;

mod devices;
mod spec;

/// Limits to set; what is none is left as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Relative weight as v1 counts it, 2 to 262144.
    pub cpu_shares: Option<u64>,
    /// Microseconds of processor time a period; negative for no limit.
    pub cpu_quota: Option<i64>,
    /// Length of the period in microseconds.
    pub cpu_period: Option<u64>,
    /// Microseconds that may be saved up beyond the quota.
    pub cpu_burst: Option<u64>,
    /// Processors, in the list form of cpuset(7).
    pub cpuset_cpus: Option<String>,
    /// Memory nodes, in the list form of cpuset(7).
    pub cpuset_mems: Option<String>,
    /// Bytes of memory; negative for no limit.
    pub memory_limit: Option<i64>,
    /// Bytes of memory and swap together; negative for no limit of swap.
    pub memory_swap: Option<i64>,
    /// Bytes of memory that are kept when the host runs short.
    pub memory_reservation: Option<i64>,
    /// Number of tasks; zero or negative for no limit.
    pub pids: Option<i64>,
    /// Bytes of huge pages, each size.
    pub hugepages: Vec<HugepageLimit>,
    /// Relative weight of block I/O, 10 to 1000.
    pub io_weight: Option<u16>,
    /// Rates of single block devices.
    pub io_limits: Vec<IoLimit>,
    /// Files of the v2 hierarchy and their contents.
    pub unified: BTreeMap<String, String>,
    /// Device rules in order, the last that matches wins, all else is denied; none leaves devices alone.
    pub devices: Option<Vec<DeviceRule>>,
}

/// The limit of one size of huge pages.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HugepageLimit {
    /// The size as the kernel writes it: `2MB`, `1GB`.
    pub size: String,
    /// Bytes.
    pub limit: u64,
}

/// What one block device may do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IoLimit {
    /// Major number of the device.
    pub major: u32,
    /// Minor number of the device.
    pub minor: u32,
    /// Bytes read a second.
    pub read_bps: Option<u64>,
    /// Bytes written a second.
    pub write_bps: Option<u64>,
    /// Reads a second.
    pub read_iops: Option<u64>,
    /// Writes a second.
    pub write_iops: Option<u64>,
}

/// Allows or denies the use of devices; shown as `allow c 1:3 rwm`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceRule {
    /// Whether the access is given or taken.
    pub allow: bool,
    /// Which kind of device.
    pub kind: DeviceKind,
    /// Major number; none for every one.
    pub major: Option<u32>,
    /// Minor number; none for every one.
    pub minor: Option<u32>,
    /// Which uses.
    pub access: DeviceAccess,
}

/// The kinds of devices that a rule speaks of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum DeviceKind {
    /// Block and character devices.
    All,
    /// Block devices.
    Block,
    /// Character devices.
    Char,
}

/// The uses of a device that a rule speaks of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceAccess {
    /// Open for reading.
    pub read: bool,
    /// Open for writing.
    pub write: bool,
    /// mknod(2).
    pub mknod: bool,
}

// === impl Limits ===

impl Limits {
    /// The controllers that the limits cannot do without, each with the limit that needs it.
    pub(super) fn needs(&self) -> Vec<(Controller, &'static str)> {
        let unlimited = |limit: &i64| *limit <= 0;
        let mut needs = Vec::new();
        let mut need = |is_needed: bool, controller, limit| {
            if is_needed {
                needs.push((controller, limit));
            }
        };
        need(self.cpu_shares.is_some(), Controller::Cpu, "cpu.shares");
        need(self.cpu_quota.is_some_and(|quota| !unlimited(&quota)), Controller::Cpu, "cpu.quota");
        need(self.cpu_burst.is_some_and(|burst| burst > 0), Controller::Cpu, "cpu.burst");
        need(self.cpuset_cpus.is_some(), Controller::Cpuset, "cpu.cpus");
        need(self.cpuset_mems.is_some(), Controller::Cpuset, "cpu.mems");
        need(self.memory_limit.is_some_and(|limit| !unlimited(&limit)), Controller::Memory, "memory.limit");
        need(self.memory_swap.is_some_and(|limit| !unlimited(&limit)), Controller::Memory, "memory.swap");
        need(self.memory_reservation.is_some(), Controller::Memory, "memory.reservation");
        need(self.pids.is_some_and(|limit| !unlimited(&limit)), Controller::Pids, "pids.limit");
        need(self.hugepages.iter().any(|page| page.limit > 0), Controller::Hugetlb, "hugepageLimits");
        need(self.io_weight.is_some(), Controller::Io, "blockIO.weight");
        need(!self.io_limits.is_empty(), Controller::Io, "blockIO.throttle");
        needs
    }
}
