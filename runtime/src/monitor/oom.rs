//! Which containers lost processes to the OOM killer.
//!
//! A container's own `memory.events` says it, and is read whenever it changes. systemd removes a scope as soon as it
//! is empty, maybe before the last change is read. Then the pod's decides, which counts what is below it
//! (cgroup-v2.rst): what is there and was seen in no container was lost by the one that has just ended, if anything
//! has ever happened in its own. Who waits for a change of that file is woken by the kernel's OOM killer itself, and
//! so before the container's end, even though the file may be gone when it looks.
//!
//! Other pods may be in the same slice when nobody gave them one of their own. Where one of theirs may have lost what
//! is in question, the command must have ended by SIGKILL besides.

use std::collections::VecDeque;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::fs::{Dir, FileType, Mode, OFlags};
use rustix::process::Signal;

use super::Monitor;
use super::container::Phase;
use super::poll::{Interest, Key, Source};
use crate::cgroup::{self, Handles, MemoryEvents};

/// How often the pod's count is compared with those of the containers while these go on changing.
const COMPARISONS: usize = 8;

/// How many containers that are forgotten are still told from those of other pods.
const GONE: usize = 16;

/// The count of a cgroup, from its first look on.
#[derive(Debug)]
pub(super) struct Kills {
    file: OwnedFd,
    before: MemoryEvents,
    /// As far as they are known.
    count: u64,
    /// Whether anything was ever counted, be it less than a kill, or nothing would tell of it.
    is_stirred: bool,
}

/// What the pod's cgroup counted.
#[derive(Debug, Default)]
pub(super) struct PodKills {
    parent: Option<Parent>,
    /// Those of containers that are forgotten.
    forgotten: u64,
    /// The last of these, whose cgroups may still be there for a moment.
    gone: VecDeque<String>,
}

/// The cgroup above the containers'.
#[derive(Debug)]
struct Parent {
    kills: Kills,
    dir: OwnedFd,
    /// What the containers had lost before it was counted.
    base: u64,
    /// Containers in it that were not known as the pod's.
    strangers: Vec<String>,
    /// Whether containers of other pods were in it, or anybody's may be.
    is_shared: bool,
}

/// Who else may have lost what is unexplained.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Others {
    /// Nobody.
    Innocent,
    /// Containers of the pod that are about to be found ended.
    Gone,
    /// Other pods.
    Strangers,
}

// === impl Kills ===

impl Kills {
    /// Begins to count; none where the host does not.
    pub(super) fn of(file: OwnedFd) -> Option<Self> {
        let before = MemoryEvents::read(file.as_fd()).ok()?;
        Some(Self { file, before, count: 0, is_stirred: true })
    }

    /// None when the cgroup is gone.
    fn look(&mut self) -> Option<u64> {
        let events = MemoryEvents::read(self.file.as_fd()).ok()?;
        // Of what is read now the kernel does not wake anybody any more.
        self.is_stirred |= events.sum != self.before.sum;
        self.count = events.oom_kills.saturating_sub(self.before.oom_kills);
        Some(self.count)
    }

    /// As far as it can be known.
    fn latest(&mut self) -> u64 {
        self.look().unwrap_or(self.count)
    }
}

// === impl Parent ===

