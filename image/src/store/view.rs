//! Reads a file out of stacked layers as overlayfs would show it, without a mount.
//!
//! Symbolic links are followed inside the image only: an absolute one begins at the image's root, and `..` ends
//! there. Every step is one component on a descriptor.

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, openat, readlinkat, statat};
use rustix::io::{Errno, Result};

use super::implied::is_opaque;
use crate::unpack::{is_whiteout, open_directory};

/// How many symbolic links a path may meet, as in the kernel.
const MAX_LINKS: usize = 40;

/// How many components may be walked in all.
const MAX_STEPS: usize = 1000;

/// What reading came to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Content {
    /// The whole file.
    File(Vec<u8>),
    /// There is no regular file.
    Missing,
    /// The file is longer than allowed.
    TooLong,
}

/// A directory of the image: the directories that make it up, the topmost first.
type Merged = Vec<OwnedFd>;

enum Found {
    Directory(Merged),
    Link(Vec<u8>),
    /// A regular file, in this directory.
    File(usize),
    Nothing,
}

/// Reads the file at `path` of the image made of `lowers`, the topmost first, in the directory `layers`.
pub(super) fn read(layers: BorrowedFd<'_>, lowers: &[String], path: &str, limit: u64) -> Result<Content> {
    let root =
        || lowers.iter().map(|name| open_directory(layers, name.as_bytes())).collect::<Result<Merged>>();
    let mut stack = vec![root()?];
    let mut rest: Vec<Vec<u8>> = components(path.as_bytes());
    let (mut links, mut steps) = (0, 0);
    while let Some(component) = rest.pop() {
        steps += 1;
        if steps > MAX_STEPS {
            return Ok(Content::Missing);
        }
        if component == b".." {
            stack.truncate((stack.len() - 1).max(1));
            continue;
        }
        let Some(directory) = stack.last() else {
            return Ok(Content::Missing);
        };
        match look(directory, &component)? {
            Found::Nothing => return Ok(Content::Missing),
            Found::Directory(merged) => stack.push(merged),
            Found::File(index) if rest.is_empty() => return read_file(&directory[index], &component, limit),
            Found::File(_) => return Ok(Content::Missing),
            Found::Link(target) => {
                links += 1;
                if links > MAX_LINKS {
                    return Ok(Content::Missing);
                }
                if target.starts_with(b"/") {
                    stack.truncate(1);
                }
                rest.extend(components(&target));
            }
        }
    }
    Ok(Content::Missing)
}

/// Returns the components of a path, the last first.
fn components(path: &[u8]) -> Vec<Vec<u8>> {
    path.split(|&b| b == b'/').rev().filter(|&c| !matches!(c, b"" | b".")).map(<[u8]>::to_vec).collect()
}

/// Finds what a directory of the image shows under a name.
fn look(directory: &Merged, name: &[u8]) -> Result<Found> {
    let mut merged = Merged::new();
    for (index, part) in directory.iter().enumerate() {
        let found = match statat(part, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(found) => found,
            Err(Errno::NOENT) => continue,
            Err(Errno::NAMETOOLONG) => return Ok(Found::Nothing),
            Err(e) => return Err(e),
        };
        let kind = FileType::from_raw_mode(found.st_mode);
        if kind == FileType::Directory {
            let next = open_directory(part.as_fd(), name)?;
            let last = is_opaque(next.as_fd())?;
            merged.push(next);
            if last {
                break;
            }
        } else if !merged.is_empty() || is_whiteout(&found) {
            break;
        } else {
            return Ok(match kind {
                FileType::RegularFile => Found::File(index),
                FileType::Symlink => Found::Link(readlinkat(part, name, Vec::new())?.into_bytes()),
                _ => Found::Nothing,
            });
        }
    }
    Ok(if merged.is_empty() { Found::Nothing } else { Found::Directory(merged) })
}

fn read_file(directory: &OwnedFd, name: &[u8], limit: u64) -> Result<Content> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = File::from(openat(directory, name, flags, Mode::empty())?);
    let mut content = Vec::new();
    let read = file.take(limit.saturating_add(1)).read_to_end(&mut content);
    let length = read.map_err(|e| Errno::from_io_error(&e).unwrap_or(Errno::IO))? as u64;
    Ok(if length > limit { Content::TooLong } else { Content::File(content) })
}
