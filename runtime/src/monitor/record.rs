//! Exits on disk, for daemons that were not there: written under another name and renamed, never synced,
//! since they are only worth something as long as the node runs.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;

use crate::Exit;

/// Below the pod's directory, one file for each container.
const DIRECTORY: &str = "exit";

/// Records an exit.
pub(super) fn write(pod: &OwnedFd, id: &str, exit: &Exit) -> io::Result<()> {
    let bytes = postcard::to_stdvec(exit).map_err(io::Error::other)?;
    match rustix::fs::mkdirat(pod, DIRECTORY, Mode::RWXU) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(errno) => return Err(errno.into()),
    }
    let dir = rustix::fs::openat(
        pod,
        DIRECTORY,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    let partial = format!(".{id}");
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = rustix::fs::openat(dir.as_fd(), &partial, flags, Mode::RUSR | Mode::WUSR)?;
    if rustix::io::write(file, &bytes)? < bytes.len() {
        return Err(Errno::NOSPC.into());
    }
    Ok(rustix::fs::renameat(dir.as_fd(), &partial, dir.as_fd(), id)?)
}

/// Removes a record; one that was never written is fine.
pub(super) fn remove(pod: &OwnedFd, id: &str) {
    rustix::fs::unlinkat(pod, format!("{DIRECTORY}/{id}"), AtFlags::empty()).ok();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_recorded_can_be_read() {
        let dir = tempfile::tempdir().unwrap();
        let fd = rustix::fs::open(dir.path(), OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).unwrap();
        assert_eq!(crate::recorded_exit(dir.path(), "a"), None);
        for code in [137, 0] {
            let exit = Exit { code, at_ns: 1_795_320_306_000_000_042, oom_killed: code != 0 };
            write(&fd, "a", &exit).unwrap();
            assert_eq!(crate::recorded_exit(dir.path(), "a"), Some(exit));
        }
        remove(&fd, "a");
        remove(&fd, "a");
        assert_eq!(crate::recorded_exit(dir.path(), "a"), None);
        assert_eq!(std::fs::read_dir(dir.path().join("exit")).unwrap().count(), 0);
    }
}
