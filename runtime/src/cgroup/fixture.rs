//! Plain directories in the place of cgroupfs, for what is tested without it.

use std::fs;

use tempfile::TempDir;

use super::CgroupPath;
use super::directory::Directory;
use super::hierarchy::{Controller, Hierarchies, Unified};

/// A directory with these files, in the place of a cgroup.
pub(super) fn directory_of(files: &[(&str, &str)]) -> (TempDir, Directory) {
    let root = tempfile::tempdir().unwrap();
    for (file, content) in files {
        fs::write(root.path().join(file), content).unwrap();
    }
    let directory = Directory::new(root.path().to_owned());
    (root, directory)
}

/// A host with v2 alone, and `/pod/one` in it with these files.
pub(super) fn v2_host(files: &[(&str, &str)]) -> (TempDir, Hierarchies, CgroupPath) {
    let root = tempfile::tempdir().unwrap();
    let path = CgroupPath::parse("/pod/one").unwrap();
    let unified = Unified { root: root.path().to_owned(), controllers: Controller::ENABLED.to_vec() };
    let leaf = unified.directory(&path);
    fs::create_dir_all(leaf.path()).unwrap();
    for (file, content) in files {
        fs::write(leaf.path().join(file), content).unwrap();
    }
    (root, Hierarchies { unified: Some(unified), v1: Vec::new() }, path)
}
