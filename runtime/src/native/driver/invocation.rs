//! One run of a runtime's program, from its arguments to its exit code.

use std::convert::Infallible;
use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::{Errno, retry_on_intr};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions};

use super::super::failure::{Context, Failure};
use super::files::Files;
use super::{failure, null};
use crate::external::steps::Target;
use crate::sys::clone::{self, Cloned};

/// All that the runtime is told of its surroundings.
const ENVIRONMENT: [&CStr; 1] = [c"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"];

/// Where the program's standard input, output and error go.
#[derive(Debug, Clone, Copy)]
pub(super) enum Output<'a> {
    /// Nowhere.
    None,
    /// Where the driver's do: they become the process'.
    Own,
    /// Nowhere but for standard output, which goes into this.
    Into(&'a OwnedFd),
}

/// A program that runs.
#[derive(Debug)]
pub(super) struct Running(OwnedFd);

/// Runs the program with a verb and its arguments, and waits for its end.
pub(super) fn invoke(
    target: &Target,
    files: &Files,
    words: &[&CStr],
    output: Output<'_>,
) -> Result<(), Failure> {
    let verb = words.first().copied().unwrap_or_default();
    let code = start(target, files, words, output)?.wait()?;
    if code == Some(0) {
        return Ok(());
    }
    let silent = || match code {
        Some(code) => format!("it ended with code {code} and said nothing"),
        None => "it was killed".to_owned(),
    };
    Err(failure(verb, target, &files.last_error().unwrap_or_else(silent)))
}

/// Starts the program with a verb and its arguments; it dies with the driver.
pub(super) fn start(
    target: &Target,
    files: &Files,
    words: &[&CStr],
    output: Output<'_>,
) -> Result<Running, Failure> {
    // Said here, where there is someone to listen.
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    rustix::fs::openat(CWD, &target.program, flags, Mode::empty())
        .during(|| format!("find {}", target.program.to_string_lossy()))?;
    let global = [&target.program, c"--root", &target.state, c"--log", &files.log, c"--log-format", c"json"];
    let words: Vec<&CStr> = global.into_iter().chain(words.iter().copied()).collect();
    let driver = rustix::process::getpid();
    match clone::fork(0, None).during(|| "clone the runtime".into())? {
        Cloned::Child => match become_runtime(driver, &words, output) {
            Ok(never) => match never {},
            Err(_) => clone::exit(127),
        },
        Cloned::Parent { pidfd, .. } => Ok(Running(pidfd)),
    }
}

impl Running {
    /// Waits for its end; its exit code, none when it was killed.
    pub(super) fn wait(&self) -> Result<Option<i32>, Failure> {
        let waited = || rustix::process::waitid(WaitId::PidFd(self.0.as_fd()), WaitIdOptions::EXITED);
        let status = retry_on_intr(waited).during(|| "wait for the runtime".into())?;
        Ok(status.and_then(|status| status.exit_status()))
    }

    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn become_runtime(driver: Pid, words: &[&CStr], output: Output<'_>) -> Result<Infallible, Errno> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    if rustix::process::getppid() != Some(driver) {
        return Err(Errno::SRCH);
    }
    if !matches!(output, Output::Own) {
        let null = null().map_err(|_| Errno::NODEV)?;
        rustix::stdio::dup2_stdin(&null)?;
        rustix::stdio::dup2_stderr(&null)?;
        match output {
            Output::Into(pipe) => rustix::stdio::dup2_stdout(pipe)?,
            Output::None | Output::Own => rustix::stdio::dup2_stdout(&null)?,
        }
    }
    rustix::process::umask(Mode::WGRP | Mode::WOTH);
    let program = words.first().copied().unwrap_or_default();
    match nix::unistd::execve(program, words, &ENVIRONMENT) {
        Ok(never) => match never {},
        Err(errno) => Err(Errno::from_raw_os_error(errno as i32)),
    }
}
