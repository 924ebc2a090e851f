//! `cpuacct.usage`, `memory.stat` and `blkio.throttle.*`.

use crate::cgroup::directory::Directory;
use crate::cgroup::stats::{Reader, each_number};
use crate::cgroup::v1::memory::UNLIMITED;
use crate::cgroup::{Error, Io, Memory, Swap};

/// Nanoseconds.
pub(in crate::cgroup) fn cpu(reader: &mut Reader<'_>, directory: &Directory) -> Result<Option<u64>, Error> {
    reader.number(directory, "cpuacct.usage")
}

pub(in crate::cgroup) fn memory(
    reader: &mut Reader<'_>,
    directory: &Directory,
) -> Result<(Memory, Option<Swap>), Error> {
    let usage = reader.number(directory, "memory.usage_in_bytes")?.unwrap_or(0);
    let content = reader.read(directory, "memory.stat")?.unwrap_or_default();
    Ok(parse_memory(usage, content))
}

/// The limits in `memory.stat` are those of the whole path, so that no other file is needed.
fn parse_memory(usage: u64, content: &str) -> (Memory, Option<Swap>) {
    let mut memory = Memory { usage, ..Memory::default() };
    let (mut limit, mut both_limit) = (u64::MAX, None);
    let (mut inactive, mut swapped) = (0, 0);
    each_number(content, |name, number| match name {
        "hierarchical_memory_limit" => limit = number,
        "hierarchical_memsw_limit" => both_limit = Some(number),
        "total_inactive_file" => inactive = number,
        "total_pgfault" => memory.page_faults = number,
        "total_pgmajfault" => memory.major_page_faults = number,
        "total_rss" => memory.rss = number,
        "total_swap" => swapped = number,
        _ => {}
    });
    memory.working_set = usage.saturating_sub(inactive);
    memory.available = (limit < UNLIMITED).then(|| limit.saturating_sub(memory.working_set));
    // There is a limit of both only where the kernel accounts swap.
    let swap = both_limit.map(|both| Swap {
        usage: swapped,
        available: (both < UNLIMITED && limit < UNLIMITED)
            .then(|| both.saturating_sub(limit).saturating_sub(swapped)),
    });
    (memory, swap)
}

pub(in crate::cgroup) fn io(reader: &mut Reader<'_>, directory: &Directory) -> Result<Option<Io>, Error> {
    let Some(bytes) = reader.read(directory, "blkio.throttle.io_service_bytes_recursive")? else {
        return Ok(None);
    };
    let (read_bytes, write_bytes) = parse_io(bytes);
    let counts = reader.read(directory, "blkio.throttle.io_serviced_recursive")?.unwrap_or_default();
    let (reads, writes) = parse_io(counts);
    Ok(Some(Io { read_bytes, write_bytes, reads, writes }))
}

/// Sums lines such as `8:0 Read 4096`.
fn parse_io(content: &str) -> (u64, u64) {
    let (mut read, mut written) = (0_u64, 0_u64);
    for line in content.lines() {
        let mut fields = line.split(' ').skip(1);
        let sum = match fields.next() {
            Some("Read") => &mut read,
            Some("Write") => &mut written,
            _ => continue,
        };
        *sum = sum.saturating_add(fields.next().and_then(|number| number.parse().ok()).unwrap_or(0));
    }
    (read, written)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_memory() {
        let content = "cache 5\nrss 1\nhierarchical_memory_limit 1000\nhierarchical_memsw_limit 1500\n\
            total_rss 300\ntotal_pgfault 70\ntotal_pgmajfault 7\ntotal_inactive_file 100\ntotal_swap 50\n";
        let (memory, swap) = parse_memory(600, content);
        let expected = Memory {
            usage: 600,
            working_set: 500,
            available: Some(500),
            rss: 300,
            page_faults: 70,
            major_page_faults: 7,
        };
        assert_eq!(memory, expected);
        assert_eq!(swap, Some(Swap { usage: 50, available: Some(450) }));
    }

    #[test]
    fn knows_no_limit() {
        let none = "9223372036854771712";
        let content = format!("hierarchical_memory_limit {none}\nhierarchical_memsw_limit {none}\n");
        let (memory, swap) = parse_memory(600, &content);
        assert_eq!(memory.available, None);
        assert_eq!(swap, Some(Swap { usage: 0, available: None }));
        assert_eq!(parse_memory(600, "hierarchical_memory_limit 900\n").1, None);
    }

    #[test]
    fn sums_devices() {
        let content = "8:0 Read 10\n8:0 Write 5\n8:0 Sync 15\n8:0 Total 15\n8:16 Read 1\nTotal 16\n";
        assert_eq!(parse_io(content), (11, 5));
        assert_eq!(parse_io("Total 0\n"), (0, 0));
    }
}
