//! The encoded plan of a driver: what it has another runtime do.

use std::ffi::CString;

use serde::{Deserialize, Serialize};

use crate::plan::steps::{Device, Root};

/// The work of a container's driver.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Create {
    pub(crate) target: Target,
    /// None where the bundle has it already.
    pub(crate) root: Option<Root>,
    /// Where the root file system is mounted for the runtime to see.
    pub(crate) rootfs: CString,
    /// Of a pod with a user namespace of its own.
    pub(crate) apart: Option<Apart>,
    pub(crate) volumes: Vec<Volume>,
    /// Sources of binds; a directory is made where one is missing.
    pub(crate) sources: Vec<CString>,
    /// Those of them whose files get the root file system's SELinux label, as volumes do.
    pub(crate) relabelled: Vec<CString>,
    pub(crate) oom_score_adj: i32,
    /// Whose the pipes are on the host, where the process' own root may not give them away.
    pub(crate) owner: Option<u32>,
    pub(crate) terminal: bool,
}

/// The work of an exec's driver.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Exec {
    pub(crate) target: Target,
    /// The process as JSON, as the OCI runtime specification has it.
    pub(crate) process: Vec<u8>,
    pub(crate) oom_score_adj: i32,
    /// Whose the pipes are on the host, where the process' own root may not give them away.
    pub(crate) owner: Option<u32>,
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

/// What a runtime is shown that becomes the root of a pod's user namespace: in a mount namespace, and by paths, that
/// are there while it makes the container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Apart {
    /// The pod's directory, in which nothing but this is shown, and the bundle and the state.
    pub(crate) pod: CString,
    /// What the pod's root is on the host.
    pub(crate) owner: u32,
    pub(crate) binds: Vec<Bind>,
    pub(crate) devices: Option<Devices>,
}

/// Device nodes, which the pod's root may not make.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Devices {
    /// The directory in which they are shown, each with its number for a name.
    pub(crate) place: CString,
    pub(crate) nodes: Vec<Device>,
}

/// The source of a bind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Bind {
    /// The file or directory of the host.
    pub(crate) source: CString,
    /// Where it is shown.
    pub(crate) place: CString,
    /// With all that is mounted below it.
    pub(crate) recursive: bool,
}

/// A volume that the image declares.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Volume {
    /// Relative to the root.
    pub(crate) place: CString,
    /// The directory of the host.
    pub(crate) source: CString,
}
