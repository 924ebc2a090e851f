//! Overlays: the root file system, of the image's layers and a writable one, and image volumes, of layers alone.
//!
//! The root is attached on the directory of the layers, which nothing needs any more in this mount namespace.
//! Nothing of it survives a crash of the node, so it is `volatile`: no fsync(2) of the container waits for a disk,
//! and its end does not write back everyone else's files.

use std::ffi::{CStr, CString};
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{FsOpenFlags, MountFlags, fsconfig_set_flag, fsconfig_set_string, fsopen};

use super::detached::{self, explain, show};
use super::failure::{Context, Failure};
use super::users;
use crate::plan::steps::Root;

/// fsconfig(2) takes strings of 255 bytes.
const STRING_BYTES: usize = 255;
/// Of a tree without a writable layer: data, from which nobody gains rights.
const READ_ONLY: u64 = libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV;
const DIRECTORY: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// What is stacked.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stack<'a> {
    /// The directory that the names in `lowers` are relative to.
    pub(crate) layers: &'a CStr,
    /// The topmost first.
    pub(crate) lowers: &'a [CString],
    pub(crate) top: Top<'a>,
    /// SELinux' context of all files.
    pub(crate) label: Option<&'a CStr>,
}

/// What is on top of the layers.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Top<'a> {
    /// Nothing: the tree is read-only. Overlayfs wants two layers then, so an empty directory is put below.
    Nothing { bottom: &'a CStr },
    /// The writable layer, and overlayfs' working directory.
    Writable { upper: &'a CStr, work: &'a CStr },
}

impl<'a> Stack<'a> {
    /// A container's root.
    pub(super) fn of(root: &'a Root) -> Self {
        let top = Top::Writable { upper: &root.upper, work: &root.work };
        Self { layers: &root.layers, lowers: &root.lowers, top, label: root.label.as_deref() }
    }
}

/// Mounts the overlay in the calling process' own, private mount namespace and returns its root.
///
/// Leaves the process' working directory elsewhere.
pub(super) fn mount(root: &Root) -> Result<OwnedFd, Failure> {
    mount_on(&Stack::of(root), &root.layers)
}

/// Mounts the overlay on a directory and returns its root. Leaves the thread's working directory elsewhere.
pub(super) fn mount_on(stack: &Stack<'_>, place: &CStr) -> Result<OwnedFd, Failure> {
    let layers = open_directory(stack.layers)?;
    match by_layer(stack, &layers)? {
        Some(overlay) => {
            let place_fd = open_directory(place)?;
            detached::attach(&overlay, &place_fd)
                .during(|| format!("attach the layers on {}", show(place)))?;
            Ok(overlay)
        }
        None => by_page(stack, place),
    }
}

/// Makes the overlay with the pod's ids in the caller's own, private mount namespace, attached nowhere.
///
/// Overlayfs itself cannot be idmapped, its layers can (Linux 5.19); the writable one has the pod's ids as they
/// are. One idmapped mount covers the directory of all layers, where they are found by name as ever.
pub(super) fn detached(stack: &Stack<'_>, users: BorrowedFd<'_>) -> Result<OwnedFd, Failure> {
    let covered = open_directory(stack.layers)?;
    let what = || format!("show {} with the pod's ids", show(stack.layers));
    let layers = detached::clone_fd(&covered, false).during(what)?;
    users::map(users, &layers, stack.layers)?;
    detached::attach(&layers, &covered).during(what)?;
    match by_layer(stack, &layers)? {
        Some(overlay) => Ok(overlay),
        None => detached::clone_fd(by_page(stack, stack.layers)?, false).during(|| "clone the layers".into()),
    }
}

