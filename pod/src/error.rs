//! What can go wrong with pods and containers.
//!
//! Errors are cheap to clone, since several callers may wait for one operation ([`crate::task`]).

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Why a pod or a container could not be handled.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// Corten's own AppArmor profile cannot be had.
    #[error("confine a container by AppArmor's default profile: ask for Unconfined, or see to the profile")]
    AppArmor {
        /// The cause.
        source: Arc<runtime::apparmor::Error>,
    },
    /// A cgroup operation.
    #[error("{operation} the cgroup of container {id}")]
    Cgroup {
        /// What was tried.
        operation: &'static str,
        /// The container.
        id: String,
        /// The kernel's answer.
        source: Arc<runtime::cgroup::Error>,
    },
    /// The command of an ExecSync ran longer than allowed and was killed.
    #[error("command in container {id} was killed after its time limit of {seconds} s")]
    ExecTimeout {
        /// The container.
        id: String,
        /// The limit.
        seconds: u64,
    },
    /// A file or directory of Corten's own.
    #[error("{operation} {}", path.display())]
    File {
        /// What was tried.
        operation: &'static str,
        /// The object.
        path: PathBuf,
        /// The kernel's answer.
        source: Arc<io::Error>,
    },
    /// A runtime of somebody else's.
    #[error("runtime handler {name:?}")]
    Handler {
        /// Its name.
        name: String,
        /// The cause.
        source: Arc<runtime::external::Error>,
    },
    /// The container needs what its handler's runtime does not have.
    #[error("runtime handler {name:?} has no {what}: leave it out, or use another RuntimeClass")]
    HandlerLacks {
        /// Its name.
        name: String,
        /// What it lacks.
        what: &'static str,
    },
    /// The image service.
    #[error("use image {name:?}")]
    Image {
        /// The reference or id.
        name: String,
        /// The cause.
        source: Arc<image::Error>,
    },
    /// No image of that name is in the store.
    #[error("image {name:?} is not here: pull it first")]
    ImageNotFound {
        /// The reference or id.
        name: String,
    },
    /// An image cannot be mounted into a container.
    #[error("mount the image volume on {}", path.display())]
    ImageVolume {
        /// Where in the container.
        path: PathBuf,
        /// What is wrong with the image or its mount.
        source: Arc<Self>,
    },
    /// The request asks for something that cannot be.
    #[error("{field}: {reason}")]
    Invalid {
        /// The request's field, in the CRI's words.
        field: &'static str,
        /// Why, and what would be right.
        reason: String,
    },
    /// A mount in the host's namespace.
    #[error("mount image {image}")]
    Mount {
        /// The image's id.
        image: String,
        /// The kernel's answer.
        source: Arc<runtime::Failure>,
    },
    /// Another object has this name.
    #[error("{kind} name {name:?} is taken by {id}: remove that one first, or use another attempt number")]
    NameTaken {
        /// `pod` or `container`.
        kind: &'static str,
        /// The name.
        name: String,
        /// Who has it.
        id: String,
    },
    /// The CNI plugins.
    #[error("{operation} the network of pod {id}")]
    Network {
        /// What was tried.
        operation: &'static str,
        /// The pod.
        id: String,
        /// The cause.
        source: Arc<network::Error>,
    },
    /// No such object.
    #[error("{kind} {id:?} does not exist")]
    NotFound {
        /// `pod` or `container`.
        kind: &'static str,
        /// What was asked for.
        id: String,
    },
    /// A record that cannot be read.
    #[error("read record {}", path.display())]
    Record {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: Arc<serde_json::Error>,
    },
    /// The monitor, the init stage or the kernel.
    #[error("{operation} {kind} {id}")]
    Runtime {
        /// What was tried.
        operation: &'static str,
        /// `pod` or `container`.
        kind: &'static str,
        /// The object.
        id: String,
        /// The cause.
        source: Arc<runtime::Error>,
    },
    /// SELinux is on, and a label cannot be had or put on.
    #[error("label a pod for SELinux")]
    Selinux {
        /// The cause.
        source: Arc<runtime::selinux::Error>,
    },
    /// The OCI spec could not be put together.
    #[error("build the OCI spec of container {id}")]
    Spec {
        /// The container.
        id: String,
        /// The cause.
        source: Arc<oci_spec::OciSpecError>,
    },
    /// The operation's task ended without an answer.
    #[error("{operation} ended without an answer: look into the daemon's log and try again")]
    TaskLost {
        /// What was tried.
        operation: &'static str,
    },
    /// Mounts cannot be made read-only with all below them.
    #[error("mount {} recursively read-only: {reason}", path.display())]
    RecursiveReadOnly {
        /// Where in the container.
        path: PathBuf,
        /// What lacks it.
        reason: &'static str,
    },
    /// Some steps of taking something down failed; it is kept and can be removed again.
    #[error("take down {kind} {id}: {}", list(failures))]
    Teardown {
        /// `pod` or `container`.
        kind: &'static str,
        /// The object.
        id: String,
        /// Every step that failed.
        failures: Vec<Self>,
    },
    /// An attached client did not read for so long that its pipe was full.
    #[error("the client attached to container {id} did not keep up with its output: attach again")]
    TooSlow {
        /// The container.
        id: String,
    },
    /// No handler of that name is configured.
    #[error("runtime handler {name:?} is not configured: name it under [runtimes] in Corten's configuration")]
    UnknownHandler {
        /// What was asked for.
        name: String,
    },
    /// The user cannot be found in the image.
    #[error("user {user:?} of the container: {reason}")]
    User {
        /// What was asked for.
        user: String,
        /// What is wrong.
        reason: String,
    },
    /// The object is in a state that forbids the request.
    #[error("{kind} {id} is {state}: {needed}")]
    WrongState {
        /// `pod` or `container`.
        kind: &'static str,
        /// The object.
        id: String,
        /// The state found.
        state: &'static str,
        /// The state needed.
        needed: &'static str,
    },
}

/// The crate's results.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    pub(crate) fn invalid(field: &'static str, reason: impl Into<String>) -> Self {
        Self::Invalid { field, reason: reason.into() }
    }

    /// All that went wrong while something was taken down; fine when nothing did.
    pub(crate) fn teardown(kind: &'static str, id: &str, failures: Vec<Self>) -> Result<()> {
        match failures.is_empty() {
            true => Ok(()),
            false => Err(Self::Teardown { kind, id: id.to_owned(), failures }),
        }
    }

    pub(crate) fn pod_not_found(id: &str) -> Self {
        Self::NotFound { kind: "pod", id: id.to_owned() }
    }

    pub(crate) fn container_not_found(id: &str) -> Self {
        Self::NotFound { kind: "container", id: id.to_owned() }
    }

    pub(crate) fn runtime(
        operation: &'static str,
        kind: &'static str,
        id: &str,
    ) -> impl FnOnce(runtime::Error) -> Self {
        move |source| Self::Runtime { operation, kind, id: id.to_owned(), source: Arc::new(source) }
    }

    pub(crate) fn file(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::File { operation, path: path.to_owned(), source: Arc::new(source) }
    }
}

/// One line with the cause of each failure, since a list of errors has no single source.
fn list(failures: &[Error]) -> String {
    failures.iter().map(|failure| chain(failure)).collect::<Vec<_>>().join("; ")
}

/// The error and all its causes in one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
