//! Containers whose processes another OCI runtime makes: what differs from those of our own stages.
//!
//! The driver is no process of the container's. It lives in the monitor's cgroup and namespaces, and what the
//! runtime leaves behind takes over its role ([`crate::native::drive_container`]). When the runtime says that
//! the command was started, that command may have ended long ago: its end waits for the end of the link.
//!
//! A runtime with sandboxes leaves behind what serves the pod: it is within the pod's limits from the start, its
//! drivers too, in the cgroup of the container that they work for.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use super::Monitor;
use super::child::{Birthplace, Role, Work};
use super::container::{Phase, stage_fds};
use super::poll::Key;
use crate::native::{self, Stage};
use crate::{Executor, Failure};

impl Monitor {
    pub(super) fn is_external(&self, container: Key) -> bool {
        self.containers.get(container).is_some_and(|container| container.executor != Executor::Native)
    }

    /// Clones the driver that has the container made.
    pub(super) fn clone_driver(&mut self, key: Key, stage: Stage) -> io::Result<()> {
        let child = self.clone_into_place(key, Role::Init(key), stage, native::drive_container)?;
        let pid = self.children.get(child).map_or(0, |child| child.pid);
        self.init_is(key, child, pid);
        Ok(())
    }

    /// Clones the driver that has a command executed.
    pub(super) fn clone_exec_driver(&mut self, container: Key, exec: Key, stage: Stage) -> io::Result<Key> {
        self.clone_into_place(container, Role::Exec(exec), stage, native::drive_exec)
    }

    fn clone_into_place(
        &mut self,
        container: Key,
        role: Role,
        stage: Stage,
        run: fn(Stage) -> !,
    ) -> io::Result<Key> {
        let driven = self.containers.get(container).filter(|it| it.executor != Executor::External);
        let unified = driven.and_then(|it| it.cgroup.unified.as_ref()).map(OwnedFd::try_clone).transpose()?;
        let v1_tasks = if driven.is_some() { stage.v1_tasks } else { Vec::new() };
        let enclosure = match driven.map(|it| it.executor) {
            Some(Executor::Enclosed) => Some(self.enclosure().map_err(io::Error::other)?),
            _ => None,
        };
        let stage = Stage { v1_tasks, enclosure, pod: None, pid_namespace: None, ..stage };
        let cgroup = unified.as_ref().map(AsFd::as_fd);
        let birthplace = Birthplace { cgroup, ..Birthplace::default() };
        self.clone_child(role, &birthplace, Work { fds: stage_fds(&stage), with: stage, run })
    }

    /// Whether the end of this init is taken in only when its driver has said how the start went.
    pub(super) fn is_end_early(&self, container: Key) -> bool {
        self.is_external(container)
            && self.containers.get(container).is_some_and(|container| {
                matches!(container.phase, Phase::Starting { .. }) && container.link.is_some()
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
