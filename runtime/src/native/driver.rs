//! The stage that has another OCI runtime build the container or enter it, by that runtime's command line.
//!
//! It speaks to the monitor as the stages of our own do. Unlike them it stays in the host's namespaces and in
//! the monitor's cgroup (that of the container with sandboxes), mounts the root file system where the runtime
//! sees it (in a mount namespace of their own for a pod with a user namespace, see [`apart`]), and runs the
//! runtime's program to its end once for each verb. The process that the runtime leaves behind becomes a child of the
//! monitor, the nearest subreaper, and takes over the role of the driver, which stays as its guard: a runtime does not
//! arrange for its processes to die with the monitor. Follows runc(8) and the OCI runtime specification 1.2; the
//! working directory is the bundle, so that no path is too long for a socket.

use std::convert::Infallible;
use std::ffi::CStr;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{CWD, Mode, OFlags};
use rustix::process::{Pid, PidfdFlags};

use self::console::Console;
use self::files::Files;
use self::init::{Init, Monitor};
use self::invocation::{Output, invoke};
use super::failure::{Context, Failure};
use super::link::{self, FailureKind, FromStage, ToStage};
use super::{Stage, entrance, settings};
use crate::external::steps::{Create, Exec, Target};
use crate::sys::clone;

pub(crate) use self::enclosed::{Message, signal};

mod apart;
mod console;
mod enclosed;
mod files;
mod init;
mod invocation;
mod tree;

/// Has the container made, says `Ready`, waits for `Go` and has its command started.
pub(super) fn create(stage: &Stage) -> Result<Infallible, Failure> {
    let plan: Create = entrance::plan(&stage.plan)?;
    settings::enter_cgroups(&stage.v1_tasks)?;
    let monitor = Monitor::watch()?;
    settings::set_oom_score(plan.oom_score_adj)?;
    let left = tree::furnish(&plan, stage)?;
    enter(&plan.target)?;
    let files = Files::new();
    let made = make(&plan, stage, &files);
    if let Some(host) = left {
        host.enter()?;
        enter(&plan.target)?;
    }
    files.remove();
    let made = match made {
        // Others find that out when the command is executed, and so whoever waits is told at the start.
        Err(failure) if !is_of_command(failure.kind) => return Err(failure),
        made => made,
    };
    if stage.enclosure.is_none() {
        give_output_up()?;
    }
    if !is_wanted(&stage.link)? {
        if let Ok(made) = made {
            made.undo(&plan.target, &files);
        }
        clone::exit(0);
    }
    let made = made?;
    // An enclosed command gets its output only now.
    let output = if stage.enclosure.is_some() { Output::Own } else { Output::None };
    let started = invoke(&plan.target, &files, &[c"start", &plan.target.id], output);
    files.remove();
    if let Err(failure) = started {
        delete(&plan.target, &files);
        return Err(failure);
    }
    match made {
        Made::Process(init) => {
            init.wait();
            // With the link goes the last that the monitor waits for.
            monitor.guard(&init)
        }
        Made::Enclosed => {
            give_output_up()?;
            enclosed::attend(&plan.target, &monitor)
        }
    }
}

/// Has a process started in the container, which takes over.
pub(super) fn exec(stage: &Stage) -> Result<Infallible, Failure> {
    let plan: Exec = entrance::plan(&stage.plan)?;
    settings::enter_cgroups(&stage.v1_tasks)?;
    settings::set_oom_score(plan.oom_score_adj)?;
    enter(&plan.target)?;
    let files = Files::new();
    let executed = run(&plan, stage, &files);
    files.remove();
    let process = executed?;
    if stage.enclosure.is_some() {
        enclosed::clear_up_after(&process);
    }
    clone::exit(0)
}

/// What `create` left behind.
enum Made {
    /// The init, which waits and is the monitor's.
    Process(Init),
    /// Something that the enclosure has within it.
    Enclosed,
}

impl Made {
    fn undo(&self, target: &Target, files: &Files) {
        match self {
            Self::Process(init) => init.kill(),
            Self::Enclosed => delete(target, files),
        }
    }
}

fn delete(target: &Target, files: &Files) {
    // The daemon does it too, when it is there.
    invoke(target, files, &[c"delete", c"--force", &target.id], Output::None).ok();
    files.remove();
}

/// `create`: the command waits when this returns.
fn make(plan: &Create, stage: &Stage, files: &Files) -> Result<Made, Failure> {
    let console = plan.terminal.then(|| Console::listen(files)).transpose()?;
    fill_stdio(stage, console.is_some())?;
    own_stdio(plan.owner)?;
    let mut words = vec![c"create", c"--bundle", c".", c"--pid-file", &files.pid];
    if console.is_some() {
        words.extend([c"--console-socket", &files.console]);
    }
    words.push(&plan.target.id);
    invoke(&plan.target, files, &words, Output::Own)?;
    if let Some(console) = console {
        console.pass_on(&stage.link)?;
    }
    let pid = files.read_pid()?;
    if stage.enclosure == Some(pid) {
        return Ok(Made::Enclosed);
    }
    hand_over(stage, pid).map(Made::Process)
}

