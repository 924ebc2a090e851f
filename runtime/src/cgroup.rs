//! Control groups: limits, device rules, statistics, and the end of all that runs in one.
//!
//! One interface over two layouts: a single v2 hierarchy, and hybrid hosts with v1 controllers on mounts
//! of their own beside a v2 hierarchy. Which controller is where is read from `/proc/self/mountinfo`.
//! Nothing here moves a process: callers clone into [`Handles::unified`] and write themselves into
//! [`Handles::v1_procs`]. Follows cgroup-v2.rst, cgroup-v1/*.rst and the resources of the OCI runtime spec.

use std::os::fd::{BorrowedFd, OwnedFd};

pub use error::Error;
pub use limits::{DeviceAccess, DeviceKind, DeviceRule, HugepageLimit, IoLimit, Limits};
pub use path::CgroupPath;
pub use stats::{Io, Memory, Pressure, PressureLine, Pressures, Stats, Swap};

mod error;
mod limits;
mod path;
mod stats;

/// The host's control groups; cheap to clone.
#[derive(Debug, Clone)]
pub struct Cgroups;

/// One control group in all hierarchies; cheap to clone.
#[derive(Debug, Clone)]
pub struct Cgroup;

/// Who makes and owns the directories.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Driver {
    /// Corten itself, by mkdir and write.
    Cgroupfs,
}

/// How the host mounts its controllers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// One v2 hierarchy with all controllers.
    V2,
    /// v1 controllers on mounts of their own, with or without a v2 hierarchy beside them.
    Hybrid,
}

/// What a process needs to enter a cgroup and what its monitor needs to watch it.
#[derive(Debug)]
pub struct Handles {
    /// The v2 directory, for CLONE_INTO_CGROUP and `cgroup.kill`.
    pub unified: Option<OwnedFd>,
    /// `cgroup.procs` of each v1 hierarchy, open for writing.
    pub v1_procs: Vec<OwnedFd>,
    /// `memory.events` (v2) or `memory.oom_control` (v1), open for reading; see [`oom_kills`].
    pub oom: Option<OwnedFd>,
}

impl Cgroups {
    /// Finds the hierarchies of this host.
    pub fn detect() -> Result<Self, Error> {
        unimplemented!()
    }

    /// Who makes the directories.
    pub fn driver(&self) -> Driver {
        Driver::Cgroupfs
    }

    /// How the host mounts its controllers.
    pub fn layout(&self) -> Layout {
        unimplemented!()
    }

    /// Makes a cgroup with its limits and device rules in place, or nothing at all.
    pub fn create(&self, path: &CgroupPath, limits: &Limits) -> Result<Cgroup, Error> {
        let _ = (path, limits);
        unimplemented!()
    }

    /// Names a cgroup that may or may not exist, without any I/O.
    pub fn open(&self, path: &CgroupPath) -> Cgroup {
        let _ = path;
        unimplemented!()
    }

    /// Removes `top` and what is below it when nothing is in them: the parents that Corten itself made.
    pub fn remove_empty_parents(&self, top: &CgroupPath) -> Result<(), Error> {
        let _ = top;
        unimplemented!()
    }
}

impl Cgroup {
    /// The cgroup's name.
    pub fn path(&self) -> &CgroupPath {
        unimplemented!()
    }

    /// The topmost directory that [`Cgroups::create`] had to make: what [`Cgroups::remove_empty_parents`] takes.
    pub fn made_from(&self) -> Option<&CgroupPath> {
        unimplemented!()
    }

    /// Opens what a process needs to enter it.
    pub fn handles(&self) -> Result<Handles, Error> {
        unimplemented!()
    }

    /// Sets the limits that are given; on an error the old values are back.
    pub fn update(&self, limits: &Limits) -> Result<(), Error> {
        let _ = limits;
        unimplemented!()
    }

    /// Reads what the cgroup uses.
    pub fn stats(&self) -> Result<Stats, Error> {
        unimplemented!()
    }

    /// Kills every process in it and below it; a cgroup that is gone has none.
    pub fn kill(&self) -> Result<(), Error> {
        unimplemented!()
    }

    /// The processes in it and below it, in the caller's PID namespace.
    pub fn processes(&self) -> Result<Vec<i32>, Error> {
        unimplemented!()
    }

    /// Whether a process is in it or below it.
    pub fn populated(&self) -> Result<bool, Error> {
        unimplemented!()
    }

    /// Stops all its processes and waits until they stand still.
    pub fn freeze(&self) -> Result<(), Error> {
        unimplemented!()
    }

    /// Lets its processes go on.
    pub fn thaw(&self) -> Result<(), Error> {
        unimplemented!()
    }

    /// Removes it and all below it, everywhere; a cgroup that is gone is fine.
    pub fn remove(&self) -> Result<(), Error> {
        unimplemented!()
    }
}

/// Reads how many processes the OOM killer took, from `memory.events` or `memory.oom_control`.
pub fn oom_kills(file: BorrowedFd<'_>) -> std::io::Result<u64> {
    let _ = file;
    unimplemented!()
}
