//! Containers within the enclosure of a runtime with sandboxes: no process of the host's is theirs alone, so that
//! signals go by the runtime's program, and what stands for the container here is the driver that waits for it.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use super::Monitor;
use super::child::{Birthplace, Role, Work};
use super::container::Phase;
use super::poll::Key;
use crate::native::{self, Message};
use crate::{Executor, Failure};

/// How long an enclosure may take to kill what is in it, before the container is given up.
const PATIENCE: Duration = Duration::from_secs(10);

/// What is kept of an enclosed container.
#[derive(Debug)]
pub(super) struct Enclosed {
    /// Its plan, which says how the runtime is told of it.
    plan: OwnedFd,
    /// When it was killed first.
    killed: Option<Instant>,
}

impl Enclosed {
    /// Of a container that is enclosed; none of another.
    pub(super) fn of(executor: Executor, plan: &OwnedFd) -> io::Result<Option<Self>> {
        let keep = |plan: &OwnedFd| Ok(Self { plan: plan.try_clone()?, killed: None });
        (executor == Executor::Enclosed).then(|| keep(plan)).transpose()
    }
}

impl Monitor {
    /// Sends a signal to a container's init; one that is gone is fine.
    pub(super) fn signal_init(&mut self, key: Key, number: i32) -> io::Result<()> {
        let Some(container) = self.containers.get(key) else { return Ok(()) };
        match &container.enclosed {
            Some(_) if matches!(container.phase, Phase::Running) => self.send_message(key, number, None),
            _ => self.kill_child(container.init, number),
        }
    }

    /// Has the runtime kill an enclosed container, and the monitor wait; false where there is no such hope.
    pub(super) fn kill_enclosed(&mut self, key: Key) -> bool {
        let (is_ending, now) = (self.ending.is_some(), Instant::now());
        let Some(container) = self.containers.get_mut(key) else { return false };
        let is_running = matches!(container.phase, Phase::Running);
        let Some(enclosed) = container.enclosed.as_mut().filter(|_| is_running && !is_ending) else {
            return false;
        };
        let since = *enclosed.killed.get_or_insert(now);
        if now.duration_since(since) >= PATIENCE {
            return false;
        }
        match self.send_message(key, libc::SIGKILL, None) {
            Ok(()) => true,
            Err(error) => {
                self.warn(format!("clone who kills an enclosed container: {error}"));
                false
            }
        }
    }

    /// Has the runtime kill the command of an exec in an enclosed container, which the host's signals do not reach.
    pub(super) fn kill_enclosed_exec(&mut self, container: Key, pid: i32) {
        if self.containers.get(container).is_some_and(|container| container.enclosed.is_some())
            && let Err(error) = self.send_message(container, libc::SIGKILL, Some(pid))
        {
            self.warn(format!("clone who kills an enclosed command: {error}"));
        }
    }

    /// A signal was delivered, or not.
    pub(super) fn message_ended(&mut self, key: Key, code: i32) {
        let is_running =
            |key| self.containers.get(key).is_some_and(|container| matches!(container.phase, Phase::Running));
        if code != 0 && is_running(key) && self.ending.is_none() {
            let id = self.containers.get(key).map(|container| container.id.clone()).unwrap_or_default();
            self.warn(format!("the runtime does not signal container {id}"));
        }
    }

    /// The pod ends with its enclosure.
    pub(super) fn enclosure_ended(&mut self, key: Key) {
        let is_enclosure =
            self.containers.get(key).is_some_and(|container| container.executor == Executor::Enclosure);
        if is_enclosure && self.ending.is_none() {
            self.warn("the enclosure of the pod's containers ended".to_owned());
            self.begin_end(None);
        }
    }

    /// The process of the pod's enclosure.
    pub(super) fn enclosure(&self) -> Result<i32, Failure> {
        let found = self.containers.iter().find(|(_, container)| {
            container.executor == Executor::Enclosure && matches!(container.phase, Phase::Running)
        });
        let missing = || Failure::setup("the pod's enclosure does not run", 0);
        found.map(|(_, container)| container.pid).ok_or_else(missing)
    }

    fn send_message(&mut self, key: Key, signal: i32, exec: Option<i32>) -> io::Result<()> {
        let Some(enclosed) = self.containers.get(key).and_then(|container| container.enclosed.as_ref())
        else {
            return Ok(());
        };
        let message = Message { plan: enclosed.plan.try_clone()?, signal, exec };
        let fds = vec![message.plan.as_raw_fd()];
        let work = Work { run: native::drive_signal, with: message, fds };
        self.clone_child(Role::Message(key), &Birthplace::default(), work).map(drop)
    }
}
