//! What the daemon orders of a monitor, and what a monitor reports.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::cgroup;
use crate::selinux::Labels;

/// Whose namespace the pod's containers are in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum NamespaceMode {
    /// One of the pod's own, held by pause.
    Pod,
    /// The node's.
    Node,
}

/// The ids of a pod's user namespace, the same for users and groups: 0 and those after it in the pod are
/// `host` and those after it on the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdMap {
    /// What 0 is on the node.
    pub host: u32,
    /// How many ids there are.
    pub length: u32,
}

/// Where a pod's network namespace comes from.
#[derive(Debug)]
pub enum Network {
    /// One that was made before.
    Made(OwnedFd),
    /// One that is made with the pod and belongs to its user namespace.
    New,
    /// The node's, and its UTS namespace with it.
    Node,
}

/// A pod to be started.
#[derive(Debug)]
pub struct Sandbox {
    /// The pod's id.
    pub id: String,
    /// The pod's state directory: it exists, and only root may enter it.
    pub dir: PathBuf,
    /// The pod's host name; not set when the network is the node's.
    pub hostname: String,
    /// The network namespace.
    pub network: Network,
    /// The ids of its user namespace; none for the node's.
    pub users: Option<IdMap>,
    /// The IPC namespace.
    pub ipc: NamespaceMode,
    /// The PID namespace that containers may share; with `Pod` pause is its PID 1.
    pub pid: NamespaceMode,
    /// Kernel parameters to be set in these namespaces, names with dots or slashes.
    pub sysctls: Vec<(String, String)>,
    /// Pause has them as well: it is PID 1 of a PID namespace that containers share.
    pub labels: Option<Labels>,
}

/// Which PID namespace a container is in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum PidNamespace {
    /// The node's.
    Host,
    /// A new one, with the container's command as PID 1.
    Own,
    /// The pod's, where pause is PID 1.
    Pod,
    /// That of another container of the pod.
    Target(String),
}

/// What a container's standard input is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stdin {
    /// Nothing: the null device.
    Closed,
    /// Kept open for all who attach.
    Open,
    /// Closed when the first who attached goes.
    Once,
}

/// Who makes a container's processes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Executor {
    /// The stages of our own.
    #[default]
    Native,
    /// Another OCI runtime's program, see [`crate::external`].
    External,
    /// The program of a runtime with sandboxes. It makes the one that encloses the pod's containers, and the pod
    /// ends with it.
    Enclosure,
    /// The same program. The container is within the pod's enclosure and has no process on the host that is its own.
    Enclosed,
}

/// A container to be prepared.
#[derive(Debug)]
pub struct ContainerOrder {
    /// The container's id.
    pub id: String,
    /// Who makes its processes; the plans of its execs are for the same.
    pub executor: Executor,
    /// What [`crate::plan::container`] or [`crate::external::Handler::create`] made.
    pub plan: Vec<u8>,
    /// Its PID namespace.
    pub pid_namespace: PidNamespace,
    /// Its cgroup, limits in place.
    pub cgroup: cgroup::Handles,
    /// Its log, opened for appending.
    pub log: Option<OwnedFd>,
    /// Longer lines are split.
    pub log_line_bytes: usize,
    /// Its standard input.
    pub stdin: Stdin,
    /// Whether it has a terminal.
    pub tty: bool,
}

/// A process to be run in a container.
#[derive(Debug)]
pub struct ExecOrder {
    /// The container's id.
    pub container: String,
    /// What [`crate::plan::exec`] or [`crate::external::Handler::exec`] made.
    pub plan: Vec<u8>,
    /// The container's cgroup.
    pub cgroup: cgroup::Handles,
    /// Standard input, output and error.
    pub stdio: ExecStdio,
    /// After this it is killed, with all that it started.
    pub timeout: Option<Duration>,
}

/// What a process has as standard input, output and error.
#[derive(Debug)]
pub enum ExecStdio {
    /// These three.
    Streams([OwnedFd; 3]),
    /// A terminal that it makes in its container; its master comes by this end of a [`crate::Handover`].
    Terminal(OwnedFd),
}

/// Someone to be attached to a container, by pipes whose other ends are the daemon's.
#[derive(Debug)]
pub struct AttachOrder {
    /// The container's id.
    pub container: String,
    /// What is written to its standard input.
    pub stdin: Option<OwnedFd>,
    /// Where its standard output, or its terminal's, goes to from now on.
    pub stdout: Option<OwnedFd>,
    /// Where its standard error goes to from now on.
    pub stderr: Option<OwnedFd>,
}

/// Why someone is not attached any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Detachment {
    /// The container ended; all of its output was passed on.
    Ended,
    /// All pipes were closed, or standard input of a container that keeps its own open for others.
    Left,
    /// A pipe was full: nobody waits for those who do not read.
    TooSlow,
}

impl IdMap {
    /// The id of the node for one of the pod; none when the pod has no such id.
    pub fn on_host(self, id: u32) -> Option<u32> {
        if id < self.length { self.host.checked_add(id) } else { None }
    }
}

/// How a container ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// The exit code; 128 and the number for a signal.
    pub code: i32,
    /// When it was reaped.
    pub at_ns: i64,
    /// Whether the kernel killed in the container for want of memory.
    pub oom_killed: bool,
}

/// How an exec'd process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ExecExit {
    /// By itself or by a signal; 128 and the number for a signal.
    Exited(i32),
    /// It was killed at its deadline.
    TimedOut,
}

/// What a monitor has under it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The monitor's process.
    pub pid: i32,
    /// The pause process.
    pub pause_pid: i32,
    /// The containers, in the order of their creation.
    pub containers: Vec<ContainerReport>,
}

/// A container as its monitor sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerReport {
    /// The container's id.
    pub id: String,
    /// Its init's process, in the node's PID namespace.
    pub pid: i32,
    /// How far it has come.
    pub state: ContainerState,
    /// When its command was executed, 0 when it was not.
    pub started_at_ns: i64,
}

/// How far a container has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ContainerState {
    /// Its init is prepared or being prepared.
    Created,
    /// Its command runs.
    Running,
    /// It ended.
    Exited(Exit),
}

/// What a monitor tells without being asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A container ended: its output is read, its exit is recorded.
    Exited {
        /// The container.
        id: String,
        /// How.
        exit: Exit,
    },
    /// The monitor is gone, and nothing more will come.
    Lost,
}

/// What a monitor recorded about the end of a container, in the pod's state directory.
pub fn recorded_exit(dir: &Path, id: &str) -> Option<Exit> {
    let bytes = std::fs::read(dir.join("exit").join(id)).ok()?;
    postcard::from_bytes(&bytes).ok()
}
