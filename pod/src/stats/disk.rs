//! What writable layers take: measured behind the scenes, never while somebody waits.
//!
//! One task walks the layers one after the other, each from a descriptor and without following links. As long
//! as anybody asks for statistics, a figure is at most ten seconds old, plus what walking takes; a layer that
//! takes long is walked for a twentieth of the time at most. When nobody asks for five minutes the task sleeps,
//! and the next one who asks gets figures of then. Each figure says when it was measured. A layer that was
//! just made is known to be empty.

use std::collections::HashSet;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, StatxFlags, openat, statx};
use rustix::io::Errno;
use tokio::sync::Notify;

use crate::container::Container;
use crate::node::{Node, blocking, now_ns};
use crate::record::ContainerPhase;
use crate::status::DiskUsage;

/// Between two walks of a layer.
const INTERVAL: Duration = Duration::from_secs(10);
/// A layer rests this many times as long as its walk took.
const REST: u32 = 19;
/// How often the walker looks for layers whose time has come.
const TICK: Duration = Duration::from_secs(1);
/// After so long without a question nothing is walked.
const ATTENTION: Duration = Duration::from_secs(300);
/// What lies deeper is not counted: each level takes a descriptor.
const MAX_DEPTH: usize = 128;

/// What is known of one container's writable layer.
#[derive(Debug, Default)]
pub(crate) struct Layer {
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    usage: Option<DiskUsage>,
    /// When it is walked next; none: at once.
    due: Option<Instant>,
    /// Whether it was walked after the container's end.
    is_final: bool,
}

/// Wakes the task that walks.
#[derive(Debug)]
pub(crate) struct Walker {
    /// When somebody asked last.
    asked: Mutex<Instant>,
    wake: Notify,
}

// === impl Layer ===

impl Layer {
    /// The last figure.
    pub(crate) fn usage(&self) -> Option<DiskUsage> {
        self.lock().usage.clone()
    }

    /// Takes in a layer that was made this moment.
    pub(crate) fn begin(&self, upper: &Path, mountpoint: &Path) {
        let Ok(metadata) = upper.symlink_metadata() else { return };
        let mut known = self.lock();
        known.usage = Some(DiskUsage {
            mountpoint: mountpoint.to_owned(),
            timestamp_ns: now_ns(),
            used_bytes: metadata.blocks() * 512,
            inodes_used: 1,
        });
    }

    fn is_due(&self, phase: &ContainerPhase) -> bool {
        let known = self.lock();
        match phase {
            ContainerPhase::Running => known.due.is_none_or(|due| due <= Instant::now()),
            ContainerPhase::Exited(_) => !known.is_final,
            ContainerPhase::Creating | ContainerPhase::Created => false,
        }
    }

    fn take_in(&self, usage: Option<DiskUsage>, took: Duration, ended: bool) {
        let mut known = self.lock();
        known.due = Some(Instant::now() + INTERVAL.max(took * REST));
        known.is_final = ended;
        if usage.is_some() {
            known.usage = usage;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Walker ===

impl Walker {
    pub(crate) fn new() -> Self {
        Self { asked: Mutex::new(Instant::now()), wake: Notify::new() }
    }

    /// Somebody wants figures.
    pub(crate) fn ask(&self) {
        *self.asked.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        self.wake.notify_one();
    }

    fn is_asked(&self) -> bool {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).elapsed() < ATTENTION
    }

    /// Waits until somebody wants figures.
    async fn asked(&self) {
        while !self.is_asked() {
            self.wake.notified().await;
        }
    }
}

impl Node {
    /// Walks the writable layers from now on, for as long as the daemon lives.
    pub(crate) fn keep_measuring(self: &Arc<Self>) {
        let node = self.clone();
        tokio::spawn(async move {
            loop {
                node.walker.asked().await;
                for container in node.table.containers() {
                    node.walk(container).await;
                }
                tokio::time::sleep(TICK).await;
            }
        });
    }

    async fn walk(self: &Arc<Self>, container: Arc<Container>) {
        let phase = container.phase();
        if !container.layer.is_due(&phase) {
            return;
        }
        let node = self.clone();
        let walked = blocking(move || {
            let began = Instant::now();
            let upper = node.container_dir(&container.id).join("upper");
            let usage = measure(&upper, &node.mountpoint);
            container.layer.take_in(usage.ok(), began.elapsed(), matches!(phase, ContainerPhase::Exited(_)));
            Ok(())
        });
        if let Err(error) = walked.await {
            tracing::warn!(error = crate::error::chain(&error), "measure a writable layer");
        }
    }
}

/// Counts a tree with its root; what goes away meanwhile is left out, what has several names counts once.
fn measure(upper: &Path, mountpoint: &Path) -> Result<DiskUsage, Errno> {
    let root = openat(rustix::fs::CWD, upper, DIRECTORY, Mode::empty())?;
    let metadata = File::from(root.try_clone().map_err(|_| Errno::MFILE)?).metadata();
    let mut sum =
        Sum { blocks: metadata.map_or(0, |metadata| metadata.blocks()), inodes: 1, ..Sum::default() };
    sum.walk(root)?;
    Ok(DiskUsage {
        mountpoint: mountpoint.to_owned(),
        timestamp_ns: now_ns(),
        used_bytes: sum.blocks * 512,
        inodes_used: sum.inodes,
    })
}

const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC)
    .union(OFlags::NOATIME);

#[derive(Debug, Default)]
struct Sum {
    blocks: u64,
    inodes: u64,
    /// Inodes with several names.
    linked: HashSet<u64>,
}

impl Sum {
    fn walk(&mut self, root: OwnedFd) -> Result<(), Errno> {
        // Directories whose entries are being read, and their names.
        let mut open = vec![Dir::new(root)?];
        while let Some(directory) = open.last_mut() {
            let Some(entry) = directory.read() else {
                open.pop();
                continue;
            };
            let Ok(entry) = entry else { continue };
            let name = entry.file_name();
            if name == c"." || name == c".." {
                continue;
            }
            let Ok(parent) = directory.fd() else { continue };
            if self.count(parent, name) && open.len() < MAX_DEPTH {
                // As it was counted; if it is something else by now, it is not entered.
                let below = openat(open[open.len() - 1].fd()?, name, DIRECTORY, Mode::empty());
                open.extend(below.and_then(Dir::new).ok());
            }
        }
        Ok(())
    }

