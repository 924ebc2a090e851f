//! The Linux section of the spec: namespaces, devices, kernel parameters.

use std::ffi::CString;
use std::path::Path;

use oci_spec::runtime::{Linux, LinuxDevice, LinuxDeviceType, LinuxNamespaceType};

use super::Error;
use super::steps::{Device, Namespaces, Pid};
use super::text;
use crate::IdMap;

/// Says where each namespace comes from.
pub(super) fn namespaces(linux: &Linux) -> Result<Namespaces, Error> {
    let mut namespaces = Namespaces { unshare: 0, join: 0, cgroup: false, pid: Pid::Host };
    let (mut mount, mut seen) = (false, Vec::new());
    for namespace in linux.namespaces().iter().flatten() {
        let (kind, joined) = (namespace.typ(), namespace.path().is_some());
        if seen.contains(&kind) {
            return Err(Error::invalid("linux.namespaces", format!("{kind} is there twice")));
        }
        seen.push(kind);
        match (kind, joined) {
            (LinuxNamespaceType::Mount, false) => mount = true,
            (LinuxNamespaceType::Cgroup, false) => namespaces.cgroup = true,
            (LinuxNamespaceType::Pid, false) => namespaces.pid = Pid::New,
            (LinuxNamespaceType::Pid, true) => namespaces.pid = Pid::Joined,
            (LinuxNamespaceType::Network | LinuxNamespaceType::Ipc | LinuxNamespaceType::Uts, false) => {
                namespaces.unshare |= flag(kind);
            }
            (LinuxNamespaceType::Network | LinuxNamespaceType::Ipc | LinuxNamespaceType::Uts, true) => {
                namespaces.join |= flag(kind);
            }
            (LinuxNamespaceType::Mount | LinuxNamespaceType::Cgroup, true) => {
                return Err(Error::Unsupported(format!("linux.namespaces {kind} with a path")));
            }
            (LinuxNamespaceType::User, true) => namespaces.join |= flag(kind),
            (LinuxNamespaceType::User, false) => {
                return Err(Error::Unsupported(format!("linux.namespaces {kind} without a path")));
            }
            (LinuxNamespaceType::Time, _) => {
                return Err(Error::Unsupported(format!("linux.namespaces {kind}")));
            }
        }
    }
    if mount { Ok(namespaces) } else { Err(Error::Missing("linux.namespaces mount")) }
}

/// CLONE_NEW* of all that a container with these namespaces does not share with the host.
pub(super) fn foreign(namespaces: Namespaces) -> u32 {
    let optional = [
        (namespaces.cgroup, LinuxNamespaceType::Cgroup),
        (namespaces.pid != Pid::Host, LinuxNamespaceType::Pid),
        (true, LinuxNamespaceType::Mount),
    ];
    let others = optional.into_iter().filter(|(own, _)| *own).fold(0, |flags, (_, kind)| flags | flag(kind));
    others | namespaces.unshare | namespaces.join
}

/// The devices below `/dev`, with the default ones, and those elsewhere.
///
/// Owners are ids of the container. In a user namespace a device without one keeps the host's root, to which
/// nobody there may pass for.
pub(super) fn devices(linux: &Linux, users: Option<IdMap>) -> Result<(Vec<Device>, Vec<Device>), Error> {
    let compiled = linux.devices().iter().flatten().map(|one| device(one, users));
    let mut compiled = compiled.collect::<Result<Vec<_>, _>>()?;
    let root = users.map_or(0, |ids| ids.host);
    for (name, minor, major) in [
        (c"dev/null", 3, 1),
        (c"dev/zero", 5, 1),
        (c"dev/full", 7, 1),
        (c"dev/random", 8, 1),
        (c"dev/urandom", 9, 1),
        (c"dev/tty", 0, 5),
    ] {
        if !compiled.iter().any(|device| device.path.as_c_str() == name) {
            let (format, mode) = (libc::S_IFCHR, 0o666);
            compiled.push(Device { path: name.into(), format, major, minor, mode, uid: root, gid: root });
        }
    }
    // The multiplexer is a link into the container's own devpts, whatever the host has there.
    compiled.retain(|device| device.path.as_bytes() != b"dev/ptmx");
    let (mut near, mut far) = (Vec::new(), Vec::new());
    for mut device in compiled {
        match device.path.as_bytes().strip_prefix(b"dev/") {
            Some(below) => {
                device.path =
                    CString::new(below).map_err(|_| Error::invalid("linux.devices", "a NUL byte"))?;
                near.push(device);
            }
            None if users.is_some() => {
                let field = format!("linux.devices /{}", device.path.to_string_lossy());
                return Err(Error::invalid(field, "in a user namespace devices are below /dev only"));
            }
            None => far.push(device),
        }
    }
    Ok((near, far))
}

/// Paths below `/proc/sys` and values; each must belong to a namespace that is not the host's.
pub(super) fn sysctls(linux: &Linux, namespaces: Namespaces) -> Result<Vec<(CString, CString)>, Error> {
    let mut sysctls = Vec::new();
    for (key, value) in linux.sysctl().iter().flatten() {
        let field = format!("linux.sysctl {key:?}");
        let path = sysctl_path(key).ok_or_else(|| Error::invalid(&field, "it is no name of a parameter"))?;
        let owner = sysctl_owner(&path)
            .ok_or_else(|| Error::invalid(&field, "it does not belong to a namespace of the container"))?;
        if (namespaces.unshare | namespaces.join) & flag(owner) == 0 {
            return Err(Error::invalid(&field, format!("the {owner} namespace is the host's")));
        }
        if value.contains(['\n', '\0']) {
            return Err(Error::invalid(&field, "the value has more than one line"));
        }
        sysctls.push((text::string(&field, &path)?, text::string(&field, value)?));
    }
    sysctls.sort();
    Ok(sysctls)
}

