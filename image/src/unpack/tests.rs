//! Tests of unpacking. They run as root, like the program itself.

mod bounds;
mod breakouts;
mod differential;
mod generated;
mod hostile;
mod readers;
mod rules;
mod streams;
pub(crate) mod tar;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Cursor;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use rustix::fs::{lgetxattr, llistxattr};

use super::failure::Failure;
use super::layer::Written;
use super::limits::Limits;
use crate::{Digest, Unpacker};

/// Names this test binary as the program that unpacks: it runs [`unpacking_process`] there.
pub(crate) fn unpacker() -> Unpacker {
    let program = std::env::current_exe().unwrap();
    let name = "unpack::tests::unpacking_process";
    let args = ["CORTEN_TEST_UNPACK=1".as_ref(), program.as_os_str(), name.as_ref(), "--exact".as_ref()];
    let mut args: Vec<_> = args.iter().map(|arg: &&OsStr| (*arg).to_owned()).collect();
    args.extend(["--nocapture".into(), "--quiet".into()]);
    Unpacker { program: "/usr/bin/env".into(), args }
}

/// Is the unpacking process when [`unpacker`] starts it, and nothing otherwise.
#[test]
fn unpacking_process() {
    if std::env::var_os("CORTEN_TEST_UNPACK").is_some() {
        // The test harness has begun a line of its own.
        println!();
        let skeleton = std::io::stderr().as_fd().try_clone_to_owned().unwrap();
        let code = super::main(std::io::stdin(), std::io::stdout(), skeleton.into());
        std::process::exit(i32::from(code != std::process::ExitCode::SUCCESS));
    }
}

/// Makes a directory in memory, if that is there: a disk's file system takes its time to use an inode again.
fn quick_directory() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

/// Unpacks into `layer` in this process, without the jail.
fn unpack(layer: &Path, archive: &[u8]) -> Result<(Digest, Written), Failure> {
    unpack_with(layer, archive, Limits::default())
}

fn unpack_with(layer: &Path, archive: &[u8], limits: Limits) -> Result<(Digest, Written), Failure> {
    rustix::process::umask(rustix::fs::Mode::empty());
    let mut input = super::Order { diff_id: Digest::sha256(b"") }.to_line().unwrap();
    input.extend_from_slice(archive);
    let unpacked = super::unpack(File::open(layer).unwrap().into(), Cursor::new(input), limits, None)?;
    for name in &unpacked.1.marked.opaque {
        super::mark_opaque(File::open(layer).unwrap().as_fd(), &super::Name::parse(name).unwrap()).unwrap();
    }
    Ok(unpacked)
}

/// Unpacks into a fresh directory and describes the result.
fn unpacked(archive: &[u8]) -> (BTreeMap<String, String>, Written) {
    let layer = tempfile::tempdir().unwrap();
    let (digest, written) = unpack(layer.path(), archive).unwrap();
    assert_eq!(digest, Digest::sha256(archive));
    (describe(layer.path()), written)
}

/// Unpacks what must be refused, and returns the reason.
fn refusal(archive: &[u8]) -> String {
    let layer = tempfile::tempdir().unwrap();
    match unpack(layer.path(), archive) {
        Err(e @ (Failure::Refused { .. } | Failure::Input(_))) => e.to_string(),
        other => panic!("{other:?} of what should be refused: {:?}", describe(layer.path())),
    }
}

/// Describes everything below a directory: kind, mode, owner, time, content, target, links and attributes.
fn describe(root: &Path) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut pending = vec![root.to_owned()];
    while let Some(directory) = pending.pop() {
        for entry in fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(root).unwrap().to_string_lossy().into_owned();
            found.insert(name, describe_one(&path));
            if path.symlink_metadata().unwrap().is_dir() {
                pending.push(path);
            }
        }
    }
    found
}

fn describe_one(path: &Path) -> String {
    let metadata = path.symlink_metadata().unwrap();
    let kind = metadata.file_type();
    let mut text = if kind.is_dir() {
        "dir".to_owned()
    } else if kind.is_symlink() {
        format!("link {}", fs::read_link(path).unwrap().display())
    } else if kind.is_fifo() {
        "fifo".to_owned()
    } else if kind.is_char_device() && metadata.rdev() == 0 {
        return "whiteout".to_owned();
    } else if kind.is_file() {
        let content = fs::read(path).unwrap();
        let shown = if content.len() <= 16 {
            String::from_utf8_lossy(&content).into_owned()
        } else {
            Digest::sha256(&content).to_string()
        };
        format!("file {shown:?} x{}", metadata.nlink())
    } else {
        format!("other {kind:?}")
    };
    text += &format!(
        " {:04o} {}:{} {}.{:09}",
        metadata.mode() & 0o7777,
        metadata.uid(),
        metadata.gid(),
        metadata.mtime(),
        metadata.mtime_nsec()
    );
    for (name, value) in xattrs(path) {
        text += &format!(" {name}={:?}", String::from_utf8_lossy(&value));
    }
    text
}

fn xattrs(path: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut names = vec![0; 65536];
    let length = llistxattr(path, &mut names[..]).unwrap();
    let names = names[..length].split(|&b| b == 0).filter(|name| !name.is_empty());
    names
        .map(|name| {
            let mut value = vec![0; 65536];
            let length = lgetxattr(path, name, &mut value[..]).unwrap();
            value.truncate(length);
            (OsStr::from_bytes(name).to_string_lossy().into_owned(), value)
        })
        .collect()
}
