//! Volumes that an image declares: the first container finds there what the image has at that place.
//!
//! Everything is copied from descriptor to descriptor, no link is followed, and a budget ends what an image
//! could make endless. Device nodes and sockets are left out.

use std::ffi::CStr;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, RawDir, Stat, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

use super::detached::show;
use super::failure::{Context, Failure};
use super::relabel;

const DEPTH: usize = 100;
const ENTRIES: usize = 200_000;
const TIME: Duration = Duration::from_secs(60);
/// Largest piece that sendfile(2) is asked for.
const PIECE: usize = 16 << 20;

const READ_DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Copies what is in the directory `from` into the directory `to`, unless there is something already.
pub(super) fn fill(from: &OwnedFd, to: &OwnedFd) -> Result<(), Failure> {
    let stat = rustix::fs::fstat(from).during(|| "look at the image's directory".into())?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
        return Err(Failure::new("the image has something else than a directory there"));
    }
    let to =
        rustix::fs::openat(to, c".", READ_DIRECTORY, Mode::empty()).during(|| "open the volume".into())?;
    if !is_empty(&to).during(|| "read the volume".into())? {
        return Ok(());
    }
    let from = rustix::fs::openat(from, c".", READ_DIRECTORY, Mode::empty())
        .during(|| "open the image's directory".into())?;
    let mut budget = Budget { entries: ENTRIES, until: Instant::now() + TIME, label: label_of(&to) };
    copy_directory(&from, &to, &mut budget, DEPTH)
}

struct Budget {
    entries: usize,
    until: Instant,
    /// SELinux' context of the volume, which the copies get too.
    label: Option<Vec<u8>>,
}

impl Budget {
    fn spend(&mut self) -> Result<(), Failure> {
        self.entries = self.entries.saturating_sub(1);
        if self.entries == 0 || Instant::now() > self.until {
            return Err(Failure::new("the image has too much there to be copied"));
        }
        Ok(())
    }
}

fn label_of(volume: &OwnedFd) -> Option<Vec<u8>> {
    let mut label = vec![0; 4096];
    let length = rustix::fs::fgetxattr(volume, relabel::ATTRIBUTE, label.as_mut_slice()).ok()?;
    label.truncate(length);
    Some(label)
}

fn is_empty(directory: &OwnedFd) -> Result<bool, Errno> {
    let mut space = [MaybeUninit::uninit(); 512];
    let mut entries = RawDir::new(directory, &mut space);
    while let Some(entry) = entries.next() {
        if !matches!(entry?.file_name().to_bytes(), b"." | b"..") {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Copies the entries and then the directory's own owner, mode and times.
fn copy_directory(from: &OwnedFd, to: &OwnedFd, budget: &mut Budget, depth: usize) -> Result<(), Failure> {
    let mut space = Vec::with_capacity(8192);
    let mut entries = RawDir::new(from, space.spare_capacity_mut());
    while let Some(entry) = entries.next() {
        let entry = entry.during(|| "read a directory of the image".into())?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        budget.spend()?;
        let what = || format!("copy {}", show(name));
        let stat = rustix::fs::statat(from, name, AtFlags::SYMLINK_NOFOLLOW).during(what)?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory if depth == 0 => {
                return Err(Failure::new("the image's directories are too deep"));
            }
            FileType::Directory => {
                rustix::fs::mkdirat(to, name, Mode::from_raw_mode(0o700)).during(what)?;
                let below = rustix::fs::openat(from, name, READ_DIRECTORY, Mode::empty()).during(what)?;
                let copy = rustix::fs::openat(to, name, READ_DIRECTORY, Mode::empty()).during(what)?;
                copy_directory(&below, &copy, budget, depth - 1)?;
            }
            FileType::RegularFile => {
                copy_file((from, to), name, budget).map_err(|failure| named(name, failure))?
            }
            FileType::Symlink => copy_link((from, to), name, &stat).during(what)?,
            FileType::Fifo => {
                rustix::fs::mknodat(to, name, FileType::Fifo, Mode::from_raw_mode(stat.st_mode & 0o777), 0)
                    .and_then(|()| own(to, name, &stat))
                    .during(what)?;
            }
            _ => {}
        }
    }
    copy_metadata(from, to, budget).during(|| "copy the attributes of a directory".into())
}

fn copy_file((from, to): (&OwnedFd, &OwnedFd), name: &CStr, budget: &mut Budget) -> Result<(), Failure> {
    let what = || "copy".to_owned();
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let source = rustix::fs::openat(from, name, flags, Mode::empty()).during(what)?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let copy = rustix::fs::openat(to, name, flags, Mode::from_raw_mode(0o600)).during(what)?;
    loop {
        match rustix::fs::sendfile(&copy, &source, None, PIECE) {
            Ok(0) => break,
            Ok(_) if Instant::now() > budget.until => budget.spend()?,
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno).during(what),
        }
    }
    copy_metadata(&source, &copy, budget).during(what)
}

fn copy_link((from, to): (&OwnedFd, &OwnedFd), name: &CStr, stat: &Stat) -> Result<(), Errno> {
    let target = rustix::fs::readlinkat(from, name, Vec::new())?;
    rustix::fs::symlinkat(&target, to, name)?;
    own(to, name, stat)
}

fn own(to: &OwnedFd, name: &CStr, stat: &Stat) -> Result<(), Errno> {
    let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
    rustix::fs::chownat(to, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
}

/// Owner first: changing it clears the bits of set-user-id programs and file capabilities.
fn copy_metadata(from: &OwnedFd, to: &OwnedFd, budget: &Budget) -> Result<(), Errno> {
    let stat = rustix::fs::fstat(from)?;
    rustix::fs::fchown(to, Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)))?;
    rustix::fs::fchmod(to, Mode::from_raw_mode(stat.st_mode & 0o7777))?;
    copy_attributes(from, to)?;
    if let Some(label) = &budget.label {
        match rustix::fs::fsetxattr(to, relabel::ATTRIBUTE, label, XattrFlags::empty()) {
            // Its files have the label of the mount.
            Err(Errno::OPNOTSUPP) => {}
            result => result?,
        }
    }
    let nanoseconds = |nanoseconds| i64::try_from(nanoseconds).unwrap_or(0);
    let times = Timestamps {
        last_access: Timespec { tv_sec: stat.st_atime, tv_nsec: nanoseconds(stat.st_atime_nsec) },
        last_modification: Timespec { tv_sec: stat.st_mtime, tv_nsec: nanoseconds(stat.st_mtime_nsec) },
    };
    rustix::fs::futimens(to, &times)
}

