//! What can go wrong in the network, each failure by its name.

use std::io;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;

use crate::cni::{Verb, Version};
use crate::quantity::QuantityError;

/// What could not be done.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// ADD failed; what it left was taken down again, as far as `cleanup` does not say otherwise.
    #[error("add pod {id} to network {network}{}", and_cleanup(cleanup))]
    Add {
        /// The sandbox's id.
        id: String,
        /// The network's name.
        network: String,
        /// What failed.
        source: Box<Self>,
        /// What failed in the DEL that followed.
        cleanup: Vec<Self>,
    },
    /// The attachment holds something that cannot be told to a plugin.
    #[error("pod's {field} {value:?} cannot be passed to a CNI plugin")]
    Argument {
        /// Which part of the attachment.
        field: &'static str,
        /// Its value.
        value: String,
    },
    /// An annotation with a rate is no quantity.
    #[error("{key} {value:?}")]
    Bandwidth {
        /// The annotation.
        key: &'static str,
        /// Its value.
        value: String,
        /// What is wrong with it.
        source: QuantityError,
    },
    /// An annotation has a rate that Kubernetes does not allow.
    #[error("{key} {value:?} is not between 1k and 1P")]
    BandwidthRange {
        /// The annotation.
        key: &'static str,
        /// Its value.
        value: String,
    },
    /// A cached result cannot be read or written.
    #[error("{operation} cached CNI result {}", path.display())]
    Cache {
        /// What was done with it.
        operation: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// The network's version of CNI has no CHECK.
    #[error("network {network} has CNI version {version}, CHECK needs 0.4.0")]
    CheckUnsupported {
        /// The network's name.
        network: String,
        /// Its version.
        version: Version,
    },
    /// DEL failed for some plugins of the chain; the others were called all the same.
    #[error("remove pod {id} from network {network}: {}", join(errors))]
    Delete {
        /// The sandbox's id.
        id: String,
        /// The network's name.
        network: String,
        /// All that failed.
        errors: Vec<Self>,
    },
    /// Nobody answers at a port.
    #[error("connect to port {port} of the loopback interface")]
    Dial {
        /// The port.
        port: u16,
        /// The kernel's answer, for IPv4 where that was the same for both.
        source: io::Error,
    },
    /// Nobody answers at a pod's addresses.
    #[error("connect to port {port} of the pod's addresses {addresses:?}")]
    DialAddress {
        /// The addresses.
        addresses: Vec<std::net::IpAddr>,
        /// The port.
        port: u16,
        /// The kernel's answer for the first.
        source: io::Error,
    },
    /// A network namespace cannot be made, opened, entered or deleted.
    #[error("{operation} network namespace {}", path.display())]
    Namespace {
        /// What was done with it.
        operation: &'static str,
        /// Where it is pinned.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// The kernel's answer over netlink cannot be used.
    #[error("{operation} by netlink")]
    Netlink {
        /// What was asked for.
        operation: &'static str,
        /// The system's answer.
        source: io::Error,
    },
    /// The chain went through, but the pod has no address.
    #[error("network {network} gave the pod no address")]
    NoAddress {
        /// The network's name.
        network: String,
    },
    /// A file is there, but no network namespace.
    #[error("{} is not a network namespace", path.display())]
    NotNamespace {
        /// The file.
        path: PathBuf,
    },
    /// There is no usable network.
    #[error("no network")]
    NotReady(#[source] NotReady),
    /// A plugin failed.
    #[error("CNI plugin {plugin}, {verb} in network {network}")]
    Plugin {
        /// The plugin's type.
        plugin: String,
        /// What it was asked to do.
        verb: Verb,
        /// The network's name.
        network: String,
        /// What it did instead.
        source: Box<PluginError>,
    },
    /// The directory of configurations cannot be watched.
    #[error("watch CNI configuration directory {}", path.display())]
    Watch {
        /// The directory.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
}

/// How a plugin failed.
#[derive(Debug, thiserror::Error)]
pub enum PluginError {
    /// It ended without success and without an error in the format of the specification.
    #[error("{status}{}", said(stderr))]
    Failed {
        /// How it ended.
        status: ExitStatus,
        /// The end of what it wrote to standard error.
        stderr: String,
    },
    /// Its answer is not what the specification asks for.
    #[error("answer is not valid: {reason}{}", said(stderr))]
    Garbage {
        /// What is wrong with it.
        reason: String,
        /// The end of what it wrote to standard error.
        stderr: String,
    },
    /// It cannot be run, or spoken with.
    #[error("{operation} {}", path.display())]
    Io {
        /// What was done.
        operation: &'static str,
        /// The program.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// No directory has it.
    #[error("not found in {}", paths(dirs))]
    NotFound {
        /// Where it was looked for.
        dirs: Vec<PathBuf>,
    },
    /// It reported an error in the format of the specification.
    #[error("{msg} (code {code}){}{}", also(details), said(stderr))]
    Reported {
        /// The specification's or the plugin's own number; 11 says to try again later.
        code: u64,
        /// The short text.
        msg: String,
        /// The long text.
        details: String,
        /// The end of what it wrote to standard error.
        stderr: String,
    },
    /// It was killed at its time limit.
    #[error("no answer within {limit:?}, killed{}", said(stderr))]
    TimedOut {
        /// The limit.
        limit: Duration,
        /// The end of what it wrote to standard error.
        stderr: String,
    },
    /// It was killed since it wrote without end.
    #[error("answer is larger than {limit_bytes} bytes, killed")]
    TooMuchOutput {
        /// The limit.
        limit_bytes: usize,
    },
    /// Anybody may write to the program.
    #[error("{} is writable by everyone", path.display())]
    Unsafe {
        /// The program, or its directory.
        path: PathBuf,
    },
    /// It speaks none of the network's versions.
    #[error("supports CNI versions {}, the network has {}", list(supported), list(wanted))]
    Version {
        /// What it speaks.
        supported: Vec<Version>,
        /// What the configuration allows.
        wanted: Vec<Version>,
    },
}

/// Why pods cannot have a network now. The text is meant for the condition's message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotReady {
    /// There is no valid configuration.
    #[error("no CNI configuration in {}{}", dir.display(), in_brackets(problems))]
    NoConfig {
        /// The directory.
        dir: PathBuf,
        /// What is wrong with the files that are there.
        problems: Vec<String>,
    },
    /// A plugin of the network is not installed.
    #[error("network {network}: CNI plugin {plugin} not found in {}", paths(dirs))]
    NoPlugin {
        /// The network's name.
        network: String,
        /// The plugin's type.
        plugin: String,
        /// Where it was looked for.
        dirs: Vec<PathBuf>,
    },
    /// The network's plugins have not answered to STATUS yet.
    #[error("network {network}: waiting for its plugins' STATUS")]
    Pending {
        /// The network's name.
        network: String,
    },
    /// A plugin says that it cannot take pods.
    #[error("network {network}: {reason}")]
    Status {
        /// The network's name.
        network: String,
        /// What the plugin answered.
        reason: String,
    },
}

// === impl Error ===

impl Error {
    /// The error and its causes in one line.
    pub(crate) fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            text.push_str(": ");
            text.push_str(&error.to_string());
            cause = error.source();
        }
        text
    }
}

// === pieces of texts ===

fn and_cleanup(errors: &[Error]) -> String {
    if errors.is_empty() { String::new() } else { format!(" (and clean up: {})", join(errors)) }
}

fn join(errors: &[Error]) -> String {
    errors.iter().map(Error::chain).collect::<Vec<_>>().join("; ")
}

fn said(stderr: &str) -> String {
    if stderr.is_empty() { String::new() } else { format!("; it said {stderr:?}") }
}

fn also(details: &str) -> String {
    if details.is_empty() { String::new() } else { format!(": {details}") }
}

fn paths(dirs: &[PathBuf]) -> String {
    dirs.iter().map(|dir| dir.display().to_string()).collect::<Vec<_>>().join(", ")
}

fn list(versions: &[Version]) -> String {
    versions.iter().map(Version::to_string).collect::<Vec<_>>().join(", ")
}

fn in_brackets(problems: &[String]) -> String {
    if problems.is_empty() { String::new() } else { format!(" ({})", problems.join("; ")) }
}
