//! Processor time by cgroup: it counts processes that have ended, and no noise of others.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;
use corten_tests::Result;

/// Nanoseconds that the processes of these cgroups have used so far; one that is not there used none.
pub(crate) fn used_ns(groups: &[String]) -> u64 {
    groups.iter().filter_map(|group| read(group)).sum()
}

/// Moves a process into a cgroup made for it, so that its use is counted.
pub(crate) fn enter(group: &str, pid: u32) -> Result {
    let dir = directory(group);
    fs::create_dir_all(&dir).with_context(|| format!("make {}", dir.display()))?;
    fs::write(dir.join("cgroup.procs"), pid.to_string()).with_context(|| format!("enter {}", dir.display()))
}

/// The file that lists the processes of a cgroup made by [`enter`].
pub(crate) fn processes_file(group: &str) -> PathBuf {
    directory(group).join("cgroup.procs")
}

/// Removes a cgroup made by [`enter`].
pub(crate) fn remove(group: &str) {
    // Not there, or somebody is still in it: then the census of the tests says so.
    fs::remove_dir(directory(group)).ok();
}

fn read(group: &str) -> Option<u64> {
    let dir = directory(group);
    if let Ok(text) = fs::read_to_string(dir.join("cpuacct.usage")) {
        return text.trim().parse().ok();
    }
    let stat = fs::read_to_string(dir.join("cpu.stat")).ok()?;
    let usec = stat.lines().find_map(|line| line.strip_prefix("usage_usec "))?;
    usec.parse::<u64>().ok().map(|usec| usec * 1000)
}

fn directory(group: &str) -> PathBuf {
    let v1 = Path::new("/sys/fs/cgroup/cpuacct");
    let root = if v1.exists() { v1 } else { Path::new("/sys/fs/cgroup") };
    root.join(group.trim_start_matches('/'))
}
