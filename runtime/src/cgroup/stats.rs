//! What a cgroup uses: one open and, as a rule, one read a file.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::directory::Directory;
use super::hierarchy::{Controller, Hierarchies, Place};
use super::{CgroupPath, Error, v1, v2};

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
    /// Anonymous memory.
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

/// Keeps a cgroup's files open, so that reading them again costs a fifth; about ten descriptors.
#[derive(Debug)]
pub struct Meter {
    host: Arc<Hierarchies>,
    path: CgroupPath,
    kept: Kept,
}

/// Files that stay open; none stands for one that the host or the cgroup does not have.
type Kept = Vec<(&'static str, Option<OwnedFd>)>;

/// Reads files, each in whole, into one buffer.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    content: Vec<u8>,
    kept: Option<&'a mut Kept>,
}

// === impl Meter ===

impl Meter {
    pub(super) fn new(host: Arc<Hierarchies>, path: CgroupPath) -> Self {
        Self { host, path, kept: Vec::new() }
    }

    /// Reads what the cgroup uses; the first time opens the files.
    pub fn read(&mut self) -> Result<Stats, Error> {
        read(&mut Reader::new(Some(&mut self.kept)), &self.host, &self.path)
    }
}

/// Reads the statistics of one cgroup.
pub(super) fn read(reader: &mut Reader<'_>, host: &Hierarchies, path: &CgroupPath) -> Result<Stats, Error> {
    let cpu_usage_ns = match host.place(path, Controller::Cpuacct) {
        Some(Place::V1(directory)) => v1::stats::cpu(reader, &directory)?,
        Some(Place::V2(directory)) => v2::stats::cpu(reader, &directory)?,
        None => Some(0),
    };
    // Every cgroup counts its time, whatever controllers it has.
    let cpu_usage_ns = cpu_usage_ns.ok_or_else(|| Error::NotFound { path: path.clone() })?;
    let (memory, swap) = match host.place(path, Controller::Memory) {
        Some(Place::V1(directory)) => v1::stats::memory(reader, &directory)?,
        Some(Place::V2(directory)) => v2::stats::memory(reader, &directory)?,
        None => Default::default(),
    };
    let pids = match host.place(path, Controller::Pids) {
        Some(Place::V1(directory) | Place::V2(directory)) => reader.number(&directory, "pids.current")?,
        None => None,
    };
    let io = match host.place(path, Controller::Io) {
        Some(Place::V1(directory)) => v1::stats::io(reader, &directory)?,
        Some(Place::V2(directory)) => v2::stats::io(reader, &directory)?,
        None => None,
    };
    let psi = match host.unified(path) {
        Some(directory) => v2::stats::pressures(reader, &directory)?,
        None => None,
    };
    Ok(Stats { cpu_usage_ns, memory, swap, pids, io, psi })
}

// === impl Reader ===

impl<'a> Reader<'a> {
    /// More than any of these files has, but `io.stat` of a host with many devices.
    const USUAL: usize = 4096;

    pub(super) fn new(kept: Option<&'a mut Kept>) -> Self {
        Self { content: vec![0; Self::USUAL], kept }
    }

    /// The whole file; none when it, the cgroup or what it reports on is not there.
    pub(super) fn read(&mut self, directory: &Directory, file: &'static str) -> Result<Option<&str>, Error> {
        let content = match &mut self.kept {
            None => match open(directory, file)? {
                Some(open) => fill(&mut self.content, &open),
                None => Ok(None),
            },
            Some(kept) => {
                // The names differ from hierarchy to hierarchy.
                let at = match kept.iter().position(|(known, _)| *known == file) {
                    Some(at) => at,
                    None => {
                        kept.push((file, open(directory, file)?));
                        kept.len() - 1
                    }
                };
                kept[at].1.as_ref().map_or(Ok(None), |open| fill(&mut self.content, open))
            }
        };
        content.map_err(|errno| Error::Io {
            operation: "read".to_owned(),
            path: directory.path().join(file),
            source: errno.into(),
        })
    }

    /// A file with one number; none when there is no such file or no limit in it.
    pub(super) fn number(&mut self, directory: &Directory, file: &'static str) -> Result<Option<u64>, Error> {
        Ok(self.read(directory, file)?.and_then(|content| content.trim_end().parse().ok()))
    }
}

fn open(directory: &Directory, file: &'static str) -> Result<Option<OwnedFd>, Error> {
    let path = directory.path().join(file);
    match rustix::fs::open(&path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()) {
        Ok(open) => Ok(Some(open)),
        Err(errno) if is_absent(errno) => Ok(None),
        Err(errno) => Err(Error::Io { operation: "open".to_owned(), path, source: errno.into() }),
    }
}

/// Reads from the start.
fn fill<'a>(content: &'a mut Vec<u8>, open: &OwnedFd) -> Result<Option<&'a str>, Errno> {
    let mut length = 0;
    loop {
        match rustix::io::pread(open, &mut content[length..], length as u64) {
            Ok(read) => length += read,
            Err(Errno::INTR) => continue,
            Err(errno) if is_absent(errno) => return Ok(None),
            Err(errno) => return Err(errno),
        }
        // The kernel writes such a file in one piece: only a full buffer may have cut it.
        if length < content.len() {
            return Ok(std::str::from_utf8(&content[..length]).ok());
        }
        content.resize(content.len() * 2, 0);
    }
}

/// Pressure files answer EOPNOTSUPP when the kernel was told not to keep them.
fn is_absent(errno: Errno) -> bool {
    matches!(errno, Errno::NOENT | Errno::NODEV | Errno::OPNOTSUPP)
}

/// Calls `take` with each name and number of lines such as `pgfault 5`.
pub(super) fn each_number(content: &str, mut take: impl FnMut(&str, u64)) {
    for line in content.lines() {
        if let Some((name, number)) = line.split_once(' ')
            && let Ok(number) = number.parse()
        {
            take(name, number);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cgroup::fixture::directory_of;

    #[test]
    fn reads_files_longer_than_the_buffer() {
        let long = "x".repeat(Reader::USUAL * 3);
        let (_root, directory) =
            directory_of(&[("long", &long), ("exact", &long[..Reader::USUAL]), ("n", "7\n")]);
        let mut kept = Vec::new();
        for mut reader in [Reader::new(None), Reader::new(Some(&mut kept))] {
            for _ in 0..2 {
                assert_eq!(reader.read(&directory, "long").unwrap(), Some(long.as_str()));
                assert_eq!(reader.read(&directory, "exact").unwrap(), Some(&long[..Reader::USUAL]));
                assert_eq!(reader.number(&directory, "n").unwrap(), Some(7));
                assert_eq!(reader.number(&directory, "gone").unwrap(), None);
            }
        }
    }
}
