//! The container's root: finds and makes what is in it without ever leaving it.
//!
//! The tree is hostile, and may change while it is walked. Every step is relative to a descriptor; a link
//! is followed by its text, inside of the root; nothing is looked up twice.

use std::collections::VecDeque;
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

/// As many links as the kernel follows.
const LINKS: usize = 40;
/// How often a lookup is repeated that a rename elsewhere disturbed.
const RETRIES: usize = 64;

const WALK: OFlags = OFlags::PATH.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// The root directory of a container.
#[derive(Debug)]
pub(super) struct Root(OwnedFd);

/// What to make where nothing is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Missing {
    Directory,
    File,
}

impl Root {
    /// The root of the calling process.
    pub(super) fn own() -> Result<Self, Errno> {
        Self::at(c"/")
    }

    /// The root of a tree that is mounted on a directory of the calling process.
    pub(super) fn at(path: &CStr) -> Result<Self, Errno> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        rustix::fs::open(path, flags, Mode::empty()).map(Self)
    }

    /// What is at the path, following links inside of the root.
    pub(super) fn find(&self, path: &CStr) -> Result<OwnedFd, Errno> {
        self.open(path, OFlags::PATH, ResolveFlags::empty())
    }

    /// Opens what is at the path; `resolve` adds to what is always forbidden.
    pub(super) fn open(&self, path: &CStr, flags: OFlags, resolve: ResolveFlags) -> Result<OwnedFd, Errno> {
        let path = if path.is_empty() { c"." } else { path };
        let resolve = resolve | ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        for _ in 0..RETRIES {
            match rustix::fs::openat2(&self.0, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
                Err(Errno::AGAIN | Errno::INTR) => {}
                result => return result,
            }
        }
        Err(Errno::AGAIN)
    }

    /// What is at the path; where nothing is, it is made, with the directories that lead there.
    pub(super) fn find_or_make(&self, path: &CStr, missing: Missing) -> Result<OwnedFd, Errno> {
        match self.find(path) {
            Err(Errno::NOENT) => self.walk(path, missing),
            result => result,
        }
    }

    /// The directory at the path, made if nothing is there; no part of the path may be a link.
    pub(super) fn real_directory(&self, path: &CStr) -> Result<OwnedFd, Errno> {
        let open = || self.open(path, OFlags::PATH | OFlags::DIRECTORY, ResolveFlags::NO_SYMLINKS);
        match open() {
            Err(Errno::NOENT) => {
                self.walk(path, Missing::Directory)?;
                open()
            }
            result => result,
        }
    }

    /// Goes through the path part by part, making what is missing.
    ///
    /// The directories passed are kept open, so that `..` of a link leads back to where the walk came from,
    /// wherever that has been moved meanwhile, and never above the root.
    fn walk(&self, path: &CStr, missing: Missing) -> Result<OwnedFd, Errno> {
        let mut passed: Vec<OwnedFd> = Vec::new();
        let mut ahead = parts(path.to_bytes());
        let mut links = 0;
        while let Some(part) = ahead.pop_front() {
            if part.as_bytes() == b".." {
                passed.pop();
                continue;
            }
            let here = passed.last().map_or_else(|| self.0.as_fd(), AsFd::as_fd);
            let last = ahead.is_empty();
            let next = step(here, &part, if last { missing } else { Missing::Directory })?;
            match FileType::from_raw_mode(rustix::fs::fstat(&next)?.st_mode) {
                FileType::Symlink => {
                    links += 1;
                    if links > LINKS {
                        return Err(Errno::LOOP);
                    }
                    let text = rustix::fs::readlinkat(&next, c"", Vec::new())?;
                    if text.as_bytes().starts_with(b"/") {
                        passed.clear();
                    }
                    for part in parts(text.as_bytes()).into_iter().rev() {
                        ahead.push_front(part);
                    }
                }
                FileType::Directory => passed.push(next),
                _ if last => return Ok(next),
                _ => return Err(Errno::NOTDIR),
            }
        }
        match passed.pop() {
            Some(directory) => Ok(directory),
            None => self.find(c""),
        }
    }
}

