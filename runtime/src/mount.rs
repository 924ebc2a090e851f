//! Mounts in the host's own namespace: the few that several containers of a pod share.
//!
//! A container's own mounts are made by its init stage ([`crate::native`]), where nobody else sees them.

use std::io;
use std::path::Path;

use rustix::mount::{MountFlags, UnmountFlags};

/// Mounts a tmpfs of at most `bytes`, writable by everyone, as `/dev/shm` is (shm_overview(7)).
///
/// # Errors
/// What mount(2) says.
pub fn shared_memory(dir: &Path, bytes: u64) -> io::Result<()> {
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    let options = std::ffi::CString::new(format!("mode=1777,size={bytes}")).map_err(io::Error::other)?;
    Ok(rustix::mount::mount("shm", dir, "tmpfs", flags, options.as_c_str())?)
}

/// Unmounts what is mounted on `dir` as soon as nobody uses it; fine when nothing is.
///
/// # Errors
/// What umount2(2) says.
pub fn detach(dir: &Path) -> io::Result<()> {
    match rustix::mount::unmount(dir, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOENT) | Ok(()) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
