//! All that a cgroup counts, for who collects metrics; [`Stats`] is the quick part of it.

use std::fs;

use super::directory::Directory;
use super::hierarchy::{Controller, Hierarchies, Place};
use super::stats::{self, Reader};
use super::{CgroupPath, Error, Stats, v1, v2};

/// Where the kernel lists the sizes of huge pages that it has.
const HUGEPAGES: &str = "/sys/kernel/mm/hugepages";

/// What a cgroup used and did since it was made.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Details {
    /// What [`super::Cgroup::stats`] reads.
    pub stats: Stats,
    /// Processor.
    pub cpu: CpuDetails,
    /// Memory.
    pub memory: MemoryDetails,
    /// The most tasks there may be; none without a limit.
    pub pids_max: Option<u64>,
    /// Block I/O by device.
    pub devices: Vec<DeviceIo>,
    /// Huge pages by size.
    pub hugepages: Vec<HugepageUse>,
}

/// Where processor time went.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CpuDetails {
    /// Nanoseconds in programs.
    pub user_ns: u64,
    /// Nanoseconds in the kernel.
    pub system_ns: u64,
    /// Periods of the quota that passed.
    pub periods: u64,
    /// Those in which the quota was used up.
    pub throttled_periods: u64,
    /// Nanoseconds spent waiting for the next one.
    pub throttled_ns: u64,
}

/// Where memory is, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MemoryDetails {
    /// Page cache.
    pub cache: u64,
    /// Files that are mapped.
    pub mapped_file: u64,
    /// The kernel's own for it.
    pub kernel: u64,
    /// The most that was charged at one time.
    pub max_usage: u64,
    /// How often the limit was hit.
    pub limit_hits: u64,
    /// Processes that the OOM killer took.
    pub oom_kills: u64,
    /// Page faults of the cgroup alone, without those below it.
    pub own_page_faults: u64,
    /// Those that needed I/O.
    pub own_major_page_faults: u64,
}

/// Block I/O on one device.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DeviceIo {
    /// The device's numbers.
    pub major: u32,
    /// The device's numbers.
    pub minor: u32,
    /// Bytes and numbers of reads and writes.
    pub io: super::Io,
}

/// Huge pages of one size.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HugepageUse {
    /// The size as the kernel writes it, `2MB`.
    pub size: String,
    /// Bytes in use.
    pub usage: u64,
    /// The most that was in use at one time; none where the kernel does not count it.
    pub max_usage: Option<u64>,
}

pub(super) fn read(host: &Hierarchies, path: &CgroupPath) -> Result<Details, Error> {
    let reader = &mut Reader::new(None);
    let stats = stats::read(reader, host, path)?;
    let mut cpu = CpuDetails::default();
    for controller in [Controller::Cpuacct, Controller::Cpu] {
        match host.place(path, controller) {
            Some(Place::V1(directory)) => v1::details::cpu(reader, &directory, &mut cpu)?,
            Some(Place::V2(directory)) => v2::details::cpu(reader, &directory, &mut cpu)?,
            None => {}
        }
    }
    let memory = match host.place(path, Controller::Memory) {
        Some(Place::V1(directory)) => v1::details::memory(reader, &directory)?,
        Some(Place::V2(directory)) => v2::details::memory(reader, &directory, &stats)?,
        None => MemoryDetails::default(),
    };
    let pids_max = match host.place(path, Controller::Pids) {
        Some(Place::V1(directory) | Place::V2(directory)) => reader.number(&directory, "pids.max")?,
        None => None,
    };
    let devices = match host.place(path, Controller::Io) {
        Some(Place::V1(directory)) => v1::details::devices(reader, &directory)?,
        Some(Place::V2(directory)) => v2::details::devices(reader, &directory)?,
        None => Vec::new(),
    };
    let hugepages = match host.place(path, Controller::Hugetlb) {
        Some(place) => hugepages(&place)?,
        None => Vec::new(),
    };
    Ok(Details { stats, cpu, memory, pids_max, devices, hugepages })
}

