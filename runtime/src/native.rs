//! The stages of a container's processes: children of the monitor that become the user's command.
//!
//! Each is called in a child that has just been cloned from the single-threaded monitor and never
//! returns: it ends in execve(2), or tells the monitor over its [`link`] what went wrong and exits.

use std::os::fd::OwnedFd;

pub(crate) mod link;

/// What the monitor hands to a stage.
#[derive(Debug)]
pub(crate) struct Stage {
    /// The sealed memfd with the plan that [`crate::plan`] made; only the stage maps it.
    pub(crate) plan: OwnedFd,
    /// The seqpacket socket to the monitor.
    pub(crate) link: OwnedFd,
    /// Standard input, output and error. What is none becomes the container's null device, or its terminal.
    pub(crate) stdio: [Option<OwnedFd>; 3],
    /// The pidfd of pause, whose network, IPC and UTS namespaces are joined as the plan says.
    pub(crate) pod: Option<OwnedFd>,
    /// The pidfd of the process whose PID namespace is joined after pivot_root(2).
    pub(crate) pid_namespace: Option<OwnedFd>,
    /// `cgroup.procs` files of v1 hierarchies that the stage writes itself into first.
    pub(crate) cgroup_procs: Vec<OwnedFd>,
}

/// Builds the container around the calling process, says `Ready`, waits for `Go` and executes the command.
pub(crate) fn container(stage: Stage) -> ! {
    drop(stage);
    unimplemented!()
}

/// Joins the container of the process behind `target`, a verified pidfd, and executes the command there.
pub(crate) fn exec(stage: Stage, target: OwnedFd) -> ! {
    drop((stage, target));
    unimplemented!()
}