impl AsFd for Root {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Makes a directory of the host with those that lead to it.
pub(super) fn make_host_directory(path: &CStr) -> Result<(), Errno> {
    let bytes = path.to_bytes();
    let ends = (1..=bytes.len()).filter(|end| matches!(bytes.get(*end), None | Some(b'/')));
    for prefix in ends.filter_map(|end| bytes.get(..end)) {
        match rustix::fs::mkdirat(CWD, prefix, Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

/// Opens one part of a path, making it if nothing is there.
fn step(here: BorrowedFd<'_>, part: &CStr, missing: Missing) -> Result<OwnedFd, Errno> {
    match rustix::fs::openat(here, part, WALK, Mode::empty()) {
        Err(Errno::NOENT) => {}
        result => return result,
    }
    let made = match missing {
        Missing::Directory => rustix::fs::mkdirat(here, part, Mode::from_raw_mode(0o755)),
        Missing::File => {
            rustix::fs::mknodat(here, part, FileType::RegularFile, Mode::from_raw_mode(0o644), 0)
        }
    };
    match made {
        // Somebody else was faster: what is there now is as good, and looked at again by who called.
        Ok(()) | Err(Errno::EXIST) => rustix::fs::openat(here, part, WALK, Mode::empty()),
        Err(errno) => Err(errno),
    }
}

fn parts(path: &[u8]) -> VecDeque<CString> {
    let parts = path.split(|byte| *byte == b'/').filter(|part| !matches!(*part, b"" | b"."));
    parts.filter_map(|part| CString::new(part).ok()).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::path::Path;

    use super::*;

    fn root(dir: &Path) -> Root {
        Root(
            rustix::fs::open(dir, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).unwrap(),
        )
    }

    /// A directory with a canary outside of the root that is inside of it.
    fn trap() -> (tempfile::TempDir, Root) {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("outside")).unwrap();
        fs::create_dir(dir.path().join("root")).unwrap();
        let root = root(&dir.path().join("root"));
        (dir, root)
    }

    fn is_same(fd: &OwnedFd, path: &Path) -> bool {
        use std::os::unix::fs::MetadataExt;
        let stat = rustix::fs::fstat(fd).unwrap();
        fs::symlink_metadata(path).is_ok_and(|meta| (meta.ino(), meta.dev()) == (stat.st_ino, stat.st_dev))
    }

    #[test]
    fn what_is_missing_is_made_inside() {
        let (dir, root) = trap();
        let fd = root.find_or_make(c"a/b/c", Missing::Directory).unwrap();
        assert!(is_same(&fd, &dir.path().join("root/a/b/c")));
        let fd = root.find_or_make(c"etc/hosts", Missing::File).unwrap();
        assert!(is_same(&fd, &dir.path().join("root/etc/hosts")));
        assert!(dir.path().join("root/etc/hosts").is_file());
    }

    #[test]
    fn links_lead_nowhere_outside() {
        let out = ["/outside", "../outside", "../../../../outside", "/../outside", "./../outside/x/../.."];
        for (index, target) in out.iter().enumerate() {
            let (dir, root) = trap();
            symlink(target, dir.path().join("root/link")).unwrap();
            let fd = root.find_or_make(c"link/file", Missing::File).unwrap();
            let path = rustix::fs::readlink(
                format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&fd)),
                Vec::new(),
            );
            assert!(path.unwrap().to_str().unwrap().contains("/root/"), "{index}");
            assert_eq!(fs::read_dir(dir.path().join("outside")).unwrap().count(), 0, "{target}");
        }
    }

    #[test]
    fn a_dangling_link_as_the_target_is_made_where_it_points_to() {
        let (dir, root) = trap();
        fs::create_dir(dir.path().join("root/etc")).unwrap();
        symlink("../run/resolve/stub.conf", dir.path().join("root/etc/resolv.conf")).unwrap();
        let fd = root.find_or_make(c"etc/resolv.conf", Missing::File).unwrap();
        assert!(is_same(&fd, &dir.path().join("root/run/resolve/stub.conf")));
    }

    #[test]
    fn loops_end_and_files_are_no_directories() {
        let (dir, root) = trap();
        symlink("loop", dir.path().join("root/loop")).unwrap();
        assert_eq!(root.find_or_make(c"loop/x", Missing::File).unwrap_err(), Errno::LOOP);
        fs::write(dir.path().join("root/file"), "").unwrap();
        assert_eq!(root.find_or_make(c"file/x", Missing::File).unwrap_err(), Errno::NOTDIR);
    }

    #[test]
    fn real_directories_are_not_links() {
        let (dir, root) = trap();
        for (name, target) in [("proc", "/outside"), ("dangling", "nowhere"), ("inside", "real")] {
            symlink(target, dir.path().join("root").join(name)).unwrap();
        }
        fs::create_dir(dir.path().join("root/real")).unwrap();
        for name in [c"proc", c"dangling", c"inside", c"inside/x"] {
            assert_eq!(root.real_directory(name).unwrap_err(), Errno::LOOP, "{name:?}");
        }
        assert!(is_same(&root.real_directory(c"sys").unwrap(), &dir.path().join("root/sys")));
        assert!(!dir.path().join("root/real/x").exists());
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig::with_cases(200))]

        /// Whatever links there are, what is found or made is inside, and nothing appears outside.
        #[test]
        fn no_layout_of_links_leads_out(
            links in proptest::collection::vec(
                ("(d/|d/e/|f/)?[abc]", "/?((\\.\\.|outside|[abcdef]|\\.)/){0,5}[abcdef]"), 0..8
            ),
            target in "([abcdef]/){0,4}[abcdef]",
        ) {
            let (dir, root) = trap();
            fs::create_dir_all(dir.path().join("root/d/e")).unwrap();
            fs::create_dir(dir.path().join("root/f")).unwrap();
            for (name, text) in &links {
                // A second link of a name is none.
                symlink(text, dir.path().join("root").join(name)).ok();
            }
            let before = count(dir.path());
            if let Ok(fd) = root.find_or_make(&CString::new(target).unwrap(), Missing::File) {
                let number = std::os::fd::AsRawFd::as_raw_fd(&fd);
                let place = fs::read_link(format!("/proc/self/fd/{number}")).unwrap();
                proptest::prop_assert!(place.starts_with(dir.path().join("root")), "{place:?}");
            }
            proptest::prop_assert_eq!(count(dir.path()), before);
        }
    }

    /// How many there are beside the root and outside of it.
    fn count(dir: &Path) -> (usize, usize) {
        let entries = |dir: &Path| fs::read_dir(dir).unwrap().count();
        (entries(dir), entries(&dir.join("outside")))
    }

    #[test]
    fn magic_links_are_not_followed() {
        let root = root(Path::new("/"));
        let outside = fs::File::open("/etc").unwrap();
        let path = format!("proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&outside));
        assert_eq!(root.find(&CString::new(path).unwrap()).unwrap_err(), Errno::LOOP);
    }

    #[test]
    fn host_directories_are_made_with_their_parents() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b");
        make_host_directory(&CString::new(path.to_str().unwrap()).unwrap()).unwrap();
        assert!(path.is_dir());
    }
}
