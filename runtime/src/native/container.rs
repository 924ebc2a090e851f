//! The init stage: from a clone of the monitor to the container's command.
//!
//! While the host's tree is there, sources are opened and the root file system is mounted; then the root is
//! changed and the host's tree is gone; then, where the PID namespace is another's, the stage goes on as a
//! process in there; only then is anything attached in the container's tree.

use std::convert::Infallible;
use std::os::fd::{AsFd, OwnedFd};

use nix::sched::CloneFlags;
use rustix::mount::UnmountFlags;
use rustix::thread::ThreadNameSpaceType;

use super::failure::{Context, Failure};
use super::labels::Gate;
use super::link::{self, FromStage, ToStage};
use super::mounts::Attached;
use super::root::Root;
use super::sources::{self, Layout, Source};
use super::{
    Stage, command, confine, console, detached, devices, entrance, mounts, overlay, process, settings, users,
};
use crate::plan::steps::{Attributes, Container, Pid};
use crate::sys::{self, keyring};

/// Builds the container, waits for the word and executes the command.
pub(super) fn run(stage: &Stage) -> Result<Infallible, Failure> {
    let plan: Container = entrance::plan(&stage.plan)?;
    settings::enter_cgroups(&stage.v1_tasks)?;
    settings::set_oom_score(plan.process.oom_score_adj)?;
    let cgroups = Layout::of_host();
    let labels = &plan.process.labels;
    let (gate, sources) = match plan.users {
        // Who is in a user namespace may not make a procfs beside the container's.
        Some(ids) => (Gate::open(labels)?, users::enter(&plan, ids, stage, cgroups)?),
        None => {
            let sources = enter(&plan, stage, cgroups)?;
            (Gate::open(labels)?, sources)
        }
    };
    let root = Root::own().during(|| "open the root".into())?;
    let attached = mounts::attach(&root, &plan.mounts, sources)?;
    furnish(&plan, stage, &root, attached)?;
    finish_root(&plan, &root)?;
    gate.with_keys(labels, || keyring::leave_session().during(|| "make a session keyring".into()))?;
    // Whoever makes the container is told at once that it cannot be confined; at its start it is done again.
    gate.set(labels)?;
    wait(&stage.link)?;
    // On a host with v1 controllers the process has come into all of its cgroups only now.
    if plan.namespaces.cgroup && cgroups == Layout::Hybrid {
        new_cgroup_namespace()?;
    }
    console::begin_session(plan.process.terminal)?;
    command::execute(&plan.process, &gate, &stage.link)
}

/// Enters the container's namespaces and makes its root the root; returns the sources of its mounts.
fn enter(plan: &Container, stage: &Stage, cgroups: Layout) -> Result<Vec<Source>, Failure> {
    enter_namespaces(plan, stage)?;
    if plan.namespaces.cgroup && cgroups == Layout::V2 {
        new_cgroup_namespace()?;
    }
    let sources = sources::open(plan, cgroups, None)?;
    change_root(&overlay::mount(&plan.root)?)?;
    match (plan.namespaces.pid, &stage.pid_namespace) {
        (Pid::Joined, Some(target)) => process::move_into(target, &stage.link)?,
        (Pid::Joined, None) => return Err(Failure::new("join the PID namespace: there is none to join")),
        (Pid::New, _) if rustix::process::getpid().as_raw_nonzero().get() != 1 => {
            return Err(Failure::new("the stage has no PID namespace of its own"));
        }
        (Pid::New | Pid::Host, _) => {}
    }
    Ok(sources)
}

pub(super) fn enter_namespaces(plan: &Container, stage: &Stage) -> Result<(), Failure> {
    if plan.namespaces.join != 0 {
        let what = || "join the pod's namespaces".to_owned();
        let pod = stage.pod.as_ref().ok_or_else(|| Failure::new(format!("{}: there is no pod", what())))?;
        let kinds = ThreadNameSpaceType::from_bits_retain(plan.namespaces.join);
        rustix::thread::move_into_thread_name_spaces(pod.as_fd(), kinds).during(what)?;
    }
    if plan.namespaces.unshare != 0 {
        let kinds = CloneFlags::from_bits_retain(plan.namespaces.unshare.cast_signed());
        nix::sched::unshare(kinds).during(|| "make new namespaces".into())?;
    }
    Ok(())
}

fn new_cgroup_namespace() -> Result<(), Failure> {
    nix::sched::unshare(CloneFlags::CLONE_NEWCGROUP).during(|| "make a cgroup namespace".into())
}

/// Makes the mount behind the descriptor the root and lets go of the host's tree.
pub(super) fn change_root(root: &OwnedFd) -> Result<(), Failure> {
    let what = || "change the root".to_owned();
    rustix::process::fchdir(root).during(what)?;
    // The old root is put on top of the new one, where `.` still leads to it after the change.
    rustix::process::pivot_root(c".", c".").during(what)?;
    rustix::mount::unmount(c".", UnmountFlags::DETACH).during(|| "detach the host's tree".into())?;
    rustix::process::chdir(c"/").during(what)
}

/// Everything that is neither a mount of the plan nor the process.
fn furnish(plan: &Container, stage: &Stage, root: &Root, attached: Attached) -> Result<(), Failure> {
    for device in &plan.far_devices {
        devices::make_far(root, device)?;
    }
    settings::apply(plan)?;
    let null_or_terminal = match (plan.process.terminal, &attached.devpts) {
        (Some(terminal), Some(devpts)) => {
            let peer = console::make(devpts, terminal, &stage.link)?;
            if let Some(devices) = &attached.devices {
                console::attach(&peer, &devices.mount)?;
            }
            Some(peer)
        }
        (Some(_), None) => return Err(Failure::new("make a terminal: there is no devpts")),
        (None, _) if stage.stdio.iter().all(Option::is_some) => None,
        (None, _) => {
            Some(attached.devices.as_ref().map_or_else(devices::own_null, |devices| devices.null())?)
        }
    };
    if let Some(fd) = &null_or_terminal {
        console::fill(&stage.stdio, fd)?;
    }
    confine::mask(root, &plan.masked, attached.devices.as_ref(), plan.root.label.as_ref())?;
    confine::make_readonly(root, &plan.readonly)?;
    command::make_directory(root, &plan.process.cwd)
}

/// The last changes of the root mount itself: whatever writes to it has been done.
fn finish_root(plan: &Container, root: &Root) -> Result<(), Failure> {
    let what = || "set the attributes of the root".to_owned();
    let propagation = plan.root.propagation;
    if !plan.root.readonly && propagation.is_none() {
        return Ok(());
    }
    let own = if plan.root.readonly { libc::MOUNT_ATTR_RDONLY } else { 0 };
    detached::set_attributes(root, Attributes { own, recursive: 0, propagation }).during(what)
}

/// Tells the monitor that all is ready, and sleeps until it says `Go`.
fn wait(link: &OwnedFd) -> Result<(), Failure> {
    link::send(link, &FromStage::Ready, None).during(|| "say that the container is ready".into())?;
    match link::receive::<ToStage>(link).during(|| "wait for the start".into())? {
        Some((ToStage::Go, _)) => Ok(()),
        // The container was removed before it was started.
        None => sys::clone::exit(0),
    }
}
