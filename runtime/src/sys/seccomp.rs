//! seccomp(2): installs a compiled filter.

use std::io;

use crate::seccomp::Program;

/// Filters every further system call of the calling thread; without CAP_SYS_ADMIN it needs no_new_privs.
///
/// Allocates nothing and takes no lock, so that it may be called after a fork.
pub fn install(program: &Program) -> io::Result<()> {
    let length = u16::try_from(program.len()).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
    // The kernel copies the filter from user memory byte by byte, so the pointer's alignment does not matter.
    let filter = libc::sock_fprog { len: length, filter: program.code().as_ptr().cast_mut().cast() };
    let flags = libc::c_ulong::from(program.flags());
    // SAFETY: `filter` points at `length` instructions of eight bytes that outlive the call, which only reads.
    let result = unsafe {
        libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, std::ptr::from_ref(&filter))
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests;
