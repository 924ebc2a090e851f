//! From the stage to the final process: a PID namespace can only be entered by a child.

use std::os::fd::{AsFd, OwnedFd};

use rustix::io::retry_on_intr;
use rustix::pipe::PipeFlags;
use rustix::thread::ThreadNameSpaceType;

use super::entrance;
use super::failure::{Context, Failure};
use super::link::{self, FromStage};
use crate::sys::clone::{self, Cloned};

/// Joins the PID namespace of the process behind the pidfd; the caller goes on as another process there.
pub(super) fn move_into(target: &OwnedFd, link: &OwnedFd) -> Result<(), Failure> {
    join(target)?;
    replace(link)
}

/// Joins the PID namespace of the process behind the pidfd for the caller's children.
pub(super) fn join(target: &OwnedFd) -> Result<(), Failure> {
    rustix::thread::move_into_thread_name_spaces(target.as_fd(), ThreadNameSpaceType::PROCESS_ID)
        .during(|| "join the PID namespace".into())
}

/// Goes on as a child of the monitor, which has been told of it before it does anything; the caller ends.
pub(super) fn replace(link: &OwnedFd) -> Result<(), Failure> {
    let what = || "clone the process".to_owned();
    let (told, telling) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC).during(what)?;
    match clone::fork(libc::CLONE_PARENT, None).during(what)? {
        Cloned::Parent { pid, pidfd } => {
            link::send(link, &FromStage::Process { pid }, Some(pidfd.as_fd()))
                .during(|| "report the process".into())?;
            // If it fails, the process is gone, and the monitor will notice.
            rustix::io::write(&telling, &[1]).ok();
            clone::exit(0)
        }
        Cloned::Child => {
            drop(telling);
            // A stage that was killed has told nobody; the process would run without a deadline.
            match retry_on_intr(|| rustix::io::read(&told, &mut [0; 1])) {
                Ok(1) => entrance::die_with_monitor(link),
                _ => clone::exit(1),
            }
        }
    }
}
