//! Mounts and devices of a container.

use std::collections::BTreeSet;
use std::path::Path;

use pod::config::{Device, Mount, MountAccess, Propagation};

use super::{Invalid, field};
use crate::wire::cri;

/// Parses the mounts; each goes to a path of its own.
pub(super) fn parse_all(at: &str, mounts: Vec<cri::Mount>) -> Result<Vec<Mount>, Invalid> {
    let mut places = BTreeSet::new();
    let mut parsed = Vec::with_capacity(mounts.len());
    for (index, mount) in mounts.into_iter().enumerate() {
        let at = format!("{at}[{index}]");
        let mount = parse(&at, mount)?;
        if !places.insert(mount.container_path.clone()) {
            let reason = format!("another mount goes to {}", mount.container_path.display());
            return Err(Invalid::new(format_args!("{at}.container_path"), reason));
        }
        parsed.push(mount);
    }
    Ok(parsed)
}

fn parse(at: &str, mount: cri::Mount) -> Result<Mount, Invalid> {
    if mount.image.is_some() || !mount.image_sub_path.is_empty() {
        return Err(Invalid::new(format_args!("{at}.image"), "image volumes are not supported"));
    }
    if !mount.uid_mappings.is_empty() || !mount.gid_mappings.is_empty() {
        let reason = "mappings belong to user namespaces, which are not supported";
        return Err(Invalid::new(format_args!("{at}.uidMappings"), reason));
    }
    let container_path = field::absolute(format_args!("{at}.container_path"), &mount.container_path)?;
    if container_path == Path::new("/") {
        return Err(Invalid::new(
            format_args!("{at}.container_path"),
            "the root itself cannot be mounted over",
        ));
    }
    let propagation = match field::one_of(format_args!("{at}.propagation"), mount.propagation)? {
        cri::MountPropagation::PropagationPrivate => Propagation::Private,
        cri::MountPropagation::PropagationHostToContainer => Propagation::HostToContainer,
        cri::MountPropagation::PropagationBidirectional => Propagation::Bidirectional,
    };
    Ok(Mount {
        container_path,
        host_path: field::absolute(format_args!("{at}.host_path"), &mount.host_path)?,
        access: access(at, &mount, propagation)?,
        propagation,
        selinux_relabel: mount.selinux_relabel,
    })
}

fn access(at: &str, mount: &cri::Mount, propagation: Propagation) -> Result<MountAccess, Invalid> {
    if !mount.recursive_read_only {
        return Ok(if mount.readonly { MountAccess::ReadOnly } else { MountAccess::Writable });
    }
    let field = format_args!("{at}.recursive_read_only");
    if !mount.readonly {
        return Err(Invalid::new(field, "only together with readonly"));
    }
    if propagation != Propagation::Private {
        return Err(Invalid::new(field, "only with the propagation PROPAGATION_PRIVATE"));
    }
    Ok(MountAccess::RecursiveReadOnly)
}

/// A mount as ContainerStatus shows it.
pub(super) fn report(mount: &Mount) -> cri::Mount {
    let propagation = match mount.propagation {
        Propagation::Private => cri::MountPropagation::PropagationPrivate,
        Propagation::HostToContainer => cri::MountPropagation::PropagationHostToContainer,
        Propagation::Bidirectional => cri::MountPropagation::PropagationBidirectional,
    };
    cri::Mount {
        container_path: mount.container_path.display().to_string(),
        host_path: mount.host_path.display().to_string(),
        readonly: mount.access != MountAccess::Writable,
        selinux_relabel: mount.selinux_relabel,
        propagation: propagation.into(),
        recursive_read_only: mount.access == MountAccess::RecursiveReadOnly,
        ..Default::default()
    }
}

