//! What a stage does, as numbers: the OCI spec compiled for `native`.
//!
//! A pure function of its arguments. The stages never see JSON; a field of the spec that they cannot
//! honour is refused here by its name.

use std::path::PathBuf;

use oci_spec::runtime::{Process, Spec};

use crate::seccomp::Program;

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
    /// The spec lacks what every container needs.
    #[error("{0} is missing")]
    Missing(&'static str),
    /// The spec asks for something that Corten does not offer.
    #[error("{0} is not supported")]
    Unsupported(String),
    /// A value makes no sense.
    #[error("{field}: {reason}")]
    Invalid {
        /// The field, as the OCI specification names it.
        field: String,
        /// Why not.
        reason: String,
    },
    /// The plan cannot be written down.
    #[error("encode the plan")]
    Encode(#[source] postcard::Error),
}

/// Compiles the spec of a container for its init stage.
pub fn container(spec: &Spec, rootfs: &Rootfs, filter: Option<&Program>) -> Result<Vec<u8>, Error> {
    let _ = (spec, rootfs, filter);
    unimplemented!()
}

/// Compiles a further process of the container with this spec for its exec stage.
pub fn exec(spec: &Spec, process: &Process, filter: Option<&Program>) -> Result<Vec<u8>, Error> {
    let _ = (spec, process, filter);
    unimplemented!()
}
