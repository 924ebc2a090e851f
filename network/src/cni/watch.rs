//! Follows the directory of configurations by inotify(7), whatever becomes of it.
//!
//! A directory's own watch goes with it, and says nothing of a directory that comes in its place. So every
//! directory on the way is watched too, the ways of symbolic links included, each for the one name that
//! matters there. Any change that matters sets all watches anew: watch first, then look, so that nothing
//! happens unseen in between. Nothing is polled.

use std::collections::{HashMap, HashSet, VecDeque};
use std::ffi::{OsStr, OsString};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::io::Errno;

use super::directory::{self, Listing, Problem};

/// Symbolic links that are followed on one way; the kernel has the same limit.
const LINKS: usize = 40;
const BUFFER_BYTES: usize = 16 << 10;

/// The watches, and what they mean.
#[derive(Debug)]
pub(super) struct Watcher {
    dir: PathBuf,
    inotify: Arc<OwnedFd>,
    watches: HashMap<i32, Names>,
    /// What has been warned about, so that it is not again at each change.
    known: HashSet<Problem>,
}

/// Which names of a watched directory matter.
#[derive(Debug)]
enum Names {
    All,
    These(HashSet<OsString>),
}

// === impl Watcher ===

impl Watcher {
    pub(super) fn new(dir: &Path) -> io::Result<Self> {
        let inotify = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        Ok(Self {
            dir: std::path::absolute(dir)?,
            inotify: Arc::new(inotify),
            watches: HashMap::new(),
            known: HashSet::new(),
        })
    }

    /// What becomes readable when something may have changed.
    pub(super) fn descriptor(&self) -> Arc<OwnedFd> {
        Arc::clone(&self.inotify)
    }

    /// Sets the watches and reads the directory; the second value tells when changes may go unseen from now on.
    pub(super) fn look(&mut self) -> (Listing, io::Result<()>) {
        let mut watches = HashMap::new();
        let mut watched = self.watch_way(&self.dir, &mut watches);
        let mut listing = directory::list(&self.dir);
        if !listing.further.is_empty() {
            for dir in &listing.further {
                watched = watched.and_then(|()| self.watch_way(dir, &mut watches));
            }
            // Their names were not known before the first look.
            listing = directory::list(&self.dir);
        }
        for old in self.watches.keys().filter(|old| !watches.contains_key(old)) {
            // One whose directory is gone has gone by itself.
            let _gone = inotify::remove_watch(&self.inotify, *old);
        }
        self.watches = watches;
        self.warn(&listing);
        (listing, watched)
    }

    /// Takes all events that are there; whether one of them matters.
    pub(super) fn changed(&self) -> io::Result<bool> {
        let mut buffer = [MaybeUninit::uninit(); BUFFER_BYTES];
        let mut reader = inotify::Reader::new(&self.inotify, &mut buffer);
        let mut changed = false;
        loop {
            match reader.next() {
                Ok(event) => {
                    let name = event.file_name().map(|name| OsStr::from_bytes(name.to_bytes()));
                    changed |= self.matters(event.wd(), event.events(), name);
                }
                Err(Errno::AGAIN) => return Ok(changed),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    fn matters(&self, watch: i32, events: ReadFlags, name: Option<&OsStr>) -> bool {
        if events.contains(ReadFlags::QUEUE_OVERFLOW) {
            return true;
        }
        match (self.watches.get(&watch), name) {
            // Told of a watch that has been given up.
            (None, _) => false,
            (Some(Names::These(names)), Some(name)) => names.contains(name),
            (Some(_), _) => true,
        }
    }

    /// Watches every directory on the way to `path`, and `path` itself, as far as they are there.
    fn watch_way(&self, path: &Path, watches: &mut HashMap<i32, Names>) -> io::Result<()> {
        let mut ahead: VecDeque<OsString> = names(path);
        let mut at = PathBuf::from("/");
        let mut links = 0;
        while let Some(name) = ahead.pop_front() {
            if name == ".." {
                at.pop();
                continue;
            }
            if !self.watch(&at, Some(&name), watches)? {
                return Ok(());
            }
            let next = at.join(&name);
            match std::fs::read_link(&next) {
                Ok(target) if links < LINKS => {
                    links += 1;
                    if target.is_absolute() {
                        at = PathBuf::from("/");
                    }
                    let mut way = names(&target);
                    way.append(&mut ahead);
                    ahead = way;
                }
                // A loop leads nowhere, and can only be mended where it is watched.
                Ok(_) => return Ok(()),
                Err(_) => at = next,
            }
        }
        self.watch(&at, None, watches).map(|_| ())
    }

    /// Watches one directory for a name, or for all; whether it is there.
    fn watch(&self, dir: &Path, name: Option<&OsStr>, watches: &mut HashMap<i32, Names>) -> io::Result<bool> {
        let mut mask = WatchFlags::CREATE
            | WatchFlags::DELETE
            | WatchFlags::MOVED_FROM
            | WatchFlags::MOVED_TO
            | WatchFlags::DELETE_SELF
            | WatchFlags::MOVE_SELF
            | WatchFlags::ONLYDIR
            | WatchFlags::DONT_FOLLOW
            | WatchFlags::MASK_ADD;
        if name.is_none() {
            mask |= WatchFlags::CLOSE_WRITE;
        }
        let watch = match inotify::add_watch(&self.inotify, dir, mask) {
            Ok(watch) => watch,
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(false),
            Err(errno) => return Err(errno.into()),
        };
        // Two ways may lead through one directory.
        let names = watches.entry(watch).or_insert_with(|| Names::These(HashSet::new()));
        match (name, names) {
            (Some(name), Names::These(names)) => {
                names.insert(name.to_owned());
            }
            (Some(_), Names::All) => {}
            (None, names) => *names = Names::All,
        }
        Ok(true)
    }

    fn warn(&mut self, listing: &Listing) {
        for problem in &listing.problems {
            if !self.known.contains(problem) {
                let Problem { path, reason } = problem;
                tracing::warn!(path = %path.display(), reason, "CNI configuration passed over");
            }
        }
        self.known = listing.problems.iter().cloned().collect();
    }
}

/// The parts of a path, the root and `.` aside.
fn names(path: &Path) -> VecDeque<OsString> {
    path.components()
        .filter(|part| matches!(part, Component::Normal(_) | Component::ParentDir))
        .map(|part| part.as_os_str().to_owned())
        .collect()
}
