//! `cpu.stat`, `memory.stat`, `memory.events`, `memory.peak` and `io.stat`, all of them.

use crate::cgroup::details::{CpuDetails, DeviceIo, MemoryDetails};
use crate::cgroup::directory::Directory;
use crate::cgroup::stats::{Reader, each_number};
use crate::cgroup::{Error, Stats};

pub(in crate::cgroup) fn cpu(
    reader: &mut Reader<'_>,
    directory: &Directory,
    cpu: &mut CpuDetails,
) -> Result<(), Error> {
    each_number(reader.read(directory, "cpu.stat")?.unwrap_or_default(), |name, number| match name {
        "user_usec" => cpu.user_ns = number.saturating_mul(1000),
        "system_usec" => cpu.system_ns = number.saturating_mul(1000),
        "nr_periods" => cpu.periods = number,
        "nr_throttled" => cpu.throttled_periods = number,
        "throttled_usec" => cpu.throttled_ns = number.saturating_mul(1000),
        _ => {}
    });
    Ok(())
}

pub(in crate::cgroup) fn memory(
    reader: &mut Reader<'_>,
    directory: &Directory,
    stats: &Stats,
) -> Result<MemoryDetails, Error> {
    let mut memory = MemoryDetails {
        // Older kernels do not count it.
        max_usage: reader.number(directory, "memory.peak")?.unwrap_or(stats.memory.usage),
        ..MemoryDetails::default()
    };
    each_number(reader.read(directory, "memory.stat")?.unwrap_or_default(), |name, number| match name {
        "file" => memory.cache = number,
        "file_mapped" => memory.mapped_file = number,
        "kernel" => memory.kernel = number,
        "pgfault" => memory.own_page_faults = number,
        "pgmajfault" => memory.own_major_page_faults = number,
        _ => {}
    });
    each_number(reader.read(directory, "memory.events")?.unwrap_or_default(), |name, number| match name {
        "max" => memory.limit_hits = number,
        "oom_kill" => memory.oom_kills = number,
        _ => {}
    });
    Ok(memory)
}

pub(in crate::cgroup) fn devices(
    reader: &mut Reader<'_>,
    directory: &Directory,
) -> Result<Vec<DeviceIo>, Error> {
    let content = reader.read(directory, "io.stat")?.unwrap_or_default();
    Ok(content.lines().filter_map(device).collect())
}

/// `8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0`
fn device(line: &str) -> Option<DeviceIo> {
    let (major, minor) = line.split(' ').next()?.split_once(':')?;
    Some(DeviceIo {
        major: major.parse().ok()?,
        minor: minor.parse().ok()?,
        io: super::stats::parse_io(line),
    })
}
