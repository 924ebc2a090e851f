//! What a stage does, as numbers: the OCI spec compiled for `native`.
//!
//! A pure function of its arguments. The stages never see JSON; a field of the spec that they cannot
//! honour is refused here by its name. Limits (`linux.resources`) are the cgroup module's, annotations
//! nobody's. A namespace without a path is new, one with a path is the pod's (the path is for people),
//! one that is absent is the host's. Follows the OCI runtime specification 1.2.

use std::ffi::CString;
use std::path::PathBuf;

use oci_spec::runtime::{Linux, LinuxDevice, Process, Spec};

use crate::IdMap;
use crate::seccomp::Program;

mod linux;
mod mounts;
mod process;
mod refuse;
pub(crate) mod steps;
mod text;
mod users;

pub(crate) use mounts::RELABEL;
pub(crate) use text::{container_path, host_path, string};

/// Where a container's root file system is made from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rootfs {
    /// The directory that the names in `lowers` are relative to.
    pub layers: PathBuf,
    /// The layers' directories, the topmost first.
    pub lowers: Vec<String>,
    /// The writable layer.
    pub upper: PathBuf,
    /// Overlayfs' working directory, empty and on the file system of `upper`.
    pub work: PathBuf,
}

/// Why a spec cannot be executed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The plan cannot be written down.
    #[error("encode the plan")]
    Encode(#[source] postcard::Error),
    /// A value makes no sense.
    #[error("{field}: {reason}")]
    Invalid {
        /// The field, as the OCI specification names it.
        field: String,
        /// Why not.
        reason: String,
    },
    /// The spec lacks what every container needs.
    #[error("{0} is missing")]
    Missing(&'static str),
    /// The spec asks for something that Corten does not offer.
    #[error("{0} is not supported")]
    Unsupported(String),
}

/// Compiles the spec of a container for its init stage.
pub fn container(spec: &Spec, rootfs: &Rootfs, filter: Option<&Program>) -> Result<Vec<u8>, Error> {
    encode(&container_steps(spec, rootfs, filter)?)
}

/// Compiles a further process of the container with this spec for its exec stage.
pub fn exec(spec: &Spec, process: &Process, filter: Option<&Program>) -> Result<Vec<u8>, Error> {
    let linux = linux_of(spec)?;
    refuse::process(process)?;
    filter_is_there(linux, filter)?;
    let join = linux::foreign(linux::namespaces(linux)?);
    let mut compiled = process::compile(process, filter)?;
    if process.oom_score_adj().is_none() {
        let of_container = spec.process().as_ref().and_then(Process::oom_score_adj);
        compiled.oom_score_adj = of_container.unwrap_or(compiled.oom_score_adj);
    }
    let users = users::compile(linux)?;
    users::check(users, &compiled)?;
    encode(&steps::Exec { join, process: compiled, users })
}

fn container_steps(
    spec: &Spec,
    rootfs: &Rootfs,
    filter: Option<&Program>,
) -> Result<steps::Container, Error> {
    let linux = linux_of(spec)?;
    let process = spec.process().as_ref().ok_or(Error::Missing("process"))?;
    refuse::spec(spec)?;
    refuse::process(process)?;
    filter_is_there(linux, filter)?;
    let namespaces = linux::namespaces(linux)?;
    let users = users::compile(linux)?;
    let (devices, far_devices) = linux::devices(linux, users)?;
    let root = root(spec, rootfs)?;
    let mut mounts = mounts::compile(spec.mounts().as_deref().unwrap_or_default(), users)?;
    mounts::label(&mut mounts, root.label.as_ref());
    let process = process::compile(process, filter)?;
    users::check(users, &process)?;
    users::check_namespaces(users, namespaces)?;
    if process.terminal.is_some() && !mounts::has_devpts(&mounts) {
        return Err(Error::invalid("process.terminal", "a terminal needs a devpts mount at /dev/pts"));
    }
    Ok(steps::Container {
        namespaces,
        root,
        mounts,
        devices,
        far_devices,
        masked: linux::paths("linux.maskedPaths", linux.masked_paths())?,
        readonly: linux::paths("linux.readonlyPaths", linux.readonly_paths())?,
        sysctls: linux::sysctls(linux, namespaces)?,
        hostname: uts_name("hostname", spec.hostname().as_deref(), namespaces)?,
        domainname: uts_name("domainname", spec.domainname().as_deref(), namespaces)?,
        cgroup: linux
            .cgroups_path()
            .as_ref()
            .map(|path| text::container_path("linux.cgroupsPath", path))
            .transpose()?,
        process,
        users,
    })
}

/// The ids of the user namespace that a container joins; none when it is the host's.
pub(crate) fn users(spec: &Spec) -> Result<Option<IdMap>, Error> {
    spec.linux().as_ref().map_or(Ok(None), users::compile)
}

/// Who a process of a user namespace is on the host; refused unless the namespace has all of its ids.
pub(crate) fn owner(ids: IdMap, process: &Process) -> Result<u32, Error> {
    let user = process.user();
    let groups = user.additional_gids().as_deref().unwrap_or_default();
    users::known(ids, user.uid(), [user.gid()].iter().chain(groups).copied())
}

/// A device node of a container in a user namespace.
pub(crate) fn device(device: &LinuxDevice, ids: IdMap) -> Result<steps::Device, Error> {
    linux::device(device, Some(ids))
}

fn linux_of(spec: &Spec) -> Result<&Linux, Error> {
    spec.linux().as_ref().ok_or(Error::Missing("linux"))
}

/// A profile must never be dropped on the way.
fn filter_is_there(linux: &Linux, filter: Option<&Program>) -> Result<(), Error> {
    if linux.seccomp().is_some() && filter.is_none_or(Program::is_empty) {
        return Err(Error::invalid("linux.seccomp", "the profile has not been compiled"));
    }
    Ok(())
}

/// Where the root file system comes from.
pub(crate) fn root(spec: &Spec, rootfs: &Rootfs) -> Result<steps::Root, Error> {
    let linux = linux_of(spec)?;
    if rootfs.lowers.is_empty() {
        return Err(Error::Missing("a layer of the root file system"));
    }
    let lower = |name: &String| {
        if name.is_empty() || name.starts_with('/') || name.split('/').any(|part| part == "..") {
            return Err(Error::invalid("rootfs.lowers", format!("{name:?} is not the name of a layer")));
        }
        text::string("rootfs.lowers", name)
    };
    let propagation = match linux.rootfs_propagation().as_deref() {
        None | Some("") => None,
        Some(word) => Some(mounts::propagation(word).ok_or_else(|| {
            Error::invalid("linux.rootfsPropagation", format!("{word:?} is no kind of propagation"))
        })?),
    };
    Ok(steps::Root {
        layers: text::host_path("rootfs.layers", &rootfs.layers)?,
        lowers: rootfs.lowers.iter().map(lower).collect::<Result<_, _>>()?,
        upper: text::host_path("rootfs.upper", &rootfs.upper)?,
        work: text::host_path("rootfs.work", &rootfs.work)?,
        readonly: spec.root().as_ref().and_then(|root| root.readonly()).unwrap_or(false),
        propagation,
        label: process::label("linux.mountLabel", linux.mount_label().as_deref())?,
    })
}

/// The pod's name is set by pause: only a namespace of the container's own gets one here.
fn uts_name(
    field: &str,
    name: Option<&str>,
    namespaces: steps::Namespaces,
) -> Result<Option<CString>, Error> {
    const UTS: u32 = libc::CLONE_NEWUTS.cast_unsigned();
    let Some(name) = name.filter(|name| !name.is_empty()) else { return Ok(None) };
    if namespaces.join & UTS != 0 {
        return Ok(None);
    }
    if namespaces.unshare & UTS == 0 {
        return Err(Error::invalid(field, "the UTS namespace is the host's"));
    }
    if name.len() > 64 {
        return Err(Error::invalid(field, "it is longer than 64 bytes"));
    }
    text::string(field, name).map(Some)
}

pub(crate) fn encode<T: serde::Serialize>(steps: &T) -> Result<Vec<u8>, Error> {
    postcard::to_stdvec(steps).map_err(Error::Encode)
}

impl Error {
    fn invalid(field: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Invalid { field: field.into(), reason: reason.into() }
    }
}

#[cfg(test)]
mod tests;