/// `exec`: the process runs when this returns, and is the monitor's.
fn run(plan: &Exec, stage: &Stage, files: &Files) -> Result<Init, Failure> {
    files.write_process(&plan.process)?;
    let console = plan.terminal.then(|| Console::listen(files)).transpose()?;
    fill_stdio(stage, console.is_some())?;
    own_stdio(plan.owner)?;
    let mut words = vec![c"exec", c"--process", &files.process, c"--pid-file", &files.pid, c"--detach"];
    if console.is_some() {
        words.extend([c"--console-socket", &files.console]);
    }
    if stage.enclosure.is_some() {
        words.extend([c"--internal-pid-file", &files.inner]);
    }
    words.push(&plan.target.id);
    invoke(&plan.target, files, &words, Output::Own)?;
    if let Some(console) = console {
        console.pass_on(stage.handover.as_ref().unwrap_or(&stage.link))?;
    }
    let pid = files.read_pid()?;
    if stage.enclosure.is_some() {
        files.keep_inner(pid)?;
    }
    hand_over(stage, pid)
}

/// Says whose process it is now: the one in the pid file, which must be the monitor's child by now.
fn hand_over(stage: &Stage, pid: i32) -> Result<Init, Failure> {
    let what = || "find the container's process".to_owned();
    let process = Pid::from_raw(pid).ok_or_else(|| Failure::new(what()))?;
    // The monitor reaps nobody whom it does not know until the stage has said `Ready`: the number is still the
    // process'.
    let pidfd = rustix::process::pidfd_open(process, PidfdFlags::empty()).during(what)?;
    let monitor = rustix::process::getppid().map_or(0, Pid::as_raw_pid);
    if files::parent(pid) != Some(monitor) {
        return Err(Failure::new(format!("{}: {pid} is not a child of the monitor", what())));
    }
    let told = link::send(&stage.link, &FromStage::Process { pid }, Some(pidfd.as_fd()));
    let process = Init::new(pid, pidfd);
    if told.is_err() {
        process.kill();
    }
    told.during(|| "report the process".into())?;
    Ok(process)
}

/// Says that the container waits for its start, and waits with it; false when it was removed before.
fn is_wanted(link: &OwnedFd) -> Result<bool, Failure> {
    link::send(link, &FromStage::Ready, None).during(|| "say that the container is ready".into())?;
    let word = link::receive::<ToStage>(link).during(|| "wait for the start".into())?;
    Ok(matches!(word, Some((ToStage::Go, _))))
}

/// Makes the bundle the working directory.
fn enter(target: &Target) -> Result<(), Failure> {
    rustix::process::chdir(&target.bundle).during(|| format!("enter {}", target.bundle.to_string_lossy()))
}

/// A null device for what the monitor did not give; with a terminal the runtime needs none of the three.
fn fill_stdio(stage: &Stage, has_console: bool) -> Result<(), Failure> {
    if has_console || stage.stdio.iter().any(Option::is_none) {
        super::console::fill(&stage.stdio, &null()?)?;
    }
    Ok(())
}

/// A runtime that is not the host's root any more cannot give the pipes away.
fn own_stdio(owner: Option<u32>) -> Result<(), Failure> {
    owner.map_or(Ok(()), super::console::own)
}

/// Lets go of the container's pipes: who waits for their end waits for the container's processes alone.
fn give_output_up() -> Result<(), Failure> {
    super::console::fill(&[None, None, None], &null()?)
}

fn null() -> Result<OwnedFd, Failure> {
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    rustix::fs::openat(CWD, c"/dev/null", flags, Mode::empty()).during(|| "open /dev/null".into())
}

fn is_of_command(kind: FailureKind) -> bool {
    matches!(kind, FailureKind::NotExecutable | FailureKind::NotFound)
}

/// What a runtime's own words mean.
fn kind_of(text: &str) -> FailureKind {
    let text = text.to_ascii_lowercase();
    let has = |words: &[&str]| words.iter().any(|word| text.contains(word));
    if has(&["executable file not found", "executable file `"]) {
        return FailureKind::NotFound;
    }
    if has(&["stopped container", "is not running", "does not exist"]) {
        return FailureKind::TargetGone;
    }
    // runc's words, then crun's.
    let is_of_exec = has(&["exec: \"", "exec /", "exec container process", "open executable"]);
    if is_of_exec && has(&["no such file or directory"]) {
        return FailureKind::NotFound;
    }
    if is_of_exec && has(&["permission denied", "is a directory", "exec format error"]) {
        return FailureKind::NotExecutable;
    }
    FailureKind::Setup
}

/// Adds what the runtime said to what it was told to do.
fn failure(verb: &CStr, target: &Target, text: &str) -> Failure {
    let program = target.program.to_string_lossy();
    let what = format!("{program} {}: {text}", verb.to_string_lossy());
    Failure::new(what).of_kind(kind_of(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_runtimes_are_understood() {
        for (text, kind) in [
            (
                "runc create failed: unable to start container process: exec: \"nope\": executable file not found in $PATH",
                FailureKind::NotFound,
            ),
            ("executable file `nope` not found in $PATH: No such file or directory", FailureKind::NotFound),
            (
                "exec failed: unable to start container process: exec: \"/nope\": stat /nope: no such file or directory",
                FailureKind::NotFound,
            ),
            (
                "unable to start container process: exec: \"/etc\": permission denied",
                FailureKind::NotExecutable,
            ),
            ("exec failed: cannot exec in a stopped container", FailureKind::TargetGone),
            ("container \"a\" does not exist", FailureKind::TargetGone),
            ("error mounting \"/x\" to rootfs: no such file or directory", FailureKind::Setup),
        ] {
            assert_eq!(kind_of(text), kind, "{text}");
        }
    }
}
