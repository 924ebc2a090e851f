//! What a cgroup uses.

use serde::{Deserialize, Serialize};

/// What a cgroup used, read in one pass.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Stats {
    /// Processor time since the cgroup was made, nanoseconds.
    pub cpu_usage_ns: u64,
    /// Memory.
    pub memory: Memory,
    /// Swap; none where the kernel does not account it.
    pub swap: Option<Swap>,
    /// Tasks; none where there is no pids controller.
    pub pids: Option<u64>,
    /// Block I/O since the cgroup was made; none where there is no controller for it.
    pub io: Option<Io>,
    /// Pressure stall information; none where the kernel has none.
    pub psi: Option<Pressures>,
}

/// Memory of a cgroup, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    /// All that is charged, page cache included.
    pub usage: u64,
    /// Usage without the inactive page cache, what the kubelet evicts by.
    pub working_set: u64,
    /// Limit minus working set; none without a limit.
    pub available: Option<u64>,
    /// Anonymous memory, swap cache and huge pages included.
    pub rss: u64,
    /// Page faults since the cgroup was made.
    pub page_faults: u64,
    /// Page faults that needed I/O.
    pub major_page_faults: u64,
}

/// Swap of a cgroup, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Swap {
    /// What is swapped out.
    pub usage: u64,
    /// Limit minus usage; none without a limit.
    pub available: Option<u64>,
}

/// Block I/O of a cgroup, all devices together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Io {
    /// Bytes read.
    pub read_bytes: u64,
    /// Bytes written.
    pub write_bytes: u64,
    /// Reads.
    pub reads: u64,
    /// Writes.
    pub writes: u64,
}

/// Pressure on the three resources.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Pressures {
    /// Processor.
    pub cpu: Pressure,
    /// Memory.
    pub memory: Pressure,
    /// Block I/O.
    pub io: Pressure,
}

/// Pressure on one resource, see psi.rst.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Pressure {
    /// At least one task waited.
    pub some: PressureLine,
    /// All tasks waited.
    pub full: PressureLine,
}

/// Shares of time spent waiting.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct PressureLine {
    /// Percent of the last 10 seconds.
    pub avg10: f64,
    /// Percent of the last minute.
    pub avg60: f64,
    /// Percent of the last five minutes.
    pub avg300: f64,
    /// Microseconds since the cgroup was made.
    pub total_us: u64,
}