impl Parent {
    /// Begins to count above this cgroup; none where nothing is counted.
    fn of(cgroup: &OwnedFd, base: u64) -> Option<Self> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let dir = rustix::fs::openat(cgroup, c"..", flags | OFlags::DIRECTORY, Mode::empty()).ok()?;
        let file = rustix::fs::openat(&dir, c"memory.events", flags, Mode::empty()).ok()?;
        let place = rustix::fs::readlink(format!("/proc/self/fd/{}", dir.as_raw_fd()), Vec::new());
        let is_shared = place.is_ok_and(|place| place.to_bytes().ends_with(cgroup::OWN_SLICE.as_bytes()));
        Some(Self { kills: Kills::of(file)?, dir, base, strangers: Vec::new(), is_shared })
    }

    /// What none of the containers is known to have lost; none when the cgroup is gone.
    fn unexplained(&mut self, mut known: impl FnMut() -> u64) -> Option<u64> {
        let mut before = known();
        let mut left = 0;
        for _ in 0..COMPARISONS {
            let all = self.kills.look()?;
            let after = known();
            left = all.saturating_sub(after.saturating_sub(self.base));
            if after == before {
                break;
            }
            // What was lost meanwhile may be in one of the numbers and not in the other.
            before = after;
        }
        Some(left)
    }

    /// Whether containers of other pods than the one that has these may have lost something here.
    ///
    /// One that is not known may be of this pod too, and is just being made: then it has lost nothing yet.
    fn has_suspects(&mut self, containers: &[&str]) -> bool {
        let is_ours = |name: &str| containers.iter().any(|id| name.contains(id));
        let entries = Dir::read_from(&self.dir).into_iter().flatten().filter_map(Result::ok);
        let directories = entries.filter(|entry| entry.file_type() == FileType::Directory);
        let names = directories.map(|entry| entry.file_name().to_string_lossy().into_owned());
        let there: Vec<String> = names.filter(|name| name != "." && name != ".." && !is_ours(name)).collect();
        // What those lost that are gone nobody can tell.
        self.is_shared |= self.strangers.iter().any(|name| !is_ours(name) && !there.contains(name));
        self.strangers = there;
        self.is_shared || self.strangers.iter().any(|name| self.has_lost(name))
    }

    fn has_lost(&self, child: &str) -> bool {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&self.dir, format!("{child}/memory.events"), flags, Mode::empty());
        let events = file.map_err(Into::into).and_then(|file| MemoryEvents::read(file.as_fd()));
        events.is_ok_and(|events| events.oom_kills > 0)
    }
}

impl Monitor {
    /// Reads a new container's count when it changes, from here on.
    pub(super) fn watch_kills(&mut self, key: Key) {
        let Some(container) = self.containers.get_mut(key) else { return };
        if let Some(parent) = &mut self.kills.parent {
            parent.strangers.retain(|name| !name.contains(&container.id));
        }
        if let Some(kills) = &mut container.kills {
            let watched = self.poll.add_for(&kills.file, Source::Kills(key), Interest::Priority);
            kills.is_stirred = watched.is_err();
        }
    }

    /// A container's count has changed, or its cgroup is gone.
    pub(super) fn count_kills(&mut self, key: Key) {
        let Some(kills) = self.containers.get_mut(key).and_then(|container| container.kills.as_mut()) else {
            return;
        };
        kills.is_stirred = true;
        // A cgroup that is gone would be reported for ever.
        if kills.look().is_none() {
            self.poll.remove(&kills.file);
        }
    }

    /// Begins to count what happens in the pod's cgroup, the one above a container's, if that is not done yet.
    pub(super) fn count_kills_of_the_pod(&mut self, container: &Handles) {
        if self.kills.parent.as_mut().is_some_and(|parent| parent.kills.look().is_some()) {
            return;
        }
        let base = self.known_kills();
        self.kills.parent = container.unified.as_ref().and_then(|cgroup| Parent::of(cgroup, base));
    }

    /// Whether the OOM killer was at work in a container that has just ended with this code.
    pub(super) fn was_oom_killed(&mut self, key: Key, code: i32) -> bool {
        // In this order: who is gone only now was counted just before.
        let unexplained = self.unexplained_kills();
        let has_others = self.has_other_suspects(key);
        let others = match unexplained > 0 && self.has_strangers() {
            true => Others::Strangers,
            false if has_others => Others::Gone,
            false => Others::Innocent,
        };
        let Some(kills) = self.containers.get_mut(key).and_then(|container| container.kills.as_mut()) else {
            return false;
        };
        let is_gone = kills.look().is_none();
        let is_killed = code == 128 + Signal::KILL.as_raw();
        let own = if is_gone && kills.is_stirred { own_part(unexplained, others, is_killed) } else { 0 };
        kills.count += own;
        let was_killed = kills.count > 0;
        if !has_others {
            // Nobody is left who will turn out to have lost the rest.
            self.kills.forgotten += unexplained - own;
        }
        was_killed
    }

    /// What a container lost that is forgotten now is still in the pod's count.
    pub(super) fn forget_kills(&mut self, id: String, kills: Option<Kills>) {
        if let Some(mut kills) = kills {
            self.poll.remove(&kills.file);
            self.kills.forgotten += kills.latest();
        }
        self.kills.gone.push_back(id);
        if self.kills.gone.len() > GONE {
            self.kills.gone.pop_front();
        }
    }

