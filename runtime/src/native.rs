//! The stages of a container's processes: children of the monitor that become the user's command.
//!
//! Each is called in a child that has just been cloned from the monitor and never returns: it ends in
//! execve(2), or tells the monitor over its [`link`] what went wrong and exits. The child has one thread and
//! the monitor's others never hold a lock, so it may allocate; nothing here locks, logs or looks at the
//! environment.

use std::convert::Infallible;
use std::os::fd::OwnedFd;
use std::panic::{self, AssertUnwindSafe};

use failure::Failure;

use crate::sys::clone;

pub(crate) use driver::Message;

mod command;
mod confine;
mod console;
mod container;
mod detached;
mod devices;
mod driver;
mod entrance;
mod failure;
pub(crate) mod home;
mod identity;
mod joined;
pub(crate) mod labels;
pub(crate) mod link;
mod mounts;
pub(crate) mod overlay;
mod process;
pub(crate) mod relabel;
mod root;
mod settings;
mod sources;
mod users;
mod volume;

/// What the monitor hands to a stage.
#[derive(Debug)]
pub(crate) struct Stage {
    /// The sealed memfd with the plan that [`crate::plan`] made; only the stage reads it.
    pub(crate) plan: OwnedFd,
    /// The seqpacket socket to the monitor.
    pub(crate) link: OwnedFd,
    /// Standard input, output and error. What is none becomes a null device; with a terminal, all three are
    /// none and become that.
    pub(crate) stdio: [Option<OwnedFd>; 3],
    /// The pidfd of pause, whose network, IPC and UTS namespaces are joined as the plan says.
    pub(crate) pod: Option<OwnedFd>,
    /// The pod's user namespace, where it has one of its own: mounts take their ids from it.
    pub(crate) users: Option<OwnedFd>,
    /// The pidfd of the process whose PID namespace is joined after pivot_root(2).
    pub(crate) pid_namespace: Option<OwnedFd>,
    /// Where an exec'd process' terminal is handed over; a container's goes to the monitor by the link.
    pub(crate) handover: Option<OwnedFd>,
    /// The process of the enclosure that the container is made in, of a runtime with sandboxes.
    pub(crate) enclosure: Option<i32>,
    /// `tasks` files of v1 hierarchies; the stage, a process of one thread, writes itself into them first.
    pub(crate) v1_tasks: Vec<OwnedFd>,
}

/// Builds the container around the calling process, says `Ready`, waits for `Go` and executes the command.
///
/// The caller has cloned it into a new mount namespace, the v2 cgroup, and, if the plan wants one of its own,
/// a new PID namespace. v1 cgroups are to be joined before `Go` is said.
pub(crate) fn container(stage: Stage) -> ! {
    become_stage(stage, container::run)
}

/// Joins the container of the process behind `target`, a verified pidfd, and executes the command there.
///
/// With a terminal and no standard input, output and error, it makes one in the container and says `Console` by the
/// handover. The caller has cloned it into the container's v2 cgroup and no new namespaces.
pub(crate) fn exec(mut stage: Stage, target: OwnedFd) -> ! {
    // It is kept with the others when the rest is closed; an exec has no pod to join.
    stage.pod = Some(target);
    become_stage(stage, |stage| match &stage.pod {
        Some(target) => joined::run(stage, target),
        None => Err(Failure::new("join the container: there is no target")),
    })
}

/// Has another OCI runtime make the container, says `Ready`, waits for `Go` and has the command started.
///
/// The caller has cloned it into no new namespace, and into another cgroup only where the runtime has sandboxes.
pub(crate) fn drive_container(stage: Stage) -> ! {
    become_stage(stage, driver::create)
}

/// Has another OCI runtime execute the command in its container.
///
/// The caller has cloned it as for [`drive_container`].
pub(crate) fn drive_exec(stage: Stage) -> ! {
    become_stage(stage, driver::exec)
}

/// Has another runtime signal what is enclosed; the exit code says whether it did.
pub(crate) fn drive_signal(message: Message) -> ! {
    let result = panic::catch_unwind(AssertUnwindSafe(|| driver::signal(&message)));
    clone::exit(if matches!(result, Ok(Ok(()))) { 0 } else { 1 })
}

/// Does the work, tells of its failure, and never unwinds into the monitor's code.
fn become_stage(mut stage: Stage, work: fn(&Stage) -> Result<Infallible, Failure>) -> ! {
    let result =
        panic::catch_unwind(AssertUnwindSafe(|| entrance::enter(&mut stage).and_then(|()| work(&stage))));
    match result {
        Ok(Ok(never)) => match never {},
        Ok(Err(failure)) => failure.end(&stage.link),
        Err(_) => Failure::new("the stage has a defect").end(&stage.link),
    }
}

#[cfg(test)]
mod tests;
