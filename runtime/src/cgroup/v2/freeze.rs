//! `cgroup.freeze` and `cgroup.events`.

use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::cgroup::Error;
use crate::cgroup::directory::Directory;

const FREEZE: &str = "cgroup.freeze";
const EVENTS: &str = "cgroup.events";

/// Whether the processes stand still before the deadline.
pub(in crate::cgroup) fn freeze(directory: &Directory, deadline: Instant) -> Result<bool, Error> {
    directory.write(FREEZE, "1")?;
    wait(directory, "frozen 1", deadline)
}

pub(in crate::cgroup) fn thaw(directory: &Directory) -> Result<(), Error> {
    directory.write(FREEZE, "0")
}

/// Waits until `cgroup.events` has the line; false when it has not at the deadline.
pub(in crate::cgroup) fn wait(directory: &Directory, line: &str, deadline: Instant) -> Result<bool, Error> {
    let path = directory.path().join(EVENTS);
    let fail = |operation: &str, errno: Errno| Error::Io {
        operation: operation.to_owned(),
        path: path.clone(),
        source: errno.into(),
    };
    let events = rustix::fs::open(&path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .map_err(|errno| fail("open", errno))?;
    loop {
        let mut content = [0; 256];
        let length = rustix::io::pread(&events, &mut content, 0).map_err(|errno| fail("read", errno))?;
        if content[..length].split(|byte| *byte == b'\n').any(|found| found == line.as_bytes()) {
            return Ok(true);
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(false);
        }
        let timeout = Timespec::try_from(left).unwrap_or(Timespec { tv_sec: 1, tv_nsec: 0 });
        match poll(&mut [PollFd::new(&events, PollFlags::PRI)], Some(&timeout)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(fail("wait for", errno)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cgroup::fixture::directory_of;

    #[test]
    fn knows_what_already_is() {
        let (_root, directory) = directory_of(&[(EVENTS, "populated 0\nfrozen 0\n"), (FREEZE, "0")]);
        assert!(wait(&directory, "populated 0", Instant::now()).unwrap());
        assert!(!freeze(&directory, Instant::now()).unwrap());
        assert_eq!(directory.read(FREEZE).unwrap(), "1");
        thaw(&directory).unwrap();
        assert_eq!(directory.read(FREEZE).unwrap(), "0");
    }
}
