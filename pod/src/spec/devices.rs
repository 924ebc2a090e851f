//! Device nodes: which ones a container gets, and the device rules of its cgroup.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use oci_spec::OciSpecError;
use oci_spec::runtime::{
    LinuxDevice, LinuxDeviceBuilder, LinuxDeviceCgroup, LinuxDeviceCgroupBuilder, LinuxDeviceType,
};

use crate::config::Device;
use crate::error::{Error, Result};

/// A device node of the host, and where it appears.
#[derive(Debug, Clone)]
pub(crate) struct DeviceNode {
    pub path: PathBuf,
    pub kind: LinuxDeviceType,
    pub major: i64,
    pub minor: i64,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub access: String,
}

/// What every container may use, besides making nodes: the nodes of its `/dev` (runtime-spec,
/// "Default Devices") and terminals.
const DEFAULT_CHAR_DEVICES: [(i64, Option<i64>); 8] = [
    (1, Some(3)), // null
    (1, Some(5)), // zero
    (1, Some(7)), // full
    (1, Some(8)), // random
    (1, Some(9)), // urandom
    (5, Some(0)), // tty
    (5, Some(2)), // ptmx
    (136, None),  // pts/*
];

/// Directories of `/dev` that hold no devices for a container, or that it has its own of.
const NOT_FOR_CONTAINERS: [&str; 7] = ["pts", "shm", "fd", "mqueue", "console", ".lxc", ".udev"];

/// Looks up the devices that a container asks for; a privileged one gets all of the host's.
pub(crate) fn look_up(wanted: &[Device], privileged: bool) -> Result<Vec<DeviceNode>> {
    let mut nodes = Vec::new();
    if privileged {
        walk(Path::new("/dev"), Path::new("/dev"), "rwm", &mut nodes)?;
    }
    for device in wanted {
        let before = nodes.len();
        let metadata = fs::metadata(&device.host_path).map_err(|error| {
            Error::invalid("config.devices", format!("{}: {error}", device.host_path.display()))
        })?;
        if metadata.is_dir() {
            walk(&device.host_path, &device.container_path, &device.permissions, &mut nodes)?;
        } else {
            nodes.extend(node(&metadata, &device.container_path, &device.permissions));
        }
        if nodes.len() == before {
            let reason = format!("{} is not a device", device.host_path.display());
            return Err(Error::invalid("config.devices", reason));
        }
    }
    Ok(nodes)
}

fn walk(host: &Path, inside: &Path, access: &str, nodes: &mut Vec<DeviceNode>) -> Result<()> {
    let entries = fs::read_dir(host).map_err(Error::file("list", host))?;
    for entry in entries {
        let entry = entry.map_err(Error::file("list", host))?;
        let name = entry.file_name();
        if NOT_FOR_CONTAINERS.iter().any(|skipped| name == *skipped) {
            continue;
        }
        // A node may go away while it is looked at: hot plugging.
        let Ok(metadata) = entry.metadata() else { continue };
        if metadata.is_dir() {
            walk(&entry.path(), &inside.join(&name), access, nodes)?;
        } else {
            nodes.extend(node(&metadata, &inside.join(&name), access));
        }
    }
    Ok(())
}

fn node(metadata: &fs::Metadata, path: &Path, access: &str) -> Option<DeviceNode> {
    let kind = if metadata.file_type().is_char_device() {
        LinuxDeviceType::C
    } else if metadata.file_type().is_block_device() {
        LinuxDeviceType::B
    } else {
        return None;
    };
    Some(DeviceNode {
        path: path.to_owned(),
        kind,
        major: i64::from(rustix::fs::major(metadata.rdev())),
        minor: i64::from(rustix::fs::minor(metadata.rdev())),
        mode: metadata.mode() & 0o7777,
        uid: metadata.uid(),
        gid: metadata.gid(),
        access: access.to_owned(),
    })
}

/// The nodes as the host has them. Their owners are ids of the host, which a container with `own_users` has
/// no names for: there they stay the host's, so that what is root's alone is not the container's root's.
pub(crate) fn linux_devices(nodes: &[DeviceNode], own_users: bool) -> Result<Vec<LinuxDevice>, OciSpecError> {
    nodes
        .iter()
        .map(|node| {
            let device = LinuxDeviceBuilder::default()
                .path(node.path.clone())
                .typ(node.kind)
                .major(node.major)
                .minor(node.minor)
                .file_mode(node.mode);
            if own_users { device.build() } else { device.uid(node.uid).gid(node.gid).build() }
        })
        .collect()
}

/// Nothing but the defaults and what was asked for; everything for a privileged container.
pub(crate) fn rules(nodes: &[DeviceNode], privileged: bool) -> Result<Vec<LinuxDeviceCgroup>, OciSpecError> {
    if privileged {
        return Ok(vec![LinuxDeviceCgroupBuilder::default().allow(true).access("rwm").build()?]);
    }
    let mut rules = vec![LinuxDeviceCgroupBuilder::default().allow(false).access("rwm").build()?];
    for kind in [LinuxDeviceType::C, LinuxDeviceType::B] {
        rules.push(LinuxDeviceCgroupBuilder::default().allow(true).typ(kind).access("m").build()?);
    }
    for (major, minor) in DEFAULT_CHAR_DEVICES {
        let rule = LinuxDeviceCgroupBuilder::default()
            .allow(true)
            .typ(LinuxDeviceType::C)
            .major(major)
            .access("rwm");
        rules.push(match minor {
            Some(minor) => rule.minor(minor).build()?,
            None => rule.build()?,
        });
    }
    for node in nodes {
        let rule = LinuxDeviceCgroupBuilder::default()
            .allow(true)
            .typ(node.kind)
            .major(node.major)
            .minor(node.minor);
        rules.push(rule.access(node.access.clone()).build()?);
    }
    Ok(rules)
}
