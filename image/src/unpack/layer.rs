//! Writes the entries of an archive as a layer for overlayfs.
//!
//! What a layer may hold: files, directories, symbolic and hard links, fifos. Owner, mode (setuid too), times,
//! `user.` attributes and file capabilities are kept; every other attribute is dropped, above all overlayfs's own.
//! Whiteouts become character devices 0:0 and marks that the store sets, `.wh.` names are never made. Device nodes
//! below a directory named `dev` are left out and counted, because images do carry them and a container gets its own;
//! anywhere else they are refused. Follows the OCI image spec, `layer.md`, and the kernel's `overlayfs.rst`.

use std::io::{self, BufRead};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, Uid, XattrFlags, chownat, fchmod, fsetxattr, futimens, linkat,
    mknodat, openat, statat, symlinkat, utimensat,
};
use rustix::io::Errno;

use super::archive::{Archive, Entry, Kind};
use super::deferred::Deferred;
use super::failure::{Failure, shown};
use super::limits::Limits;
use super::name::Name;
use super::remove;
use super::tree::{self, Directory, Marked, Tree};

pub(super) const WHITEOUT: &[u8] = b".wh.";
const WHITEOUT_META: &[u8] = b".wh..wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";

/// The layer that is being written.
pub(super) struct Layer<'a> {
    tree: Tree,
    deferred: Deferred,
    limits: &'a Limits,
    written: Written,
    unchecked: u64,
}

/// What was written.
#[derive(Debug, Default)]
pub(super) struct Written {
    /// Bytes of files, rounded up to blocks, and a block for each directory.
    pub(super) bytes: u64,
    /// Names made.
    pub(super) inodes: u64,
    /// Device nodes left out.
    pub(super) skipped: u64,
    /// Bytes of the archive.
    pub(super) archive_bytes: u64,
    /// What is left to do with directories, the root among them.
    pub(super) marked: Marked,
}

impl<'a> Layer<'a> {
    pub(super) fn new(root: OwnedFd, limits: &'a Limits) -> Self {
        Self {
            tree: Tree::new(root),
            deferred: Deferred::default(),
            limits,
            written: Written::default(),
            unchecked: 0,
        }
    }

    /// Writes all entries, then what must come last.
    pub(super) fn write(mut self, archive: &mut Archive<impl BufRead>) -> Result<Written, Failure> {
        let mut entries = 0;
        while let Some(entry) = archive.next()? {
            entries += 1;
            let name =
                Name::parse(&entry.name).map_err(|reason| Failure::refused(shown(&entry.name), reason))?;
            self.entry(&name, &entry, archive)?;
            if entries + self.tree.made() > self.limits.entries {
                let reason = format!("the layer has more than {} entries", self.limits.entries);
                return Err(Failure::refused(shown(name.as_bytes()), reason));
            }
        }
        self.deferred.apply(self.tree.root())?;
        self.written.inodes += self.tree.made();
        self.written.bytes += self.tree.made() * BLOCK;
        self.written.marked = self.tree.finish();
        self.written.archive_bytes = archive.bytes();
        Ok(self.written)
    }

    fn entry(
        &mut self,
        name: &Name,
        entry: &Entry,
        archive: &mut Archive<impl BufRead>,
    ) -> Result<(), Failure> {
        let refused = |reason: &str| Failure::refused(shown(name.as_bytes()), reason);
        if let Some(reserved) = name.components().find(|c| c.starts_with(WHITEOUT)) {
            return self.whiteout(name, entry, reserved);
        }
        match &entry.kind {
            Kind::Directory => return self.directory(name, entry, archive),
            _ if name.is_root() => return Err(refused("the layer's root is not a directory")),
            Kind::Device if name.split().0.split(|&b| b == b'/').any(|c| c == b"dev") => {
                self.written.skipped += 1;
                return Ok(());
            }
            Kind::Device => return Err(refused("a layer must not bring device nodes")),
            _ => {}
        }
        let (parent, base) = name.split();
        let parent = self.tree.directory(parent)?;
        self.account(name, entry.size)?;
        let place = Place { parent, base, name: name.as_bytes() };
        match &entry.kind {
            Kind::File => self.file(&place, entry, archive),
            Kind::Symlink(target) if target.is_empty() || target.len() > 4095 => {
                Err(refused("the target of the link is empty or too long"))
            }
            Kind::Symlink(target) => {
                self.make(&place, archive, "make the link", || symlinkat(&target[..], &place.parent, base))?;
                place.describe(entry)
            }
            Kind::HardLink(target) => self.hard_link(&place, target, archive),
            Kind::Fifo => {
                let mode = Mode::from_raw_mode(entry.mode);
                self.make(&place, archive, "make fifo", || {
                    mknodat(&place.parent, base, FileType::Fifo, mode, 0)
                })?;
                place.describe(entry)
            }
            Kind::Device | Kind::Directory => Ok(()),
        }
    }

