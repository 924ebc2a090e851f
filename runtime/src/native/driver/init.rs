//! The process that a runtime leaves behind: the moment in which it becomes the container's command, and its
//! end with the monitor.
//!
//! `start` ends before that moment: a signal that came in between would be lost, since the init of a PID
//! namespace ignores what it has no handler for.

use std::convert::Infallible;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::process::{PidfdFlags, Signal};

use super::super::failure::{Context, Failure};
use crate::sys::{clone, fd};

/// After this whoever waits is told that the command runs, whatever it is doing.
const LIMIT: Duration = Duration::from_secs(2);

const STEP: Duration = Duration::from_micros(500);

/// A runtime's process, and what it executes.
#[derive(Debug)]
pub(super) struct Init {
    pid: i32,
    process: OwnedFd,
    program: Option<(u64, u64)>,
}

/// The monitor, to be noticed when it dies.
#[derive(Debug)]
pub(super) struct Monitor(OwnedFd);

impl Init {
    pub(super) fn new(pid: i32, process: OwnedFd) -> Self {
        Self { pid, process, program: program(pid) }
    }

    pub(super) fn pid(&self) -> i32 {
        self.pid
    }

    pub(super) fn process(&self) -> &OwnedFd {
        &self.process
    }

    /// Kills it, and with it all of its PID namespace; one that is gone is fine.
    pub(super) fn kill(&self) {
        rustix::process::pidfd_send_signal(&self.process, Signal::KILL).ok();
    }

    /// Waits until it executes something else, or is gone.
    pub(super) fn wait(&self) {
        let end = Instant::now() + LIMIT;
        while self.program.is_some() && program(self.pid) == self.program && Instant::now() < end {
            std::thread::sleep(STEP);
        }
    }
}

impl Monitor {
    /// From here on the driver outlives the monitor for a moment, in which it kills what it had made.
    pub(super) fn watch() -> Result<Self, Failure> {
        let what = || "watch the monitor".to_owned();
        let parent = rustix::process::getppid().ok_or_else(|| Failure::new(what()))?;
        let pidfd = rustix::process::pidfd_open(parent, PidfdFlags::empty()).during(what)?;
        rustix::process::set_parent_process_death_signal(None).during(what)?;
        // It may have died before, and be somebody else now.
        if rustix::process::getppid() == Some(parent) { Ok(Self(pidfd)) } else { Err(Failure::new(what())) }
    }

    /// The driver has nothing to kill and dies with the monitor again.
    pub(super) fn die_with(&self) -> Result<(), Failure> {
        let what = || "watch the monitor".to_owned();
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).during(what)?;
        let mut end = [PollFd::new(&self.0, PollFlags::IN)];
        let is_gone = rustix::event::poll(&mut end, Some(&Timespec::default())).during(what)? > 0;
        if is_gone { Err(Failure::new(what())) } else { Ok(()) }
    }

    /// Kills the process when the monitor dies first. Closes all that the driver has beside the two.
    pub(super) fn guard(&self, init: &Init) -> Result<Infallible, Failure> {
        fd::close_others(&mut [self.0.as_raw_fd(), init.process.as_raw_fd()]);
        let mut ends = [PollFd::new(&self.0, PollFlags::IN), PollFd::new(&init.process, PollFlags::IN)];
        while let Ok(0) | Err(Errno::INTR) = rustix::event::poll(&mut ends, None) {}
        let [monitor, process] = &ends;
        if !monitor.revents().is_empty() && process.revents().is_empty() {
            init.kill();
        }
        clone::exit(0)
    }
}

/// The file that a process executes; none when it has ended.
fn program(pid: i32) -> Option<(u64, u64)> {
    let stat = rustix::fs::stat(format!("/proc/{pid}/exe")).ok()?;
    Some((stat.st_dev, stat.st_ino))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_noticed() {
        let mut child = std::process::Command::new("/bin/sh")
            .args(["-c", "read x; exec sleep 0"])
            .stdin(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let pid = child.id().cast_signed();
        let pidfd =
            rustix::process::pidfd_open(rustix::process::Pid::from_raw(pid).unwrap(), PidfdFlags::empty());
        let init = Init::new(pid, pidfd.unwrap());
        drop(child.stdin.take());
        init.wait();
        child.wait().unwrap();
        assert_ne!(program(init.pid), init.program);
    }
}
