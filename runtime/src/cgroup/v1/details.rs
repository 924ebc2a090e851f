//! `cpuacct.usage_*`, `cpu.stat`, `memory.*` and `blkio.throttle.*`, all of them.

use crate::cgroup::details::{CpuDetails, DeviceIo, MemoryDetails};
use crate::cgroup::directory::Directory;
use crate::cgroup::stats::{Reader, each_number};
use crate::cgroup::{Error, Io};

/// Of the hierarchies of cpu and cpuacct, each has its part; one that has both is read twice.
pub(in crate::cgroup) fn cpu(
    reader: &mut Reader<'_>,
    directory: &Directory,
    cpu: &mut CpuDetails,
) -> Result<(), Error> {
    if let Some(user_ns) = reader.number(directory, "cpuacct.usage_user")? {
        cpu.user_ns = user_ns;
    }
    if let Some(system_ns) = reader.number(directory, "cpuacct.usage_sys")? {
        cpu.system_ns = system_ns;
    }
    each_number(reader.read(directory, "cpu.stat")?.unwrap_or_default(), |name, number| match name {
        "nr_periods" => cpu.periods = number,
        "nr_throttled" => cpu.throttled_periods = number,
        "throttled_time" => cpu.throttled_ns = number,
        _ => {}
    });
    Ok(())
}

pub(in crate::cgroup) fn memory(
    reader: &mut Reader<'_>,
    directory: &Directory,
) -> Result<MemoryDetails, Error> {
    let mut number = |file| Ok::<_, Error>(reader.number(directory, file)?.unwrap_or(0));
    let mut memory = MemoryDetails {
        kernel: number("memory.kmem.usage_in_bytes")?,
        max_usage: number("memory.max_usage_in_bytes")?,
        limit_hits: number("memory.failcnt")?,
        ..MemoryDetails::default()
    };
    each_number(reader.read(directory, "memory.stat")?.unwrap_or_default(), |name, number| match name {
        "total_cache" => memory.cache = number,
        "total_mapped_file" => memory.mapped_file = number,
        "pgfault" => memory.own_page_faults = number,
        "pgmajfault" => memory.own_major_page_faults = number,
        _ => {}
    });
    each_number(reader.read(directory, "memory.oom_control")?.unwrap_or_default(), |name, number| {
        if name == "oom_kill" {
            memory.oom_kills = number;
        }
    });
    Ok(memory)
}

pub(in crate::cgroup) fn devices(
    reader: &mut Reader<'_>,
    directory: &Directory,
) -> Result<Vec<DeviceIo>, Error> {
    let mut devices = Vec::new();
    let bytes = reader.read(directory, "blkio.throttle.io_service_bytes_recursive")?.unwrap_or_default();
    each_device(bytes, &mut devices, |io| [&mut io.read_bytes, &mut io.write_bytes]);
    let counts = reader.read(directory, "blkio.throttle.io_serviced_recursive")?.unwrap_or_default();
    each_device(counts, &mut devices, |io| [&mut io.reads, &mut io.writes]);
    Ok(devices)
}

/// Takes in lines such as `8:0 Read 4096`.
fn each_device(content: &str, devices: &mut Vec<DeviceIo>, pick: impl Fn(&mut Io) -> [&mut u64; 2]) {
    for line in content.lines() {
        let mut fields = line.split(' ');
        let (Some(device), Some(operation), Some(number)) = (fields.next(), fields.next(), fields.next())
        else {
            continue;
        };
        let Some(io) = device_of(device, devices) else { continue };
        let [read, write] = pick(io);
        let value = number.parse().unwrap_or(0);
        match operation {
            "Read" => *read = value,
            "Write" => *write = value,
            _ => {}
        }
    }
}

fn device_of<'a>(name: &str, devices: &'a mut Vec<DeviceIo>) -> Option<&'a mut Io> {
    let (major, minor) = name.split_once(':')?;
    let (major, minor) = (major.parse().ok()?, minor.parse().ok()?);
    let known = devices.iter().position(|device| (device.major, device.minor) == (major, minor));
    let at = known.unwrap_or_else(|| {
        devices.push(DeviceIo { major, minor, io: Io::default() });
        devices.len() - 1
    });
    Some(&mut devices[at].io)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cgroup::fixture::directory_of;

    #[test]
    fn reads_processor_and_memory() {
        let (_root, directory) = directory_of(&[
            ("cpuacct.usage_user", "20"),
            ("cpuacct.usage_sys", "10"),
            ("cpu.stat", "nr_periods 5\nnr_throttled 2\nthrottled_time 7\n"),
            ("memory.kmem.usage_in_bytes", "50"),
            ("memory.max_usage_in_bytes", "900"),
            ("memory.failcnt", "4"),
            ("memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n"),
            ("memory.stat", "cache 1\npgfault 70\npgmajfault 7\ntotal_cache 250\ntotal_mapped_file 25\n"),
        ]);
        let mut read = CpuDetails::default();
        cpu(&mut Reader::new(None), &directory, &mut read).unwrap();
        let expected =
            CpuDetails { user_ns: 20, system_ns: 10, periods: 5, throttled_periods: 2, throttled_ns: 7 };
        assert_eq!(read, expected);
        let expected = MemoryDetails {
            cache: 250,
            mapped_file: 25,
            kernel: 50,
            max_usage: 900,
            limit_hits: 4,
            oom_kills: 3,
            own_page_faults: 70,
            own_major_page_faults: 7,
        };
        assert_eq!(memory(&mut Reader::new(None), &directory).unwrap(), expected);
    }

    #[test]
    fn reads_devices() {
        let (_root, directory) = directory_of(&[
            (
                "blkio.throttle.io_service_bytes_recursive",
                "8:0 Read 10\n8:0 Write 5\n8:0 Total 15\nTotal 15\n",
            ),
            ("blkio.throttle.io_serviced_recursive", "8:0 Read 2\n8:16 Write 1\nTotal 3\n"),
        ]);
        let io = |read_bytes, write_bytes, reads, writes| Io { read_bytes, write_bytes, reads, writes };
        let expected = [
            DeviceIo { major: 8, minor: 0, io: io(10, 5, 2, 0) },
            DeviceIo { major: 8, minor: 16, io: io(0, 0, 0, 1) },
        ];
        assert_eq!(devices(&mut Reader::new(None), &directory).unwrap(), expected);
    }
}
