//! Whether a file system takes idmapped mounts: tried on a mount that is attached nowhere.

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags};
use rustix::mount::{OpenTreeFlags, open_tree};
use rustix::process::{Signal, WaitId, WaitIdOptions};

use crate::sys;
use crate::sys::clone::{self, Program};

/// The child needs it from clone3(2) to execveat(2).
const STACK_BYTES: usize = 64 << 10;

/// Maps some ids of a mount of the directory, or of the nearest one above it that is there.
pub(super) fn probe(pause: BorrowedFd<'_>, dir: &Path) -> io::Result<()> {
    let dir = dir.ancestors().find(|dir| dir.is_dir()).unwrap_or_else(|| Path::new("/"));
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let mount = open_tree(CWD, dir, flags)?;
    sys::mount::map_ids(mount, user_namespace(pause)?)
}

/// A user namespace with an id: that of a child which is gone when this returns.
fn user_namespace(pause: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let program = Program { file: pause, arguments: &[c"/pause"], fds: &[], namespaces: libc::CLONE_NEWUSER };
    let (pid, pidfd) = clone::spawn(&program, None, &mut vec![0; STACK_BYTES])?;
    let namespace = mapped(pid);
    rustix::process::pidfd_send_signal(&pidfd, Signal::KILL)?;
    rustix::process::waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED)?;
    namespace
}

fn mapped(pid: i32) -> io::Result<OwnedFd> {
    for file in ["uid_map", "gid_map"] {
        fs::write(format!("/proc/{pid}/{file}"), "0 65536 1\n")?;
    }
    let path = format!("/proc/{pid}/ns/user");
    Ok(rustix::fs::openat(CWD, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_systems_are_told_apart() {
        let pause = crate::pause::program().unwrap();
        let kind = |dir: &Path| probe(pause.as_fd(), dir).map_err(|error| error.raw_os_error());
        assert_eq!(kind(Path::new("/proc")), Err(Some(libc::EINVAL)));
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(kind(&dir.path().join("not/there")), kind(dir.path()));
    }
}
