//! Descriptors as numbers: those a program is started with, and those a child must not keep.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicU32, Ordering};

/// Takes a descriptor that this program was started with, once.
pub(crate) fn take_inherited(fd: RawFd) -> io::Result<OwnedFd> {
    static TAKEN: AtomicU32 = AtomicU32::new(0);
    let bad = || io::Error::from_raw_os_error(libc::EBADF);
    let bit = fd.try_into().ok().and_then(|fd| 1_u32.checked_shl(fd)).ok_or_else(bad)?;
    if TAKEN.fetch_or(bit, Ordering::Relaxed) & bit != 0 {
        return Err(bad());
    }
    // SAFETY: reads a flag of a number that may or may not be a descriptor.
    if unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) } < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: it is open, and no one else in this program owns a number that came with exec.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Closes every descriptor above 2 that is not in `keep`, which it sorts.
///
/// Only for a child that never returns to where the owners of the others are dropped.
pub(crate) fn close_others(keep: &mut [RawFd]) {
    keep.sort_unstable();
    let mut first: u32 = 3;
    for fd in keep {
        let Ok(fd) = u32::try_from(*fd) else { continue };
        if fd > first {
            close_range(first, fd - 1);
        }
        first = first.max(fd.saturating_add(1));
    }
    close_range(first, u32::MAX);
}

fn close_range(first: u32, last: u32) {
    // SAFETY: has no pointers; who owned these descriptors does not run in this process, see above.
    unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
}
