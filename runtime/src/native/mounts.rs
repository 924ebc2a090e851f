//! Attaches the container's mounts, in the order of the plan, on targets inside of its root.

use std::os::fd::OwnedFd;

use rustix::fs::{FileType, Mode};

use super::detached::{self, show};
use super::devices::Devices;
use super::failure::{Context, Failure};
use super::relabel;
use super::root::{Missing, Root};
use super::sources::{Hierarchy, Source};
use super::volume;
use crate::plan::steps::{Attributes, FilesystemName, Kind, Mount};

/// What later steps need of the mounts.
#[derive(Debug, Default)]
pub(super) struct Attached {
    /// The `/dev` of ours; none when the container has the host's.
    pub(super) devices: Option<Devices>,
    /// The terminals of the container.
    pub(super) devpts: Option<OwnedFd>,
}

/// Attaches all mounts.
pub(super) fn attach(root: &Root, mounts: &[Mount], sources: Vec<Source>) -> Result<Attached, Failure> {
    let mut attached = Attached::default();
    for (mount, source) in mounts.iter().zip(sources) {
        let what = || format!("mount on /{}", show(&mount.target));
        match source {
            Source::Bind { mount: tree, directory } => {
                let missing = if directory { Missing::Directory } else { Missing::File };
                let target = root.find_or_make(&mount.target, missing).during(what)?;
                fits(&target, directory).map_err(|failure| of_mount(mount, failure))?;
                if matches!(mount.kind, Kind::Volume { .. }) {
                    volume::fill(&target, &tree).map_err(|failure| of_mount(mount, failure))?;
                    detached::set_attributes(&tree, mount.attributes).during(what)?;
                }
                detached::attach(&tree, &target).during(what)?;
            }
            Source::Cgroups(hierarchies) => {
                let target = root.real_directory(&mount.target).during(what)?;
                attach_hierarchies(&target, &hierarchies, mount.attributes)
                    .map_err(|failure| of_mount(mount, failure))?;
            }
            Source::Devices(devices) => {
                let target = root.real_directory(&mount.target).during(what)?;
                devices.attach(&target, mount.attributes)?;
                attached.devices = Some(devices);
            }
            Source::Kernel | Source::Made(_) => {
                let made = match source {
                    Source::Made(made) => made,
                    _ => make(mount).map_err(|failure| of_mount(mount, failure))?,
                };
                let target = target_of(root, mount).during(what)?;
                detached::attach(&made, &target).during(what)?;
                if mount.target.as_bytes() == b"dev/pts" {
                    attached.devpts = Some(made);
                }
            }
        }
    }
    Ok(attached)
}

/// Makes what the kernel makes while the host's tree is still there.
///
/// In a user namespace procfs and sysfs are for those only who can see one that hides nothing.
pub(super) fn make_ahead(mounts: &[Mount], sources: &mut [Source]) -> Result<(), Failure> {
    for (mount, source) in mounts.iter().zip(sources).filter(|(_, source)| matches!(source, Source::Kernel)) {
        *source = Source::Made(make(mount).map_err(|failure| of_mount(mount, failure))?);
    }
    Ok(())
}

/// Whether there is what can be covered: a directory by a directory, anything else by anything else.
fn fits(target: &OwnedFd, directory: bool) -> Result<(), Failure> {
    let mode = rustix::fs::fstat(target).during(|| "look at what is there".into())?.st_mode;
    match (FileType::from_raw_mode(mode) == FileType::Directory, directory) {
        (true, false) => Err(Failure::new("a file cannot be mounted on the directory that is there")),
        (false, true) => Err(Failure::new("a directory cannot be mounted on the file that is there")),
        _ => Ok(()),
    }
}

/// The kernel's own trees are never mounted through a link of the image: other paths rely on where they are.
fn target_of(root: &Root, mount: &Mount) -> Result<OwnedFd, rustix::io::Errno> {
    match mount.kind {
        Kind::Filesystem { name: FilesystemName::Tmpfs | FilesystemName::Mqueue, .. } => {
            root.find_or_make(&mount.target, Missing::Directory)
        }
        _ => root.real_directory(&mount.target),
    }
}

/// Makes a file system in the namespaces of the calling process.
fn make(mount: &Mount) -> Result<OwnedFd, Failure> {
    let own = mount.attributes.own | mount.attributes.recursive;
    let made = match &mount.kind {
        Kind::Filesystem { name, data } => {
            let name = match name {
                FilesystemName::Devpts => c"devpts",
                FilesystemName::Mqueue => c"mqueue",
                FilesystemName::Proc => c"proc",
                FilesystemName::Sysfs => c"sysfs",
                FilesystemName::Tmpfs => c"tmpfs",
            };
            detached::filesystem(name, data, own)?
        }
        _ => detached::filesystem(c"cgroup2", &[], own)?,
    };
    if let Some(label) = &mount.label {
        relabel::top(&made, label)?;
    }
    if let Some(propagation) = mount.attributes.propagation {
        let attributes = Attributes { propagation: Some(propagation), ..Attributes::default() };
        detached::set_attributes(&made, attributes).during(|| "set its propagation".into())?;
    }
    Ok(made)
}

/// Shows the container's own part of every v1 hierarchy below one tmpfs.
fn attach_hierarchies(
    target: &OwnedFd,
    hierarchies: &[Hierarchy],
    attributes: Attributes,
) -> Result<(), Failure> {
    let data = [(c"mode".into(), Some(c"755".into())), (c"size".into(), Some(c"64k".into()))];
    let top = detached::filesystem(c"tmpfs", &data, attributes.own & !libc::MOUNT_ATTR_RDONLY)?;
    for hierarchy in hierarchies {
        let (name, made) = match hierarchy {
            Hierarchy::Link { name, target } => (name, rustix::fs::symlinkat(target, &top, name)),
            Hierarchy::Mount { name, .. } => {
                (name, rustix::fs::mkdirat(&top, name, Mode::from_raw_mode(0o755)))
            }
        };
        made.during(|| format!("make {}", show(name)))?;
    }
    detached::attach(&top, target).during(|| "attach the tmpfs".into())?;
    for hierarchy in hierarchies {
        if let Hierarchy::Mount { name, mount } = hierarchy {
            let what = || format!("attach {}", show(name));
            let flags = rustix::fs::OFlags::PATH | rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::CLOEXEC;
            let directory = rustix::fs::openat(&top, name, flags, Mode::empty()).during(what)?;
            detached::attach(mount, directory).during(what)?;
        }
    }
    let read_only = Attributes { own: attributes.own & libc::MOUNT_ATTR_RDONLY, ..Attributes::default() };
    detached::set_attributes(&top, read_only).during(|| "set its attributes".into())
}

/// The failure with the target that it happened for.
fn of_mount(mount: &Mount, failure: Failure) -> Failure {
    Failure { what: format!("mount on /{}: {}", show(&mount.target), failure.what), ..failure }
}
