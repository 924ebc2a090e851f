//! The layer's directory tree, reached by descriptors alone.
//!
//! Parents are opened without following any symbolic link, and the last component is only ever used with calls
//! that do not follow one: no name, link or whiteout of a layer leads out of it, whatever the archive made of the
//! tree so far. Descriptors of parents are kept, since most entries lie beside the one before.

use std::collections::{HashMap, HashSet};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;

use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, Uid, XattrFlags, fchown,
    fsetxattr, mkdirat, openat, openat2, statat, unlinkat,
};
use rustix::io::Errno;

use super::failure::{Failure, shown};
use super::name::Name;
use super::pax::Time;
use super::remove;

/// How many descriptors of directories are kept.
const CACHED: usize = 128;

/// How many implied directories the report may hold, and how many bytes their names may have.
const MAX_IMPLIED: usize = 200_000;
const MAX_IMPLIED_BYTES: usize = 4 << 20;

/// What overlayfs reads as "nothing of the lower layers shows here".
const OPAQUE: (&str, &[u8]) = ("trusted.overlay.opaque", b"y");

const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// A directory that is open.
pub(super) type Directory = Rc<OwnedFd>;

/// The tree of one layer.
pub(super) struct Tree {
    root: Directory,
    last: (Vec<u8>, Directory),
    cache: HashMap<Vec<u8>, Directory>,
    implied: HashSet<Vec<u8>>,
    implied_bytes: usize,
    opaque_root: bool,
    made: u64,
}

impl Tree {
    /// Takes the empty directory that becomes the layer. Its root is implied until an entry names it.
    pub(super) fn new(root: OwnedFd) -> Self {
        let root = Rc::new(root);
        Self {
            last: (Vec::new(), Rc::clone(&root)),
            root,
            cache: HashMap::new(),
            implied: HashSet::from([Vec::new()]),
            implied_bytes: 0,
            opaque_root: false,
            made: 0,
        }
    }

    pub(super) fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// Returns how many directories were made.
    pub(super) fn made(&self) -> u64 {
        self.made
    }

    /// Returns whether the root hides the layers below, and the directories that no entry described.
    pub(super) fn finish(self) -> (bool, Vec<Vec<u8>>) {
        let mut implied: Vec<_> = self.implied.into_iter().collect();
        implied.sort_unstable();
        (self.opaque_root, implied)
    }

    /// Opens a directory of the layer, which is made with its parents when it is missing.
    pub(super) fn directory(&mut self, path: &[u8]) -> Result<Directory, Failure> {
        if self.last.0 == path {
            return Ok(Rc::clone(&self.last.1));
        }
        let directory = match self.cache.get(path) {
            _ if path.is_empty() => Rc::clone(&self.root),
            Some(directory) => Rc::clone(directory),
            None => {
                let directory = Rc::new(match open_directory(self.root(), path) {
                    Ok(directory) => directory,
                    Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => self.walk(path)?,
                    Err(e) => return Err(Failure::write("open", path)(e)),
                });
                if self.cache.len() >= CACHED {
                    self.cache.clear();
                }
                self.cache.insert(path.to_vec(), Rc::clone(&directory));
                directory
            }
        };
        self.last = (path.to_vec(), Rc::clone(&directory));
        Ok(directory)
    }

    /// Makes the directory that an entry describes, or takes the one that is there.
    pub(super) fn describe(&mut self, name: &Name) -> Result<(), Failure> {
        self.implied.remove(name.as_bytes());
        if name.is_root() {
            return Ok(());
        }
        let (parent, base) = name.split();
        let parent = self.directory(parent)?;
        match mkdirat(&parent, base, Mode::from_raw_mode(0o755)) {
            Ok(()) => self.made += 1,
            Err(Errno::EXIST) if is_directory(&parent, base) => {}
            Err(Errno::EXIST) => drop(self.replace(&parent, base, name.as_bytes())?),
            Err(e) => return Err(Failure::write("make directory", name.as_bytes())(e)),
        }
        Ok(())
    }

    /// Removes what stands at a name, to make room for something else.
    pub(super) fn clear(&mut self, parent: &Directory, base: &[u8]) -> rustix::io::Result<()> {
        match unlinkat(parent, base, AtFlags::empty()) {
            Err(Errno::ISDIR) => {
                self.cache.clear();
                self.last = (Vec::new(), Rc::clone(&self.root));
                remove::tree(parent.as_fd(), base)
            }
            Err(Errno::NOENT) => Ok(()),
            other => other,
        }
    }

    /// Hides what the layers below have in a directory.
    pub(super) fn opaque(&mut self, path: &[u8]) -> Result<(), Failure> {
        let directory = self.directory(path)?;
        self.opaque_root |= path.is_empty();
        set_opaque(directory.as_fd()).map_err(Failure::write("make opaque", path))
    }

