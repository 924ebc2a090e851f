//! SELinux labels of trees that the container gets from the host, as `selinuxRelabel` asks for.
//!
//! Every file is labelled by a descriptor of its own, links themselves and not what they lead to, and what is mounted
//! further down is left alone. While the host's tree is still there: the descriptors are named through its `/proc`.

use std::ffi::CStr;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::fs::{FileType, Mode, OFlags, RawDir, ResolveFlags, XattrFlags};
use rustix::io::Errno;

use super::detached::show;
use super::failure::{Context, Failure};

const DEPTH: usize = 512;
pub(super) const ATTRIBUTE: &CStr = c"security.selinux";

/// Labels the file or directory behind the descriptor, and all that is in it. File systems without labels are fine.
pub(crate) fn relabel(tree: impl AsFd, label: &CStr) -> Result<(), Failure> {
    let what = || format!("label with {}", show(label));
    match set(&tree, label) {
        Err(Errno::OPNOTSUPP) => return Ok(()),
        result => result.during(what)?,
    }
    // Some file systems take every attribute and keep none.
    if current(&tree).during(what)? != label.to_bytes() {
        return Err(Failure::new(format!("{}: the label is another one afterwards", what())));
    }
    if kind(&tree).during(what)? == FileType::Directory { below(&tree, label, DEPTH) } else { Ok(()) }
}

/// Labels the directory behind the descriptor alone, without asking any `/proc`.
pub(super) fn top(tree: impl AsFd, label: &CStr) -> Result<(), Failure> {
    let what = || format!("label with {}", show(label));
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = rustix::fs::openat(tree, c".", flags, Mode::empty()).during(what)?;
    match rustix::fs::fsetxattr(&directory, ATTRIBUTE, label.to_bytes(), XattrFlags::empty()) {
        Err(Errno::OPNOTSUPP) => Ok(()),
        result => result.during(what),
    }
}

fn below(directory: impl AsFd, label: &CStr, depth: usize) -> Result<(), Failure> {
    let what = || "read a directory to label it".to_owned();
    if depth == 0 {
        return Err(Failure::new("label a tree: its directories are too deep"));
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let directory = rustix::fs::openat(directory, c".", flags, Mode::empty()).during(what)?;
    let mut space = [MaybeUninit::uninit(); 2048];
    let mut entries = RawDir::new(&directory, &mut space);
    while let Some(entry) = entries.next() {
        let entry = entry.during(what)?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let Some(file) = open(&directory, name).during(|| format!("open {}", show(name)))? else { continue };
        set(&file, label).during(|| format!("label {}", show(name)))?;
        if kind(&file).during(what)? == FileType::Directory {
            below(&file, label, depth - 1)?;
        }
    }
    Ok(())
}

/// None for what is gone meanwhile, and for what is another file system.
fn open(directory: &OwnedFd, name: &CStr) -> Result<Option<OwnedFd>, Errno> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_XDEV;
    match rustix::fs::openat2(directory, name, flags, Mode::empty(), resolve) {
        Err(Errno::NOENT | Errno::XDEV) => Ok(None),
        result => result.map(Some),
    }
}

fn kind(file: impl AsFd) -> Result<FileType, Errno> {
    Ok(FileType::from_raw_mode(rustix::fs::fstat(file)?.st_mode))
}

/// The name of an O_PATH descriptor leads to its file, to a link itself too.
fn name_of(file: impl AsFd) -> String {
    format!("/proc/self/fd/{}", file.as_fd().as_raw_fd())
}

fn set(file: impl AsFd, label: &CStr) -> Result<(), Errno> {
    rustix::fs::setxattr(name_of(file), ATTRIBUTE, label.to_bytes(), XattrFlags::empty())
}

fn current(file: impl AsFd) -> Result<Vec<u8>, Errno> {
    let mut label = vec![0; 4096];
    let length = rustix::fs::getxattr(name_of(file), ATTRIBUTE, label.as_mut_slice())?;
    label.truncate(length);
    while label.last() == Some(&0) {
        label.pop();
    }
    Ok(label)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::path::Path;

    use super::*;

    const LABEL: &CStr = c"system_u:object_r:container_file_t:s0:c1,c2";

    fn label_of(path: &Path) -> Option<Vec<u8>> {
        let mut label = vec![0; 256];
        let length = rustix::fs::lgetxattr(path, ATTRIBUTE, label.as_mut_slice()).ok()?;
        label.truncate(length);
        Some(label)
    }

    /// A kernel whose SELinux is off keeps these attributes for who may set any.
    #[test]
    fn a_tree_is_labelled_and_nothing_that_its_links_lead_to() {
        let dir = tempfile::tempdir().unwrap();
        let (tree, outside) = (dir.path().join("tree"), dir.path().join("outside"));
        fs::create_dir_all(tree.join("a/b")).unwrap();
        fs::write(tree.join("a/b/file"), "x").unwrap();
        fs::write(&outside, "x").unwrap();
        symlink(&outside, tree.join("link")).unwrap();
        let before = label_of(&outside);
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let root = rustix::fs::open(&tree, flags, Mode::empty()).unwrap();
        relabel(&root, LABEL).unwrap();
        for name in ["", "a", "a/b", "a/b/file", "link"] {
            assert_eq!(label_of(&tree.join(name)).as_deref(), Some(LABEL.to_bytes()), "{name}");
        }
        assert_eq!(label_of(&outside), before);
        let file = rustix::fs::open(&outside, flags, Mode::empty()).unwrap();
        relabel(&file, LABEL).unwrap();
        assert_eq!(label_of(&outside).as_deref(), Some(LABEL.to_bytes()));
    }

    #[test]
    fn the_top_is_labelled_alone() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("file"), "x").unwrap();
        let tree = rustix::fs::open(dir.path(), OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).unwrap();
        let before = label_of(&dir.path().join("file"));
        top(&tree, LABEL).unwrap();
        assert_eq!(label_of(dir.path()).as_deref(), Some(LABEL.to_bytes()));
        assert_eq!(label_of(&dir.path().join("file")), before);
    }

    #[test]
    fn a_file_system_without_labels_is_left_as_it_is() {
        let proc = rustix::fs::open("/proc/sys", OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).unwrap();
        relabel(&proc, LABEL).unwrap();
    }
}