fn hugepages(place: &Place) -> Result<Vec<HugepageUse>, Error> {
    let mut found = Vec::new();
    for size in page_sizes() {
        let number = |directory: &Directory, file: &str| {
            let content = directory.read_if_there(&format!("hugetlb.{size}.{file}"))?;
            Ok::<_, Error>(content.and_then(|content| content.parse().ok()))
        };
        let (usage, max_usage) = match place {
            Place::V1(directory) => {
                (number(directory, "usage_in_bytes")?, number(directory, "max_usage_in_bytes")?)
            }
            Place::V2(directory) => (number(directory, "current")?, None),
        };
        if let Some(usage) = usage {
            found.push(HugepageUse { size, usage, max_usage });
        }
    }
    Ok(found)
}

/// The sizes that this host has, as the controller writes them.
fn page_sizes() -> Vec<String> {
    let names = fs::read_dir(HUGEPAGES).into_iter().flatten().flatten();
    let mut sizes: Vec<String> = names.filter_map(|entry| page_size(entry.file_name().to_str()?)).collect();
    sizes.sort();
    sizes
}

/// `hugepages-2048kB` is `2MB` elsewhere.
fn page_size(directory: &str) -> Option<String> {
    let kib: u64 = directory.strip_prefix("hugepages-")?.strip_suffix("kB")?.parse().ok()?;
    Some(match kib {
        kib if kib >= 1 << 20 => format!("{}GB", kib >> 20),
        kib if kib >= 1 << 10 => format!("{}MB", kib >> 10),
        kib => format!("{kib}KB"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cgroup::Io;
    use crate::cgroup::fixture::v2_host;

    #[test]
    fn reads_all_of_v2() {
        let (_root, host, path) = v2_host(&[
            (
                "cpu.stat",
                "usage_usec 30\nuser_usec 20\nsystem_usec 10\nnr_periods 5\nnr_throttled 2\nthrottled_usec 7\n",
            ),
            ("memory.current", "600"),
            ("memory.max", "max"),
            ("memory.peak", "900"),
            ("memory.stat", "anon 300\nfile 250\nkernel 50\nfile_mapped 25\npgfault 70\npgmajfault 7\n"),
            ("memory.events", "low 0\nhigh 0\nmax 4\noom 1\noom_kill 3\n"),
            ("pids.current", "3"),
            ("pids.max", "100"),
            ("io.stat", "8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6\n259:1 rbytes=9\n"),
        ]);
        let details = read(&host, &path).unwrap();
        assert_eq!(details.stats.cpu_usage_ns, 30_000);
        let cpu = CpuDetails {
            user_ns: 20_000,
            system_ns: 10_000,
            periods: 5,
            throttled_periods: 2,
            throttled_ns: 7_000,
        };
        assert_eq!(details.cpu, cpu);
        let memory = MemoryDetails {
            cache: 250,
            mapped_file: 25,
            kernel: 50,
            max_usage: 900,
            limit_hits: 4,
            oom_kills: 3,
            own_page_faults: 70,
            own_major_page_faults: 7,
        };
        assert_eq!(details.memory, memory);
        assert_eq!(details.pids_max, Some(100));
        let first = Io { read_bytes: 1, write_bytes: 2, reads: 3, writes: 4 };
        assert_eq!(details.devices[0], DeviceIo { major: 8, minor: 0, io: first });
        assert_eq!((details.devices[1].major, details.devices[1].io.read_bytes), (259, 9));
    }

    #[test]
    fn knows_the_names_of_page_sizes() {
        for (directory, size) in [
            ("hugepages-2048kB", Some("2MB")),
            ("hugepages-1048576kB", Some("1GB")),
            ("hugepages-64kB", Some("64KB")),
            ("else", None),
        ] {
            assert_eq!(page_size(directory).as_deref(), size);
        }
    }
}