    /// Kills that were seen in no container's count.
    fn unexplained_kills(&mut self) -> u64 {
        let Some(mut parent) = self.kills.parent.take() else { return 0 };
        let unexplained = parent.unexplained(|| self.known_kills());
        self.kills.parent = Some(parent);
        unexplained.unwrap_or(0)
    }

    fn known_kills(&mut self) -> u64 {
        let kills = self.containers.iter_mut().filter_map(|(_, container)| container.kills.as_mut());
        kills.map(Kills::latest).sum::<u64>() + self.kills.forgotten
    }

    /// Whether other containers than this one may have lost what is unexplained, and will be asked when they end.
    fn has_other_suspects(&mut self, key: Key) -> bool {
        let has_ended = |phase| matches!(phase, Phase::Ending { .. } | Phase::Exited(_));
        let mut others = self.containers.iter_mut().filter(|(other, _)| *other != key);
        others.any(|(_, container)| {
            !has_ended(container.phase)
                && container.kills.as_mut().is_some_and(|kills| kills.look().is_none())
        })
    }

    fn has_strangers(&mut self) -> bool {
        let PodKills { parent, gone, .. } = &mut self.kills;
        let ids = self.containers.iter().map(|(_, container)| container.id.as_str());
        let ids: Vec<&str> = ids.chain(gone.iter().map(String::as_str)).collect();
        parent.as_mut().is_some_and(|parent| parent.has_suspects(&ids))
    }
}

