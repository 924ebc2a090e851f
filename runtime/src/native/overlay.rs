//! The root file system: an overlay of the image's layers and a writable one.
//!
//! Attached on the directory of the layers, which nothing needs any more in this mount namespace. Nothing of
//! it survives a crash of the node, so it is `volatile`: no fsync(2) of the container waits for a disk, and
//! its end does not write back everyone else's files.

use std::ffi::{CStr, CString};
use std::os::fd::OwnedFd;

use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{FsOpenFlags, MountFlags, fsconfig_set_flag, fsconfig_set_string, fsopen};

use super::detached::{self, explain, show};
use super::failure::{Context, Failure};
use crate::plan::steps::Root;

/// fsconfig(2) takes strings of 255 bytes.
const STRING_BYTES: usize = 255;
const DIRECTORY: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// Mounts the overlay in the calling process' own, private mount namespace and returns its root.
///
/// Leaves the process' working directory elsewhere.
pub(super) fn mount(root: &Root) -> Result<OwnedFd, Failure> {
    let layers = open_directory(&root.layers)?;
    match by_layer(root, &layers)? {
        Some(overlay) => {
            detached::attach(&overlay, &layers).during(|| attach_text(root))?;
            Ok(overlay)
        }
        None => by_page(root),
    }
}

/// Adds the layers one by one, as Linux 6.7 and later take them; none where the kernel does not.
fn by_layer(root: &Root, layers: &OwnedFd) -> Result<Option<OwnedFd>, Failure> {
    if root.lowers.iter().any(|name| name.as_bytes().len() > STRING_BYTES) {
        return Ok(None);
    }
    let open = || fsopen(c"overlay", FsOpenFlags::FSOPEN_CLOEXEC).during(|| "mount overlay".into());
    // Until Linux 6.5 it takes every word, and looks at them when it is too late to do otherwise.
    if fsconfig_set_flag(open()?, c"no-such-word").is_ok() {
        return Ok(None);
    }
    let context = open()?;
    rustix::process::fchdir(layers).during(|| format!("enter {}", show(&root.layers)))?;
    for (index, name) in root.lowers.iter().enumerate() {
        match fsconfig_set_string(&context, c"lowerdir+", name) {
            Ok(()) => {}
            Err(Errno::INVAL) if index == 0 => return Ok(None),
            Err(errno) => return Err(explain(&context, &format!("add the layer {}", show(name)), errno)),
        }
    }
    for (key, path) in [(c"upperdir", &root.upper), (c"workdir", &root.work)] {
        set_directory(key, path, &context)?;
    }
    let set = |key: &CStr, result: Result<(), Errno>| {
        result.map_err(|errno| explain(&context, &format!("mount overlay: {}", show(key)), errno))
    };
    set(c"source", fsconfig_set_string(&context, c"source", c"overlay"))?;
    set(c"index", fsconfig_set_string(&context, c"index", c"off"))?;
    // Where a layer says that a directory moved, it is not believed.
    set(c"redirect_dir", fsconfig_set_string(&context, c"redirect_dir", c"nofollow"))?;
    set(c"volatile", fsconfig_set_flag(&context, c"volatile"))?;
    detached::create(&context, c"overlay", 0).map(Some)
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
fn by_page(root: &Root) -> Result<OwnedFd, Failure> {
    let links = detached::filesystem(c"tmpfs", &[], 0)?;
    let link = |target: &CStr, name: &str| {
        rustix::fs::symlinkat(target, &links, name).during(|| "name the layers".into())
    };
    let mut lowers = Vec::new();
    for (index, name) in root.lowers.iter().enumerate() {
        let target = [root.layers.as_bytes(), b"/", name.as_bytes()].concat();
        let target = CString::new(target).map_err(|_| Failure::new("name the layers"))?;
        let short = index.to_string();
        link(&target, &short)?;
        lowers.push(short);
    }
    link(&root.upper, "upper")?;
    link(&root.work, "work")?;
    let data = format!(
        "lowerdir={},upperdir=upper,workdir=work,index=off,redirect_dir=nofollow,volatile",
        lowers.join(":")
    );
    let data = CString::new(data).map_err(|_| Failure::new("name the layers"))?;
    rustix::process::fchdir(&links).during(|| "enter the names of the layers".into())?;
    rustix::mount::mount(c"overlay", &root.layers, c"overlay", MountFlags::empty(), data.as_c_str())
        .during(|| "mount overlay".into())?;
    open_directory(&root.layers)
}

fn open_directory(path: &CStr) -> Result<OwnedFd, Failure> {
    rustix::fs::openat(CWD, path, DIRECTORY, Mode::empty()).during(|| format!("open {}", show(path)))
}

fn attach_text(root: &Root) -> String {
    format!("attach the root file system on {}", show(&root.layers))
}
