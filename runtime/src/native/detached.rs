//! Mounts that are attached nowhere yet: made, configured, then moved from descriptor to descriptor.

use std::ffi::CStr;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::CWD;
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, fsconfig_create,
    fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, move_mount, open_tree,
};

use super::failure::{Context, Failure};
use crate::plan::steps::{Attributes, Parameter};
use crate::sys;

/// Makes a file system with these parameters; the attributes are those of its mount.
pub(super) fn filesystem(name: &CStr, data: &[Parameter], attributes: u64) -> Result<OwnedFd, Failure> {
    let context = fsopen(name, FsOpenFlags::FSOPEN_CLOEXEC).during(|| open_text(name))?;
    // What df(1) and mount(8) show; where a file system does not take it, they show nothing.
    fsconfig_set_string(&context, c"source", name).ok();
    for (key, value) in data {
        let set = match value {
            Some(value) => fsconfig_set_string(&context, key, value),
            None => fsconfig_set_flag(&context, key),
        };
        set.map_err(|errno| explain(&context, &format!("mount {}: {}", show(name), show(key)), errno))?;
    }
    create(&context, name, attributes)
}

/// Makes the file system that the context describes.
pub(super) fn create(context: &OwnedFd, name: &CStr, attributes: u64) -> Result<OwnedFd, Failure> {
    let what = || format!("mount {}", show(name));
    fsconfig_create(context).map_err(|errno| explain(context, &what(), errno))?;
    let flags = MountAttrFlags::from_bits_retain(u32::try_from(attributes).unwrap_or_default());
    fsmount(context, FsMountFlags::FSMOUNT_CLOEXEC, flags).during(what)
}

/// Clones the tree, or the one mount, at a path of the host.
pub(super) fn clone_path(path: &CStr, recursive: bool) -> Result<OwnedFd, Errno> {
    let recursive = if recursive { OpenTreeFlags::AT_RECURSIVE } else { OpenTreeFlags::empty() };
    open_tree(CWD, path, OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | recursive)
}

/// Clones what is behind a descriptor of an attached mount.
pub(super) fn clone_fd(fd: impl AsFd, recursive: bool) -> Result<OwnedFd, Errno> {
    let recursive = if recursive { OpenTreeFlags::AT_RECURSIVE } else { OpenTreeFlags::empty() };
    let flags =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    open_tree(fd, c"", flags | recursive)
}

/// Sets what the plan says; a propagation that it does not name is left as it is.
pub(super) fn set_attributes(mount: impl AsFd, attributes: Attributes) -> std::io::Result<()> {
    let kind =
        |wanted| attributes.propagation.filter(|kind| kind.recursive == wanted).map_or(0, |kind| kind.kind);
    let (single, recursive) = (kind(false), kind(true));
    if attributes.recursive != 0 || recursive != 0 {
        sys::mount::set_attributes(&mount, attributes.recursive, recursive, true)?;
    }
    if attributes.own != 0 || single != 0 {
        sys::mount::set_attributes(&mount, attributes.own, single, false)?;
    }
    Ok(())
}

/// Attaches a mount on what is behind the other descriptor.
pub(super) fn attach(mount: impl AsFd, target: impl AsFd) -> Result<(), Errno> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(mount, c"", target, c"", flags)
}

/// The failure with what the kernel left to be read in the context, see fsopen(2).
pub(super) fn explain(context: &OwnedFd, what: &str, errno: Errno) -> Failure {
    let mut message = [0; 256];
    let length = rustix::io::read(context, &mut message).unwrap_or(0);
    // The first two bytes are the class of the message.
    let text = message.get(2..length).map(String::from_utf8_lossy).unwrap_or_default();
    let text = text.trim();
    let what = if text.is_empty() { what.to_owned() } else { format!("{what}: {text}") };
    Failure { errno: errno.raw_os_error(), ..Failure::new(what) }
}

/// Bytes from the plan for people.
pub(super) fn show(text: &CStr) -> std::borrow::Cow<'_, str> {
    text.to_string_lossy()
}

fn open_text(name: &CStr) -> String {
    format!("mount {}: this kernel does not have it", show(name))
}
