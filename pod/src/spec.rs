//! The OCI runtime spec of a container: a pure function of the pod, the container, the image's
//! configuration and the host (runtime-spec 1.2).
//!
//! Nothing here reads a file or asks the kernel: what has to be looked up is in [`Inputs`], so the
//! outcome is tested by golden files (`spec/golden/`).

pub(crate) mod devices;
pub(crate) mod enclosure;
pub(crate) mod filter;
mod mounts;
mod process;
mod resources;
mod security;
pub(crate) mod user;

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use image::ImageConfig;
use oci_spec::OciSpecError;
use oci_spec::runtime::{
    Capability, LinuxBuilder, LinuxIdMapping, LinuxIdMappingBuilder, LinuxNamespace, LinuxNamespaceBuilder,
    LinuxNamespaceType, LinuxSeccomp, RootBuilder, Spec, SpecBuilder,
};

use self::devices::DeviceNode;
use crate::config::{ContainerConfig, IdMap, PidMode, PodConfig, PodOrNode, Propagation};
use crate::confinement::Confinement;
use crate::error::{Error, Result};
use crate::status::User;

pub(crate) use self::resources::{linux_resources, set_limits};

/// All that a spec depends on.
#[derive(Debug)]
pub(crate) struct Inputs<'a> {
    pub id: &'a str,
    pub pod_id: &'a str,
    pub pod: &'a PodConfig,
    pub container: &'a ContainerConfig,
    pub image: &'a ImageConfig,
    pub user: &'a User,
    /// The home directory that the image's `/etc/passwd` names.
    pub home: &'a str,
    /// The host name inside.
    pub hostname: &'a str,
    /// The pod's directory, where its shared files are.
    pub pod_dir: &'a Path,
    /// PID of pause, in whose namespaces the container lives.
    pub pause_pid: i32,
    /// PID of the container whose PID namespace is joined, with PidMode::Target.
    pub target_pid: Option<i32>,
    /// The cgroup, absolute.
    pub cgroup: &'a str,
    /// Directory of the container's volumes, for those that the image declares.
    pub volumes: &'a Path,
    /// Where the container's image volumes are mounted, in their order.
    pub image_volumes: &'a [PathBuf],
    /// The device nodes asked for, looked up.
    pub devices: &'a [DeviceNode],
    pub seccomp: Option<LinuxSeccomp>,
    pub confinement: &'a Confinement,
    pub host: &'a HostFacts,
}

/// What the spec needs to know of the node.
#[derive(Debug, Clone)]
pub(crate) struct HostFacts {
    /// The capabilities that the daemon itself has: what privileged means.
    pub capabilities: Vec<String>,
    /// Resource limits that every container gets: name, soft, hard.
    pub rlimits: Vec<(String, u64, u64)>,
    /// Whether cgroup v2 is the only hierarchy.
    pub cgroup_v2: bool,
}

/// Builds the spec.
pub(crate) fn build(inputs: &Inputs<'_>) -> Result<Spec> {
    let args = process::args(inputs)?;
    let capabilities = security::capabilities(inputs)?;
    let spec = assemble(inputs, args, capabilities);
    spec.map_err(|source| Error::Spec { id: inputs.id.to_owned(), source: source.into() })
}

/// The capabilities that the container's first process may have, for profiles that depend on them.
pub(crate) fn effective_capabilities(inputs: &Inputs<'_>) -> Result<Vec<Capability>> {
    Ok(security::capabilities(inputs)?.bounding.into_iter().collect())
}

fn assemble(
    inputs: &Inputs<'_>,
    args: Vec<String>,
    capabilities: security::Sets,
) -> Result<Spec, OciSpecError> {
    let root = RootBuilder::default()
        .path(PathBuf::from("rootfs"))
        .readonly(inputs.container.security.readonly_rootfs)
        .build()?;
    let mut linux = LinuxBuilder::default()
        .cgroups_path(PathBuf::from(inputs.cgroup))
        .namespaces(namespaces(inputs)?)
        .resources(resources::for_container(inputs)?)
        .devices(devices::linux_devices(inputs.devices, wanted_users(inputs).is_some())?)
        .rootfs_propagation(rootfs_propagation(inputs.container))
        .masked_paths(unless_privileged(inputs, &inputs.container.security.masked_paths))
        .readonly_paths(unless_privileged(inputs, &inputs.container.security.readonly_paths));
    if let Some(seccomp) = inputs.seccomp.clone() {
        linux = linux.seccomp(seccomp);
    }
    if let Some(labels) = &inputs.confinement.selinux {
        linux = linux.mount_label(labels.mount.clone());
    }
    if let Some(ids) = wanted_users(inputs) {
        linux = linux.uid_mappings(vec![mapping(ids)?]).gid_mappings(vec![mapping(ids)?]);
    }
    let mut spec = SpecBuilder::default()
        .version("1.2.0")
        .root(root)
        .mounts(mounts::for_container(inputs)?)
        .process(process::build(inputs, args, capabilities)?)
        .annotations(annotations(inputs))
        .linux(linux.build()?)
        .build()?;
    // The builder has a default of its own; the pod's UTS namespace has its name already.
    spec.set_hostname(None);
    Ok(spec)
}