    fn directory(
        &mut self,
        name: &Name,
        entry: &Entry,
        archive: &mut Archive<impl BufRead>,
    ) -> Result<(), Failure> {
        self.tree.describe(name, |parent, base| {
            archive.give_up(parent, base, name.as_bytes()).map_err(given_up(name.as_bytes()))
        })?;
        if !entry.xattrs.is_empty() {
            let directory = self.tree.directory(name.as_bytes())?;
            set_xattrs(&directory, name.as_bytes(), entry)?;
        }
        self.deferred.push(self.tree.root(), name.as_bytes(), entry)
    }

    fn file(
        &mut self,
        place: &Place<'_>,
        entry: &Entry,
        archive: &mut Archive<impl BufRead>,
    ) -> Result<(), Failure> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(entry.mode);
        let file = self.make(place, archive, "create", || openat(&place.parent, place.base, flags, mode))?;
        archive.keep(place.name)?;
        loop {
            let data = archive.data()?;
            if data.is_empty() {
                break;
            }
            let length = rustix::io::write(&file, data).map_err(Failure::write("write", place.name))?;
            archive.consume(length);
        }
        if (entry.uid, entry.gid) != (0, 0) {
            tree::own(file.as_fd(), entry.uid, entry.gid)
                .map_err(Failure::write("change the owner of", place.name))?;
        }
        // Changing the owner, and writing, take away these bits.
        if entry.mode & 0o6000 != 0 {
            fchmod(&file, mode).map_err(Failure::write("change the mode of", place.name))?;
        }
        set_xattrs(&file, place.name, entry)?;
        futimens(&file, &tree::timestamps(entry.mtime))
            .map_err(Failure::write("set the times of", place.name))
    }

    fn hard_link(
        &mut self,
        place: &Place<'_>,
        target: &[u8],
        archive: &mut Archive<impl BufRead>,
    ) -> Result<(), Failure> {
        let refused = |reason: &str| {
            Failure::refused(shown(place.name), format!("hard link to {}: {reason}", shown(target)))
        };
        let target = Name::parse(target).map_err(refused)?;
        let (directory, base) = target.split();
        let missing = "it is not in this layer";
        let directory = match tree::open_directory(self.tree.root(), directory) {
            Ok(directory) => directory,
            Err(Errno::NOENT) => return Err(refused(missing)),
            Err(Errno::NOTDIR | Errno::LOOP) => return Err(refused("its parent is not a directory")),
            Err(e) => return Err(Failure::write("open the parent of the target of", place.name)(e)),
        };
        let found = match statat(&directory, base, AtFlags::SYMLINK_NOFOLLOW) {
            _ if target.is_root() => return Err(refused("it is the layer's root")),
            Ok(found) => found,
            Err(Errno::NOENT) => return Err(refused(missing)),
            Err(e) => return Err(Failure::write("look at the target of", place.name)(e)),
        };
        match FileType::from_raw_mode(found.st_mode) {
            FileType::RegularFile | FileType::Symlink | FileType::Fifo => {}
            FileType::Directory => return Err(refused("it is a directory")),
            _ => return Err(refused("it is removed in this layer")),
        }
        if target.as_bytes() == place.name {
            return Err(refused("it is the link itself"));
        }
        self.make(place, archive, "link", || {
            linkat(&directory, base, &place.parent, place.base, AtFlags::empty())
        })
    }

    /// Takes an entry with a name that is not a file's but says something about the layers below.
    fn whiteout(&mut self, name: &Name, entry: &Entry, reserved: &[u8]) -> Result<(), Failure> {
        let refused = |reason: &str| Failure::refused(shown(name.as_bytes()), reason);
        let (parent, base) = name.split();
        // What aufs kept for itself; old images carry it.
        if reserved.starts_with(WHITEOUT_META) && reserved != OPAQUE {
            return Ok(());
        }
        if base != reserved
            || !name.as_bytes().ends_with(reserved)
            || parent.split(|&b| b == b'/').any(is_reserved)
        {
            return Err(refused("the name of a directory is that of a whiteout"));
        }
        if !matches!(entry.kind, Kind::File | Kind::HardLink(_)) {
            return Err(refused("a whiteout must be a file"));
        }
        if base == OPAQUE {
            return self.tree.opaque(parent);
        }
        let hidden = &base[WHITEOUT.len()..];
        if matches!(hidden, b"" | b"." | b"..") {
            return Err(refused("the whiteout hides nothing"));
        }
        let directory = self.tree.directory(parent)?;
        tree::step();
        let device = FileType::CharacterDevice;
        match mknodat(&directory, hidden, device, Mode::empty(), 0) {
            Ok(()) => {
                self.written.inodes += 1;
                Ok(())
            }
            // A whiteout hides what lies below. What this layer itself brings stays.
            Err(Errno::EXIST) => match statat(&directory, hidden, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(found) if FileType::from_raw_mode(found.st_mode) == FileType::Directory => {
                    let path = if parent.is_empty() { hidden.to_vec() } else { [parent, hidden].join(&b'/') };
                    self.tree.opaque(&path)
                }
                Ok(_) => Ok(()),
                Err(e) => Err(Failure::write("look at", name.as_bytes())(e)),
            },
            Err(e) => Err(Failure::write("make the whiteout", name.as_bytes())(e)),
        }
    }

    /// Makes something new at a place; what stands there already gives way.
    fn make<T>(
        &mut self,
        place: &Place<'_>,
        archive: &mut Archive<impl BufRead>,
        operation: &'static str,
        make: impl Fn() -> rustix::io::Result<T>,
    ) -> Result<T, Failure> {
        tree::step();
        let made = match make() {
            Err(Errno::EXIST) => {
                let mut witness = Witness { archive, path: place.parent_name().to_vec() };
                self.tree.clear(&place.parent, place.base, &mut witness).map_err(given_up(place.name))?;
                make()
            }
            other => other,
        };
        made.map_err(Failure::write(operation, place.name))
    }

    fn account(&mut self, name: &Name, size: u64) -> Result<(), Failure> {
        let size = size.div_ceil(BLOCK) * BLOCK;
        self.written.inodes += 1;
        self.written.bytes += size;
        self.unchecked += size + BLOCK;
        if self.unchecked < CHECK_EACH {
            return Ok(());
        }
        self.unchecked = 0;
        let space = rustix::fs::fstatvfs(self.tree.root())
            .map_err(Failure::write("look at the free space for", name.as_bytes()))?;
        self.limits
            .check_space(&space, size)
            .map_err(|reason| io::Error::new(io::ErrorKind::StorageFull, reason))
            .map_err(Failure::write("make room for", name.as_bytes()))
    }
}