/// Extended attributes that mean the same in the volume: users' own, access lists, file capabilities.
fn copy_attributes(from: &OwnedFd, to: &OwnedFd) -> Result<(), Errno> {
    let mut names = vec![0; 65536];
    let length = match rustix::fs::flistxattr(from, names.as_mut_slice()) {
        Err(Errno::OPNOTSUPP) => return Ok(()),
        result => result?,
    };
    let names = names.get(..length).unwrap_or_default();
    for name in
        names.split_inclusive(|byte| *byte == 0).filter_map(|name| CStr::from_bytes_with_nul(name).ok())
    {
        let kept = [b"user.".as_slice(), b"system.posix_acl_", b"security.capability"];
        if !kept.iter().any(|prefix| name.to_bytes().starts_with(prefix)) {
            continue;
        }
        let mut value = vec![0; rustix::fs::fgetxattr(from, name, &mut [0; 0][..])?];
        let length = rustix::fs::fgetxattr(from, name, value.as_mut_slice())?;
        let value = value.get(..length).unwrap_or_default();
        match rustix::fs::fsetxattr(to, name, value, XattrFlags::empty()) {
            Ok(()) | Err(Errno::OPNOTSUPP) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

fn named(name: &CStr, failure: Failure) -> Failure {
    Failure { what: format!("{} {}", failure.what, show(name)), ..failure }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
    use std::path::Path;

    use super::*;

    fn open(path: &Path) -> OwnedFd {
        rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).unwrap()
    }

    #[test]
    fn a_volume_gets_what_the_image_has() {
        let dir = tempfile::tempdir().unwrap();
        let (image, volume) = (dir.path().join("image"), dir.path().join("volume"));
        fs::create_dir_all(image.join("sub/deep")).unwrap();
        fs::create_dir(&volume).unwrap();
        fs::write(image.join("sub/file"), "text").unwrap();
        fs::set_permissions(image.join("sub/file"), fs::Permissions::from_mode(0o4755)).unwrap();
        fs::set_permissions(&image, fs::Permissions::from_mode(0o1777)).unwrap();
        symlink("/etc/passwd", image.join("link")).unwrap();
        std::os::unix::fs::chown(image.join("sub/file"), Some(7), Some(8)).unwrap();
        fs::set_permissions(image.join("sub/file"), fs::Permissions::from_mode(0o4755)).unwrap();

        fill(&open(&image), &open(&volume)).unwrap();
        let copy = fs::metadata(volume.join("sub/file")).unwrap();
        assert_eq!((copy.uid(), copy.gid(), copy.mode() & 0o7777), (7, 8, 0o4755));
        assert_eq!(copy.mtime_nsec(), fs::metadata(image.join("sub/file")).unwrap().mtime_nsec());
        assert_eq!(fs::read_to_string(volume.join("sub/file")).unwrap(), "text");
        assert_eq!(fs::read_link(volume.join("link")).unwrap(), Path::new("/etc/passwd"));
        assert!(volume.join("sub/deep").is_dir());
        assert_eq!(fs::metadata(&volume).unwrap().mode() & 0o7777, 0o1777);
    }

    #[test]
    fn a_volume_in_use_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let (image, volume) = (dir.path().join("image"), dir.path().join("volume"));
        fs::create_dir(&image).unwrap();
        fs::create_dir(&volume).unwrap();
        fs::write(image.join("new"), "").unwrap();
        fs::write(volume.join("old"), "").unwrap();
        fill(&open(&image), &open(&volume)).unwrap();
        assert!(!volume.join("new").exists());
    }

    #[test]
    fn endless_depth_ends() {
        let dir = tempfile::tempdir().unwrap();
        let (image, volume) = (dir.path().join("image"), dir.path().join("volume"));
        fs::create_dir(&volume).unwrap();
        fs::create_dir_all((0..DEPTH + 2).fold(image.clone(), |path, _| path.join("d"))).unwrap();
        let failure = fill(&open(&image), &open(&volume)).unwrap_err();
        assert_eq!(failure.what, "the image's directories are too deep");
    }
}
