//! Drivers of runtimes with sandboxes, such as runsc: what the monitor has as a container's or a command's process
//! is one that waits for it, and signals go by the runtime's `kill`.

use std::convert::Infallible;
use std::io::Read;
use std::os::fd::{AsRawFd, OwnedFd};

use rustix::event::{PollFd, PollFlags};
use rustix::fs::{AtFlags, CWD};
use rustix::io::Errno;
use rustix::pipe::PipeFlags;
use serde::Deserialize;

use super::super::failure::{Context, Failure};
use super::enter;
use super::files::{self, Files};
use super::init::{Init, Monitor};
use super::invocation::{Output, Running, invoke, start};
use crate::external::steps::Target;
use crate::native::entrance;
use crate::sys::{clone, fd, signal};

/// The code of a container of which nobody can say how it ended: its enclosure is gone.
const UNKNOWN: i32 = 255;

/// Longest answer that is read.
const ANSWER_BYTES: u64 = 64 << 10;

/// A signal for what is enclosed.
#[derive(Debug)]
pub(crate) struct Message {
    /// The container's plan.
    pub(crate) plan: OwnedFd,
    /// Its number.
    pub(crate) signal: i32,
    /// The process on the host that stands for the command of an exec; none for the container's init.
    pub(crate) exec: Option<i32>,
}

/// The answer to `wait`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Ended {
    exit_status: i32,
}

/// Waits for the end of a container that was started, and ends as it did.
pub(super) fn attend(target: &Target, monitor: &Monitor) -> Result<Infallible, Failure> {
    monitor.die_with()?;
    let what = || "wait for the container".to_owned();
    let (answer, theirs) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC).during(what)?;
    let files = Files::new();
    let running = start(target, &files, &[c"wait", &target.id], Output::Into(&theirs))?;
    drop(theirs);
    // With the link goes the last that the monitor waits for: the command runs.
    fd::close_others(&mut [answer.as_raw_fd(), running.as_fd().as_raw_fd()]);
    let code = result(answer, &running);
    files.remove();
    clone::exit(code.unwrap_or(UNKNOWN))
}

fn result(answer: OwnedFd, running: &Running) -> Option<i32> {
    let mut text = Vec::new();
    std::fs::File::from(answer).take(ANSWER_BYTES).read_to_end(&mut text).ok()?;
    let ended: Ended = serde_json::from_slice(&text).ok()?;
    running.wait().ok()?;
    Some(ended.exit_status & 0xff)
}

/// Forgets the number of a command when the process that stands for it has ended.
pub(super) fn clear_up_after(command: &Init) {
    fd::close_others(&mut [command.process().as_raw_fd()]);
    let mut end = [PollFd::new(command.process(), PollFlags::IN)];
    while let Err(Errno::INTR) = rustix::event::poll(&mut end, None) {}
    rustix::fs::unlinkat(CWD, files::inner(command.pid()), AtFlags::empty()).ok();
}

/// Delivers a signal.
pub(crate) fn signal(message: &Message) -> Result<(), Failure> {
    signal::reset();
    // It stands first in every plan.
    let target: Target = entrance::plan(&message.plan)?;
    enter(&target)?;
    let files = Files::new();
    let number = text(message.signal);
    let inner = message.exec.and_then(|process| files::read(&files::inner(process)));
    let inner = inner.and_then(|bytes| String::from_utf8_lossy(&bytes).trim().parse().ok()).map(text);
    let told = match (&inner, message.exec) {
        (Some(inner), _) => {
            invoke(&target, &files, &[c"kill", c"--pid", inner, &target.id, &number], Output::None)
        }
        (None, None) => invoke(&target, &files, &[c"kill", &target.id, &number], Output::None),
        // It is gone.
        (None, Some(_)) => Ok(()),
    };
    files.remove();
    told
}

fn text(number: i32) -> std::ffi::CString {
    // Digits have no NUL byte among them.
    std::ffi::CString::new(number.to_string()).unwrap_or_default()
}