/// Paths that are hidden or read-only, relative to the root.
pub(super) fn paths(field: &str, paths: &Option<Vec<String>>) -> Result<Vec<CString>, Error> {
    paths.iter().flatten().map(|path| text::container_path(field, Path::new(path))).collect()
}

/// The kernel's bit for a kind of namespace; the OCI types have the same numbers.
fn flag(kind: LinuxNamespaceType) -> u32 {
    kind as u32
}

pub(super) fn device(device: &LinuxDevice, users: Option<IdMap>) -> Result<Device, Error> {
    let field = format!("linux.devices {}", device.path().display());
    let path = text::container_path(&field, device.path())?;
    let format = match device.typ() {
        LinuxDeviceType::B => libc::S_IFBLK,
        LinuxDeviceType::C | LinuxDeviceType::U => libc::S_IFCHR,
        LinuxDeviceType::P => libc::S_IFIFO,
        LinuxDeviceType::A => return Err(Error::invalid(&field, "a node is of one type")),
    };
    if path.is_empty() || path.as_bytes() == b"dev" {
        return Err(Error::invalid(&field, "a node cannot be there"));
    }
    let number = |number: i64, limit: u32| {
        let number = u32::try_from(number).ok().filter(|number| *number < limit);
        number.ok_or_else(|| Error::invalid(&field, "the kernel has no such device number"))
    };
    let owner = |id: Option<u32>| match (id, users) {
        (None, _) => Ok(0),
        (Some(id), None) => Ok(id),
        (Some(id), Some(ids)) => {
            ids.on_host(id).ok_or_else(|| Error::invalid(&field, format!("the pod has no id {id}")))
        }
    };
    Ok(Device {
        path,
        format,
        // MINORBITS of linux/kdev_t.h is 20.
        major: number(device.major(), 1 << 12)?,
        minor: number(device.minor(), 1 << 20)?,
        mode: device.file_mode().unwrap_or(0o666) & 0o7777,
        uid: owner(device.uid())?,
        gid: owner(device.gid())?,
    })
}

/// The path of a key: the first separator says which of `.` and `/` separates, as sysctl(8) has it.
fn sysctl_path(key: &str) -> Option<String> {
    let dotted = key.find(['.', '/']).is_some_and(|at| key.as_bytes().get(at) == Some(&b'.'));
    let swap = |letter| match letter {
        '.' => '/',
        '/' => '.',
        other => other,
    };
    let path: String = if dotted { key.chars().map(swap).collect() } else { key.to_owned() };
    let fits = |part: &str| {
        !matches!(part, "" | "." | "..")
            && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.:@".contains(&byte))
    };
    (path.contains('/') && path.split('/').all(fits)).then_some(path)
}

/// The namespace that a parameter belongs to, see namespaces(7).
fn sysctl_owner(path: &str) -> Option<LinuxNamespaceType> {
    const IPC: [&str; 9] = [
        "kernel/msgmax",
        "kernel/msgmnb",
        "kernel/msgmni",
        "kernel/sem",
        "kernel/shm_rmid_forced",
        "kernel/shmall",
        "kernel/shmmax",
        "kernel/shmmni",
        "kernel/msg_next_id",
    ];
    if path.starts_with("net/") {
        Some(LinuxNamespaceType::Network)
    } else if path.starts_with("fs/mqueue/") || IPC.contains(&path) {
        Some(LinuxNamespaceType::Ipc)
    } else if path == "kernel/domainname" {
        Some(LinuxNamespaceType::Uts)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_have_one_path_each() {
        for (key, path) in [
            ("net.ipv4.ip_forward", Some("net/ipv4/ip_forward")),
            ("net/ipv4/ip_forward", Some("net/ipv4/ip_forward")),
            ("net.ipv4.conf.eth0/100.rp_filter", Some("net/ipv4/conf/eth0.100/rp_filter")),
            ("net/ipv4/conf/eth0.100/rp_filter", Some("net/ipv4/conf/eth0.100/rp_filter")),
            ("kernel.shm_rmid_forced=1+kernel.core_pattern", None),
            ("net/../kernel/core_pattern", None),
            ("net..ipv4", None),
            ("net.ipv4.", None),
            ("net.ipv4 ", None),
            ("net.\0", None),
            ("net", None),
            ("", None),
        ] {
            assert_eq!(sysctl_path(key).as_deref(), path, "{key:?}");
        }
    }

    #[test]
    fn parameters_of_the_host_have_no_owner() {
        for path in [
            "kernel/core_pattern",
            "kernel/shmmax/x",
            "vm/overcommit_memory",
            "fs/file-max",
            "kernel/hostname",
        ] {
            assert_eq!(sysctl_owner(path), None, "{path}");
        }
        assert_eq!(sysctl_owner("fs/mqueue/msg_max"), Some(LinuxNamespaceType::Ipc));
    }

    #[test]
    fn the_oci_types_are_numbered_like_the_kernel() {
        for (kind, bit) in [
            (LinuxNamespaceType::Mount, libc::CLONE_NEWNS),
            (LinuxNamespaceType::Cgroup, libc::CLONE_NEWCGROUP),
            (LinuxNamespaceType::Uts, libc::CLONE_NEWUTS),
            (LinuxNamespaceType::Ipc, libc::CLONE_NEWIPC),
            (LinuxNamespaceType::Pid, libc::CLONE_NEWPID),
            (LinuxNamespaceType::Network, libc::CLONE_NEWNET),
            (LinuxNamespaceType::User, libc::CLONE_NEWUSER),
        ] {
            assert_eq!(flag(kind), u32::try_from(bit).unwrap());
        }
    }
}