    /// Opens a path component by component, making what is missing.
    fn walk(&mut self, path: &[u8]) -> Result<OwnedFd, Failure> {
        let mut directory = Rc::clone(&self.root);
        let mut end = 0;
        for base in path.split(|&b| b == b'/') {
            end += base.len();
            let name = &path[..end];
            end += 1;
            let next = match openat(&directory, base, DIRECTORY, Mode::empty()) {
                Ok(next) => next,
                Err(Errno::NOENT) => {
                    self.imply(name)?;
                    mkdirat(&directory, base, Mode::from_raw_mode(0o755))
                        .and_then(|()| openat(&directory, base, DIRECTORY, Mode::empty()))
                        .map_err(Failure::write("make directory", name))?
                }
                Err(Errno::NOTDIR | Errno::LOOP) => self.replace_whiteout(&directory, base, name)?,
                Err(e) => return Err(Failure::write("open", name)(e)),
            };
            directory = Rc::new(next);
        }
        directory.try_clone().map_err(Failure::write("open", path))
    }

    fn imply(&mut self, name: &[u8]) -> Result<(), Failure> {
        self.made += 1;
        if self.implied.insert(name.to_vec()) {
            self.implied_bytes += name.len();
            if self.implied_bytes > MAX_IMPLIED_BYTES || self.implied.len() > MAX_IMPLIED {
                return Err(Failure::refused(shown(name), "too many directories have no entry of their own"));
            }
        }
        Ok(())
    }

    /// A parent that is not a directory: only a whiteout may give way to one.
    fn replace_whiteout(&mut self, parent: &Directory, base: &[u8], name: &[u8]) -> Result<OwnedFd, Failure> {
        let found =
            statat(parent, base, AtFlags::SYMLINK_NOFOLLOW).map_err(Failure::write("look at", name))?;
        if is_whiteout(&found) {
            return self.replace(parent, base, name);
        }
        let what = match FileType::from_raw_mode(found.st_mode) {
            FileType::Symlink => "a symbolic link",
            _ => "not a directory",
        };
        Err(Failure::refused(shown(name), format!("the parent of an entry is {what}")))
    }

    /// Puts a directory in the place of something else. What that hid in the layers below stays hidden.
    fn replace(&mut self, parent: &Directory, base: &[u8], name: &[u8]) -> Result<OwnedFd, Failure> {
        self.implied.remove(name);
        self.made += 1;
        unlinkat(parent, base, AtFlags::empty())
            .and_then(|()| mkdirat(parent, base, Mode::from_raw_mode(0o755)))
            .and_then(|()| openat(parent, base, DIRECTORY, Mode::empty()))
            .and_then(|directory| set_opaque(directory.as_fd()).map(|()| directory))
            .map_err(Failure::write("replace with a directory", name))
    }
}

/// Opens the directory at `path` below `root`, without following a symbolic link on the way.
pub(crate) fn open_directory(root: BorrowedFd<'_>, path: &[u8]) -> rustix::io::Result<OwnedFd> {
    if path.is_empty() {
        return openat(root, c".", DIRECTORY, Mode::empty());
    }
    let resolve = ResolveFlags::BENEATH
        .union(ResolveFlags::NO_SYMLINKS)
        .union(ResolveFlags::NO_MAGICLINKS)
        .union(ResolveFlags::NO_XDEV);
    openat2(root, path, DIRECTORY, Mode::empty(), resolve)
}

/// Tells whether this is what overlayfs takes for "removed here".
pub(crate) fn is_whiteout(found: &rustix::fs::Stat) -> bool {
    FileType::from_raw_mode(found.st_mode) == FileType::CharacterDevice && found.st_rdev == 0
}

/// Gives an open file or directory its owner.
pub(super) fn own(file: BorrowedFd<'_>, uid: u32, gid: u32) -> rustix::io::Result<()> {
    fchown(file, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))
}

/// Returns the times of an entry: it was read when it was written.
pub(super) fn timestamps(time: Time) -> Timestamps {
    let time = Timespec { tv_sec: time.seconds, tv_nsec: time.nanoseconds.into() };
    Timestamps { last_access: time, last_modification: time }
}

fn is_directory(parent: &Directory, base: &[u8]) -> bool {
    statat(parent, base, AtFlags::SYMLINK_NOFOLLOW)
        .is_ok_and(|found| FileType::from_raw_mode(found.st_mode) == FileType::Directory)
}

fn set_opaque(directory: BorrowedFd<'_>) -> rustix::io::Result<()> {
    fsetxattr(directory, OPAQUE.0, OPAQUE.1, XattrFlags::empty())
}