const BLOCK: u64 = 4096;

/// How much is written between two looks at the free space.
const CHECK_EACH: u64 = 32 << 20;

/// Where an entry goes: by descriptor, and its whole name to speak of it.
struct Place<'a> {
    parent: Directory,
    base: &'a [u8],
    name: &'a [u8],
}

impl Place<'_> {
    fn parent_name(&self) -> &[u8] {
        self.name[..self.name.len() - self.base.len()].strip_suffix(b"/").unwrap_or_default()
    }

    /// Sets owner and times of what cannot be opened.
    fn describe(&self, entry: &Entry) -> Result<(), Failure> {
        let flags = AtFlags::SYMLINK_NOFOLLOW;
        if (entry.uid, entry.gid) != (0, 0) {
            let (uid, gid) = (Uid::from_raw(entry.uid), Gid::from_raw(entry.gid));
            chownat(&self.parent, self.base, Some(uid), Some(gid), flags)
                .map_err(Failure::write("change the owner of", self.name))?;
        }
        utimensat(&self.parent, self.base, &tree::timestamps(entry.mtime), flags)
            .map_err(Failure::write("set the times of", self.name))
    }
}

/// Keeps what it takes to make the archive again of a tree that goes.
struct Witness<'a, R> {
    archive: &'a mut Archive<R>,
    /// The name of the directory in which something goes.
    path: Vec<u8>,
}

impl<R: BufRead> remove::Witness for Witness<'_, R> {
    type Error = io::Error;

    fn goes(&mut self, directory: BorrowedFd<'_>, name: &[u8]) -> io::Result<()> {
        let length = self.path.len();
        self.enter(name);
        let kept = self.archive.give_up(directory, name, &self.path);
        self.path.truncate(length);
        kept
    }

    fn enter(&mut self, name: &[u8]) {
        if !self.path.is_empty() {
            self.path.push(b'/');
        }
        self.path.extend_from_slice(name);
    }

    fn leave(&mut self) {
        let length = self.path.iter().rposition(|&b| b == b'/').unwrap_or_default();
        self.path.truncate(length);
    }
}

fn given_up(name: &[u8]) -> impl FnOnce(io::Error) -> Failure {
    Failure::write("make room for", name)
}

fn is_reserved(component: &[u8]) -> bool {
    component.starts_with(WHITEOUT)
}

/// Sets the attributes that a layer may bring.
fn set_xattrs(file: &OwnedFd, name: &[u8], entry: &Entry) -> Result<(), Failure> {
    for (key, value) in &entry.xattrs {
        if is_kept(key, value) {
            fsetxattr(file, &key[..], value, XattrFlags::empty())
                .map_err(Failure::write("set an extended attribute of", name))?;
        }
    }
    Ok(())
}

/// Tells whether a layer may bring this attribute.
pub(super) fn is_kept(key: &[u8], value: &[u8]) -> bool {
    match key {
        b"security.capability" => is_capability(value),
        _ => key.starts_with(b"user.") && !key.starts_with(b"user.overlay."),
    }
}

/// Tells whether this is a file capability of version 2 or 3: version and flags, two or three more words.
fn is_capability(value: &[u8]) -> bool {
    matches!((value.len(), value.get(3)), (20, Some(2)) | (24, Some(3)))
}
