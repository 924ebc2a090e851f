//! Stopping containers: a signal, a deadline, and then all that is in the cgroup.

use std::io;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags};

use super::Monitor;
use super::connection::Ticket;
use super::container::{Container, Phase};
use super::family;
use super::poll::Key;
use super::wire::{Answer, Refusal};
use crate::cgroup::Handles;

/// How long after a kill the next one follows, for those that were born in between.
const REPEAT: Duration = Duration::from_secs(1);

/// A container on its way out.
#[derive(Debug)]
pub(super) struct Stop {
    /// When all of it is killed, and killed again.
    deadline: Instant,
    /// Who waits for its exit.
    pub(super) waiting: Vec<Ticket>,
}

impl Container {
    /// The next moment at which something is to be done about it.
    pub(super) fn deadline(&self) -> Option<Instant> {
        match self.phase {
            Phase::Ending { deadline, .. } => Some(deadline),
            Phase::Exited(_) => None,
            _ => self.stop.as_ref().map(|stop| stop.deadline),
        }
    }
}

impl Monitor {
    /// Signals a container and has it killed at the deadline; the answer comes with its exit.
    ///
    /// Of several deadlines the first holds.
    pub(super) fn stop(
        &mut self,
        ticket: Ticket,
        id: &str,
        signal: i32,
        deadline: Instant,
    ) -> Result<(), Refusal> {
        let key = self.find(id)?;
        let Some(container) = self.containers.get_mut(key) else { return Err(Refusal::NoContainer) };
        if let Phase::Exited(exit) = container.phase {
            self.answer(ticket, Ok(Answer::Exited(exit)));
            return Ok(());
        }
        let now = Instant::now();
        if let Phase::Ending { .. } = container.phase {
            // Its exit is on its way, after its output.
            container
                .stop
                .get_or_insert_with(|| Stop { deadline: now, waiting: Vec::new() })
                .waiting
                .push(ticket);
            return Ok(());
        }
        // A stage has nothing to clean up and does not know the command's signals.
        let is_running = matches!(container.phase, Phase::Running);
        let deadline = if is_running { deadline } else { now };
        let stop = container.stop.get_or_insert_with(|| Stop { deadline, waiting: Vec::new() });
        stop.deadline = stop.deadline.min(deadline);
        stop.waiting.push(ticket);
        if deadline <= now {
            self.container_deadline(key, now);
        } else if let Err(error) = self.signal_init(key, signal) {
            // The deadline holds, so nothing is refused.
            self.warn(format!("send signal {signal} to container {id}: {error}"));
        }
        Ok(())
    }

    /// The time of the container's stop, or of its last output, is over.
    pub(super) fn container_deadline(&mut self, key: Key, now: Instant) {
        let Some(container) = self.containers.get_mut(key) else { return };
        match container.phase {
            Phase::Ending { .. } => self.finish(key),
            Phase::Exited(_) => {}
            _ => {
                if let Some(stop) = container.stop.as_mut().filter(|stop| stop.deadline <= now) {
                    stop.deadline = now + REPEAT;
                }
                self.kill_container(key);
            }
        }
    }

    /// Kills all that is in the container.
    pub(super) fn kill_container(&mut self, key: Key) {
        if self.kill_enclosed(key) {
            return;
        }
        let Some(container) = self.containers.get(key) else { return };
        let cgroup = kill_cgroup(&container.cgroup);
        let init = self.kill_child(container.init, libc::SIGKILL);
        if let Err(error) = cgroup.and(init) {
            let text = format!("kill container {}: {error}", container.id);
            self.warn(text);
        }
    }
}

/// Kills every process in a cgroup and below it; at once where the kernel can.
pub(super) fn kill_cgroup(cgroup: &Handles) -> io::Result<()> {
    let at_once = cgroup.unified.as_ref().map(|dir| {
        let flags = OFlags::WRONLY | OFlags::CLOEXEC;
        let file = rustix::fs::openat(dir.as_fd(), "cgroup.kill", flags, Mode::empty())?;
        rustix::io::write(file, b"1")
    });
    match at_once {
        Some(Ok(_)) => Ok(()),
        // Older than 5.14, or only v1.
        Some(Err(_)) | None => family::kill_all(cgroup),
    }
}
