//! Removes a directory tree with one open directory and one buffer, however deep or wide the tree is.
//!
//! Of the way back one number a level is kept, where its directory was left: there a child that became empty is found
//! again, and removed. Reading from the start each time would pass all that was removed, again and again. Nothing
//! else may move directories meanwhile, so `..` is the one that was left.

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, Mode, OFlags, RawDir, openat, unlinkat};
use rustix::io::{Errno, Result};

use super::tree::step;

const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// How often a tree that something still writes into is tried anew.
const ATTEMPTS: usize = 8;

/// Removes what is at `name` in `parent`, with everything below it. Symbolic links are removed, never followed.
/// That nothing is there is fine.
pub(crate) fn tree(parent: BorrowedFd<'_>, name: &[u8]) -> Result<()> {
    let mut result = unlink(parent, name);
    for _ in 0..ATTEMPTS {
        match result {
            Err(Errno::NOTEMPTY | Errno::EXIST) => {
                result = empty(parent, name).and_then(|()| unlink(parent, name))
            }
            Err(Errno::NOENT) => return Ok(()),
            other => return other,
        }
    }
    result
}

/// Empties the directory at `name`.
fn empty(parent: BorrowedFd<'_>, name: &[u8]) -> Result<()> {
    let mut directory = openat(parent, name, DIRECTORY, Mode::empty())?;
    let mut left: Vec<u64> = Vec::new();
    let mut position = 0;
    let mut buffer = Vec::with_capacity(32 << 10);
    loop {
        step();
        if let Some(child) = first_full(&directory, &mut position, buffer.spare_capacity_mut())? {
            directory = child;
            left.push(std::mem::take(&mut position));
        } else if position > 0 {
            // Where positions move when entries go, some may have been passed over.
            position = 0;
        } else if let Some(parent) = left.pop() {
            directory = openat(&directory, c"..", DIRECTORY, Mode::empty())?;
            position = parent;
        } else {
            return Ok(());
        }
    }
}

/// Removes the entries of a directory from `position` on, until one is a directory that is not empty: opens that, and
/// leaves `position` before it.
fn first_full(
    directory: &OwnedFd,
    position: &mut u64,
    buffer: &mut [MaybeUninit<u8>],
) -> Result<Option<OwnedFd>> {
    rustix::fs::seek(directory, rustix::fs::SeekFrom::Start(*position))?;
    let mut entries = RawDir::new(directory, buffer);
    while let Some(entry) = entries.next() {
        let entry = entry?;
        step();
        let name = entry.file_name().to_bytes();
        if matches!(name, b"." | b"..") {
            continue;
        }
        match unlink(directory.as_fd(), name) {
            Ok(()) | Err(Errno::NOENT) => *position = entry.next_entry_cookie(),
            Err(Errno::NOTEMPTY | Errno::EXIST) => {
                return openat(directory, name, DIRECTORY, Mode::empty()).map(Some);
            }
            Err(e) => return Err(e),
        }
    }
    Ok(None)
}

fn unlink(directory: BorrowedFd<'_>, name: &[u8]) -> Result<()> {
    match unlinkat(directory, name, AtFlags::empty()) {
        Err(Errno::ISDIR) => unlinkat(directory, name, AtFlags::REMOVEDIR),
        other => other,
    }
}