    /// Adds an entry, and says whether it is a directory.
    fn count(&mut self, parent: BorrowedFd<'_>, name: &std::ffi::CStr) -> bool {
        let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::STATX_DONT_SYNC;
        let wanted = StatxFlags::TYPE | StatxFlags::BLOCKS | StatxFlags::NLINK | StatxFlags::INO;
        let Ok(found) = statx(parent.as_fd(), name, flags, wanted) else { return false };
        let is_directory = FileType::from_raw_mode(found.stx_mode.into()) == FileType::Directory;
        if is_directory || found.stx_nlink < 2 || self.linked.insert(found.stx_ino) {
            self.blocks += found.stx_blocks;
            self.inodes += 1;
        }
        is_directory
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_tree_is_counted_with_its_root_and_each_file_once() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("a")).unwrap();
        fs::write(dir.path().join("a/file"), vec![1; 10_000]).unwrap();
        fs::hard_link(dir.path().join("a/file"), dir.path().join("a/again")).unwrap();
        let usage = measure(dir.path(), Path::new("/")).unwrap();
        assert_eq!(usage.inodes_used, 3);
        assert!((10_000..40_000).contains(&usage.used_bytes), "{usage:?}");
        assert!(measure(&dir.path().join("none"), Path::new("/")).is_err());
    }

    #[test]
    fn links_lead_nowhere() {
        let dir = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/", dir.path().join("root")).unwrap();
        assert_eq!(measure(dir.path(), Path::new("/")).unwrap().inodes_used, 2);
        assert!(measure(&dir.path().join("root"), Path::new("/")).is_err());
    }

    #[test]
    fn what_is_very_deep_takes_no_more_descriptors() {
        let dir = tempfile::tempdir().unwrap();
        let mut deep = dir.path().to_owned();
        for _ in 0..MAX_DEPTH + 20 {
            deep.push("d");
        }
        fs::create_dir_all(&deep).unwrap();
        assert_eq!(measure(dir.path(), Path::new("/")).unwrap().inodes_used, MAX_DEPTH as u64 + 1);
    }

    #[test]
    fn a_slow_layer_rests_longer_and_an_ended_one_is_walked_once_more() {
        let layer = Layer::default();
        let ended = ContainerPhase::Exited(crate::record::Ending::unknown(1, "the test ends it"));
        assert!(layer.is_due(&ContainerPhase::Running));
        assert!(!layer.is_due(&ContainerPhase::Created));
        layer.take_in(None, Duration::from_secs(3600), false);
        assert!(!layer.is_due(&ContainerPhase::Running));
        assert!(layer.is_due(&ended));
        layer.take_in(None, Duration::ZERO, true);
        assert!(!layer.is_due(&ended));
    }

    #[tokio::test]
    async fn nobody_asks_and_nothing_is_walked() {
        let walker = Walker::new();
        *walker.asked.lock().unwrap() = Instant::now().checked_sub(ATTENTION * 2).unwrap();
        assert!(!walker.is_asked());
        tokio::join!(walker.asked(), async { walker.ask() });
    }
}
