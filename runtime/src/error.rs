//! What can go wrong between the daemon, a monitor and the stages of its containers.

use std::io;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::cgroup;
use crate::native::link;

/// Why a pod's processes could not be handled.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody answers at the monitor's socket, or not a monitor of ours.
    #[error("connect to the monitor in {}", dir.display())]
    Adopt {
        /// The pod's state directory.
        dir: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// Nobody can be attached to the container.
    #[error("attach to container {id}")]
    Attach {
        /// The container.
        id: String,
        /// What failed.
        source: Failure,
    },
    /// A cgroup operation.
    #[error("{operation} the monitors' cgroup")]
    Cgroup {
        /// What was tried.
        operation: &'static str,
        /// The cause.
        source: cgroup::Error,
    },
    /// The connection to a monitor.
    #[error("{operation} monitor {monitor}")]
    Connection {
        /// What was tried.
        operation: &'static str,
        /// The monitor's process.
        monitor: i32,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The monitor has a container of this id.
    #[error("container {id} exists in this pod")]
    ContainerExists {
        /// The container.
        id: String,
    },
    /// The container could not be prepared.
    #[error("create container {id}")]
    Create {
        /// The container.
        id: String,
        /// What failed in it.
        source: Failure,
    },
    /// The command could not be executed in the container.
    #[error("exec in container {id}")]
    Exec {
        /// The container.
        id: String,
        /// What failed in it.
        source: Failure,
    },
    /// The monitor is gone, and with it all that ran in the pod.
    #[error("monitor {monitor} is gone")]
    Lost {
        /// The monitor's process.
        monitor: i32,
    },
    /// The log could not be opened anew.
    #[error("reopen the log of container {id}")]
    Log {
        /// The container.
        id: String,
        /// What failed.
        source: Failure,
    },
    /// The monitor does not know the container.
    #[error("container {id} is not in this pod")]
    NoContainer {
        /// The container.
        id: String,
    },
    /// The program of the monitors.
    #[error("{operation} {}", path.display())]
    Program {
        /// What was tried.
        operation: &'static str,
        /// The program.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// An order that cannot be written down.
    #[error("encode an order to monitor {monitor}")]
    Protocol {
        /// The monitor's process.
        monitor: i32,
        /// Why not.
        source: postcard::Error,
    },
    /// The monitor does not understand, or is not understood.
    #[error("monitor {monitor} is of another release and does not know this request: restart the pod")]
    Release {
        /// The monitor's process.
        monitor: i32,
    },
    /// The pod's namespaces or its pause process could not be made.
    #[error("start pod {id}")]
    Sandbox {
        /// The pod.
        id: String,
        /// What failed.
        source: Failure,
    },
    /// A signal could not be sent.
    #[error("send a signal to container {id}")]
    Signal {
        /// The container.
        id: String,
        /// What failed.
        source: Failure,
    },
    /// No monitor could be started.
    #[error("{operation}")]
    Spawn {
        /// What was tried.
        operation: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The container's command could not be executed.
    #[error("start container {id}")]
    Start {
        /// The container.
        id: String,
        /// What failed in it.
        source: Failure,
    },
    /// The monitor does not answer.
    #[error("monitor {monitor} did not answer within {seconds} s")]
    Timeout {
        /// The monitor's process.
        monitor: i32,
        /// How long it was waited for.
        seconds: u64,
    },
    /// The container's state forbids the request.
    #[error("container {id} is {state}")]
    WrongState {
        /// The container.
        id: String,
        /// The state found: `created`, `running`, `exited` and so on.
        state: String,
    },
}

/// What a stage, or the monitor itself, said about its failure.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Operation and object.
    pub what: String,
    /// The kernel's error number, 0 without one.
    pub errno: i32,
    /// Whose fault it is.
    pub kind: FailureKind,
}

/// Kinds of failures that callers tell apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum FailureKind {
    /// The command is there, but cannot be executed.
    NotExecutable,
    /// The command, or the interpreter that it names, is not in the container.
    NotFound,
    /// Something before that.
    Setup,
    /// The process whose namespaces were to be joined is gone.
    TargetGone,
}

// === impl Failure ===

impl Failure {
    pub(crate) fn setup(what: impl Into<String>, errno: i32) -> Self {
        Self { what: what.into(), errno, kind: FailureKind::Setup }
    }

    pub(crate) fn io(what: impl Into<String>, error: &io::Error) -> Self {
        Self::setup(what, error.raw_os_error().unwrap_or(0))
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.errno == 0 {
            return f.write_str(&self.what);
        }
        write!(f, "{}: {}", self.what, io::Error::from_raw_os_error(self.errno))
    }
}

impl std::error::Error for Failure {}

impl From<link::FailureKind> for FailureKind {
    fn from(kind: link::FailureKind) -> Self {
        match kind {
            link::FailureKind::NotExecutable => Self::NotExecutable,
            link::FailureKind::NotFound => Self::NotFound,
            link::FailureKind::Setup => Self::Setup,
            link::FailureKind::TargetGone => Self::TargetGone,
        }
    }
}
