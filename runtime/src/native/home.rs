//! The homes of image volumes: an image's layers as one read-only tree, in the host's mount namespace.
//!
//! Several containers of a pod bind the same home. The tree is the image's, hostile: what is looked for in it is found
//! by descriptor and inside of it.

use std::ffi::CStr;
use std::os::fd::{BorrowedFd, OwnedFd};

use nix::sched::CloneFlags;
use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags};

use super::detached::{self, show};
use super::failure::{Context, Failure};
use super::overlay::{self, Stack};
use super::root::Root;
use super::sources;

/// Stacks the layers on the directory `place`.
pub(crate) fn stack(stack: &Stack<'_>, place: &CStr) -> Result<(), crate::Failure> {
    let mount = || {
        // The working directory that layers are named from becomes this thread's own.
        nix::sched::unshare(CloneFlags::CLONE_FS).during(|| "leave the working directory".into())?;
        overlay::mount_on(stack, place).map(drop)
    };
    let mounted = std::thread::scope(|scope| scope.spawn(mount).join());
    mounted.unwrap_or_else(|_| Err(Failure::new("mounting the layers has a defect"))).map_err(Into::into)
}

/// The same with the ids of a pod's user namespace.
pub(crate) fn stack_with_ids(
    stack: &Stack<'_>,
    place: &CStr,
    users: BorrowedFd<'_>,
) -> Result<(), crate::Failure> {
    let make = || {
        // What the layers are covered with for the while is seen by this thread alone.
        nix::sched::unshare(CloneFlags::CLONE_NEWNS).during(|| "make a mount namespace".into())?;
        sources::make_private()?;
        overlay::detached(stack, users)
    };
    let attach = |tree: OwnedFd| {
        let what = || format!("attach the layers on {}", show(place));
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let target = rustix::fs::openat(CWD, place, flags, Mode::empty()).during(what)?;
        detached::attach(&tree, &target).during(what)
    };
    let made = std::thread::scope(|scope| scope.spawn(make).join());
    let made = made.unwrap_or_else(|_| Err(Failure::new("mounting the layers has a defect")));
    made.and_then(attach).map_err(Into::into)
}

/// Binds what is at `path` in the tree mounted on `home` to `place`, which is made as that is: a directory or a file.
pub(crate) fn bind_inside(home: &CStr, path: &CStr, place: &CStr) -> Result<(), crate::Failure> {
    Ok(bind(home, path, place)?)
}

fn bind(home: &CStr, path: &CStr, place: &CStr) -> Result<(), Failure> {
    let root = Root::at(home).during(|| format!("open {}", show(home)))?;
    let found = root.open(path, OFlags::PATH, ResolveFlags::empty());
    let found = found.during(|| format!("find image_sub_path {:?} in the image", show(path)))?;
    let stat = rustix::fs::fstat(&found).during(|| format!("look at {:?}", show(path)))?;
    let what = || format!("make {}", show(place));
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => {
            rustix::fs::mkdirat(CWD, place, Mode::from_raw_mode(0o700)).during(what)?;
        }
        FileType::RegularFile => drop::<OwnedFd>(
            rustix::fs::openat(
                CWD,
                place,
                OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC,
                Mode::from_raw_mode(0o600),
            )
            .during(what)?,
        ),
        _ => {
            let what = format!("image_sub_path {:?} is neither a directory nor a file", show(path));
            return Err(Failure { errno: libc::ENOTDIR, ..Failure::new(what) });
        }
    }
    let target =
        rustix::fs::openat(CWD, place, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).during(what)?;
    let tree = detached::clone_fd(&found, false).during(|| format!("clone {:?}", show(path)))?;
    detached::attach(&tree, &target).during(|| format!("attach {:?} on {}", show(path), show(place)))
}