/// Where a namespace has a path, it is the pod's; where it is absent, the node's.
fn namespaces(inputs: &Inputs<'_>) -> Result<Vec<LinuxNamespace>, OciSpecError> {
    let wanted = &inputs.pod.security.namespaces;
    let of_pause = |name: &str| Some(format!("/proc/{}/ns/{name}", inputs.pause_pid));
    let mut list = vec![(LinuxNamespaceType::Mount, None)];
    match inputs.container.security.namespaces.pid {
        PidMode::Container => list.push((LinuxNamespaceType::Pid, None)),
        PidMode::Pod => list.push((LinuxNamespaceType::Pid, of_pause("pid"))),
        PidMode::Target(_) => {
            list.push((LinuxNamespaceType::Pid, inputs.target_pid.map(|pid| format!("/proc/{pid}/ns/pid"))));
        }
        PidMode::Node => (),
    }
    if wanted.ipc == PodOrNode::Pod {
        list.push((LinuxNamespaceType::Ipc, of_pause("ipc")));
    }
    if wanted.network == PodOrNode::Pod {
        list.push((LinuxNamespaceType::Network, of_pause("net")));
        list.push((LinuxNamespaceType::Uts, of_pause("uts")));
    }
    // In a user namespace the control groups are shown to who owns that of theirs.
    let privileged = inputs.container.security.privileged && wanted.users.is_none();
    if inputs.host.cgroup_v2 && !privileged {
        list.push((LinuxNamespaceType::Cgroup, None));
    }
    if wanted.users.is_some() {
        list.push((LinuxNamespaceType::User, of_pause("user")));
    }
    list.into_iter()
        .map(|(kind, path)| {
            let namespace = LinuxNamespaceBuilder::default().typ(kind);
            match path {
                Some(path) => namespace.path(PathBuf::from(path)).build(),
                None => namespace.build(),
            }
        })
        .collect()
}

fn wanted_users(inputs: &Inputs<'_>) -> Option<IdMap> {
    inputs.pod.security.namespaces.users
}

fn mapping(ids: IdMap) -> Result<LinuxIdMapping, OciSpecError> {
    LinuxIdMappingBuilder::default().container_id(0_u32).host_id(ids.host).size(ids.length).build()
}

/// A mount that mounts travel through needs a root file system that lets them.
fn rootfs_propagation(container: &ContainerConfig) -> String {
    let uses = |propagation| container.mounts.iter().any(|mount| mount.propagation == propagation);
    let mode = if uses(Propagation::Bidirectional) {
        "rshared"
    } else if uses(Propagation::HostToContainer) {
        "rslave"
    } else {
        "rprivate"
    };
    mode.to_owned()
}

/// What other tools look for, in containerd's words.
fn annotations(inputs: &Inputs<'_>) -> HashMap<String, String> {
    let own = [
        ("container-type", "container"),
        ("container-name", &inputs.container.metadata.name),
        ("image-name", &inputs.container.image),
    ];
    let own = own.into_iter().map(|(key, value)| (format!("io.kubernetes.cri.{key}"), value.to_owned()));
    pod_annotations(inputs.pod_id, inputs.pod).chain(own).collect()
}

/// Which pod it is, for the pod's own spec and its containers'.
fn pod_annotations(id: &str, pod: &PodConfig) -> impl Iterator<Item = (String, String)> {
    let metadata = &pod.metadata;
    [
        ("sandbox-id", id),
        ("sandbox-name", &metadata.name),
        ("sandbox-namespace", &metadata.namespace),
        ("sandbox-uid", &metadata.uid),
    ]
    .map(|(key, value)| (format!("io.kubernetes.cri.{key}"), value.to_owned()))
    .into_iter()
}

/// Given also when there are none, since the builder has a default of its own.
fn unless_privileged(inputs: &Inputs<'_>, paths: &[PathBuf]) -> Vec<String> {
    if inputs.container.security.privileged {
        return Vec::new();
    }
    paths.iter().map(|path| path.to_string_lossy().into_owned()).collect()
}

#[cfg(test)]
mod tests;
