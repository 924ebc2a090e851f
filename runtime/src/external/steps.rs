//! The encoded plan of a driver: what it has another runtime do.

use std::ffi::CString;

use serde::{Deserialize, Serialize};

use crate::plan::steps::Root;

/// The work of a container's driver.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Create {
    pub(crate) target: Target,
    /// None where the bundle has it already.
    pub(crate) root: Option<Root>,
    /// Where the root file system is mounted for the runtime to see.
    pub(crate) rootfs: CString,
    pub(crate) volumes: Vec<Volume>,
    /// Sources of binds; a directory is made where one is missing.
    pub(crate) sources: Vec<CString>,
    /// Those of them whose files get the root file system's SELinux label, as volumes do.
    pub(crate) relabelled: Vec<CString>,
    pub(crate) oom_score_adj: i32,
    pub(crate) terminal: bool,
}

/// The work of an exec's driver.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Exec {
    pub(crate) target: Target,
    /// The process as JSON, as the OCI runtime specification has it.
    pub(crate) process: Vec<u8>,
    pub(crate) oom_score_adj: i32,
    pub(crate) terminal: bool,
}

/// Which container of which runtime.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Target {
    /// The runtime's program.
    pub(crate) program: CString,
    /// Where it keeps its state.
    pub(crate) state: CString,
    /// The container's bundle.
    pub(crate) bundle: CString,
    /// The container's id.
    pub(crate) id: CString,
}

/// A volume that the image declares.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Volume {
    /// Relative to the root.
    pub(crate) place: CString,
    /// The directory of the host.
    pub(crate) source: CString,
}
