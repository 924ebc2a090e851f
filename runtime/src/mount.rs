//! Mounts in the host's own namespace: the few that several containers of a pod share.
//!
//! A container's own mounts are made by its init stage ([`crate::native`]), where nobody else sees them.

use std::ffi::CString;
use std::io;
use std::os::fd::BorrowedFd;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, StatxAttributes, StatxFlags};
use rustix::mount::{MountFlags, UnmountFlags};

use crate::Failure;
use crate::native::home;
use crate::native::overlay::{Stack, Top};

/// The layers of an image.
#[derive(Debug, Clone, Copy)]
pub struct Layers<'a> {
    /// The directory that the names in `lowers` are relative to.
    pub dir: &'a Path,
    /// The layers' directories, the topmost first.
    pub lowers: &'a [String],
    /// The user namespace whose ids the files get; none for those that they have.
    pub users: Option<BorrowedFd<'a>>,
    /// SELinux' context of the files.
    pub label: Option<&'a str>,
}

/// Mounts an image's layers, read-only, on the directory `place`; `bottom` is an empty directory.
///
/// # Errors
/// What the kernel says.
pub fn image(layers: Layers<'_>, bottom: &Path, place: &Path) -> Result<(), Failure> {
    let lowers = layers.lowers.iter().map(|name| c_string(name.as_bytes())).collect::<Result<Vec<_>, _>>()?;
    let (dir, bottom, place) = (c_path(layers.dir)?, c_path(bottom)?, c_path(place)?);
    let label = layers.label.map(|label| c_string(label.as_bytes())).transpose()?;
    let top = Top::Nothing { bottom: &bottom };
    let stack = Stack { layers: &dir, lowers: &lowers, top, label: label.as_deref() };
    match layers.users {
        None => home::stack(&stack, &place),
        Some(users) => home::stack_with_ids(&stack, &place, users),
    }
}

/// Binds the directory or file at `path` inside the tree mounted on `home` to `place`, which is made.
///
/// Links are followed inside of the tree only.
///
/// # Errors
/// ENOENT and its like when there is no such directory or file; else what the kernel says.
pub fn inside(home: &Path, path: &Path, place: &Path) -> Result<(), Failure> {
    home::bind_inside(&c_path(home)?, &c_path(path)?, &c_path(place)?)
}

/// Whether a mount is on `path`; a path that leads nowhere has none.
///
/// # Errors
/// What statx(2) says.
pub fn is_mounted(path: &Path) -> io::Result<bool> {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
    match rustix::fs::statx(CWD, path, flags, StatxFlags::TYPE) {
        Ok(found) => Ok(found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT)),
        Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

/// Mounts a tmpfs of at most `bytes`, writable by everyone, as `/dev/shm` is (shm_overview(7)), of user and
/// group `owner`; with SELinux' context `label`.
///
/// # Errors
/// What mount(2) says.
pub fn shared_memory(dir: &Path, bytes: u64, owner: u32, label: Option<&str>) -> io::Result<()> {
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    // Quoted, since a level has commas.
    let label = label.map(|label| format!(",context=\"{label}\"")).unwrap_or_default();
    let options = format!("mode=1777,size={bytes},uid={owner},gid={owner}{label}");
    let options = CString::new(options).map_err(io::Error::other)?;
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

fn c_path(path: &Path) -> Result<CString, Failure> {
    use std::os::unix::ffi::OsStrExt;
    c_string(path.as_os_str().as_bytes())
}

fn c_string(bytes: &[u8]) -> Result<CString, Failure> {
    CString::new(bytes).map_err(|_| Failure::setup("a path has a NUL byte", libc::EINVAL))
}
