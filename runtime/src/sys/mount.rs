//! mount_setattr(2), which rustix lacks.

use std::ffi::c_uint;
use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// Sets MOUNT_ATTR_* and a propagation type (MS_*, 0 for none) on the mount behind `fd`.
///
/// Where `set` names how access times are kept, the way before it is cleared.
pub(crate) fn set_attributes(fd: impl AsFd, set: u64, propagation: u64, recursive: bool) -> io::Result<()> {
    let attr_clr = if set & libc::MOUNT_ATTR__ATIME == 0 { 0 } else { libc::MOUNT_ATTR__ATIME };
    let attributes = libc::mount_attr { attr_set: set, attr_clr, propagation, userns_fd: 0 };
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the path is a static string, and the kernel reads no more of the structure than its size.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            fd.as_fd().as_raw_fd(),
            c"".as_ptr(),
            flags as c_uint,
            std::ptr::from_ref(&attributes),
            size_of::<libc::mount_attr>(),
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
