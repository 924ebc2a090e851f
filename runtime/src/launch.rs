//! Starts monitors, and finds those that a daemon before this one started.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::client::{Events, Monitor};
use crate::{Error, Report, Sandbox, cgroup, host};

/// Where the runtime's program and state are.
#[derive(Debug, Clone)]
pub struct Config {
    /// `corten-runtime`.
    pub program: PathBuf,
    /// `/run/corten`.
    pub state: PathBuf,
}

/// The daemon's side of all monitors; cheap to clone.
#[derive(Debug, Clone)]
pub struct Runtime {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    host: host::Host,
    cgroups: cgroup::Cgroups,
}

impl Runtime {
    /// Probes the host, seals the program and starts the thread that monitors are cloned from.
    pub fn open(config: Config) -> Result<Self, Error> {
        let _ = config;
        unimplemented!()
    }

    /// What this host offers.
    pub fn host(&self) -> &host::Host {
        &self.inner.host
    }

    /// The host's control groups.
    pub fn cgroups(&self) -> &cgroup::Cgroups {
        &self.inner.cgroups
    }

    /// Starts a pod's monitor; its namespaces and pause are up when this returns.
    pub async fn launch(&self, sandbox: Sandbox) -> Result<(Monitor, Events), Error> {
        let _ = sandbox;
        unimplemented!()
    }

    /// Connects to the living monitor of a pod's state directory.
    pub async fn adopt(&self, dir: &Path) -> Result<(Monitor, Events, Report), Error> {
        let _ = dir;
        unimplemented!()
    }
}
