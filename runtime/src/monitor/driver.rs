//! Containers whose processes another OCI runtime makes: what differs from those of our own stages.
//!
//! The driver is no process of the container's. It lives in the monitor's cgroup and namespaces, and what the
//! runtime leaves behind takes over its role ([`crate::native::drive_container`]). When the runtime says that
//! the command was started, that command may have ended long ago: its end waits for the end of the link.

use std::io;

use super::Monitor;
use super::child::{Birthplace, Role, Work};
use super::container::{Phase, stage_fds};
use super::poll::Key;
use crate::native::{self, Stage};
use crate::{Executor, Failure};

impl Monitor {
    pub(super) fn is_external(&self, container: Key) -> bool {
        self.containers.get(container).is_some_and(|container| container.executor == Executor::External)
    }

    /// Clones the driver that has the container made.
    pub(super) fn clone_driver(&mut self, key: Key, stage: Stage) -> io::Result<()> {
        let stage = without_cgroups(stage);
        let work = Work { fds: stage_fds(&stage), with: stage, run: native::drive_container };
        let child = self.clone_child(Role::Init(key), &Birthplace::default(), work)?;
        let pid = self.children.get(child).map_or(0, |child| child.pid);
        self.init_is(key, child, pid);
        Ok(())
    }

    /// Clones the driver that has a command executed.
    pub(super) fn clone_exec_driver(&mut self, key: Key, stage: Stage) -> io::Result<Key> {
        let stage = without_cgroups(stage);
        let work = Work { fds: stage_fds(&stage), with: stage, run: native::drive_exec };
        self.clone_child(Role::Exec(key), &Birthplace::default(), work)
    }

    /// Whether the end of this init is taken in only when its driver has said how the start went.
    pub(super) fn is_end_early(&self, container: Key) -> bool {
        self.containers.get(container).is_some_and(|container| {
            container.executor == Executor::External
                && matches!(container.phase, Phase::Starting { .. })
                && container.link.is_some()
        })
    }

    /// The driver is done, or gone: a container that nobody will start, or whose start failed, is killed, and
    /// an end that was waiting is taken in.
    pub(super) fn driver_ended(&mut self, key: Key) {
        if !self.is_external(key) {
            return;
        }
        let Some(container) = self.containers.get_mut(key) else { return };
        if matches!(container.phase, Phase::Created) {
            container.failure.get_or_insert_with(|| Failure::setup("the container's driver ended", 0));
        }
        let is_lost = matches!(container.phase, Phase::Created | Phase::Starting { .. });
        let init = container.init;
        if is_lost {
            self.kill_container(key);
        }
        if let Some(init) = init {
            self.child_ended(init);
        }
    }
}

/// The runtime moves the container's processes, and the driver itself stays where it is.
fn without_cgroups(stage: Stage) -> Stage {
    Stage { v1_tasks: Vec::new(), pod: None, users: None, pid_namespace: None, ..stage }
}
