//! Mounts of the spec: their types and the words of fstab(5) that come with them.

use std::ffi::CString;

use oci_spec::runtime::Mount as SpecMount;

use super::Error;
use super::steps::{Attributes, FilesystemName, Kind, Mount, Parameter, Propagation};
use super::{text, users};
use crate::IdMap;

/// Compiles the mounts; one for `/dev` is put first when the spec has none.
pub(super) fn compile(mounts: &[SpecMount], users: Option<IdMap>) -> Result<Vec<Mount>, Error> {
    let compiled = mounts.iter().enumerate().map(|(index, mount)| one(index, mount, users));
    let mut compiled = compiled.collect::<Result<Vec<_>, _>>()?;
    if !compiled.iter().any(|mount| mount.target.as_bytes() == b"dev") {
        let data = vec![(c"mode".into(), Some(c"755".into())), (c"size".into(), Some(c"65536k".into()))];
        let attributes = Attributes { own: libc::MOUNT_ATTR_NOSUID, ..Attributes::default() };
        compiled.insert(
            0,
            Mount { target: c"dev".into(), kind: Kind::Devices { data }, attributes, label: None },
        );
    }
    Ok(compiled)
}

/// Reads the words of mount_namespaces(7).
pub(super) fn propagation(word: &str) -> Option<Propagation> {
    let (bare, recursive) = word.strip_prefix('r').map_or((word, false), |bare| (bare, true));
    let kind = match bare {
        "private" => libc::MS_PRIVATE,
        "shared" => libc::MS_SHARED,
        "slave" => libc::MS_SLAVE,
        "unbindable" => libc::MS_UNBINDABLE,
        _ => return None,
    };
    Some(Propagation { kind, recursive })
}

fn one(index: usize, mount: &SpecMount, users: Option<IdMap>) -> Result<Mount, Error> {
    let field = |name: &str| format!("mounts[{index}].{name}");
    let target = text::container_path(&field("destination"), mount.destination())?;
    if target.is_empty() {
        return Err(Error::invalid(field("destination"), "the root itself cannot be mounted over"));
    }
    let ids = users::parse(&field("uidMappings"), mount.uid_mappings(), mount.gid_mappings())?;
    if ids.is_some() && ids != users {
        return Err(Error::invalid(field("uidMappings"), "they are not those of the pod's user namespace"));
    }
    let mapped = ids.is_some();
    let mut words = Words::default();
    for word in mount.options().iter().flatten() {
        words.add(word).map_err(|reason| match reason {
            Refusal::Unsupported => Error::Unsupported(format!("{} {word:?}", field("options"))),
            Refusal::Invalid(reason) => Error::invalid(field("options"), reason),
        })?;
    }
    let source = || {
        let missing = || Error::invalid(field("source"), "it is missing");
        text::host_path(&field("source"), mount.source().as_deref().ok_or_else(missing)?)
    };
    let kind = match (mount.typ().as_deref().unwrap_or_default(), words.bind) {
        ("volume", _) => Kind::Volume { source: source()? },
        ("bind", bind) => Kind::Bind { source: source()?, recursive: bind.unwrap_or(false), mapped },
        (_, Some(recursive)) => Kind::Bind { source: source()?, recursive, mapped },
        _ if mapped => return Err(Error::Unsupported(format!("{} of this mount", field("uidMappings")))),
        ("cgroup" | "cgroup2", None) => Kind::Cgroup,
        ("tmpfs", None) if target.as_bytes() == b"dev" => Kind::Devices { data: words.take_data() },
        (name, None) => Kind::Filesystem {
            name: filesystem(name)
                .ok_or_else(|| Error::Unsupported(format!("{} {name:?}", field("type"))))?,
            data: words.take_data(),
        },
    };
    if let Some((key, _)) = words.data.first() {
        return Err(Error::Unsupported(format!("{} {:?} of this mount", field("options"), key)));
    }
    // Whose label it is is known later.
    let label = words.relabel.then(CString::default);
    Ok(Mount { target, kind, attributes: words.attributes, label })
}

/// Labels the file systems that are the container's own; those of the kernel have labels of their own.
pub(super) fn label(mounts: &mut [Mount], label: Option<&CString>) {
    for mount in mounts {
        let is_own =
            matches!(mount.kind, Kind::Volume { .. } | Kind::Filesystem { name: FilesystemName::Mqueue, .. });
        mount.label = label.filter(|_| is_own || mount.label.is_some()).cloned();
        let Some(label) = label else { continue };
        match &mut mount.kind {
            Kind::Devices { data }
            | Kind::Filesystem { name: FilesystemName::Devpts | FilesystemName::Tmpfs, data } => {
                data.push((c"context".into(), Some(label.clone())));
            }
            _ => {}
        }
    }
}

