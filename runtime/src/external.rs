//! OCI runtimes of others, by their command line: runc, crun, youki and what else takes runc's words.
//!
//! Some make sandboxes, runsc first of all: there a pod has an *enclosure*, made as a container of its own that does
//! nothing, and its containers are made within it. Which is which such a runtime reads in their annotations.
//!
//! The daemon's side: what a runtime can do (`features`), the bundle of a container, and the end of both. What
//! happens in between is the monitor's, whose drivers (`native/driver.rs`) run the runtime's program and give
//! its processes to the monitor. A bundle and the runtime's own state are below the pod's state directory, so
//! that whatever takes that down leaves nothing. Follows runc(8) and the OCI runtime specification 1.2.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use oci_spec::runtime::{Process, Spec};

use crate::Executor;
use crate::plan::steps::Root;
use crate::plan::{self, Rootfs};

pub use self::bundle::{Bundle, release_all};
pub use self::features::Features;

mod apart;
mod bundle;
mod features;
mod invocation;
pub(crate) mod steps;
mod translation;

/// How long a runtime may take to say what it can do, and to delete a container.
const LIMIT: Duration = Duration::from_secs(10);

/// The program of an enclosure's own container: it waits for signals, and that is all.
const PAUSE: &str = "pause";

/// A runtime's program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Handler {
    program: PathBuf,
    kind: Kind,
}

/// What a runtime makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Containers of the host's kernel.
    Plain,
    /// Containers in an enclosure of the pod's.
    Sandboxed,
}

/// Why a runtime cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The bundle could not be made or taken down.
    #[error("{operation} {}", path.display())]
    Bundle {
        /// What was tried.
        operation: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The program cannot be run.
    #[error("run the runtime {}", program.display())]
    Program {
        /// The program.
        program: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The program did not end in time.
    #[error("the runtime {} did not end within {} s", program.display(), LIMIT.as_secs())]
    Slow {
        /// The program.
        program: PathBuf,
    },
    /// The spec cannot be handed to this or any runtime.
    #[error("write the container down for the runtime")]
    Spec(#[source] plan::Error),
}

// === impl Handler ===

impl Handler {
    /// The runtime of this program, an absolute path.
    pub fn new(program: impl Into<PathBuf>, kind: Kind) -> Self {
        Self { program: program.into(), kind }
    }

    /// What it makes.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Who makes the containers of its pods.
    pub fn executor(&self) -> Executor {
        match self.kind {
            Kind::Plain => Executor::External,
            Kind::Sandboxed => Executor::Enclosed,
        }
    }

    /// The program.
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// Asks what it can do; one that does not know the question can do nothing beyond the common.
    ///
    /// # Errors
    /// When the program cannot be run.
    pub async fn probe(&self) -> Result<Features, Error> {
        let answer = invocation::run(&self.program, &["features".as_ref()]).await?;
        Ok(answer.map(|text| Features::parse(&text)).unwrap_or_default())
    }

    /// Writes the container's bundle; returns the plan for the monitor. The root file system is mounted by the
    /// driver.
    ///
    /// # Errors
    /// When the bundle cannot be written.
    pub fn create(&self, bundle: &Bundle, spec: &Spec, rootfs: &Rootfs) -> Result<Vec<u8>, Error> {
        let root = plan::root(spec, rootfs).map_err(Error::Spec)?;
        self.bundle(bundle, spec, Some(root))
    }

    /// Writes the bundle of a pod's enclosure, whose container executes `/pause`; returns the plan for the monitor.
    ///
    /// # Errors
    /// When the bundle cannot be written.
    pub fn enclose(&self, bundle: &Bundle, spec: &Spec) -> Result<Vec<u8>, Error> {
        let plan = self.bundle(bundle, spec, None)?;
        bundle.place(PAUSE, crate::pause::file())?;
        Ok(plan)
    }

    fn bundle(&self, bundle: &Bundle, spec: &Spec, root: Option<Root>) -> Result<Vec<u8>, Error> {
        let translated =
            translation::container(spec.clone(), self.kind, bundle.pod()).map_err(Error::Spec)?;
        bundle.write(&translated.spec, translated.apart.as_ref().map(|apart| apart.owner))?;
        let steps = steps::Create {
            target: self.target(bundle)?,
            root,
            rootfs: plan::host_path("bundle", &bundle.rootfs()).map_err(Error::Spec)?,
            apart: translated.apart,
            volumes: translated.volumes,
            sources: translated.sources,
            relabelled: translated.relabelled,
            oom_score_adj: translated.oom_score_adj,
            owner: translated.owner,
            terminal: translated.terminal,
        };
        plan::encode(&steps).map_err(Error::Spec)
    }

    /// The plan of a further process of the container with this spec.
    ///
    /// # Errors
    /// When the process cannot be written down.
    pub fn exec(&self, bundle: &Bundle, spec: &Spec, process: &Process) -> Result<Vec<u8>, Error> {
        let of_container = spec.process().as_ref().and_then(Process::oom_score_adj);
        let terminal = process.terminal().unwrap_or(false);
        let oom_score_adj = process.oom_score_adj().or(of_container).unwrap_or(0);
        let ids = plan::users(spec).map_err(Error::Spec)?;
        let owner = ids.map(|ids| plan::owner(ids, process)).transpose().map_err(Error::Spec)?;
        let process = translation::process(process.clone());
        let json = serde_json::to_vec(&process).map_err(|error| {
            let reason = error.to_string();
            Error::Spec(plan::Error::Invalid { field: "process".into(), reason })
        })?;
        let steps =
            steps::Exec { target: self.target(bundle)?, process: json, oom_score_adj, owner, terminal };
        plan::encode(&steps).map_err(Error::Spec)
    }

    /// Has the runtime forget a container, whatever state it is in, and takes its bundle down. Fine when there
    /// is none.
    ///
    /// # Errors
    /// What of the bundle could not be taken down. A runtime that refuses does not stop that: its processes
    /// are the cgroup's, and its state is in the pod's directory.
    pub async fn delete(&self, bundle: &Bundle) -> Result<(), Error> {
        if !bundle.exists() {
            return Ok(());
        }
        let state = bundle.state();
        let words = ["--root".as_ref(), state.as_os_str(), "delete".as_ref(), "--force".as_ref()];
        let words: Vec<_> = words.into_iter().chain([bundle.id().as_ref()]).collect();
        if let Err(error) = invocation::run(&self.program, &words).await {
            tracing::warn!(container = bundle.id(), %error, "a runtime does not delete its container");
        }
        bundle.remove()
    }

    fn target(&self, bundle: &Bundle) -> Result<steps::Target, Error> {
        bundle.target(&self.program).map_err(Error::Spec)
    }
}
