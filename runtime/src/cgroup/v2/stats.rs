//! `cpu.stat`, `memory.stat`, `io.stat` and `*.pressure`.

use crate::cgroup::directory::Directory;
use crate::cgroup::stats::{Reader, each_number};
use crate::cgroup::{Error, Io, Memory, Pressure, PressureLine, Pressures, Swap};

/// Nanoseconds.
pub(in crate::cgroup) fn cpu(reader: &mut Reader<'_>, directory: &Directory) -> Result<Option<u64>, Error> {
    Ok(reader.read(directory, "cpu.stat")?.map(parse_cpu))
}

fn parse_cpu(content: &str) -> u64 {
    let mut usage = 0_u64;
    each_number(content, |name, number| {
        if name == "usage_usec" {
            usage = number.saturating_mul(1000);
        }
    });
    usage
}

pub(in crate::cgroup) fn memory(
    reader: &mut Reader<'_>,
    directory: &Directory,
) -> Result<(Memory, Option<Swap>), Error> {
    // The root and a cgroup without the controller have none of these.
    let Some(usage) = reader.number(directory, "memory.current")? else { return Ok(Default::default()) };
    let limit = reader.number(directory, "memory.max")?;
    let memory = parse_memory(usage, limit, reader.read(directory, "memory.stat")?.unwrap_or_default());
    let swap = match reader.number(directory, "memory.swap.current")? {
        Some(usage) => {
            let limit = reader.number(directory, "memory.swap.max")?;
            Some(Swap { usage, available: limit.map(|limit| limit.saturating_sub(usage)) })
        }
        None => None,
    };
    Ok((memory, swap))
}

fn parse_memory(usage: u64, limit: Option<u64>, content: &str) -> Memory {
    let mut memory = Memory { usage, ..Memory::default() };
    let mut inactive = 0;
    each_number(content, |name, number| match name {
        "anon" => memory.rss = number,
        "inactive_file" => inactive = number,
        "pgfault" => memory.page_faults = number,
        "pgmajfault" => memory.major_page_faults = number,
        _ => {}
    });
    memory.working_set = usage.saturating_sub(inactive);
    memory.available = limit.map(|limit| limit.saturating_sub(memory.working_set));
    memory
}

pub(in crate::cgroup) fn io(reader: &mut Reader<'_>, directory: &Directory) -> Result<Option<Io>, Error> {
    Ok(reader.read(directory, "io.stat")?.map(parse_io))
}

/// Sums lines such as `8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0`.
pub(super) fn parse_io(content: &str) -> Io {
    let mut io = Io::default();
    for (name, number) in content.split_ascii_whitespace().filter_map(|field| field.split_once('=')) {
        let sum = match name {
            "rbytes" => &mut io.read_bytes,
            "wbytes" => &mut io.write_bytes,
            "rios" => &mut io.reads,
            "wios" => &mut io.writes,
            _ => continue,
        };
        *sum = sum.saturating_add(number.parse().unwrap_or(0));
    }
    io
}

pub(in crate::cgroup) fn pressures(
    reader: &mut Reader<'_>,
    directory: &Directory,
) -> Result<Option<Pressures>, Error> {
    let mut read = |file| Ok::<_, Error>(reader.read(directory, file)?.map(parse_pressure));
    let Some(cpu) = read("cpu.pressure")? else { return Ok(None) };
    let memory = read("memory.pressure")?.unwrap_or_default();
    let io = read("io.pressure")?.unwrap_or_default();
    Ok(Some(Pressures { cpu, memory, io }))
}

/// `some avg10=0.00 avg60=0.00 avg300=0.00 total=0`, and `full` likewise.
fn parse_pressure(content: &str) -> Pressure {
    let mut pressure = Pressure::default();
    for line in content.lines() {
        let mut fields = line.split(' ');
        let parsed = match fields.next() {
            Some("some") => &mut pressure.some,
            Some("full") => &mut pressure.full,
            _ => continue,
        };
        *parsed = parse_line(fields);
    }
    pressure
}

fn parse_line<'a>(fields: impl Iterator<Item = &'a str>) -> PressureLine {
    let mut line = PressureLine::default();
    for (name, value) in fields.filter_map(|field| field.split_once('=')) {
        let average = || value.parse().unwrap_or(0.0);
        match name {
            "avg10" => line.avg10 = average(),
            "avg60" => line.avg60 = average(),
            "avg300" => line.avg300 = average(),
            "total" => line.total_us = value.parse().unwrap_or(0),
            _ => {}
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cgroup::fixture::directory_of;

    #[test]
    fn reads_time() {
        assert_eq!(parse_cpu("usage_usec 152612972\nuser_usec 109105458\n"), 152_612_972_000);
        assert_eq!(parse_cpu(""), 0);
    }

    #[test]
    fn reads_memory_and_swap() {
        let stat = "anon 300\nfile 250\ninactive_file 100\nactive_file 9\npgfault 70\npgmajfault 7\n";
        let files = [
            ("memory.current", "600"),
            ("memory.max", "1000"),
            ("memory.stat", stat),
            ("memory.swap.current", "50"),
            ("memory.swap.max", "max"),
        ];
        let (_root, directory) = directory_of(&files);
        let (memory, swap) = memory(&mut Reader::new(None), &directory).unwrap();
        let expected = Memory {
            usage: 600,
            working_set: 500,
            available: Some(500),
            rss: 300,
            page_faults: 70,
            major_page_faults: 7,
        };
        assert_eq!(memory, expected);
        assert_eq!(swap, Some(Swap { usage: 50, available: None }));
    }

    #[test]
    fn reads_nothing_without_the_controller() {
        let (_root, directory) = directory_of(&[]);
        let mut reader = Reader::new(None);
        assert_eq!(memory(&mut reader, &directory).unwrap(), (Memory::default(), None));
        assert_eq!(io(&mut reader, &directory).unwrap(), None);
        assert_eq!(pressures(&mut reader, &directory).unwrap(), None);
    }

    #[test]
    fn sums_devices() {
        let io = parse_io("8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6\n8:16 rbytes=10 wbytes=x\n");
        assert_eq!(io, Io { read_bytes: 11, write_bytes: 2, reads: 3, writes: 4 });
    }

    #[test]
    fn reads_pressure() {
        let content = "some avg10=1.50 avg60=0.20 avg300=0.00 total=1234\n\
            full avg10=0.25 avg60=0.00 avg300=0.00 total=99\n";
        let pressure = parse_pressure(content);
        let some = PressureLine { avg10: 1.5, avg60: 0.2, avg300: 0.0, total_us: 1234 };
        assert_eq!(pressure.some, some);
        assert_eq!(pressure.full.total_us, 99);
    }
}
