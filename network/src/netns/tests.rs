//! Namespaces that are made, looked into and deleted, as root.

use std::collections::BTreeMap;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use tempfile::TempDir;

use super::*;

/// A directory for pins, no mount left on it afterwards.
struct Pins(TempDir);

impl Pins {
    /// None where namespaces cannot be made; the test says that it was skipped.
    fn new() -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: needs root");
            return None;
        }
        Some(Self(tempfile::tempdir().expect("directory")))
    }

    fn dir(&self) -> PathBuf {
        self.0.path().join("netns")
    }

    fn mounts(&self) -> BTreeMap<String, String> {
        let text = fs::read_to_string("/proc/self/mountinfo").expect("readable");
        let dir = self.0.path().to_str().expect("a plain path").to_owned();
        let lines = text.lines().filter(|line| line.contains(&dir));
        lines
            .filter_map(|line| {
                let mut fields = line.split(' ');
                Some((fields.nth(4)?.to_owned(), fields.nth(1)?.to_owned()))
            })
            .collect()
    }
}

impl Drop for Pins {
    fn drop(&mut self) {
        for mount in self.mounts().keys().rev() {
            rustix::mount::unmount(mount.as_str(), UnmountFlags::DETACH).expect("unmounted");
        }
    }
}

#[test]
fn made_and_deleted() {
    let Some(pins) = Pins::new() else { return };
    let path = create(&pins.dir()).expect("made");
    let name = path.file_name().and_then(|name| name.to_str()).expect("a name");
    assert!(name.starts_with("cni-") && name.len() == 40, "{name}");
    let inode = |path: &Path| fs::metadata(path).expect("there").ino();
    assert_ne!(inode(&path), inode(Path::new("/proc/self/ns/net")));
    open(&path).expect("a namespace");
    let second = create(&pins.dir()).expect("made");
    let mounts = pins.mounts();
    assert_eq!(mounts.len(), 3, "{mounts:?}");
    assert!(mounts[pins.dir().to_str().expect("plain")].starts_with("shared:"), "{mounts:?}");
    for _ in 0..2 {
        delete(&path).expect("deleted, or gone");
        delete(&second).expect("deleted, or gone");
    }
    assert_eq!(fs::read_dir(pins.dir()).expect("readable").count(), 0);
    assert_eq!(pins.mounts().len(), 1);
}

#[test]
fn loopback_is_up_and_not_counted() {
    let Some(pins) = Pins::new() else { return };
    let path = create(&pins.dir()).expect("made");
    let echo = within(&path, || {
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("bound");
        std::net::TcpStream::connect(listener.local_addr().expect("bound")).expect("connected");
        Ok(())
    });
    echo.expect("entered");
    let missing = path.with_file_name("none");
    let mut found = within_each(&[&missing, &path, &path], usage);
    assert!(found.remove(0).is_err());
    assert_eq!(found.len(), 2);
    let found = found.remove(0).expect("counted");
    assert!(found.iter().all(|interface| interface.name != "lo"), "{found:?}");
    delete(&path).expect("deleted");
}

#[test]
fn what_the_last_boot_left() {
    let Some(pins) = Pins::new() else { return };
    fs::create_dir(pins.dir()).expect("made");
    let path = pins.dir().join("cni-stale");
    fs::write(&path, "").expect("written");
    assert!(matches!(open(&path), Err(Error::NotNamespace { .. })));
    delete(&path).expect("deleted");
    assert!(!path.exists());
    assert!(matches!(open(&path), Err(Error::Namespace { operation: "open", .. })));
}

#[test]
fn a_directory_that_cannot_be_made() {
    let Some(pins) = Pins::new() else { return };
    fs::write(pins.dir(), "").expect("written");
    let error = create(&pins.dir()).expect_err("no directory");
    assert!(error.to_string().starts_with("share the directory of network namespace "), "{error}");
}

#[test]
fn many_at_once_share_one_mount() {
    let Some(pins) = Pins::new() else { return };
    let dir = pins.dir();
    let paths: Vec<_> = thread::scope(|scope| {
        let makers: Vec<_> = (0..8).map(|_| scope.spawn(|| create(&dir).expect("made"))).collect();
        makers.into_iter().map(join).collect()
    });
    assert_eq!(pins.mounts().len(), paths.len() + 1);
    assert_eq!(fs::metadata(&paths[0]).expect("there").permissions().mode() & 0o222, 0);
    for path in paths {
        delete(&path).expect("deleted");
    }
}
