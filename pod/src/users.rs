//! Pods with a user namespace of their own: what the host must offer, and what does not go together with it.

use runtime::host::Host;

use crate::config::{ContainerConfig, Namespaces, PidMode, PodConfig, PodOrNode, Propagation};
use crate::error::{Error, Result};

const OPTIONS: &str = "linux.security_context.namespace_options.userns_options";

/// Refuses a pod whose user namespace cannot be made, or not so that it means anything.
pub(crate) fn check_pod(config: &PodConfig, host: &Host) -> Result<()> {
    let namespaces = &config.security.namespaces;
    if namespaces.users.is_none() {
        return Ok(());
    }
    if !host.user_namespaces {
        let what = if host.idmapped_mounts {
            "overlay over idmapped layers (Linux 5.19)"
        } else {
            "idmapped mounts"
        };
        return Err(Error::invalid(OPTIONS, format!("this node has no {what}: see `corten info`")));
    }
    check_namespaces(namespaces)?;
    if namespaces.ipc == PodOrNode::Node {
        return Err(Error::invalid(OPTIONS, "not with the node's IPC namespace"));
    }
    Ok(())
}

/// Makes sure that a container is in the user namespace of its pod, and its mounts too.
pub(crate) fn check_container(pod: &PodConfig, config: &mut ContainerConfig) -> Result<()> {
    let users = pod.security.namespaces.users;
    let wanted = &mut config.security.namespaces;
    match wanted.users {
        Some(ids) if users != Some(ids) => {
            return Err(Error::invalid(OPTIONS, "they are not those of the container's pod"));
        }
        // A container's configuration without a word on namespaces.
        _ => wanted.users = users,
    }
    let binds = config.mounts.iter().map(|mount| (&mount.container_path, mount.users));
    let images = config.image_volumes.iter().map(|volume| (&volume.container_path, volume.users));
    let mut mapped = binds.chain(images).filter_map(|(path, ids)| ids.map(|ids| (path, ids)));
    if let Some((path, _)) = mapped.find(|(_, ids)| Some(*ids) != users) {
        let reason = format!("{}: they are not those of the pod's user namespace", path.display());
        return Err(Error::invalid("config.mounts.uidMappings", reason));
    }
    if users.is_none() {
        return Ok(());
    }
    let shared = config.mounts.iter().find(|mount| mount.propagation == Propagation::Bidirectional);
    if let Some(mount) = shared {
        let reason = "what is mounted in a user namespace cannot travel to the node: give HOST_TO_CONTAINER";
        let reason = format!("{}: {reason}", mount.container_path.display());
        return Err(Error::invalid("config.mounts.propagation", reason));
    }
    check_namespaces(&config.security.namespaces)
}

/// procfs can be mounted by the owner of its PID namespace only.
fn check_namespaces(namespaces: &Namespaces) -> Result<()> {
    match namespaces.pid {
        PidMode::Node => Err(Error::invalid(OPTIONS, "not with the node's PID namespace")),
        PidMode::Container | PidMode::Pod | PidMode::Target(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{IdMap, Mount, MountAccess};
    use crate::testing::{container_config, pod_config};

    const IDS: IdMap = IdMap { host: 100_000, length: 65536 };

    fn check(users: Option<IdMap>, change: impl FnOnce(&mut ContainerConfig)) -> Result<ContainerConfig> {
        let (mut pod, mut container) = (pod_config(), container_config());
        pod.security.namespaces.users = users;
        container.mounts.push(Mount {
            container_path: "/data".into(),
            host_path: "/srv".into(),
            access: MountAccess::Writable,
            propagation: Propagation::Private,
            selinux_relabel: false,
            users: None,
        });
        change(&mut container);
        check_container(&pod, &mut container).map(|()| container)
    }

    #[test]
    fn a_container_is_where_its_pod_is() {
        assert_eq!(check(None, |_| ()).unwrap().security.namespaces.users, None);
        assert_eq!(check(Some(IDS), |_| ()).unwrap().security.namespaces.users, Some(IDS));
        let other = IdMap { host: 1, ..IDS };
        assert!(check(Some(IDS), |c| c.security.namespaces.users = Some(other)).is_err());
        assert!(check(None, |c| c.security.namespaces.users = Some(IDS)).is_err());
        assert!(check(Some(IDS), |c| c.security.namespaces.pid = PidMode::Node).is_err());
    }

    #[test]
    fn mounts_have_the_pods_ids_or_none() {
        assert!(check(Some(IDS), |c| c.mounts[0].users = Some(IDS)).is_ok());
        assert!(check(Some(IDS), |c| c.mounts[0].users = Some(IdMap { length: 1, ..IDS })).is_err());
        assert!(check(None, |c| c.mounts[0].users = Some(IDS)).is_err());
        assert!(check(Some(IDS), |c| c.mounts[0].propagation = Propagation::Bidirectional).is_err());
        assert!(check(None, |c| c.mounts[0].propagation = Propagation::Bidirectional).is_ok());
    }
}