fn filesystem(name: &str) -> Option<FilesystemName> {
    Some(match name {
        "devpts" => FilesystemName::Devpts,
        "mqueue" => FilesystemName::Mqueue,
        "proc" => FilesystemName::Proc,
        "sysfs" => FilesystemName::Sysfs,
        "tmpfs" => FilesystemName::Tmpfs,
        _ => return None,
    })
}

/// What the words of one mount come to; later words win over earlier ones.
#[derive(Default)]
struct Words {
    bind: Option<bool>,
    relabel: bool,
    attributes: Attributes,
    data: Vec<Parameter>,
}

enum Refusal {
    Invalid(String),
    Unsupported,
}

impl Words {
    /// A word that undoes another (`rw`, `dev`) never takes away what a bind's source has on the host.
    fn add(&mut self, word: &str) -> Result<(), Refusal> {
        if let Some(propagation) = propagation(word) {
            self.attributes.propagation = Some(propagation);
            return Ok(());
        }
        let own = &mut self.attributes.own;
        match word {
            "bind" => self.bind = Some(self.bind.unwrap_or(false)),
            "rbind" => self.bind = Some(true),
            RELABEL => self.relabel = true,
            "" | "defaults" | "async" | "silent" | "loud" | "nolazytime" | "nomand" => {}
            "ro" => *own |= libc::MOUNT_ATTR_RDONLY,
            "rw" => *own &= !libc::MOUNT_ATTR_RDONLY,
            "nosuid" => *own |= libc::MOUNT_ATTR_NOSUID,
            "suid" => *own &= !libc::MOUNT_ATTR_NOSUID,
            "nodev" => *own |= libc::MOUNT_ATTR_NODEV,
            "dev" => *own &= !libc::MOUNT_ATTR_NODEV,
            "noexec" => *own |= libc::MOUNT_ATTR_NOEXEC,
            "exec" => *own &= !libc::MOUNT_ATTR_NOEXEC,
            "nosymfollow" => *own |= libc::MOUNT_ATTR_NOSYMFOLLOW,
            "symfollow" => *own &= !libc::MOUNT_ATTR_NOSYMFOLLOW,
            "nodiratime" => *own |= libc::MOUNT_ATTR_NODIRATIME,
            "diratime" => *own &= !libc::MOUNT_ATTR_NODIRATIME,
            "noatime" => *own = *own & !libc::MOUNT_ATTR__ATIME | libc::MOUNT_ATTR_NOATIME,
            "strictatime" => *own = *own & !libc::MOUNT_ATTR__ATIME | libc::MOUNT_ATTR_STRICTATIME,
            "atime" | "relatime" | "norelatime" | "nostrictatime" => *own &= !libc::MOUNT_ATTR__ATIME,
            "rro" => self.attributes.recursive |= libc::MOUNT_ATTR_RDONLY,
            "rnosuid" => self.attributes.recursive |= libc::MOUNT_ATTR_NOSUID,
            "rnodev" => self.attributes.recursive |= libc::MOUNT_ATTR_NODEV,
            "rnoexec" => self.attributes.recursive |= libc::MOUNT_ATTR_NOEXEC,
            "rnosymfollow" => self.attributes.recursive |= libc::MOUNT_ATTR_NOSYMFOLLOW,
            _ if REFUSED.contains(&word) => return Err(Refusal::Unsupported),
            _ => self.data.push(parameter(word)?),
        }
        Ok(())
    }

    fn take_data(&mut self) -> Vec<Parameter> {
        std::mem::take(&mut self.data)
    }
}

/// Corten's own word for a bind whose files are labelled for the container.
pub(crate) const RELABEL: &str = "relabel";

/// Words that mean something to other runtimes or to mount(8) and must not reach the kernel as data.
const REFUSED: [&str; 21] = [
    "dirsync",
    "idmap",
    "iversion",
    "lazytime",
    "mand",
    "noiversion",
    "remount",
    "ridmap",
    "ratime",
    "rdev",
    "rdiratime",
    "rexec",
    "rnoatime",
    "rnodiratime",
    "rrelatime",
    "rrw",
    "rstrictatime",
    "rsuid",
    "rsymfollow",
    "sync",
    "tmpcopyup",
];

fn parameter(word: &str) -> Result<Parameter, Refusal> {
    // fsconfig(2) takes strings of 255 bytes.
    if word.len() > 255 {
        return Err(Refusal::Invalid("a word is longer than 255 bytes".into()));
    }
    let c_string = |text: &str| CString::new(text).map_err(|_| Refusal::Invalid("it has a NUL byte".into()));
    Ok(match word.split_once('=') {
        Some((key, value)) => (c_string(key)?, Some(c_string(value)?)),
        None => (c_string(word)?, None),
    })
}

/// Whether a mount of the plan gives the container a terminal multiplexer of its own.
pub(super) fn has_devpts(mounts: &[Mount]) -> bool {
    mounts.iter().any(|mount| {
        mount.target.as_bytes() == b"dev/pts"
            && matches!(mount.kind, Kind::Filesystem { name: FilesystemName::Devpts, .. })
    })
}
