//! oom_score_adj of what runs in a cgroup: no limit of the kernel's, but changed together with them.

use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;

use super::Error;
use super::directory::Directory;
use super::processes;

/// A process may fork while the others are gone through; its child has what it had at that moment.
const ROUNDS: usize = 16;

pub(super) fn set(directory: &Directory, score: i32) -> Result<(), Error> {
    let mut done: Vec<i32> = Vec::new();
    for _ in 0..ROUNDS {
        let mut new = processes::list(directory)?;
        new.retain(|pid| !done.contains(pid));
        if new.is_empty() {
            break;
        }
        set_each(directory, &new, score)?;
        done.extend(new);
    }
    Ok(())
}

/// A number may have gone to another process since it was listed: its directory is opened first, and what is listed
/// again after that is the process that the directory is of, or the directory is of nobody.
fn set_each(directory: &Directory, pids: &[i32], score: i32) -> Result<(), Error> {
    let open = |pid: &i32| {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Some((*pid, rustix::fs::openat(CWD, format!("/proc/{pid}"), flags, Mode::empty()).ok()?))
    };
    let opened: Vec<_> = pids.iter().filter_map(open).collect();
    let still = processes::list(directory)?;
    for (pid, process) in opened.iter().filter(|(pid, _)| still.contains(pid)) {
        let write = || {
            let file = rustix::fs::openat(
                process,
                c"oom_score_adj",
                OFlags::WRONLY | OFlags::CLOEXEC,
                Mode::empty(),
            )?;
            rustix::io::write(&file, score.to_string().as_bytes())
        };
        match write() {
            // It ended, or the caller may not.
            Ok(_) | Err(Errno::NOENT | Errno::SRCH | Errno::ACCESS | Errno::PERM) => {}
            Err(errno) => {
                return Err(Error::Io {
                    operation: format!("write {score} to"),
                    path: format!("/proc/{pid}/oom_score_adj").into(),
                    source: errno.into(),
                });
            }
        }
    }
    Ok(())
}
