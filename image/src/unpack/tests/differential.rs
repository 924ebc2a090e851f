//! What GNU tar makes of an archive, and what we make of it, is the same.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown, lchown, symlink};
use std::path::Path;
use std::process::Command;

use rustix::fs::{XattrFlags, lsetxattr};

use super::{describe, unpack};

/// Makes a tree with everything that a layer may hold.
fn sources(root: &Path) {
    let deep = root.join("usr/share").join("long-".repeat(20)).join("name-".repeat(30));
    fs::create_dir_all(&deep).unwrap();
    fs::create_dir(root.join("tmp")).unwrap();
    for (n, size) in [0, 1, 511, 512, 513, 300_000].into_iter().enumerate() {
        fs::write(deep.join(format!("file {n} é")), vec![b'a'; size]).unwrap();
    }
    fs::write(root.join("su"), "suid").unwrap();
    chown(root.join("su"), Some(1000), Some(3_000_000)).unwrap();
    fs::set_permissions(root.join("su"), Permissions::from_mode(0o6711)).unwrap();
    fs::set_permissions(root.join("tmp"), Permissions::from_mode(0o1777)).unwrap();
    fs::hard_link(root.join("su"), root.join("usr/su")).unwrap();
    symlink("../su", root.join("usr/link")).unwrap();
    lchown(root.join("usr/link"), Some(12), Some(34)).unwrap();
    fs::hard_link(root.join("usr/link"), root.join("usr/link2")).unwrap();
    symlink("/".repeat(50) + &"target".repeat(30), root.join("dangling")).unwrap();
    lsetxattr(root.join("su"), "user.note", b"kept\0too", XattrFlags::empty()).unwrap();
    lsetxattr(root.join("tmp"), "user.dir", b"kept", XattrFlags::empty()).unwrap();
    let capability = b"\x01\0\0\x02\0\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
    lsetxattr(deep.join("file 1 é"), "security.capability", capability, XattrFlags::empty()).unwrap();
    run(Command::new("mkfifo").arg(root.join("pipe")));
    let old = ["-h", "-d", "2001-02-03 04:05:06.123456789", "su", "usr/share", "usr/link", "pipe", "."];
    run(Command::new("touch").args(old).current_dir(root));
}

fn run(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn gnu_tar_agrees_in_every_format() {
    let work = tempfile::tempdir().unwrap();
    let source = work.path().join("source");
    fs::create_dir(&source).unwrap();
    sources(&source);
    for format in ["gnu", "posix", "oldgnu"] {
        let archive = work.path().join(format!("{format}.tar"));
        let attributes: &[&str] = if format == "posix" { &["--xattrs", "--xattrs-include=*"] } else { &[] };
        run(Command::new("tar")
            .args(["-c", "--format", format, "--numeric-owner", "--sort=name"])
            .args(attributes)
            .arg("-f")
            .arg(&archive)
            .args(["-C".as_ref(), source.as_os_str(), ".".as_ref()]));
        let (theirs, ours) = (work.path().join(format!("{format}-theirs")), work.path().join(format));
        fs::create_dir(&theirs).unwrap();
        fs::create_dir(&ours).unwrap();
        run(Command::new("tar")
            .args(["-x", "-p", "--numeric-owner", "--same-owner"])
            .args(attributes)
            .arg("-f")
            .arg(&archive)
            .arg("-C")
            .arg(&theirs));
        unpack(&ours, &fs::read(&archive).unwrap()).unwrap();
        assert_eq!(describe(&ours), describe(&theirs), "{format}");
        assert_eq!(super::describe_one(&ours), super::describe_one(&theirs), "{format}");
        if format == "posix" {
            assert_eq!(describe(&ours), describe(&source));
        }
    }
}
