//! The first steps of every stage: it forgets what it was as the monitor's child and reads its plan.

use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::Mode;
use rustix::io::Errno;
use rustix::process::{DumpableBehavior, Signal};
use serde::de::DeserializeOwned;

use super::Stage;
use super::failure::{Context, Failure};
use crate::sys::{fd, signal};

/// Longest plan: a filter of 4096 instructions has 32 KiB, arguments and environment at most 2 MiB.
const PLAN_BYTES: usize = 4 << 20;

/// Cuts the process off from the monitor: it dies with it, and keeps nothing that it was not given.
pub(super) fn enter(stage: &mut Stage) -> Result<(), Failure> {
    die_with_monitor(&stage.link)?;
    above_stdio(stage)?;
    let mut keep: Vec<RawFd> = descriptors(stage).map(|fd| fd.as_raw_fd()).collect();
    fd::close_others(&mut keep);
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .during(|| "clear dumpable".into())?;
    signal::reset();
    rustix::process::umask(Mode::empty());
    let [stdin, stdout, stderr] = &stage.stdio;
    let dup = || "set up standard input, output and error".to_owned();
    stdin.as_ref().map_or(Ok(()), rustix::stdio::dup2_stdin).during(dup)?;
    stdout.as_ref().map_or(Ok(()), rustix::stdio::dup2_stdout).during(dup)?;
    stderr.as_ref().map_or(Ok(()), rustix::stdio::dup2_stderr).during(dup)
}

/// Arranges for SIGKILL at the monitor's death, and finds out whether that was already.
///
/// In a new PID namespace getppid(2) says nothing, but the other end of the link does.
pub(super) fn die_with_monitor(link: &OwnedFd) -> Result<(), Failure> {
    let what = || "watch the monitor".to_owned();
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).during(what)?;
    let mut fds = [PollFd::new(link, PollFlags::empty())];
    rustix::event::poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).during(what)?;
    let [link] = &fds;
    if link.revents().contains(PollFlags::HUP) { Err(Failure::new("the monitor is gone")) } else { Ok(()) }
}

/// Reads and decodes what the memfd holds.
pub(super) fn plan<T: DeserializeOwned>(memfd: &OwnedFd) -> Result<T, Failure> {
    let what = || "read the plan".to_owned();
    let size = rustix::fs::fstat(memfd).during(what)?.st_size;
    let size = usize::try_from(size).ok().filter(|size| *size <= PLAN_BYTES);
    let mut bytes = vec![0; size.ok_or_else(|| Failure::new("the plan is too long"))?];
    let mut filled = 0;
    while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match rustix::io::pread(memfd, rest, filled as u64) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno).during(what),
        }
    }
    postcard::from_bytes(&bytes).map_err(|_| Failure::new("the plan is not one of this release"))
}

/// Moves the descriptors away from the numbers that standard input, output and error take.
fn above_stdio(stage: &mut Stage) -> Result<(), Failure> {
    let low = |fd: &OwnedFd| fd.as_raw_fd() < 3;
    let owned = [&mut stage.plan, &mut stage.link].into_iter();
    let owned = owned.chain(stage.stdio.iter_mut().flatten()).chain(stage.v1_tasks.iter_mut());
    let owned = owned.chain(stage.pod.iter_mut()).chain(stage.users.iter_mut());
    let owned = owned.chain(stage.pid_namespace.iter_mut()).chain(stage.handover.iter_mut());
    for fd in owned.filter(|fd| low(fd)) {
        *fd = rustix::io::fcntl_dupfd_cloexec(&*fd, 3).during(|| "duplicate a descriptor".into())?;
    }
    Ok(())
}

fn descriptors(stage: &Stage) -> impl Iterator<Item = rustix::fd::BorrowedFd<'_>> {
    let owned = [&stage.plan, &stage.link].into_iter().chain(stage.stdio.iter().flatten());
    let owned =
        owned.chain(&stage.v1_tasks).chain(&stage.pod).chain(&stage.users).chain(&stage.pid_namespace);
    let owned = owned.chain(&stage.handover);
    owned.map(AsFd::as_fd)
}