/// How much of what is unexplained a container lost whose own count was not read in time.
fn own_part(unexplained: u64, others: Others, is_killed: bool) -> u64 {
    match others {
        Others::Innocent => unexplained,
        Others::Strangers if !is_killed => 0,
        Others::Gone | Others::Strangers => unexplained.min(1),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::{Path, PathBuf};

    use super::*;

    /// A pod's cgroup with those of containers, as far as the counts go.
    struct Hierarchy(tempfile::TempDir);

    impl Hierarchy {
        fn new(containers: &[&str]) -> Self {
            let pod = Self(tempfile::tempdir().unwrap());
            count(&pod.file(""), 0);
            for name in containers {
                fs::create_dir(pod.0.path().join(name)).unwrap();
                count(&pod.file(name), 0);
            }
            pod
        }

        fn file(&self, name: &str) -> PathBuf {
            self.0.path().join(name).join("memory.events")
        }

        fn parent(&self, child: &str, base: u64) -> Option<Parent> {
            Parent::of(&fs::File::open(self.0.path().join(child)).unwrap().into(), base)
        }
    }

    fn count(file: &Path, kills: u64) {
        fs::write(file, format!("low 0\noom 7\noom_kill {kills}\n")).unwrap();
    }

    fn kills(file: &Path) -> Kills {
        Kills::of(fs::File::open(file).unwrap().into()).unwrap()
    }

    /// What the kernel answers for a cgroup that is gone is as little a number as this.
    fn remove(file: &Path) {
        fs::write(file, "").unwrap();
    }

    #[test]
    fn a_cgroup_that_is_gone_has_what_was_last_seen() {
        let pod = Hierarchy::new(&["a"]);
        count(&pod.file("a"), 3);
        let mut kills = kills(&pod.file("a"));
        assert_eq!(kills.look(), Some(0), "what was there before is not the container's");
        count(&pod.file("a"), 5);
        assert_eq!(kills.latest(), 2);
        remove(&pod.file("a"));
        assert_eq!(kills.look(), None);
        assert_eq!(kills.latest(), 2);
    }

    #[test]
    fn what_a_look_sees_nobody_else_is_told() {
        let pod = Hierarchy::new(&["a"]);
        let mut kills = kills(&pod.file("a"));
        kills.is_stirred = false;
        assert_eq!((kills.look(), kills.is_stirred), (Some(0), false));
        // The limit was met, and the process is about to be killed for it.
        fs::write(pod.file("a"), "low 0\nmax 1\noom 7\noom_kill 0\n").unwrap();
        assert_eq!((kills.look(), kills.is_stirred), (Some(0), true));
        remove(&pod.file("a"));
        assert_eq!((kills.look(), kills.is_stirred), (None, true));
    }

    #[test]
    fn the_pod_tells_what_is_left_of_its_count() {
        let pod = Hierarchy::new(&["a"]);
        count(&pod.file(""), 1);
        let mut parent = pod.parent("a", 0).unwrap();
        assert_eq!(parent.unexplained(|| 0), Some(0), "what was there before is nobody's");
        count(&pod.file(""), 4);
        assert_eq!(parent.unexplained(|| 2), Some(1), "two are another container's");
        assert_eq!(parent.unexplained(|| 9), Some(0));
        remove(&pod.file(""));
        assert_eq!(parent.unexplained(|| 0), None);
        assert!(pod.parent("a", 0).is_none(), "nothing is counted");
    }

    #[test]
    fn a_pod_that_is_counted_anew_does_not_know_what_was_lost_before() {
        let pod = Hierarchy::new(&["a"]);
        let mut parent = pod.parent("a", 5).unwrap();
        count(&pod.file(""), 1);
        assert_eq!(parent.unexplained(|| 5), Some(1));
        assert_eq!(parent.unexplained(|| 6), Some(0));
    }

    #[test]
    fn what_another_container_loses_meanwhile_is_not_left() {
        let pod = Hierarchy::new(&["a", "b"]);
        let (mut other, mut looks) = (kills(&pod.file("b")), 0);
        let mut parent = pod.parent("a", 0).unwrap();
        let unexplained = parent.unexplained(|| {
            looks += 1;
            if looks == 2 {
                // Between the look at the pod's count and this one.
                count(&pod.file("b"), 1);
                count(&pod.file(""), 2);
            }
            other.latest()
        });
        assert_eq!((unexplained, looks), (Some(1), 3));
    }

    #[test]
    fn what_others_may_have_lost_is_left_to_them() {
        for (unexplained, others, is_killed, part) in [
            (0, Others::Innocent, true, 0),
            (3, Others::Innocent, false, 3),
            (3, Others::Gone, false, 1),
            (0, Others::Gone, true, 0),
            (3, Others::Strangers, true, 1),
            (3, Others::Strangers, false, 0),
        ] {
            assert_eq!(
                own_part(unexplained, others, is_killed),
                part,
                "{unexplained} {others:?} {is_killed}"
            );
        }
    }

    #[test]
    fn strangers_that_lost_something_or_are_gone_are_suspects() {
        let pod = Hierarchy::new(&["corten-aa.scope", "corten-bb.scope"]);
        let mut parent = pod.parent("corten-aa.scope", 0).unwrap();
        assert!(!parent.has_suspects(&["aa", "bb"]));
        fs::create_dir(pod.0.path().join("corten-cc.scope")).unwrap();
        count(&pod.file("corten-cc.scope"), 0);
        assert!(!parent.has_suspects(&["aa", "bb"]), "it may be the pod's, and just be made");
        assert!(!parent.has_suspects(&["aa", "bb", "cc"]));
        count(&pod.file("corten-cc.scope"), 1);
        assert!(!parent.has_suspects(&["aa", "bb", "cc"]), "it is the pod's");
        assert!(parent.has_suspects(&["aa", "bb"]));
        fs::remove_dir_all(pod.0.path().join("corten-cc.scope")).unwrap();
        assert!(!parent.has_suspects(&["aa", "bb", "cc"]));
        fs::create_dir(pod.0.path().join("corten-dd.scope")).unwrap();
        assert!(!parent.has_suspects(&["aa", "bb"]));
        fs::remove_dir_all(pod.0.path().join("corten-dd.scope")).unwrap();
        assert!(parent.has_suspects(&["aa", "bb"]), "nobody can tell what it lost");
        assert!(parent.has_suspects(&["aa", "bb"]), "for ever");
    }

    #[test]
    fn the_slice_of_pods_without_one_is_shared() {
        let pod = Hierarchy::new(&[cgroup::OWN_SLICE]);
        let scope = format!("{}/corten-aa.scope", cgroup::OWN_SLICE);
        fs::create_dir(pod.0.path().join(&scope)).unwrap();
        assert!(pod.parent(&scope, 0).unwrap().has_suspects(&["aa"]));
    }
}
