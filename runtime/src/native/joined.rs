//! The exec stage: from a clone of the monitor to a further process of a container.

use std::convert::Infallible;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{OFlags, ResolveFlags};
use rustix::io::Errno;
use rustix::thread::ThreadNameSpaceType;

use super::failure::{Context, Failure};
use super::labels::Gate;
use super::link::FailureKind;
use super::root::Root;
use super::{Stage, command, console, devices, entrance, process, settings, users};
use crate::plan::steps::Exec;
use crate::sys::keyring;

/// Enters the namespaces of the process behind the pidfd in one step and executes the command there.
pub(super) fn run(stage: &Stage, target: &OwnedFd) -> Result<Infallible, Failure> {
    let plan: Exec = entrance::plan(&stage.plan)?;
    settings::enter_cgroups(&stage.v1_tasks)?;
    settings::set_oom_score(plan.process.oom_score_adj)?;
    let given = stage.stdio.iter().filter(|fd| fd.is_some()).count();
    let own_terminal = plan.process.terminal.filter(|_| given == 0);
    if given < 3 && own_terminal.is_none() {
        console::fill(&stage.stdio, &devices::own_null()?)?;
    }
    let labels = &plan.process.labels;
    let mut gate = None;
    if let Some(ids) = plan.users {
        users::hand_over(&plan.process, ids)?;
        // Who is in a user namespace may not make a procfs beside the container's.
        gate = Some(Gate::open(labels)?);
    }
    join(target, plan.join)?;
    if plan.join & libc::CLONE_NEWPID.cast_unsigned() != 0 {
        process::replace(&stage.link)?;
    }
    if plan.users.is_some() {
        users::become_root(&stage.link)?;
    }
    if let Some(terminal) = own_terminal {
        let what = || "open /dev/pts".to_owned();
        let root = Root::own().during(what)?;
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        let devpts = root.open(c"dev/pts", flags, ResolveFlags::NO_SYMLINKS).during(what)?;
        console::fill(
            &stage.stdio,
            &console::make(&devpts, terminal, stage.handover.as_ref().unwrap_or(&stage.link))?,
        )?;
    }
    let gate = gate.map_or_else(|| Gate::open(labels), Ok)?;
    gate.with_keys(labels, || keyring::leave_session().during(|| "make a session keyring".into()))?;
    console::begin_session(plan.process.terminal)?;
    command::execute(&plan.process, &gate, &stage.link)
}

/// All at once: the kernel checks everything before it changes anything.
fn join(target: &OwnedFd, kinds: u32) -> Result<(), Failure> {
    let kinds = ThreadNameSpaceType::from_bits_retain(kinds);
    rustix::thread::move_into_thread_name_spaces(target.as_fd(), kinds).map_err(|errno| {
        let failure = Failure { errno: errno.raw_os_error(), ..Failure::new("join the container") };
        // An exited process has no namespaces any more.
        let gone = matches!(errno, Errno::SRCH | Errno::INVAL);
        failure.of_kind(if gone { FailureKind::TargetGone } else { FailureKind::Setup })
    })
}
