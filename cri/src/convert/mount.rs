//! Mounts and devices of a container.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use pod::config::{Device, ImageVolume, Mount, MountAccess, Propagation};

use super::{Invalid, field, users};
use crate::wire::cri;

/// Parses the mounts, of the host and of images; each goes to a path of its own.
pub(super) fn parse_all(
    at: &str,
    mounts: Vec<cri::Mount>,
) -> Result<(Vec<Mount>, Vec<ImageVolume>), Invalid> {
    let mut places = BTreeSet::new();
    let (mut binds, mut images) = (Vec::new(), Vec::new());
    for (index, mount) in mounts.into_iter().enumerate() {
        let at = format!("{at}[{index}]");
        let place = container_path(&at, &mount.container_path)?;
        if !places.insert(place.clone()) {
            let reason = format!("another mount goes to {}", place.display());
            return Err(Invalid::new(format_args!("{at}.container_path"), reason));
        }
        if mount.image.is_some() || !mount.image_sub_path.is_empty() {
            images.push(parse_image(&at, mount)?);
        } else {
            binds.push(parse(&at, mount)?);
        }
    }
    Ok((binds, images))
}

fn container_path(at: &str, text: &str) -> Result<PathBuf, Invalid> {
    let path = field::absolute(format_args!("{at}.container_path"), text)?;
    if path == Path::new("/") {
        let reason = "the root itself cannot be mounted over";
        return Err(Invalid::new(format_args!("{at}.container_path"), reason));
    }
    Ok(path)
}

fn parse(at: &str, mount: cri::Mount) -> Result<Mount, Invalid> {
    let users = users::ids(&format!("{at}.uidMappings"), &mount.uid_mappings, &mount.gid_mappings)?;
    let propagation = match field::one_of(format_args!("{at}.propagation"), mount.propagation)? {
        cri::MountPropagation::PropagationPrivate => Propagation::Private,
        cri::MountPropagation::PropagationHostToContainer => Propagation::HostToContainer,
        cri::MountPropagation::PropagationBidirectional => Propagation::Bidirectional,
    };
    Ok(Mount {
        container_path: container_path(at, &mount.container_path)?,
        host_path: field::absolute(format_args!("{at}.host_path"), &mount.host_path)?,
        access: access(at, &mount, propagation)?,
        propagation,
        selinux_relabel: mount.selinux_relabel,
        users,
    })
}

/// An image volume has no source on the host, is read-only with all that is in it, and nothing is ever mounted below.
fn parse_image(at: &str, mount: cri::Mount) -> Result<ImageVolume, Invalid> {
    let users = users::ids(&format!("{at}.uidMappings"), &mount.uid_mappings, &mount.gid_mappings)?;
    let image =
        mount.image.ok_or_else(|| Invalid::new(format_args!("{at}.image_sub_path"), "only with image"))?;
    if image.image.is_empty() {
        return Err(Invalid::new(format_args!("{at}.image.image"), "missing"));
    }
    if !mount.host_path.is_empty() {
        let reason = "image is given too: only one of them may be";
        return Err(Invalid::new(format_args!("{at}.host_path"), reason));
    }
    if !mount.readonly {
        return Err(Invalid::new(
            format_args!("{at}.readonly"),
            "an image can only be mounted with readonly",
        ));
    }
    let propagation: cri::MountPropagation =
        field::one_of(format_args!("{at}.propagation"), mount.propagation)?;
    if propagation != cri::MountPropagation::PropagationPrivate {
        let reason = "an image has only PROPAGATION_PRIVATE";
        return Err(Invalid::new(format_args!("{at}.propagation"), reason));
    }
    Ok(ImageVolume {
        container_path: container_path(at, &mount.container_path)?,
        image: super::image::name(&format!("{at}.image.image"), image.image)?,
        user_specified_image: field::plain(
            format_args!("{at}.image.user_specified_image"),
            image.user_specified_image,
        )?,
        sub_path: match mount.image_sub_path.as_str() {
            "" => PathBuf::new(),
            path => field::relative(format_args!("{at}.image_sub_path"), path)?,
        },
        selinux_relabel: mount.selinux_relabel,
        users,
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
        uid_mappings: mount.users.map(users::mapping).into_iter().collect(),
        gid_mappings: mount.users.map(users::mapping).into_iter().collect(),
        ..Default::default()
    }
}

/// An image volume as ContainerStatus shows it; the kubelet takes the id for an image in use.
pub(super) fn report_image(volume: &ImageVolume, id: &str) -> cri::Mount {
    cri::Mount {
        container_path: volume.container_path.display().to_string(),
        readonly: true,
        selinux_relabel: volume.selinux_relabel,
        image: Some(cri::ImageSpec {
            image: id.to_owned(),
            user_specified_image: volume.user_specified_image.clone(),
            image_ref: id.to_owned(),
            ..Default::default()
        }),
        image_sub_path: volume.sub_path.display().to_string(),
        uid_mappings: volume.users.map(users::mapping).into_iter().collect(),
        gid_mappings: volume.users.map(users::mapping).into_iter().collect(),
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
        let ids = cri::IdMapping { host_id: 100_000, container_id: 0, length: 65536 };
        for wire in [
            mount(),
            cri::Mount { readonly: true, selinux_relabel: true, ..mount() },
            cri::Mount { uid_mappings: vec![ids], gid_mappings: vec![ids], ..mount() },
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
    fn image_volumes_are_read_only_and_have_no_other_source() {
        let check = |change: fn(&mut cri::Mount)| {
            let image = cri::ImageSpec { image: "i".to_owned(), ..Default::default() };
            let mut mount = cri::Mount {
                container_path: "/c".to_owned(),
                readonly: true,
                image: Some(image),
                ..Default::default()
            };
            change(&mut mount);
            parse_all("m", vec![mount])
        };
        let (binds, images) = check(|m| m.image_sub_path = "a//./b".to_owned()).unwrap();
        assert!(binds.is_empty());
        assert_eq!((images.len(), images[0].sub_path.as_path()), (1, Path::new("a/b")));
        let shown = report_image(&images[0], "sha256:x");
        assert_eq!(shown.image.unwrap().image_ref, "sha256:x");
        assert!(shown.readonly);
        refused(check(|m| m.readonly = false), "m[0].readonly");
        refused(check(|m| m.image = Some(cri::ImageSpec::default())), "m[0].image.image");
        refused(check(|m| m.image = None), "m[0].host_path");
        refused(check(|m| (m.image, m.image_sub_path) = (None, "x".to_owned())), "m[0].image_sub_path");
        refused(check(|m| m.host_path = "/h".to_owned()), "m[0].host_path");
        refused(check(|m| m.propagation = 1), "m[0].propagation");
        for path in ["/abs", "../x", "a/../../b", "a\0"] {
            let image = cri::ImageSpec { image: "i".to_owned(), ..Default::default() };
            let mount = cri::Mount {
                container_path: "/c".to_owned(),
                readonly: true,
                image: Some(image),
                image_sub_path: path.to_owned(),
                ..Default::default()
            };
            refused(parse_all("m", vec![mount]), "m[0].image_sub_path");
        }
    }

    #[test]
    fn what_is_not_done_yet_is_refused() {
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
