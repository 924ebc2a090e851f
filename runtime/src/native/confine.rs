//! Paths that are hidden from the container, and paths that it can only read.
//!
//! What covers them is never taken by name from the container's tree: a null device that was made or
//! checked here, and one empty read-only tmpfs for all directories.

use std::ffi::{CStr, CString};
use std::os::fd::OwnedFd;

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::detached::{self, show};
use super::devices::Devices;
use super::failure::{Context, Failure};
use super::root::Root;
use crate::plan::steps::Attributes;

const READ_ONLY: Attributes = Attributes { own: 0, recursive: libc::MOUNT_ATTR_RDONLY, propagation: None };
const HIDDEN: u64 =
    libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV | libc::MOUNT_ATTR_NOEXEC;

/// Hides the paths that are there.
pub(super) fn mask(
    root: &Root,
    paths: &[CString],
    devices: Option<&Devices>,
    label: Option<&CString>,
) -> Result<(), Failure> {
    // A tree can only be cloned where it is attached: the second of a kind is a clone of the first.
    let (mut empty, mut null) = (None::<OwnedFd>, None::<OwnedFd>);
    for path in paths {
        let what = || format!("mask /{}", show(path));
        let Some(target) = found(root, path).during(what)? else { continue };
        let directory =
            FileType::from_raw_mode(rustix::fs::fstat(&target).during(what)?.st_mode) == FileType::Directory;
        let (cover, kept) = match (directory, &empty, &null) {
            (true, Some(cover), _) | (false, _, Some(cover)) => {
                (detached::clone_fd(cover, false).during(what)?, None)
            }
            (true, None, _) => (empty_directory(label)?, Some(&mut empty)),
            (false, _, None) => {
                (null_device(root, devices).map_err(|failure| named(path, failure))?, Some(&mut null))
            }
        };
        detached::attach(&cover, &target).during(what)?;
        if let Some(kept) = kept {
            *kept = Some(cover);
        }
    }
    Ok(())
}

/// Makes the paths that are there read-only, with all that is mounted below them.
pub(super) fn make_readonly(root: &Root, paths: &[CString]) -> Result<(), Failure> {
    for path in paths {
        let what = || format!("make /{} read-only", show(path));
        let Some(target) = found(root, path).during(what)? else { continue };
        let cover = detached::clone_fd(&target, true).during(what)?;
        detached::set_attributes(&cover, READ_ONLY).during(what)?;
        detached::attach(&cover, &target).during(what)?;
    }
    Ok(())
}

fn found(root: &Root, path: &CStr) -> Result<Option<OwnedFd>, Errno> {
    match root.find(path) {
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
        result => result.map(Some),
    }
}

fn empty_directory(label: Option<&CString>) -> Result<OwnedFd, Failure> {
    let mut data = vec![(c"mode".into(), Some(c"755".into())), (c"size".into(), Some(c"4k".into()))];
    data.extend(label.map(|label| (c"context".into(), Some(label.clone()))));
    detached::filesystem(c"tmpfs", &data, HIDDEN)
}

/// A clone of a null device, mounted so that nobody can change the node itself.
fn null_device(root: &Root, devices: Option<&Devices>) -> Result<OwnedFd, Failure> {
    let what = || "clone the null device".to_owned();
    let node = match devices {
        Some(devices) => {
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            rustix::fs::openat(&devices.mount, c"null", flags, Mode::empty()).during(what)?
        }
        // The host's /dev, bound by the spec; it must be what it says it is.
        None => root.open(c"dev/null", OFlags::PATH, ResolveFlags::NO_SYMLINKS).during(what)?,
    };
    let stat = rustix::fs::fstat(&node).during(what)?;
    if stat.st_mode & libc::S_IFMT != libc::S_IFCHR || stat.st_rdev != rustix::fs::makedev(1, 3) {
        return Err(Failure::new("/dev/null is not the null device"));
    }
    let clone = detached::clone_fd(&node, false).during(what)?;
    // Not nodev: a masked file is read as an empty one.
    let own = HIDDEN & !libc::MOUNT_ATTR_NODEV;
    detached::set_attributes(&clone, Attributes { own, ..Attributes::default() }).during(what)?;
    Ok(clone)
}

fn named(path: &CStr, failure: Failure) -> Failure {
    Failure { what: format!("mask /{}: {}", show(path), failure.what), ..failure }
}
