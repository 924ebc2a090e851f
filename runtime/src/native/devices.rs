//! The container's `/dev`: a tmpfs of ours, filled before it is attached; nothing of the image's is touched.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Uid};
use rustix::io::Errno;

use super::detached::{self, show};
use super::failure::{Context, Failure};
use super::root::{Missing, Root};
use crate::plan::steps::{Attributes, Device, Parameter};

/// A filled tmpfs, not attached yet.
#[derive(Debug)]
pub(super) struct Devices {
    pub(super) mount: OwnedFd,
    /// Nodes of the host, for those that may not be made: names below `/dev` and clones.
    binds: Vec<(CString, OwnedFd)>,
}

/// Links that every program expects.
const LINKS: [(&CStr, &CStr); 6] = [
    (c"fd", c"/proc/self/fd"),
    (c"stdin", c"/proc/self/fd/0"),
    (c"stdout", c"/proc/self/fd/1"),
    (c"stderr", c"/proc/self/fd/2"),
    (c"core", c"/proc/kcore"),
    (c"ptmx", c"pts/ptmx"),
];

const READ_ONLY: u64 = libc::MOUNT_ATTR_RDONLY;

/// Makes the tmpfs, its nodes and, if wanted, the file that the terminal is shown on. It becomes read-only, when it
/// shall, with [`Devices::attach`].
pub(super) fn prepare(
    devices: &[Device],
    data: &[Parameter],
    attributes: Attributes,
    console: bool,
) -> Result<Devices, Failure> {
    // A tmpfs without nodev: it has nothing but device nodes.
    let own = attributes.own & !(READ_ONLY | libc::MOUNT_ATTR_NODEV);
    let mount = detached::filesystem(c"tmpfs", data, own)?;
    for (name, target) in LINKS {
        rustix::fs::symlinkat(target, &mount, name).during(|| format!("make /dev/{}", show(name)))?;
    }
    if console {
        let mode = Mode::from_raw_mode(0o600);
        rustix::fs::mknodat(&mount, c"console", FileType::RegularFile, mode, 0)
            .during(|| "make /dev/console".into())?;
    }
    let mut binds = Vec::new();
    for device in devices.iter().filter(|device| !console || device.path.as_bytes() != b"console") {
        let what = || format!("make the device /dev/{}", show(&device.path));
        let (parent, name) = parent_in(&mount, &device.path).during(what)?;
        match make(parent.as_ref().unwrap_or(&mount).as_fd(), &name, device) {
            Err(Errno::PERM) => {
                let host = CString::new([b"/dev/", device.path.as_bytes()].concat());
                let host = host.map_err(|_| Failure::new(what()))?;
                rustix::fs::mknodat(parent.as_ref().unwrap_or(&mount), &name, FileType::RegularFile, RW, 0)
                    .during(what)?;
                binds.push((device.path.clone(), detached::clone_path(&host, false).during(what)?));
            }
            result => result.during(what)?,
        }
    }
    Ok(Devices { mount, binds })
}

const RW: Mode = Mode::from_raw_mode(0o666);

impl Devices {
    /// Gives what is not a node to the root of a user namespace, if there is one; nodes have their owners.
    pub(super) fn owned_by(self, host_id: Option<u32>) -> Result<Self, Failure> {
        let Some(id) = host_id else { return Ok(self) };
        let own = |name: &CStr| {
            let (uid, gid) = (Uid::from_raw(id), Gid::from_raw(id));
            let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::EMPTY_PATH;
            rustix::fs::chownat(&self.mount, name, Some(uid), Some(gid), flags)
                .during(|| format!("own /dev/{}", show(name)))
        };
        own(c"")?;
        LINKS.iter().try_for_each(|(name, _)| own(name))?;
        Ok(self)
    }

    /// Attaches it all; the tmpfs is read-only from then on if the attributes say so.
    pub(super) fn attach(&self, target: &OwnedFd, attributes: Attributes) -> Result<(), Failure> {
        detached::attach(&self.mount, target).during(|| "mount /dev".into())?;
        for (name, node) in &self.binds {
            let what = || format!("bind the device /dev/{}", show(name));
            let file = rustix::fs::openat(&self.mount, name, NODE, Mode::empty()).during(what)?;
            detached::attach(node, file).during(what)?;
        }
        let attributes = Attributes { own: attributes.own & READ_ONLY, ..attributes };
        detached::set_attributes(&self.mount, attributes).during(|| "set the attributes of /dev".into())
    }

