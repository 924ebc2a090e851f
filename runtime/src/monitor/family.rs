//! Processes of a cgroup, found by reading: who descends from whom, for kills that the kernel cannot do at once.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Dir, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal};

use crate::cgroup::Handles;

/// Deeper trees of cgroups are nobody's.
const DEPTH: u32 = 16;

/// What `/proc/PID/stat` says of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Process {
    pid: i32,
    parent: i32,
    session: i32,
    state: u8,
    /// In ticks since boot; with the pid it names a process for good.
    started: u64,
}

/// A process, its descendants, and the sessions that any of them began.
#[derive(Debug)]
pub(super) struct Family {
    root: i32,
    /// Grows: who was born in one of these is found though its parents are gone.
    sessions: BTreeSet<i32>,
}

impl Family {
    /// `root` must not be reaped as long as this is used, so that its number stays its own.
    pub(super) fn of(root: i32) -> Self {
        Self { root, sessions: BTreeSet::from([root]) }
    }

    /// Kills those of the family that live in the cgroup; returns how many there were.
    pub(super) fn kill(&mut self, cgroup: &Handles) -> io::Result<usize> {
        let processes: Vec<Process> = pids(cgroup)?.into_iter().filter_map(Process::read).collect();
        let members = self.members(&processes);
        let living = members.iter().filter(|process| !process.is_dead());
        Ok(living.map(|process| process.kill()).filter(|was_there| *was_there).count())
    }

    fn members(&mut self, processes: &[Process]) -> Vec<Process> {
        let mut pids = BTreeSet::from([self.root]);
        loop {
            let before = (pids.len(), self.sessions.len());
            for process in processes {
                let is_child = pids.contains(&process.parent);
                if is_child || self.sessions.contains(&process.session) || process.pid == self.root {
                    pids.insert(process.pid);
                    if process.session == process.pid {
                        self.sessions.insert(process.pid);
                    }
                }
            }
            if before == (pids.len(), self.sessions.len()) {
                break;
            }
        }
        processes.iter().filter(|process| pids.contains(&process.pid)).copied().collect()
    }
}

/// Kills every process in a cgroup, one by one; who was born meanwhile is left for the next time.
pub(super) fn kill_all(cgroup: &Handles) -> io::Result<()> {
    for process in pids(cgroup)?.into_iter().filter_map(Process::read) {
        process.kill();
    }
    Ok(())
}

/// The cgroup that a process is in, which is the given one or below it.
pub(super) fn cgroup_below(dir: BorrowedFd<'_>, pid: i32) -> io::Result<OwnedFd> {
    let dir_path = std::fs::read_link(format!("/proc/self/fd/{}", dir.as_raw_fd()))?;
    let table = std::fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
    let below = below(&dir_path, &table).ok_or(io::ErrorKind::NotFound)?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::openat2(
        dir,
        below,
        flags,
        Mode::empty(),
        ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS,
    )?)
}

/// What `/proc/PID/cgroup` adds to a directory's path, wherever the hierarchy is mounted.
fn below<'a>(dir: &Path, table: &'a str) -> Option<&'a Path> {
    let cgroup = Path::new(table.lines().find_map(|line| line.strip_prefix("0::/"))?);
    let above = cgroup.ancestors().find(|above| !above.as_os_str().is_empty() && dir.ends_with(above))?;
    cgroup.strip_prefix(above).ok().filter(|below| !below.as_os_str().is_empty())
}

// === impl Process ===

impl Process {
    /// None when it is gone.
    fn read(pid: i32) -> Option<Self> {
        Self::parse(&std::fs::read(format!("/proc/{pid}/stat")).ok()?)
    }

    /// See proc_pid_stat(5); a name may contain anything, parentheses and newlines too.
    fn parse(stat: &[u8]) -> Option<Self> {
        let name = stat.iter().rposition(|byte| *byte == b')')?;
        let pid = std::str::from_utf8(stat.split(|byte| *byte == b' ').next()?).ok()?;
        let fields: Vec<&str> =
            std::str::from_utf8(&stat[name + 1..]).ok()?.split_ascii_whitespace().collect();
        Some(Self {
            pid: pid.parse().ok()?,
            state: *fields.first()?.as_bytes().first()?,
            parent: fields.get(1)?.parse().ok()?,
            session: fields.get(3)?.parse().ok()?,
            started: fields.get(19)?.parse().ok()?,
        })
    }

    fn is_dead(&self) -> bool {
        matches!(self.state, b'Z' | b'X')
    }

    /// Kills this very process; false when it was not there any more.
    fn kill(&self) -> bool {
        let pidfd = Pid::from_raw(self.pid)
            .and_then(|pid| rustix::process::pidfd_open(pid, PidfdFlags::empty()).ok());
        let Some(pidfd) = pidfd else { return false };
        // The number may have become another's before the pidfd was opened.
        let is_same = Self::read(self.pid).is_some_and(|now| now.started == self.started);
        is_same && rustix::process::pidfd_send_signal(pidfd, Signal::KILL).is_ok()
    }
}

