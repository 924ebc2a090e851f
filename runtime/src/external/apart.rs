//! What a runtime finds elsewhere in a pod with a user namespace: it becomes that namespace's root, who may not come
//! by where the container's files are on the host. Its driver shows them to it in places of their own, and device nodes
//! too, which that root may not make: it would bind what the host has by the name that they have in the container.

use std::path::{Component, Path, PathBuf};

use oci_spec::runtime::{LinuxDevice, Mount, Spec};

use super::steps::{Apart, Bind, Devices};
use crate::IdMap;
use crate::plan::{self, Error};

/// Below the pod's directory, as the driver shows it.
const SOURCES: &str = "sources";
const DEVICES: &str = "devices";

/// What every runtime sees to by itself (runtime-spec, "Default Devices").
const DEFAULT_DEVICES: [&str; 7] =
    ["/dev/full", "/dev/null", "/dev/ptmx", "/dev/random", "/dev/tty", "/dev/urandom", "/dev/zero"];

/// Says in the spec where the sources of binds and the devices are shown.
pub(super) fn translate(spec: &mut Spec, ids: IdMap, pod: &Path) -> Result<Apart, Error> {
    let binds = spec.mounts_mut().iter_mut().flatten().filter(|mount| mount.typ().as_deref() == Some("bind"));
    let binds =
        binds.enumerate().map(|(number, mount)| bind(mount, &pod.join(SOURCES).join(number.to_string())));
    let binds = binds.collect::<Result<_, _>>()?;
    let devices =
        take_devices(spec).map(|list| devices(spec, ids, (&list, pod.join(DEVICES)))).transpose()?;
    Ok(Apart { pod: plan::host_path("pod", pod)?, owner: ids.host, binds, devices })
}

/// None where the container has the host's `/dev`, in which no runtime makes any.
fn take_devices(spec: &mut Spec) -> Option<Vec<LinuxDevice>> {
    let is_of_host =
        |mount: &Mount| mount.destination() == Path::new("/dev") && mount.typ().as_deref() == Some("bind");
    if spec.mounts().iter().flatten().any(is_of_host) {
        return None;
    }
    let is_default =
        |device: &LinuxDevice| DEFAULT_DEVICES.iter().any(|path| device.path() == Path::new(path));
    let linux = spec.linux_mut().as_mut()?;
    let (left, taken): (Vec<_>, Vec<_>) = linux.devices_mut().take()?.into_iter().partition(is_default);
    linux.set_devices(Some(left));
    (!taken.is_empty()).then_some(taken)
}

fn devices(
    spec: &mut Spec,
    ids: IdMap,
    (listed, place): (&[LinuxDevice], PathBuf),
) -> Result<Devices, Error> {
    let nodes = listed.iter().map(|device| plan::device(device, ids)).collect::<Result<_, _>>()?;
    let mounts = spec.mounts_mut().get_or_insert_default();
    for (number, device) in listed.iter().enumerate() {
        let mut mount = Mount::default();
        mount.set_destination(device.path().clone()).set_typ(Some("bind".to_owned()));
        mount.set_source(Some(place.join(number.to_string()))).set_options(Some(vec!["bind".to_owned()]));
        mounts.push(mount);
    }
    Ok(Devices { place: plan::host_path("devices", &place)?, nodes })
}

/// The place has the source's path in it, so that what the runtime says of it can be understood.
fn bind(mount: &mut Mount, place: &Path) -> Result<Bind, Error> {
    let source = mount.source().as_deref().ok_or(Error::Missing("mounts.source"))?;
    let names = source.components().filter(|part| matches!(part, Component::Normal(_)));
    let place = place.join(names.collect::<PathBuf>());
    let is_recursive = mount.options().iter().flatten().any(|word| word == "rbind");
    let bind = Bind {
        source: plan::host_path("mounts.source", source)?,
        place: plan::host_path("mounts.source", &place)?,
        recursive: is_recursive,
    };
    mount.set_source(Some(place));
    Ok(bind)
}
