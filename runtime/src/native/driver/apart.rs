//! A mount namespace for a runtime that becomes root of a pod's user namespace, who is nobody on the host.
//!
//! The runtime finds the root file system and the sources of mounts by their paths, and the directories above them are
//! closed to all but the host's root, so that no user of the host comes by an image's set-user-id programs
//! (CVE-2021-41103). They stay closed. In a namespace that the driver makes for the while, the first closed directory
//! on the way to the pod's is covered by a small tmpfs that all may search and that has nothing in it but what the
//! runtime needs: the sources, and, at their own places, the runtime's state and the bundle, with the root file system
//! on it. Later verbs run in the host's namespace and find both where they were. There nothing is mounted. The
//! container's own mount namespace is a copy, a slave of the host's like this one, so that what is mounted on the host
//! still finds its way; this one goes with the run of the runtime.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, OwnedFd};

use nix::sched::CloneFlags;
use rustix::fs::{CWD, FileType, Mode, OFlags};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::external::steps::{Apart, Create, Devices};
use crate::native::Stage;
use crate::native::detached::{self, show};
use crate::native::devices;
use crate::native::failure::{Context, Failure};
use crate::native::overlay::{self, Stack};
use crate::native::root::make_host_directory;
use crate::plan::steps::Root;
use crate::sys;

/// The mount namespace of the host, which the driver goes back to.
#[derive(Debug)]
pub(super) struct Host(OwnedFd);

impl Host {
    /// Leaves and so ends the other one; the working directory is the root afterwards.
    pub(super) fn enter(&self) -> Result<(), Failure> {
        let entered = move_into_link_name_space(self.0.as_fd(), Some(LinkNameSpaceType::Mount));
        entered.during(|| "go back to the host's mount namespace".into())
    }
}

/// Goes into a new mount namespace and shows there what the plan says.
pub(super) fn leave(plan: &Create, apart: &Apart, (root, stage): (&Root, &Stage)) -> Result<Host, Failure> {
    let users = stage.users.as_ref();
    let users = users.ok_or_else(|| Failure::new("join the user namespace: there is none"))?;
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let host = rustix::fs::openat(CWD, c"/proc/self/ns/mnt", flags, Mode::empty());
    let host = Host(host.during(|| "open the host's mount namespace".into())?);
    nix::sched::unshare(CloneFlags::CLONE_NEWNS).during(|| "make a mount namespace".into())?;
    follow_host()?;
    let mut shown = Vec::new();
    for bind in &apart.binds {
        shown.push((clone(&bind.source, bind.recursive)?, bind.place.as_c_str()));
    }
    for kept in [&plan.target.bundle, &plan.target.state] {
        shown.push((clone(kept, false)?, kept));
    }
    // In the bundle, and so after it.
    shown.push((overlay::detached(&Stack::of(root), users.as_fd())?, &plan.rootfs));
    cover(&first_closed(&apart.pod)?)?;
    if let Some(devices) = &apart.devices {
        shown.push((make_nodes(devices)?, &devices.place));
    }
    for (tree, place) in shown {
        show_at(&tree, place).map_err(|failure| failure.within(format!("show {}", show(place))))?;
    }
    Ok(host)
}

/// What is mounted on the host appears here, and what is mounted here stays.
fn follow_host() -> Result<(), Failure> {
    let what = || "cut the mount namespace off".to_owned();
    let root = rustix::fs::open(c"/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).during(what)?;
    sys::mount::set_attributes(&root, 0, libc::MS_SLAVE, true).during(what)
}

fn clone(path: &CStr, recursive: bool) -> Result<OwnedFd, Failure> {
    detached::clone_path(path, recursive).during(|| format!("bind {}", show(path)))
}

/// The first directory on the way that not everybody may search; the last one where there is none.
fn first_closed(path: &CStr) -> Result<CString, Failure> {
    let what = || format!("look at the directories above {}", show(path));
    let bytes = path.to_bytes();
    for end in (1..bytes.len()).filter(|end| bytes.get(*end) == Some(&b'/')) {
        let directory = bytes.get(..end).unwrap_or_default();
        let mode = Mode::from_raw_mode(rustix::fs::stat(directory).during(what)?.st_mode);
        if !mode.contains(Mode::XOTH) {
            return CString::new(directory).map_err(|_| Failure::new(what()));
        }
    }
    Ok(path.to_owned())
}

fn cover(directory: &CStr) -> Result<(), Failure> {
    let attributes = libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV | libc::MOUNT_ATTR_NOEXEC;
    let empty = detached::filesystem(c"tmpfs", &[(c"mode".into(), Some(c"711".into()))], attributes)?;
    let what = || format!("cover {}", show(directory));
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let place = rustix::fs::openat(CWD, directory, flags, Mode::empty()).during(what)?;
    detached::attach(empty, place).during(what)
}

/// A tmpfs with the nodes, each by its number.
fn make_nodes(devices: &Devices) -> Result<OwnedFd, Failure> {
    let mode = (c"mode".into(), Some(c"711".into()));
    let dir = detached::filesystem(c"tmpfs", &[mode], libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NOEXEC)?;
    for (number, device) in devices.nodes.iter().enumerate() {
        let what = || format!("make the device /{}", show(&device.path));
        let name = CString::new(number.to_string()).map_err(|_| Failure::new(what()))?;
        devices::make(dir.as_fd(), &name, device).during(what)?;
    }
    Ok(dir)
}

/// Attaches a tree at a place that is made for it.
fn show_at(tree: &OwnedFd, place: &CStr) -> Result<(), Failure> {
    let what = || "make its place".to_owned();
    let stat = rustix::fs::fstat(tree).during(|| "look at it".into())?;
    if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
        make_host_directory(place).during(what)?;
    } else {
        let bytes = place.to_bytes();
        let above = bytes.iter().rposition(|byte| *byte == b'/').and_then(|end| bytes.get(..end));
        let above = CString::new(above.unwrap_or_default()).map_err(|_| Failure::new(what()))?;
        make_host_directory(&above).during(what)?;
        rustix::fs::mknodat(CWD, place, FileType::RegularFile, Mode::empty(), 0).during(what)?;
    }
    let target = rustix::fs::openat(CWD, place, OFlags::PATH | OFlags::CLOEXEC, Mode::empty());
    detached::attach(tree, target.during(|| "find its place".into())?).during(|| "attach it".into())
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;
    use std::path::Path;

    use super::*;

    #[test]
    fn the_first_directory_that_is_closed_is_covered() {
        let dir = tempfile::tempdir().unwrap();
        let text = |path: &Path| CString::new(path.to_str().unwrap()).unwrap();
        let (above, pod) = (dir.path().join("above"), dir.path().join("above/pod"));
        fs::create_dir_all(&pod).unwrap();
        // One at a time, from the inside out.
        for (closed, mode) in [(&pod, 0o700), (&above, 0o710), (&dir.path().to_owned(), 0o700)] {
            for open in [dir.path(), &above].into_iter().filter(|open| open != closed) {
                fs::set_permissions(open, Permissions::from_mode(0o711)).unwrap();
            }
            fs::set_permissions(closed, Permissions::from_mode(mode)).unwrap();
            assert_eq!(first_closed(&text(&pod)).unwrap(), text(closed));
        }
        fs::set_permissions(dir.path(), Permissions::from_mode(0o711)).unwrap();
        fs::set_permissions(&pod, Permissions::from_mode(0o755)).unwrap();
        assert_eq!(first_closed(&text(&pod)).unwrap(), text(&pod), "the pod's is never shown as it is");
    }
}
