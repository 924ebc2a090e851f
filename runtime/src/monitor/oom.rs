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

    /// As far as it can be known.
    fn latest(&mut self) -> u64 {
        self.look().unwrap_or(self.count)
    }
}

impl PodKills {
    /// What nobody is known to have lost; none when the pod's cgroup does not count, or is gone.
    fn left(&mut self, others: u64) -> Option<u64> {
        let all = self.all.as_mut().and_then(Kills::look)?;
        Some(all.saturating_sub(others.saturating_add(self.forgotten)))
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
        let mut others = 0;
        for (other, container) in self.containers.iter_mut() {
            if other != key
                && let Some(kills) = &mut container.kills
            {
                others += kills.latest();
            }
        }
        let is_killed = code == 128 + Signal::KILL.as_raw();
        let left = self.kills.left(others).filter(|left| is_killed && *left > 0);
        if let (Some(left), Some(container)) = (left, self.containers.get_mut(key))
            && let Some(kills) = &mut container.kills
        {
            kills.count = left;
        }
        known > 0 || left.is_some()
    }

    /// What a container lost that is forgotten now is still in the pod's count.
    pub(super) fn forget_kills(&mut self, kills: Option<Kills>) {
        if let Some(mut kills) = kills {
            self.kills.forgotten += kills.latest();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    fn count(file: &Path, kills: u64) {
        fs::write(file, format!("low 0\noom 7\noom_kill {kills}\n")).unwrap();
    }

    fn kills(file: &Path) -> Option<Kills> {
        Kills::of(fs::File::open(file).unwrap().into())
    }

    /// What the kernel answers for a cgroup that is gone is as little a number as this.
    fn remove(file: &Path) {
        fs::write(file, "").unwrap();
    }

    #[test]
    fn a_cgroup_that_is_gone_has_what_was_last_seen() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("memory.events");
        count(&file, 3);
        let mut kills = kills(&file).unwrap();
        assert_eq!(kills.look(), Some(0), "what was there before is not the container's");
        count(&file, 5);
        assert_eq!(kills.latest(), 2);
        remove(&file);
        assert_eq!(kills.look(), None);
        assert_eq!(kills.latest(), 2);
    }

    #[test]
    fn the_pod_tells_what_is_left_of_its_count() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("memory.events");
        count(&file, 1);
        let mut pod = PodKills { all: kills(&file), forgotten: 0 };
        assert_eq!(pod.left(0), Some(0));
        count(&file, 4);
        assert_eq!(pod.left(2), Some(1), "two are another container's");
        pod.forgotten = 1;
        assert_eq!(pod.left(2), Some(0), "and one is of a container that was removed");
        assert_eq!(pod.left(9), Some(0));
        remove(&file);
        assert_eq!(pod.left(0), None);
        assert_eq!(PodKills::default().left(0), None);
    }
}
