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

/// How many directories the report may name, and how many bytes their names may have.
const MAX_MARKED: usize = 200_000;
const MAX_MARKED_BYTES: usize = 4 << 20;

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
    opaque: HashSet<Vec<u8>>,
    marked_bytes: usize,
    made: u64,
}

/// The directories that the store has something left to do with.
#[derive(Debug, Default)]
pub(super) struct Marked {
    /// Those that no entry described.
    pub(super) implied: Vec<Vec<u8>>,
    /// Those that hide what the layers below have in them. Some may be gone again.
    pub(super) opaque: Vec<Vec<u8>>,
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
            opaque: HashSet::new(),
            marked_bytes: 0,
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

    /// Returns the directories that were marked.
    pub(super) fn finish(self) -> Marked {
        let sorted = |names: HashSet<Vec<u8>>| {
            let mut names: Vec<_> = names.into_iter().collect();
            names.sort_unstable();
            names
        };
        Marked { implied: sorted(self.implied), opaque: sorted(self.opaque) }
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
                let directory = match self.open(path) {
                    Ok(directory) => directory,
                    Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Rc::new(self.walk(path)?),
                    Err(e) => return Err(Failure::write("open", path)(e)),
                };
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

    /// Makes the directory that an entry describes, or takes the one that is there. `give_up` sees what makes room.
    pub(super) fn describe(
        &mut self,
        name: &Name,
        give_up: impl FnOnce(BorrowedFd<'_>, &[u8]) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        self.implied.remove(name.as_bytes());
        if name.is_root() {
            return Ok(());
        }
        let (parent, base) = name.split();
        let parent = self.directory(parent)?;
        match mkdirat(&parent, base, Mode::from_raw_mode(0o755)) {
            Ok(()) => self.made += 1,
            Err(Errno::EXIST) if is_directory(&parent, base) => {}
            Err(Errno::EXIST) => {
                give_up(parent.as_fd(), base)?;
                drop(self.replace(&parent, base, name.as_bytes())?);
            }
            Err(e) => return Err(Failure::write("make directory", name.as_bytes())(e)),
        }
        Ok(())
    }

    /// Removes what stands at a name, to make room for something else. `witness` sees what goes.
    pub(super) fn clear<W: remove::Witness>(
        &mut self,
        parent: &Directory,
        base: &[u8],
        witness: &mut W,
    ) -> Result<(), W::Error> {
        step();
        if is_directory(parent, base) {
            self.cache.clear();
            self.last = (Vec::new(), Rc::clone(&self.root));
        }
        remove::tree_before(parent.as_fd(), base, witness)
    }

    /// Hides what the layers below have in a directory.
    pub(super) fn opaque(&mut self, path: &[u8]) -> Result<(), Failure> {
        self.directory(path)?;
        self.hide(path)
    }

    /// Opens a path of which something is missing, and makes that.
    fn walk(&mut self, path: &[u8]) -> Result<OwnedFd, Failure> {
        let (mut directory, mut start) = self.nearest(path)?;
        for base in path[start..].split(|&b| b == b'/') {
            step();
            let name = &path[..start + base.len()];
            start += base.len() + 1;
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

    /// Opens the nearest directory above `path`, and says where in that the rest begins: what a deep path costs is
    /// what is missing of it.
    fn nearest(&self, path: &[u8]) -> Result<(Directory, usize), Failure> {
        let mut end = path.len();
        while let Some(slash) = path[..end].iter().rposition(|&b| b == b'/') {
            step();
            end = slash;
            match self
                .cache
                .get(&path[..end])
                .map_or_else(|| self.open(&path[..end]), |known| Ok(Rc::clone(known)))
            {
                Ok(directory) => return Ok((directory, end + 1)),
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {}
                Err(e) => return Err(Failure::write("open", path)(e)),
            }
        }
        Ok((Rc::clone(&self.root), 0))
    }

    fn open(&self, path: &[u8]) -> rustix::io::Result<Directory> {
        step();
        open_directory(self.root(), path).map(Rc::new)
    }

    fn imply(&mut self, name: &[u8]) -> Result<(), Failure> {
        self.made += 1;
        if self.implied.insert(name.to_vec()) {
            self.count_marked(name)?;
        }
        Ok(())
    }

    /// Only the server may set overlayfs's mark; it learns the name from the report.
    fn hide(&mut self, name: &[u8]) -> Result<(), Failure> {
        if self.opaque.insert(name.to_vec()) {
            self.count_marked(name)?;
        }
        Ok(())
    }

    fn count_marked(&mut self, name: &[u8]) -> Result<(), Failure> {
        self.marked_bytes += name.len();
        if self.marked_bytes > MAX_MARKED_BYTES || self.implied.len() + self.opaque.len() > MAX_MARKED {
            let reason = "too many directories are opaque or have no entry of their own";
            return Err(Failure::refused(shown(name), reason));
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
        self.hide(name)?;
        unlinkat(parent, base, AtFlags::empty())
            .and_then(|()| mkdirat(parent, base, Mode::from_raw_mode(0o755)))
            .and_then(|()| openat(parent, base, DIRECTORY, Mode::empty()))
            .map_err(Failure::write("replace with a directory", name))
    }
}

/// Counts what is asked of the kernel, so that a test can tell how that grows.
pub(super) fn step() {
    #[cfg(test)]
    STEPS.set(STEPS.get() + 1);
}

#[cfg(test)]
thread_local! {
    /// How many steps this thread has taken.
    pub(super) static STEPS: std::cell::Cell<u64> = const { std::cell::Cell::new(0) };
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

/// Marks the directory at `name` below `layer` for overlayfs, which then shows nothing of the layers below in it.
/// What is no directory any more needs no mark.
pub(crate) fn mark_opaque(layer: BorrowedFd<'_>, name: &Name) -> rustix::io::Result<()> {
    match open_directory(layer, name.as_bytes()) {
        Ok(directory) => fsetxattr(directory, OPAQUE.0, OPAQUE.1, XattrFlags::empty()),
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(()),
        Err(e) => Err(e),
    }
}