/// Adds the layers one by one, as Linux 6.7 and later take them; none where the kernel does not.
fn by_layer(stack: &Stack<'_>, layers: &OwnedFd) -> Result<Option<OwnedFd>, Failure> {
    if stack.lowers.iter().any(|name| name.as_bytes().len() > STRING_BYTES) {
        return Ok(None);
    }
    let open = || fsopen(c"overlay", FsOpenFlags::FSOPEN_CLOEXEC).during(|| "mount overlay".into());
    // Until Linux 6.5 it takes every word, and looks at them when it is too late to do otherwise.
    if fsconfig_set_flag(open()?, c"no-such-word").is_ok() {
        return Ok(None);
    }
    let context = open()?;
    rustix::process::fchdir(layers).during(|| format!("enter {}", show(stack.layers)))?;
    for (index, name) in stack.lowers.iter().enumerate() {
        match fsconfig_set_string(&context, c"lowerdir+", name) {
            Ok(()) => {}
            Err(Errno::INVAL) if index == 0 => return Ok(None),
            Err(errno) => return Err(explain(&context, &format!("add the layer {}", show(name)), errno)),
        }
    }
    match stack.top {
        Top::Nothing { bottom } => set_directory(c"lowerdir+", bottom, &context)?,
        Top::Writable { upper, work } => {
            set_directory(c"upperdir", upper, &context)?;
            set_directory(c"workdir", work, &context)?;
        }
    }
    let set = |key: &CStr, result: Result<(), Errno>| {
        result.map_err(|errno| explain(&context, &format!("mount overlay: {}", show(key)), errno))
    };
    set(c"source", fsconfig_set_string(&context, c"source", c"overlay"))?;
    set(c"index", fsconfig_set_string(&context, c"index", c"off"))?;
    // Where a layer says that a directory moved, it is not believed.
    set(c"redirect_dir", fsconfig_set_string(&context, c"redirect_dir", c"nofollow"))?;
    if let Some(label) = stack.label {
        set(c"context", fsconfig_set_string(&context, c"context", label))?;
    }
    if let Top::Writable { .. } = stack.top {
        set(c"volatile", fsconfig_set_flag(&context, c"volatile"))?;
        return detached::create(&context, c"overlay", 0).map(Some);
    }
    detached::create(&context, c"overlay", READ_ONLY).map(Some)
}

/// Names a directory by its path, or by its name in its parent when the path is too long.
fn set_directory(key: &CStr, path: &CStr, context: &OwnedFd) -> Result<(), Failure> {
    let name = if path.to_bytes().len() <= STRING_BYTES { path.to_owned() } else { enter_parent(path)? };
    fsconfig_set_string(context, key, &name)
        .map_err(|errno| explain(context, &format!("use {} as {}", show(path), show(key)), errno))
}

fn enter_parent(path: &CStr) -> Result<CString, Failure> {
    let what = || format!("enter the parent of {}", show(path));
    let bytes = path.to_bytes();
    let split = bytes.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
    let (parent, name) = (bytes.get(..split.max(1)), bytes.get(split + 1..));
    rustix::process::chdir(parent.unwrap_or(b"/")).during(what)?;
    CString::new(name.unwrap_or_default()).map_err(|_| Failure::new(what()))
}

/// Hands all names over in the one page that mount(2) takes: of links in a tmpfs, a few bytes each.
fn by_page(stack: &Stack<'_>, place: &CStr) -> Result<OwnedFd, Failure> {
    let links = detached::filesystem(c"tmpfs", &[], 0)?;
    let link = |target: &CStr, name: &str| {
        rustix::fs::symlinkat(target, &links, name).during(|| "name the layers".into())
    };
    let mut lowers = Vec::new();
    for (index, name) in stack.lowers.iter().enumerate() {
        let target = [stack.layers.to_bytes(), b"/", name.as_bytes()].concat();
        let target = CString::new(target).map_err(|_| Failure::new("name the layers"))?;
        let short = index.to_string();
        link(&target, &short)?;
        lowers.push(short);
    }
    let (flags, more) = match stack.top {
        Top::Nothing { bottom } => {
            link(bottom, "bottom")?;
            lowers.push("bottom".to_owned());
            (MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV, "")
        }
        Top::Writable { upper, work } => {
            link(upper, "upper")?;
            link(work, "work")?;
            (MountFlags::empty(), ",upperdir=upper,workdir=work,volatile")
        }
    };
    // Quoted, since a level has commas.
    let label = stack.label.map(|label| format!(",context=\"{}\"", show(label))).unwrap_or_default();
    let data = format!("lowerdir={},index=off,redirect_dir=nofollow{more}{label}", lowers.join(":"));
    let data = CString::new(data).map_err(|_| Failure::new("name the layers"))?;
    rustix::process::fchdir(&links).during(|| "enter the names of the layers".into())?;
    rustix::mount::mount(c"overlay", place, c"overlay", flags, data.as_c_str())
        .during(|| "mount overlay".into())?;
    open_directory(place)
}

fn open_directory(path: &CStr) -> Result<OwnedFd, Failure> {
    rustix::fs::openat(CWD, path, DIRECTORY, Mode::empty()).during(|| format!("open {}", show(path)))
}
