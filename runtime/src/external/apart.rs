//! What a runtime finds elsewhere in a pod with a user namespace: it becomes that namespace's root, who may not come
//! by where the container's files are on the host. Its driver shows them to it in places of their own.

use std::path::{Component, Path, PathBuf};

use oci_spec::runtime::{Mount, Spec};

use super::steps::{Apart, Bind};
use crate::IdMap;
use crate::plan::{self, Error};

/// Below the pod's directory, as the driver shows it.
const SOURCES: &str = "sources";

/// Says in the spec where the sources of binds are shown.
pub(super) fn translate(spec: &mut Spec, ids: IdMap, pod: &Path) -> Result<Apart, Error> {
    let binds = spec.mounts_mut().iter_mut().flatten().filter(|mount| mount.typ().as_deref() == Some("bind"));
    let binds =
        binds.enumerate().map(|(number, mount)| bind(mount, &pod.join(SOURCES).join(number.to_string())));
    let binds = binds.collect::<Result<_, _>>()?;
    Ok(Apart { pod: plan::host_path("pod", pod)?, owner: ids.host, binds })
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
