//! What runs in a cgroup and below it: listing it and ending it.

use std::collections::HashSet;
use std::fs;
use std::os::fd::OwnedFd;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::Error;
use super::directory::Directory;

const PROCS: &str = "cgroup.procs";
const KILL: &str = "cgroup.kill";

/// A fork bomb is quicker than one pass; it is dead long before so many.
const KILL_ROUNDS: usize = 256;
/// How long a round waits for one of its processes to end.
const KILL_ROUND: Timespec = Timespec { tv_sec: 0, tv_nsec: 20_000_000 };
/// How many cgroups a container may have made for Corten to look into them.
const TREE_MAX: usize = 65_536;

/// The cgroup and all below it, each before what is above it; empty when it is gone.
pub(super) fn tree(top: &Directory) -> Result<Vec<Directory>, Error> {
    let mut found = vec![top.clone()];
    let mut next = 0;
    while let Some(directory) = found.get(next).cloned() {
        next += 1;
        let entries = match fs::read_dir(directory.path()) {
            Ok(entries) => entries,
            Err(source) => {
                let error = directory.error("list", source);
                if error.is_missing() {
                    continue;
                }
                return Err(error);
            }
        };
        for entry in entries {
            let entry = entry.map_err(|source| directory.error("list", source))?;
            if found.len() < TREE_MAX && entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                found.push(Directory::new(entry.path()));
            }
        }
    }
    found.reverse();
    Ok(found)
}

/// The processes in the cgroup and below it, each once.
pub(super) fn list(top: &Directory) -> Result<Vec<i32>, Error> {
    let mut found: Vec<i32> = Vec::new();
    for directory in tree(top)? {
        match directory.read_if_there(PROCS) {
            // 0 stands for a process that the reader's PID namespace does not know.
            Ok(pids) => found
                .extend(pids.iter().flat_map(|pids| pids.lines()).filter_map(|pid| pid.parse::<i32>().ok())),
            // A threaded cgroup lists its processes at the root of its domain.
            Err(Error::Io { source, .. }) if source.raw_os_error() == Some(libc::EOPNOTSUPP) => {}
            Err(error) => return Err(error),
        }
    }
    found.retain(|pid| *pid > 0);
    found.sort_unstable();
    found.dedup();
    Ok(found)
}

/// Kills by the kernel's own means; false where it has none.
pub(super) fn kill_at_once(unified: &Directory) -> Result<bool, Error> {
    match unified.write(KILL, "1") {
        Ok(()) => Ok(true),
        // Gone, or a kernel before 5.14.
        Err(error) if error.is_missing() => Ok(!unified.has(PROCS)),
        Err(error) => Err(error),
    }
}

/// Kills one by one until nothing is left to kill.
pub(super) fn kill_each(top: &Directory) -> Result<(), Error> {
    for _ in 0..KILL_ROUNDS {
        let held = signal_all(top)?;
        if held.is_empty() {
            break;
        }
        let mut ended: Vec<PollFd<'_>> = held.iter().map(|pidfd| PollFd::new(pidfd, PollFlags::IN)).collect();
        match poll(&mut ended, Some(&KILL_ROUND)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(top.error("wait for the processes of", errno.into())),
        }
    }
    Ok(())
}

/// Signals each process of the cgroup once.
pub(super) fn signal_all(top: &Directory) -> Result<Vec<OwnedFd>, Error> {
    let open = |pid: i32| {
        let pidfd = pidfd_open(Pid::from_raw(pid)?, PidfdFlags::empty()).ok()?;
        Some((pid, pidfd))
    };
    let held: Vec<(i32, OwnedFd)> = list(top)?.into_iter().filter_map(open).collect();
    if held.is_empty() {
        return Ok(Vec::new());
    }
    // A number may have passed to a stranger before it was opened: only what is still listed is meant.
    let still: HashSet<i32> = list(top)?.into_iter().collect();
    let meant = held.into_iter().filter(|(pid, _)| still.contains(pid)).map(|(_, pidfd)| pidfd);
    // One that has ended meanwhile is as good as killed.
    Ok(meant.filter(|pidfd| pidfd_send_signal(pidfd, Signal::KILL).is_ok()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_the_whole_tree() {
        let root = tempfile::tempdir().unwrap();
        for (below, pids) in [("", "5\n0\n"), ("a", "7\n"), ("a/b", "6\n7\n"), ("c", "")] {
            let path = root.path().join(below);
            fs::create_dir_all(&path).unwrap();
            fs::write(path.join(PROCS), pids).unwrap();
        }
        let top = Directory::new(root.path().to_owned());
        assert_eq!(list(&top).unwrap(), [5, 6, 7]);
        let tree = tree(&top).unwrap();
        assert_eq!(tree.len(), 4);
        assert_eq!(tree.last(), Some(&top));
        let at = |below: &str| tree.iter().position(|found| found.path() == root.path().join(below)).unwrap();
        assert!(at("a/b") < at("a"));
        assert!(list(&Directory::new(root.path().join("gone"))).unwrap().is_empty());
    }
}