/// Parses the devices. Whether they exist is seen when the container is made.
pub(super) fn parse_devices(at: &str, devices: Vec<cri::Device>) -> Result<Vec<Device>, Invalid> {
    let parse = |(index, device): (usize, cri::Device)| {
        let at = format!("{at}[{index}]");
        let permissions = device.permissions;
        let letters = permissions.bytes().collect::<BTreeSet<_>>();
        if letters.is_empty()
            || letters.len() != permissions.len()
            || !letters.iter().all(|c| b"rwm".contains(c))
        {
            let reason = format!("{permissions:?} is not made of the letters r, w and m");
            return Err(Invalid::new(format_args!("{at}.permissions"), reason));
        }
        Ok(Device {
            container_path: field::absolute(format_args!("{at}.container_path"), &device.container_path)?,
            host_path: field::absolute(format_args!("{at}.host_path"), &device.host_path)?,
            permissions,
        })
    };
    devices.into_iter().enumerate().map(parse).collect()
}

#[cfg(test)]
mod tests {
    use super::super::testing::refused;
    use super::*;

    fn mount() -> cri::Mount {
        cri::Mount { container_path: "/c".to_owned(), host_path: "/h".to_owned(), ..Default::default() }
    }

    fn check(change: impl FnOnce(&mut cri::Mount)) -> Result<Mount, Invalid> {
        let mut mount = mount();
        change(&mut mount);
        parse("m", mount)
    }

    #[test]
    fn mounts_come_back_as_they_were() {
        use cri::MountPropagation::{PropagationBidirectional, PropagationHostToContainer};
        for wire in [
            mount(),
            cri::Mount { readonly: true, selinux_relabel: true, ..mount() },
            cri::Mount { readonly: true, recursive_read_only: true, ..mount() },
            cri::Mount { propagation: PropagationHostToContainer.into(), ..mount() },
            cri::Mount { propagation: PropagationBidirectional.into(), readonly: true, ..mount() },
        ] {
            assert_eq!(report(&parse("m", wire.clone()).unwrap()), wire);
        }
    }

    #[test]
    fn recursive_read_only_needs_two_others() {
        use cri::MountPropagation::{PropagationBidirectional, PropagationHostToContainer};
        refused(check(|m| m.recursive_read_only = true), "m.recursive_read_only");
        for propagation in [PropagationHostToContainer, PropagationBidirectional] {
            let all = |m: &mut cri::Mount| {
                (m.readonly, m.recursive_read_only, m.propagation) = (true, true, propagation.into());
            };
            refused(check(all), "m.recursive_read_only");
        }
    }

    #[test]
    fn paths_are_checked() {
        refused(check(|m| m.host_path = String::new()), "m.host_path");
        refused(check(|m| m.host_path = "h".to_owned()), "m.host_path");
        refused(check(|m| m.host_path = "/h/../x".to_owned()), "m.host_path");
        refused(check(|m| m.container_path = "c".to_owned()), "m.container_path");
        refused(check(|m| m.container_path = "/./".to_owned()), "m.container_path");
        refused(check(|m| m.container_path = "/c\0".to_owned()), "m.container_path");
        refused(check(|m| m.propagation = 3), "m.propagation");
        refused(parse_all("m", vec![mount(), mount()]), "m[1].container_path");
        let same = cri::Mount { container_path: "//c/./".to_owned(), ..mount() };
        refused(parse_all("m", vec![mount(), same]), "m[1].container_path");
    }

    #[test]
    fn what_is_not_done_yet_is_refused() {
        refused(check(|m| m.image = Some(cri::ImageSpec::default())), "m.image");
        refused(check(|m| m.image_sub_path = "x".to_owned()), "m.image");
        refused(check(|m| m.gid_mappings = vec![cri::IdMapping::default()]), "m.uidMappings");
    }

    #[test]
    fn devices_have_paths_and_permissions() {
        let check = |host: &str, container: &str, permissions: &str| {
            let device = cri::Device {
                container_path: container.to_owned(),
                host_path: host.to_owned(),
                permissions: permissions.to_owned(),
            };
            parse_devices("d", vec![device])
        };
        assert!(check("/dev/null", "/dev/n", "rwm").is_ok());
        assert!(check("/dev/null", "/dev/n", "mrw").is_ok());
        refused(check("dev/null", "/dev/n", "r"), "d[0].host_path");
        refused(check("/dev/null", "/dev/../n", "r"), "d[0].container_path");
        for permissions in ["", "x", "rr", "rwmr", "r w"] {
            refused(check("/dev/null", "/dev/n", permissions), "d[0].permissions");
        }
    }
}
