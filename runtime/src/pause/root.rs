//! The root directory of pause: an empty one, or one with its own program.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountPropagationFlags, MoveMountFlags, UnmountFlags,
};

use crate::sys;

/// A file system that is mounted nowhere yet, with the label on all that is in it.
pub(super) fn make(label: Option<&str>) -> Result<OwnedFd, Errno> {
    let context = rustix::mount::fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    rustix::mount::fsconfig_set_string(context.as_fd(), "size", "4k")?;
    rustix::mount::fsconfig_set_string(context.as_fd(), "nr_inodes", "2")?;
    rustix::mount::fsconfig_set_string(context.as_fd(), "mode", "555")?;
    if let Some(label) = label {
        rustix::mount::fsconfig_set_string(context.as_fd(), "context", label)?;
    }
    rustix::mount::fsconfig_create(context.as_fd())?;
    rustix::mount::fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())
}

/// Puts the program into it, which anyone may execute and nobody read; returns the file.
pub(super) fn place(root: &OwnedFd, program: &[u8]) -> io::Result<OwnedFd> {
    let mode = Mode::XUSR | Mode::XGRP | Mode::XOTH;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    File::from(rustix::fs::openat(root, "pause", flags, mode)?).write_all(program)?;
    Ok(rustix::fs::openat(root, "pause", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?)
}

/// Leaves the host's tree, of which the new mount namespace has a copy, for it.
pub(super) fn enter(root: OwnedFd, has_program: bool) -> io::Result<()> {
    let mut attributes = libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NODEV;
    if !has_program {
        attributes |= libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NOEXEC;
    }
    sys::mount::set_attributes(&root, attributes, 0, false)?;
    rustix::mount::mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
    // A directory that is always there; nobody else sees what is mounted on it here.
    let place = rustix::fs::open("/proc", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    rustix::mount::move_mount(root.as_fd(), "", place.as_fd(), "", flags)?;
    rustix::process::fchdir(root)?;
    rustix::process::pivot_root(".", ".")?;
    rustix::mount::unmount(".", UnmountFlags::DETACH)?;
    Ok(rustix::process::chdir("/")?)
}
