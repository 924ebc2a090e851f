//! What is inside sees nothing but its directory, and can do nothing but write there. Runs as root.

use std::fs::{self, File};
use std::net::UdpSocket;
use std::os::fd::AsRawFd;
use std::process::Command;

use rustix::fs::{FileType, Mode, OFlags, XattrFlags, mknodat, openat};
use rustix::io::Errno;

use super::*;

/// Runs [`inside`] in a process of its own, in a directory of its own.
#[test]
fn the_jail_holds() {
    let parent = tempfile::tempdir().unwrap();
    let layer = parent.path().join("layer");
    fs::create_dir(&layer).unwrap();
    fs::write(parent.path().join("outside"), "").unwrap();
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["jail::tests::inside", "--exact", "--nocapture", "--test-threads=1"])
        .env("CORTEN_TEST_JAIL", "1")
        .current_dir(&layer)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert_eq!(fs::read_to_string(layer.join("verdict")).unwrap(), "all held", "{said}");
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(parent.path().to_str().unwrap()), "{mounts}");
}

#[test]
fn inside() {
    if std::env::var_os("CORTEN_TEST_JAIL").is_none() {
        return;
    }
    let before = File::open("/proc/thread-self").unwrap();
    match enter().unwrap() {
        Side::Outside(code) => assert_eq!(code, ExitCode::SUCCESS),
        // The clone has this thread alone, and not the one that waits for the test.
        Side::Inside => {
            let held = std::panic::catch_unwind(|| check(&before));
            std::process::exit(i32::from(held.is_err()));
        }
    }
}

fn check(proc: &File) {
    // The tree is the empty directory, and `..` ends there.
    assert_eq!(fs::read_dir("/").unwrap().count(), 0);
    for path in ["/proc", "/etc", "../outside", "/../outside", "/.."] {
        assert_eq!(fs::read_dir(path).is_ok(), path == "/..", "{path}");
    }
    // What was opened before shows the process that stayed outside, and it is not allowed to be traced.
    assert!(proc.as_raw_fd() > 2);
    assert_eq!(rustix::process::getpid().as_raw_nonzero().get(), 1);
    refused("socket", UdpSocket::bind("127.0.0.1:0"));
    refused("a program", Command::new("/proc/self/exe").spawn());
    refused("mount", rustix::mount::unmount("/", UnmountFlags::DETACH).map_err(io::Error::from));
    let device = |dev, kind| mknodat(CWD, "node", kind, Mode::empty(), dev).map_err(io::Error::from);
    refused("a device", device(rustix::fs::makedev(1, 3), FileType::CharacterDevice));
    refused("a disk", device(rustix::fs::makedev(8, 0), FileType::BlockDevice));
    device(0, FileType::CharacterDevice).unwrap();
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC;
    let file = openat(CWD, "made", flags, Mode::RWXU).unwrap();
    let overlay = rustix::fs::fsetxattr(&file, c"trusted.overlay.opaque", b"y", XattrFlags::empty());
    assert_eq!(overlay, Err(Errno::PERM));
    rustix::fs::fchown(&file, Some(rustix::fs::Uid::from_raw(5)), None).unwrap();
    std::thread::spawn(|| ()).join().unwrap();
    fs::write("verdict", "all held").unwrap();
}

fn refused<T: std::fmt::Debug>(what: &str, result: io::Result<T>) {
    let error = result.expect_err(what);
    assert!(matches!(error.raw_os_error(), Some(libc::EPERM | libc::ENOSYS)), "{what}: {error}");
}
