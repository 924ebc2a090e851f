//! What the container's mounts are made from, opened while the host's tree is still there.
//!
//! Each becomes a descriptor of a detached mount with its attributes set; nothing is attached here but the
//! root file system.

use std::ffi::{CStr, CString};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;

use rustix::fs::{CWD, FileType, Mode, OFlags, RawDir};
use rustix::io::Errno;

use super::detached::{self, show};
use super::devices::{self, Devices};
use super::failure::{Context, Failure};
use super::relabel;
use super::root::make_host_directory;
use super::users::{self, Users};
use crate::plan::steps::{Attributes, Container, Kind, Mount};
use crate::sys;

/// The source of one mount of the plan.
#[derive(Debug)]
pub(super) enum Source {
    /// A clone of a tree of the host.
    Bind { mount: OwnedFd, directory: bool },
    /// The container's own directories in each v1 hierarchy, and links between hierarchies.
    Cgroups(Vec<Hierarchy>),
    /// The filled `/dev`.
    Devices(Devices),
    /// The kernel makes it when the container's namespaces are complete.
    Kernel,
    /// The kernel has made it.
    Made(OwnedFd),
}

/// One entry of `/sys/fs/cgroup` on a host with v1 controllers.
#[derive(Debug)]
pub(super) enum Hierarchy {
    Link { name: CString, target: CString },
    Mount { name: CString, mount: OwnedFd },
}

/// Opens the sources of all mounts, in their order, and makes the calling process' mount namespace private.
pub(super) fn open(
    plan: &Container,
    cgroups: Layout,
    users: Option<Users<'_>>,
) -> Result<Vec<Source>, Failure> {
    let mut sources: Vec<Option<Source>> = Vec::new();
    // Trees that stay connected to the host are cloned while they still are.
    for mount in &plan.mounts {
        let connected = mount.attributes.propagation.is_some_and(|kind| kind.kind & CONNECTED != 0);
        sources.push(if connected { bind(mount, users)? } else { None });
    }
    make_private()?;
    let mut opened = Vec::with_capacity(sources.len());
    for (mount, source) in plan.mounts.iter().zip(sources) {
        opened.push(match (source, &mount.kind) {
            (Some(source), _) => source,
            (None, Kind::Bind { .. } | Kind::Volume { .. }) => bind(mount, users)?.unwrap_or(Source::Kernel),
            (None, Kind::Cgroup) if cgroups == Layout::Hybrid => hierarchies(plan, mount)?,
            (None, Kind::Devices { data }) => {
                let console = plan.process.terminal.is_some();
                let owner = users.map(|users| users.ids.host);
                Source::Devices(
                    devices::prepare(&plan.devices, data, mount.attributes, console)?.owned_by(owner)?,
                )
            }
            (None, Kind::Cgroup | Kind::Filesystem { .. }) => Source::Kernel,
        });
    }
    Ok(opened)
}

const CONNECTED: u64 = libc::MS_SHARED | libc::MS_SLAVE;

/// How the host mounts its control groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Layout {
    Hybrid,
    V2,
}

impl Layout {
    /// Looks at what is mounted on `/sys/fs/cgroup`.
    pub(super) fn of_host() -> Self {
        const CGROUP2: i64 = 0x6367_7270;
        match rustix::fs::statfs(CGROUPS) {
            Ok(stat) if stat.f_type == CGROUP2 => Self::V2,
            _ => Self::Hybrid,
        }
    }
}

const CGROUPS: &CStr = c"/sys/fs/cgroup";

/// Cuts every mount off from the host's: what is done to them from here on stays here.
pub(super) fn make_private() -> Result<(), Failure> {
    let what = || "make the mount namespace private".to_owned();
    let root = rustix::fs::open(c"/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).during(what)?;
    sys::mount::set_attributes(&root, 0, libc::MS_PRIVATE, true).during(what)
}

fn bind(mount: &Mount, users: Option<Users<'_>>) -> Result<Option<Source>, Failure> {
    let (source, recursive, mapped) = match &mount.kind {
        Kind::Bind { source, recursive, mapped } => (source, *recursive, *mapped),
        Kind::Volume { source } => (source, false, true),
        _ => return Ok(None),
    };
    let what = || format!("bind {} to /{}", show(source), show(&mount.target));
    let tree = match detached::clone_path(source, recursive) {
        Err(Errno::NOENT) => {
            make_host_directory(source).during(|| format!("make {}", show(source)))?;
            detached::clone_path(source, recursive)
        }
        result => result,
    };
    let tree = tree.during(what)?;
    if let Some(label) = &mount.label {
        relabel::relabel(&tree, label).map_err(|failure| failure.within(what()))?;
    }
    if let Some(users) = users.filter(|_| mapped) {
        users::map(users.namespace, &tree, source).map_err(|failure| failure.within(what()))?;
    }
    // A volume is filled before it is attached; whatever it must be then is set there.
    if !matches!(mount.kind, Kind::Volume { .. }) {
        detached::set_attributes(&tree, mount.attributes).during(what)?;
    }
    let stat = rustix::fs::fstat(&tree).during(what)?;
    let directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
    Ok(Some(Source::Bind { mount: tree, directory }))
}

/// What the container may see of v1 hierarchies: its own directories, where they have been made.
fn hierarchies(plan: &Container, mount: &Mount) -> Result<Source, Failure> {
    let own = plan.cgroup.as_ref();
    let own = own.ok_or_else(|| Failure::new("mount cgroup: linux.cgroupsPath is missing"))?;
    let what = || format!("read {}", show(CGROUPS));
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let top = rustix::fs::openat(CWD, CGROUPS, flags, Mode::empty()).during(what)?;
    let mut space = [MaybeUninit::uninit(); 2048];
    let mut entries = RawDir::new(&top, &mut space);
    let mut found = Vec::new();
    while let Some(entry) = entries.next() {
        let entry = entry.during(what)?;
        let name = entry.file_name();
        match entry.file_type() {
            FileType::Directory if !matches!(name.to_bytes(), b"." | b"..") => {
                let path = [CGROUPS.to_bytes(), name.to_bytes(), own.as_bytes()].join(&b'/');
                let path = CString::new(path).map_err(|_| Failure::new(what()))?;
                match detached::clone_path(&path, false) {
                    Ok(tree) => {
                        let attributes =
                            Attributes { own: mount.attributes.own | CGROUP, ..Attributes::default() };
                        detached::set_attributes(&tree, attributes).during(what)?;
                        found.push(Hierarchy::Mount { name: name.to_owned(), mount: tree });
                    }
                    Err(Errno::NOENT) => {}
                    Err(errno) => return Err(errno).during(|| format!("bind {}", show(&path))),
                }
            }
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(&top, name, Vec::new()).during(what)?;
                if !target.as_bytes().contains(&b'/') {
                    found.push(Hierarchy::Link { name: name.to_owned(), target });
                }
            }
            _ => {}
        }
    }
    Ok(Source::Cgroups(found))
}

const CGROUP: u64 = libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV | libc::MOUNT_ATTR_NOEXEC;
