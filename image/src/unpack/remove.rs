//! Removes a directory tree with one open directory and one buffer, however deep or wide the tree is.
//!
//! Of the way back one number a level is kept, where its directory was left: there a child that became empty is found
//! again, and removed. Reading from the start each time would pass all that was removed, again and again. Nothing
//! else may move directories meanwhile, so `..` is the one that was left.

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, Mode, OFlags, RawDir, openat, unlinkat};
use rustix::io::Errno;

use super::tree::step;

const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// How often a tree that something still writes into is tried anew.
const ATTEMPTS: usize = 8;

/// Sees what is removed, just before it goes.
pub(super) trait Witness {
    /// Why it goes no further.
    type Error: From<Errno>;

    /// `name` in `directory` is about to go; a directory that is not empty comes more than once.
    fn goes(&mut self, directory: BorrowedFd<'_>, name: &[u8]) -> Result<(), Self::Error>;
    /// What goes next is in `name`, a directory of the one before.
    fn enter(&mut self, name: &[u8]);
    /// What goes next is in the directory above.
    fn leave(&mut self);
}

/// Nobody.
struct Unseen;

impl Witness for Unseen {
    type Error = Errno;

    fn goes(&mut self, _: BorrowedFd<'_>, _: &[u8]) -> Result<(), Errno> {
        Ok(())
    }
    fn enter(&mut self, _: &[u8]) {}
    fn leave(&mut self) {}
}

/// Removes what is at `name` in `parent`, with everything below it. Symbolic links are removed, never followed.
/// That nothing is there is fine.
pub(crate) fn tree(parent: BorrowedFd<'_>, name: &[u8]) -> Result<(), Errno> {
    tree_before(parent, name, &mut Unseen)
}

/// Removes a tree before a witness.
pub(super) fn tree_before<W: Witness>(
    parent: BorrowedFd<'_>,
    name: &[u8],
    witness: &mut W,
) -> Result<(), W::Error> {
    witness.goes(parent, name)?;
    let mut result = unlink(parent, name);
    for _ in 0..ATTEMPTS {
        match result {
            Err(Errno::NOTEMPTY | Errno::EXIST) => {
                witness.enter(name);
                empty(parent, name, witness)?;
                witness.leave();
                result = unlink(parent, name);
            }
            Err(Errno::NOENT) => return Ok(()),
            other => return Ok(other?),
        }
    }
    Ok(result?)
}

/// Empties the directory at `name`.
fn empty<W: Witness>(parent: BorrowedFd<'_>, name: &[u8], witness: &mut W) -> Result<(), W::Error> {
    let mut directory = openat(parent, name, DIRECTORY, Mode::empty())?;
    let mut left: Vec<u64> = Vec::new();
    let mut position = 0;
    let mut buffer = Vec::with_capacity(32 << 10);
    loop {
        step();
        if let Some(child) = first_full(&directory, &mut position, buffer.spare_capacity_mut(), witness)? {
            directory = child;
            left.push(std::mem::take(&mut position));
        } else if position > 0 {
            // Where positions move when entries go, some may have been passed over.
            position = 0;
        } else if let Some(parent) = left.pop() {
            directory = openat(&directory, c"..", DIRECTORY, Mode::empty())?;
            position = parent;
            witness.leave();
        } else {
            return Ok(());
        }
    }
}

/// Removes the entries of a directory from `position` on, until one is a directory that is not empty: opens that, and
/// leaves `position` before it.
fn first_full<W: Witness>(
    directory: &OwnedFd,
    position: &mut u64,
    buffer: &mut [MaybeUninit<u8>],
    witness: &mut W,
) -> Result<Option<OwnedFd>, W::Error> {
    rustix::fs::seek(directory, rustix::fs::SeekFrom::Start(*position))?;
    let mut entries = RawDir::new(directory, buffer);
    while let Some(entry) = entries.next() {
        let entry = entry?;
        step();
        let name = entry.file_name().to_bytes();
        if matches!(name, b"." | b"..") {
            continue;
        }
        witness.goes(directory.as_fd(), name)?;
        match unlink(directory.as_fd(), name) {
            Ok(()) | Err(Errno::NOENT) => *position = entry.next_entry_cookie(),
            Err(Errno::NOTEMPTY | Errno::EXIST) => {
                witness.enter(name);
                return Ok(Some(openat(directory, name, DIRECTORY, Mode::empty())?));
            }
            Err(e) => return Err(e.into()),
        }
    }
    Ok(None)
}

fn unlink(directory: BorrowedFd<'_>, name: &[u8]) -> Result<(), Errno> {
    match unlinkat(directory, name, AtFlags::empty()) {
        Err(Errno::ISDIR) => unlinkat(directory, name, AtFlags::REMOVEDIR),
        other => other,
    }
}
