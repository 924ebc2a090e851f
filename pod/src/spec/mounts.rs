//! The mounts of a container: the kernel's file systems, the pod's shared files, the image's volumes
//! and the request's binds, in the order in which they are made.

use std::path::{Component, Path, PathBuf};

use oci_spec::OciSpecError;
use oci_spec::runtime::{Mount, MountBuilder};

use super::{Inputs, mapping};
use crate::config::{MountAccess, PodOrNode, Propagation};

pub(crate) fn for_container(inputs: &Inputs<'_>) -> Result<Vec<Mount>, OciSpecError> {
    let mut mounts = kernel_file_systems(inputs)?;
    mounts.extend(shared_files(inputs)?);
    mounts.extend(image_volumes(inputs)?);
    // The request has the last word on a place, and covers what was there.
    let of_host = inputs.container.mounts.iter().map(|mount| &mount.container_path);
    let images = inputs.container.image_volumes.iter().map(|volume| &volume.container_path);
    let wanted: Vec<PathBuf> = of_host.chain(images).map(|path| lexical(path)).collect();
    let covered =
        |place: &Path| wanted.iter().any(|path| place == path || (path == "/dev" && place.starts_with(path)));
    mounts.retain(|mount| !covered(mount.destination()));
    mounts.extend(binds(inputs)?);
    Ok(mounts)
}

fn kernel_file_systems(inputs: &Inputs<'_>) -> Result<Vec<Mount>, OciSpecError> {
    let privileged = inputs.container.security.privileged;
    let access = if privileged { "rw" } else { "ro" };
    let shm = match inputs.pod.security.namespaces.ipc {
        PodOrNode::Pod => inputs.pod_dir.join("shm"),
        PodOrNode::Node => PathBuf::from("/dev/shm"),
    };
    Ok(vec![
        mount("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"])?,
        mount("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"])?,
        mount(
            "/dev/pts",
            "devpts",
            "devpts",
            &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        )?,
        mount("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"])?,
        mount(
            "/dev/shm",
            "bind",
            &shm.to_string_lossy(),
            &["rbind", "rprivate", "nosuid", "noexec", "nodev"],
        )?,
        sysfs(inputs, access)?,
        mount("/sys/fs/cgroup", "cgroup", "cgroup", &["nosuid", "noexec", "nodev", "relatime", access])?,
    ])
}

/// A new sysfs needs a network namespace of the same user namespace; with the node's network it is the node's,
/// which its root alone may change.
fn sysfs(inputs: &Inputs<'_>, access: &str) -> Result<Mount, OciSpecError> {
    let namespaces = &inputs.pod.security.namespaces;
    if namespaces.users.is_some() && namespaces.network == PodOrNode::Node {
        return mount("/sys", "bind", "/sys", &["bind", "rprivate", "nosuid", "noexec", "nodev", "ro"]);
    }
    mount("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", access])
}

/// `/etc/hostname`, `/etc/hosts` and `/etc/resolv.conf`.
fn shared_files(inputs: &Inputs<'_>) -> Result<Vec<Mount>, OciSpecError> {
    let access = if inputs.container.security.readonly_rootfs { "ro" } else { "rw" };
    ["hostname", "hosts", "resolv.conf"]
        .iter()
        .map(|name| {
            let source = inputs.pod_dir.join(name);
            mount(&format!("/etc/{name}"), "bind", &source.to_string_lossy(), &["rbind", "rprivate", access])
        })
        .collect()
}

/// Directories that the image wants kept out of its layers; filled from the image when first used.
fn image_volumes(inputs: &Inputs<'_>) -> Result<Vec<Mount>, OciSpecError> {
    let mut places: Vec<PathBuf> = inputs.image.volumes.iter().map(|path| lexical(Path::new(path))).collect();
    places.retain(|place| place != Path::new("/"));
    places.sort();
    places.dedup();
    let volumes = places.iter().enumerate().map(|(number, place)| {
        let source = inputs.volumes.join(number.to_string());
        mount(&place.to_string_lossy(), "volume", &source.to_string_lossy(), &["rbind", "rprivate", "rw"])
    });
    volumes.collect()
}

/// The request's binds and images, parents before what lies below them.
fn binds(inputs: &Inputs<'_>) -> Result<Vec<Mount>, OciSpecError> {
    let relabels = inputs.confinement.selinux.is_some();
    let binds = inputs.container.mounts.iter().map(|mount| bind(mount, relabels));
    let volumes = inputs.container.image_volumes.iter().zip(inputs.image_volumes);
    let images = volumes.map(|(volume, home)| {
        let place = lexical(&volume.container_path);
        // Its home is read-only, and nobody gains rights there.
        mount(&place.to_string_lossy(), "bind", &home.to_string_lossy(), &["rbind", "rprivate", "ro"])
    });
    let mut wanted = binds.chain(images).collect::<Result<Vec<_>, _>>()?;
    wanted.sort_by_key(|mount| mount.destination().components().count());
    Ok(wanted)
}

fn bind(wanted: &crate::config::Mount, relabels: bool) -> Result<Mount, OciSpecError> {
    let propagation = match wanted.propagation {
        Propagation::Bidirectional => "rshared",
        Propagation::HostToContainer => "rslave",
        Propagation::Private => "rprivate",
    };
    let access = match wanted.access {
        MountAccess::Writable => "rw",
        MountAccess::ReadOnly => "ro",
        MountAccess::RecursiveReadOnly => "rro",
    };
    let place = lexical(&wanted.container_path);
    let source = wanted.host_path.to_string_lossy();
    let mut options = vec!["rbind", propagation, access];
    if wanted.selinux_relabel && relabels {
        // The runtime's own word.
        options.push("relabel");
    }
    let mut bind = mount(&place.to_string_lossy(), "bind", &source, &options)?;
    if let Some(ids) = wanted.users {
        bind.set_uid_mappings(Some(vec![mapping(ids)?]));
        bind.set_gid_mappings(Some(vec![mapping(ids)?]));
    }
    Ok(bind)
}

/// The path from the root without `.`, `..` and repeated slashes, as text: the runtime resolves it in
/// the container's root.
fn lexical(path: &Path) -> PathBuf {
    let mut clean = PathBuf::from("/");
    for component in path.components() {
        match component {
            Component::Normal(name) => clean.push(name),
            Component::ParentDir => {
                clean.pop();
            }
            Component::CurDir | Component::RootDir | Component::Prefix(_) => (),
        }
    }
    clean
}

fn mount(place: &str, kind: &str, source: &str, options: &[&str]) -> Result<Mount, OciSpecError> {
    MountBuilder::default()
        .destination(PathBuf::from(place))
        .typ(kind)
        .source(PathBuf::from(source))
        .options(options.iter().map(|option| (*option).to_owned()).collect::<Vec<_>>())
        .build()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_cleaned_as_text() {
        for (given, clean) in [
            ("/a//b/./c", "/a/b/c"),
            ("/../../etc/passwd", "/etc/passwd"),
            ("/a/../..", "/"),
            ("relative", "/relative"),
        ] {
            assert_eq!(lexical(Path::new(given)), Path::new(clean), "{given}");
        }
    }
}
