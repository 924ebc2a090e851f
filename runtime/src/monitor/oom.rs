//! Which containers lost processes to the OOM killer.
//!
//! A container's own `memory.events` says it. systemd removes a scope as soon as it is empty, maybe before that file
//! is read. Then the pod's decides, which counts what is below it (cgroup-v2.rst): what the other containers lost is
//! taken off, and the killed command must have ended by SIGKILL.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::process::Signal;

use super::Monitor;
use super::poll::Key;
use crate::cgroup::{self, Handles};

/// The count of a cgroup, from its first look on.
#[derive(Debug)]
pub(super) struct Kills {
    file: OwnedFd,
    before: u64,
    /// As far as they are known.
    count: u64,
}

/// What the pod's cgroup counted.
#[derive(Debug, Default)]
pub(super) struct PodKills {
    all: Option<Kills>,
    /// Those of containers that are forgotten.
    forgotten: u64,
}

impl Kills {
    /// Begins to count; none where the host does not.
    pub(super) fn of(file: OwnedFd) -> Option<Self> {
        let before = cgroup::oom_kills(file.as_fd()).ok()?;
        Some(Self { file, before, count: 0 })
    }

    /// None when the cgroup is gone.
    fn look(&mut self) -> Option<u64> {
        let count = cgroup::oom_kills(self.file.as_fd()).ok()?;
        self.count = count.saturating_sub(self.before);
        Some(self.count)
    }
}

impl Monitor {
    /// Begins to count what happens in the pod's cgroup, the one above a container's, if that is not done yet.
    pub(super) fn count_kills_of_the_pod(&mut self, container: &Handles) {
        if self.kills.all.is_some() {
            return;
        }
        let file = container.unified.as_ref().and_then(|directory| {
            let flags = OFlags::RDONLY | OFlags::CLOEXEC;
            rustix::fs::openat(directory, c"../memory.events", flags, Mode::empty()).ok()
        });
        self.kills.all = file.and_then(Kills::of);
    }

    /// Whether the OOM killer was at work in a container that has just ended with this code.
    pub(super) fn was_oom_killed(&mut self, key: Key, code: i32) -> bool {
        let Some(kills) = self.containers.get_mut(key).and_then(|container| container.kills.as_mut()) else {
            return false;
        };
        if let Some(count) = kills.look() {
            return count > 0;
        }
        let known = kills.count;
        let Some(all) = self.kills.all.as_mut().and_then(Kills::look) else { return known > 0 };
        let mut others = self.kills.forgotten;
        for (other, container) in self.containers.iter_mut() {
            if other != key
                && let Some(kills) = &mut container.kills
            {
                others += kills.look().unwrap_or(kills.count);
            }
        }
        let left = all.saturating_sub(others);
        let is_killed = code == 128 + Signal::KILL.as_raw() && left > 0;
        if let Some(kills) = self.containers.get_mut(key).and_then(|container| container.kills.as_mut())
            && is_killed
        {
            kills.count = left;
        }
        is_killed || known > 0
    }

    /// What a container lost that is forgotten now is still in the pod's count.
    pub(super) fn forget_kills(&mut self, kills: Option<Kills>) {
        if let Some(mut kills) = kills {
            self.kills.forgotten += kills.look().unwrap_or(kills.count);
        }
    }
}
