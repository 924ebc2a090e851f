//! Directories that a layer uses without describing them: they look as they do in the layers below.
//!
//! Overlayfs shows the metadata of the topmost directory. One that was only made to hold something would
//! otherwise turn `/tmp` into a directory of mode 0755.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{
    Gid, Mode, Timespec, Timestamps, Uid, XattrFlags, fchmod, fchown, fgetxattr, flistxattr, fsetxattr,
    fstat, futimens,
};
use rustix::io::{Errno, Result};

use crate::unpack::{Name, open_directory};

/// The longest list and value of attributes that the kernel gives.
const MAX_XATTR_BYTES: usize = 64 << 10;

/// Gives `implied` directories of the layer `name` the metadata that the layers in `below`, the topmost first,
/// have for them. Names are relative to `layers`.
pub(super) fn settle(layers: BorrowedFd<'_>, name: &str, below: &[String], implied: &[Name]) -> Result<()> {
    if implied.is_empty() || below.is_empty() {
        return Ok(());
    }
    let own = open_directory(layers, name.as_bytes())?;
    let below =
        below.iter().map(|name| open_directory(layers, name.as_bytes())).collect::<Result<Vec<_>>>()?;
    for path in implied {
        let directory = match open_directory(own.as_fd(), path.as_bytes()) {
            Ok(directory) => directory,
            // Something took its place later in the archive.
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => continue,
            Err(e) => return Err(e),
        };
        if let Some(model) = find(&below, path)? {
            copy(&model, &directory)?;
        }
    }
    Ok(())
}

/// Finds the topmost directory at a path, unless something above hides it.
fn find(below: &[OwnedFd], path: &Name) -> Result<Option<OwnedFd>> {
    for layer in below {
        match open_directory(layer.as_fd(), path.as_bytes()) {
            Ok(directory) => return Ok(Some(directory)),
            Err(Errno::NOENT) if !is_opaque_towards(layer, path)? => {}
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(None),
            Err(e) => return Err(e),
        }
    }
    Ok(None)
}

/// Tells whether a directory on the way to `path` hides what lies below this layer.
fn is_opaque_towards(layer: &OwnedFd, path: &Name) -> Result<bool> {
    let mut directory = open_directory(layer.as_fd(), b"")?;
    for component in path.components() {
        if is_opaque(directory.as_fd())? {
            return Ok(true);
        }
        directory = match open_directory(directory.as_fd(), component) {
            Ok(next) => next,
            Err(Errno::NOENT) => return Ok(false),
            Err(e) => return Err(e),
        };
    }
    Ok(false)
}

/// Tells whether a directory hides what the layers below have at its place.
pub(super) fn is_opaque(directory: BorrowedFd<'_>) -> Result<bool> {
    let mut value = [0; 1];
    match fgetxattr(directory, c"trusted.overlay.opaque", &mut value) {
        Ok(length) => Ok(length == 1 && value == *b"y"),
        Err(Errno::NODATA | Errno::NOTSUP) => Ok(false),
        Err(Errno::RANGE) => Ok(false),
        Err(e) => Err(e),
    }
}

fn copy(model: &OwnedFd, directory: &OwnedFd) -> Result<()> {
    let found = fstat(model)?;
    fchown(directory, Some(Uid::from_raw(found.st_uid)), Some(Gid::from_raw(found.st_gid)))?;
    fchmod(directory, Mode::from_raw_mode(found.st_mode))?;
    for name in xattr_names(model)? {
        let mut value = vec![0; MAX_XATTR_BYTES];
        let length = fgetxattr(model, &name[..], &mut value[..])?;
        fsetxattr(directory, &name[..], &value[..length], XattrFlags::empty())?;
    }
    let time = |tv_sec, tv_nsec| Timespec { tv_sec, tv_nsec };
    futimens(
        directory,
        &Timestamps {
            last_access: time(found.st_atime, found.st_atime_nsec.cast_signed()),
            last_modification: time(found.st_mtime, found.st_mtime_nsec.cast_signed()),
        },
    )
}

/// Returns the names of the attributes that an image may bring for a directory.
fn xattr_names(model: &OwnedFd) -> Result<Vec<Vec<u8>>> {
    let mut names = vec![0; MAX_XATTR_BYTES];
    let length = match flistxattr(model, &mut names[..]) {
        Err(Errno::NOTSUP) => 0,
        other => other?,
    };
    names.truncate(length);
    let kept = names.split(|&b| b == 0).filter(|name| name.starts_with(b"user."));
    Ok(kept.map(<[u8]>::to_vec).collect())
}