/// Takes what a stage enters v1 cgroups by; what is needed to find the processes there stays.
pub(super) fn take_tasks(cgroup: &mut Handles) -> io::Result<Vec<OwnedFd>> {
    let tasks = std::mem::take(&mut cgroup.v1_tasks);
    if cgroup.unified.is_none() {
        cgroup.v1_tasks = tasks.iter().take(1).map(OwnedFd::try_clone).collect::<io::Result<_>>()?;
    }
    Ok(tasks)
}

/// The processes in a cgroup and below it.
fn pids(cgroup: &Handles) -> io::Result<Vec<i32>> {
    let mut pids = Vec::new();
    match (&cgroup.unified, cgroup.v1_tasks.first()) {
        (Some(dir), _) => collect(dir.as_fd(), &mut pids, DEPTH)?,
        (None, Some(tasks)) => {
            // All v1 hierarchies have the same processes, and this descriptor is for writing.
            let path = std::fs::read_link(format!("/proc/self/fd/{}", tasks.as_raw_fd()))?;
            let dir = path.parent().ok_or(io::ErrorKind::NotFound)?;
            collect(
                open_dir(rustix::fs::CWD, dir.as_os_str().as_encoded_bytes())?.as_fd(),
                &mut pids,
                DEPTH,
            )?;
        }
        (None, None) => {}
    }
    Ok(pids)
}

fn collect(dir: BorrowedFd<'_>, pids: &mut Vec<i32>, depth: u32) -> io::Result<()> {
    let file = rustix::fs::openat(dir, "cgroup.procs", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
    match file {
        Ok(file) => {
            let text = io::read_to_string(std::fs::File::from(file))?;
            pids.extend(text.lines().filter_map(|line| line.parse::<i32>().ok()).filter(|pid| *pid > 0));
        }
        // The cgroup is gone, or one for threads only.
        Err(Errno::NOENT | Errno::NODEV | Errno::OPNOTSUPP) => return Ok(()),
        Err(errno) => return Err(errno.into()),
    }
    if depth == 0 {
        return Ok(());
    }
    for entry in Dir::read_from(open_dir(dir, b".")?)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if entry.file_type() == FileType::Directory && name != b"." && name != b".." {
            // One that vanishes meanwhile has nobody in it.
            if let Ok(below) = open_dir(dir, name) {
                collect(below.as_fd(), pids, depth - 1)?;
            }
        }
    }
    Ok(())
}

fn open_dir(at: BorrowedFd<'_>, name: &[u8]) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(at, name, flags, Mode::empty())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(pid: i32, parent: i32, session: i32) -> Process {
        Process { pid, parent, session, state: b'S', started: 0 }
    }

    #[test]
    fn a_family_is_descendants_and_their_sessions() {
        let mut family = Family::of(10);
        let processes = [
            process(1, 0, 1),
            process(10, 1, 10),
            process(13, 11, 13), // a session of its own
            process(11, 10, 10),
            process(14, 1, 10), // its parent is gone, its session is not
            process(15, 14, 15),
            process(20, 1, 1),
            process(21, 20, 21),
        ];
        let mut pids: Vec<_> = family.members(&processes).iter().map(|process| process.pid).collect();
        pids.sort_unstable();
        assert_eq!(pids, [10, 11, 13, 14, 15]);
        // Later: found by a session that a member, gone by now, had begun.
        let later = [process(1, 0, 1), process(30, 1, 13), process(31, 1, 1)];
        assert_eq!(family.members(&later), [process(30, 1, 13)]);
    }

    #[test]
    fn names_do_not_confuse_the_parser() {
        let tail = "S 7 8 9 0 -1 4194304 0 0 0 0 0 0 0 0 20 0 1 0 12345 0 0";
        for name in ["sh", "a b", "x) S 1 1", ")(", "new\nline"] {
            let parsed = Process::parse(format!("42 ({name}) {tail}").as_bytes());
            let expected = Process { pid: 42, parent: 7, session: 9, state: b'S', started: 12345 };
            assert_eq!(parsed, Some(expected), "{name:?}");
        }
        assert_eq!(Process::parse(b"42 (sh"), None);
    }

    #[test]
    fn a_subtree_is_found_below_its_top() {
        let table = |path: &str| format!("4:memory:/x\n0::{path}\n");
        for (path, expected) in [
            ("/kubepods/pod1/ctr/init", Some("init")),
            ("/kubepods/pod1/ctr/a/b", Some("a/b")),
            ("/kubepods/pod1/ctr", None),
            ("/other/place", None),
            ("/", None),
        ] {
            let table = table(path);
            let found = below(Path::new("/sys/fs/cgroup/unified/kubepods/pod1/ctr"), &table);
            assert_eq!(found, expected.map(Path::new), "{path}");
        }
    }

    #[test]
    fn this_process_is_found() {
        let own = Process::read(std::process::id().cast_signed()).unwrap();
        assert_eq!(own.parent, rustix::process::getppid().unwrap().as_raw_pid());
    }
}
