//! Compares a layer with its archive: whether each entry lies there as the archive says.
//!
//! What the archive describes more than once is as the last entry says. Directories that it only implies have the
//! metadata of the layers below, and are not looked at.

use std::collections::BTreeMap;
use std::io::{self, BufRead, Read};
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat, fgetxattr, openat, readlinkat, statat};
use rustix::io::Errno;

use super::archive::{Archive, Entry, Kind};
use super::failure::shown;
use super::layer::{WHITEOUT, is_kept};
use super::name::Name;
use super::tree::open_directory;
use crate::{Algorithm, Digest, Hasher};

/// How much the differences may take that are kept because a later entry may explain them: the names, and what goes
/// with each.
const MAX_DIFFERENCES_BYTES: usize = 8 << 20;
const DIFFERENCE_BYTES: usize = 64;

/// Compares the layer in `root` with `archive`, and returns the archive's digest.
pub(crate) fn compare(
    archive: impl BufRead,
    algorithm: Algorithm,
    root: BorrowedFd<'_>,
) -> Result<Digest, String> {
    let mut archive = Archive::new(Hashing { input: archive, hasher: Hasher::new(algorithm) }, None);
    let mut place = Place { root, parent: None };
    let mut differences = Differences::default();
    while let Some(entry) = archive.next().map_err(|e| super::report::chain(&e))? {
        let name = Name::parse(&entry.name).map_err(str::to_owned)?;
        if entry.kind != Kind::Directory && entry.kind != Kind::Device {
            differences.forget_below(name.as_bytes());
        }
        if !differences.note(name.as_bytes(), place.difference(&name, &entry)) {
            break;
        }
    }
    if let Some((name, difference)) = differences.found.first_key_value() {
        return Err(format!("{}: {difference}", shown(name)));
    }
    let hashing = archive.finish().map_err(|e| super::report::chain(&e))?;
    Ok(hashing.hasher.finish())
}

/// What was found so far that no later entry explained, by its name.
#[derive(Default)]
struct Differences {
    found: BTreeMap<Vec<u8>, &'static str>,
    bytes: usize,
}

impl Differences {
    /// Notes how the entry of this name was found: the last one counts. False: there is no room for more.
    fn note(&mut self, name: &[u8], difference: Option<&'static str>) -> bool {
        match difference {
            None => self.forget(name),
            Some(difference) if self.found.insert(name.to_vec(), difference).is_none() => {
                self.bytes += name.len() + DIFFERENCE_BYTES;
            }
            Some(_) => {}
        }
        self.bytes <= MAX_DIFFERENCES_BYTES
    }

    fn forget(&mut self, name: &[u8]) {
        if self.found.remove(name).is_some() {
            self.bytes -= name.len() + DIFFERENCE_BYTES;
        }
    }

    /// What was a directory is something else from here on.
    fn forget_below(&mut self, name: &[u8]) {
        if self.found.is_empty() {
            return;
        }
        let (from, to) = ([name, b"/"].concat(), [name, b"0"].concat());
        while let Some(below) =
            self.found.range(from.clone()..to.clone()).next().map(|(name, _)| name.clone())
        {
            self.forget(&below);
        }
    }
}

/// Where entries are looked up; most lie beside the one before.
struct Place<'a> {
    root: BorrowedFd<'a>,
    parent: Option<(Vec<u8>, OwnedFd)>,
}

impl Place<'_> {
    fn difference(&mut self, name: &Name, entry: &Entry) -> Option<&'static str> {
        let is_reserved = name.components().any(|component| component.starts_with(WHITEOUT));
        if is_reserved || entry.kind == Kind::Device {
            return None;
        }
        let (parent, base) = name.split();
        let base = if name.is_root() { b"." } else { base };
        let missing = Some("it is gone");
        let Ok(directory) = self.directory(parent) else { return missing };
        let Ok(found) = statat(directory, base, AtFlags::SYMLINK_NOFOLLOW) else { return missing };
        let kind = match &entry.kind {
            Kind::Directory => FileType::Directory,
            Kind::Fifo => FileType::Fifo,
            Kind::File => FileType::RegularFile,
            Kind::Symlink(_) => FileType::Symlink,
            Kind::HardLink(target) => return self.link_difference(&found, target),
            Kind::Device => return None,
        };
        if FileType::from_raw_mode(found.st_mode) != kind {
            return Some("it is of another kind");
        }
        if (found.st_uid, found.st_gid) != (entry.uid, entry.gid) {
            return Some("its owner is another");
        }
        if kind != FileType::Symlink && found.st_mode & 0o7777 != entry.mode {
            return Some("its mode is another");
        }
        if kind == FileType::RegularFile && found.st_size.cast_unsigned() != entry.size {
            return Some("its size is another");
        }
        if let Kind::Symlink(target) = &entry.kind {
            let same =
                readlinkat(directory, base, Vec::new()).is_ok_and(|found| found.as_bytes() == &target[..]);
            return (!same).then_some("it leads elsewhere");
        }
        xattr_difference(directory, base, entry)
    }

    fn link_difference(&self, found: &Stat, target: &[u8]) -> Option<&'static str> {
        let target = Name::parse(target).ok()?;
        let (parent, base) = target.split();
        let at = open_directory(self.root, parent)
            .and_then(|parent| statat(parent, base, AtFlags::SYMLINK_NOFOLLOW));
        // The target's own entry tells when that is gone or replaced.
        at.is_ok_and(|at| at.st_ino != found.st_ino && at.st_nlink > 1).then_some("it is another file")
    }

    fn directory(&mut self, path: &[u8]) -> Result<&OwnedFd, Errno> {
        if self.parent.as_ref().is_none_or(|(known, _)| known != path) {
            self.parent = Some((path.to_vec(), open_directory(self.root, path)?));
        }
        self.parent.as_ref().map(|(_, directory)| directory).ok_or(Errno::NOENT)
    }
}

fn xattr_difference(directory: &OwnedFd, base: &[u8], entry: &Entry) -> Option<&'static str> {
    let mut kept = entry.xattrs.iter().filter(|(key, value)| is_kept(key, value)).peekable();
    kept.peek()?;
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let Ok(file) = openat(directory, base, flags, Mode::empty()) else { return Some("it cannot be opened") };
    let same = |(key, value): &(Vec<u8>, Vec<u8>)| {
        let mut found = vec![0; value.len() + 1];
        fgetxattr(&file, &key[..], &mut found[..]).is_ok_and(|length| found[..length] == value[..])
    };
    (!kept.all(same)).then_some("its extended attributes are others")
}

/// Hashes what passes.
struct Hashing<R> {
    input: R,
    hasher: Hasher,
}

impl<R: BufRead> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.fill_buf()?.read(buffer)?;
        self.consume(length);
        Ok(length)
    }
}

impl<R: BufRead> BufRead for Hashing<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.input.fill_buf()
    }

    fn consume(&mut self, bytes: usize) {
        // What was given before is still there; it is only looked at again.
        if let Ok(buffer) = self.input.fill_buf() {
            self.hasher.update(&buffer[..bytes]);
        }
        self.input.consume(bytes);
    }
}
