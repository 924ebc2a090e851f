//! waitid(2), where the safe crates do not tell whose end it was.

use std::io;

/// A child that has ended and was not reaped; it stays as it is.
pub(crate) fn next_zombie() -> io::Result<Option<i32>> {
    // SAFETY: the structure is plain numbers, for which zeros are valid.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    // SAFETY: `info` is a place for the answer that outlives the call.
    let result =
        unsafe { libc::waitid(libc::P_ALL, 0, &raw mut info, libc::WEXITED | libc::WNOHANG | libc::WNOWAIT) };
    if result != 0 {
        let error = io::Error::last_os_error();
        return if error.raw_os_error() == Some(libc::ECHILD) { Ok(None) } else { Err(error) };
    }
    // SAFETY: waitid(2) fills in this member, or leaves its zero when there is no such child.
    let pid = unsafe { info.si_pid() };
    Ok((pid != 0).then_some(pid))
}
