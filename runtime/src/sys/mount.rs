//! mount_setattr(2), which rustix lacks.

use std::ffi::c_uint;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

/// Sets MOUNT_ATTR_* and a propagation type (MS_*, 0 for none) on the mount behind `fd`.
///
/// Where `set` names how access times are kept, the way before it is cleared.
pub(crate) fn set_attributes(fd: impl AsFd, set: u64, propagation: u64, recursive: bool) -> io::Result<()> {
    let attr_clr = if set & libc::MOUNT_ATTR__ATIME == 0 { 0 } else { libc::MOUNT_ATTR__ATIME };
    let attributes = libc::mount_attr { attr_set: set, attr_clr, propagation, userns_fd: 0 };
    call(fd.as_fd(), &attributes, if recursive { libc::AT_RECURSIVE } else { 0 })
}

/// Shows the files of a mount that is attached nowhere with the ids of a user namespace.
pub(crate) fn map_ids(fd: impl AsFd, users: impl AsFd) -> io::Result<()> {
    // A descriptor is never negative.
    let userns_fd = u64::from(users.as_fd().as_raw_fd().cast_unsigned());
    let attributes =
        libc::mount_attr { attr_set: libc::MOUNT_ATTR_IDMAP, attr_clr: 0, propagation: 0, userns_fd };
    call(fd.as_fd(), &attributes, 0)
}

fn call(fd: BorrowedFd<'_>, attributes: &libc::mount_attr, flags: libc::c_int) -> io::Result<()> {
    let flags = libc::AT_EMPTY_PATH | flags;
    // SAFETY: the path is a static string, and the kernel reads no more of the structure than its size.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            fd.as_raw_fd(),
            c"".as_ptr(),
            flags as c_uint,
            std::ptr::from_ref(attributes),
            size_of::<libc::mount_attr>(),
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