    /// The null device that was made here, opened.
    pub(super) fn null(&self) -> Result<OwnedFd, Failure> {
        let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NOCTTY;
        rustix::fs::openat(&self.mount, c"null", flags, Mode::empty()).during(|| "open /dev/null".into())
    }
}

const NODE: OFlags = OFlags::PATH.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Makes a node somewhere else in the container, where the image may have something already.
pub(super) fn make_far(root: &Root, device: &Device) -> Result<(), Failure> {
    let what = || format!("make the device /{}", show(&device.path));
    let bytes = device.path.as_bytes();
    let split = bytes.iter().rposition(|byte| *byte == b'/');
    let (parent, name) = match split {
        Some(split) => (bytes.get(..split), bytes.get(split + 1..)),
        None => (None, Some(bytes)),
    };
    let c_string =
        |bytes: Option<&[u8]>| CString::new(bytes.unwrap_or_default()).map_err(|_| Failure::new(what()));
    let (parent, name) = (c_string(parent)?, c_string(name)?);
    let parent = root.find_or_make(&parent, Missing::Directory).during(what)?;
    match make(parent.as_fd(), &name, device) {
        Err(Errno::EXIST) => {}
        result => result.during(what)?,
    }
    // Somebody may have been there before: only the very device is taken for it.
    let stat = rustix::fs::statat(&parent, &name, AtFlags::SYMLINK_NOFOLLOW).during(what)?;
    let format = stat.st_mode & libc::S_IFMT;
    if format == device.format && (format == libc::S_IFIFO || stat.st_rdev == number(device)) {
        Ok(())
    } else {
        Err(Failure::new(format!("{}: something else is there", what())))
    }
}

/// A null device of nobody else's, for processes that have no `/dev` of ours.
pub(super) fn own_null() -> Result<OwnedFd, Failure> {
    let data: [Parameter; 1] = [(c"size".into(), Some(c"4k".into()))];
    let mount = detached::filesystem(c"tmpfs", &data, 0)?;
    let null = Device {
        path: c"null".into(),
        format: libc::S_IFCHR,
        major: 1,
        minor: 3,
        mode: 0o666,
        uid: 0,
        gid: 0,
    };
    make(mount.as_fd(), c"null", &null).during(|| "make a null device".into())?;
    Devices { mount, binds: Vec::new() }.null()
}

/// Makes one node that must not be there yet.
pub(super) fn make(parent: BorrowedFd<'_>, name: &CStr, device: &Device) -> Result<(), Errno> {
    let kind = FileType::from_raw_mode(device.format);
    rustix::fs::mknodat(parent, name, kind, Mode::from_raw_mode(device.mode), number(device))?;
    if (device.uid, device.gid) != (0, 0) {
        let (uid, gid) = (Uid::from_raw(device.uid), Gid::from_raw(device.gid));
        rustix::fs::chownat(parent, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
    }
    Ok(())
}

fn number(device: &Device) -> u64 {
    if device.format == libc::S_IFIFO { 0 } else { rustix::fs::makedev(device.major, device.minor) }
}

/// The directory of a node in the new tmpfs, made with those that lead there, and its name; none is the top.
fn parent_in(mount: &OwnedFd, path: &CStr) -> Result<(Option<OwnedFd>, CString), Errno> {
    let mut parts =
        path.to_bytes().split(|byte| *byte == b'/').map(|part| CString::new(part).unwrap_or_default());
    let mut name = parts.next().unwrap_or_default();
    let mut parent: Option<OwnedFd> = None;
    for next in parts {
        let here = parent.as_ref().unwrap_or(mount);
        match rustix::fs::mkdirat(here, &name, Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno),
        }
        parent = Some(rustix::fs::openat(here, &name, NODE | OFlags::DIRECTORY, Mode::empty())?);
        name = next;
    }
    Ok((parent, name))
}
