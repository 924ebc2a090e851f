//! Which files were read, so that a change of one of them is seen.

use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

/// The files that were there, with what changes when they do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Stamp(Vec<(PathBuf, [i64; 4])>);

/// Looks at files; those that do not exist are left out.
pub(crate) fn stamp(files: impl IntoIterator<Item = PathBuf>) -> Stamp {
    let known = files.into_iter().filter_map(|file| {
        let data = std::fs::metadata(&file).ok()?;
        // A file that is replaced by a rename may keep its time and size, but not its inode; the time of its last
        // change of any kind cannot be set back.
        let identity = [data.ino().cast_signed(), data.size().cast_signed(), data.ctime(), data.ctime_nsec()];
        data.is_file().then_some((file, identity))
    });
    Stamp(known.collect())
}

impl Stamp {
    /// Returns the files.
    pub(crate) fn paths(&self) -> impl Iterator<Item = &PathBuf> {
        self.0.iter().map(|(path, _)| path)
    }
}
